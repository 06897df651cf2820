//! A store, images and containers of a test's own; all gone when it is dropped.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use guardian_tests::netns::Netns;
use serde_json::{Value, json};

/// gdn's maps for unprivileged containers.
pub(crate) const MAPS: [&str; 8] = [
    "--uid-mapping",
    "0:4294967294:1",
    "--uid-mapping",
    "1:1:4294967293",
    "--gid-mapping",
    "0:4294967294:1",
    "--gid-mapping",
    "1:1:4294967293",
];
const APPLETS: [&str; 16] = [
    "sh", "ls", "id", "cat", "touch", "chown", "chmod", "mv", "rm", "mkdir", "sleep", "stat", "dd",
    "wc", "ln", "mkfifo",
];

pub(crate) struct Bench {
    dir: tempfile::TempDir,
    pub(crate) tag: String,
}

impl Bench {
    /// `None` where this machine can't run the test; says why.
    pub(crate) fn new(test: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let is_root = fs::metadata(dir.path()).unwrap().uid() == 0;
        if !is_root || !Path::new("/bin/busybox").exists() {
            eprintln!("skipped {test}: needs root and /bin/busybox");
            return None;
        }
        // A container's root has to get as far as to its root filesystem.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Some(Self { dir, tag: format!("rootfs-test-{}-{count}", std::process::id()) })
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `rootfs` with this store.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(program("rootfs"));
        command.arg("--store").arg(self.path("store"));
        command
    }

    /// The same in a network namespace.
    pub(crate) fn command_in(&self, netns: &Netns) -> Command {
        let mut command = netns.command(program("rootfs"));
        command.arg("--store").arg(self.path("store"));
        // A proxy of the host's can't be reached from there.
        for name in ["http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(name).env_remove(name.to_ascii_uppercase());
        }
        command
    }

    pub(crate) fn rootfs<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// Runs it, expects success and returns what it printed.
    pub(crate) fn done<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let output = self.rootfs(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs it, expects failure and returns the text for the user, which is on stdout.
    pub(crate) fn refused<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let output = self.rootfs(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Creates an image and returns its root filesystem and its environment.
    pub(crate) fn create(&self, flags: &[&str], uri: &str, id: &str) -> (PathBuf, Vec<String>) {
        let answer = self.done(&[flags, &["create", uri, id]].concat());
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let env = answer["process"]["env"].as_array().cloned().unwrap_or_default();
        let env = env.iter().map(|value| value.as_str().unwrap().to_owned()).collect();
        (answer["root"]["path"].as_str().unwrap().into(), env)
    }

    /// A directory with busybox, users and a few things to look at.
    pub(crate) fn tree(&self) -> PathBuf {
        let root = self.path("tree");
        if root.exists() {
            return root;
        }
        for name in ["bin", "etc", "tmp", "proc", "dev", "sys", "root", "home/alice", "usr/sub"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\
                      alice:x:1001:1010::/home/alice:/bin/sh\nbob:x:1002:1002::/:/bin/sh\n";
        fs::write(root.join("etc/passwd"), passwd).unwrap();
        fs::write(root.join("usr/sub/f"), "below").unwrap();
        fs::write(root.join("usr/setid"), "x").unwrap();
        chown(root.join("usr/setid"), Some(1001), Some(1010)).unwrap();
        fs::set_permissions(root.join("usr/setid"), Permissions::from_mode(0o6755)).unwrap();
        chown(root.join("home/alice"), Some(1001), Some(1010)).unwrap();
        fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
        fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
        root
    }

    /// The same as a tar file.
    pub(crate) fn tar(&self) -> String {
        let path = self.path("base.tar");
        if !path.exists() {
            let tree = self.tree();
            let made =
                Command::new("tar").arg("-C").arg(tree).arg("-cf").arg(&path).arg(".").status();
            assert!(made.unwrap().success());
        }
        path.to_str().unwrap().to_owned()
    }

    /// How many mounts there are below this test's directory.
    pub(crate) fn mounts(&self) -> usize {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.matches(&format!(" {}", self.dir.path().display())).count()
    }

    /// Names in a directory of the store.
    pub(crate) fn stored(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path("store").join(directory)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Starts a container that sleeps; `None` without runc. It is gone when it is dropped.
    pub(crate) fn container(
        &self,
        name: &str,
        root: &Path,
        is_privileged: bool,
    ) -> Option<Container> {
        let id = format!("{}-{name}", self.tag);
        let bundle = self.path(&id);
        fs::create_dir(&bundle).unwrap();
        fs::write(bundle.join("config.json"), config(root, &id, is_privileged).to_string())
            .unwrap();
        let pidfile = bundle.join("pid");
        let mut runc = Command::new("runc");
        runc.args(["run", "--detach", "--pid-file"]).arg(&pidfile).arg("--bundle").arg(&bundle);
        runc.arg(&id).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        match runc.status() {
            Ok(status) => assert!(status.success()),
            Err(error) => {
                eprintln!("skipped: runc: {error}");
                return None;
            }
        }
        let pid = fs::read_to_string(pidfile).unwrap();
        Some(Container { id, pid })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.rootfs(&["delete-store"]);
    }
}

/// A running container.
pub(crate) struct Container {
    id: String,
    pub(crate) pid: String,
}

impl Container {
    /// Runs a shell script in it and returns what it said.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = Command::new("runc").args(["exec", &self.id, "sh", "-c", script]).output();
        let output = output.unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("runc").args(["delete", "--force", &self.id]).output();
    }
}

fn config(root: &Path, id: &str, is_privileged: bool) -> Value {
    let capabilities = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_KILL",
    ];
    let mut namespaces = vec![
        json!({"type": "pid"}),
        json!({"type": "ipc"}),
        json!({"type": "uts"}),
        json!({"type": "mount"}),
    ];
    let mut maps = json!([]);
    if !is_privileged {
        namespaces.push(json!({"type": "user"}));
        maps = json!([{"containerID": 0, "hostID": 4_294_967_294_u32, "size": 1},
                      {"containerID": 1, "hostID": 1, "size": 4_294_967_293_u32}]);
    }
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": root},
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["sleep", "1000"], "cwd": "/",
                    "env": ["PATH=/bin"],
                    "capabilities": {"bounding": capabilities, "effective": capabilities,
                                     "permitted": capabilities}},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                   {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                   {"destination": "/made/by/runtime", "type": "tmpfs", "source": "tmpfs"}],
        "linux": {"namespaces": namespaces, "uidMappings": maps, "gidMappings": maps,
                  "cgroupsPath": format!("/{id}")},
    })
}

/// Where the executable under test is.
pub(crate) fn program(name: &str) -> PathBuf {
    let directory = std::env::var_os("GUARDIAN_BIN_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release"),
        PathBuf::from,
    );
    let path = directory.join(name);
    assert!(path.exists(), "{} is missing; build it or set GUARDIAN_BIN_DIR", path.display());
    path
}
