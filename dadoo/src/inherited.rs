//! The write ends that a server hands to dadoo as descriptors 3, 4 and 5, and the process's standard
//! streams if they are 6, 7 and 8.
//!
//! Turning an inherited number into an owned descriptor is unsafe in Rust, since nothing proves
//! that nobody else owns it. Opening `/proc/self/fd/N` again is safe, gives a descriptor that is
//! closed on exec (the inherited one is not, and would leak into the runtime), and fails instead of
//! blocking when the other end is gone. The inherited numbers are then closed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use anyhow::{Context, ensure};
use guardian_contract::process::{ProcessDir, descriptor};
use nix::fcntl::OFlag;
use nix::unistd::close;

/// The descriptors 3, 4 and 5, as far as there are any.
#[derive(Debug)]
pub(crate) struct Inherited {
    exit_status: Option<fs::File>,
    log: Option<OwnedFd>,
    sync: Option<fs::File>,
}

impl Inherited {
    /// Takes the three descriptors over, and closes every other one above stderr: none of them
    /// is meant for us, and somebody may be waiting for its end of file. With `passes_stdio` three
    /// more stay open, until [`close_passed`].
    ///
    /// # Errors
    /// When `/proc` can't be read, or one of those three is not open.
    pub(crate) fn adopt(passes_stdio: bool) -> anyhow::Result<Self> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir("/proc/self/fd").context("list descriptors")? {
            numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
        }
        // The directory's own descriptor is in the list too, and closed already: no harm.
        let passed = if passes_stdio { &descriptor::PASSED[..] } else { &[] };
        for number in passed {
            ensure!(numbers.contains(number), "--pass-stdio: descriptor {number} is not open");
        }
        let is_ours = |number: &i32| *number <= descriptor::SYNC || passed.contains(number);
        numbers.into_iter().filter(|number| !is_ours(number)).for_each(close_number);
        let adopted = Self {
            exit_status: reopen(descriptor::RUNTIME_EXIT).map(fs::File::from),
            log: reopen(descriptor::RUNTIME_LOG),
            sync: reopen(descriptor::SYNC).map(fs::File::from),
        };
        (descriptor::RUNTIME_EXIT..=descriptor::SYNC).for_each(close_number);
        Ok(adopted)
    }

    /// Tells whether a server started us, rather than a person.
    pub(crate) fn has_server(&self) -> bool {
        self.sync.is_some()
    }

    /// Tells the server that the FIFOs are open.
    pub(crate) fn tell_open(&mut self) {
        tell(self.sync.take(), 0);
    }

    /// Tells the server how the runtime ended.
    pub(crate) fn tell_exit_status(&mut self, status: u8) {
        tell(self.exit_status.take(), status);
    }

    /// Returns the runtime's log, at the number that the runtime is told: the server's pipe, or
    /// else `runtime.log` in the process directory. To be called before that number is taken.
    ///
    /// # Errors
    /// When that file can't be made.
    pub(crate) fn take_log(&mut self, dir: &ProcessDir) -> anyhow::Result<OwnedFd> {
        let log = match self.log.take() {
            Some(log) => log,
            None => {
                let path = dir.path().join(RUNTIME_LOG);
                let mut options = OpenOptions::new();
                let file = options.create(true).append(true).mode(0o600).open(&path);
                file.with_context(|| format!("open {}", path.display()))?.into()
            }
        };
        let log = rustix::io::fcntl_dupfd_cloexec(&log, descriptor::RUNTIME_LOG)?;
        ensure!(log.as_raw_fd() == descriptor::RUNTIME_LOG, "descriptor 4 is in use");
        Ok(log)
    }
}

/// The runtime's log of a process started by hand.
pub(crate) const RUNTIME_LOG: &str = "runtime.log";

/// Closes what was passed for the process, which has it by now.
pub(crate) fn close_passed() {
    descriptor::PASSED.into_iter().for_each(close_number);
}

/// Opens the pipe or file behind an inherited descriptor again. A person's shell may have left
/// anything at that number: what can be read is not ours to write to.
fn reopen(number: i32) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{number}");
    let is_write_only = fs::symlink_metadata(&path).ok()?.mode() & 0o700 == 0o300;
    let is_pipe = fs::metadata(&path).ok()?.file_type().is_fifo();
    let is_log = number == descriptor::RUNTIME_LOG;
    if !is_write_only || !(is_pipe || is_log) {
        return None;
    }
    let mut options = OpenOptions::new();
    options.append(is_log).write(true).custom_flags(OFlag::O_NONBLOCK.bits());
    // Above the inherited numbers, which are about to be closed.
    let [.., last] = descriptor::PASSED;
    rustix::io::fcntl_dupfd_cloexec(options.open(path).ok()?, last + 1).ok()
}

/// Closes a descriptor that no object of ours owns.
fn close_number(number: i32) {
    let _ = close(number);
}

/// Writes one byte and closes. A server that is gone does not matter to the process.
fn tell(pipe: Option<fs::File>, byte: u8) {
    if let Some(mut pipe) = pipe {
        let _ = pipe.write_all(&[byte]);
    }
}
