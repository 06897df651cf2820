//! The system calls of dadoo-hold, made safe. Layouts and numbers are those of 64-bit Linux, where
//! x86 and the asm-generic architectures agree on all that is used here.

#![expect(
    unsafe_code,
    reason = "nix needs std, and rustix is built with it for the rest of the workspace"
)]

use core::ffi::{CStr, c_int, c_short};
use core::mem::MaybeUninit;
use core::ptr::null;

use syscalls::{Errno, Sysno, syscall};

pub(crate) const POLLIN: c_short = 0x1;
pub(crate) const POLLPRI: c_short = 0x2;
pub(crate) const POLLOUT: c_short = 0x4;
pub(crate) const POLLHUP: c_short = 0x10;

const PAGE_BYTES: usize = 4096;
const AT_FDCWD: c_int = -100;
/// No descriptor.
const NONE: c_int = -1;
/// O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC
const CREATE: c_int = 0o1 | 0o100 | 0o1000 | 0o2_000_000;
const PR_SET_NAME: c_int = 15;
const P_ALL: c_int = 0;
const WNOHANG: c_int = 0x1;
const WEXITED: c_int = 0x4;
const WNOWAIT: c_int = 0x0100_0000;
/// `si_code` of a child that exited by itself; any other was killed by a signal.
const CLD_EXITED: c_int = 1;
/// The set of signals that holds SIGCHLD, which is 17.
static SIGCHLD_SET: u64 = 1 << 16;
/// SFD_NONBLOCK | SFD_CLOEXEC
const SIGNALFD_FLAGS: c_int = 0o4000 | 0o2_000_000;
const SIGNALFD_INFO_BYTES: usize = 128;
const TIOCSWINSZ: usize = 0x5414;
const CLOCK_MONOTONIC: c_int = 1;
/// PROT_READ | PROT_WRITE
const READ_WRITE: c_int = 0x1 | 0x2;
/// MAP_PRIVATE | MAP_ANONYMOUS
const PRIVATE_MEMORY: c_int = 0x2 | 0x20;

/// What a look at the children has shown.
pub(crate) enum Seen {
    /// The process has ended, with this exit code or 128 + n if signal n killed it; it stays a
    /// zombie.
    Exit(u8),
    /// An orphan has ended, and was reaped.
    Orphan,
    /// All live.
    Nothing,
}

/// `siginfo_t` of a SIGCHLD: 128 bytes, with a hole before the union.
#[repr(C)]
struct ChildInfo {
    signal: c_int,
    error: c_int,
    code: c_int,
    hole: c_int,
    pid: c_int,
    uid: c_int,
    status: c_int,
    rest: [c_int; 25],
}

/// `struct pollfd`.
#[repr(C)]
pub(crate) struct PollFd {
    descriptor: c_int,
    wanted: c_short,
    seen: c_short,
}

impl PollFd {
    pub(crate) fn new(descriptor: c_int, wanted: c_short) -> Self {
        Self { descriptor, wanted, seen: 0 }
    }

    /// A descriptor to poll, or one that poll(2) passes over.
    pub(crate) fn new_if(is_wanted: bool, descriptor: c_int, wanted: c_short) -> Self {
        Self::new(if is_wanted { descriptor } else { NONE }, wanted)
    }

    pub(crate) fn has_seen(&self, event: c_short) -> bool {
        self.seen & event != 0
    }
}

/// Names the process, as `ps` shows it.
pub(crate) fn set_name(name: &CStr) {
    // SAFETY: the kernel reads a string that ends with a NUL.
    let _ = unsafe { syscall!(Sysno::prctl, PR_SET_NAME, name.as_ptr()) };
}

/// Waits until the process or an orphan has ended.
pub(crate) fn wait_for_child(process: c_int) -> Result<Seen, Errno> {
    see_child(process, WEXITED | WNOWAIT)
}

/// Looks whether the process or an orphan has ended.
pub(crate) fn look_at_children(process: c_int) -> Result<Seen, Errno> {
    see_child(process, WEXITED | WNOWAIT | WNOHANG)
}

fn see_child(process: c_int, flags: c_int) -> Result<Seen, Errno> {
    let mut info = MaybeUninit::<ChildInfo>::uninit();
    // SAFETY: the kernel writes a siginfo_t, which is what `info` has room for. No handler is
    // installed, so nothing interrupts the call.
    unsafe { syscall!(Sysno::waitid, P_ALL, 0, info.as_mut_ptr(), flags, null::<u8>()) }?;
    // SAFETY: waitid(2) has succeeded, and then it has filled these fields (with zeros if no child
    // has ended); the others are not read.
    let (code, pid, status) = unsafe {
        let info = info.as_ptr();
        ((*info).code, (*info).pid, (*info).status)
    };
    if pid == 0 {
        Ok(Seen::Nothing)
    } else if pid == process {
        let code = if code == CLD_EXITED { status } else { 128 + status };
        Ok(Seen::Exit((code & 0xff) as u8))
    } else {
        reap(pid);
        Ok(Seen::Orphan)
    }
}

