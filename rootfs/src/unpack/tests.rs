//! Archives that want out of their directory, and archives that only look odd.

use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

use super::*;
use crate::archive::{Extent, write};

mod filling;
mod greedy;

/// An archive of members with this content.
fn archive(members: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (entry, content) in members {
        let entry = Entry { size: content.len() as u64, ..entry.clone() };
        write::header(&mut archive, &entry).unwrap();
        archive.extend_from_slice(content);
        write::padding(&mut archive, entry.size).unwrap();
    }
    write::end(&mut archive).unwrap();
    archive
}

fn member(path: &str, kind: Kind) -> Entry {
    let own = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    Entry { path: path.into(), kind, mode: 0o755, uid: own, gid: group, ..Entry::default() }
}

fn link(path: &str, target: &str) -> (Entry, &'static [u8]) {
    (member(path, Kind::Symlink(target.into())), b"")
}

fn hard(path: &str, target: &str) -> (Entry, &'static [u8]) {
    (member(path, Kind::HardLink(target.into())), b"")
}

fn dir(path: &str) -> (Entry, &'static [u8]) {
    (member(path, Kind::Directory), b"")
}

fn file(path: &str) -> (Entry, &'static [u8]) {
    (member(path, Kind::File), b"new")
}

/// A directory to unpack into, `root`, beside a canary that must stay as it is.
struct Place {
    top: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("root")).unwrap();
        std::fs::write(top.path().join("canary"), "old").unwrap();
        Self { top }
    }

    fn root(&self) -> PathBuf {
        self.top.path().join("root")
    }

    fn unpack(&self, members: &[(Entry, &[u8])]) -> anyhow::Result<()> {
        self.unpack_bytes(&archive(members), u64::MAX)
    }

    fn unpack_bytes(&self, archive: &[u8], room: u64) -> anyhow::Result<()> {
        let root = std::fs::File::open(self.root()).unwrap();
        let unpacked = Unpacker::layer(root.into(), &[], room).run(archive);
        assert_eq!(std::fs::read_to_string(self.top.path().join("canary")).unwrap(), "old");
        let mut names: Vec<_> = std::fs::read_dir(self.top.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["canary", "root"]);
        unpacked
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root().join(path)).unwrap()
    }
}

#[test]
fn absolute_and_climbing_names_stay_inside() {
    let place = Place::new();
    place.unpack(&[file("/abs"), file("../canary"), file("a/../../../canary2")]).unwrap();
    for name in ["abs", "canary", "canary2"] {
        assert_eq!(place.read(name), "new");
    }
}

#[test]
fn a_link_is_never_written_through() {
    let place = Place::new();
    let canary = place.top.path().join("canary");
    let members =
        [link("x", canary.to_str().unwrap()), file("x"), link("y", "../canary"), file("y")];
    place.unpack(&members).unwrap();
    assert_eq!((place.read("x"), place.read("y")), ("new".into(), "new".into()));
}

#[test]
fn a_linked_directory_leads_to_the_root_s_own() {
    let place = Place::new();
    let top = place.top.path().to_str().unwrap().to_owned();
    // Neither exists below the root, so neither can be written to.
    for target in ["..", &top, "/proc/self/root", "/proc/self/cwd"] {
        let _ = place.unpack(&[link("up", target), file("up/canary")]);
    }
    place.unpack(&[dir("usr/"), link("lib", "/usr"), file("lib/f")]).unwrap();
    assert_eq!(place.read("usr/f"), "new");
}

#[test]
fn hard_links_reach_members_only() {
    let place = Place::new();
    let canary = place.top.path().join("canary");
    for target in [canary.to_str().unwrap(), "../canary", "/etc/passwd"] {
        assert!(place.unpack(&[hard("h", target)]).is_err(), "{target}");
    }
    let outside = [link("l", canary.to_str().unwrap()), hard("h", "l"), file("h")];
    place.unpack(&outside).unwrap();
    assert!(place.root().join("l").is_symlink());
    place.unpack(&[file("a"), hard("b", "./a")]).unwrap();
    assert_eq!(place.root().join("a").metadata().unwrap().nlink(), 2);
    assert!(place.unpack(&[dir("d/"), hard("e", "d")]).is_err());
}

