//! Whom the kernel killed: it says so in its log only, in two lines (mm/oom_kill.c).
//!
//! `oom-kill:constraint=CONSTRAINT_MEMCG,…,task_memcg=/garden/web,task=sh,pid=4711,uid=0`
//! `Memory cgroup out of memory: Killed process 4711 (sh) total-vm:…`
//!
//! The first is left out when there are more than ten in five seconds. Then the group is that of
//! /proc/4711/cgroup, if the process is not quite gone yet; or else nobody is told its pid. Nothing in
//! a container can write such lines: the name of the program is all of them that a container chooses,
//! and what counts stands outside it.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::ErrorKind::{BrokenPipe, Interrupted, WouldBlock};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guardian_contract::log;
use rustix::fs::OFlags;
use serde_json::json;
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use crate::cgroup::Cgroups;
use crate::container::lock;

/// How many victims are kept for whoever asks; those of containers that are not ours are never
/// asked for.
const KEPT: usize = 256;

/// More than one record may have (`CONSOLE_EXT_LOG_MAX` in kernel/printk).
const RECORD_BYTES: usize = 8192;

/// A process that the kernel killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Victim {
    /// On the host.
    pub(super) pid: i32,
    /// Its program's name (proc_pid_comm(5)).
    pub(super) command: String,
    /// Its memory group, below the hierarchy's root.
    group: String,
}

impl Victim {
    /// Tells whether it was in this group or below. The log has whole paths; we may be in a cgroup
    /// namespace, and see the end of them.
    fn was_in(&self, group: &Path) -> bool {
        let group = group.to_string_lossy();
        self.group.ends_with(&*group) || self.group.contains(&format!("{group}/"))
    }
}

/// The victims of late that nobody has asked for.
#[derive(Debug, Default)]
pub(crate) struct KernelLog {
    victims: Mutex<VecDeque<Victim>>,
    news: Notify,
}

impl KernelLog {
    /// Reads the kernel's log from now on. Where that is not allowed, there are never any victims.
    pub(crate) fn follow() -> Arc<Self> {
        let log = Arc::new(Self::default());
        match open() {
            Ok(file) => {
                let reader = Arc::clone(&log);
                tokio::spawn(async move { reader.read(file).await });
            }
            Err(error) => log::error("kernel-log", &json!({"error": error.to_string()})),
        }
        log
    }

    async fn read(&self, file: pipe::Receiver) {
        let mut record = vec![0; RECORD_BYTES];
        let mut latest = 0;
        while file.readable().await.is_ok() {
            // Each read returns one record (Documentation/ABI/testing/dev-kmsg).
            match file.try_io(|| Ok(rustix::io::read(&file, &mut record)?)) {
                Ok(length) => {
                    let record = String::from_utf8_lossy(&record[..length]);
                    let victim = parse(&record).and_then(|said| said.victim(latest));
                    if let Some(victim) = victim {
                        latest = victim.pid;
                        self.add(victim);
                    }
                }
                // Nothing more, or some were overwritten before they were read.
                Err(error) if matches!(error.kind(), WouldBlock | BrokenPipe | Interrupted) => {}
                Err(error) => {
                    return log::error("kernel-log", &json!({"error": error.to_string()}));
                }
            }
        }
    }

    fn add(&self, victim: Victim) {
        let mut victims = lock(&self.victims);
        if victims.len() == KEPT {
            victims.pop_front();
        }
        victims.push_back(victim);
        self.news.notify_waiters();
    }

    /// Returns when there is a victim in this group, or below.
    pub(super) async fn arrival(&self, group: &Path) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // From here on nothing is missed.
            news.as_mut().enable();
            if lock(&self.victims).iter().any(|victim| victim.was_in(group)) {
                return;
            }
            news.await;
        }
    }

    /// Takes the victims in this group and below, waiting for the first one.
    pub(super) async fn victims(&self, group: &Path, patience: Duration) -> Vec<Victim> {
        let _ = tokio::time::timeout(patience, self.arrival(group)).await;
        let mut victims = lock(&self.victims);
        let (ours, others) = victims.drain(..).partition(|victim| victim.was_in(group));
        *victims = others;
        ours.into()
    }
}

/// Opens the log at its end.
fn open() -> std::io::Result<pipe::Receiver> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg")?;
    file.seek(SeekFrom::End(0))?;
    // As elsewhere: it can wait for any descriptor that poll(2) can.
    pipe::Receiver::from_file_unchecked(file)
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// All.
    Victim(Victim),
    /// Only who.
    Killed(i32, String),
}

