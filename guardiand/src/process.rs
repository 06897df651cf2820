//! One process of a container, as the server sees it: its output fanned out, its end awaited.
//!
//! The process itself is dadoo's. All that is kept here can be found again in its directory,
//! which is what [`Process::adopt`] does after a restart.

pub(crate) mod account;
pub(crate) mod attach;
pub(crate) mod fanout;
pub(crate) mod jail;
pub(crate) mod keeper;
pub(crate) mod messages;
pub(crate) mod spawn;
pub(crate) mod spec;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use guardian_contract::depot::Handle;
use guardian_contract::garden::TtyWindow;
use guardian_contract::log;
use guardian_contract::process::{ProcessDir, WindowSize};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use crate::container::lock;
use fanout::Fanout;

/// One read of output: a pipe's default capacity. Not more: glibc gives memory back to the kernel
/// only as long as nothing of 128 KiB and above was ever freed (mallopt(3), M_MMAP_THRESHOLD).
const CHUNK_BYTES: usize = 64 * 1024;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With this exit code.
    Code(i64),
    /// Nobody knows how, and why not.
    Unknown(String),
}

impl Ending {
    /// Returns the exit code, if it is known.
    pub(crate) fn code(&self) -> Option<i64> {
        match self {
            Self::Code(code) => Some(*code),
            Self::Unknown(_) => None,
        }
    }
}

/// A process that runs, or ran until just now.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its name.
    pub(crate) id: Handle,
    /// Its standard output.
    pub(crate) stdout: Fanout,
    /// Its standard error.
    pub(crate) stderr: Fanout,
    dir: ProcessDir,
    /// Signals the whole tree of a process that counts with its descendants.
    dadoo: PathBuf,
    first_stdin: Mutex<Option<pipe::Sender>>,
    ending: watch::Sender<Option<Ending>>,
    is_end_told: AtomicBool,
}

/// Our ends of a process's FIFOs. They must be open without a gap from before dadoo opens its
/// ends until the last byte is read: a FIFO that nobody holds forgets what is in it.
#[derive(Debug)]
pub(crate) struct Pipes {
    exit: pipe::Receiver,
    /// None for a process that was passed its streams.
    streams: Option<Streams>,
}

#[derive(Debug)]
struct Streams {
    stdin: pipe::Sender,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

impl Pipes {
    /// Opens our ends; never blocks.
    ///
    /// # Errors
    /// When a FIFO is missing.
    pub(crate) fn open(dir: &ProcessDir) -> io::Result<Self> {
        let read = |fifo| pipe::OpenOptions::new().open_receiver(fifo);
        let exit = read(dir.exit())?;
        if !dir.stdout().exists() {
            return Ok(Self { exit, streams: None });
        }
        let (stdout, stderr) = (read(dir.stdout())?, read(dir.stderr())?);
        let stdin = open_stdin(dir)?;
        Ok(Self { exit, streams: Some(Streams { stdin, stdout, stderr }) })
    }
}

/// Opened for both directions, as gdn does: a process that is just starting has not opened its
/// end yet, and one that has closed it must not make writing an error.
fn open_stdin(dir: &ProcessDir) -> io::Result<pipe::Sender> {
    pipe::OpenOptions::new().read_write(true).open_sender(dir.stdin())
}

impl Process {
    /// Begins to watch a process that dadoo has just started. Readers that must miss nothing
    /// join before [`Process::watch`] is called.
    pub(crate) fn started(id: Handle, dir: ProcessDir, dadoo: &Path) -> Arc<Self> {
        let keeps = dir.keep_output().exists();
        let (stdout, stderr) = (Fanout::keeping(keeps), Fanout::keeping(keeps));
        let (first_stdin, ending) = (Mutex::default(), watch::Sender::new(None));
        let (dadoo, is_end_told) = (dadoo.into(), AtomicBool::new(false));
        Arc::new(Self { id, dir, stdout, stderr, dadoo, first_stdin, ending, is_end_told })
    }

    /// Finds a process in its directory: one that runs is watched again, the end of one that
    /// does not is read. `None` when there is no such process.
    pub(crate) fn adopt(
        id: Handle,
        dir: ProcessDir,
        dadoo: &Path,
        drain: Duration,
    ) -> Option<Arc<Self>> {
        if !dir.exit().exists() && !dir.exitcode().exists() {
            return None;
        }
        let process = Self::started(id, dir, dadoo);
        match Pipes::open(&process.dir) {
            Ok(pipes) if keeper_is_alive(&process.dir.exit()) => process.watch(pipes, drain),
            _ => process.read_end(),
        }
        Some(process)
    }

