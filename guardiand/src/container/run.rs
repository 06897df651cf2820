//! Running a process in a container, and finding one that runs.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::garden::{ApiError, ProcessSpec, WaitFor};
use guardian_contract::ids::host_id;
use guardian_contract::log;
use serde_json::json;

use super::{Container, Phase, pea};
use crate::cgroup;
use crate::event::{Event, Kind};
use crate::files;
use crate::guardian::Guardian;
use crate::process::account;
use crate::process::attach::Attachment;
use crate::process::jail::Jail;
use crate::process::keeper::Passed;
use crate::process::{Pipes, Process, keeper, spec};
use crate::telemetry;

impl Guardian {
    /// Starts a process and attaches to it before it can print anything that would be missed. Its
    /// standard streams are FIFOs, unless they are passed.
    ///
    /// # Errors
    /// In gdn's words.
    pub(crate) async fn run(
        self: &Arc<Self>,
        container: &Arc<Container>,
        spec: ProcessSpec,
        stdio: Option<Passed>,
    ) -> anyhow::Result<Arc<Attachment>> {
        refuse(&spec)?;
        let process_id: Handle = match spec.id.as_str() {
            "" => uuid::Uuid::new_v4().to_string().parse()?,
            id => id.parse()?,
        };
        let facts = container.facts()?;
        let owner = (host_id(&facts.uid_map, 0), host_id(&facts.gid_map, 0));
        let dir = keeper::reserve(&container.bundle, &process_id, owner, stdio.is_none())?;
        if spec.keep_output {
            std::fs::write(dir.keep_output(), "").context("keep output")?;
        }
        let start = Instant::now();
        let started = match spec.image.uri.is_empty() {
            true => self.start(container, &process_id, spec, stdio).await,
            false => self.start_pea(container, &process_id, &spec, stdio).await,
        };
        telemetry::OPERATIONS.ended("run", start, started.is_ok());
        let pipes = started.inspect_err(|_| keeper::release(&dir))?;
        self.throttle_new_process(container);
        let process = Process::started(process_id.clone(), dir, &self.settings.dadoo);
        let attachment = self.attachments.attach(&process);
        let pid = process.pid().map(|pid| pid.as_raw_nonzero().get());
        let event = Event::new(Kind::Start, container.handle()).process(&process_id).pid(pid);
        self.events.tell(event);
        process.watch(pipes, self.settings.flags.lifecycle.drain_timeout);
        self.keep(container, process);
        let names = json!({"handle": container.handle().as_str(), "process": process_id.as_str()});
        log::info("run.started", &names);
        Ok(attachment)
    }

    async fn start(
        self: &Arc<Self>,
        container: &Arc<Container>,
        process_id: &Handle,
        spec: ProcessSpec,
        stdio: Option<Passed>,
    ) -> anyhow::Result<Pipes> {
        let (tty, wait_for) = (spec.tty.is_some(), spec.wait_for);
        let prepared = Arc::clone(container);
        let Prepared { process, missing_dir } =
            tokio::task::spawn_blocking(move || prepare(&prepared, &spec)).await??;
        if let Some(missing) = missing_dir {
            files::make_dir(self, container, &missing.user, &missing.dir).await?;
        }
        let home = container.home(&self.settings.flags.listen.tag)?;
        let tree = match wait_for {
            WaitFor::Process => None,
            WaitFor::Tree => Some(cgroup::leaf::make(&home, process_id)?),
        };
        let has_leaf = tree.is_some();
        let task = keeper::Task::Exec(process);
        let start = keeper::Start { bundle: &container.bundle, process_id, task, tty, stdio, tree };
        let started = keeper::start(&self.settings.dadoo, &self.settings.runtime, start).await;
        if started.is_err() && has_leaf {
            cgroup::leaf::remove(&home, process_id);
        }
        started
    }