impl Said {
    /// Returns the victim, unless it is the one that was told of just before.
    fn victim(self, latest: i32) -> Option<Victim> {
        match self {
            Self::Victim(victim) => Some(victim),
            Self::Killed(pid, command) if pid != latest => {
                let groups = Cgroups::of(pid).ok()?;
                let group = groups.path("memory")?.to_string_lossy().into_owned();
                Some(Victim { pid, command, group })
            }
            Self::Killed(..) => None,
        }
    }
}

/// Parses a record: `PRIORITY,NUMBER,TIME,FLAGS;TEXT\n`, then lines that begin with a blank.
fn parse(record: &str) -> Option<Said> {
    let (prefix, text) = record.split_once(';')?;
    // What programs write has another facility than the kernel, which is 0.
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    let line = text.lines().next().filter(|_| priority < 8)?;
    let killed = line.strip_prefix("Memory cgroup out of memory: Killed process ");
    if let Some((pid, rest)) = killed.and_then(|line| line.split_once(" (")) {
        let (command, _) = rest.rsplit_once(") total-vm:")?;
        return Some(Said::Killed(pid.parse().ok()?, command.into()));
    }
    let (_, line) = line.strip_prefix("oom-kill:")?.split_once("task_memcg=")?;
    let (group, line) = line.split_once(",task=")?;
    let (line, _uid) = line.rsplit_once(",uid=")?;
    let (command, pid) = line.rsplit_once(",pid=")?;
    let (command, group) = (command.into(), group.into());
    Some(Said::Victim(Victim { pid: pid.parse().ok()?, command, group }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=web,\
        mems_allowed=0,oom_memcg=/garden/web,task_memcg=/garden/web/pea,task=";

    #[test]
    fn a_victim_is_who_the_kernel_says_whatever_its_name() {
        let record =
            |name: &str| format!("6,1,2,-;{LINE}{name},pid=4711,uid=65534\n SUBSYSTEM=x\n");
        for name in ["sh", "a,pid=1,uid=0", ",task=x"] {
            let victim = parse(&record(name)).unwrap().victim(0).unwrap();
            assert_eq!((victim.pid, victim.command.as_str()), (4711, name));
            assert_eq!(victim.group, "/garden/web/pea");
        }
    }

    #[test]
    fn only_the_kernel_s_own_lines_count() {
        let from_a_program = format!("12,1,2,-;{LINE}sh,pid=1,uid=0\n");
        assert_eq!(parse(&from_a_program), None);
        assert_eq!(parse("6,1,2,-;tail invoked oom-killer: gfp_mask=0xcc0\n"), None);
        assert_eq!(parse("no record"), None);
    }

    #[test]
    fn without_the_first_line_the_second_says_who() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let text = "Memory cgroup out of memory: Killed process";
        let said = || parse(&format!("3,1,2,-;{text} {pid} (a) b (c) total-vm:1kB\n")).unwrap();
        let victim = said().victim(1).unwrap();
        assert_eq!((victim.pid, victim.command.as_str()), (pid, "a) b (c"));
        assert!(victim.group.starts_with('/'));
        // It has been told of already, or is gone.
        assert_eq!(said().victim(pid), None);
        assert_eq!(Said::Killed(i32::MAX, "x".into()).victim(1), None);
    }

    #[test]
    fn a_group_has_those_below_it_and_no_others() {
        let victim = |group: &str| Victim { pid: 1, command: "x".into(), group: group.into() };
        for (group, want) in [
            ("/garden/web", true),
            ("/garden/web/pea", true),
            ("/outer/garden/web", true),
            ("/garden/web2", false),
            ("/garden/other", false),
        ] {
            assert_eq!(victim(group).was_in(Path::new("/garden/web")), want, "{group}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn victims_are_taken_once_and_waited_for_within_reason() {
        let log = Arc::new(KernelLog::default());
        let group = Path::new("/garden/web");
        assert!(log.victims(group, Duration::from_secs(1)).await.is_empty());
        let adding = Arc::clone(&log);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            for at in ["/garden/other", "/garden/web"] {
                adding.add(Victim { pid: 1, command: "x".into(), group: at.into() });
            }
        });
        assert_eq!(log.victims(group, Duration::from_secs(1)).await.len(), 1);
        assert!(log.victims(group, Duration::ZERO).await.is_empty());
        assert_eq!(lock(&log.victims).len(), 1);
    }
}
