//! Volumes: begun as what the image has, kept, written back, removed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use guardian_tests::skip;
use serde_json::{Value, json};

use super::tree;
use super::{Bench, is_root};

const DATA: &str = "state/volumes/a/%2Fvar%2Flib%2Fdocker/data";

fn owner(path: &Path) -> (u32, u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.uid(), stat.gid(), stat.mode() & 0o7777)
}

fn image(bench: &Bench) -> PathBuf {
    let docker = bench.path("rootfs/var/lib/docker");
    fs::create_dir_all(docker.parent().unwrap()).unwrap();
    tree::make(&docker, &tree::special(10));
    docker
}

#[test]
fn a_volume_begins_as_the_image_s_directory_and_belongs_to_the_container() {
    if !is_root("idmgr volume create") {
        return;
    }
    let bench = Bench::new(2);
    let docker = image(&bench);
    bench.ok("register a --policy exclusive --rootfs rootfs");
    let answer = bench.ok("volume create a --kind docker");
    assert_eq!(answer["mount"]["destination"], "/var/lib/docker");
    assert_eq!(answer["copied"]["copied"], 19);
    let shown = PathBuf::from(answer["mount"]["source"].as_str().unwrap());
    assert_eq!(owner(&shown), (100_000, 100_000, 0o700));
    let mut want = tree::facts(&docker);
    let mut have = tree::facts(&bench.path(DATA));
    // The directory itself has the mode that the engine expects.
    want.remove(Path::new(""));
    have.remove(Path::new(""));
    assert_eq!(have, want);
    assert_eq!(bench.ok("volume create a --kind docker")["copied"]["copied"], 0);
    let other = bench.ok("volume create a --kind custom --dst /srv/b");
    assert_eq!(
        owner(Path::new(other["mount"]["source"].as_str().unwrap())),
        (100_000, 100_000, 0o755)
    );
}

#[test]
fn volumes_are_kept_until_the_container_is_removed_and_written_back() {
    if !is_root("idmgr volumes over a life") {
        return;
    }
    let bench = Bench::new(2);
    let docker = image(&bench);
    let start = || {
        bench.ok("register a --policy exclusive --rootfs rootfs");
        bench.ok("volume create a --kind docker");
    };
    start();
    let data = bench.path(DATA);
    fs::write(data.join("new"), "x").unwrap();
    lchown(data.join("new"), Some(1000), Some(1000)).unwrap();
    fs::remove_file(data.join("n0")).unwrap();
    let synced = bench.ok("pause a")["synced"].clone();
    assert_eq!(synced[0]["destination"], "/var/lib/docker");
    let (new, gone) = (docker.join("new"), docker.join("n0"));
    assert!(owner(&new) == (1000, 1000, 0o644) && !gone.exists(), "{synced}");
    fs::remove_file(data.join("new")).unwrap();
    bench.ok("resume a");
    bench.ok("unregister a");
    assert!(!docker.join("new").exists());
    assert_eq!(owner(&docker), (0, 0, 0o700));
    assert_eq!(bench.mounts(), Vec::<PathBuf>::new());
    // What is in the image meanwhile changes nothing: the volume is the container's.
    fs::write(docker.join("late"), "x").unwrap();
    start();
    assert!(data.join("n1").exists() && !data.join("late").exists());
    bench.ok("unregister a --no-sync");
    assert!(docker.join("late").exists());
    bench.ok("register a --policy exclusive --auto-remove");
    bench.ok("unregister a");
    assert!(docker.join("late").exists());
    bench.ok("remove a");
    assert!(!bench.path("state/volumes/a").exists());
}

#[test]
fn ids_are_right_in_an_image_that_shows_the_host_s() {
    if !is_root("idmgr volumes of a mapped image") {
        return;
    }
    let bench = Bench::new(2);
    for directory in ["lower/var/lib/docker", "rw/upper", "rw/work", "merged"] {
        fs::create_dir_all(bench.path(directory)).unwrap();
    }
    fs::write(bench.path("lower/var/lib/docker/old"), "x").unwrap();
    lchown(bench.path("lower/var/lib/docker/old"), Some(1000), Some(7)).unwrap();
    bench.ok("register a --policy exclusive");
    bench.ok("rootfs prepare a --lower lower --upper rw/upper --work rw/work --target merged");
    bench.ok("volume create a --kind docker --rootfs merged");
    let data = bench.path(DATA);
    assert_eq!(owner(&data.join("old")), (1000, 7, 0o644));
    fs::remove_file(data.join("old")).unwrap();
    fs::write(data.join("new"), "y").unwrap();
    lchown(data.join("new"), Some(5), Some(6)).unwrap();
    let synced = bench.ok("volume sync a");
    assert_eq!(synced["synced"][0]["copied"]["copied"], 1, "{synced}");
    assert_eq!(owner(&bench.path("merged/var/lib/docker/new")), (100_005, 100_006, 0o644));
    assert!(!bench.path("merged/var/lib/docker/old").exists());
    // The upper layer has the container's own ids, so another container could have it.
    assert_eq!(owner(&bench.path("rw/upper/var/lib/docker/new")), (5, 6, 0o644));
    bench.ok("remove a");
}

