//! Limits in bytes and in inodes, by project quotas and by filesystems in files.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use guardian_contract::image::Stats;
use guardian_tests::{host, skip};

use crate::bench::{Bench, MAPS, program};

pub(crate) const MIB: u64 = 1 << 20;

/// A filesystem in a file, mounted for one test.
pub(crate) struct Filesystem {
    pub(crate) point: PathBuf,
}

impl Filesystem {
    /// `None` where this kernel has none of this kind with project quotas; says so.
    pub(crate) fn with_quotas(bench: &Bench, test: &str, mkfs: &[&str]) -> Option<Self> {
        let (file, point) = (bench.path("filesystem"), bench.path("point"));
        if !skip::can_run(test, &mkfs[..1]) {
            return None;
        }
        let sparse = fs::File::create(&file).unwrap();
        sparse.set_len(600 * MIB).unwrap();
        fs::create_dir(&point).unwrap();
        let words: Vec<&str> = mkfs.iter().copied().chain([file.to_str().unwrap()]).collect();
        host::run(&words).unwrap();
        let (file, mounted) = (file.to_str().unwrap(), point.to_str().unwrap());
        if host::run(&["mount", "-o", "loop,prjquota", file, mounted]).is_err() {
            skip::note(test, "this kernel has no project quotas");
            return None;
        }
        Some(Self { point })
    }

    pub(crate) fn rootfs(&self, words: &[&str]) -> Output {
        let mut command = Command::new(program("rootfs"));
        command.arg("--store").arg(self.point.join("store"));
        command.args(words).output().unwrap()
    }