    /// Finds how a process ended that ran and runs no more; `None` for one that never was, or that
    /// is being started or kept: its output has a reader already.
    pub(crate) fn ended_in(id: Handle, dir: ProcessDir, dadoo: &Path) -> Option<Arc<Self>> {
        if !dir.pidfile().exists() || keeper_is_alive(&dir.exit()) {
            return None;
        }
        let process = Self::started(id, dir, dadoo);
        process.read_end();
        Some(process)
    }

    /// Ends with what a process that has ended left in its directory.
    fn read_end(&self) {
        for (output, path) in [&self.stdout, &self.stderr].into_iter().zip(self.dir.kept_output()) {
            output.push(std::fs::read(path).unwrap_or_default().into());
        }
        self.end(read_ending(&self.dir));
    }

    /// Reads output and awaits the end, from now on, in the background. The end is told once the
    /// output was read, or `drain` after the process is gone.
    pub(crate) fn watch(self: &Arc<Self>, pipes: Pipes, drain: Duration) {
        let process = Arc::clone(self);
        let outputs = pipes.streams.map(|streams| {
            *lock(&self.first_stdin) = Some(streams.stdin);
            (streams.stdout, streams.stderr)
        });
        tokio::spawn(async move {
            let pumps = async {
                if let Some((stdout, stderr)) = outputs {
                    tokio::join!(pump(stdout, &process.stdout), pump(stderr, &process.stderr));
                }
            };
            tokio::pin!(pumps);
            let mut is_drained = false;
            let gone = keeper_gone(pipes.exit);
            tokio::pin!(gone);
            loop {
                tokio::select! {
                    _ = &mut pumps, if !is_drained => is_drained = true,
                    () = &mut gone => break,
                }
            }
            // What is left now is no more than a pipe holds.
            process.stdout.hurry();
            process.stderr.hurry();
            let ending = read_ending(&process.dir);
            // A descendant may hold the output open for ever; its ancestor's end must not wait
            // for that. What the process itself wrote is in the pipe by now, and is read first.
            if !is_drained && tokio::time::timeout(drain, &mut pumps).await.is_err() {
                log::info("output-held-open", &json!({"process": process.id.as_str()}));
            }
            process.save_output();
            process.end(ending);
        });
    }

    /// Puts the latest output where it is found after the end, if that was asked for.
    fn save_output(&self) {
        if !self.dir.keep_output().exists() {
            return;
        }
        for (output, path) in [&self.stdout, &self.stderr].into_iter().zip(self.dir.kept_output()) {
            if let Err(error) = std::fs::write(&path, output.kept()) {
                let data = json!({"path": path, "error": error.to_string()});
                log::error("keep-output", &data);
            }
        }
    }

    fn end(&self, ending: Ending) {
        self.stdout.end();
        self.stderr.end();
        lock(&self.first_stdin).take();
        self.ending.send_replace(Some(ending));
    }

    /// Returns how the process ended, waiting for it and for its output.
    pub(crate) async fn ended(&self) -> Ending {
        let mut ending = self.ending.subscribe();
        let found = ending.wait_for(Option::is_some).await.map(|ending| (*ending).clone());
        found.ok().flatten().unwrap_or_else(|| Ending::Unknown("server stops".into()))
    }

    /// Returns how it ended, to the first who asks after it did.
    pub(crate) fn ending_to_tell(&self) -> Option<Ending> {
        let ending = self.ending.borrow().clone()?;
        (!self.is_end_told.swap(true, Ordering::Relaxed)).then_some(ending)
    }

    /// Tells whether the end is known.
    pub(crate) fn has_ended(&self) -> bool {
        self.ending.borrow().is_some()
    }

    /// Opens a writer to the process's standard input; dropping the last one closes it.
    ///
    /// # Errors
    /// When the FIFO is gone.
    pub(crate) fn stdin(&self) -> io::Result<pipe::Sender> {
        let first = lock(&self.first_stdin).take();
        first.map_or_else(|| open_stdin(&self.dir), Ok)
    }

