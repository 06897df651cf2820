//! Making a container: journal, root filesystem, bundle, init, network; then it can be seen.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use guardian_contract::depot::{BundleSpec, Handle, Init};
use guardian_contract::fault::Fault;
use guardian_contract::file::replace_json;
use guardian_contract::garden::{ApiError, ContainerSpec};
use guardian_contract::image::{Create, Fragment, plugin_uri};
use guardian_contract::journal::{Mark, Operation};
use guardian_contract::log;
use serde_json::json;

use super::properties::{GRACE_TIME, Properties, STATE};
use super::{Container, Phase, begun, facts, grace};
use crate::event::{Event, Kind};
use crate::guardian::{Guardian, api_error};
use crate::telemetry;

impl Guardian {
    /// Makes a container and returns its handle. On failure everything begun is taken back, and
    /// the error is the one that made it fail.
    ///
    /// # Errors
    /// In gdn's words where its clients compare them.
    pub(crate) async fn create(self: &Arc<Self>, spec: ContainerSpec) -> Result<Handle, ApiError> {
        let handle = self.check(&spec)?;
        let bundle = self.settings.depot.bundle(&handle);
        let properties = Properties::new(bundle.properties(), spec.properties.clone());
        let container = Container::new(bundle, Phase::Creating, properties);
        self.admit(&container)?;
        if let Err(error) = reserve(&container) {
            self.forget(&handle);
            return Err(api_error(&error));
        }
        log::info("create.start", &json!({"handle": handle.as_str()}));
        let (start, _in_flight) = (Instant::now(), telemetry::CREATING.hold());
        let made = self.make(&container, spec).await;
        telemetry::OPERATIONS.ended("create", start, made.is_ok());
        if let Err(error) = made {
            log::error(
                "create.failed",
                &json!({"handle": handle.as_str(), "error": format!("{error:#}")}),
            );
            let event = Event::new(Kind::CreateFailed, &handle).error(format!("{error:#}"));
            self.events.tell(event);
            // One that fails to be taken back stays in the depot, hidden, and can be destroyed.
            container.set_phase(Phase::Destroying);
            if let Err(failures) = self.take_down(&container).await {
                log::error("create-failed-cleaningup.destroy-failed", &json!({"error": failures}));
                let guardian = Arc::clone(self);
                tokio::spawn(async move { guardian.persist(&container).await });
            }
            return Err(api_error(&error));
        }
        log::info("create.created", &json!({"handle": handle.as_str()}));
        self.events.tell(Event::new(Kind::Create, &handle));
        self.watch(&container);
        let countdown = container.properties.get(GRACE_TIME).and_then(|text| text.parse().ok());
        grace::set(self, &container, countdown.unwrap_or(0));
        Ok(handle)
    }

    /// Refuses what can be refused before anything is touched, and settles the handle.
    fn check(&self, spec: &ContainerSpec) -> Result<Handle, ApiError> {
        let lifecycle = &self.settings.flags.lifecycle;
        if spec.privileged && lifecycle.disable_privileged_containers {
            return Err(ApiError::other("privileged container creation is disabled"));
        }
        if !spec.image.uri.is_empty() && !spec.rootfs.is_empty() {
            return Err(ApiError::other("Cannot provide both Image.URI and RootFSPath"));
        }
        match spec.handle.as_str() {
            "" => uuid::Uuid::new_v4().to_string().parse(),
            handle => handle.parse(),
        }
        .map_err(|fault: Fault| ApiError::other(fault.message))
    }

    async fn make(&self, container: &Container, mut spec: ContainerSpec) -> anyhow::Result<()> {
        let journal = container.journal();
        let begin = |step| {
            journal.mark(Operation::Create, step, Mark::Begin)?;
            anyhow::Ok(Instant::now())
        };
        let done = |step, start: Instant| {
            telemetry::CREATE_STEPS.took(&[step], start.elapsed());
            journal.mark(Operation::Create, step, Mark::Done)
        };

        let handle = container.handle();
        let start = Instant::now();
        let ids = self.give_ids(container, &spec).await?;
        telemetry::CREATE_STEPS.took(&["ids"], start.elapsed());

        let start = begin("rootfs")?;
        let image = self.image(&spec);
        let fragment = self.settings.images.create(handle, &image, ids.as_ref()).await?;
        done("rootfs", start)?;
        self.prepare_mounts(container, &mut spec, ids.as_ref(), &fragment.root.path).await?;

        let start = begin("bundle")?;
        let bundle_spec = bundle_spec(fragment, &spec, ids.unwrap_or_default());
        self.settings.depot_tool.create(handle, &bundle_spec).await?;
        done("bundle", start)?;

        let start = begin("runtime")?;
        self.settings.runtime.run(&container.bundle).await?;
        let pid = facts::read_pid(&container.bundle).context("container init PID was 0")?;
        let init = Init::of(pid).context("container init ended at once")?;
        replace_json(&container.bundle.init(), &init)?;
        container.set_block_io_weight()?;
        done("runtime", start)?;

        let start = begin("network")?;
        self.connect(container, &spec, pid).await?;
        done("network", start)?;
        begun::wait(pid).await;

        let grace_time = match spec.grace_time {
            0 => i64::try_from(self.settings.flags.lifecycle.default_grace_time.as_nanos())?,
            nanoseconds => nanoseconds,
        };
        // The last step: from here on, clients see a container whose properties are complete.
        journal.mark(Operation::Create, "", Mark::Done)?;
        container.set_phase(Phase::Live);
        container.properties.change(|map| {
            if grace_time != 0 {
                map.insert(GRACE_TIME.into(), grace_time.to_string());
            }
            map.insert(STATE.into(), "created".into());
        })
    }

    fn image(&self, spec: &ContainerSpec) -> Create {
        let named = if spec.image.uri.is_empty() { &spec.rootfs } else { &spec.image.uri };
        let uri = match named.is_empty() {
            true => &self.settings.flags.lifecycle.default_rootfs,
            false => named,
        };
        Create {
            disk_limit_bytes: spec.limits.disk.byte_hard,
            inode_limit: spec.limits.disk.inode_hard,
            exclude_image_from_quota: spec.limits.disk.scope == 1,
            username: spec.image.username.clone(),
            password: spec.image.password.clone(),
            uri: plugin_uri(uri),
        }
    }
}

/// Makes the bundle directory, which takes the handle on disk, and opens the journal.
fn reserve(container: &Container) -> anyhow::Result<()> {
    let path = container.bundle.path();
    std::fs::create_dir(path).with_context(|| format!("make directory {}", path.display()))?;
    container.journal().mark(Operation::Create, "", Mark::Begin)
}

fn bundle_spec(
    fragment: Fragment,
    spec: &ContainerSpec,
    ids: guardian_contract::ids::IdMaps,
) -> BundleSpec {
    BundleSpec {
        root: fragment.root,
        process: fragment.process,
        mounts: fragment.mounts,
        windows: fragment.windows,
        env: spec.env.clone(),
        bind_mounts: spec.bind_mounts.clone(),
        limits: spec.limits.clone(),
        privileged: spec.privileged,
        no_new_privileges: spec.no_new_privileges,
        ids,
        sandbox: None,
    }
}
