//! Sources made ready for containers: shown with other owners, shared, claimed, given back.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use guardian_tests::skip;
use serde_json::{Value, json};

use super::tree::{self, Kind, Node};
use super::{Bench, failed, is_root, ok};

/// The first id of the first block.
const BASE: u32 = 100_000;

fn owner(path: &Path) -> (u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.uid(), stat.gid())
}

fn source(answer: &Value) -> PathBuf {
    PathBuf::from(answer["source"].as_str().unwrap())
}

#[test]
fn an_id_mapped_source_belongs_to_the_container_and_is_not_changed() {
    if !skip::can_run("idmgr mount prepare", &["setpriv"]) {
        return;
    }
    let bench = Bench::new(4);
    let top = bench.path("s");
    let mut nodes = tree::special(5);
    nodes.push(Node { mode: 0o670, acl: vec![(true, 77)], ..Node::file() });
    tree::make(&top, &nodes);
    let before = tree::facts(&top);
    bench.ok("register a --policy exclusive");
    let answer = bench.ok("mount prepare a --src s --dst /s");
    assert_eq!(answer["strategy"], "idmap");
    assert_eq!(answer["options"], json!(["bind", "rw"]));
    let shown = source(&answer);
    assert_eq!(owner(&shown.join("n0")), (BASE, BASE));
    assert_eq!(owner(&shown.join("n3")), (BASE + 1000, BASE + 1001));
    for directory in ["", "run", "run/marks"] {
        fs::set_permissions(bench.path(directory), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let can = |user: u32, words: &[&str]| {
        let user = (BASE + user).to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).args(words);
        command.current_dir(&shown).stderr(Stdio::null()).status().unwrap().success()
    };
    // An ACL counts for the container's user, and for nobody else.
    let reads = |user: u32| can(user, &["grep", "-q", "14", "n4/n14"]);
    assert!(reads(77) && !reads(78));
    // What the container's root makes there is root's outside.
    fs::write(shown.join("made"), "x").unwrap_err();
    assert!(can(0, &["touch", "made"]));
    assert_eq!(owner(&top.join("made")), (0, 0));
    fs::remove_file(top.join("made")).unwrap();
    assert_eq!(bench.ok("mount release a --dst /s")["released"], json!(["/s"]));
    assert_eq!(bench.ok("mount release a --dst /s")["released"], json!([]));
    let mut after = tree::facts(&top);
    // The file that was made and removed has changed the directory's time.
    after.insert(PathBuf::new(), before[Path::new("")].clone());
    assert_eq!(after, before);
    assert_eq!(bench.mounts(), Vec::<PathBuf>::new());
}

#[test]
fn marks_are_shared_and_go_with_the_last_who_has_them() {
    if !is_root("idmgr marks") {
        return;
    }
    let bench = Bench::new(4);
    fs::create_dir(bench.path("s")).unwrap();
    symlink("s", bench.path("link")).unwrap();
    for id in ["a", "b"] {
        bench.ok(&format!("register {id} --policy shared"));
    }
    bench.ok("register other --policy exclusive");
    let one = bench.ok("mount prepare a --src s --dst /s");
    // Mounted again, by another way, for another place, by another container: one mark.
    assert_eq!(bench.ok("mount prepare a --src s --dst /s"), one);
    assert_eq!(source(&bench.ok("mount prepare a --src link --dst /t")), source(&one));
    assert_eq!(source(&bench.ok("mount prepare b --src s --dst /s")), source(&one));
    let other = source(&bench.ok("mount prepare other --src s --dst /s"));
    assert_ne!(other, source(&one));
    assert_eq!(bench.mounts().len(), 2);
    bench.ok("mount release other");
    bench.ok("mount release a --dst /s");
    bench.ok("mount release a --dst /s");
    bench.ok("unregister b");
    bench.ok("unregister b");
    assert_eq!(bench.mounts(), [source(&one)]);
    bench.ok("mount release a --dst /t");
    assert_eq!(bench.mounts(), Vec::<PathBuf>::new());
    assert_eq!(fs::read_dir(bench.path("run/marks")).unwrap().count(), 0);
}

#[test]
fn claims_that_contradict_each_other_are_errors() {
    if !is_root("idmgr claims") {
        return;
    }
    let bench = Bench::new(4);
    fs::create_dir(bench.path("s")).unwrap();
    let path = bench.path("s").display().to_string();
    for id in ["a", "b"] {
        bench.ok(&format!("register {id} --policy exclusive"));
    }
    let in_use = |line: &str, more: &str| {
        let want = format!("{path} is in use by 'a'{more}");
        assert_eq!(bench.fails(line), ("exists".into(), want), "{line}");
    };
    bench.ok("mount prepare a --src s --dst /s --exclusive");
    in_use("mount prepare b --src s --dst /s", "");
    in_use("shift s --uid-map 0:9:1 --gid-map 0:9:1", "");
    bench.ok("mount release a");
    // A claim that is given up leaves nothing that a second run could trip over.
    bench.ok("mount prepare a --src s --dst /s --exclusive");
    bench.ok("mount release a");
    bench.ok("mount prepare a --src s --dst /s");
    in_use("mount prepare b --src s --dst /s --exclusive", "");
    in_use("mount prepare b --src s --dst /s --strategy chown", " with other owners");
    bench.ok("mount prepare b --src s --dst /s");
    let (kind, said) = bench.fails("mount prepare a --src . --dst /s");
    assert_eq!(kind, "exists");
    assert!(said.ends_with("/s already"), "{said}");
}

/// sysbox's own cases: links, hard links, ACLs, and owners nobody expects, over several lives.
#[test]
fn changed_owners_survive_every_turn_of_a_container_s_life() {
    if !is_root("idmgr chown") {
        return;
    }
    let bench = Bench::new(4);
    let top = bench.path("s");
    let mut nodes = tree::special(3);
    nodes.push(Node { uid: 500_000, gid: 600_000, ..Node::file() });
    nodes.push(Node { kind: Kind::Symlink, ..Node::file() });
    tree::make(&top, &nodes);
    symlink("/no/such", top.join("dangling")).unwrap();
    let before = tree::facts(&top);
    for id in ["a", "b"] {
        for _ in 0..2 {
            bench.ok(&format!("register {id} --policy exclusive"));
            let answer = bench
                .ok(&format!("mount prepare {id} --src s --dst /s --strategy chown --exclusive"));
            assert_eq!(source(&answer), top);
            let start = answer_start(&bench, id);
            assert_eq!(owner(&top.join("dangling")), (start, start));
            assert_eq!(owner(&top.join("n3")), (start + 1000, start + 1001));
            assert_eq!(owner(&top.join("n4/n12")), (500_000, 600_000));
            bench.ok(&format!("unregister {id}"));
            assert_eq!(tree::facts(&top), before);
        }
        bench.ok(&format!("remove {id}"));
    }
}

fn answer_start(bench: &Bench, id: &str) -> u32 {
    let start = bench.ok(&format!("show {id}"))["maps"]["uid"][0]["hostID"].as_u64().unwrap();
    u32::try_from(start).unwrap()
}

#[test]
fn what_is_the_container_s_already_stays_so() {
    if !is_root("idmgr chown of what is owned") {
        return;
    }
    let bench = Bench::new(4);
    fs::create_dir(bench.path("s")).unwrap();
    fs::write(bench.path("s/f"), "").unwrap();
    for path in ["s", "s/f"] {
        lchown(bench.path(path), Some(BASE), Some(BASE + 7)).unwrap();
    }
    bench.ok("register a --policy exclusive");
    bench.ok("mount prepare a --src s --dst /s --strategy chown");
    bench.ok("unregister a");
    assert_eq!(owner(&bench.path("s/f")), (BASE, BASE + 7));
    // A mix can't be told apart afterwards, so it is refused, and stays as it was.
    lchown(bench.path("s"), Some(0), Some(0)).unwrap();
    bench.ok("register a --policy exclusive");
    let (kind, said) = bench.fails("mount prepare a --src s --dst /s --strategy chown");
    assert_eq!(kind, "invalid");
    assert!(
        said.contains("s/f has ids of the range it would be moved to (owner 100000, group 100007)"),
        "{said}"
    );
    assert_eq!(owner(&bench.path("s")), (0, 0));
    assert_eq!(bench.ok("show a")["mounts"], json!([]));
}

#[test]
fn any_owner_can_be_the_container_s_root() {
    if !is_root("idmgr mount prepare --base") {
        return;
    }
    let bench = Bench::new(4);
    fs::create_dir(bench.path("s")).unwrap();
    fs::write(bench.path("s/f"), "").unwrap();
    lchown(bench.path("s"), Some(500_000), Some(600_000)).unwrap();
    lchown(bench.path("s/f"), Some(500_001), Some(600_002)).unwrap();
    bench.ok("register a --policy exclusive");
    bench.ok("register gdn");
    let shown = source(&bench.ok("mount prepare a --src s --dst /s --base owner"));
    assert_eq!(owner(&shown.join("f")), (BASE + 1, BASE + 2));
    let shown = source(&bench.ok("mount prepare gdn --src s --dst /s --base 500000:600000"));
    assert_eq!((owner(&shown), owner(&shown.join("f"))), ((4_294_967_294, 4_294_967_294), (1, 2)));
    let (kind, _) = bench.fails("mount prepare a --src s --dst /x --base 4294967295:0");
    assert_eq!(kind, "invalid");
}

/// Tells whether this kernel maps tmpfs, which it does from 6.3 on.
fn maps_tmpfs(bench: &Bench) -> bool {
    let place = bench.path("tmpfs");
    fs::create_dir(&place).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &place, "tmpfs", flags, None).unwrap();
    let report = bench.ok(&format!("probe --dir {}", place.display()));
    rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH).unwrap();
    let maps = report["idmap"][place.to_str().unwrap()]["ok"].as_bool().unwrap();
    if !maps {
        skip::note("id-mapped views of tmpfs", "this kernel has none");
    }
    maps
}

