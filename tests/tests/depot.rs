//! `depot`: bundles that real runtimes start, seen from inside the containers.
//!
//! Needs root, a static busybox, and runc or crun; what is missing is said by name and skipped.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and says what it skipped")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

#[path = "depot/bind.rs"]
mod bind;
#[path = "depot/limits.rs"]
mod limits;

/// The host's id behind root of an unprivileged container.
const MAXIMUS: u32 = 4_294_967_294;

/// A depot, root filesystems and a cgroup parent of their own; all gone when it is dropped.
struct Bench {
    dir: tempfile::TempDir,
    tag: String,
}

impl Bench {
    /// `None` where this machine can't run the test; says why.
    fn new(test: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        if fs::metadata(dir.path()).unwrap().uid() != 0 {
            guardian_tests::skip::note(test, "needs root");
            return None;
        }
        // Container root has to get at the root filesystem.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Some(Self { dir, tag: format!("depot-test-{}-{count}", std::process::id()) })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn depot(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut child = Command::new(program("depot"))
            .arg("--depot")
            .arg(self.path("depot"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A verb that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn create(&self, handle: &str, spec: &Value) -> Output {
        let init = self.path("init");
        if !init.exists() {
            fs::write(&init, "#!/bin/busybox sh\nexec /bin/busybox sleep 1000\n").unwrap();
            fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let flags = ["create", handle, "--tag", &self.tag, "--init-bin", init.to_str().unwrap()];
        self.depot(&flags, &spec.to_string())
    }

    /// A root filesystem made of busybox alone, owned by `owner`.
    fn rootfs(&self, name: &str, owner: u32) -> Option<PathBuf> {
        let root = self.path(name);
        for directory in ["", "bin", "etc", "tmp", "proc", "sys", "dev"] {
            fs::create_dir_all(root.join(directory)).unwrap();
            lchown(root.join(directory), Some(owner), Some(owner)).unwrap();
        }
        if fs::copy("/bin/busybox", root.join("bin/busybox")).is_err() {
            guardian_tests::skip::note("depot", "no /bin/busybox");
            return None;
        }
        for applet in ["sh", "cat", "grep", "hostname", "ls", "mknod", "stat", "unshare", "head"] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        Some(root)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The runtimes remove the containers' cgroups, and leave the parent to whoever named it.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(format!("garden-{}", self.tag)));
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(format!("garden-{}", self.tag)));
    }
}

/// A started container, deleted when it is dropped.
struct Container<'a> {
    runtime: &'a str,
    state: PathBuf,
    id: String,
}

impl<'a> Container<'a> {
    fn run(runtime: &'a str, bench: &Bench, handle: &str) -> Self {
        let one = Self { runtime, state: bench.path(runtime), id: handle.to_owned() };
        let bundle = bench.path("depot").join(handle);
        // Init inherits the streams: a pipe would never end.
        let log = bench.path("run.log");
        let file = fs::File::create(&log).unwrap();
        let status = one
            .command()
            .args(["run", "--detach", "--bundle"])
            .arg(&bundle)
            .arg("--pid-file")
            .arg(bundle.join("pidfile"))
            .arg(handle)
            // Not /dev/null: crun 1.8 gives what init inherits to the container's root.
            .stdin(Stdio::piped())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .status()
            .unwrap();
        assert!(status.success(), "{runtime}: {}", fs::read_to_string(log).unwrap());
        one
    }

    /// What a shell inside prints, on both streams.
    fn shell(&self, script: &str) -> String {
        let script = format!("exec 2>&1; {script}");
        let output = self
            .command()
            .args(["exec", "--env", "PATH=/bin", &self.id, "/bin/sh", "-c", &script])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
    }

    /// crun refuses a host whose v2 hierarchy has controllers beside a v1 one. It looks at what is
    /// mounted, so such a host is shown to it without.
    fn command(&self) -> Command {
        const UNIFIED: &str = "/sys/fs/cgroup/unified";
        let is_mixed = fs::read_to_string(format!("{UNIFIED}/cgroup.controllers"))
            .is_ok_and(|text| !text.trim().is_empty());
        let mut command = if self.runtime == "crun" && is_mixed {
            let mut command = Command::new("unshare");
            let script = format!("umount {UNIFIED} && exec crun \"$@\"");
            command.args(["--mount", "sh", "-c", &script, "crun"]);
            command
        } else {
            Command::new(self.runtime)
        };
        command.arg("--root").arg(&self.state);
        command
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.command().args(["delete", "--force", &self.id]).output();
    }
}

fn program(name: &str) -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release").to_owned();
    Path::new(&std::env::var("GUARDIAN_BIN_DIR").unwrap_or(default)).join(name)
}

fn runtimes(test: &str) -> Vec<&'static str> {
    let is_there = |name: &&str| {
        let found = Command::new(name).arg("--version").output().is_ok();
        if !found {
            guardian_tests::skip::note(test, &format!("{name} is not installed"));
        }
        found
    };
    ["runc", "crun"].into_iter().filter(is_there).collect()
}