    /// Attaches to a process that runs, or that ended and left its exit code.
    ///
    /// # Errors
    /// The not-found error.
    pub(crate) fn attach(
        self: &Arc<Self>,
        container: &Arc<Container>,
        process_id: &str,
    ) -> Result<Arc<Attachment>, ApiError> {
        let process = self.process(container, process_id);
        let process = process.ok_or_else(|| ApiError::process_not_found(process_id))?;
        Ok(self.attachments.attach(&process))
    }

    fn process(&self, container: &Container, id: &str) -> Option<Arc<Process>> {
        let id: Handle = id.parse().ok()?;
        if let Some(process) = container.processes().get(&id) {
            return Some(Arc::clone(process));
        }
        let dir = container.bundle.process(&id);
        Process::ended_in(id, dir, &self.settings.dadoo)
    }

    /// Keeps a running process at hand until it has ended; afterwards its directory is enough.
    pub(crate) fn keep(self: &Arc<Self>, container: &Arc<Container>, process: Arc<Process>) {
        container.processes().insert(process.id.clone(), Arc::clone(&process));
        if pea::is_pea(&container.bundle.process(&process.id)) {
            self.watch_pea(container, &process);
        }
        let (guardian, container) = (Arc::clone(self), Arc::clone(container));
        tokio::spawn(async move {
            process.ended().await;
            guardian.tell_end(&container, &process);
            let dir = container.bundle.process(&process.id);
            // The pea of a container that is going is that destroy's business.
            if pea::is_pea(&dir) && container.phase() == Phase::Live {
                guardian.clean_up_pea(&process.id).await;
            }
            if dir.cgroup().exists() {
                let home = container.home(&guardian.settings.flags.listen.tag);
                home.iter().for_each(|home| cgroup::leaf::remove(home, &process.id));
            }
            container.processes().remove(&process.id);
            if guardian.settings.flags.lifecycle.cleanup_process_dirs_on_wait {
                keeper::release(&dir);
            }
        });
    }
}

impl Guardian {
    /// Tells those who listen that a process has ended: once, whoever comes first.
    pub(super) fn tell_end(&self, container: &Container, process: &Process) {
        if let Some(ending) = process.ending_to_tell() {
            let event = Event::new(Kind::Exit, container.handle()).process(&process.id);
            self.events.tell(event.exit_code(ending.code()));
        }
    }
}

/// Refuses what Garden refuses.
fn refuse(spec: &ProcessSpec) -> anyhow::Result<()> {
    if !spec.bind_mounts.is_empty() && spec.image.uri.is_empty() {
        let text = "Running a process with bind mounts and no image provided is not allowed";
        return Err(Fault::invalid(text).into());
    }
    if spec.path.is_empty() {
        return Err(Fault::invalid("process has no path").into());
    }
    Ok(())
}

/// A process as the runtime wants it, and what it lacks in the container.
struct Prepared {
    process: Vec<u8>,
    missing_dir: Option<MissingDir>,
}

/// A working directory that is to be made first.
struct MissingDir {
    user: String,
    dir: String,
}

/// Looks the user up and builds the OCI process object. That reads the container's files, so it
/// runs on a thread that may block.
fn prepare(container: &Container, spec: &ProcessSpec) -> anyhow::Result<Prepared> {
    let facts = container.facts()?;
    let jail = Jail::of(container.init()?.pid)?;
    let (passwd, group) = (jail.text("/etc/passwd")?, jail.text("/etc/group")?);
    let account = account::resolve(&spec.user, &passwd, &group)?;
    let dir = match spec.dir.as_str() {
        "" => account.home.clone(),
        dir => dir.to_owned(),
    };
    let missing_dir = jail
        .lacks(&dir)
        .then(|| MissingDir { user: format!("{}:{}", account.uid, account.gid), dir: dir.clone() });
    let process = spec::build(spec, &facts, &account, &dir)?;
    let process = serde_json::to_vec(&process).context("encode the OCI process")?;
    Ok(Prepared { process, missing_dir })
}