#[test]
fn files_that_are_mounts_themselves() {
    if !is_root("idmgr mounts of files") {
        return;
    }
    let bench = Bench::new(4);
    for directory in ["t", "ext"] {
        fs::create_dir(bench.path(directory)).unwrap();
    }
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", bench.path("t"), "tmpfs", flags, None).unwrap();
    for file in ["t/file", "ext/file", "t-mount", "ext-mount"] {
        fs::write(bench.path(file), file).unwrap();
    }
    for (file, place) in [("t/file", "t-mount"), ("ext/file", "ext-mount")] {
        rustix::mount::mount_bind(bench.path(file), bench.path(place)).unwrap();
    }
    bench.ok("register a --policy exclusive");
    let maps_tmpfs = maps_tmpfs(&bench);
    for (place, text) in [("t-mount", "t/file"), ("ext-mount", "ext/file")] {
        let owned = if text == "ext/file" || maps_tmpfs { (BASE, BASE) } else { (0, 0) };
        let shown = source(&bench.ok(&format!("mount prepare a --src {place} --dst /{place}")));
        assert_eq!((owner(&shown), fs::read_to_string(&shown).unwrap()), (owned, text.into()));
    }
    // The kernel's own filesystems can't be mapped: shown as they are, or refused.
    let answer = bench.ok("mount prepare a --src /dev/null --dst /dev/x");
    assert_eq!((source(&answer), &answer["strategy"]), ("/dev/null".into(), &json!("none")));
    let (kind, said) = bench.fails("mount prepare a --src /proc --dst /p --strategy idmap");
    assert_eq!(kind, "unsupported");
    assert!(said.starts_with("/proc can't be id-mapped"), "{said}");
    bench.ok("remove a");
    assert_eq!(bench.mounts().len(), 3);
}

