//! A store that is not there, or not for whoever asks.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use guardian_tests::{host, skip};

use crate::bench::{Bench, program};

#[test]
fn a_mistyped_store_is_not_said_to_be_well() {
    let Some(bench) = Bench::new("a_mistyped_store_is_not_said_to_be_well") else { return };
    for verb in ["list", "fsck", "df"] {
        let said = bench.refused(&[verb]);
        let want = format!("Store path is not initialized ({}", bench.path("store").display());
        assert!(said.starts_with(&want), "{verb}: {said}");
    }
    // A server asks for this before there is anything.
    assert!(bench.done(&["capacity"]).starts_with(r#"{"capacity":"#));
    assert!(!bench.path("store").exists());
    fs::write(bench.path("store"), "").unwrap();
    for verb in ["list", "fsck", "df"] {
        let said = bench.refused(&[verb]);
        assert!(said.starts_with("read store ") && said.contains("Not a directory"), "{said}");
    }
    fs::remove_file(bench.path("store")).unwrap();
}

#[test]
fn a_store_of_root_s_is_not_made_by_anybody_else() {
    let test = "a_store_of_root_s_is_not_made_by_anybody_else";
    let Some(bench) = Bench::new(test) else { return };
    if !skip::can_run(test, &["setpriv"]) {
        return;
    }
    bench.done(&["init-store"]);
    fs::set_permissions(bench.path(""), Permissions::from_mode(0o755)).unwrap();
    // The directory of the programs may be root's alone. Copied by another process: what we have open for
    // writing goes to each child that another test starts, and can't be executed until then (ETXTBSY).
    let copy = bench.path("rootfs");
    host::output(Command::new("cp").args([&program("rootfs"), &copy])).unwrap();
    for verb in ["init-store", "list"] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg(&copy).arg("--store").arg(bench.path("store")).arg(verb);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(!output.status.success() && said.contains("Permission denied"), "{verb}: {said}");
        assert!(!said.contains("not initialized"), "{said}");
    }
}
