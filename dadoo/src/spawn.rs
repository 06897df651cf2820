//! Starting a child with clean signals and three descriptors, by posix_spawn(3).
//!
//! std's `Command` hands on our blocked signals; a runtime, and through crun the container's
//! process, would then be deaf to SIGTERM.

use std::ffi::{CString, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;

use anyhow::Context;
use guardian_contract::process::descriptor;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use crate::score::while_expendable;

/// What systemd tells one program alone. A runtime that saw it would wait for descriptors or
/// notifications that are not there.
const NOT_HANDED_ON: [&[u8]; 4] =
    [b"LISTEN_FDS=", b"LISTEN_PID=", b"LISTEN_FDNAMES=", b"NOTIFY_SOCKET="];

/// Starts `argv`, found in PATH, with `stdio` as its descriptors 0, 1 and 2. Passed ones
/// are not closed on exec, so their numbers are closed after that.
///
/// # Errors
/// With the program and the reason.
pub(crate) fn spawn(argv: Vec<OsString>, stdio: [RawFd; 3]) -> anyhow::Result<Pid> {
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    )?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_sigdefault(&SigSet::all())?;
    let mut actions = PosixSpawnFileActions::init()?;
    for (number, descriptor) in (0..).zip(stdio) {
        actions.add_dup2(descriptor, number)?;
    }
    for number in descriptor::PASSED.into_iter().filter(|number| stdio.contains(number)) {
        actions.add_close(number)?;
    }
    let argv = argv.into_iter().map(|arg| CString::new(arg.into_vec()));
    let argv = argv.collect::<Result<Vec<_>, _>>().context("argument with a NUL")?;
    let program = argv.first().context("no program to start")?;
    // runc gives a process what its container's bundle says; with crun, exec hands ours on.
    let spawned =
        while_expendable(|| posix_spawnp(program, &actions, &attributes, &argv, &environment()));
    spawned.with_context(|| format!("start {}", program.to_string_lossy()))
}

fn environment() -> Vec<CString> {
    let entry = |(name, value): (OsString, OsString)| {
        let entry = [name.into_vec(), value.into_vec()].join(&b'=');
        let is_ours_alone = NOT_HANDED_ON.iter().any(|prefix| entry.starts_with(prefix));
        if is_ours_alone { None } else { CString::new(entry).ok() }
    };
    std::env::vars_os().filter_map(entry).collect()
}