#[test]
fn mounts_below_follow_one_by_one() {
    if !is_root("idmgr mount prepare --recursive") {
        return;
    }
    let bench = Bench::new(4);
    for directory in ["s", "s/proc", "s/tmp fs"] {
        fs::create_dir(bench.path(directory)).unwrap();
    }
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("proc", bench.path("s/proc"), "proc", flags, None).unwrap();
    rustix::mount::mount("tmpfs", bench.path("s/tmp fs"), "tmpfs", flags, None).unwrap();
    fs::create_dir(bench.path("s/tmp fs/inner")).unwrap();
    rustix::mount::mount("tmpfs", bench.path("s/tmp fs/inner"), "tmpfs", flags, None).unwrap();
    fs::write(bench.path("s/tmp fs/inner/f"), "").unwrap();
    bench.ok("register a --policy exclusive");
    let answer = bench.ok("mount prepare a --src s --dst /s --recursive");
    assert_eq!(answer["options"], json!(["rbind", "rw"]));
    let shown = source(&answer);
    let owned = if maps_tmpfs(&bench) { (BASE, BASE) } else { (0, 0) };
    assert_eq!(owner(&shown.join("tmp fs/inner/f")), owned);
    assert_eq!(owner(&shown.join("proc/version")), (0, 0));
    let flat = source(&bench.ok("mount prepare a --src s --dst /t"));
    assert!(!flat.join("tmp fs/inner").exists() && !flat.join("proc/version").exists());
    bench.ok("mount release a");
    assert_eq!(bench.mounts().len(), 3);
    assert!(bench.path("s/tmp fs/inner/f").exists());
}

