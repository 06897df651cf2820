//! The Garden API on a real guardiand, with real containers under runc and crun.
//!
//! Each test has a server of its own, and ends by looking for what it left behind.

#![expect(clippy::unwrap_used, reason = "a test that can't go on must fail")]

use std::process::{Command, Output};

use guardian_tests::daemon::{Daemon, Options};
use guardian_tests::{host, image, skip};

#[path = "garden/apparmor.rs"]
mod apparmor;
#[path = "garden/bulk.rs"]
mod bulk;
#[path = "garden/caller.rs"]
mod caller;
#[path = "garden/crowd.rs"]
mod crowd;
#[path = "garden/disk.rs"]
mod disk;
#[path = "garden/event.rs"]
mod event;
#[path = "garden/failure.rs"]
mod failure;
#[path = "garden/file.rs"]
mod file;
#[path = "garden/hog.rs"]
mod hog;
#[path = "garden/ids.rs"]
mod ids;
#[path = "garden/inspect.rs"]
mod inspect;
#[path = "garden/life.rs"]
mod life;
#[path = "garden/limit.rs"]
mod limit;
#[path = "garden/live.rs"]
mod live;
#[path = "garden/network.rs"]
mod network;
#[path = "garden/oom.rs"]
mod oom;
#[path = "garden/passed.rs"]
mod passed;
#[path = "garden/pea.rs"]
mod pea;
#[path = "garden/process.rs"]
mod process;
#[path = "garden/pull.rs"]
mod pull;
#[path = "garden/restart.rs"]
mod restart;
#[path = "garden/stats.rs"]
mod stats;
#[path = "garden/throttle.rs"]
mod throttle;
#[path = "garden/tree.rs"]
mod tree;

/// Runs `body` once with each runtime; notes those that are missing.
fn with_each_runtime(check: &str, body: impl Fn(&mut Daemon)) {
    for runtime in ["runc", "crun"] {
        let check = format!("{check} ({runtime})");
        if !can_run(&check, runtime) {
            continue;
        }
        let mut daemon = Daemon::start(options(runtime)).unwrap();
        body(&mut daemon);
        assert_eq!(daemon.finish().unwrap(), Vec::<String>::new(), "{check}: left behind");
    }
}

fn can_run(check: &str, runtime: &str) -> bool {
    if !host::bin_dir().join("guardiand").is_file() {
        skip::note(check, "guardiand is not built; try cargo xtask test");
        return false;
    }
    skip::can_run(check, &[runtime, "nft", "busybox", "ip", "nsenter"])
}

fn options(runtime: &str) -> Options {
    let image = image::make(&image::cache()).unwrap();
    Options { runtime: runtime.into(), image, ..Options::default() }
}

/// Runs guardctl and returns all it said, failure or not.
fn ctl(daemon: &Daemon, words: &[&str]) -> Output {
    finish(daemon.guardctl().args(words))
}

/// Runs `guardctl run`, its container named so that leftovers are recognised.
fn run(daemon: &Daemon, words: &[&str]) -> Output {
    let handle = daemon.handle("run");
    ctl(daemon, &[&["run", "--handle", &handle], words].concat())
}

fn finish(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
