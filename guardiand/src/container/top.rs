//! The processes in a container, as both sides see them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use guardian_contract::ids::IdMapping;
use rustix::fs::{Mode, OFlags, openat};
use serde::Serialize;

use super::{Container, pea};
use crate::cgroup::{self, Cgroups};
use crate::process::Process;
use crate::process::jail::Jail;

/// The longest command line shown, in bytes.
const COMMAND_BYTES: u64 = 4096;

/// More than a file of /proc has that is read whole here.
const FILE_BYTES: u64 = 16 * 1024;

/// One process.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    /// Its pid on the host.
    pid: i32,
    /// Its pid in the container.
    container_pid: i32,
    /// Its parent's pid on the host.
    parent_pid: i32,
    /// Its name in Garden; descendants of one that has a name have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<String>,
    /// Its user's id in the container; none for a user that the container does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    /// That user's name in the container's passwd file, or else the id.
    user: String,
    /// One letter (proc_pid_stat(5)).
    state: String,
    /// Processor time in nanoseconds.
    cpu_ns: u64,
    /// Nanoseconds since it was started.
    age_ns: u64,
    /// Resident memory in bytes.
    rss_bytes: u64,
    /// Command line, or the program's name in brackets.
    command: String,
}

impl Container {
    /// Returns its processes, init first. Those that end meanwhile are left out.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) fn top(&self) -> anyhow::Result<Vec<Row>> {
        let init = self.init()?;
        let facts = self.facts()?;
        let users = Users::of(init.pid, &facts.uid_map);
        let mut pids = group(init.pid).map(|dir| cgroup::pids(&dir)).unwrap_or_default();
        let names = self.named_processes();
        for (pid, process) in &names {
            // A pea with limits of its own is not in the container's group.
            if pea::is_pea(&self.bundle.process(&process.id)) && !pids.contains(pid) {
                pids.extend(group(*pid).map(|dir| cgroup::pids(&dir)).unwrap_or_default());
            }
        }
        let clock = Clock::now();
        let rows = pids.into_iter().filter_map(|pid| row(pid, &users, &clock));
        let name = |row: Row| {
            let process = names.get(&row.pid).map(|process| process.id.to_string());
            Row { process, ..row }
        };
        let mut rows: Vec<Row> = rows.map(name).collect();
        rows.sort_by_key(|row| (row.pid != init.pid, row.pid));
        Ok(rows)
    }

    fn named_processes(&self) -> BTreeMap<i32, Arc<Process>> {
        let running = self.processes();
        let running = running.values().filter(|process| !process.has_ended());
        let pids = running.filter_map(|process| {
            Some((process.pid()?.as_raw_nonzero().get(), Arc::clone(process)))
        });
        pids.collect()
    }
}

fn group(pid: i32) -> Option<PathBuf> {
    Cgroups::of(pid).ok()?.controller("pids")
}

/// Who is who in a container.
struct Users<'a> {
    map: &'a [IdMapping],
    names: BTreeMap<u32, String>,
}

impl<'a> Users<'a> {
    fn of(pid: i32, map: &'a [IdMapping]) -> Self {
        let passwd = Jail::of(pid).and_then(|jail| jail.text("/etc/passwd")).unwrap_or_default();
        Self { map, names: names(&passwd) }
    }

    /// Returns a host id as the container sees it.
    fn inside(&self, host: u32) -> Option<u32> {
        if self.map.is_empty() {
            return Some(host);
        }
        self.map.iter().find_map(|extent| {
            let at = host.checked_sub(extent.host_id).filter(|at| *at < extent.size)?;
            Some(extent.container_id + at)
        })
    }

    fn name(&self, uid: Option<u32>) -> String {
        match uid {
            Some(uid) => self.names.get(&uid).cloned().unwrap_or_else(|| uid.to_string()),
            None => "-".into(),
        }
    }
}

/// The first line with an id names it (passwd(5)).
fn names(passwd: &str) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for line in passwd.lines() {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next(), fields.nth(1).and_then(|uid| uid.parse().ok()));
        if let (Some(name), Some(uid)) = (name, uid) {
            names.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// How ticks since boot become nanoseconds and ages.
struct Clock {
    nanoseconds_per_tick: u64,
    uptime_ns: u64,
}

impl Clock {
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime = text.split(' ').next().unwrap_or_default().replace('.', "");
        // Seconds with two digits behind the point (proc_uptime(5)).
        let hundredths: u64 = uptime.parse().unwrap_or(0);
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        Self { nanoseconds_per_tick: 1_000_000_000 / ticks, uptime_ns: hundredths * 10_000_000 }
    }
}

