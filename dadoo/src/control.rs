//! `dadoo wait`, `signal` and `resize`: what a person does with a kept process from outside.

use std::str::FromStr;

use anyhow::{Context, bail};
use guardian_contract::fault::Fault;
use guardian_contract::process::{ProcessDir, WindowSize};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::write;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::status::{self, Watch};
use crate::tree;

/// Waits until the process has ended, and returns its exit code.
///
/// # Errors
/// When no dadoo keeps the process and none has.
pub(crate) fn wait(dir: &ProcessDir) -> anyhow::Result<u8> {
    let watch = Watch::open(dir)?;
    if watch.is_kept() {
        while poll(&mut [watch.hang_up()], PollTimeout::NONE) == Err(Errno::EINTR) {}
    }
    status::exitcode(dir)
}

/// Sends a signal, named or numbered, to the process; one that has ended needs none.
///
/// # Errors
/// When there is no such signal, and when no dadoo keeps the process and none has.
pub(crate) fn signal(dir: &ProcessDir, text: &str) -> anyhow::Result<()> {
    let number = parse_signal(text)?;
    let watch = Watch::open(dir)?;
    let pid = match status::pid(dir) {
        Ok(pid) => pid,
        Err(_) if dir.exitcode().exists() => return Ok(()),
        Err(error) => return Err(error),
    };
    // Opened before the look at `exit`: if the process was kept afterwards, it is this one.
    let pidfd = Pid::from_raw(pid.as_raw())
        .context("pid 0")
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).context("open the process"));
    if !watch.is_kept() {
        return status::exitcode(dir).map(drop);
    }
    if let Some(tree) = tree::recorded(dir)? {
        return tree::signal(&tree, number);
    }
    pidfd_send_signal(pidfd?, number).with_context(|| format!("signal pid {pid}"))
}

/// Sets the size of the process's terminal.
///
/// # Errors
/// When the process has no terminal, or has ended.
pub(crate) fn resize(dir: &ProcessDir, columns: u16, rows: u16) -> anyhow::Result<()> {
    status::expect(dir)?;
    let path = dir.winsz();
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let winsz = match open(&path, flags, Mode::empty()) {
        Ok(winsz) => winsz,
        Err(Errno::ENXIO) => bail!("the process has no terminal, or has ended"),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let mut json = serde_json::to_vec(&WindowSize { columns, rows })?;
    json.push(b'\n');
    // Short enough to be written whole or not at all (PIPE_BUF, pipe(7)).
    write(&winsz, &json).with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

/// Understands `TERM`, `SIGTERM` and `15`.
fn parse_signal(text: &str) -> Result<rustix::process::Signal, Fault> {
    let name = text.strip_prefix("SIG").unwrap_or(text).to_ascii_uppercase();
    let number = match name.parse::<i32>() {
        Ok(number) => number,
        Err(_) => Signal::from_str(&format!("SIG{name}")).map_or(0, |signal| signal as i32),
    };
    rustix::process::Signal::from_named_raw(number)
        .ok_or_else(|| Fault::invalid(format!("there is no signal '{}'", text.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, want) in [("TERM", 15), ("KILL", 9), ("SIGUSR1", 10), ("9", 9), ("term", 15)] {
            assert_eq!(parse_signal(text).unwrap().as_raw(), want, "{text}");
        }
        for bad in ["", "0", "-9", "NOPE", "65", "TERM "] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_ended_process_needs_no_signal_and_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let process = ProcessDir::at(dir.path());
        crate::fifo::make(&process, true).unwrap();
        assert!(wait(&process).is_err());
        assert!(signal(&process, "TERM").is_err());
        // A pid that lives, and would be hit if nobody looked: our own.
        std::fs::write(process.pidfile(), std::process::id().to_string()).unwrap();
        std::fs::write(process.exitcode(), "7").unwrap();
        signal(&process, "KILL").unwrap();
        assert_eq!(wait(&process).unwrap(), 7);
        assert!(resize(&process, 80, 24).is_err());
    }

    #[test]
    fn what_is_no_process_is_named() {
        let dir = ProcessDir::at("/no/p");
        for result in [signal(&dir, "KILL"), resize(&dir, 80, 24), wait(&dir).map(drop)] {
            assert_eq!(result.unwrap_err().to_string(), "there is no process /no/p");
        }
    }
}
