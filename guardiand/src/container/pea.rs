//! Peas: processes with a root filesystem of their own, in the other namespaces of a container.
//!
//! A pea's process directory is also its bundle, and its process id the name of its image and of
//! its OCI container. So whatever there is of a pea can be found, and taken away, by its directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use guardian_contract::depot::{Bundle, BundleSpec, Handle, Sandbox};
use guardian_contract::fault::Fault;
use guardian_contract::file::{read_json, replace_json};
use guardian_contract::garden::{Limits, ProcessSpec, WaitFor};
use guardian_contract::image::{Create, Fragment, plugin_uri};
use guardian_contract::log;
use guardian_contract::process::ProcessDir;
use oci_spec::runtime::Spec;
use serde_json::json;

use super::Container;
use super::facts::Facts;
use crate::cgroup;
use crate::guardian::Guardian;
use crate::process::account::{self, Account};
use crate::process::jail::Jail;
use crate::process::keeper::Passed;
use crate::process::{Pipes, keeper, spec};

impl Guardian {
    /// Starts a pea whose process directory was reserved. On failure all but that directory is
    /// taken back.
    pub(crate) async fn start_pea(
        self: &Arc<Self>,
        container: &Container,
        process_id: &Handle,
        spec: &ProcessSpec,
        stdio: Option<Passed>,
    ) -> anyhow::Result<Pipes> {
        let started = self.try_start_pea(container, process_id, spec, stdio).await;
        if started.is_err() {
            self.clean_up_pea(process_id).await;
        }
        started
    }

    async fn try_start_pea(
        &self,
        container: &Container,
        process_id: &Handle,
        spec: &ProcessSpec,
        stdio: Option<Passed>,
    ) -> anyhow::Result<Pipes> {
        if let Some(mount) = spec.bind_mounts.iter().find(|mount| mount.idmap) {
            let text = format!("bind mount '{}' of a pea can't be id-mapped", mount.src_path);
            return Err(Fault::invalid(text).into());
        }
        let facts = container.facts()?;
        let ids = facts.ids();
        let maps = (!ids.uid.is_empty()).then_some(&ids);
        let create = Create {
            username: spec.image.username.clone(),
            password: spec.image.password.clone(),
            uri: plugin_uri(&spec.image.uri),
            ..Create::default()
        };
        let images = &self.settings.images;
        let fragment = images.create(process_id, &create, maps).await.context("creating-volume")?;
        let account = resolve(&spec.user, &fragment.root.path)?;
        let sandbox = Sandbox {
            pid: container.init()?.pid,
            handle: container.handle().to_string(),
            bundle: container.bundle.path().into(),
            shares_limits: spec.limits.is_none(),
        };
        if sandbox.shares_limits {
            let home = container.home(&self.settings.flags.listen.tag)?;
            tokio::task::spawn_blocking(move || cgroup::leaf::make_room(&home)).await??;
        }
        let root = fragment.root.path.clone();
        let wanted = bundle_spec(fragment, spec, &facts, sandbox);
        let depot = &self.settings.depot_tool;
        depot.create_pea(&container.bundle.processes(), process_id, &wanted).await?;
        let dir = container.bundle.process(process_id);
        let group = complete(&dir, spec, &account, &root)?;
        let start = keeper::Start {
            bundle: &container.bundle,
            process_id,
            task: keeper::Task::Pea,
            tty: spec.tty.is_some(),
            stdio,
            tree: (spec.wait_for == WaitFor::Tree).then(|| cgroup::leaf::watched(&group)),
        };
        keeper::start(&self.settings.dadoo, &self.settings.runtime, start).await
    }

    /// Takes away what a pea that ended leaves: the runtime's state, its control group, its root
    /// filesystem. What fails is logged; nobody waits for it.
    pub(crate) async fn clean_up_pea(&self, process_id: &Handle) {
        let scratch = self.settings.depot.path().join(format!(".{process_id}.log"));
        let failures = [
            self.settings.runtime.delete(process_id, &scratch).await,
            cgroup::remove(&self.settings.flags.listen.tag, process_id),
            self.settings.images.delete(process_id).await,
        ];
        for error in failures.into_iter().filter_map(Result::err) {
            let data = json!({"process": process_id.as_str(), "error": format!("{error:#}")});
            log::error("process-cleanup", &data);
        }
    }
}

/// Tells whether a process directory is a pea's.
pub(crate) fn is_pea(dir: &ProcessDir) -> bool {
    dir.config().exists()
}

/// Tells whether a process has a control group of its own, which outlives it and tells what it uses:
/// a pea, or one that counts with its descendants.
pub(crate) fn has_own_group(dir: &ProcessDir) -> bool {
    is_pea(dir) || dir.cgroup().exists()
}

/// Returns the process ids of a container's peas, running or not.
pub(crate) fn all(bundle: &Bundle) -> Vec<Handle> {
    let entries = std::fs::read_dir(bundle.processes()).into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<Handle>().ok());
    ids.filter(|id| is_pea(&bundle.process(id))).collect()
}

/// Looks a user up in the pea's own files. `uid:gid` is taken as it is; a group goes with nothing
/// else, as in gdn.
fn resolve(user: &str, root: &Path) -> anyhow::Result<Account> {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match user.split_once(':') {
        Some((uid, gid)) if !number(uid) || !number(gid) => {
            let text = format!("parse-user: '{user}' is not a valid uid:gid");
            return Err(Fault::invalid(text).into());
        }
        _ => {}
    }
    let jail = Jail::at(root)?;
    let account = account::resolve(user, &jail.text("/etc/passwd")?, &jail.text("/etc/group")?)?;
    let (gid, groups) = (if user.is_empty() { 0 } else { account.gid }, Vec::new());
    Ok(Account { gid, groups, ..account })
}

fn bundle_spec(
    fragment: Fragment,
    spec: &ProcessSpec,
    facts: &Facts,
    sandbox: Sandbox,
) -> BundleSpec {
    let own = spec.limits.clone().unwrap_or_default();
    BundleSpec {
        no_new_privileges: facts.no_new_privileges,
        root: fragment.root,
        process: fragment.process,
        mounts: fragment.mounts,
        windows: fragment.windows,
        env: Vec::new(),
        bind_mounts: spec.bind_mounts.clone(),
        limits: Limits { cpu: own.cpu, memory: own.memory, ..Limits::default() },
        privileged: facts.uid_map.is_empty(),
        ids: facts.ids(),
        sandbox: Some(sandbox),
    }
}

/// Puts the process into the pea's configuration, in the place of init. Returns its cgroup's path
/// below a hierarchy's root.
fn complete(
    dir: &ProcessDir,
    spec: &ProcessSpec,
    account: &Account,
    root: &Path,
) -> anyhow::Result<PathBuf> {
    let path = dir.config();
    let mut config: Spec = read_json(&path)?.context("the pea's bundle has no configuration")?;
    let user = format!("{}:{}", account.uid, account.gid);
    let spec = ProcessSpec { user, ..spec.clone() };
    let dir = if spec.dir.is_empty() { "/" } else { &spec.dir };
    let dir = if Jail::at(root)?.lacks(dir) { "/" } else { dir };
    config.set_process(Some(spec::build(&spec, &Facts::of(&config), account, dir)?));
    replace_json(&path, &config)?;
    let group = config.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    group.context("the pea's bundle names no cgroup")
}
