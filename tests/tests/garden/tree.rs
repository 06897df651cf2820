//! Processes that last as long as their descendants.

use std::time::{Duration, Instant};

use guardian_contract::depot::Init;
use guardian_tests::api::Process;
use guardian_tests::daemon::Daemon;
use guardian_tests::patience::patience;
use serde_json::Value;

use crate::{code, ctl, with_each_runtime};

/// Ends at once, and leaves a daemon that has nothing to do with it any more.
const DAEMON: &str = "(setsid sh -c 'sleep 1; echo done > /tmp/done' >/dev/null 2>&1 &); exit 3";

fn groups(handle: &str, process: &str) -> Vec<String> {
    let top = std::path::PathBuf::from("/sys/fs/cgroup");
    let below = std::fs::read_dir(&top).unwrap().flatten().map(|entry| entry.path());
    let roots = below.chain([top]);
    let leaves = roots.map(|root| root.join("garden").join(handle).join(process));
    leaves.filter(|leaf| leaf.is_dir()).map(|leaf| leaf.display().to_string()).collect()
}

fn is_running(daemon: &Daemon, handle: &str, process: &str) -> bool {
    let info: Value = serde_json::from_str(&daemon.ctl(&["inspect", handle]).unwrap()).unwrap();
    let ids = info["ProcessIDs"].as_array().cloned().unwrap_or_default();
    ids.iter().any(|id| id == process)
}

#[test]
fn a_daemon_keeps_its_ancestor_running() {
    with_each_runtime("wait for the tree", |daemon| {
        let handle = daemon.handle("tree");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        // What runs beside it does not count.
        daemon.ctl(&["exec", "-d", &handle, "--", "sleep", "100"]).unwrap();
        let start = Instant::now();
        let words = ["exec", "--tree", "--id", "t", &handle, "--", "sh", "-c", DAEMON];
        assert_eq!(code(&ctl(daemon, &words)), 3);
        assert!(start.elapsed() >= Duration::from_millis(950), "{:?}", start.elapsed());
        assert_eq!(daemon.ctl(&["exec", &handle, "--", "cat", "/tmp/done"]).unwrap(), "done\n");
        let long = DAEMON.replace("sleep 1;", "sleep 1000;");
        assert_eq!(code(&ctl(daemon, &["exec", &handle, "--", "sh", "-c", &long])), 3);
        gone(&handle, "t");
    });
}

#[test]
fn a_tree_is_known_killed_and_measured_as_one() {
    with_each_runtime("kill a tree", |daemon| {
        let handle = daemon.handle("kill");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let script = "for i in 1 2 3; do (setsid sleep 100 >/dev/null 2>&1 &); done; exit 4";
        let words = ["exec", "-d", "--tree", "--id", "t", &handle, "--", "sh", "-c", script];
        daemon.ctl(&words).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(is_running(daemon, &handle, "t"));
        let metrics = daemon.ctl(&["--json", "metrics", "t"]);
        let metrics: Value = serde_json::from_str(&metrics.unwrap()).unwrap();
        // The three, and their ancestor, which its keeper has not let go; not the container's init.
        assert_eq!(metrics["PidStat"]["Current"], 4, "{metrics}");

        // A new server knows it as what it is.
        daemon.kill().unwrap();
        daemon.up().unwrap();
        assert!(is_running(daemon, &handle, "t"));
        let init = daemon.path("depot").join(&handle).join("pidfile");
        let init =
            Init::of(std::fs::read_to_string(init).unwrap().trim().parse().unwrap()).unwrap();
        let mut client = Process::attach(daemon, &handle, "t").unwrap();
        client.signal(1).unwrap();
        assert_eq!(client.wait().unwrap(), 4);
        assert!(init.is_alive(), "only the tree was killed");
        gone(&handle, "t");
    });
}

/// The leaf goes a moment after the end is told.
fn gone(handle: &str, process: &str) {
    let start = Instant::now();
    while !groups(handle, process).is_empty() {
        assert!(
            start.elapsed() < patience(Duration::from_secs(3)),
            "{:?}",
            groups(handle, process)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
