//! A host without any memory left: processes in containers are killed, and neither the server nor a
//! keeper.
//!
//! An executable of its own, since nothing else should run meanwhile.

#![expect(clippy::unwrap_used, reason = "a test that can't go on must fail")]

use std::time::{Duration, Instant};

use guardian_tests::daemon::{Daemon, Options};
use guardian_tests::patience::patience;
use guardian_tests::{host, image, skip};
use serde_json::Value;

/// What one hog holds: not much more than a program of ours, so that its size alone does not choose
/// the victim, and far less than the tenth of all memory by which it is put before us.
const HOG_MIB: u64 = 32;

/// So many must be killed before it counts.
const KILLS: u64 = 10;

/// Neighbours, each with a process that only waits.
const NEIGHBOURS: [&str; 3] = ["one", "two", "three"];

fn number(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// How many processes the kernel has killed for want of memory, whoever's.
fn kills() -> u64 {
    number("/proc/vmstat", "oom_kill ")
}

/// How near a process is to being killed (proc_pid_oom_score(5)).
fn score(pid: &str) -> u64 {
    std::fs::read_to_string(format!("/proc/{pid}/oom_score")).unwrap().trim().parse().unwrap()
}

/// The server and all keepers.
fn ours(daemon: &Daemon) -> Vec<u32> {
    let mut pids = host::processes("dadoo", &daemon.depot().display().to_string());
    pids.push(daemon.pid().unwrap());
    pids.sort_unstable();
    pids
}

/// The smallest process in a container is nearer to its death than the largest of ours.
fn containers_go_first(daemon: &Daemon) {
    let most = ours(daemon).iter().map(|pid| score(&pid.to_string())).max().unwrap();
    for name in NEIGHBOURS {
        let text = daemon.ctl(&["--json", "top", &daemon.handle(name)]).unwrap();
        let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert!(rows.len() >= 2, "init and its neighbour: {text}");
        for row in rows {
            let score = score(&row["pid"].to_string());
            assert!(score > most, "{row}: {score}, ours: {most}");
        }
    }
}

/// Has a container take more than there is, in many small parts, until enough were killed.
fn exhaust(daemon: &Daemon, handle: &str) {
    let hogs = number("/proc/meminfo", "MemTotal:") / 1024 / HOG_MIB + KILLS * 2;
    let script = format!(
        "i=0; while [ $i -lt {hogs} ]; do tail -c {} /dev/zero & i=$((i+1)); done; wait",
        HOG_MIB << 20
    );
    let before = kills();
    daemon.ctl(&["exec", "-d", handle, "--", "sh", "-c", &script]).unwrap();
    let start = Instant::now();
    while kills() < before + KILLS {
        assert!(start.elapsed() < patience(Duration::from_secs(40)), "memory does not end");
        std::thread::sleep(Duration::from_millis(100));
    }
    daemon.ctl(&["rm", handle]).unwrap();
}

#[test]
fn the_server_and_the_keepers_outlive_the_host_s_memory() {
    for runtime in ["runc", "crun"] {
        let check = format!("a host without memory ({runtime})");
        if !skip::may_ruin(&check)
            || !skip::can_run(&check, &[runtime, "nft", "busybox", "ip", "nsenter", "dmesg"])
        {
            continue;
        }
        let image = image::make(&image::cache()).unwrap();
        let options = Options { runtime: runtime.into(), image, ..Options::default() };
        let daemon = Daemon::start(options).unwrap();
        for name in NEIGHBOURS {
            let handle = daemon.handle(name);
            daemon.ctl(&["create", "--handle", &handle]).unwrap();
            daemon.ctl(&["exec", "-d", &handle, "--", "sleep", "10000"]).unwrap();
        }
        let hog = daemon.handle("hog");
        daemon.ctl(&["create", "--handle", &hog]).unwrap();
        containers_go_first(&daemon);

        let before = ours(&daemon);
        assert_eq!(before.len(), NEIGHBOURS.len() + 1, "{before:?}");
        exhaust(&daemon, &hog);
        assert_eq!(ours(&daemon), before, "who of us is left, {check}");
        let log = host::run(&["dmesg"]).unwrap();
        let victims: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("oom-kill:") && line.contains("global_oom"))
            .collect();
        assert!(!victims.is_empty(), "it was the host's memory that ended: {log}");
        let mut strangers = victims.iter().filter(|line| !line.contains("task_memcg=/garden/"));
        assert_eq!(strangers.next(), None, "{check}");
        for name in NEIGHBOURS {
            daemon.ctl(&["exec", &daemon.handle(name), "--", "true"]).unwrap();
        }
        assert_eq!(daemon.finish().unwrap(), Vec::<String>::new(), "{check}: left behind");
    }
}
