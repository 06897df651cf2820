//! Starting a process: its directory, its FIFOs, its dadoo, and the news whether it runs.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use guardian_contract::depot::{Bundle, Handle};
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::log;
use guardian_contract::process::{ProcessDir, descriptor};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chown, mkfifo};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::Pipes;
use super::spawn::{Child, spawn};
use crate::plugin::runtime::{Runtime, last_error_in};

/// How much of a log is read.
const LOG_BYTES: usize = 16 * 1024;

/// What is to be started.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    /// In which container.
    pub(crate) bundle: &'a Bundle,
    /// Under which name.
    pub(crate) process_id: &'a Handle,
    /// How it comes about.
    pub(crate) task: Task,
    /// Whether it gets a terminal.
    pub(crate) tty: bool,
    /// Its standard streams, if they are not FIFOs.
    pub(crate) stdio: Option<Passed>,
    /// The cgroup that must be empty before it has ended.
    pub(crate) tree: Option<PathBuf>,
}

/// A client's standard streams.
pub(crate) type Passed = [OwnedFd; 3];

/// How a process comes about.
#[derive(Debug)]
pub(crate) enum Task {
    /// In the container: the OCI process object, as JSON.
    Exec(Vec<u8>),
    /// As a pea: the process directory is its bundle.
    Pea,
}

/// Makes the process directory and its FIFOs, those for its streams only if it has them. `owner` is
/// the container's root on the host, as in gdn. On failure nothing is left.
///
/// # Errors
/// `process ID 'x' already in use`.
pub(crate) fn reserve(
    bundle: &Bundle,
    process_id: &Handle,
    owner: (u32, u32),
    has_streams: bool,
) -> anyhow::Result<ProcessDir> {
    let dir = bundle.process(process_id);
    make_dir(bundle, process_id, &dir)?;
    let streams = has_streams.then(|| dir.streams());
    let fifos = streams.into_iter().flatten().chain(dir.signals());
    make_fifos(fifos, owner).inspect_err(|_| release(&dir))?;
    Ok(dir)
}

/// Removes the directory of a process that does not run.
pub(crate) fn release(dir: &ProcessDir) {
    let _ = std::fs::remove_dir_all(dir.path());
}

fn make_dir(bundle: &Bundle, process_id: &Handle, dir: &ProcessDir) -> anyhow::Result<()> {
    guardian_contract::file::private_dir(&bundle.processes())?;
    match DirBuilder::new().mode(0o700).create(dir.path()) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Fault::exists(format!("process ID '{process_id}' already in use")).into())
        }
        made => made.with_context(|| format!("make directory {}", dir.path().display())),
    }
}

fn make_fifos(fifos: impl Iterator<Item = PathBuf>, (uid, gid): (u32, u32)) -> anyhow::Result<()> {
    for fifo in fifos {
        mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR)
            .and_then(|()| chown(&fifo, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
            .with_context(|| format!("make FIFO {}", fifo.display()))?;
    }
    Ok(())
}

/// Starts dadoo and waits until the runtime has started the process. Returns our ends of its
/// FIFOs.
///
/// # Errors
/// [`Kind::ExecutableNotFound`]; the runtime's own words.
pub(crate) async fn start(
    dadoo: &Path,
    runtime: &Runtime,
    mut start: Start<'_>,
) -> anyhow::Result<Pipes> {
    let dir = start.bundle.process(start.process_id);
    let (runtime_exit, runtime_exit_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (runtime_log, runtime_log_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (sync, sync_write) = pipe_with(PipeFlags::CLOEXEC)?;
    // Our ends of the FIFOs must be open before dadoo's blocking opens can return.
    let pipes = Pipes::open(&dir).context("open the process's FIFOs")?;
    // A file without a name: dadoo and its runtime can always write there, and who has died leaves
    // nothing.
    let log = memory("dadoo.log", &[])?;
    let stdin = match &start.task {
        Task::Exec(process) => memory("process.json", process)?,
        Task::Pea => File::open("/dev/null").context("open /dev/null")?,
    };
    let mut descriptors = vec![
        (stdin.into(), 0),
        (log.try_clone()?.into(), 1),
        (log.try_clone()?.into(), 2),
        (runtime_exit_write, descriptor::RUNTIME_EXIT),
        (runtime_log_write, descriptor::RUNTIME_LOG),
        (sync_write, descriptor::SYNC),
    ];
    let args = arguments(runtime, &start, &dir);
    // Ours no longer from here on: whoever reads them waits for the process's end only.
    descriptors.extend(start.stdio.take().into_iter().flatten().zip(descriptor::PASSED));
    let child = spawn(dadoo, &args, descriptors)?;
    let said = Arc::new(log);
    reap(child, Arc::clone(&said));
    if read_byte(sync).await?.is_none() {
        bail!("dadoo ended before it held the process's FIFOs: {}", text(&said));
    }
    let mut log_text = Vec::new();
    let mut log_pipe = pipe::Receiver::from_owned_fd(runtime_log)?;
    let (exit, _) = tokio::join!(read_byte(runtime_exit), log_pipe.read_to_end(&mut log_text));
    let last_error = last_error_in(&String::from_utf8_lossy(&log_text));
    match exit? {
        Some(0) => Ok(pipes),
        Some(status) => Err(failure(status, &last_error).into()),
        None => bail!("failed to read runc exit code: dadoo ended. {last_error}"),
    }
}

fn arguments(runtime: &Runtime, start: &Start<'_>, dir: &ProcessDir) -> Vec<OsString> {
    let mut args = vec!["-runc-root".into(), runtime.root.clone().into()];
    if start.tty {
        args.push("-tty".into());
    }
    if start.stdio.is_some() {
        args.push("--pass-stdio".into());
    }
    if let Some(tree) = &start.tree {
        args.extend(["--tree".into(), tree.into()]);
    }
    let (verb, id) = match start.task {
        Task::Exec(_) => ("exec", start.bundle.handle()),
        Task::Pea => ("run", start.process_id),
    };
    args.extend([verb.into(), runtime.program.clone().into()]);
    args.extend([dir.path().into(), id.as_str().into()]);
    args
}

/// Returns a file in memory.
fn memory(name: &str, content: &[u8]) -> anyhow::Result<File> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC).context("make a file")?);
    file.write_all(content)
        .and_then(|()| file.rewind())
        .with_context(|| format!("write {name}"))?;
    Ok(file)
}

