//! A process's terminal: its master is relayed to and from the FIFOs until the process ends.

use core::ffi::c_int;

use syscalls::Errno;

use crate::sys::{self, POLLHUP, POLLIN, POLLOUT, PollFd};
use crate::window::{Size, SizeStream};

/// How long a process that has ended waits for somebody to read its last output.
const DRAIN_PATIENCE_MS: i64 = 2000;
/// How long the kernel may take to show us what it wrote, when a child of it keeps the terminal
/// open and no hang-up tells that this was all.
const QUIET_MS: i64 = 250;
/// How long it waits if somebody reads, but such a child goes on writing.
const DRAIN_LIMIT_MS: i64 = 10_000;

/// The descriptors that are relayed, all of them non-blocking: a reader that does not read stops
/// the output, and through the full pty the process, but never a resize or the input.
pub(crate) struct Ends {
    pub(crate) master: c_int,
    pub(crate) stdin: c_int,
    pub(crate) stdout: c_int,
    pub(crate) winsz: c_int,
}

/// What the other end of the terminal still does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OtherEnd {
    /// It is open.
    Open,
    /// Nobody has it open: what was written can be read, what is typed goes nowhere.
    HungUp,
    /// All was read.
    Drained,
}

/// The relay at work.
pub(crate) struct Relay {
    ends: Ends,
    children: c_int,
    input: Flow,
    output: Flow,
    sizes: SizeStream,
    other_end: OtherEnd,
}

impl Relay {
    /// Prepares the relay of a process whose SIGCHLD is blocked.
    pub(crate) fn new(ends: Ends) -> Result<Self, Errno> {
        Ok(Self {
            ends,
            children: sys::child_signals()?,
            input: Flow::new()?,
            output: Flow::new()?,
            sizes: SizeStream::default(),
            other_end: OtherEnd::Open,
        })
    }

    /// Relays until a child has ended.
    pub(crate) fn until_child_signal(&mut self) {
        while !self.wait(-1) {
            self.relay();
        }
        self.relay();
    }

    /// Delivers the last output of a process that has ended.
    pub(crate) fn drain(&mut self) {
        let mut last_progress = sys::now_ms();
        let limit = last_progress.saturating_add(DRAIN_LIMIT_MS);
        while self.other_end != OtherEnd::Drained || !self.output.is_empty() {
            let patience = if self.output.is_empty() { QUIET_MS } else { DRAIN_PATIENCE_MS };
            let left = limit.min(last_progress.saturating_add(patience)) - sys::now_ms();
            if left <= 0 {
                break;
            }
            self.wait(left);
            if self.relay() {
                last_progress = sys::now_ms();
            }
        }
    }

    /// Waits for whatever there is to do; tells whether a child has ended.
    fn wait(&mut self, timeout_ms: i64) -> bool {
        let is_open = self.other_end == OtherEnd::Open;
        let mut master = 0;
        if self.output.is_empty() {
            master |= POLLIN;
        }
        if !self.input.is_empty() && is_open {
            master |= POLLOUT;
        }
        let mut polled = [
            PollFd::new(self.children, POLLIN),
            PollFd::new(self.ends.winsz, POLLIN),
            PollFd::new_if(self.input.is_empty() && is_open, self.ends.stdin, POLLIN),
            PollFd::new_if(!self.output.is_empty(), self.ends.stdout, POLLOUT),
            // A hang-up is told whether asked for or not; unread, it would wake us for ever.
            PollFd::new_if(
                self.other_end != OtherEnd::Drained && master != 0,
                self.ends.master,
                master,
            ),
        ];
        sys::poll(&mut polled, timeout_ms);
        let [children, .., master] = polled;
        if master.has_seen(POLLHUP) && is_open {
            self.other_end = OtherEnd::HungUp;
            self.input.clear();
        }
        children.has_seen(POLLIN) && sys::take_signals(self.children)
    }

    /// Moves what can be moved without blocking; tells whether output was.
    fn relay(&mut self) -> bool {
        self.resize();
        if self.other_end == OtherEnd::Open {
            let _ = self.input.fill(self.ends.stdin);
            let _ = self.input.flush(self.ends.master);
        }
        if self.other_end != OtherEnd::Drained {
            match self.output.fill(self.ends.master) {
                Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                // EIO is how a master tells that nobody has its other end open (pty(7)).
                Ok(0) | Err(_) => self.other_end = OtherEnd::Drained,
            }
        }
        matches!(self.output.flush(self.ends.stdout), Ok(1..))
    }

    /// Applies the sizes that have arrived; 0 means 80 columns, 24 rows.
    fn resize(&mut self) {
        let mut bytes = [0; 64];
        let length = sys::read(self.ends.winsz, &mut bytes).unwrap_or(0);
        for byte in bytes.iter().take(length) {
            if let Some(Size { columns, rows }) = self.sizes.push(*byte) {
                let columns = if columns == 0 { 80 } else { columns };
                let rows = if rows == 0 { 24 } else { rows };
                sys::set_window_size(self.ends.master, columns, rows);
            }
        }
    }
}

/// Bytes on their way: a buffer that is filled when it is empty, and flushed until it is.
struct Flow {
    bytes: &'static mut [u8],
    start: usize,
    end: usize,
}

impl Flow {
    fn new() -> Result<Self, Errno> {
        Ok(Self { bytes: sys::page()?, start: 0, end: 0 })
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Reads once; 0 is the end of the file. A full buffer says "try again".
    fn fill(&mut self, from: c_int) -> Result<usize, Errno> {
        if !self.is_empty() {
            return Err(Errno::EAGAIN);
        }
        let length = sys::read(from, self.bytes)?;
        (self.start, self.end) = (0, length);
        Ok(length)
    }

    /// Writes once.
    fn flush(&mut self, to: c_int) -> Result<usize, Errno> {
        let length = match self.bytes.get(self.start..self.end) {
            None | Some([]) => 0,
            Some(pending) => sys::write(to, pending)?,
        };
        self.start += length;
        Ok(length)
    }
}
