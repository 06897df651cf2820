//! Layers mounted as a container's root filesystem, in each of the ways.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use guardian_tests::skip;

use super::tree;
use super::{Bench, is_root};

fn owner(path: &Path) -> (u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.uid(), stat.gid())
}

const PREPARE: &str =
    "rootfs prepare a --lower top --lower base --upper rw/upper --work rw/work --target merged";

fn layers() -> Bench {
    let bench = Bench::new(2);
    for directory in ["base/etc", "top", "rw/upper", "rw/work", "merged"] {
        fs::create_dir_all(bench.path(directory)).unwrap();
    }
    for (file, id) in [("base/etc/passwd", 0), ("base/etc/of-1000", 1000), ("top/program", 0)] {
        fs::write(bench.path(file), file).unwrap();
        lchown(bench.path(file), Some(id), Some(id)).unwrap();
    }
    fs::set_permissions(bench.path("top/program"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(bench.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    bench
}

#[test]
fn every_way_shows_the_container_s_owners_and_can_be_written() {
    if !skip::can_run("idmgr rootfs prepare", &["setpriv"]) {
        return;
    }
    for way in ["full", "lower", "metacopy", "chown"] {
        let bench = layers();
        let before = (tree::facts(&bench.path("base")), tree::facts(&bench.path("top")));
        bench.ok("register a --policy exclusive");
        let answer = bench.ok(&format!("{PREPARE} --way {way}"));
        assert_eq!(answer["way"], way);
        assert_eq!(bench.ok(&format!("{PREPARE} --way {way}")), answer);
        let merged = bench.path("merged");
        for (file, id) in
            [("", 100_000), ("etc/passwd", 100_000), ("etc/of-1000", 101_000), ("program", 100_000)]
        {
            assert_eq!(owner(&merged.join(file)), (id, id), "{way}: {file}");
        }
        assert_eq!(fs::metadata(merged.join("program")).unwrap().mode() & 0o7777, 0o4755, "{way}");
        let script = "set -e; echo x >> etc/passwd; echo x > etc/new; mv etc/new etc/renamed; rm program; mkdir d";
        let status = Command::new("setpriv")
            .args(["--reuid", "100000", "--regid", "100000", "--clear-groups", "sh", "-c", script])
            .current_dir(&merged)
            .status();
        assert!(status.unwrap().success(), "{way}");
        bench.ok("pause a");
        let upper = bench.path("rw/upper");
        assert_eq!(owner(&upper.join("etc/renamed")), (0, 0), "{way}: paused");
        bench.ok("resume a");
        assert_eq!(owner(&merged.join("etc/renamed")), (100_000, 100_000), "{way}: resumed");
        bench.ok("unregister a");
        assert_eq!(bench.mounts(), Vec::<PathBuf>::new());
        for file in ["etc/passwd", "etc/renamed", "d"] {
            assert_eq!(owner(&upper.join(file)), (0, 0), "{way}: {file}");
        }
        let after = (tree::facts(&bench.path("base")), tree::facts(&bench.path("top")));
        assert!(after == before, "{way}: a lower layer has changed");
        // Started again, it is as it was, and in the way it was.
        bench.ok("register a --policy exclusive");
        assert_eq!(bench.ok(PREPARE)["way"], way);
        assert_eq!(
            fs::read_to_string(merged.join("etc/passwd")).unwrap(),
            "base/etc/passwdx\n",
            "{way}"
        );
        assert_eq!(owner(&merged.join("etc/of-1000")), (101_000, 101_000), "{way}");
        assert!(!merged.join("program").exists(), "{way}");
        bench.ok("remove a");
        assert_eq!(bench.mounts(), Vec::<PathBuf>::new());
    }
}

#[test]
fn the_best_way_is_chosen_and_what_does_not_work_is_told() {
    if !is_root("idmgr's choice of overlay") {
        return;
    }
    let bench = layers();
    bench.ok("register a --policy exclusive");
    assert_eq!(bench.ok(PREPARE)["way"], "full");
    // A second container can't have the same upper layer.
    bench.ok("register b --policy exclusive");
    let (_, said) = bench.fails(&PREPARE.replace(" a ", " b ").replace("merged", "top"));
    assert!(said.contains("rw/upper is in use by 'a'"), "{said}");
    bench.ok("remove a");
    bench.ok("register a --policy exclusive");
    let said = bench.fails(&PREPARE.replace("--target merged", "--target /proc"));
    assert_eq!(said, ("exists".into(), "something is mounted on /proc already".into()));
    // An overlay can't be a layer that is mapped, so its owners are changed in the upper one.
    let options =
        format!("lowerdir={}:{}", bench.path("top").display(), bench.path("base").display());
    let options = std::ffi::CString::new(options).unwrap();
    fs::create_dir(bench.path("stacked")).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(
        "overlay",
        bench.path("stacked"),
        "overlay",
        flags,
        Some(options.as_c_str()),
    )
    .unwrap();
    let answer = bench.ok(&PREPARE.replace("--lower top --lower base", "--lower stacked"));
    assert_eq!(answer["way"], "metacopy");
    assert_eq!(owner(&bench.path("merged/etc/of-1000")), (101_000, 101_000));
    bench.ok("remove a");
    bench.ok("register a --policy exclusive");
    let (kind, said) = bench.fails(&format!(
        "{} --way full",
        PREPARE.replace("--lower top --lower base", "--lower /proc")
    ));
    assert_eq!(kind, "unsupported");
    assert!(said.contains("Full: id-map /proc: "), "{said}");
    assert_eq!(bench.mounts(), [bench.path("stacked")]);
}
