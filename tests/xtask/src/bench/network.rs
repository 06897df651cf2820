//! What a container's network costs, as separate processes: `netsetup up` and `down`, with no port
//! mapping and with one.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use guardian_tests::host;
use guardian_tests::netns::Netns;
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
    let state = tempfile::Builder::new().prefix("guardian-").tempdir_in("/dev/shm")?;
    let call = |words: &[&str]| -> anyhow::Result<Duration> {
        let mut command = netns.command(host::bin_dir().join("netsetup"));
        command.arg("--state-dir").arg(state.path()).args(["--network-pool", "10.253.0.0/20"]);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
        let start = Instant::now();
        let status = command.status()?;
        let took = start.elapsed();
        ensure!(status.success(), "{} failed", host::shown(&command));
        Ok(took)
    };
    let (mut up, mut up_mapped, mut down) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..=count {
        let mut container = Holder::start()?;
        let (pid, handle) = (container.0.id().to_string(), format!("bench-{number}"));
        for (times, map) in [(&mut up, &[][..]), (&mut up_mapped, &["--map", "8080"])] {
            let started = call(&[&["up", &handle, "--pid", &pid], map].concat())?;
            let ended = call(&["down", &handle])?;
            // The first pays for the table.
            if number > 0 {
                times.push(started);
                down.push(ended);
            }
        }
        container.end()?;
    }
    netns.delete()?;
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
