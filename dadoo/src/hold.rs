//! The dadoo-hold program: what dadoo becomes once the process runs.
//!
//! `dadoo-hold DIR PID EXIT TREE [MASTER STDIN STDOUT WINSZ]` waits for its child PID, relays its
//! terminal if it has one, waits for its descendants if TREE is not 0, writes its exit code, and
//! exits with it. The working directory is the process directory (DIR is for people who read `ps`);
//! the capitals after PID are numbers of inherited descriptors. Others keep the FIFOs alive by being
//! open.
//!
//! There is one of it for every process of every container, so it has no std: it takes 12 KiB of
//! memory where dadoo itself, asleep, takes 200. It trusts its arguments, which only dadoo makes.

// There is no test harness without std.
#![cfg(not(test))]
#![no_std]
#![no_main]

mod bare;
#[path = "hold/relay.rs"]
mod relay;
#[path = "hold/sys.rs"]
mod sys;
#[path = "hold/tree.rs"]
mod tree;
#[path = "hold/window.rs"]
mod window;

use core::ffi::c_int;

use bare::Arguments;
use relay::{Ends, Relay};
use sys::Seen;
use syscalls::Errno;

/// dadoo's own failures.
const OWN_FAILURE: c_int = 2;

/// Called by `bare`.
fn start(arguments: Arguments) -> c_int {
    sys::set_name(c"dadoo");
    let number = |position| arguments.number(position);
    let ends = match arguments.count() {
        5 => None,
        9 => {
            Some(Ends { master: number(5), stdin: number(6), stdout: number(7), winsz: number(8) })
        }
        _ => return OWN_FAILURE,
    };
    let (pid, exit, tree) = (number(2), number(3), number(4));
    let code = match ends {
        None => wait(pid),
        Some(ends) => wait_relaying(pid, ends),
    };
    if tree != 0 {
        tree::wait(tree);
    }
    match code {
        Ok(code) => finish(pid, exit, code),
        Err(_) => {
            let _ = sys::write(2, b"dadoo: lost the process\n");
            OWN_FAILURE
        }
    }
}

/// Waits for the process, reaping its orphans meanwhile. It stays a zombie itself, so that its pid
/// is not given away while others may still signal it.
fn wait(pid: c_int) -> Result<u8, Errno> {
    loop {
        if let Seen::Exit(code) = sys::wait_for_child(pid)? {
            return Ok(code);
        }
    }
}

/// Waits likewise, relaying the terminal meanwhile, and then what is left in it.
fn wait_relaying(pid: c_int, ends: Ends) -> Result<u8, Errno> {
    let mut relay = Relay::new(ends)?;
    loop {
        // Looked at first: the process may have ended before we were there to hear of it.
        match sys::look_at_children(pid)? {
            Seen::Exit(code) => {
                relay.drain();
                return Ok(code);
            }
            Seen::Orphan => {}
            Seen::Nothing => relay.until_child_signal(),
        }
    }
}

/// Tells the exit code: first on disk, then by closing `exit`.
fn finish(pid: c_int, exit: c_int, code: u8) -> c_int {
    if write_exitcode(code).is_err() {
        let _ = sys::write(2, b"dadoo: the exit code could not be written\n");
    }
    sys::close(exit);
    sys::reap(pid);
    c_int::from(code)
}

/// Writes the exit code so that it is never seen half. It needs not reach the disk: what a sudden end
/// of the machine leaves is cleaned up, and nobody asks how it ended.
fn write_exitcode(code: u8) -> Result<(), Errno> {
    let digits = [b'0' + code / 100, b'0' + code / 10 % 10, b'0' + code % 10];
    let skipped = usize::from(code < 100) + usize::from(code < 10);
    let temporary = sys::create(c".exitcode")?;
    sys::write(temporary, digits.get(skipped..).unwrap_or(&[]))?;
    sys::close(temporary);
    sys::rename(c".exitcode", c"exitcode")
}
