//! `idmgr`: real processes that race for ids, the server among them, and probes of this kernel.
//!
//! The probes and the server need root; without it they are skipped by name.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and says what it skipped")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use guardian_tests::patience::patience;

use serde_json::{Value, json};

#[path = "idmgr/cost.rs"]
mod cost;
#[path = "idmgr/kill.rs"]
mod kill;
#[path = "idmgr/life.rs"]
mod life;
#[path = "idmgr/mount.rs"]
mod mount;
#[path = "idmgr/overlay.rs"]
mod overlay;
#[path = "idmgr/shift.rs"]
mod shift;
#[path = "idmgr/subid.rs"]
mod subid;
#[path = "idmgr/tree.rs"]
mod tree;
#[path = "idmgr/volume.rs"]
mod volume;

/// A state directory and subordinate id files of their own.
struct Bench(tempfile::TempDir);

impl Bench {
    /// With `blocks` blocks of 64 K ids from 100000 on.
    fn new(blocks: u32) -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        bench.ranges(&format!("bob:1:2\nroot:100000:{}\n", blocks * 65_536));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn ranges(&self, text: &str) {
        fs::write(self.path("subid"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(guardian_tests::host::bin_dir().join("idmgr"));
        command.arg("--state-dir").arg(self.path("state"));
        command.arg("--run-dir").arg(self.path("run"));
        command.arg("--subuid").arg(self.path("subid"));
        // A flag of the caller comes last, and counts.
        if !arguments.contains(&"--subgid") {
            command.arg("--subgid").arg(self.path("subid"));
        }
        command.args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a verb that has to succeed, its words separated by blanks, below our directory.
    fn ok(&self, line: &str) -> Value {
        let words: Vec<&str> = line.split(' ').collect();
        ok(self.command(&words).current_dir(self.0.path()).output().unwrap())
    }

    /// Runs a verb that has to fail, and returns kind and message.
    fn fails(&self, line: &str) -> (String, String) {
        let words: Vec<&str> = line.split(' ').collect();
        failed(&self.command(&words).current_dir(self.0.path()).output().unwrap())
    }

    /// Lists what is mounted below our directory.
    fn mounts(&self) -> Vec<PathBuf> {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        points.filter(|point| point.starts_with(self.0.path())).collect()
    }

    fn allocate(&self, id: &str, policy: &str) -> Output {
        self.run(&["allocate", id, "--policy", policy])
    }

    /// Starts a server and waits until it answers.
    fn serve(&self, socket: &str) -> Server {
        let mut child = self.command(&["serve", "--socket", socket]).spawn().unwrap();
        let deadline = Instant::now() + patience(Duration::from_secs(10));
        while UnixStream::connect(socket).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "the server is gone");
            assert!(Instant::now() < deadline, "the server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Server(child)
    }
}

/// What a failed test has mounted must not stay.
impl Drop for Bench {
    fn drop(&mut self) {
        for point in self.mounts().iter().rev() {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// A server, killed when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_root(test: &str) -> bool {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        guardian_tests::skip::note(test, "needs root");
    }
    root
}

fn ok(output: Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn failed(output: &Output) -> (String, String) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let fault: Value = serde_json::from_slice(&output.stdout).unwrap();
    (fault["kind"].as_str().unwrap().into(), fault["message"].as_str().unwrap().into())
}

/// The first host id of an answer whose two maps are one block each, and the same.
fn start(answer: &Value) -> u64 {
    let start = answer["uid"][0]["hostID"].as_u64().unwrap();
    let map = json!([{"containerID": 0, "hostID": start, "size": 65_536}]);
    assert_eq!(*answer, json!({"uid": map, "gid": map, "reused": false}));
    start
}

#[test]
fn two_hundred_racing_processes_never_get_the_same_ids() {
    let bench = Bench::new(200);
    let children: Vec<Child> = (0..200)
        .map(|id| {
            bench
                .command(&["allocate", &format!("c{id}"), "--policy", "exclusive"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let starts: BTreeSet<u64> =
        children.into_iter().map(|child| start(&ok(child.wait_with_output().unwrap()))).collect();
    assert_eq!(starts.len(), 200);
    let on_grid = |start: &u64| (start - 100_000).is_multiple_of(65_536);
    assert!(starts.iter().all(on_grid), "{starts:?}");
    assert_eq!(ok(bench.run(&["list"]))["blocks"], json!({"total": 200, "free": 0}));
    let (kind, message) = failed(&bench.allocate("late", "exclusive"));
    assert_eq!(kind, "exhausted");
    assert!(message.ends_with("0 of 200 blocks of 65536 are free"), "{message}");
}

#[test]
fn killed_processes_leave_a_state_that_can_be_read() {
    let bench = Bench::new(300);
    for round in 0..200_u64 {
        let id = format!("c{}", round % 50);
        let arguments: &[&str] = match round % 3 {
            0 => &["release", &id],
            _ => &["allocate", &id, "--policy", "exclusive"],
        };
        let mut child = bench.command(arguments).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(round * 10));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let list = ok(bench.run(&["list"]));
    let holders = list["holders"].as_object().unwrap();
    let starts: BTreeSet<u64> =
        holders.values().map(|held| held["start"].as_u64().unwrap()).collect();
    assert_eq!(starts.len(), holders.len(), "{list}");
    assert_eq!(list["blocks"]["free"], 300 - holders.len());
    for id in holders.keys() {
        assert_eq!(ok(bench.run(&["release", id])), json!({"freed": true}));
    }
    assert_eq!(ok(bench.run(&["list"]))["blocks"]["free"], 300);
}

#[test]
fn answers_are_kept_until_release() {
    let bench = Bench::new(4);
    let exclusive = start(&ok(bench.allocate("a", "exclusive")));
    let shared = start(&ok(bench.allocate("s1", "shared")));
    assert_ne!(exclusive, shared);
    assert_eq!(start(&ok(bench.allocate("s2", "shared"))), shared);
    // Not even an edit of the files moves a container.
    bench.ranges("");
    assert_eq!(start(&ok(bench.allocate("a", "exclusive"))), exclusive);
    let (kind, message) = failed(&bench.allocate("a", "shared"));
    assert_eq!(
        (kind.as_str(), message.as_str()),
        ("exists", "'a' holds 65536 exclusive ids already")
    );
    assert_eq!(ok(bench.run(&["release", "a"])), json!({"freed": true}));
    assert_eq!(ok(bench.run(&["release", "a"])), json!({"freed": false}));
    assert_eq!(ok(bench.run(&["release", "never"])), json!({"freed": false}));
}

#[test]
fn gdn_s_map_is_the_default_and_needs_no_ranges() {
    let bench = Bench::new(1);
    fs::remove_file(bench.path("subid")).unwrap();
    let host = fs::read_to_string("/proc/self/uid_map").unwrap();
    let words: Vec<&str> = host.split_whitespace().collect();
    if words != ["0", "0", "4294967295"] {
        eprintln!("skipped gdn's map: this test runs in a user namespace");
        return;
    }
    let root = json!({"containerID": 0, "hostID": 4_294_967_294_u32, "size": 1});
    let others = json!({"containerID": 1, "hostID": 1, "size": 4_294_967_293_u32});
    let map = json!([root, others]);
    let want = json!({"uid": map, "gid": map, "reused": false});
    assert_eq!(ok(bench.run(&["allocate", "x"])), want);
    let flags = ["allocate", "x", "--uid-map-start", "5", "--gid-map-length", "9"];
    let answer = ok(bench.run(&flags));
    assert_eq!(answer["uid"][1]["hostID"], 5);
    assert_eq!(answer["gid"][1]["size"], 9);
    assert!(!bench.path("state").exists());
}

#[test]
fn what_is_wrong_with_the_files_is_told() {
    let bench = Bench::new(1);
    let file = bench.path("subid");
    let file = file.display();
    for (text, kind, want) in [
        ("", "unsupported", format!("{file} has no range of 'root'; ")),
        ("bob:1:65536\n", "unsupported", format!("{file} has no range of 'root'; ")),
        ("root:1\n", "invalid", format!("{file} line 1: 'root:1' is not OWNER:START:COUNT")),
        ("root:100000:65535\n", "exhausted", "no 65536 subordinate ids".into()),
    ] {
        bench.ranges(text);
        let said = failed(&bench.allocate("a", "exclusive"));
        assert!(said.0 == kind && said.1.starts_with(&want), "{said:?}");
    }
    fs::remove_file(bench.path("subid")).unwrap();
    let (_, said) = failed(&bench.allocate("a", "exclusive"));
    assert!(said.starts_with(&format!("{file} has no range")), "{said}");
    fs::write(bench.path("state/subid/state.json"), "{").unwrap();
    let (_, said) = failed(&bench.run(&["list"]));
    assert!(said.contains("state/subid/state.json"), "{said}");
    fs::write(bench.path("file"), "").unwrap();
    let state = bench.path("file");
    let output = bench.run(&["list", "--state-dir", state.to_str().unwrap()]);
    let (_, said) = failed(&output);
    assert!(said.starts_with(&format!("make directory {}", state.display())), "{said}");
    assert_eq!(bench.run(&["allocate", "a/b"]).status.code(), Some(2));
}

#[test]
fn a_server_and_commands_can_be_mixed() {
    if !is_root("idmgr serve") {
        return;
    }
    let bench = Bench::new(100);
    let path = bench.path("run/idmgr.sock");
    let socket = path.to_str().unwrap();
    let call = |verb: &[&str]| bench.run(&[&["call", "--socket", socket], verb].concat());

    let (kind, said) = failed(&call(&["list"]));
    assert_eq!(kind, "unavailable");
    assert!(said.starts_with(&format!("no server on {socket}")), "{said}");

    // What a dead server leaves is replaced.
    fs::create_dir(bench.path("run")).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let server = bench.serve(socket);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (kind, said) = failed(&bench.run(&["serve", "--socket", socket]));
    assert_eq!(kind, "exists");
    assert_eq!(said, format!("another server listens on {socket}"));

    let mut children = Vec::new();
    for id in 0..40 {
        let id = format!("c{id}");
        let verb = ["allocate", &id, "--policy", "exclusive"];
        let mut arguments = vec!["call", "--socket", socket];
        if id.len() == 2 {
            arguments.clear();
        }
        arguments.extend(verb);
        children.push(bench.command(&arguments).stdout(Stdio::piped()).spawn().unwrap());
    }
    let starts: BTreeSet<u64> =
        children.into_iter().map(|one| start(&ok(one.wait_with_output().unwrap()))).collect();
    assert_eq!(starts.len(), 40);
    assert_eq!(ok(call(&["list"])), ok(bench.run(&["list"])));
    assert_eq!(ok(call(&["release", "c7"])), json!({"freed": true}));
    let (kind, _) = failed(&call(&["allocate", "c1", "--policy", "shared"]));
    assert_eq!(kind, "exists");

    // Garbage, and a caller that says nothing and goes, cost the server nothing.
    UnixStream::connect(&path).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    drop(UnixStream::connect(&path).unwrap());
    assert_eq!(ok(call(&["list"]))["blocks"]["free"], 100 - 39);

    // Killed, it leaves its socket; the next one takes over the name and the state.
    drop(server);
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    let _server = bench.serve(socket);
    assert_eq!(ok(call(&["list"]))["blocks"]["free"], 100 - 39);
}

#[test]
fn a_server_removes_nothing_but_a_dead_socket() {
    let bench = Bench::new(1);
    let path = bench.path("precious");
    fs::write(&path, "x").unwrap();
    let (_, said) = failed(&bench.run(&["serve", "--socket", path.to_str().unwrap()]));
    assert_eq!(said, format!("{} is in the way, and no socket", path.display()));
    assert_eq!(fs::read_to_string(&path).unwrap(), "x");

    let living = bench.path("living");
    let _listener = UnixListener::bind(&living).unwrap();
    let (kind, _) = failed(&bench.run(&["serve", "--socket", living.to_str().unwrap()]));
    assert_eq!(kind, "exists");
}

#[test]
fn a_probe_says_what_works_and_leaves_nothing() {
    if !is_root("idmgr probe") {
        return;
    }
    let bench = Bench::new(1);
    fs::create_dir(bench.path("here")).unwrap();
    let here = bench.path("here");
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let arguments =
        ["probe", "--dir", here.to_str().unwrap(), "--dir", "/proc", "--dir", "/no/such"];
    let report = ok(bench.run(&arguments));
    // procfs can't be id-mapped on any kernel.
    assert_eq!(report["idmap"]["/proc"]["ok"], false);
    assert_eq!(report["idmap"]["/no/such"]["ok"], false);
    assert!(report["idmap"]["/no/such"]["error"].as_str().unwrap().contains("/no/such"));
    // Whatever needs a part can't work without it.
    let works = |path: &str| report.pointer(path).unwrap()["ok"].as_bool().unwrap();
    assert!(!works("/overlay/full") || works("/overlay/lower"), "{report}");
    assert!(!works("/overlay/lower") || works("/userns"), "{report}");
    assert!(["v1", "hybrid", "v2"].contains(&report["cgroup"].as_str().unwrap()), "{report}");
    assert_eq!(fs::read_dir(&here).unwrap().count(), 0);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

#[test]
fn a_probe_without_privileges_downgrades() {
    if !is_root("idmgr probe without privileges") {
        return;
    }
    let bench = Bench::new(1);
    fs::set_permissions(bench.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The program itself may be where only root gets at.
    let program = bench.path("idmgr");
    fs::copy(bench.command(&[]).get_program(), &program).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"])
        .arg(&program)
        .args(["probe", "--dir", "/"])
        .output();
    let Ok(output) = output else {
        eprintln!("skipped idmgr probe without privileges: no setpriv");
        return;
    };
    let report = ok(output);
    for probe in ["/idmap/~1", "/overlay/plain", "/overlay/full"] {
        let outcome = report.pointer(probe).unwrap();
        assert_eq!(outcome["ok"], false, "{report}");
        assert!(outcome["error"].is_string(), "{report}");
    }
}
