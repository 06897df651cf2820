//! What a container's network costs, as separate processes: `netsetup up` and `down`, with no port
//! mapping and with one.

use std::fs::File;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use guardian_tests::host;
use guardian_tests::netns::Netns;
use nix::sched::{CloneFlags, setns};
use serde::Serialize;

use super::{Summary, summary};

/// Milliseconds, start of the process to its end.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Network {
    /// `up`
    pub(crate) up: Summary,
    /// `up` with a mapped port
    pub(crate) up_mapped: Summary,
    /// `down` of either
    pub(crate) down: Summary,
}

/// Measures in a network namespace made for that.
///
/// # Errors
/// When netsetup fails.
pub(crate) fn measure(count: usize) -> anyhow::Result<Network> {
    let netns = Netns::create(&format!("guardian-bench-{}", std::process::id()))?;
    let inside = File::open(netns.path())?;
    // A thread enters the namespace, and what it starts is there without a program in between.
    let measured = std::thread::spawn(move || {
        setns(inside, CloneFlags::CLONE_NEWNET)?;
        lives(count)
    });
    let measured = measured.join().map_err(|_| anyhow::anyhow!("a thread failed"))?;
    netns.delete()?;
    measured
}

fn lives(count: usize) -> anyhow::Result<Network> {
    let state = tempfile::Builder::new().prefix("guardian-").tempdir_in("/dev/shm")?;
    let call = |action: &str, handle: &str, request: &str| -> anyhow::Result<Duration> {
        let mut command = Command::new(host::bin_dir().join("netsetup"));
        command.arg("--state-dir").arg(state.path()).args(["--network-pool", "10.253.0.0/20"]);
        command.args(["--action", action, "--handle", handle]);
        let start = Instant::now();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        child.stdin.take().context("no pipe")?.write_all(request.as_bytes())?;
        let status = child.wait()?;
        let took = start.elapsed();
        ensure!(status.success(), "{} failed", host::shown(&command));
        Ok(took)
    };
    let (mut up, mut up_mapped, mut down) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..=count {
        let mut container = Holder::start()?;
        let pid = container.0.id();
        for (times, ports) in [(&mut up, ""), (&mut up_mapped, r#"{"container_port":8080}"#)] {
            let handle = format!("bench-{number}-{}", ports.len());
            let request = format!(r#"{{"Pid":{pid},"netin":[{ports}]}}"#);
            let started = call("up", &handle, &request)?;
            let ended = call("down", &handle, "null")?;
            // The first pays for the table.
            if number > 0 {
                times.push(started);
                down.push(ended);
            }
            // The links go in the background, and their names must be free in the container.
            std::thread::sleep(Duration::from_millis(100));
        }
        container.end()?;
    }
    Ok(Network { up: summary(&up), up_mapped: summary(&up_mapped), down: summary(&down) })
}

/// A process with a network namespace of its own, as a container's init.
struct Holder(Child);

impl Holder {
    fn start() -> anyhow::Result<Self> {
        let child = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn()?;
        // unshare(1) becomes sleep(1) once it has the namespace.
        let comm = format!("/proc/{}/comm", child.id());
        while !std::fs::read_to_string(&comm)?.starts_with("sleep") {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Self(child))
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}
