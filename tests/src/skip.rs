//! Checks that this host can't make: they say so by name, and are counted.

use std::fs::OpenOptions;
use std::io::Write;

/// Names the file that collects skipped checks; `cargo xtask test` prints it at the end.
pub const LIST: &str = "GUARDIAN_SKIPPED";

/// Is set where the whole machine is thrown away after the tests: `cargo xtask vm` does so.
pub const DISPOSABLE: &str = "GUARDIAN_DISPOSABLE";

/// Notes that `check` was skipped and why.
pub fn note(check: &str, reason: &str) {
    let line = format!("skipped: {check}: {reason}\n");
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
    if let Some(list) = std::env::var_os(LIST) {
        let file = OpenOptions::new().create(true).append(true).open(list);
        // The note on standard error has been written anyway.
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// Tells whether `check`, which spares nothing on the machine, may run; notes it when not.
pub fn may_ruin(check: &str) -> bool {
    let may = std::env::var_os(DISPOSABLE).is_some();
    if !may {
        note(check, "needs a machine of its own; try cargo xtask vm");
    }
    may
}

/// Tells whether `check`, which needs root and the programs named, can run; notes it when not.
pub fn can_run(check: &str, programs: &[&str]) -> bool {
    if !crate::host::is_root() {
        note(check, "needs root");
        return false;
    }
    let missing: Vec<&str> =
        programs.iter().copied().filter(|name| crate::host::program(name).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    note(check, &format!("needs {}", missing.join(", ")));
    false
}
