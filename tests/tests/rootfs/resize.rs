//! Another limit for a container that is there: held, told, and sound whoever is killed meanwhile.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use guardian_contract::image::{DiskUsage, Stats};
use guardian_tests::patience::patience;
use guardian_tests::{host, skip};
use serde_json::Value;

use crate::bench::Bench;
use crate::quota::{Filesystem, MIB, fill, make};

/// Whether ext4 lets us grow it in use.
fn can_grow() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() & (1 << 24) != 0
}

/// Makes an image with this limit on its container's own writes.
fn create(bench: &Bench, id: &str, limit: u64) {
    let limit = limit.to_string();
    let words = ["create", "--quota", "loop", "--disk-limit-size-bytes", &limit];
    bench.done(&[&words[..], &["--exclude-image-from-quota", &bench.tar(), id]].concat());
}

fn words<'a>(limit: &'a str, id: &'a str) -> [&'a str; 5] {
    ["resize", "--disk-limit-size-bytes", limit, "--exclude-image-from-quota", id]
}

fn resize(bench: &Bench, id: &str, limit: u64) -> DiskUsage {
    let said = bench.done(&words(&limit.to_string(), id));
    serde_json::from_str::<Stats>(&said).unwrap().disk_usage
}

fn stats(bench: &Bench, id: &str) -> DiskUsage {
    let said = bench.done(&["stats", id]);
    let stats = serde_json::from_str::<Stats>(&said).unwrap().disk_usage;
    let all = host::output(bench.command().args(["df", "--json"])).unwrap();
    let all: Value = serde_json::from_str(&all).unwrap();
    assert_eq!(all["images"][0]["limit_bytes"], stats.quota_size_bytes);
    assert_eq!(all["committed_bytes"], stats.quota_size_bytes);
    stats
}