    /// Sends a signal, to the whole tree of a process that counts with its descendants. A process
    /// that has ended is passed over.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.dir.cgroup().exists() {
            return self.signal_tree(signal);
        }
        let Some(pid) = self.pid() else { return };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // dadoo is the parent and reaps only when it is about to end: while it lives, the pid is
        // its process's. Checked after the pidfd is open, so nothing can slip in between.
        if !self.has_ended() && keeper_is_alive(&self.dir.exit()) {
            let _ = pidfd_send_signal(&pidfd, signal);
        }
    }

    fn signal_tree(&self, signal: Signal) {
        let mut dadoo = tokio::process::Command::new(&self.dadoo);
        dadoo.arg("signal").arg(self.dir.path()).arg(signal.as_raw().to_string());
        let process = self.id.to_string();
        tokio::spawn(async move {
            let failure = match dadoo.output().await {
                Ok(output) if output.status.success() => return,
                Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
                Err(error) => error.to_string(),
            };
            log::error("signal", &json!({"process": process, "error": failure.trim()}));
        });
    }

    /// Tells the terminal's new size. Without a terminal nobody listens, and nothing happens.
    pub(crate) fn resize(&self, size: TtyWindow) {
        let size = WindowSize::from(size).or_default();
        let Ok(mut line) = serde_json::to_vec(&size) else { return };
        line.push(b'\n');
        let flags =
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        let opened = rustix::fs::open(self.dir.winsz(), flags, rustix::fs::Mode::empty());
        if let Ok(fifo) = opened {
            let _ = rustix::io::write(&fifo, &line);
        }
    }

    /// Returns its pid on the host, as the runtime has written it down.
    pub(crate) fn pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.dir.pidfile()).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }
}

/// Copies a FIFO into a fan-out until its last writer is gone.
async fn pump(fifo: pipe::Receiver, fanout: &Fanout) {
    if let Err(error) = copy(&fifo, fanout).await {
        log::error("read-output", &json!({"error": error.to_string()}));
    }
    fanout.end();
}

async fn copy(receiver: &pipe::Receiver, fanout: &Fanout) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    // The first read goes past tokio's readiness: epoll never reports a FIFO whose writers were
    // all gone before we opened it.
    let mut first = vec![0; CHUNK_BYTES];
    match rustix::io::read(receiver, &mut first) {
        Ok(0) => return Ok(()),
        Ok(length) => fanout.push(bytes::Bytes::copy_from_slice(&first[..length])),
        Err(rustix::io::Errno::AGAIN) => {}
        Err(error) => return Err(error.into()),
    }
    drop(first);
    loop {
        receiver.readable().await?;
        buffer.reserve(CHUNK_BYTES);
        match receiver.try_read_buf(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                // A small piece would pin the whole buffer in the queue: copy it out.
                let chunk = match length < CHUNK_BYTES / 4 {
                    true => bytes::Bytes::copy_from_slice(&buffer.split()),
                    false => buffer.split().freeze(),
                };
                fanout.push(chunk);
                fanout.make_room().await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Nothing at hand: an idle stream keeps no buffer.
                buffer = BytesMut::new();
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits until nobody holds the `exit` FIFO open any more.
async fn keeper_gone(exit: pipe::Receiver) {
    let mut byte = [0];
    // As in `copy`: the first look goes past tokio.
    while rustix::io::read(&exit, &mut byte) == Err(rustix::io::Errno::AGAIN) {
        if exit.readable().await.is_err() || matches!(exit.try_read(&mut byte), Ok(0)) {
            return;
        }
    }
}

/// Tells whether somebody holds the `exit` FIFO open: dadoo, while its process runs.
fn keeper_is_alive(exit: &Path) -> bool {
    let flags =
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let opened = rustix::fs::open(exit, flags, rustix::fs::Mode::empty());
    opened.is_ok_and(|fifo| rustix::io::read(&fifo, &mut [0]) == Err(rustix::io::Errno::AGAIN))
}

/// Reads the exit code that dadoo left, with gdn's words where there is none.
fn read_ending(dir: &ProcessDir) -> Ending {
    match std::fs::read_to_string(dir.exitcode()) {
        Ok(text) if text.trim().is_empty() => Ending::Unknown("the exitcode file is empty".into()),
        Ok(text) => match text.trim().parse() {
            Ok(code) => Ending::Code(code),
            Err(error) => Ending::Unknown(format!("failed to parse exit code: {error}")),
        },
        Err(error) => {
            Ending::Unknown(format!("could not find the exitcode file for the process: {error}"))
        }
    }
}
