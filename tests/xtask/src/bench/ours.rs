//! One container's life through the API, over the unix socket: no client process is started, so
//! that the server alone is measured.

use std::io::Read;

use anyhow::bail;
use guardian_contract::garden::ProcessSpec;
use guardian_tests::api::{Process, call};
use guardian_tests::daemon::Daemon;

use super::{Times, timed};

/// Creates, runs `/bin/true`, destroys.
///
/// # Errors
/// When the server does.
pub(super) fn life(daemon: &Daemon, name: &str, times: &mut Times) -> anyhow::Result<()> {
    let handle = daemon.handle(name);
    let spec = format!(r#"{{"handle":"{handle}"}}"#);
    timed(&mut times.create, || call(daemon, "POST", "/containers", &spec))?;
    timed(&mut times.run, || run_true(daemon, &handle))?;
    let path = format!("/containers/{handle}");
    timed(&mut times.destroy, || call(daemon, "DELETE", &path, "")).map(drop)
}

/// Like the Go client: reads both outputs to their end.
fn run_true(daemon: &Daemon, handle: &str) -> anyhow::Result<()> {
    let spec =
        ProcessSpec { path: "/bin/true".into(), user: "root".into(), ..ProcessSpec::default() };
    let mut process = Process::run(daemon, handle, &spec)?;
    match process.wait()? {
        0 => {}
        code => bail!("/bin/true in {handle}: {code}"),
    }
    process.stdout.read_to_end(&mut Vec::new())?;
    process.stderr.read_to_end(&mut Vec::new())?;
    Ok(())
}
