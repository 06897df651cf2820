//! Waiting until a cgroup is empty.

use core::ffi::c_int;

use crate::sys::{self, POLLPRI, PollFd};

/// How often a version 1 cgroup is looked at: soon at first, and then as seldom as somebody who
/// waits for the end puts up with.
const FIRST_LOOK_MS: i64 = 50;
const LAST_LOOK_MS: i64 = 500;

/// Waits until nothing runs in the cgroup, of which this is `cgroup.events` (version 2, which wakes
/// us) or `cgroup.procs` (version 1, which does not). A zombie does not run.
pub(crate) fn wait(file: c_int) {
    let mut pause = FIRST_LOOK_MS;
    loop {
        let mut bytes = [0; 16];
        match sys::read_start(file, &mut bytes) {
            Ok(0) => return,
            Ok(_) if bytes.starts_with(b"populated 0") => return,
            Ok(_) if bytes.starts_with(b"populated 1") => {
                sys::poll(&mut [PollFd::new(file, POLLPRI)], -1);
            }
            Ok(_) => {
                sys::poll(&mut [], pause);
                pause = (pause * 2).min(LAST_LOOK_MS);
            }
            // The cgroup is gone, and so is all that was in it.
            Err(_) => return,
        }
    }
}