#[test]
fn links_of_an_image_lead_nowhere_outside() {
    if !is_root("idmgr volumes of a hostile image") {
        return;
    }
    let bench = Bench::new(1);
    fs::create_dir_all(bench.path("rootfs/srv")).unwrap();
    fs::create_dir(bench.path("outside")).unwrap();
    fs::write(bench.path("outside/secret"), "x").unwrap();
    symlink(bench.path("outside"), bench.path("rootfs/srv/a")).unwrap();
    symlink("../../../../../../..", bench.path("rootfs/srv/up")).unwrap();
    symlink("/etc", bench.path("rootfs/srv/etc")).unwrap();
    bench.ok("register a --rootfs rootfs");
    for place in ["/srv/a", "/srv/etc", "/srv/a/x", "/srv/up/x"] {
        let answer = bench.ok(&format!("volume create a --kind custom --dst {place}"));
        assert_eq!(answer["copied"]["copied"], 0, "{place}");
    }
    for entry in fs::read_dir(bench.path("state/volumes/a")).unwrap() {
        fs::write(entry.unwrap().path().join("data/made"), "y").unwrap();
    }
    let synced = bench.ok("unregister a")["synced"].clone();
    let failed: Vec<&Value> =
        synced.as_array().unwrap().iter().filter(|one| one["error"].is_string()).collect();
    assert_eq!(failed.len(), 3, "{synced}");
    assert_eq!(fs::read_dir(bench.path("outside")).unwrap().count(), 1);
    assert!(!Path::new("/etc/made").exists() && !bench.path("made").exists());
    assert!(bench.path("rootfs/x/made").exists());
}

#[test]
fn what_is_hard_to_remove_is_removed() {
    if !skip::can_run("idmgr remove of deep trees", &["chattr"]) {
        return;
    }
    let bench = Bench::new(1);
    bench.ok("register a");
    bench.ok("volume create a --kind docker");
    let directory = fs::File::open(bench.path(DATA)).unwrap();
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let mode = rustix::fs::Mode::from_raw_mode(0o700);
    let mut deep: rustix::fd::OwnedFd = directory.into();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&deep, "d", mode).unwrap();
        deep = rustix::fs::openat(&deep, "d", flags, mode).unwrap();
    }
    fs::write(bench.path(DATA).join("frozen"), "").unwrap();
    // Not every filesystem has the mark.
    let _ = Command::new("chattr").arg("+i").arg(bench.path(DATA).join("frozen")).status();
    // Fewer descriptors than levels.
    let mut limited = Command::new("sh");
    let remove = bench.command(&["remove", "a"]);
    limited.args(["-c", "ulimit -n 256 && exec \"$@\"", "x"]).arg(remove.get_program());
    let output = limited.args(remove.get_args()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!bench.path("state/volumes/a").exists());
}

#[test]
fn holes_whiteouts_and_inner_layers_are_copied() {
    if !is_root("idmgr volumes with whiteouts") {
        return;
    }
    let bench = Bench::new(1);
    let image = bench.path("rootfs/var/lib/docker");
    fs::create_dir_all(&image).unwrap();
    let sparse = fs::File::create(image.join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    use std::os::unix::fs::FileExt;
    sparse.write_all_at(b"end", (1 << 30) - 3).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let device = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, image.join("whiteout"), device, mode, 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(rustix::fs::CWD, image.join("null"), device, mode, null).unwrap();
    fs::create_dir(image.join("opaque")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(image.join("opaque"), "user.overlay.opaque", b"y", flags).unwrap();
    fs::set_permissions(image.join("opaque"), fs::Permissions::from_mode(0o3711)).unwrap();
    bench.ok("register a --rootfs rootfs");
    let copied = bench.ok("volume create a --kind docker")["copied"].clone();
    assert_eq!((&copied["copied"], &copied["skipped"]), (&json!(3), &json!(1)));
    let data = bench.path(DATA);
    let stat = fs::metadata(data.join("sparse")).unwrap();
    assert!(stat.len() == 1 << 30 && stat.blocks() < 1000, "{stat:?}");
    assert_eq!(fs::symlink_metadata(data.join("whiteout")).unwrap().rdev(), 0);
    assert!(!data.join("null").exists());
    assert_eq!(owner(&data.join("opaque")).2, 0o3711);
    let mut value = [0; 4];
    let length = rustix::fs::getxattr(data.join("opaque"), "user.overlay.opaque", &mut value[..]);
    assert_eq!(length, Ok(1));
}
