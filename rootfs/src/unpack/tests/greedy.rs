//! Archives that want more than they should get, and names used twice.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;

#[test]
fn a_second_name_is_never_written_through() {
    let place = Place::new();
    let members =
        [(member("a", Kind::File), &b"old"[..]), hard("b", "a"), file("b"), hard("a", "b")];
    place.unpack(&members[..3]).unwrap();
    assert_eq!((place.read("a"), place.read("b")), ("old".into(), "new".into()));
    place.unpack(&members).unwrap();
    assert_eq!((place.read("a"), place.read("b")), ("new".into(), "new".into()));
    // A link to itself, by whatever name, takes nothing away.
    place.unpack(&[file("a"), hard("./a", "/a"), hard("x/../a", "a")]).unwrap();
    assert_eq!(place.read("a"), "new");
}

#[test]
fn the_root_stays_a_directory() {
    let place = Place::new();
    for name in ["/", ".", "a/..", ".."] {
        for kind in [Kind::File, Kind::Fifo, Kind::Symlink("/etc".into())] {
            assert!(place.unpack(&[(member(name, kind), b"")]).is_err(), "{name}");
        }
        assert!(place.unpack(&[file("x"), hard(name, "x")]).is_err(), "{name}");
    }
    for name in ["/.wh.", "/.wh..", "a/../.wh.", ".wh./", "/.wh..."] {
        assert!(place.unpack(&[file("x"), file(name)]).is_err(), "{name}");
        assert_eq!(place.read("x"), "new");
    }
}

#[test]
fn a_file_of_eight_exbibytes_takes_no_room() {
    let place = Place::new();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_path("s").unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    let size = &mut header.as_gnu_mut().unwrap().realsize;
    // Base 256, as GNU tar has what is too large for octal digits.
    *size = [0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(&[0; 1024]);
    // Most filesystems refuse; where one doesn't, it is all hole.
    match place.unpack_bytes(&bytes, 4096) {
        Err(error) => assert!(format!("{error:#}").contains("set size"), "{error:#}"),
        Ok(()) => assert_eq!(place.root().join("s").metadata().unwrap().blocks(), 0),
    }
}

#[test]
fn what_is_passed_over_is_charged_too() {
    let place = Place::new();
    let content = vec![0; 5000];
    let mut bytes = archive(&[(member("x", Kind::File), &content)]);
    bytes[156] = b'V'; // a volume header
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&bytes[..512]);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    let error = place.unpack_bytes(&bytes, 4999).unwrap_err();
    assert!(error.downcast_ref::<TooLarge>().is_some(), "{error:#}");
    place.unpack_bytes(&bytes, 5000).unwrap();
    assert_eq!(std::fs::read_dir(place.root()).unwrap().count(), 0);
}

#[test]
fn nothing_endless_follows_an_archive() {
    let place = Place::new();
    let mut bytes = archive(&[file("x")]);
    bytes.resize(bytes.len() + (63 << 20), 0);
    place.unpack_bytes(&bytes, u64::MAX).unwrap();
    bytes.resize(bytes.len() + (2 << 20), 0);
    let error = place.unpack_bytes(&bytes, u64::MAX).unwrap_err();
    assert!(error.to_string().contains("follow the end of the archive"), "{error:#}");
}

#[test]
fn directories_take_no_more_memory_than_allowed() {
    let place = Place::new();
    let value = vec![7; 1 << 19];
    let heavy = |name: String| {
        let xattrs = vec![(b"user.x".to_vec(), value.clone())];
        (Entry { xattrs, ..member(&name, Kind::Directory) }, &b""[..])
    };
    let members: Vec<_> = (0..300).map(|n| heavy(format!("d{n}/"))).collect();
    let error = place.unpack(&members).unwrap_err();
    assert!(format!("{error:#}").contains("bytes of names of directories"), "{error:#}");
    // One that is told of again and again counts once.
    let members: Vec<_> = (0..300).map(|_| heavy("d/".into())).chain([dir("d/")]).collect();
    Place::new().unpack(&members).unwrap();
}

#[test]
fn directories_that_no_member_tells_of_are_counted() {
    let place = Place::new();
    let root = || std::fs::File::open(place.root()).unwrap().into();
    let deep = |first: &str| file(&format!("{first}{}", "/d".repeat(50)));
    let mut unpacker = Unpacker::layer(root(), &[], u64::MAX);
    unpacker.implied = 80;
    let error = unpacker.run(&archive(&[deep("a"), deep("b")])[..]).unwrap_err();
    assert!(format!("{error:#}").contains("too many directories"), "{error:#}");
    let mut unpacker = Unpacker::layer(root(), &[], u64::MAX);
    unpacker.implied = 80;
    unpacker.run(&archive(&[deep("a"), deep("a")])[..]).unwrap();
}

#[test]
fn a_pipe_by_a_well_known_name_is_only_a_pipe() {
    let place = Place::new();
    let pipe = |name: &str| (member(name, Kind::Fifo), &b""[..]);
    place.unpack(&[dir("etc/"), pipe("etc/passwd"), pipe("f"), file("f"), pipe("g")]).unwrap();
    let kind = |name: &str| place.root().join(name).metadata().unwrap().file_type();
    assert!(kind("etc/passwd").is_fifo() && kind("f").is_file() && kind("g").is_fifo());
    // Nobody waits for a reader when a member follows whose directory it would be.
    assert!(place.unpack(&[file("g/x")]).is_err());
}
