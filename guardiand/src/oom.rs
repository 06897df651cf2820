//! Out of memory: the kernel says when, for every container, and its log says whom it killed.
//!
//! Nothing is polled, and no process or thread keeps watch: a container costs a task and two
//! descriptors. It is watched from when it is made, or found again, until it is destroyed.

mod kmsg;
mod notice;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::log;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::json;
use tokio::net::unix::pipe;
use tokio::task::AbortHandle;

use crate::cgroup::Cgroups;
use crate::container::properties::EVENTS;
use crate::container::{Container, Phase, lock};
use crate::event::{Event, Kind};
use crate::guardian::Guardian;
use crate::process::Process;
use crate::telemetry;
pub(crate) use kmsg::KernelLog;
use notice::Notice;

/// What a container's info says, in gdn's words.
const OUT_OF_MEMORY: &str = "Out of memory";

/// How often a container's info says so at most: who is killed again and again must not make its
/// properties grow without end.
const SAID_AT_MOST: usize = 16;

/// How long the kernel's log is waited for.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// The rest between two looks at one container, so that one that is out of memory all the time does
/// not keep the server busy.
const REST: Duration = Duration::from_millis(200);

/// The tasks that watch one container.
#[derive(Debug, Default)]
pub(crate) struct Watches(Mutex<Vec<AbortHandle>>);

impl Watches {
    /// Ends them.
    pub(crate) fn end(&self) {
        lock(&self.0).drain(..).for_each(|task| task.abort());
    }

    /// Keeps a task, and forgets those that have ended.
    fn keep(&self, task: AbortHandle) {
        let mut tasks = lock(&self.0);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }
}

impl Guardian {
    /// Watches a container from now on: its memory, and whether its first process ends.
    pub(crate) fn watch(self: &Arc<Self>, container: &Arc<Container>) {
        if let Err(error) = self.try_watch(container) {
            let handle = container.handle().as_str();
            log::error("watch", &json!({"handle": handle, "error": format!("{error:#}")}));
        }
    }

    fn try_watch(self: &Arc<Self>, container: &Arc<Container>) -> anyhow::Result<()> {
        let pid = container.init()?.pid;
        let raw = Pid::from_raw(pid).context("container init PID was 0")?;
        let pidfd = pidfd_open(raw, PidfdFlags::NONBLOCK).context("open the container's init")?;
        let pidfd = pipe::Receiver::from_owned_fd_unchecked(pidfd)?;
        let watch = Watch::of(self, container, None, pid)?;
        let task = tokio::spawn(async move {
            let missed = watch.missed();
            watch.say(missed);
            watch.follow(async { drop(pidfd.readable().await) }).await;
            // The end of one that is destroyed is told as such.
            if watch.container.phase() == Phase::Live {
                let event = Event::new(Kind::Exit, watch.container.handle()).pid(Some(pid));
                watch.guardian.events.tell(event);
            }
        });
        container.watches.keep(task.abort_handle());
        Ok(())
    }

    /// Watches the memory of a pea that has limits of its own; all others have the container's.
    pub(crate) fn watch_pea(self: &Arc<Self>, container: &Arc<Container>, pea: &Arc<Process>) {
        let Some(pid) = pea.pid().map(|pid| pid.as_raw_nonzero().get()) else { return };
        let groups = || anyhow::Ok((memory_group(pid)?, memory_group(container.init()?.pid)?));
        // One that has ended has no group any more, and nothing to be watched.
        let Ok(((_, own), (_, containers))) = groups() else { return };
        if own.starts_with(containers) {
            return;
        }
        let Ok(watch) = Watch::of(self, container, Some(&pea.id), pid) else { return };
        let pea = Arc::clone(pea);
        let ended = async move { drop(pea.ended().await) };
        let task = tokio::spawn(async move { watch.follow(ended).await });
        container.watches.keep(task.abort_handle());
    }
}