#[test]
fn devices_are_left_out_and_pipes_made() {
    let place = Place::new();
    let members = [
        (member("null", Kind::CharDevice(1, 3)), &b""[..]),
        (member("disk", Kind::BlockDevice(8, 0)), b""),
        (member("pipe", Kind::Fifo), b""),
    ];
    place.unpack(&members).unwrap();
    assert!(!place.root().join("null").exists() && !place.root().join("disk").exists());
    assert!(place.root().join("pipe").metadata().unwrap().file_type().is_fifo());
}

#[test]
fn the_last_of_two_wins() {
    let place = Place::new();
    let members = [
        dir("a/"),
        file("a/x"),
        file("a"), // a directory becomes a file
        file("b"),
        dir("b/"),
        file("b/y"), // a file becomes a directory
        link("c", "/"),
        dir("c/"),
        file("c/z"), // a link becomes a directory
    ];
    place.unpack(&members).unwrap();
    assert_eq!(place.read("a"), "new");
    assert_eq!(place.read("b/y"), "new");
    assert_eq!(place.read("c/z"), "new");
}

#[test]
fn modes_and_times_of_directories_survive_their_content() {
    let place = Place::new();
    let entry = Entry { mode: 0o1555, mtime: (1_000_000_000, 0), ..member("d/", Kind::Directory) };
    let set_id = Entry { mode: 0o6755, mtime: (7, 0), ..member("d/f", Kind::File) };
    place.unpack(&[(entry, b""), (set_id, b"x")]).unwrap();
    let at = |name: &str| place.root().join(name).metadata().unwrap();
    assert_eq!((at("d").mode() & 0o7777, at("d").mtime()), (0o1555, 1_000_000_000));
    assert_eq!((at("d/f").mode() & 0o7777, at("d/f").mtime()), (0o6755, 7));
}

#[test]
fn a_file_that_is_cut_off_is_an_error() {
    let place = Place::new();
    let whole = archive(&[file("a"), (member("b", Kind::File), &[7; 9000])]);
    for length in [10, 511, 513, 2000, 6000] {
        assert!(place.unpack_bytes(&whole[..length], u64::MAX).is_err(), "{length}");
    }
    assert!(place.unpack_bytes(&[], u64::MAX).is_ok());
}

#[test]
fn a_layer_beyond_its_quota_is_refused() {
    let place = Place::new();
    let big = archive(&[(member("big", Kind::File), &[1; 4000])]);
    let error = place.unpack_bytes(&big, 3999).unwrap_err();
    assert!(format!("{error:#}").contains("exceeds quota"), "{error:#}");
    place.unpack_bytes(&big, 4000).unwrap();
}

#[test]
fn giant_names_and_headers_are_refused_unread() {
    let place = Place::new();
    for (kind, size) in [(b'L', 1u64 << 40), (b'K', 5000), (b'x', 1 << 33)] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(size);
        header.set_cksum();
        let error = place.unpack_bytes(header.as_bytes(), u64::MAX).unwrap_err();
        assert!(format!("{error:#}").contains("are allowed"), "{error:#}");
    }
}

#[test]
fn impossible_sparse_files_are_refused() {
    let place = Place::new();
    for records in [
        "GNU.sparse.size=9223372036854775807",
        "GNU.sparse.size=10|GNU.sparse.map=0,99",
        "GNU.sparse.size=10|GNU.sparse.map=5,5,0,5",
        "GNU.sparse.size=10|GNU.sparse.map=18446744073709551615,2",
        "GNU.sparse.size=10|GNU.sparse.map=1",
    ] {
        let mut pax = Vec::new();
        for record in records.split('|') {
            let length = (1..).find(|n| n.to_string().len() + record.len() + 2 == *n).unwrap();
            pax.extend_from_slice(format!("{length} {record}\n").as_bytes());
        }
        let mut bytes = Vec::new();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(pax.len() as u64);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&pax);
        write::padding(&mut bytes, pax.len() as u64).unwrap();
        bytes.extend_from_slice(&archive(&[(member("s", Kind::File), b"")]));
        assert!(place.unpack_bytes(&bytes, u64::MAX).is_err(), "{records}");
    }
}

#[test]
fn whiteouts_of_nothing_are_refused() {
    let place = Place::new();
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.."] {
        assert!(place.unpack(&[file(name)]).is_err(), "{name}");
    }
    place.unpack(&[file(".wh..wh.plnk")]).unwrap();
    assert_eq!(std::fs::read_dir(place.root()).unwrap().count(), 0);
}