/// Collects dadoo in the background and moves what it printed into our log.
fn reap(child: Child, said: Arc<File>) {
    tokio::spawn(async move {
        child.ended().await;
        let said = text(&said);
        if !said.is_empty() {
            log::info("dadoo", &json!({"output": said}));
        }
    });
}

/// Returns what was written to a log, as far as somebody can have meant it to be read.
fn text(log: &File) -> String {
    let mut bytes = vec![0; LOG_BYTES];
    let length = log.read_at(&mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
}

async fn read_byte(fd: OwnedFd) -> anyhow::Result<Option<u8>> {
    let mut byte = [0];
    let length = pipe::Receiver::from_owned_fd(fd)?.read(&mut byte).await?;
    Ok((length == 1).then_some(byte[0]))
}

/// Says why the runtime did not start the process, in the words that Garden's clients look for.
fn failure(status: u8, last_error: &str) -> Fault {
    match missing_executable(last_error) {
        Some(text) => Fault::new(Kind::ExecutableNotFound, text),
        None => Fault::new(Kind::Failed, format!("runc exec: exit status {status}: {last_error}")),
    }
}

/// Recognises a missing program in a runtime's error. runc says it in Go's words already; crun
/// says ``executable file `x` not found``, which is put into the same words.
fn missing_executable(error: &str) -> Option<String> {
    let go = ["executable file not found in $PATH", ": no such file or directory"];
    if error.contains("unable to start container process: exec: ") {
        return go.iter().any(|words| error.ends_with(words)).then(|| error.to_owned());
    }
    let (_, rest) = error.split_once("executable file `")?;
    let (name, rest) = rest.split_once('`')?;
    if !rest.starts_with(" not found") {
        return None;
    }
    let reason = match name.contains('/') {
        true => format!("stat {name}: no such file or directory"),
        false => "executable file not found in $PATH".into(),
    };
    let prefix = "exec failed: unable to start container process";
    Some(format!("{prefix}: exec: \"{name}\": {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_recognised_from_both_runtimes() {
        for (error, want) in [
            (
                "exec failed: unable to start container process: exec: \"foo\": executable file not found in $PATH",
                Some(
                    "exec failed: unable to start container process: exec: \"foo\": executable file not found in $PATH",
                ),
            ),
            (
                "exec failed: unable to start container process: exec: \"/x/y\": stat /x/y: no such file or directory",
                Some(
                    "exec failed: unable to start container process: exec: \"/x/y\": stat /x/y: no such file or directory",
                ),
            ),
            (
                "executable file `foo` not found in $PATH: No such file or directory",
                Some(
                    "exec failed: unable to start container process: exec: \"foo\": executable file not found in $PATH",
                ),
            ),
            (
                "executable file `/x/y` not found: No such file or directory",
                Some(
                    "exec failed: unable to start container process: exec: \"/x/y\": stat /x/y: no such file or directory",
                ),
            ),
            (
                "exec failed: unable to start container process: exec: \"/etc\": permission denied",
                None,
            ),
            ("container not running", None),
        ] {
            assert_eq!(missing_executable(error).as_deref(), want, "{error}");
        }
    }
}