/// A child that another test has just forked holds our files until it runs its program.
fn eventually(is_so: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > patience(Duration::from_secs(5)) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Checks the filesystem in an image's file, which is then unmounted.
fn check_filesystem(bench: &Bench, id: &str) {
    let image = bench.path("store/images").join(id);
    assert!(eventually(|| host::run(&["umount", image.join("rootfs").to_str().unwrap()]).is_ok()));
    // The kernel lets the device go when the last that looks at it has gone.
    let disk = image.join("disk.img");
    let holder = || host::run(&["losetup", "-j", disk.to_str().unwrap()]).unwrap();
    assert!(eventually(|| !holder().contains("img")));
    // Mounting and unmounting takes what is in the journal in; the check itself changes nothing.
    let point = bench.path("check");
    fs::create_dir_all(&point).unwrap();
    let (disk, point) = (disk.to_str().unwrap(), point.to_str().unwrap());
    host::run(&["mount", "-o", "loop", disk, point]).unwrap();
    host::run(&["umount", point]).unwrap();
    host::run(&["e2fsck", "-f", "-n", disk]).unwrap();
}

fn near(written: u64, limit: u64) -> bool {
    written <= limit && written > limit - limit / 50 - 128 * 1024
}

#[test]
fn a_limit_in_a_file_goes_up_and_down_while_it_is_used() {
    let test = "a_limit_in_a_file_goes_up_and_down_while_it_is_used";
    let Some(bench) = Bench::new(test) else { return };
    create(&bench, "x", 20 * MIB);
    let root = bench.path("store/images/x/rootfs/tmp");
    // Somebody is writing to a file all the time, as in a container that runs.
    let (file, held) = (root.join("file"), root.join("held"));
    let mut open = File::create(&held).unwrap();
    assert!(near(fill(&file), 20 * MIB));

    let told = resize(&bench, "x", 50 * MIB);
    assert_eq!((told.quota_size_bytes, told), (50 * MIB, stats(&bench, "x")));
    open.write_all(&[2; 1 << 20]).unwrap();
    assert!(near(fill(&file) + MIB, 50 * MIB));
    // Below what is used: nothing changes.
    let said = bench.refused(&words(&(30 * MIB).to_string(), "x"));
    assert!(said.starts_with("disk limit of 31457280 is below the 5"), "{said}");
    assert!(said.ends_with(" in use"), "{said}");
    assert_eq!(stats(&bench, "x").quota_size_bytes, 50 * MIB);
    open.write_all_at(&[3; 4096], 0).unwrap();

    fs::remove_file(&file).unwrap();
    assert!(eventually(|| stats(&bench, "x").exclusive_bytes_used < 2 * MIB));
    resize(&bench, "x", 10 * MIB);
    assert!(stats(&bench, "x").exclusive_bytes_used.abs_diff(MIB) < 128 * 1024);
    assert!(near(fill(&file) + MIB, 10 * MIB));
    resize(&bench, "x", 12 * MIB);
    assert!(near(fill(&file) + MIB, 12 * MIB));
    assert_eq!(fs::read(&held).unwrap()[..8192], [[3; 4096], [2; 4096]].concat());

    // Beyond what the filesystem was made for: it grows, where it may.
    let said = bench.rootfs(&words(&(3072 * MIB).to_string(), "x"));
    match can_grow() {
        true => {
            assert!(said.status.success(), "{said:?}");
            fs::remove_file(&file).unwrap();
            let room = free(&root);
            assert!(near(room + MIB, 3072 * MIB), "{room}");
            resize(&bench, "x", 12 * MIB);
            assert!(near(fill(&file) + MIB, 12 * MIB));
        }
        false => {
            skip::note(test, "growing beyond what was made ready needs CAP_SYS_RESOURCE");
            let said = String::from_utf8(said.stdout).unwrap();
            assert!(said.contains("CAP_SYS_RESOURCE"), "{said}");
        }
    }
    assert_eq!(stats(&bench, "x").quota_size_bytes, 12 * MIB);
    assert!(bench.done(&["fsck"]).starts_with("1 images"));
    drop(open);
    check_filesystem(&bench, "x");
}

/// Bytes that can be had, as statfs(2) tells them.
fn free(path: &Path) -> u64 {
    let stat = nix::sys::statvfs::statvfs(path).unwrap();
    stat.blocks_available() * stat.fragment_size()
}

#[test]
fn a_limit_on_inodes_changes_too_and_only_what_is_given() {
    let Some(bench) = Bench::new("a_limit_on_inodes_changes_too_and_only_what_is_given") else {
        return;
    };
    let limits = ["--disk-limit-size-bytes", "33554432", "--inode-limit", "200"];
    let words = [&["create", "--quota", "loop", "--exclude-image-from-quota"], &limits[..]];
    bench.done(&[&words.concat()[..], &[&bench.tar(), "x"]].concat());
    let root = bench.path("store/images/x/rootfs");
    let directory = |number: usize| {
        let path = root.join(format!("d{number}"));
        fs::create_dir(&path).unwrap();
        path
    };
    assert_eq!(make(&directory(1)), 199);
    let set = |inodes: &str| {
        ["resize", "--inode-limit", inodes, "--exclude-image-from-quota", "x"].map(str::to_owned)
    };
    let said = bench.refused(&set("199"));
    assert_eq!(said, "inode limit of 199 is below the 200 in use");
    fs::remove_dir_all(root.join("d1")).unwrap();
    bench.done(&set("50"));
    assert_eq!(make(&directory(2)), 49);
    bench.done(&set("120"));
    assert_eq!(make(&directory(3)), 69);
    assert_eq!(stats(&bench, "x").quota_size_bytes, 32 * MIB);
    bench.done(&set("1500"));
    assert_eq!(make(&directory(4)), 1379);
    // As many as a filesystem of this size usually has are more than it was made with.
    let said = bench.rootfs(&set("0"));
    match can_grow() {
        true => assert!(said.status.success() && make(&directory(5)) > 400, "{said:?}"),
        false => assert!(String::from_utf8(said.stdout).unwrap().contains("CAP_SYS_RESOURCE")),
    }
    // The image's own count where they are not excluded.
    let said = bench.refused(&["resize", "--inode-limit", "5", "x"]);
    assert!(said.contains("the inode limit is 5"), "{said}");
    let said = bench.refused(&["resize", "--disk-limit-size-bytes", "5", "x"]);
    assert!(said.contains("disk limit is smaller than volume size"), "{said}");
    assert!(bench.refused(&["resize", "x"]).starts_with("no limit is to change"));
    let said = bench.refused(&["resize", "--inode-limit", "5", "nobody"]);
    assert_eq!(said, "Image `nobody` not found");
    assert_eq!(bench.rootfs(&["resize", "--inode-limit", "five", "x"]).status.code(), Some(2));
    check_filesystem(&bench, "x");
}

#[test]
fn a_change_that_is_killed_leaves_a_sound_filesystem_and_can_be_done_again() {
    let test = "a_change_that_is_killed_leaves_a_sound_filesystem_and_can_be_done_again";
    let Some(bench) = Bench::new(test) else { return };
    create(&bench, "x", 40 * MIB);
    let root = bench.path("store/images/x/rootfs/tmp");
    fs::write(root.join("mine"), vec![7; 5 << 20]).unwrap();
    let (mut killed, mut marked) = (0, 0);
    for round in 0..60_u64 {
        let limit = [8 * MIB, 300 * MIB][usize::from(round % 2 == 0)].to_string();
        let mut command = bench.command();
        let mut child = command.args(words(&limit, "x")).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(round * 250));
        child.kill().unwrap();
        killed += usize::from(child.wait().unwrap().code().is_none());
        let info = fs::read_to_string(bench.path("store/images/x/info.json")).unwrap();
        marked += usize::from(info.contains(r#""is_changing":true"#));
        // Told is what is, whatever half of the change was done.
        let used = stats(&bench, "x").exclusive_bytes_used;
        assert!(used.abs_diff(5 * MIB) < 256 * 1024, "{used}");
    }
    assert!(killed > 10, "{killed} of 60 were killed");
    eprintln!("killed {killed}, of those in the middle {marked}");
    resize(&bench, "x", 8 * MIB);
    assert!(near(fill(&root.join("full")) + 5 * MIB, 8 * MIB));
    assert_eq!(fs::read(root.join("mine")).unwrap(), vec![7; 5 << 20]);
    assert!(bench.done(&["fsck"]).starts_with("1 images"));
    check_filesystem(&bench, "x");
}

#[test]
fn a_smaller_limit_gives_back_what_was_removed() {
    let Some(bench) = Bench::new("a_smaller_limit_gives_back_what_was_removed") else { return };
    create(&bench, "x", 100 * MIB);
    let root = bench.path("store/images/x/rootfs/tmp");
    let taken = || fs::metadata(bench.path("store/images/x/disk.img")).unwrap().blocks() * 512;
    let sync = || host::run(&["sync", "-f", root.to_str().unwrap()]).unwrap();
    fill(&root.join("file"));
    sync();
    assert!(taken() > 50 * MIB, "{}", taken());
    fs::remove_file(root.join("file")).unwrap();
    assert!(eventually(|| stats(&bench, "x").exclusive_bytes_used < MIB));
    sync();
    resize(&bench, "x", 20 * MIB);
    assert!(taken() < 20 * MIB, "{}", taken());
    assert!(near(fill(&root.join("file")), 20 * MIB));
}

#[test]
fn nothing_is_changed_for_somebody_who_has_gone() {
    let Some(bench) = Bench::new("nothing_is_changed_for_somebody_who_has_gone") else { return };
    create(&bench, "x", 10 * MIB);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = bench.command();
    let status = command.args(words("20971520", "x")).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(stats(&bench, "x").quota_size_bytes, 10 * MIB);
}

#[test]
fn what_a_killed_change_left_is_told_and_put_right() {
    let Some(bench) = Bench::new("what_a_killed_change_left_is_told_and_put_right") else { return };
    create(&bench, "x", 10 * MIB);
    let info = bench.path("store/images/x/info.json");
    let known = fs::read_to_string(&info).unwrap();
    fs::write(&info, known.replace(r#""is_changing":false"#, r#""is_changing":true"#)).unwrap();
    let output = bench.rootfs(&["fsck"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("left: image x: who changed its limit died"), "{said}");
    assert!(bench.done(&["prune"]).ends_with("and 1 leftovers (0 bytes)"));
    assert_eq!(fs::read_to_string(&info).unwrap(), known);
    assert!(bench.done(&["fsck"]).starts_with("1 images"));
}

#[test]
fn a_container_without_a_limit_gets_one_where_there_are_quotas() {
    let test = "a_container_without_a_limit_gets_one_where_there_are_quotas";
    let Some(bench) = Bench::new(test) else { return };
    bench.create(&[], &bench.tar(), "free");
    let info = fs::read_to_string(bench.path("store/images/free/info.json")).unwrap();
    if info.contains(r#""disk":"unlimited""#) {
        let said = bench.refused(&words("10000000", "free"));
        assert!(said.contains("was made without a disk limit"), "{said}");
        let said: Stats = serde_json::from_str(&bench.done(&words("0", "free"))).unwrap();
        assert_eq!(said.disk_usage.quota_size_bytes, 0);
    }
    for (mkfs, name) in
        [(&["mkfs.xfs", "-q"][..], "xfs"), (&["mkfs.ext4", "-q", "-O", "quota,project"], "ext4")]
    {
        let Some(bench) = Bench::new(test) else { return };
        let Some(store) = Filesystem::with_quotas(&bench, &format!("{test} ({name})"), mkfs) else {
            continue;
        };
        store.done(&["create", &bench.tar(), "x"]);
        let root = store.point.join("store/images/x/rootfs");
        fs::write(root.join("before"), vec![1; 5 << 20]).unwrap();
        host::run(&["sync", "-f", root.to_str().unwrap()]).unwrap();
        assert!(store.used("x").abs_diff(5 * MIB) < 128 * 1024, "{}", store.used("x"));
        let set = |limit: u64| store.rootfs(&words(&limit.to_string(), "x"));
        assert!(set(10 * MIB).status.success());
        assert!(near(fill(&root.join("full")) + 5 * MIB, 10 * MIB));
        let said = set(8 * MIB);
        assert!(String::from_utf8(said.stdout).unwrap().contains("is below the 1048"));
        assert!(set(20 * MIB).status.success());
        assert!(near(fill(&root.join("full")) + 5 * MIB, 20 * MIB));
        fs::remove_file(root.join("full")).unwrap();
        store.done(&["resize", "--inode-limit", "20", "--exclude-image-from-quota", "x"]);
        fs::create_dir(root.join("many")).unwrap();
        // The directory, and the one that is there.
        assert_eq!(make(&root.join("many")), 18);
        assert!(set(0).status.success());
        fs::remove_dir_all(root.join("many")).unwrap();
        assert!(fill(&root.join("full")) > 100 * MIB);
        assert!(store.done(&["fsck"]).contains("1 images"));
    }
}
