//! The host: who we are, which programs it has, and calling them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// Where administrators' programs lie, which a user's PATH may not name.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Tells whether we are root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Returns the path of a program, as a shell of root would find it.
pub fn program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Returns the directory with our own executables: `$GUARDIAN_BIN_DIR`, or this checkout's
/// `target/release`.
pub fn bin_dir() -> PathBuf {
    std::env::var_os("GUARDIAN_BIN_DIR")
        .map_or_else(|| target_dir().join("release"), |dir| workspace().join(dir))
}

/// Returns cargo's target directory.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

/// Returns the root of this checkout.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// With the command and what it said on standard error.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("start {}", shown(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}: {}", shown(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the pids of the processes with this name and, in their arguments, this text.
pub fn processes(name: &str, text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_wanted = |pid: &u32| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
        read("comm").is_ok_and(|comm| comm.trim() == name)
            && read("cmdline").is_ok_and(|line| line.contains(text))
    };
    pids.filter(is_wanted).collect()
}

/// Runs `words[0]` with the other words; see [`output`].
///
/// # Errors
/// As [`output`].
pub fn run(words: &[&str]) -> anyhow::Result<String> {
    let (name, arguments) = words.split_first().context("no command")?;
    let path = program(name).with_context(|| format!("{name} is not installed"))?;
    output(Command::new(path).args(arguments))
}

/// Returns a command as a person would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
