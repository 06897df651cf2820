//! The init program: pid 1 of every container. It lets orphans vanish and sleeps for ever.
//!
//! It is bind-mounted at `/tmp/garden-init`, hence its name in `ps`.

// There is no test harness without std.
#![cfg(not(test))]
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "two system calls are the whole program, and there is no std")]

#[expect(dead_code, reason = "init looks at no argument")]
mod bare;

use core::ffi::c_int;
use core::ptr::null;

use bare::Arguments;
use syscalls::{Sysno, syscall};

/// asm-generic/signal.h, as on x86.
const SIGCHLD: c_int = 17;

/// The kernel's `struct sigaction` (linux/signal_types.h).
#[repr(C)]
struct Action {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

/// `SIG_IGN` is the handler 1.
static IGNORE: Action = Action { handler: 1, flags: 0, restorer: 0, mask: 0 };

/// Called by `bare`.
fn start(_: Arguments) -> c_int {
    // SAFETY: the action outlives the call, has the kernel's layout, and ignoring installs no code
    // that could be called; the old action is not asked for, and the last argument is the size of
    // the mask. The kernel reaps the children of a process that ignores SIGCHLD (sigaction(2)).
    let _ = unsafe {
        syscall!(
            Sysno::rt_sigaction,
            SIGCHLD,
            &raw const IGNORE,
            null::<Action>(),
            size_of::<u64>()
        )
    };
    loop {
        // SAFETY: polling no descriptor without a deadline touches no memory of ours. It is what
        // pause(2) does, which newer architectures lack.
        let _ = unsafe {
            syscall!(Sysno::ppoll, null::<u8>(), 0, null::<u8>(), null::<u8>(), size_of::<u64>())
        };
    }
}