/// Returns the directory of a process's memory group, and its path below the hierarchy's root.
fn memory_group(pid: i32) -> anyhow::Result<(PathBuf, PathBuf)> {
    let groups = Cgroups::of(pid)?;
    let dir = groups.controller("memory").context("container has no memory cgroup")?;
    let path = groups.path("memory").context("container has no memory cgroup")?;
    Ok((dir, path.to_owned()))
}

/// One watched group.
struct Watch {
    guardian: Arc<Guardian>,
    container: Arc<Container>,
    process_id: Option<Handle>,
    notice: Notice,
    path: PathBuf,
}

impl Watch {
    fn of(
        guardian: &Arc<Guardian>,
        container: &Arc<Container>,
        process_id: Option<&Handle>,
        pid: i32,
    ) -> anyhow::Result<Self> {
        let (dir, path) = memory_group(pid)?;
        Ok(Self {
            guardian: Arc::clone(guardian),
            container: Arc::clone(container),
            process_id: process_id.cloned(),
            notice: Notice::of(&dir)?,
            path,
        })
    }

    /// Returns how many kills no server has told of, because none ran.
    fn missed(&self) -> u64 {
        let said = self.container.properties.get(EVENTS).unwrap_or_default();
        let said = said.split(',').filter(|event| *event == OUT_OF_MEMORY).count();
        match said < SAID_AT_MOST {
            true => self.notice.kills().unwrap_or(0).saturating_sub(said as u64),
            false => 0,
        }
    }

    /// Reports until what the group is for has `ended`, or the group is gone.
    async fn follow(&self, ended: impl Future<Output = ()>) {
        let log = &self.guardian.kernel_log;
        let Some(mut seen) = self.notice.kills() else { return };
        tokio::pin!(ended);
        loop {
            let is_over = tokio::select! {
                // What a process was killed for comes before its end.
                biased;
                noticed = self.notice.next(seen) => noticed.is_err(),
                () = log.arrival(&self.path) => false,
                () = &mut ended => true,
            };
            // A group that is removed gives notice, too.
            let Some(kills) = self.notice.kills() else { return };
            let waits = kills > seen || (self.notice.comes_before_the_kill() && !is_over);
            let patience = if waits { LOG_PATIENCE } else { Duration::ZERO };
            let victims = log.victims(&self.path, patience).await;
            let kills = self.notice.kills().unwrap_or(kills);
            let least = u64::from(self.notice.comes_before_the_kill() && !is_over);
            let count = (kills - seen.min(kills)).max(victims.len() as u64).max(least);
            // The log is written before the kill is counted.
            seen = kills.max(seen + count);
            if count > 0 {
                self.say(count);
                self.tell(count, victims);
            }
            if is_over {
                return;
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// Puts it into the container's info.
    fn say(&self, count: u64) {
        if count == 0 || self.container.phase() != Phase::Live {
            return;
        }
        let changed = self.container.properties.change(|map| {
            let mut said: Vec<&str> =
                map.get(EVENTS).map(|list| list.split(',').collect()).unwrap_or_default();
            let before = said.iter().filter(|event| **event == OUT_OF_MEMORY).count();
            let room = SAID_AT_MOST.saturating_sub(before);
            let count = usize::try_from(count).unwrap_or(room).min(room);
            said.extend(std::iter::repeat_n(OUT_OF_MEMORY, count));
            let said = said.join(",");
            map.insert(EVENTS.into(), said);
        });
        if let Err(error) = changed {
            log::error("out-of-memory", &json!({"error": format!("{error:#}")}));
        }
    }

    /// Tells whoever listens: an event for each kill that the log names, or one without a pid.
    fn tell(&self, count: u64, victims: Vec<kmsg::Victim>) {
        telemetry::OOM_KILLS.add(count);
        let handle = self.container.handle();
        log::info("out-of-memory", &json!({"handle": handle.as_str(), "kills": count}));
        let event = || {
            let event = Event::new(Kind::Oom, handle);
            self.process_id.iter().fold(event, Event::process)
        };
        if victims.is_empty() {
            self.guardian.events.tell(event());
        }
        for victim in victims {
            let event = event().pid(Some(victim.pid)).command(victim.command);
            self.guardian.events.tell(event);
        }
    }
}
