//! Changed owners, and the way back, to the last bit.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use guardian_tests::skip;
use proptest::prelude::*;

use super::tree::{self, Kind, Node};
use super::{Bench, is_root};

const MAPS: &str = "--uid-map 0:3000000000:65536 --gid-map 0:3000000000:65536";

/// What `Translation` has to make of an id.
fn moved(id: u32) -> u32 {
    if id < 65_536 { id + 3_000_000_000 } else { id }
}

fn node() -> impl Strategy<Value = Node> {
    let kind = prop_oneof![
        4 => Just(Kind::File),
        2 => Just(Kind::Directory),
        1 => Just(Kind::Symlink),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Link),
    ];
    let id = || {
        prop_oneof![
            Just(0_u32),
            1_u32..65_536,
            65_536_u32..3_000_000_000,
            3_000_065_536_u32..4_294_967_295
        ]
    };
    let acl = prop::collection::vec((any::<bool>(), id()), 0..3);
    let attribute = prop::option::of(prop::collection::vec(any::<u8>(), 0..9));
    (kind, id(), id(), 0_u32..0o10000, acl, prop::option::of(id()), attribute).prop_map(
        |(kind, uid, gid, mode, acl, capability, attribute)| Node {
            kind,
            uid,
            gid,
            mode,
            acl,
            capability,
            attribute,
        },
    )
}

#[test]
fn a_shifted_tree_goes_back_bit_for_bit() {
    if !is_root("a shifted tree goes back") {
        return;
    }
    let mut config = ProptestConfig::with_cases(60);
    config.failure_persistence = None;
    proptest!(config, |(nodes in prop::collection::vec(node(), 1..25))| {
        let bench = Bench::new(1);
        let top = bench.path("tree");
        tree::make(&top, &nodes);
        let before = tree::facts(&top);
        bench.ok(&format!("shift tree {MAPS}"));
        let after = tree::facts(&top);
        for (path, fact) in &before {
            let now = &after[path];
            prop_assert_eq!((now.uid, now.gid), (moved(fact.uid), moved(fact.gid)), "{:?}", path);
            prop_assert_eq!(now.mode, fact.mode, "{:?}", path);
            let names = |fact: &tree::Fact| fact.attributes.keys().cloned().collect::<Vec<_>>();
            prop_assert_eq!(names(now), names(fact), "{:?}", path);
        }
        bench.ok(&format!("shift tree {MAPS} --back"));
        prop_assert_eq!(tree::facts(&top), before);
        prop_assert_eq!(fs::read_dir(bench.path("state/sources")).unwrap().count(), 0);
    });
}

#[test]
fn shifted_twice_is_shifted_once() {
    if !is_root("shifted twice") {
        return;
    }
    let bench = Bench::new(1);
    let top = bench.path("tree");
    tree::make(&top, &tree::special(20));
    let report = bench.ok(&format!("shift tree {MAPS}"));
    // Two names of one file; the file of somebody else has an ACL from its directory.
    assert_eq!(report["entries"], 30);
    assert_eq!(report["changed"], 29);
    let once = tree::facts(&top);
    // All that is there is where it was to go, so whose it was can't be told.
    let (kind, said) = bench.fails(&format!("shift tree {MAPS}"));
    assert_eq!(kind, "invalid");
    assert!(said.contains("has ids of the range it would be moved to (owner 3000000000"), "{said}");
    assert_eq!(tree::facts(&top), once);
}

#[test]
fn capabilities_still_work_for_the_container() {
    if !skip::can_run("capabilities after a shift", &["setcap", "unshare", "setpriv"]) {
        return;
    }
    let bench = Bench::new(1);
    fs::set_permissions(bench.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(bench.path("tree")).unwrap();
    fs::set_permissions(bench.path("tree"), fs::Permissions::from_mode(0o755)).unwrap();
    let program = bench.path("tree/cat");
    fs::copy("/bin/cat", &program).unwrap();
    let set = Command::new("setcap").arg("cap_net_raw+ep").arg(&program).status().unwrap();
    assert!(set.success());
    bench.ok(&format!("shift tree {MAPS}"));
    // A user of the namespace whose root is the new owner runs it.
    let script = format!(
        "unshare --user sleep 60 & child=$!; sleep 0.3; \
         echo 0 3000000000 65536 > /proc/$child/uid_map; echo 0 3000000000 65536 > /proc/$child/gid_map; \
         nsenter --user --target $child setpriv --reuid 1 --regid 1 --clear-groups {} /proc/self/status | grep CapEff; \
         kill $child",
        program.display()
    );
    let said = Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.split_whitespace().last(), Some("0000000000002000"), "{said}");
}

#[test]
fn mounts_in_the_tree_are_left_alone() {
    if !is_root("mounts in a shifted tree") {
        return;
    }
    let bench = Bench::new(1);
    fs::create_dir_all(bench.path("tree/proc")).unwrap();
    fs::create_dir_all(bench.path("tree/same")).unwrap();
    let outside = bench.path("outside");
    tree::make(&outside, &tree::special(3));
    let before = tree::facts(&outside);
    let same = bench.path("tree/same");
    rustix::mount::mount_bind(&outside, &same).unwrap();
    let proc = bench.path("tree/proc");
    rustix::mount::mount("proc", &proc, "proc", rustix::mount::MountFlags::empty(), None).unwrap();
    let report = bench.ok(&format!("shift tree {MAPS}"));
    assert_eq!((&report["entries"], &report["mounts"]), (&1.into(), &2.into()));
    assert_eq!(tree::facts(&outside), before);
}

#[test]
fn impossible_shifts_are_refused() {
    if !is_root("impossible shifts") {
        return;
    }
    let bench = Bench::new(1);
    fs::create_dir(bench.path("tree")).unwrap();
    for (line, kind, want) in [
        ("shift tree", "invalid", "--uid-map and --gid-map are needed"),
        ("shift tree --uid-map 0:1:1", "invalid", "both --uid-map and --gid-map are needed"),
        ("shift none --uid-map 0:9:1 --gid-map 0:9:1", "failed", "find "),
        (
            "shift tree --uid-map 0:9:10 --gid-map 0:100:10",
            "invalid",
            "user ids from 0 on would become ids from 9 on",
        ),
        ("shift tree --uid-map 5:9:1 --gid-map 5:9:1", "invalid", "the id maps leave out id 0"),
    ] {
        let said = bench.fails(line);
        assert!(said.0 == kind && said.1.contains(want), "{line}: {said:?}");
    }
}
