//! Calls of the OCI runtime that concern a container as a whole. Processes are dadoo's.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use guardian_contract::depot::{Bundle, Handle};
use guardian_contract::log;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::Deserialize;
use serde_json::json;

use crate::cli;
use crate::invoke::{Outcome, invoke};

/// Starting and deleting a container takes a runtime well under a second.
const DEADLINE: Duration = Duration::from_secs(120);

/// The OCI runtime of this server.
#[derive(Debug)]
pub(crate) struct Runtime {
    /// A path, or a name on PATH.
    pub(crate) program: PathBuf,
    /// Where it keeps its state.
    pub(crate) root: PathBuf,
    extra: Vec<OsString>,
}

impl Runtime {
    /// Returns the runtime as the flags describe it. Its state stays where its own command line
    /// looks for it, so that `runc list` and `crun list` show our containers.
    pub(crate) fn new(flags: &cli::Tools) -> Self {
        let program = PathBuf::from(&flags.runtime_plugin);
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let root = if name.starts_with("crun") { "/run/crun" } else { "/run/runc" };
        let extra = flags.runtime_plugin_extra_arg.iter().map(OsString::from).collect();
        Self { root: root.into(), extra, program }
    }

    /// Creates and starts the container of a bundle, with gdn's argv.
    ///
    /// # Errors
    /// In gdn's words: `runc run: exit status N: <the runtime's last error>`.
    pub(crate) async fn run(&self, bundle: &Bundle) -> anyhow::Result<()> {
        let mut args = log_flags(&bundle.create_log());
        args.extend_from_slice(&self.extra);
        args.extend(["run", "--detach", "--no-new-keyring", "--bundle"].map(OsString::from));
        args.extend([
            bundle.path().into(),
            "--pid-file".into(),
            bundle.pidfile().into(),
            bundle.handle().as_str().into(),
        ]);
        let ended = self.quietly(&args).await.context("runc run")?;
        if !ended.success() {
            let said = last_error(&bundle.create_log());
            bail!("runc run: {}: {said}", Outcome::of(ended).exit_text());
        }
        Ok(())
    }

    /// Deletes a container, killing what is left of it; one that is gone is no error.
    ///
    /// # Errors
    /// With the runtime's own words.
    pub(crate) async fn delete(&self, handle: &Handle, scratch: &Path) -> anyhow::Result<()> {
        if self.keeps_no_state_of(handle) {
            return Ok(());
        }
        let mut args = vec!["--root".into(), self.root.clone().into_os_string()];
        args.extend(log_flags(scratch));
        args.extend(["delete".into(), "--force".into(), handle.as_str().into()]);
        let outcome = match invoke(&self.program, &args, &[], DEADLINE).await {
            // A runtime that can't even be started has not made anything.
            Err(_) if !self.root.join(handle.as_str()).exists() => return Ok(()),
            outcome => outcome?,
        };
        let said = last_error(scratch);
        let _ = std::fs::remove_file(scratch);
        if outcome.status.success() || said.contains("does not exist") {
            return Ok(());
        }
        bail!("runc delete: {}: {said}", outcome.exit_text())
    }

    /// Tells whether the runtime surely knows nothing of this container. Only said of runtimes
    /// whose layout we know; any other is asked.
    fn keeps_no_state_of(&self, handle: &Handle) -> bool {
        let name = self.program.file_name().unwrap_or_default();
        (name == "runc" || name == "crun") && !self.root.join(handle.as_str()).exists()
    }

    /// Runs the runtime with nothing on its standard streams: the container's init inherits them.
    async fn quietly(&self, args: &[OsString]) -> anyhow::Result<std::process::ExitStatus> {
        use std::process::Stdio;
        let nothing = nothing().context("make empty streams for the runtime")?;
        let stream = || anyhow::Ok(Stdio::from(nothing.try_clone()?));
        let mut child = tokio::process::Command::new(&self.program)
            .args(args)
            // crun would keep its state there, if this server was started from a login.
            .env_remove("XDG_RUNTIME_DIR")
            .stdin(stream()?)
            .stdout(stream()?)
            .stderr(stream()?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("exec {}", self.program.display()))?;
        match tokio::time::timeout(DEADLINE, child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} did not end within {DEADLINE:?}", self.program.display()),
        }
    }
}

/// Returns a file that is empty and stays so. Init inherits it, and crun 1.8 gives what init inherits
/// to the container's root: /dev/null would be the host's own, for everybody (its mode, too).
fn nothing() -> std::io::Result<OwnedFd> {
    let file = memfd_create("nothing", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

impl Outcome {
    fn of(status: std::process::ExitStatus) -> Self {
        Self { status, stdout: Vec::new(), stderr: Vec::new() }
    }
}

fn log_flags(file: &Path) -> Vec<OsString> {
    vec!["--log".into(), file.into(), "--log-format".into(), "json".into()]
}

/// A line of a runtime's JSON log.
#[derive(Deserialize)]
struct LogLine {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// Returns the last error in a runtime's log; empty when it has none.
fn last_error(file: &Path) -> String {
    last_error_in(&std::fs::read_to_string(file).unwrap_or_default())
}

/// Returns the last error in the text of a runtime's log, and relogs the rest.
pub(crate) fn last_error_in(text: &str) -> String {
    let mut last = String::new();
    for line in text.lines().filter_map(|line| serde_json::from_str::<LogLine>(line).ok()) {
        log::debug("runc", &json!({"message": line.msg}));
        if line.level == "error" || line.level == "fatal" || line.level.is_empty() {
            last = line.msg;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_the_reason() {
        let text = concat!(
            r#"{"level":"debug","msg":"a","time":"t"}"#,
            "\n",
            r#"{"level":"error","msg":"first","time":"t"}"#,
            "\n",
            r#"{"level":"error","msg":"second","time":"t"}"#,
            "\n",
            "not json\n",
        );
        assert_eq!(last_error_in(text), "second");
        assert_eq!(last_error_in(""), "");
    }
}
