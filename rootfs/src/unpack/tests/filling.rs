//! Small files are filled beside the making of others; nobody is to notice.

use super::*;

#[test]
fn the_first_member_that_fails_is_the_one_told() {
    let nobody = (Entry { uid: u32::MAX, ..file("mine").0 }, &b"new"[..]);
    let names: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    // So many that the thread is woken while members still come, and so few that it is not.
    for count in [3, names.len()] {
        let mut members: Vec<_> = names[..count].iter().map(|name| file(name)).collect();
        members.insert(1, nobody.clone());
        // The root of an archive must be a directory: a later member that fails earlier.
        members.push(file("."));
        let place = Place::new();
        let error = format!("{:#}", place.unpack(&members).unwrap_err());
        assert_eq!(error, "unpack mine: owner 4294967295 is no user");
    }
}

#[test]
fn names_may_go_before_their_files_are_full() {
    let place = Place::new();
    let second = (file("a").0, &b"two"[..]);
    place
        .unpack(&[file("a"), hard("b", "a"), second, file("gone/x"), link("gone", "a"), dir("d")])
        .unwrap();
    let read = |name: &str| std::fs::read_to_string(place.root().join(name)).unwrap();
    assert_eq!((read("a"), read("b"), read("gone")), ("two".into(), "new".into(), "two".into()));
}