#[test]
fn whiteouts_mean_the_layers_below_in_any_order() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: overlay whiteouts need root");
        return;
    }
    let is_whiteout = |place: &Place, name: &str| {
        let stat = place.root().join(name).symlink_metadata().unwrap();
        stat.file_type().is_char_device() && stat.rdev() == 0
    };
    let is_hiding = |place: &Place, name: &str| {
        let directory = std::fs::File::open(place.root().join(name)).unwrap();
        is_marked(&directory, whiteout::OPAQUE_ATTRIBUTE)
    };
    let members = [
        file("d/.wh.gone"),
        dir("k/"),
        file("k/x"),
        file(".wh.k"),
        file("o/a"),
        file("o/.wh..wh..opq"),
        file("o/b"),
        file(".wh.f"),
        file("f"),
    ];
    for reverse in [false, true] {
        let place = Place::new();
        let mut members = members.clone();
        if reverse {
            members.reverse();
        }
        place.unpack(&members).unwrap();
        assert!(is_whiteout(&place, "d/gone"));
        assert!(is_hiding(&place, "k") && is_hiding(&place, "o") && !is_hiding(&place, "d"));
        for name in ["k/x", "o/a", "o/b", "f"] {
            assert_eq!(place.read(name), "new", "{name}");
        }
    }
}

#[test]
fn a_directory_left_out_looks_as_below() {
    let (below, place) = (Place::new(), Place::new());
    let mode = |mode: u32| Entry { mode, mtime: (77, 0), ..member("usr/", Kind::Directory) };
    below.unpack(&[(mode(0o2711), b"")]).unwrap();
    let lower = [Beneath::without_links(std::fs::File::open(below.root()).unwrap().into())];
    let root = std::fs::File::open(place.root()).unwrap();
    Unpacker::layer(root.into(), &lower, u64::MAX).run(&archive(&[file("usr/x")])[..]).unwrap();
    let stat = place.root().join("usr").metadata().unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.mtime()), (0o2711, 77));
}

#[test]
fn a_user_s_archive_obeys_the_umask_and_keeps_linked_directories() {
    let place = Place::new();
    std::fs::create_dir(place.root().join("usr")).unwrap();
    symlink("usr", place.root().join("lib")).unwrap();
    let mut set_id = file("lib/f");
    set_id.0.mode = 0o6777;
    let root = std::fs::File::open(place.root()).unwrap();
    let bytes = archive(&[dir("lib/"), set_id, dir("full/"), file("full/x")]);
    Unpacker::user(root.try_clone().unwrap().into(), 0o022).run(&bytes[..]).unwrap();
    assert_eq!(place.root().join("usr/f").metadata().unwrap().mode() & 0o7777, 0o755);
    // It takes no directory away that holds something.
    let error = Unpacker::user(root.into(), 0o022).run(&archive(&[file("full")])[..]);
    assert!(error.is_err());
    assert_eq!(place.read("full/x"), "new");
}

#[test]
fn gnu_tar_s_sparse_files_come_out_whole() {
    let source = tempfile::tempdir().unwrap();
    let path = source.path().join("s");
    let mut holes = vec![0u8; 3 << 20];
    holes[1 << 20..(1 << 20) + 5000].fill(7);
    holes[2 << 20] = 9;
    let file = std::fs::File::create(&path).unwrap();
    for extent in [Extent { offset: 1 << 20, length: 5000 }, Extent { offset: 2 << 20, length: 1 }]
    {
        let piece = &holes[extent.offset as usize..(extent.offset + extent.length) as usize];
        std::os::unix::fs::FileExt::write_all_at(&file, piece, extent.offset).unwrap();
    }
    file.set_len(holes.len() as u64).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let tar = std::process::Command::new("tar")
            .args(format)
            .args(["--sparse", "--numeric-owner", "-cf", "-", "-C"])
            .arg(source.path())
            .arg("s")
            .output()
            .unwrap();
        assert!(tar.status.success());
        let place = Place::new();
        place.unpack_bytes(&tar.stdout, u64::MAX).unwrap();
        assert!(std::fs::read(place.root().join("s")).unwrap() == holes, "{format:?}");
    }
}
