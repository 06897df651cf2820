//! `cargo xtask test`: format, lints, every test there is, and some again on a second kernel.

use std::process::Command;

use guardian_tests::hierarchy::Hierarchies;
use guardian_tests::{host, skip};

use crate::{build, need, say, vm};

/// Runs all checks.
///
/// # Errors
/// With the first that fails.
pub(crate) fn test() -> anyhow::Result<()> {
    if host::is_root() {
        let needs: Vec<need::Need> = need::CONTAINER.into_iter().chain(need::TESTS).collect();
        need::ensure(&needs)?;
    }
    build::cargo(&["fmt", "--all", "--check"])?;
    build::cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    build::release()?;
    if host::is_root() {
        // Tests that start a runtime by hand need what the server sets up for itself.
        build::run(Command::new(host::target_dir().join("release/guardiand")).arg("setup"))?;
    }
    let hierarchies = Hierarchies::now();
    let skipped = tempfile::NamedTempFile::new()?;
    let tested = build::run(
        Command::new(build::program())
            // All results count, not only those before the first failure.
            .args(["test", "--workspace", "--no-fail-fast"])
            .env("GUARDIAN_BIN_DIR", host::target_dir().join("release"))
            .env(skip::LIST, skipped.path()),
    );
    // Other servers may use what is left by now; then it is theirs.
    hierarchies.restore();
    let second = vm::part();
    let skipped = std::fs::read_to_string(skipped.path())?;
    let mut skipped: Vec<&str> = skipped.lines().collect();
    skipped.extend(second.iter().flatten().map(String::as_str));
    say(&format!("\nchecks skipped on this host: {}", skipped.len()));
    skipped.iter().for_each(|line| say(line));
    tested.and(second.map(drop))
}
