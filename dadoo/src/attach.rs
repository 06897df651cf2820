//! `dadoo attach`: connects a person's stdin, stdout and stderr with the process's FIFOs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use guardian_contract::process::ProcessDir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::fifo::open_end;
use crate::flow::Flow;
use crate::status::{self, Watch};

/// The size of a pipe: one read empties it.
const BUFFER_BYTES: usize = 64 * 1024;
/// How often we look whether the process has been started.
const START_INTERVAL_MS: u8 = 5;

/// What can be done without blocking.
#[derive(Debug, Default)]
struct Ready {
    is_ended: bool,
    own_stdin: bool,
    stdout: bool,
    stderr: bool,
}

/// Relays until the process has ended and all its output is delivered, and returns its exit code.
///
/// # Errors
/// When no dadoo keeps the process and none has, or our own stdout or stderr fails.
pub(crate) fn attach(dir: &ProcessDir) -> anyhow::Result<u8> {
    let watch = Watch::open(dir)?;
    if !watch.is_kept() {
        return status::exitcode(dir);
    }
    // Opened as a server does it: nothing here can block, and dadoo may start.
    let mut stdin = Some(open_end(&dir.stdin(), OFlag::O_RDWR | OFlag::O_NONBLOCK)?);
    let for_output = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let mut stdout = Some(open_end(&dir.stdout(), for_output)?);
    let mut stderr = Some(open_end(&dir.stderr(), for_output)?);
    let mut input = Flow::new(BUFFER_BYTES);
    wait_for_start(dir, &watch);
    let mut ready = Ready::default();
    while !ready.is_ended {
        let ends = [stdin.as_ref(), stdout.as_ref(), stderr.as_ref()];
        ready = wait(&watch, &input, ends)?;
        // What an ended process has written is all there, so one more round delivers the rest.
        if ready.stdout || ready.is_ended {
            deliver(&mut stdout, io::stdout().as_fd(), ready.is_ended)
                .context("write to stdout")?;
        }
        if ready.stderr || ready.is_ended {
            deliver(&mut stderr, io::stderr().as_fd(), ready.is_ended)
                .context("write to stderr")?;
        }
        // The end of our stdin is the process's, if nobody else has the FIFO open.
        if ready.own_stdin && matches!(input.fill(io::stdin()), Ok(0)) {
            stdin = None;
        }
        if let Some(stdin) = &stdin {
            let _ = input.flush(stdin);
        }
    }
    status::exitcode(dir)
}

/// Waits until the runtime has written the pidfile. A dadoo that has not opened its end of `stdin`
/// would miss that we opened and closed ours, and wait for the next who does.
fn wait_for_start(dir: &ProcessDir, watch: &Watch) {
    let is_quiet = || poll(&mut [watch.hang_up()], START_INTERVAL_MS) == Ok(0);
    while !dir.pidfile().exists() && is_quiet() {}
}

/// Waits for something to do.
fn wait(watch: &Watch, input: &Flow, ends: [Option<&OwnedFd>; 3]) -> anyhow::Result<Ready> {
    let own_stdin = io::stdin();
    let [stdin, stdout, stderr] = ends;
    // Our own stdin is only waited for if there is room for what it says.
    let (open_stdin, full_stdin) = match input.is_empty() {
        true => (stdin, None),
        false => (None, stdin),
    };
    let wanted = [
        Some(watch.hang_up()),
        open_stdin.map(|_| readable(own_stdin.as_fd())),
        stdout.map(|end| readable(end.as_fd())),
        stderr.map(|end| readable(end.as_fd())),
        full_stdin.map(|end| PollFd::new(end.as_fd(), PollFlags::POLLOUT)),
    ];
    let mut polled: Vec<PollFd<'_>> = wanted.iter().flatten().cloned().collect();
    match poll(&mut polled, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error).context("wait for the process"),
    }
    let mut seen = polled.into_iter();
    let [is_ended, own_stdin, stdout, stderr, _] =
        wanted.map(|wanted| wanted.is_some() && seen.next().and_then(|fd| fd.any()) == Some(true));
    Ok(Ready { is_ended, own_stdin, stdout, stderr })
}

fn readable(end: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(end, PollFlags::POLLIN)
}

/// Copies what the process has written, once, or all there is; forgets an end that is finished.
fn deliver(end: &mut Option<OwnedFd>, to: BorrowedFd<'_>, is_last: bool) -> nix::Result<()> {
    let mut flow = Flow::new(BUFFER_BYTES);
    while let Some(from) = end {
        match flow.fill(from) {
            Ok(0) => *end = None,
            Err(_) => break,
            Ok(_) => write_all(&mut flow, to)?,
        }
        if !is_last {
            break;
        }
    }
    Ok(())
}

/// Flushes to a descriptor that somebody may have set non-blocking.
fn write_all(flow: &mut Flow, to: BorrowedFd<'_>) -> nix::Result<()> {
    while !flow.is_empty() {
        match flow.flush(to) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