fn message(output: &Output) -> (String, String) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let fault: Value = serde_json::from_slice(&output.stdout).unwrap();
    (fault["kind"].as_str().unwrap().into(), fault["message"].as_str().unwrap().into())
}

fn ok(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn an_unprivileged_container_is_what_garden_s_clients_expect() {
    let Some(bench) = Bench::new("unprivileged container") else { return };
    let Some(root) = bench.rootfs("rootfs", MAXIMUS) else { return };
    // Nobody but the host's root gets at the source by its path.
    let shared = bench.path("closed/shared");
    fs::create_dir_all(&shared).unwrap();
    fs::set_permissions(bench.path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(shared.join("file"), "from the host\n").unwrap();
    let spec = json!({
        "root": {"path": root},
        "bind_mounts": [{"src_path": shared, "dst_path": "/shared"}],
    });
    for runtime in runtimes("unprivileged container") {
        let handle = format!("unprivileged-{runtime}");
        ok(bench.create(&handle, &spec));
        let container = Container::run(runtime, &bench, &handle);
        let map = container.shell("cat /proc/self/uid_map");
        let map: Vec<&str> = map.split_whitespace().collect();
        assert_eq!(map, ["0", "4294967294", "1", "1", "1", "4294967293"], "{runtime}");
        let status = container.shell("grep -E '^(Cap|Seccomp:)' /proc/1/status");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd"] {
            assert!(status.contains(&format!("{set}:\t00000000a80425fb")), "{runtime}: {status}");
        }
        for line in ["CapAmb:\t0000000000000000", "Seccomp:\t2"] {
            assert!(status.contains(line), "{runtime}: {status}");
        }
        assert_eq!(container.shell("hostname"), format!("{handle}\n"));
        let mounts = container.shell("cat /proc/mounts");
        for line in [
            "sysfs /sys sysfs ro,",
            "tmpfs /dev tmpfs rw,noexec,",
            "tmpfs /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime",
            "devpts /dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666",
            "proc /proc proc rw,nosuid,nodev,noexec,",
        ] {
            assert!(mounts.contains(line), "{runtime}: {line} in {mounts}");
        }
        for (script, want) in [
            ("stat -c %a /dev/shm", "1777\n"),
            ("stat -c %t,%T /dev/null /dev/full /dev/pts/ptmx", "1,3\n1,7\n5,2\n"),
            ("stat -c %t,%T /proc/timer_list", "1,3\n"),
            ("ls -A /sys/firmware", ""),
            ("echo 127.0.0.1 me >/etc/hosts && cat /etc/hosts", "127.0.0.1 me\n"),
            ("cat /shared/file", "from the host\n"),
        ] {
            assert_eq!(container.shell(script), want, "{runtime}: {script}");
        }
        for (script, want) in [
            ("unshare --user true", "Operation not permitted"),
            ("echo x >/tmp/garden-init", "Read-only file system"),
            ("echo x >/shared/file", "Read-only file system"),
        ] {
            let said = container.shell(script);
            assert!(said.contains(want), "{runtime}: {script}: {said}");
        }
        let info: Value = serde_json::from_str(&ok(bench.depot(&["info", &handle], ""))).unwrap();
        assert_eq!(info["alive"], true, "{info}");
        assert_eq!(info["config"]["privileged"], false, "{info}");
    }
}

#[test]
fn a_privileged_container_has_what_the_host_has() {
    let Some(bench) = Bench::new("privileged container") else { return };
    let Some(root) = bench.rootfs("rootfs", 0) else { return };
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
    let want = u64::from_str_radix(bounding, 16).unwrap() & 0x3f_ffff_ffff;
    for runtime in runtimes("privileged container") {
        let handle = format!("privileged-{runtime}");
        ok(bench.create(&handle, &json!({"root": {"path": root}, "privileged": true})));
        let container = Container::run(runtime, &bench, &handle);
        let status = container.shell("cat /proc/1/status");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd"] {
            let line = format!("{set}:\t{want:016x}\n");
            assert!(status.contains(&line), "{runtime}: {line} in {status}");
        }
        assert!(status.contains("Seccomp:\t0"), "{runtime}: {status}");
        assert_eq!(container.shell("stat -c %t,%T,%a /dev/fuse"), "a,e5,666\n", "{runtime}");
        let mounts = container.shell("cat /proc/mounts");
        assert!(!mounts.contains("cgroup"), "{runtime}: {mounts}");
        // Its root may do as it likes with its init, which is nobody else's.
        assert_eq!(container.shell("chown -R 1000 /tmp && stat -c %u /tmp/garden-init"), "1000\n");
        assert_eq!(fs::metadata(bench.path("init")).unwrap().uid(), 0, "{runtime}");
        let said = container.shell("mknod /tmp/disk b 8 0 && head -c 1 /tmp/disk; rm /tmp/disk");
        assert!(said.contains("Operation not permitted"), "{runtime}: {said}");
    }
}

