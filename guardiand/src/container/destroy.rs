//! Taking a container away: everything in it killed, then runtime, network, root filesystem and
//! ids, and the bundle last, so that whatever fails can be tried again.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use guardian_contract::depot::Init;
use guardian_contract::garden::{ApiError, SERVICE_UNAVAILABLE};
use guardian_contract::journal::{Mark, Operation};
use guardian_contract::log;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;

use super::{Container, Phase, facts, grace, pea};
use crate::cgroup;
use crate::event::{Event, Kind};
use crate::guardian::Guardian;
use crate::telemetry;
use crate::throttle;

/// How long a killed container may take to die, in seconds. Longer means that the kernel can't let
/// go of it.
const DEATH_SECONDS: i64 = 10;

/// How long a destroy that failed rests before it is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// How long it rests in the end.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How long the keepers of processes may take to write down how those ended.
const FAREWELL: Duration = Duration::from_secs(5);

impl Guardian {
    /// Destroys a container.
    ///
    /// # Errors
    /// `container already being destroyed`; the not-found error; all that failed, in which case
    /// the container is still there and can be destroyed again.
    pub(crate) async fn destroy(self: &Arc<Self>, handle: &str) -> Result<(), ApiError> {
        let container = self.find_any(handle)?;
        if container.phase() == Phase::Creating {
            let text = format!("container '{handle}' is still being created");
            return Err(ApiError::typed(SERVICE_UNAVAILABLE, text));
        }
        if !container.begin_destroy() {
            return Err(ApiError::other("container already being destroyed"));
        }
        // The client going away must not leave half a container: the work is a task of its own.
        let guardian = Arc::clone(self);
        let work = tokio::spawn(async move {
            let result = guardian.take_down(&container).await;
            if result.is_err() {
                tokio::spawn(async move { guardian.persist(&container).await });
            }
            result
        });
        match work.await {
            Ok(result) => result.map_err(ApiError::other),
            Err(error) => Err(ApiError::other(format!("destroy was cut off: {error}"))),
        }
    }

    /// Goes on trying to destroy a container that could not be destroyed, less and less often: what
    /// holds it (a dead file server, say) may come back. Nobody waits for this.
    pub(crate) async fn persist(self: &Arc<Self>, container: &Arc<Container>) {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            // Somebody else may have succeeded, or be at it.
            if container.phase() != Phase::Broken || !container.begin_destroy() {
                return;
            }
            if self.take_down(container).await.is_ok() {
                return;
            }
        }
    }

    /// Takes away whatever there is of a container whose phase is [`Phase::Destroying`]. Every
    /// step is tried, whatever became of the others.
    ///
    /// # Errors
    /// The words of all that failed.
    pub(crate) async fn take_down(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<(), String> {
        let handle = container.handle();
        log::info("destroy.start", &json!({"handle": handle.as_str()}));
        grace::set(self, container, 0);
        container.watches.end();
        let start = Instant::now();
        let mut failures = Vec::new();
        let mut note = |step: &str, result: anyhow::Result<()>| {
            let mark = result
                .is_ok()
                .then(|| container.journal().mark(Operation::Destroy, step, Mark::Done));
            if let Err(error) = mark.map_or(result, |marked| marked) {
                failures.push(format!("{step}: {error:#}"));
            }
        };
        note("begin", container.journal().mark(Operation::Destroy, "", Mark::Begin));
        let killed = kill(container).await;
        container.set_unkillable(killed.is_err());
        note("processes", killed);
        for pea in pea::all(&container.bundle) {
            self.clean_up_pea(&pea).await;
        }
        let scratch = container.bundle.path().join("delete.log");
        note("runtime", self.settings.runtime.delete(handle, &scratch).await);
        note("cgroup", cgroup::remove(&self.settings.flags.listen.tag, handle));
        // Links and layers have nothing to do with each other.
        let (network, rootfs) =
            tokio::join!(self.settings.network.down(handle), self.settings.images.delete(handle),);
        note("network", network);
        note("rootfs", rootfs);
        note("ids", self.take_ids_back(container).await);
        if failures.is_empty() {
            self.farewell(container).await;
            if let Err(error) = self.settings.depot_tool.destroy(handle).await {
                failures.push(format!("bundle: {error:#}"));
            }
        }
        telemetry::OPERATIONS.ended("destroy", start, failures.is_empty());
        if failures.is_empty() {
            self.forget(handle);
            log::info("destroy.destroyed", &json!({"handle": handle.as_str()}));
            self.events.tell(Event::new(Kind::Destroy, handle));
            return Ok(());
        }
        container.set_phase(Phase::Broken);
        let list: String = failures.iter().map(|failure| format!("\n\t* {failure}")).collect();
        let plural = if failures.len() == 1 { "error" } else { "errors" };
        let text = format!("{} {plural} occurred:{list}\n", failures.len());
        log::error("destroy.failed", &json!({"handle": handle.as_str(), "error": text}));
        Err(text)
    }

    /// Lets everybody who is attached hear how the processes ended, before the bundle that says so is
    /// removed.
    async fn farewell(&self, container: &Container) {
        let processes: Vec<_> = container.processes().values().cloned().collect();
        let all = async {
            for process in processes {
                process.ended().await;
                self.tell_end(container, &process);
            }
        };
        let _ = tokio::time::timeout(FAREWELL, all).await;
    }
}

/// Kills the first process, and with it (pid_namespaces(7)) everything else in the container;
/// then waits until it is dead, because runtimes that have to kill poll for that in long steps.
async fn kill(container: &Container) -> anyhow::Result<()> {
    let Some(init) = facts::read_init(&container.bundle).filter(Init::is_alive) else {
        return Ok(());
    };
    let Some(pid) = Pid::from_raw(init.pid) else { return Ok(()) };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    // The pid may have been given away before the pidfd was open.
    if !init.is_alive() {
        return Ok(());
    }
    if let Err(error) = hasten(container) {
        let data = json!({"handle": container.handle().as_str(), "error": format!("{error:#}")});
        log::error("destroy.hasten", &data);
    }
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    if !tokio::task::spawn_blocking(move || dies(&pidfd)).await?? {
        let of = |file: &str| {
            let text = std::fs::read_to_string(format!("/proc/{}/{file}", init.pid));
            text.unwrap_or_default()
        };
        let status = of("status");
        let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("gone");
        bail!(
            "process {} can't be killed: state {}, waiting in {}",
            init.pid,
            state.trim(),
            of("wchan")
        );
    }
    Ok(())
}

/// Gives a container that is about to be killed as much processor time as it may want: to die takes
/// some, and with few shares or a small quota on a busy host it would take for ever.
fn hasten(container: &Container) -> anyhow::Result<()> {
    throttle::release(container)?;
    container.groups()?.unlimit_processor()
}

/// Waits for the end of a process; `false` when it takes too long.
fn dies(pidfd: &OwnedFd) -> std::io::Result<bool> {
    let timeout = Timespec { tv_sec: DEATH_SECONDS, tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout))? > 0)
}