/// A view that the server opens and its caller mounts where the caller lives, and nobody else sees.
#[test]
fn a_view_is_handed_over_as_descriptors() {
    if !skip::can_run("idmgr attach through the server", &["unshare"]) {
        return;
    }
    let bench = Bench::new(1);
    for directory in ["s", "s/below", "d"] {
        fs::create_dir(bench.path(directory)).unwrap();
    }
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", bench.path("s/below"), "tmpfs", flags, None).unwrap();
    let socket = bench.path("run/idmgr.sock");
    let socket = socket.to_str().unwrap();
    let _server = bench.serve(socket);
    let attach = ["attach", "s", "d", "--recursive", "--uid-map", "0:7:9", "--gid-map", "0:8:9"];
    let call = bench.command(&[&["call", "--socket", socket][..], &attach].concat());
    let mut private = Command::new("unshare");
    private.arg("-m").args(["sh", "-c", "\"$@\" && stat -c %u:%g d d/below", "x"]);
    private.arg(call.get_program()).args(call.get_args()).current_dir(bench.0.path());
    let output = private.stderr(Stdio::inherit()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    let maps_tmpfs = maps_tmpfs(&bench);
    let below = json!({"path": "below", "mapped": maps_tmpfs});
    let shown = json!({"attached": [{"path": "", "mapped": true}, below]});
    let owned = if maps_tmpfs { (7, 8) } else { (0, 0) };
    assert_eq!(serde_json::from_str::<Value>(lines[0]).unwrap(), shown, "{said}");
    assert_eq!(lines[1..], ["7:8".to_owned(), format!("{}:{}", owned.0, owned.1)]);
    assert_eq!(bench.mounts(), [bench.path("s/below")]);
    // Without the server it is the caller's own mount namespace all the same.
    let mut direct = bench.command(&attach);
    assert_eq!(ok(direct.current_dir(bench.0.path()).output().unwrap()), shown);
    assert_eq!(owner(&bench.path("d/below")), owned);
    // All other verbs are answered by the server itself.
    let call = |line: &str| bench.ok(&format!("call --socket {socket} {line}"));
    call("register a --policy exclusive --rootfs s");
    let prepared = call("mount prepare a --src d --dst /d --base owner --recursive");
    assert_eq!(call("show a")["mounts"][0]["shown"], prepared["source"]);
    assert_eq!(call("volume create a --kind buildkit")["mount"]["strategy"], "idmap");
    assert_eq!(call("pause a")["state"], "paused");
    assert_eq!(call("resume a")["state"], "live");
    assert_eq!(call("recover")["complete"], true);
    assert_eq!(call("remove a"), json!({"removed": true}));
    let refused = bench.run(&[
        "call",
        "--socket",
        socket,
        "attach",
        "/no/such",
        "/tmp",
        "--uid-map",
        "0:7:9",
        "--gid-map",
        "0:8:9",
    ]);
    assert!(failed(&refused).1.starts_with("find /no/such"), "{refused:?}");
}
