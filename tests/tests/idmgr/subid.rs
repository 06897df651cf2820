//! `init`: a range in the files that others write, too.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use serde_json::json;

use super::{Bench, ok};

fn init(bench: &Bench, size: &str) -> std::process::Output {
    let gid = bench.path("subgid").display().to_string();
    let defs = bench.path("defs").display().to_string();
    bench.run(&["init", "--size", size, "--subgid", &gid, "--login-defs", &defs])
}

#[test]
fn a_range_is_given_once_and_other_lines_are_kept() {
    let bench = Bench::new(0);
    fs::write(bench.path("defs"), "SUB_UID_MIN 200000\nSUB_GID_MAX 999999\n").unwrap();
    let uid = "# kept\nbob:200000:65536\n\nbroken line\nalice:300000:7";
    bench.ranges(uid);
    fs::set_permissions(bench.path("subid"), fs::Permissions::from_mode(0o640)).unwrap();
    let answer = ok(init(&bench, "65536"));
    let range = json!([{"start": 300_007, "size": 65_536}]);
    assert_eq!(answer, json!({"ranges": range, "changed": true}));
    let text = fs::read_to_string(bench.path("subid")).unwrap();
    assert_eq!(text, format!("{uid}\nroot:300007:65536\n"));
    assert_eq!(fs::metadata(bench.path("subid")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read_to_string(bench.path("subgid")).unwrap(), "root:300007:65536\n");
    assert_eq!(ok(init(&bench, "65536")), json!({"ranges": range, "changed": false}));
    assert_eq!(fs::read_to_string(bench.path("subid")).unwrap(), text);
    // More than there is: a second range beside the first.
    assert_eq!(ok(init(&bench, "131072"))["ranges"][1]["start"], 365_543);
    let gid = bench.path("subgid").display().to_string();
    let allocate = ["allocate", "a", "--policy", "exclusive", "--size", "131072", "--subgid", &gid];
    assert_eq!(ok(bench.run(&allocate))["uid"][0]["hostID"], 300_007);
    let (kind, said) = super::failed(&init(&bench, "900000"));
    assert_eq!(kind, "exhausted");
    assert!(said.starts_with("no 900000 ids in a row left in "), "{said}");
    let left = fs::read_dir(bench.0.path()).unwrap().count();
    assert_eq!(left, 4, "defs, subid, subgid, state");
}

#[test]
fn what_is_broken_is_named_and_left_alone() {
    let bench = Bench::new(0);
    bench.ranges("");
    fs::write(bench.path("defs"), "").unwrap();
    bench.ranges("bob:1:2\nroot:x:1\n");
    let (kind, said) = super::failed(&init(&bench, "65536"));
    assert_eq!(kind, "invalid");
    assert!(said.ends_with("subid line 2: 'root:x:1' is not OWNER:START:COUNT"), "{said}");
    assert_eq!(fs::read_to_string(bench.path("subid")).unwrap(), "bob:1:2\nroot:x:1\n");
    bench.ranges("");
    fs::write(bench.path("defs"), "SUB_UID_MIN many\n").unwrap();
    assert_eq!(super::failed(&init(&bench, "65536")).1, "login.defs: SUB_UID_MIN is not a number");
    fs::write(bench.path("defs"), "SUB_UID_MIN 9\nSUB_UID_MAX 5\n").unwrap();
    let (kind, said) = super::failed(&init(&bench, "65536"));
    assert_eq!(kind, "invalid", "{said}");
}

/// useradd(8) holds `FILE.lock` with its pid in it while it writes.
#[test]
fn the_lock_of_shadow_s_programs_is_respected() {
    let bench = Bench::new(0);
    bench.ranges("");
    fs::write(bench.path("defs"), "").unwrap();
    fs::write(bench.path("subid.lock"), "999999999").unwrap();
    ok(init(&bench, "65536"));
    assert!(!bench.path("subid.lock").exists());
    fs::write(bench.path("subid.lock"), std::process::id().to_string()).unwrap();
    let gid = bench.path("subgid").display().to_string();
    let impatient = ["init", "--lock-timeout", "0", "--size", "131072", "--subgid", &gid];
    let (kind, said) = super::failed(&bench.run(&impatient));
    assert_eq!(kind, "unavailable");
    assert!(
        said.ends_with(&format!("subid.lock is held by process {}", std::process::id())),
        "{said}"
    );
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| init(&bench, "131072"));
        std::thread::sleep(Duration::from_millis(200));
        fs::remove_file(bench.path("subid.lock")).unwrap();
        assert_eq!(ok(waiting.join().unwrap())["changed"], true);
    });
}

#[test]
fn racing_processes_agree_on_one_range() {
    let bench = Bench::new(0);
    bench.ranges("");
    fs::write(bench.path("defs"), "").unwrap();
    std::thread::scope(|scope| {
        let racers: Vec<_> = (0..20).map(|_| scope.spawn(|| ok(init(&bench, "65536")))).collect();
        let answers: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
        assert_eq!(answers.iter().filter(|answer| answer["changed"] == true).count(), 1);
    });
    assert_eq!(fs::read_to_string(bench.path("subgid")).unwrap(), "root:100000:65536\n");
}