/// Reads one process; all of it through one directory, which is that process's and no later one's.
fn row(pid: i32, users: &Users<'_>, clock: &Clock) -> Option<Row> {
    let dir = File::open(Path::new("/proc").join(pid.to_string())).ok()?;
    let read = |name: &str, limit: u64| {
        let file = openat(&dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        File::from(file).take(limit).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (status, stat) = (read("status", FILE_BYTES)?, read("stat", FILE_BYTES)?);
    let command = read("cmdline", COMMAND_BYTES)?;
    parse(pid, [&status, &stat, &command], users, clock)
}

/// Parses /proc/PID/status, stat and cmdline.
fn parse(
    pid: i32,
    [status, stat, command]: [&str; 3],
    users: &Users<'_>,
    clock: &Clock,
) -> Option<Row> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
    };
    // Real, effective, saved and filesystem id.
    let host_uid = field("Uid")?.split_whitespace().nth(1)?.parse().ok()?;
    let uid = users.inside(host_uid);
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // Fields 14, 15 and 22 of proc_pid_stat(5); the first of ours is the third.
    let (used, started) = (ticks(11)? + ticks(12)?, ticks(19)?);
    let resident = field("VmRSS").and_then(|text| text.strip_suffix(" kB")?.parse::<u64>().ok());
    let command = command.replace('\0', " ");
    Some(Row {
        pid,
        container_pid: field("NSpid")?.split_whitespace().last()?.parse().ok()?,
        parent_pid: field("PPid")?.parse().ok()?,
        process: None,
        uid,
        user: users.name(uid),
        state: (*fields.first()?).to_owned(),
        cpu_ns: used * clock.nanoseconds_per_tick,
        age_ns: clock.uptime_ns.saturating_sub(started * clock.nanoseconds_per_tick),
        rss_bytes: resident.unwrap_or(0) * 1024,
        command: match command.trim() {
            "" => format!("[{}]", field("Name").unwrap_or_default()),
            command => command.to_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_as_both_sides_see_it() {
        let map = guardian_contract::ids::maximus_map(4_294_967_294, 1, 4_294_967_293);
        let users =
            Users { map: &map, names: names("root:x:0:0::/:/bin/sh\nme:x:1000:1000::/:/\n") };
        let clock = Clock { nanoseconds_per_tick: 10_000_000, uptime_ns: 100_000_000_000 };
        let status =
            "Name:\tsh\nPPid:\t70\nUid:\t1000\t4294967294\t0\t0\nNSpid:\t71\t5\nVmRSS:\t  12 kB\n";
        let stat = "71 (a) b) S 70 71 71 0 -1 0 0 0 0 0 3 4 0 0 20 0 1 0 9000 0 0";
        let row = parse(71, [status, stat, "sh\0-c\0x\0"], &users, &clock).unwrap();
        assert_eq!((row.pid, row.container_pid, row.parent_pid), (71, 5, 70));
        assert_eq!((row.uid, row.user.as_str(), row.state.as_str()), (Some(0), "root", "S"));
        assert_eq!((row.cpu_ns, row.age_ns), (70_000_000, 10_000_000_000));
        assert_eq!((row.rss_bytes, row.command.as_str()), (12288, "sh -c x"));
        let zombie = status.replace("VmRSS:\t  12 kB\n", "").replace("4294967294", "1000");
        let row = parse(71, [&zombie, stat, ""], &users, &clock).unwrap();
        assert_eq!((row.user.as_str(), row.command.as_str(), row.rss_bytes), ("me", "[sh]", 0));
    }

    #[test]
    fn a_user_that_the_container_does_not_have_has_no_id_there() {
        let map = [IdMapping { container_id: 0, host_id: 100_000, size: 10 }];
        let users = Users { map: &map, names: BTreeMap::new() };
        assert_eq!((users.inside(0), users.inside(100_003)), (None, Some(3)));
        assert_eq!((users.name(None), users.name(Some(3))), ("-".into(), "3".into()));
    }
}