/// Lets a zombie go.
pub(crate) fn reap(pid: c_int) {
    // SAFETY: wait4(2) writes nothing where it is given no place.
    let _ = unsafe { syscall!(Sysno::wait4, pid, null::<u8>(), 0, null::<u8>()) };
}

/// Returns a descriptor that can be read when a child has ended; SIGCHLD must be blocked.
pub(crate) fn child_signals() -> Result<c_int, Errno> {
    let (set, size) = (&raw const SIGCHLD_SET, size_of::<u64>());
    // SAFETY: the kernel reads a set of signals of that size.
    let descriptor = unsafe { syscall!(Sysno::signalfd4, NONE, set, size, SIGNALFD_FLAGS) }?;
    Ok(descriptor as c_int)
}

/// Takes what has arrived there; one signal may stand for several children. Returns true, for the
/// caller has seen that something had.
pub(crate) fn take_signals(descriptor: c_int) -> bool {
    let mut info = MaybeUninit::<[u8; SIGNALFD_INFO_BYTES]>::uninit();
    // SAFETY: the kernel writes at most as much as `info` has room for.
    let _ = unsafe { syscall!(Sysno::read, descriptor, info.as_mut_ptr(), SIGNALFD_INFO_BYTES) };
    true
}

/// Waits for one of the events, or until the time is over; -1 is for ever.
pub(crate) fn poll(polled: &mut [PollFd], timeout_ms: i64) {
    let timeout = [timeout_ms / 1000, timeout_ms % 1000 * 1_000_000];
    let timeout = if timeout_ms < 0 { null() } else { timeout.as_ptr() };
    let (first, count, size) = (polled.as_mut_ptr(), polled.len(), size_of::<u64>());
    // SAFETY: `polled` has that many elements with the layout of struct pollfd, which the kernel
    // reads and writes; the timeout, a struct timespec, lives until the end of this function.
    let _ = unsafe { syscall!(Sysno::ppoll, first, count, timeout, null::<u8>(), size) };
}

/// Returns a time that never runs backwards.
pub(crate) fn now_ms() -> i64 {
    let mut time = [0_i64; 2];
    // SAFETY: the kernel writes a struct timespec, two numbers of 64 bits.
    let _ = unsafe { syscall!(Sysno::clock_gettime, CLOCK_MONOTONIC, time.as_mut_ptr()) };
    let [seconds, nanoseconds] = time;
    seconds.wrapping_mul(1000).wrapping_add(nanoseconds / 1_000_000)
}

/// Returns memory of a page, which costs nothing until it is used.
pub(crate) fn page() -> Result<&'static mut [u8], Errno> {
    let hint = null::<u8>();
    // SAFETY: the kernel chooses where, so the mapping is new and nobody else's.
    let address =
        unsafe { syscall!(Sysno::mmap, hint, PAGE_BYTES, READ_WRITE, PRIVATE_MEMORY, NONE, 0) }?;
    let address = core::ptr::with_exposed_provenance_mut(address);
    // SAFETY: that many bytes, all zero, are there for ever, and this is the one reference to them.
    Ok(unsafe { core::slice::from_raw_parts_mut(address, PAGE_BYTES) })
}

/// Reads once.
pub(crate) fn read(from: c_int, bytes: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most that many bytes there.
    unsafe { syscall!(Sysno::read, from, bytes.as_mut_ptr(), bytes.len()) }
}

/// Reads once from the start of a file.
pub(crate) fn read_start(from: c_int, bytes: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most that many bytes there.
    unsafe { syscall!(Sysno::pread64, from, bytes.as_mut_ptr(), bytes.len(), 0) }
}

/// Writes once.
pub(crate) fn write(to: c_int, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel reads that many bytes there.
    unsafe { syscall!(Sysno::write, to, bytes.as_ptr(), bytes.len()) }
}

/// Sets a terminal's size.
pub(crate) fn set_window_size(master: c_int, columns: u16, rows: u16) {
    let size = [rows, columns, 0, 0];
    // SAFETY: the kernel reads a struct winsize, four numbers of 16 bits.
    let _ = unsafe { syscall!(Sysno::ioctl, master, TIOCSWINSZ, size.as_ptr()) };
}

/// Makes a file in the working directory, mode 0600.
pub(crate) fn create(name: &CStr) -> Result<c_int, Errno> {
    // SAFETY: the kernel reads a string that ends with a NUL.
    let file = unsafe { syscall!(Sysno::openat, AT_FDCWD, name.as_ptr(), CREATE, 0o600) }?;
    Ok(file as c_int)
}

/// Renames a file in the working directory.
pub(crate) fn rename(from: &CStr, to: &CStr) -> Result<(), Errno> {
    let (from, to) = (from.as_ptr(), to.as_ptr());
    // SAFETY: the kernel reads two strings that end with a NUL.
    unsafe { syscall!(Sysno::renameat2, AT_FDCWD, from, AT_FDCWD, to, 0) }.map(|_| ())
}

/// Closes a descriptor.
pub(crate) fn close(file: c_int) {
    // SAFETY: descriptors are plain numbers in this program; none is used after its close.
    let _ = unsafe { syscall!(Sysno::close, file) };
}
