//! A container's life: known, changed, stopped, started, removed; after a crash and a reboot.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use guardian_tests::skip;
use serde_json::{Value, json};

use super::tree;
use super::{Bench, is_root};

#[test]
fn a_container_keeps_its_ids_until_it_is_removed() {
    if !is_root("idmgr register") {
        return;
    }
    let bench = Bench::new(2);
    let first = bench.ok("register a --policy exclusive");
    assert_eq!((&first["state"], &first["uid"][0]["hostID"]), (&json!("live"), &json!(100_000)));
    let said = bench.fails("register a --policy exclusive");
    assert_eq!(said, ("exists".into(), "container 'a' is registered already".into()));
    assert_eq!(bench.ok("unregister a"), json!({"state": "stopped", "synced": []}));
    assert_eq!(bench.ok("register b --policy exclusive")["uid"][0]["hostID"], 165_536);
    assert_eq!(bench.ok("register a --policy exclusive")["uid"], first["uid"]);
    let said = bench.fails("register c --policy exclusive");
    assert_eq!(said.0, "exhausted");
    assert_eq!(bench.ok("list")["containers"], json!({"a": "live", "b": "live"}));
    assert_eq!(bench.ok("remove a"), json!({"removed": true}));
    assert_eq!(bench.ok("remove a"), json!({"removed": false}));
    assert_eq!(bench.ok("register c --policy exclusive")["uid"], first["uid"]);
    assert_eq!(bench.ok("register d --policy identity")["uid"][0]["hostID"], 0);
}

#[test]
fn unknown_containers_and_wrong_states_are_told() {
    if !is_root("idmgr's errors") {
        return;
    }
    let bench = Bench::new(1);
    fs::create_dir(bench.path("s")).unwrap();
    let unknown = ("not_found".to_owned(), "container 'x' is not registered".to_owned());
    for line in [
        "show x",
        "update x",
        "pause x",
        "resume x",
        "unregister x",
        "volume sync x",
        "mount prepare x --src s --dst /s",
        "mount release x",
        "rootfs release x",
        "volume create x --kind docker",
    ] {
        assert_eq!(bench.fails(line), unknown, "{line}");
    }
    bench.ok("register a --uid-map 0:5:10 --gid-map 0:6:10");
    bench.ok("unregister a");
    for line in [
        "update a",
        "pause a",
        "resume a",
        "mount prepare a --src s --dst /s",
        "volume create a --kind docker",
    ] {
        let (kind, said) = bench.fails(line);
        assert!(kind == "exists" && said.starts_with("container 'a' is stopped"), "{line}: {said}");
    }
    let (kind, said) = bench.fails("register b --uid-map 0:5:10");
    assert_eq!(
        (kind.as_str(), said.as_str()),
        ("invalid", "both --uid-map and --gid-map are needed")
    );
    assert_eq!(bench.fails("register b --pid 2147483647").0, "not_found");
    assert_eq!(bench.fails("volume create a --kind custom").0, "exists");
    bench.ok("register a");
    for place in ["..", "/", "/a/../b"] {
        let (kind, _) = bench.fails(&format!("volume create a --kind custom --dst {place}"));
        assert_eq!(kind, "invalid", "{place}");
    }
    assert_eq!(bench.fails("volume create a --kind custom").1, "a custom volume needs --dst");
    // Failures leave nobody behind.
    assert_eq!(fs::read_dir(bench.path("state/containers")).unwrap().count(), 1);
    let said = bench.run(&["register", "a/b"]);
    assert_eq!(said.status.code(), Some(2));
}

#[test]
fn an_entry_that_is_held_too_long_is_an_error() {
    if !is_root("idmgr's locks") {
        return;
    }
    let bench = Bench::new(1);
    bench.ok("register a --policy exclusive");
    let lock = fs::File::open(bench.path("state/containers/a/lock")).unwrap();
    lock.lock().unwrap();
    let (kind, said) = bench.fails("unregister a --lock-timeout 0");
    assert_eq!(kind, "unavailable");
    assert!(said.contains("state/containers/a/lock is held by process "), "{said}");
    // Others do not wait for it.
    bench.ok("register b --uid-map 0:5:10 --gid-map 0:6:10");
    drop(lock);
    bench.ok("unregister a");
}

/// A process in a user namespace and a network namespace of its own.
struct Container(Child);

impl Container {
    fn start() -> Self {
        let child =
            Command::new("unshare").args(["--user", "--net", "sleep", "1000"]).spawn().unwrap();
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let path = format!("/proc/{}/ns/net", child.id());
        while fs::read_link(&path).is_ok_and(|there| there == own) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Self(child)
    }

