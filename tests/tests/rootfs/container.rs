//! What a container sees of its root filesystem.

use std::fs;
use std::os::unix::fs::MetadataExt;

use guardian_tests::skip;

use crate::bench::{Bench, MAPS};

/// Everything a container's root does with its files.
const WORK: &str = "set -e
stat -c '%n %u:%g %a' /bin/busybox /home/alice /usr/setid /
touch /new; chown 1001:1010 /new; chmod 4711 /new; stat -c '%n %u:%g %a' /new
mv /usr/sub/f /usr/sub/g; rm /usr/sub/g; rm -r /usr/sub; ls /usr
mkdir /d; ln /bin/busybox /d/again; rm -r /d
chown 7:7 /etc/passwd; stat -c '%n %u:%g' /etc/passwd
echo done";

const WANT: &str = "/bin/busybox 0:0 755
/home/alice 1001:1010 755
/usr/setid 1001:1010 6755
/ 0:0 755
/new 1001:1010 4711
setid
/etc/passwd 7:7
done";

#[test]
fn a_privileged_container_works_in_its_root() {
    let Some(bench) = Bench::new("a_privileged_container_works_in_its_root") else { return };
    let (root, _) = bench.create(&[], &bench.tar(), "p");
    let Some(container) = bench.container("p", &root, true) else { return };
    assert_eq!(container.sh(WORK), WANT);
}

#[test]
fn root_s_files_are_root_s_inside_by_every_way() {
    let Some(bench) = Bench::new("root_s_files_are_root_s_inside_by_every_way") else { return };
    for (way, owner_on_disk) in [("detached", 1001), ("attached", 1001), ("lower-only", 1001)] {
        let flags = [&MAPS[..], &["--overlay", way]].concat();
        if way == "detached" && !has_detached_layers() {
            skip::note("overlay over detached layers", "this kernel can't name them");
            continue;
        }
        let (root, _) = bench.create(&flags, &bench.tar(), way);
        assert_eq!(bench.mounts(), 1, "{way}");
        let Some(container) = bench.container(way, &root, false) else { return };
        assert_eq!(container.sh("cat /proc/self/uid_map | wc -l"), "2");
        assert_eq!(container.sh(WORK), WANT, "{way}");
        let upper = bench.path(format!("store/images/{way}/writes/upper"));
        assert_eq!(fs::metadata(upper.join("new")).unwrap().uid(), owner_on_disk);
        let root_on_disk = fs::metadata(&upper).unwrap().uid();
        assert_eq!(root_on_disk, if way == "lower-only" { 4_294_967_294 } else { 0 });
        drop(container);
        bench.done(&["delete", way]);
    }
    assert_eq!(bench.mounts(), 0);
    // One copy served them all, and nobody touched it.
    let layers = bench.stored("layers");
    let layer = bench.path("store/layers").join(&layers[0]);
    assert_eq!(layers.len(), 1);
    assert_eq!(fs::read_to_string(layer.join("usr/sub/f")).unwrap(), "below");
    assert_eq!(fs::metadata(layer.join("bin/busybox")).unwrap().uid(), 0);
}

#[test]
fn the_best_way_is_the_one_taken() {
    let Some(bench) = Bench::new("the_best_way_is_the_one_taken") else { return };
    let tar = bench.tar();
    let arguments = [&MAPS[..], &["--log-level", "info", "create", &tar, "x"]].concat();
    let output = bench.rootfs(&arguments);
    assert!(output.status.success());
    let log = String::from_utf8(output.stderr).unwrap();
    let failed = log.lines().filter(|line| line.contains("overlay-way-failed")).count();
    let expected = if has_detached_layers() { 0 } else { 1 };
    assert_eq!(failed, expected, "{log}");
}

/// Overlay takes layers by descriptor since Linux 6.13; before, only those that are mounted somewhere.
fn has_detached_layers() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6u32), Some(13u32))
}

#[test]
fn a_range_of_ids_is_mapped_as_well() {
    let Some(bench) = Bench::new("a_range_of_ids_is_mapped_as_well") else { return };
    let flags = ["--uid-mapping", "0:100000:65536", "--gid-mapping", "0:200000:65536"];
    let (root, _) = bench.create(&flags, &bench.tar(), "range");
    let owner = |name: &str| {
        let stat = fs::symlink_metadata(root.join(name)).unwrap();
        (stat.uid(), stat.gid())
    };
    assert_eq!(owner(""), (100_000, 200_000));
    assert_eq!(owner("bin/busybox"), (100_000, 200_000));
    assert_eq!(owner("home/alice"), (101_001, 201_010));
    let refused = ["--uid-mapping", "1:1:10", "--gid-mapping", "0:1:1", "create"];
    let said = bench.refused(&[&refused[..], &[&bench.tar(), "y"]].concat());
    assert!(said.contains("must map id 0"), "{said}");
}

#[test]
fn a_limit_is_the_whole_container_s() {
    let Some(bench) = Bench::new("a_limit_is_the_whole_container_s") else { return };
    let limit = (10 << 20).to_string();
    let flags = ["create", "--disk-limit-size-bytes", &limit, "--exclude-image-from-quota"];
    let tar = bench.tar();
    bench.done(&[&MAPS[..], &flags, &[&tar, "limited"]].concat());
    let root = bench.path("store/images/limited/rootfs");
    let Some(container) = bench.container("limited", &root, false) else { return };
    let write = |file: &str, mebibytes: u32| {
        container
            .sh(&format!("dd if=/dev/zero of={file} bs=1M count={mebibytes} 2>/dev/null; echo $?"))
    };
    assert_eq!(write("/root/test", 9), "0");
    assert_eq!(container.sh("rm /root/test"), "");
    assert_eq!(write("/home/alice/test", 8), "0");
    assert_eq!(write("/tmp/test", 3), "1");
    drop(container);
    bench.done(&["delete", "limited"]);
    assert_eq!(bench.mounts(), 0);
}
