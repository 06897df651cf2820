//! What a program needs in the place of std and libc: its start, its end, its arguments, and the
//! four functions that the compiler takes for granted.
//!
//! `init` and `dadoo-hold` run beside every container and every process, so their memory is paid
//! for each time. An idle libc that has set itself up costs ten times as much as they do. A program
//! that uses this has a function `start(Arguments) -> c_int` in its root.

#![expect(unsafe_code, reason = "what std and libc do for others can't be done in safe code")]

use core::ffi::{c_char, c_int, c_void};
use core::panic::PanicInfo;

use syscalls::{Sysno, syscall};

/// The program's argv.
pub(crate) struct Arguments {
    count: c_int,
    first: *const *const c_char,
}

impl Arguments {
    /// Returns how many there are, the program's name included.
    pub(crate) fn count(&self) -> c_int {
        self.count
    }

    /// Returns the decimal number at `position`; 0 for what is none or missing.
    pub(crate) fn number(&self, position: u16) -> c_int {
        if c_int::from(position) >= self.count {
            return 0;
        }
        // SAFETY: there are `count` arguments, and they live as long as the program (execve(2)).
        let text = unsafe { *self.first.add(usize::from(position)) };
        let mut number: c_int = 0;
        for position in 0.. {
            // SAFETY: an argument ends with a NUL, which is no digit and ends the loop.
            let digit = unsafe { *text.add(position) } as u8;
            if !digit.is_ascii_digit() {
                break;
            }
            number = number.wrapping_mul(10).wrapping_add(c_int::from(digit - b'0'));
        }
        number
    }
}

/// Called by crt1's `_start`, which has aligned the stack. libc's function of this name would set
/// up libc; ours takes its place.
// SAFETY: nothing else in the program defines this symbol, since no libc is linked; the arguments
// are those that `_start` passes first on every architecture, and it does not expect a return.
#[unsafe(no_mangle)]
extern "C" fn __libc_start_main(
    _main: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> ! {
    exit(crate::start(Arguments { count: argc, first: argv }))
}

/// crt1 hands its address to the function above, which has no use for it.
// SAFETY: the only symbol of this name; nobody calls it.
#[unsafe(no_mangle)]
extern "C" fn main() {}

/// Required by the language.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(2)
}

/// Ends the program.
fn exit(code: c_int) -> ! {
    loop {
        // SAFETY: exit_group(2) touches no memory of ours and does not return.
        let _ = unsafe { syscall!(Sysno::exit_group, code) };
    }
}

// The compiler calls these by their C names, mostly where it does not optimise. libc's own choose
// their code at start (ifunc), which needs the start that is left out here. The loops stay loops:
// LLVM turns none into a call in a function that has one of these names.

// SAFETY: the signature and the promise of memcpy(3); no libc is linked that defines it too.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    for position in 0..length {
        // SAFETY: the caller owns both places for that length.
        unsafe { *to.add(position) = *from.add(position) };
    }
    to
}

// SAFETY: the signature and the promise of memset(3); no libc is linked that defines it too.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: c_int, length: usize) -> *mut u8 {
    for position in 0..length {
        // SAFETY: the caller owns the place for that length.
        unsafe { *to.add(position) = byte as u8 };
    }
    to
}

// SAFETY: the signature and the promise of memcmp(3); no libc is linked that defines it too.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> c_int {
    for position in 0..length {
        // SAFETY: the caller owns both places for that length.
        let (left, right) = unsafe { (*left.add(position), *right.add(position)) };
        if left != right {
            return c_int::from(left) - c_int::from(right);
        }
    }
    0
}

// SAFETY: the signature and the promise of bcmp(3); no libc is linked that defines it too.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, length: usize) -> c_int {
    // SAFETY: the caller promises the same.
    unsafe { memcmp(left, right, length) }
}
