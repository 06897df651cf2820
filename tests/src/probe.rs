//! The program that looks around inside containers: compiled once and kept.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::{host, image};

const SOURCE: &str = "tests/tests/garden/inspect/probe.rs";

/// Returns the program, compiling it unless that has been done. A virtual machine finds it where its
/// host has put it.
///
/// # Errors
/// When there is no compiler, or the cache can't be written.
pub fn make() -> anyhow::Result<PathBuf> {
    let source = include_bytes!("../tests/garden/inspect/probe.rs");
    let digest: String =
        Sha256::digest(source).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let name = format!("probe-{digest}");
    let caches = [image::cache(), host::target_dir().join("guardian")];
    match caches.iter().map(|cache| cache.join(&name)).find(|program| program.is_file()) {
        Some(program) => Ok(program),
        None => compile(&caches[0], &name),
    }
}

fn compile(cache: &Path, name: &str) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(cache)?;
    let rustc = host::program("rustc").context("rustc is not on PATH")?;
    // Static: images have no libc of ours.
    let flags = ["--edition=2024", "-Ctarget-feature=+crt-static", "-Cpanic=abort", "-o"];
    let half = tempfile::NamedTempFile::new_in(cache)?.into_temp_path();
    let source = host::workspace().join(SOURCE);
    host::output(Command::new(rustc).args(flags).arg(&half).arg(source))?;
    let program = cache.join(name);
    half.persist(&program)?;
    Ok(program)
}
