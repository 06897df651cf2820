//! Calling cargo.

use std::process::Command;

use anyhow::bail;
use guardian_tests::host;

/// Builds our executables as they are shipped.
///
/// # Errors
/// When the build fails; cargo has said why.
pub(crate) fn release() -> anyhow::Result<()> {
    cargo(&["build", "--release", "--workspace", "--exclude", "xtask"])
}

/// Runs cargo in this checkout, its output ours.
///
/// # Errors
/// When it fails.
pub(crate) fn cargo(words: &[&str]) -> anyhow::Result<()> {
    run(Command::new(program()).args(words))
}

/// Returns cargo's path: the one that called us.
pub(crate) fn program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs a command in this checkout, its output ours.
///
/// # Errors
/// When it fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.current_dir(host::workspace()).status()?;
    if !status.success() {
        bail!("{}: {status}", host::shown(command));
    }
    Ok(())
}