    pub(crate) fn done(&self, words: &[&str]) -> String {
        let output = self.rootfs(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn used(&self, id: &str) -> u64 {
        let stats: Stats = serde_json::from_str(&self.done(&["stats", id])).unwrap();
        stats.disk_usage.exclusive_bytes_used
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        let _ = self.rootfs(&["delete-store"]);
        let _ = host::run(&["umount", self.point.to_str().unwrap()]);
    }
}

/// Writes until it is refused; returns how much was written.
pub(crate) fn fill(file: &Path) -> u64 {
    let mut file = fs::File::create(file).unwrap();
    let mut written = 0;
    loop {
        match std::io::Write::write(&mut file, &[1; 1 << 16]) {
            Ok(length) => written += length as u64,
            Err(error) => {
                let kind = error.kind();
                assert!(
                    [ErrorKind::StorageFull, ErrorKind::QuotaExceeded].contains(&kind),
                    "{error}"
                );
                return written;
            }
        }
    }
}

/// Makes empty files until it is refused; returns how many were made.
pub(crate) fn make(directory: &Path) -> u64 {
    let mut made = 0;
    loop {
        match fs::File::create(directory.join(format!("file-{made}"))) {
            Ok(_) => made += 1,
            Err(error) => {
                let kind = error.kind();
                assert!(
                    [ErrorKind::StorageFull, ErrorKind::QuotaExceeded].contains(&kind),
                    "{error}"
                );
                return made;
            }
        }
    }
}

fn project_quotas_hold(test: &str, mkfs: &[&str]) {
    let Some(bench) = Bench::new(test) else { return };
    let Some(store) = Filesystem::with_quotas(&bench, test, mkfs) else { return };
    let tar = bench.tar();
    let limit = (10 * MIB).to_string();
    let flags = ["create", "--quota", "project", "--disk-limit-size-bytes", &limit];
    store.done(&[&flags[..], &["--exclude-image-from-quota", &tar, "one"]].concat());
    let root = store.point.join("store/images/one/rootfs");
    assert_eq!(store.used("one"), 0);
    let written = fill(&root.join("full"));
    // What is charged are blocks, those that map the file among them.
    assert!(written <= 10 * MIB && written > 10 * MIB - 128 * 1024, "{written}");
    assert!(store.used("one").abs_diff(written) < 128 * 1024, "{}", store.used("one"));
    fs::remove_file(root.join("full")).unwrap();
    host::run(&["sync", "-f", root.to_str().unwrap()]).unwrap();
    assert!(store.used("one") < 128 * 1024);
    // Copying up is writing; a limit on the whole counts the image.
    let image = fs::metadata(&tar).unwrap().len();
    let whole = (image + 4 * MIB).to_string();
    let maps = [&MAPS[..], &["create", "--disk-limit-size-bytes", &whole, &tar, "two"]].concat();
    store.done(&maps);
    assert!(!store.point.join("store/images/two/disk.img").exists());
    let said = store.rootfs(&["create", "--disk-limit-size-bytes", "300000", &tar, "small"]);
    assert_eq!(said.status.code(), Some(1));
    // Inodes.
    let words = ["create", "--inode-limit", "100", "--exclude-image-from-quota", &tar, "three"];
    store.done(&words);
    let root = store.point.join("store/images/three/rootfs/tmp");
    // The directory itself was copied up, and counts.
    assert_eq!(make(&root), 99);
    let words = ["create", "--inode-limit", "5", &tar, "four"];
    let said = String::from_utf8(store.rootfs(&words).stdout).unwrap();
    assert!(said.contains("the inode limit is 5"), "{said}");
    // Projects are given back, and a new image starts at nothing.
    let projects = || fs::read_dir(store.point.join("store/projects")).unwrap().count();
    assert_eq!(projects(), 3);
    for id in ["one", "two", "three"] {
        store.done(&["delete", id]);
    }
    assert_eq!(projects(), 0);
    store.done(&[&flags[..], &["--exclude-image-from-quota", &tar, "one"]].concat());
    assert_eq!((projects(), store.used("one")), (1, 0));
    assert!(store.done(&["fsck"]).contains("1 images"));
    let committed = bench.path("committed").display().to_string();
    store.done(&["commit", "one", &committed]);
}

#[test]
fn project_quotas_of_xfs_hold() {
    project_quotas_hold("project_quotas_of_xfs_hold", &["mkfs.xfs", "-q"]);
}

#[test]
fn project_quotas_of_ext4_hold() {
    project_quotas_hold("project_quotas_of_ext4_hold", &["mkfs.ext4", "-q", "-O", "quota,project"]);
}

#[test]
fn a_filesystem_without_quotas_says_so_if_it_must_have_them() {
    let test = "a_filesystem_without_quotas_says_so_if_it_must_have_them";
    let Some(bench) = Bench::new(test) else { return };
    let mount = bench.path("tmpfs");
    fs::create_dir(&mount).unwrap();
    host::run(&["mount", "-t", "tmpfs", "tmpfs", mount.to_str().unwrap()]).unwrap();
    let store = Filesystem { point: mount };
    let words = ["create", "--quota", "project", "--disk-limit-size-bytes", "10000000"];
    let output =
        store.rootfs(&[&words[..], &["--exclude-image-from-quota", &bench.tar(), "x"]].concat());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("has no project quotas") && !said.contains("\n\n"), "{said}");
    assert_eq!(fs::read_dir(store.point.join("store/images")).unwrap().count(), 0);
}

#[test]
fn inodes_are_limited_in_a_filesystem_of_its_own_too() {
    let test = "inodes_are_limited_in_a_filesystem_of_its_own_too";
    let Some(bench) = Bench::new(test) else { return };
    for (inodes, bytes) in [(1_u64, 0), (100, 0), (1000, 300 * MIB), (5000, 16 * MIB)] {
        let (limit, bytes) = (inodes.to_string(), bytes.to_string());
        let words = ["create", "--quota", "loop", "--inode-limit", &limit];
        let more = ["--disk-limit-size-bytes", &bytes, "--exclude-image-from-quota"];
        bench.done(&[&words[..], &more, &[&bench.tar(), "x"]].concat());
        let root = bench.path("store/images/x/rootfs");
        assert_eq!(make(&root), inodes, "{bytes}");
        fs::remove_file(root.join("file-0")).unwrap();
        fs::write(root.join("file-0"), "").unwrap();
        fs::write(root.join("one-more"), "").unwrap_err();
        let stats: Stats = serde_json::from_str(&bench.done(&["stats", "x"])).unwrap();
        assert!(stats.disk_usage.exclusive_bytes_used < MIB, "{stats:?}");
        bench.done(&["delete", "x"]);
    }
    let said = bench.refused(&["create", "--inode-limit", "5", &bench.tar(), "x"]);
    assert!(said.contains("the inode limit is 5"), "{said}");
}

#[test]
fn a_dozen_filesystems_in_files_are_no_problem() {
    let Some(bench) = Bench::new("a_dozen_filesystems_in_files_are_no_problem") else { return };
    let words = ["--quota", "loop", "--disk-limit-size-bytes", "10000000"];
    let children: Vec<_> = (0..12)
        .map(|n| {
            let mut command = bench.command();
            command.arg("create").args(words).arg("--exclude-image-from-quota");
            command.arg(bench.tar()).arg(format!("c{n}")).stdout(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(bench.mounts(), 12);
    for n in 0..12 {
        let written = fill(&bench.path(format!("store/images/c{n}/rootfs/full")));
        assert!((9_500_000..=10_100_000).contains(&written), "{written}");
    }
    for n in 0..12 {
        bench.done(&["delete", &format!("c{n}")]);
    }
    assert_eq!(bench.mounts(), 0);
    assert!(bench.done(&["fsck"]).starts_with("0 images"));
}

#[test]
fn a_limit_beyond_the_filesystem_is_remembered_as_it_was_asked_for() {
    let test = "a_limit_beyond_the_filesystem_is_remembered_as_it_was_asked_for";
    let Some(bench) = Bench::new(test) else { return };
    let told = || -> Stats { serde_json::from_str(&bench.done(&["stats", "x"])).unwrap() };
    for limit in [20 << 40, i64::MAX as u64] {
        let bytes = limit.to_string();
        let words = ["create", "--quota", "loop", "--disk-limit-size-bytes", &bytes];
        let more = ["--exclude-image-from-quota", &bench.tar(), "x"];
        bench.done(&[&words[..], &["--inode-limit", "18446744073709551615"], &more].concat());
        assert_eq!(told().disk_usage.quota_size_bytes, limit);
        let root = bench.path("store/images/x/rootfs");
        fs::write(root.join("f"), vec![1; MIB as usize]).unwrap();
        assert!(told().disk_usage.exclusive_bytes_used >= MIB);
        let df: serde_json::Value = serde_json::from_str(&bench.done(&["df", "--json"])).unwrap();
        assert_eq!(df["committed_bytes"], limit);
        bench.done(&["delete", "x"]);
    }
}
