//! How fast bytes go through a process's standard streams: through the API, by passed descriptors,
//! and with no manager at all.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use guardian_contract::garden::ProcessSpec;
use guardian_tests::api::Process;
use guardian_tests::daemon::Daemon;
use guardian_tests::host;
use serde::Serialize;

/// What goes through each stream.
const MEGABYTES: usize = 1024;
/// The Go client's messages of input: what it reads at once.
const MESSAGE_BYTES: usize = 32 << 10;

/// Megabytes (2^20 bytes) per second.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Streams {
    /// Standard output through the API.
    pub(crate) api_out: f64,
    /// The same bytes from a pipe, through a unix socket, to a reader.
    pub(crate) socket: f64,
    /// Standard input through the API.
    pub(crate) api_in: f64,
    /// Through `cat` in a container, by descriptors that guardctl has passed.
    pub(crate) passed: f64,
    /// Through `cat` in the container, started by the bare runtime.
    pub(crate) bare: f64,
}

/// Measures.
///
/// # Errors
/// When a byte is lost, or something fails.
pub(super) fn measure(daemon: &Daemon, runtime: &str) -> anyhow::Result<Streams> {
    let handle = daemon.handle("streams");
    daemon.ctl(&["create", "--handle", &handle])?;
    let runtime = host::program(runtime).context("no runtime")?;
    let passed = || {
        let mut guardctl = daemon.guardctl();
        guardctl.args(["exec", "-i", &handle, "--", "cat"]);
        through(guardctl)
    };
    let bare = || through(bare_cat(&runtime, &handle));
    // The best of several: the machine's other work only ever adds.
    let best = |measure: &dyn Fn() -> anyhow::Result<f64>| {
        (0..3)
            .map(|_| measure())
            .try_fold(0.0, |best: f64, one| Ok::<_, anyhow::Error>(best.max(one?)))
    };
    let streams = Streams {
        api_out: best(&|| api_out(daemon, &handle))?,
        socket: best(&socket)?,
        api_in: best(&|| api_in(daemon, &handle))?,
        passed: best(&passed)?,
        bare: best(&bare)?,
    };
    daemon.destroy_all()?;
    Ok(streams)
}

fn bare_cat(runtime: &Path, handle: &str) -> Command {
    let mut command = Command::new(runtime);
    command.args(["exec", handle, "cat"]);
    command
}

fn dd() -> Vec<String> {
    ["dd", "if=/dev/zero", "bs=1M", &format!("count={MEGABYTES}")].map(str::to_owned).to_vec()
}

fn per_second(start: Instant) -> f64 {
    MEGABYTES as f64 / start.elapsed().as_secs_f64()
}

/// Reads to the end, and makes sure that all has come.
fn drain(mut reader: impl Read) -> anyhow::Result<()> {
    let (mut all, mut buffer) = (0, vec![0; 1 << 18]);
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            length => all += length,
        }
    }
    ensure!(all == MEGABYTES << 20, "{all} bytes arrived");
    Ok(())
}

fn api_out(daemon: &Daemon, handle: &str) -> anyhow::Result<f64> {
    let (path, args) = (dd()[0].clone(), dd()[1..].to_vec());
    let start = Instant::now();
    let spec = ProcessSpec { path, args, user: "root".into(), ..ProcessSpec::default() };
    let mut process = Process::run(daemon, handle, &spec)?;
    drain(&mut process.stdout)?;
    ensure!(process.wait()? == 0, "dd failed");
    Ok(per_second(start))
}

fn socket() -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut child =
        Command::new("dd").args(&dd()[1..]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut stdout = child.stdout.take().context("no pipe")?;
    let (mut ours, theirs) = UnixStream::pair()?;
    let copy = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match stdout.read(&mut buffer)? {
                0 => return Ok::<(), std::io::Error>(()),
                length => ours.write_all(&buffer[..length])?,
            }
        }
    });
    drain(theirs)?;
    copy.join().map_err(|_| anyhow::anyhow!("a thread failed"))??;
    child.wait()?;
    Ok(per_second(start))
}

fn api_in(daemon: &Daemon, handle: &str) -> anyhow::Result<f64> {
    let args = vec!["-c".into(), "cat > /dev/null".into()];
    let spec =
        ProcessSpec { path: "sh".into(), args, user: "root".into(), ..ProcessSpec::default() };
    let start = Instant::now();
    let mut process = Process::run(daemon, handle, &spec)?;
    let text = "x".repeat(MESSAGE_BYTES);
    process.input(Some(&text), (MEGABYTES << 20) / MESSAGE_BYTES)?;
    process.input(None, 1)?;
    ensure!(process.wait()? == 0, "cat failed");
    Ok(per_second(start))
}

fn through(mut command: Command) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut source =
        Command::new("dd").args(&dd()[1..]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stdin = source.stdout.take().context("no pipe")?;
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).spawn()?;
    // The source must see it when nobody reads.
    drop(command);
    drain(child.stdout.take().context("no pipe")?)?;
    ensure!(child.wait()?.success() && source.wait()?.success(), "cat failed");
    Ok(per_second(start))
}
