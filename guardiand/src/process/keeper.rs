//! Starting a process: its directory, its FIFOs, its dadoo, and the news whether it runs.

use std::fs::{DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, bail};
use command_fds::{CommandFdExt, FdMapping};
use guardian_contract::depot::{Bundle, Handle};
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::log;
use guardian_contract::process::{ProcessDir, descriptor};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chown, mkfifo};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::Pipes;
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
    let log = File::from(memfd_create("dadoo.log", MemfdFlags::CLOEXEC).context("make a log")?);
    let mut mappings = vec![
        mapping(runtime_exit_write, descriptor::RUNTIME_EXIT),
        mapping(runtime_log_write, descriptor::RUNTIME_LOG),
        mapping(sync_write, descriptor::SYNC),
    ];
    let mut command = command(dadoo, runtime, &start, &dir, &log)?;
    // Ours no longer from here on: whoever reads them waits for the process's end only.
    let passed = start.stdio.take().into_iter().flatten().zip(descriptor::PASSED);
    mappings.extend(passed.map(|(stream, number)| mapping(stream, number)));
    let mut child = command
        .fd_mappings(mappings)
        .context("map dadoo's descriptors")?
        .spawn()
        .with_context(|| format!("exec {}", dadoo.display()))?;
    // It keeps our copies of what it has handed on.
    drop(command);
    if let (Some(mut stdin), Task::Exec(process)) = (child.stdin.take(), start.task) {
        tokio::spawn(async move { stdin.write_all(&process).await });
    }
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

fn command(
    dadoo: &Path,
    runtime: &Runtime,
    start: &Start<'_>,
    dir: &ProcessDir,
    log: &File,
) -> anyhow::Result<Command> {
    let mut command = Command::new(dadoo);
    command.arg("-runc-root").arg(&runtime.root);
    if start.tty {
        command.arg("-tty");
    }
    if start.stdio.is_some() {
        command.arg("--pass-stdio");
    }
    if let Some(tree) = &start.tree {
        command.arg("--tree").arg(tree);
    }
    let (verb, id) = match start.task {
        Task::Exec(_) => ("exec", start.bundle.handle()),
        Task::Pea => ("run", start.process_id),
    };
    command
        .arg(verb)
        .arg(&runtime.program)
        .arg(dir.path())
        .arg(id.as_str())
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .process_group(0);
    Ok(command)
}

fn mapping(fd: OwnedFd, child_fd: i32) -> FdMapping {
    FdMapping { parent_fd: fd, child_fd }
}

/// Collects dadoo in the background and moves what it printed into our log.
fn reap(mut child: Child, said: Arc<File>) {
    tokio::spawn(async move {
        let _ = child.wait().await;
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