#[test]
fn a_bundle_lives_from_create_to_destroy() {
    let Some(bench) = Bench::new("life of a bundle") else { return };
    let root = bench.path("rootfs");
    fs::create_dir(&root).unwrap();
    // The caller may have reserved the directory, with its journal in it.
    fs::create_dir_all(bench.path("depot/b")).unwrap();
    fs::write(bench.path("depot/b/journal"), "x").unwrap();
    let bundle = bench.path("depot/b");
    let answer = ok(bench.create("b", &json!({"root": {"path": root}})));
    assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), json!({"bundle": bundle}));
    for (file, mode, owner) in
        [("hosts", 0o644, MAXIMUS), ("resolv.conf", 0o644, MAXIMUS), ("config.json", 0o600, 0)]
    {
        let meta = fs::metadata(bundle.join(file)).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.uid(), meta.gid()), (mode, owner, owner), "{file}");
    }
    assert!(bundle.join("journal").exists());

    let again = bench.create("b", &json!({"root": {"path": root}}));
    assert_eq!(message(&again), ("exists".into(), "Handle 'b' already in use".into()));
    assert_eq!(ok(bench.depot(&["list"], "")), r#"["b"]"#);
    assert_eq!(ok(bench.depot(&["lookup", "b"], "")), bundle.to_str().unwrap());
    for verb in ["lookup", "info"] {
        let unknown = message(&bench.depot(&[verb, "nobody"], ""));
        assert_eq!(unknown, ("not_found".into(), "unknown handle: nobody".into()));
    }
    let frozen = Command::new("chattr").arg("+i").arg(bundle.join("hosts")).status();
    if !frozen.is_ok_and(|status| status.success()) {
        guardian_tests::skip::note("immutable hosts file", "chattr does not work here");
    }
    for _ in 0..2 {
        assert_eq!(ok(bench.depot(&["destroy", "b"], "")), "");
    }
    assert_eq!(fs::read_dir(bench.path("depot")).unwrap().count(), 0);
}

#[test]
fn what_is_wrong_is_told_and_leaves_nothing() {
    let Some(bench) = Bench::new("wrong requests") else { return };
    let root = bench.path("rootfs");
    fs::create_dir(&root).unwrap();
    let good = json!({"root": {"path": root}});
    let bind = json!({"src_path": "/no/such", "dst_path": "/x"});
    let missing = json!({"root": {"path": root}, "bind_mounts": [bind]});
    for (spec, want) in [
        (json!(null), "request on stdin: root.path is missing"),
        (json!({"root": {"path": "/no/such"}}), "root.path '/no/such' can't be used"),
        (json!({"root": 1}), "request on stdin: invalid type: integer `1`"),
        (missing, "bind mount source '/no/such': ENOENT"),
        (json!({"root": {"path": root}, "mounts": [{}]}), "image mount {}"),
    ] {
        let (kind, said) = message(&bench.create("x", &spec));
        assert_eq!(kind, "invalid", "{said}");
        assert!(said.starts_with(want), "{said}");
    }
    let (_, said) = message(&bench.depot(&["create", "x"], "{"));
    assert!(said.starts_with("request on stdin: EOF"), "{said}");
    let no_init = ["create", "x", "--init-bin", "/no/init"];
    let (_, said) = message(&bench.depot(&no_init, &good.to_string()));
    assert!(said.starts_with("init program: bind mount source '/no/init': ENOENT"), "{said}");

    // Only an empty directory can be removed so.
    fs::remove_dir(bench.path("depot")).unwrap();
    fs::write(bench.path("depot"), "").unwrap();
    for (output, want) in [
        (bench.depot(&["list"], ""), "invalid depot directory"),
        (bench.create("x", &good), "make directory"),
    ] {
        let (_, said) = message(&output);
        assert!(said.starts_with(&format!("{want} {}", bench.path("depot").display())), "{said}");
    }
    assert_eq!(bench.depot(&["create", "a/b"], "").status.code(), Some(2));
}

#[test]
fn of_many_creates_of_one_handle_one_wins() {
    let Some(bench) = Bench::new("parallel creates") else { return };
    let root = bench.path("rootfs");
    fs::create_dir(&root).unwrap();
    let spec = json!({"root": {"path": root}});
    ok(bench.create("first", &spec));
    let codes: Vec<_> = std::thread::scope(|scope| {
        let creates: Vec<_> =
            (0..16).map(|_| scope.spawn(|| bench.create("one", &spec).status.code())).collect();
        creates.into_iter().map(|create| create.join().unwrap()).collect()
    });
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
}