    fn namespace(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.0.id())
    }

    fn map(&self, line: &str) {
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{map}", self.0.id()), line).unwrap();
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn who_shares_the_network_shares_the_users() {
    if !skip::can_run("idmgr and shared network namespaces", &["unshare"]) {
        return;
    }
    let bench = Bench::new(3);
    let (one, other) = (Container::start(), Container::start());
    let (net, user) = (one.namespace("net"), one.namespace("user"));
    let first = bench.ok(&format!("register a --policy exclusive --netns {net} --userns {user}"));
    // The same namespace by another path.
    fs::write(bench.path("net"), "").unwrap();
    rustix::mount::mount_bind(&net, bench.path("net")).unwrap();
    let second = bench.ok("register b --policy exclusive --netns net");
    assert_eq!((&second["uid"], &second["userns"]), (&first["uid"], &json!(user)));
    assert_eq!(second["shares_with"], "a");
    assert_eq!(bench.ok("list")["blocks"]["free"], 2);
    let said = bench.fails("register c --netns net --uid-map 0:5:10 --gid-map 0:5:10");
    let want = "'c' shares the network namespace of 'a' and so needs its user namespace";
    assert_eq!(said, ("invalid".into(), want.into()));
    let said = bench.fails(&format!("register c --netns net --userns {}", other.namespace("user")));
    assert_eq!(said.1, want);
    // The ids are free when both are gone, whoever had them first.
    bench.ok("remove a");
    assert_eq!(bench.ok("list")["blocks"]["free"], 2);
    let third = bench.ok("register c --policy exclusive");
    assert_ne!(third["uid"], first["uid"]);
    let (kind, said) = bench.fails("update c --netns net");
    assert_eq!(kind, "invalid");
    assert!(
        said.starts_with("'c' shares the network namespace of 'b' but has other id maps"),
        "{said}"
    );
    bench.ok("remove b");
    assert_eq!(bench.ok("list")["blocks"]["free"], 2);
}

#[test]
fn ids_that_somebody_uses_are_passed_over() {
    if !skip::can_run("idmgr allocate --verify", &["unshare"]) {
        return;
    }
    let bench = Bench::new(3);
    // Not where other tests or containers of this host may be.
    bench.ranges(&format!("root:3300000000:{}\n", 3 * 65_536));
    let foreign = Container::start();
    foreign.map("0 3300000005 10");
    let start = |line: &str| bench.ok(line)["uid"][0]["hostID"].as_u64().unwrap();
    assert_eq!(start("allocate a --policy exclusive --verify"), 3_300_065_536);
    assert_eq!(start("allocate b --policy exclusive"), 3_300_131_072);
    let conflicts = bench.ok("verify")["conflicts"].clone();
    let want =
        json!([{"start": 3_300_000_005_u64, "end": 3_300_000_015_u64, "pid": foreign.0.id()}]);
    assert_eq!(conflicts, want);
    assert_eq!(bench.fails("allocate c --policy exclusive --verify").0, "exhausted");
    drop(foreign);
    assert_eq!(start("allocate c --policy exclusive --verify"), 3_300_000_000);
    assert_eq!(bench.ok("verify")["conflicts"], json!([]));
}

#[test]
fn a_container_that_died_is_stopped_and_goes_on_later() {
    if !is_root("idmgr recover") {
        return;
    }
    let bench = Bench::new(2);
    let top = bench.path("s");
    tree::make(&top, &tree::special(2));
    let before = tree::facts(&top);
    let mut process = Command::new("sleep").arg("1000").spawn().unwrap();
    bench.ok(&format!("register a --policy exclusive --pid {}", process.id()));
    bench.ok("mount prepare a --src s --dst /s --strategy chown");
    bench.ok("volume create a --kind docker");
    fs::write(bench.path("state/volumes/a/%2Fvar%2Flib%2Fdocker/data/kept"), "x").unwrap();
    assert_eq!(bench.ok("recover"), json!({"done": [], "complete": true}));
    process.kill().unwrap();
    process.wait().unwrap();
    let done = bench.ok("recover")["done"].clone();
    assert_eq!(done, json!([{"of": "a", "action": "stopped"}]));
    assert_eq!(tree::facts(&top), before);
    assert_eq!(bench.mounts(), Vec::<PathBuf>::new());
    bench.ok("register a --policy exclusive");
    bench.ok("volume create a --kind docker");
    let kept = fs::read_to_string(bench.path("state/volumes/a/%2Fvar%2Flib%2Fdocker/data/kept"));
    assert_eq!(kept.unwrap(), "x");
}

/// The boot id in a record is another one than this boot's, and mounts are gone.
fn reboot(bench: &Bench, id: &str) {
    let path = bench.path(&format!("state/containers/{id}/state.json"));
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record["boot_id"] = json!("of-before");
    fs::write(&path, record.to_string()).unwrap();
    for point in bench.mounts().iter().rev() {
        rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    let _ = fs::remove_dir_all(bench.path("run"));
}

#[test]
fn after_a_reboot_everything_is_in_order_again() {
    if !is_root("idmgr after a reboot") {
        return;
    }
    let bench = Bench::new(2);
    let top = bench.path("s");
    tree::make(&top, &tree::special(2));
    let before = tree::facts(&top);
    fs::create_dir_all(bench.path("rootfs")).unwrap();
    let prepare = || {
        let first = bench.ok("register a --policy exclusive --rootfs rootfs");
        bench.ok("mount prepare a --src s --dst /s --strategy chown");
        bench.ok("mount prepare a --src rootfs --dst /r");
        bench.ok("volume create a --kind k3s");
        fs::write(bench.path("state/volumes/a/%2Fvar%2Flib%2Francher%2Fk3s/data/kept"), "x")
            .unwrap();
        first
    };
    let first = prepare();
    reboot(&bench, "a");
    assert_eq!(bench.ok("recover")["complete"], true);
    assert_eq!(tree::facts(&top), before);
    // The root filesystem was not mounted, so nothing was written into its mount point.
    assert_eq!(fs::read_dir(bench.path("rootfs")).unwrap().count(), 0);
    assert_eq!(prepare()["uid"], first["uid"]);
    // Without `recover`, the next start does it.
    reboot(&bench, "a");
    let (kind, _) = bench.fails("mount prepare a --src s --dst /t");
    assert_eq!(kind, "exists");
    assert_eq!(prepare()["uid"], first["uid"]);
    bench.ok("remove a");
    assert_eq!(tree::facts(&top), before);
    assert_eq!(bench.mounts(), Vec::<PathBuf>::new());
}

#[test]
fn a_record_that_can_t_be_read_is_put_aside_alone() {
    if !is_root("idmgr with a broken record") {
        return;
    }
    let bench = Bench::new(3);
    fs::create_dir(bench.path("s")).unwrap();
    for id in ["a", "b"] {
        bench.ok(&format!("register {id} --policy exclusive"));
        bench.ok(&format!("mount prepare {id} --src s --dst /s"));
    }
    bench.ok("volume create a --kind docker");
    fs::write(bench.path("state/containers/a/state.json"), "{").unwrap();
    let (_, said) = bench.fails("unregister a");
    assert!(said.contains("state/containers/a/state.json"), "{said}");
    let report = bench.ok("recover");
    assert_eq!(report["done"][0], json!({"of": "a", "action": "unreadable, put aside"}));
    assert_eq!(report["complete"], true);
    assert_eq!(bench.mounts().len(), 1);
    assert_eq!(bench.ok("list")["containers"], json!({"b": "live"}));
    // Its ids and its volume are nobody's to take.
    assert_eq!(bench.ok("list")["blocks"]["free"], 1);
    assert_eq!(bench.ok("gc --older 0")["removed"], json!([]));
    assert!(bench.path("state/volumes/a").exists());
    bench.ok("remove a");
    assert_eq!(bench.ok("list")["blocks"]["free"], 2);
    assert_eq!(bench.ok("gc --older 0")["removed"].as_array().unwrap().len(), 1);
    assert!(!bench.path("state/volumes/a").exists());
}

#[test]
fn volumes_of_nobody_are_collected_when_they_are_old() {
    if !is_root("idmgr gc") {
        return;
    }
    let bench = Bench::new(1);
    bench.ok("register a");
    bench.ok("volume create a --kind docker");
    fs::create_dir_all(bench.path("state/volumes/gone/x/y")).unwrap();
    assert_eq!(bench.ok("gc")["removed"], json!([]));
    let removed = bench.ok("gc --older 0")["removed"].clone();
    assert_eq!(removed, json!([bench.path("state/volumes/gone")]));
    assert!(bench.path("state/volumes/a").exists());
}

#[test]
fn without_privileges_there_is_one_clear_error() {
    if !skip::can_run("idmgr without privileges", &["setpriv"]) {
        return;
    }
    let bench = Bench::new(1);
    fs::create_dir(bench.path("s")).unwrap();
    fs::set_permissions(bench.0.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = bench.path("idmgr");
    fs::copy(bench.command(&[]).get_program(), &program).unwrap();
    let run = |line: &str| {
        let command = bench.command(&[]);
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"])
            .arg(&program)
            .args(command.get_args())
            .args(line.split(' '))
            .current_dir(bench.0.path())
            .output();
        output.unwrap()
    };
    assert!(run("register a --policy exclusive").status.success());
    let (kind, said) = super::failed(&run("mount prepare a --src s --dst /s --strategy idmap"));
    assert_eq!(kind, "failed");
    assert!(said.ends_with("Operation not permitted (os error 1)"), "{said}");
    assert_eq!(fs::metadata(bench.path("s")).unwrap().uid(), 0);
    let (_, said) = super::failed(&run("mount prepare a --src s --dst /s --strategy chown"));
    assert!(said.contains("chown: "), "{said}");
    assert!(run("unregister a").status.success());
    assert!(run("remove a").status.success());
}
