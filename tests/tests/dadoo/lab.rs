//! A container with a busybox in it, and the part of a server that starts a dadoo.

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fs::{self, File, OpenOptions};
use std::io::{PipeReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use guardian_tests::patience::patience;
use guardian_tests::{host, skip};
use serde_json::{Value, json};

const APPLETS: [&str; 13] = [
    "cat", "echo", "grep", "head", "kill", "printf", "seq", "sh", "sleep", "stty", "true", "tty",
    "yes",
];
/// open(2), as on all our architectures.
const O_NOCTTY: i32 = 0o400;
const O_NONBLOCK: i32 = 0o4000;
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A container that runs.
pub(crate) struct Lab {
    runtime: &'static str,
    handle: String,
    dir: tempfile::TempDir,
}

/// One container of each runtime that this host has; those it lacks are skipped by name.
pub(crate) fn labs(check: &str) -> impl Iterator<Item = Lab> {
    ["runc", "crun"].into_iter().filter_map(move |runtime| {
        let check = format!("dadoo::{check} ({runtime})");
        skip::can_run(&check, &[runtime, "busybox"]).then(|| Lab::start(runtime))
    })
}

impl Lab {
    fn start(runtime: &'static str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let handle = format!("dadoo-test-{}-{number}", std::process::id());
        let lab = Self { runtime, handle, dir: tempfile::tempdir().unwrap() };
        let bin = lab.path("bundle/rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        for empty in ["proc", "dev", "tmp"] {
            fs::create_dir(lab.path("bundle/rootfs").join(empty)).unwrap();
        }
        fs::copy(host::program("busybox").unwrap(), bin.join("busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        File::create(lab.path("bundle/rootfs/tmp/garden-init")).unwrap();
        fs::write(lab.path("bundle/config.json"), lab.config().to_string()).unwrap();
        let bundle = lab.path("bundle");
        let pidfile = lab.path("pidfile");
        let mut command = lab.runtime_command();
        command.args(["run", "--detach", "--bundle"]).arg(bundle).arg("--pid-file").arg(pidfile);
        let log = File::create(lab.path("log")).unwrap();
        command.arg(&lab.handle).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let status = command.status().unwrap();
        assert!(status.success(), "{}", fs::read_to_string(lab.path("log")).unwrap());
        lab
    }

    /// The runtime as a host without controllers on cgroup v2 would call it: crun 1.8 refuses a
    /// hybrid one, so it is not shown the second hierarchy.
    fn runtime_command(&self) -> Command {
        let mut command = Command::new("unshare");
        let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, "sh", self.runtime, "--root"]);
        command.arg(self.path("root"));
        command
    }

    fn config(&self) -> Value {
        let namespaces =
            ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({"type": kind}));
        let mount = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
        let init = host::bin_dir().join("init");
        json!({
            "ociVersion": "1.0.2",
            "process": process(&["/tmp/garden-init"], false),
            "root": {"path": "rootfs"},
            "mounts": [
                mount("/proc", "proc", &[]),
                mount("/dev", "tmpfs", &["mode=755"]),
                mount("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]),
                {"destination": "/tmp/garden-init", "type": "bind", "source": init, "options": ["bind"]},
            ],
            "linux": {"namespaces": namespaces, "cgroupsPath": format!("/{}", self.handle)},
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The host's pid of the container's init.
    pub(crate) fn init_pid(&self) -> u32 {
        fs::read_to_string(self.path("pidfile")).unwrap().parse().unwrap()
    }

    /// Starts a process as a server does.
    pub(crate) fn exec(&self, args: &[&str]) -> Keeper {
        Keeper::start(self, self.runtime, args, false)
    }

    /// Starts a process with a terminal of 100 columns and 30 rows.
    pub(crate) fn exec_tty(&self, args: &[&str]) -> Keeper {
        let keeper = Keeper::start(self, self.runtime, args, true);
        keeper.pid();
        keeper
    }

    /// Starts a process as a person does, and returns its directory.
    pub(crate) fn detached(&self, args: &[&str]) -> PathBuf {
        let dir = self.new_process();
        assert_eq!(self.detach(&dir, args).code(), Some(0));
        dir
    }

    pub(crate) fn detach(&self, dir: &Path, args: &[&str]) -> ExitStatus {
        let mut command = dadoo();
        command.arg("--detach").arg("-runc-root").arg(self.path("root"));
        command.args(["exec", self.runtime]).arg(dir).arg(&self.handle);
        feed(command, &process(args, false).to_string()).status
    }

    /// One of a person's verbs on a process directory.
    pub(crate) fn dadoo(&self, verb: &[&str], dir: &Path) -> Command {
        let mut command = dadoo();
        command.args(verb).arg(dir);
        command
    }

    /// The size of the terminal that is a process's stdin, as `stty size` prints it.
    pub(crate) fn terminal_size(&self, pid: u32) -> String {
        let terminal = fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
        let terminal =
            PathBuf::from(format!("/proc/{pid}/root")).join(terminal.strip_prefix("/").unwrap());
        let stdin = OpenOptions::new().read(true).custom_flags(O_NOCTTY).open(terminal).unwrap();
        let output = Command::new("stty").arg("size").stdin(stdin).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn new_process(&self) -> PathBuf {
        self.path(&format!("p{}", NUMBER.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.runtime_command().args(["delete", "--force", &self.handle]).status();
    }
}

/// A dadoo, with the ends that its server holds.
pub(crate) struct Keeper {
    pub(crate) child: Child,
    pub(crate) dir: PathBuf,
    pub(crate) stdin: Option<File>,
    pub(crate) stdout: File,
    _stderr: File,
    exit: File,
    exit_status: PipeReader,
    log: PipeReader,
}

impl Keeper {
    pub(crate) fn start(lab: &Lab, runtime: &str, args: &[&str], has_terminal: bool) -> Self {
        Self::begin(lab, runtime, args, has_terminal, "exec \"$@\"")
    }

    /// Starts a dadoo below a shell that waits for it; `child` is that shell.
    pub(crate) fn start_below_a_parent(lab: &Lab, args: &[&str]) -> Self {
        Self::begin(lab, lab.runtime, args, false, "\"$@\"; true")
    }

    fn begin(lab: &Lab, runtime: &str, args: &[&str], has_terminal: bool, how: &str) -> Self {
        let dir = lab.new_process();
        fs::create_dir(&dir).unwrap();
        let fifos = ["stdin", "stdout", "stderr", "winsz", "exit"].map(|name| dir.join(name));
        assert!(Command::new("mkfifo").args(["-m", "600"]).args(fifos).status().unwrap().success());
        let json = dir.join("process.json");
        fs::write(&json, process(args, has_terminal).to_string()).unwrap();
        let (exit_status, exit_writer) = std::io::pipe().unwrap();
        let (log, log_writer) = std::io::pipe().unwrap();
        let (mut sync, sync_writer) = std::io::pipe().unwrap();
        // A shell can put the pipes where dadoo expects them.
        let at =
            |pipe: &dyn AsRawFd| format!("/proc/{}/fd/{}", std::process::id(), pipe.as_raw_fd());
        let (exit, log_at, sync_at) = (at(&exit_writer), at(&log_writer), at(&sync_writer));
        let script = format!("{{ {how}; }} 3>{exit} 4>{log_at} 5>{sync_at}");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).arg(host::bin_dir().join("dadoo"));
        command.arg("-runc-root").arg(lab.path("root"));
        if has_terminal {
            command.arg("-tty");
        }
        command.args(["exec", runtime]).arg(&dir).arg(&lab.handle);
        let output = File::create(dir.join("said")).unwrap();
        command.stdin(File::open(json).unwrap());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let child = command.spawn().unwrap();
        // gdn's order. Opening blocks until dadoo has its end.
        let stdin = OpenOptions::new().read(true).write(true).open(dir.join("stdin")).unwrap();
        let stdout = File::open(dir.join("stdout")).unwrap();
        let stderr = File::open(dir.join("stderr")).unwrap();
        let mut zero = [1];
        sync.read_exact(&mut zero).unwrap();
        assert_eq!(zero, [0]);
        // Not blocking: a dadoo that failed may be gone already.
        let mut exit = OpenOptions::new();
        let exit = exit.read(true).custom_flags(O_NONBLOCK).open(dir.join("exit")).unwrap();
        Self { child, dir, stdin: Some(stdin), stdout, _stderr: stderr, exit, exit_status, log }
    }

    /// The byte that tells how the runtime ended; then the pipe must end.
    pub(crate) fn runtime_exit(&mut self) -> Option<u8> {
        let mut bytes = Vec::new();
        self.exit_status.read_to_end(&mut bytes).unwrap();
        assert!(bytes.len() <= 1, "{bytes:?}");
        bytes.first().copied()
    }

    pub(crate) fn read_log(&mut self) -> String {
        let mut text = String::new();
        self.log.read_to_string(&mut text).unwrap();
        text
    }

    /// What dadoo itself had to say.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.dir.join("said")).unwrap()
    }

    pub(crate) fn read_stdout(&mut self) -> String {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        text
    }

    /// Reads stdout in the background.
    pub(crate) fn collect_stdout(&self) -> Collected {
        let collected = Collected(Arc::default());
        let (text, mut stdout) = (Arc::clone(&collected.0), self.stdout.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                text.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        collected
    }

    /// The process's pid, once the runtime has written it.
    pub(crate) fn pid(&self) -> u32 {
        let read = || fs::read_to_string(self.dir.join("pidfile")).ok()?.parse().ok();
        wait_until("the pidfile", || read().is_some());
        read().unwrap()
    }

    /// The pid of dadoo, once it has become the process's parent.
    pub(crate) fn keeper_pid(&self) -> u32 {
        let parent = || {
            let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
            let name = fs::read_to_string(format!("/proc/{line}/comm")).unwrap_or_default();
            (name.trim() == "dadoo").then(|| line.parse().unwrap())
        };
        wait_until("dadoo to be the parent", || parent().is_some());
        parent().unwrap()
    }

    /// Waits as a server does: until nobody holds `exit`.
    pub(crate) fn wait_exit_fifo(&self) {
        // Would block as long as dadoo holds it open, end of file from then on.
        while (&self.exit).read(&mut [0]).is_err() {
            std::thread::yield_now();
        }
    }

    pub(crate) fn wait_exitcode(&self) -> String {
        let path = self.dir.join("exitcode");
        wait_until("the exit code", || path.exists());
        fs::read_to_string(path).unwrap()
    }
}

/// Output as it comes.
pub(crate) struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

fn dadoo() -> Command {
    Command::new(host::bin_dir().join("dadoo"))
}

fn process(args: &[&str], has_terminal: bool) -> Value {
    json!({
        "terminal": has_terminal,
        "consoleSize": {"width": 100, "height": 30},
        "user": {"uid": 0, "gid": 0},
        "args": args,
        "env": ["PATH=/bin"],
        "cwd": "/",
    })
}

/// Runs a command to its end with this text on its stdin.
pub(crate) fn feed(mut command: Command, text: &str) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // A command that fails early does not read it.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    child.wait_with_output().unwrap()
}

/// Starts a command with nothing on its stdin.
pub(crate) fn in_background(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub(crate) fn kill(pid: u32, signal: &str) {
    let signal: Signal = format!("SIG{signal}").parse().unwrap();
    nix::sys::signal::kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// How often a process has been woken.
pub(crate) fn context_switches(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().filter(|line| line.contains("ctxt_switches")).collect()
}

/// Waits up to ten seconds.
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < patience(Duration::from_secs(10)), "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
