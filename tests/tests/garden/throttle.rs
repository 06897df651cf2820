//! Throttled processor time: who has used too much gets what is his, keeps all other limits, and comes
//! back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use guardian_tests::daemon::{Daemon, Options};
use guardian_tests::{host, skip};
use serde_json::Value;

use crate::{can_run, code, ctl, options};

const FLAGS: [&str; 3] = ["--enable-cpu-throttling", "--cpu-throttling-check-interval", "1"];
const SPIN: &str = "while :; do :; done";

/// Longer than a look takes on a busy host.
const PATIENCE: Duration = Duration::from_secs(30);

fn is_v1() -> bool {
    Path::new("/sys/fs/cgroup/memory").exists()
}

/// A container's group, in `good` or `bad` on version 1.
fn group(controller: &str, half: &str, handle: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    match is_v1() {
        true => root.join(controller).join("garden").join(half).join(handle),
        false => root.join("garden").join(handle),
    }
}

fn read(dir: &Path, file: &str) -> String {
    let path = dir.join(file);
    std::fs::read_to_string(&path)
        .with_context(|| path.display().to_string())
        .unwrap()
        .trim()
        .into()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What the container has been given on version 2; on version 1 it is not looked at.
fn weight(handle: &str) -> String {
    if is_v1() { String::new() } else { read(&group("cpu", "", handle), "cpu.weight") }
}

/// Whether the processor is kept from the container now.
fn is_bad(handle: &str, own_weight: &str) -> bool {
    match is_v1() {
        true => {
            let bad = group("cpu", "bad", handle).join("cgroup.procs");
            let good = group("cpu", "good", handle).join("cgroup.procs");
            let of = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
            assert!(!(of(&bad).is_empty() && of(&good).is_empty()), "nobody is in {handle}");
            !of(&bad).is_empty() && of(&good).is_empty()
        }
        false => weight(handle) != own_weight,
    }
}

fn metrics(daemon: &Daemon, handle: &str) -> (u64, u64) {
    let text = daemon.ctl(&["--json", "metrics", handle]).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    (all["CPUStat"]["Usage"].as_u64().unwrap(), all["CPUEntitlement"].as_u64().unwrap())
}

/// Both want the same processor: with several, who shares it with whom changes all the time.
fn spin(daemon: &Daemon, handle: &str) {
    daemon.ctl(&["exec", "-d", handle, "--", "taskset", "1", "sh", "-c", SPIN]).unwrap();
}

/// One share for each MiB of memory is all there is.
fn all_shares() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn with_throttling(check: &str, body: impl Fn(&mut Daemon)) {
    for runtime in ["runc", "crun"] {
        let check = format!("{check} ({runtime})");
        if !can_run(&check, runtime) {
            continue;
        }
        let flags = FLAGS.map(str::to_owned).to_vec();
        let mut daemon = Daemon::start(Options { flags, ..options(runtime) }).unwrap();
        body(&mut daemon);
        assert_eq!(daemon.finish().unwrap(), Vec::<String>::new(), "{check}: left behind");
    }
}

#[test]
fn a_hog_gets_what_is_its_own_and_keeps_its_other_limits() {
    with_throttling("throttled processor time", |daemon| {
        let (good, bad) = (&daemon.handle("good"), &daemon.handle("bad"));
        let all = all_shares().to_string();
        daemon.ctl(&["create", "--handle", good, "--limit-cpu-shares", &all]).unwrap();
        let limits = ["--limit-cpu-shares=10", "--memory=64M", "--pids=20"];
        daemon.ctl(&[&["create", "--handle", bad], &limits[..]].concat()).unwrap();
        let own = weight(good);
        spin(daemon, bad);
        wait_until("the hog is throttled", || is_bad(bad, "4"));
        assert!(!is_bad(good, &own), "it has used next to nothing");

        if is_v1() {
            let parent =
                |half: &str| read(&Path::new("/sys/fs/cgroup/cpu/garden").join(half), "cpu.shares");
            wait_until("the halves have their shares", || parent("bad") == "10");
            assert_eq!(parent("good"), (all_shares() - 10).to_string());
            assert_eq!(read(&group("cpu", "bad", bad), "cpu.shares"), "10");
            // A new process is where the others are, and all other limits are where they were.
            let tell = ["exec", bad, "--", "sh", "-c", "sleep 0.5; cat /proc/self/cgroup"];
            let told = daemon.ctl(&tell).unwrap();
            for (controller, half) in [("cpu", "bad"), ("memory", "good"), ("pids", "good")] {
                let line = format!(":{controller}:/garden/{half}/{bad}");
                assert!(told.lines().any(|told| told.ends_with(&line)), "{line} in {told}");
            }
        }
        let (memory, tasks) = (group("memory", "good", bad), group("pids", "good", bad));
        let limit = if is_v1() { "memory.limit_in_bytes" } else { "memory.max" };
        assert_eq!(
            (read(&memory, limit), read(&tasks, "pids.max")),
            ("67108864".into(), "20".into())
        );
        let fill = ["exec", bad, "--", "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=70"];
        assert_ne!(code(&ctl(daemon, &fill)), 0, "beyond its memory");

        spin(daemon, good);
        let before = [good, bad].map(|handle| metrics(daemon, handle));
        std::thread::sleep(Duration::from_secs(4));
        let after = [good, bad].map(|handle| metrics(daemon, handle));
        let [good_used, bad_used] = [0, 1].map(|one| after[one].0 - before[one].0);
        assert!(good_used > 5 * bad_used, "good {good_used} ns, bad {bad_used} ns");
        assert!(after[0].1 > before[0].1 && after[1].1 > before[1].1, "both are entitled to more");
    });
}

#[test]
fn who_is_entitled_to_more_is_let_go() {
    with_throttling("an end of throttling", |daemon| {
        let handle = &daemon.handle("let-go");
        let rival = &daemon.handle("rival");
        // More than there is would leave the hog less than is its own anyway: there would be nothing
        // to throttle on version 2.
        let all = all_shares().to_string();
        daemon.ctl(&["create", "--handle", rival, "--limit-cpu-shares", &all]).unwrap();
        daemon.ctl(&["create", "--handle", handle, "--limit-cpu-shares=10"]).unwrap();
        let spin = ["exec", "-d", "--tree", "--id", "hog", handle, "--", "sh", "-c", SPIN];
        daemon.ctl(&spin).unwrap();
        wait_until("it is throttled", || is_bad(handle, "4"));
        let used = metrics(daemon, handle).0;

        // A server that does not throttle takes it back; one that does does it again.
        daemon.stop().unwrap();
        daemon.set_flags(Vec::new());
        daemon.up().unwrap();
        wait_until("it is taken back", || !is_bad(handle, "4"));
        daemon.stop().unwrap();
        daemon.set_flags(FLAGS.map(str::to_owned).to_vec());
        daemon.up().unwrap();
        wait_until("it is throttled again", || is_bad(handle, "4"));
        assert!(metrics(daemon, handle).0 >= used, "what was used stays used");

        // The tree is the same one wherever it is, and ends as one.
        daemon.ctl(&["update", handle, "--cpu-shares=200000"]).unwrap();
        wait_until("it is let go", || !is_bad(handle, "7899"));
        let tree = ["hog"].map(|id| daemon.depot().join(handle).join("processes").join(id));
        let signal = ["signal", tree[0].to_str().unwrap(), "KILL"];
        let dadoo = host::bin_dir().join("dadoo");
        host::output(std::process::Command::new(dadoo).args(signal)).unwrap();
        assert_eq!(code(&ctl(daemon, &["attach", handle, "hog"])), 137);
    });
}

#[test]
fn an_interval_of_nothing_is_refused() {
    if !can_run("throttling without an interval", "crun") {
        return;
    }
    let flags = ["--enable-cpu-throttling", "--cpu-throttling-check-interval=0"];
    let flags = flags.map(str::to_owned).to_vec();
    let refused = Daemon::start(Options { flags, ..options("crun") }).unwrap_err().to_string();
    assert!(refused.contains("non-positive CPU throttling checking interval"), "{refused}");
    if !is_v1() {
        skip::note("groups good and bad", "on version 2 throttled containers stay where they are");
    }
}
