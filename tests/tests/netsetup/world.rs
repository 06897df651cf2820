//! A small internet: a host where netsetup runs, a machine outside of it, and containers, each a
//! network namespace of its own. All of it goes when the value is dropped.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use guardian_tests::patience::patience;
use guardian_tests::{host, skip};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

pub(crate) const HOST: &str = "192.0.2.1";
pub(crate) const OUTSIDE: &str = "192.0.2.2";
pub(crate) const DENIED: &str = "198.51.100.2";

static COUNT: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct World {
    name: String,
    state: tempfile::TempDir,
    flags: Vec<String>,
    containers: RefCell<Vec<Child>>,
}

impl World {
    /// Returns a world where netsetup always gets these flags; `None`, noted as skipped, where
    /// that can't be.
    pub(crate) fn new(check: &str, flags: &[&str]) -> Option<Self> {
        if !skip::can_run(check, &["ip", "nft", "nsenter", "unshare", "ping"]) {
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("netsetup-{}-{number}", std::process::id());
        let world = Self {
            name,
            state: tempfile::tempdir().unwrap(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            containers: RefCell::default(),
        };
        let (inner, outer) = (world.host_name(), world.outside_name());
        let ip = |line: String| host::run(&[&["ip"], &*words(&line)].concat()).unwrap();
        ip(format!("netns add {inner}"));
        ip(format!("netns add {outer}"));
        ip(format!("-n {inner} link add out0 type veth peer name host0 netns {outer}"));
        for (netns, link, address) in [
            (&inner, "out0", format!("{HOST}/24")),
            (&outer, "host0", format!("{OUTSIDE}/24")),
            (&outer, "host0", format!("{DENIED}/32")),
        ] {
            ip(format!("-n {netns} addr add {address} dev {link}"));
            ip(format!("-n {netns} link set {link} up"));
            ip(format!("-n {netns} link set lo up"));
        }
        ip(format!("-n {inner} route add default via {OUTSIDE}"));
        Some(world)
    }

    fn host_name(&self) -> String {
        format!("{}-host", self.name)
    }

    fn outside_name(&self) -> String {
        format!("{}-outside", self.name)
    }

    pub(crate) fn host(&self) -> PathBuf {
        Path::new("/run/netns").join(self.host_name())
    }

    pub(crate) fn outside(&self) -> PathBuf {
        Path::new("/run/netns").join(self.outside_name())
    }

    pub(crate) fn state_dir(&self) -> &Path {
        self.state.path()
    }

    /// Starts a container: a process in a new network namespace.
    pub(crate) fn container(&self) -> Container {
        let child = Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        self.containers.borrow_mut().push(child);
        let netns = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        eventually("the container's namespace", || {
            std::fs::read_link(&netns).is_ok_and(|theirs| theirs != ours)
        });
        Container { pid, netns }
    }

    /// Returns the namespace of the container that was started as number `number`.
    pub(crate) fn netns_of(&self, number: usize) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.containers.borrow()[number].id()))
    }

    /// Ends a container's process, and with it its namespace.
    pub(crate) fn end(&self, container: &Container) {
        for child in self.containers.borrow_mut().iter_mut() {
            if i32::try_from(child.id()) == Ok(container.pid) {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
    }

    /// Returns netsetup on the host.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        // By its path, because a test takes PATH away from netsetup.
        let mut command = Command::new(host::program("nsenter").unwrap());
        command.arg(format!("--net={}", self.host().display()));
        command.arg(host::bin_dir().join("netsetup"));
        command.arg("--state-dir").arg(self.state.path()).args(&self.flags).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    /// Runs netsetup and returns its answer, or else the fault's kind and message.
    pub(crate) fn run(
        &self,
        arguments: &[&str],
        request: &Value,
    ) -> Result<Value, (String, String)> {
        finish(self.command(arguments).spawn().unwrap(), request)
    }

    /// Runs netsetup as a person does, and returns what it printed.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        host::output(&mut self.command(arguments)).unwrap()
    }

    /// Runs an action for a handle.
    pub(crate) fn act(
        &self,
        action: &str,
        handle: &str,
        request: Value,
    ) -> Result<Value, (String, String)> {
        self.run(&["--action", action, "--handle", handle], &request)
    }

    /// Connects a container and returns its address.
    pub(crate) fn up(&self, handle: &str, container: &Container, more: Value) -> String {
        let answer = self.try_up(handle, container, more).unwrap();
        answer["properties"]["garden.network.container-ip"].as_str().unwrap().to_owned()
    }

    pub(crate) fn try_up(
        &self,
        handle: &str,
        container: &Container,
        more: Value,
    ) -> Result<Value, (String, String)> {
        let mut request = json!({"Pid": container.pid, "Properties": {}});
        request.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        self.act("up", handle, request)
    }

    /// Disconnects a container and waits until nothing of it is left.
    pub(crate) fn down(&self, handle: &str) {
        self.run(&["--wait", "--action", "down", "--handle", handle], &Value::Null).unwrap();
    }

    /// Maps a port and returns the host's.
    pub(crate) fn net_in(&self, handle: &str, host_port: u16, container_port: u16) -> u16 {
        let request =
            json!({"HostIP": HOST, "HostPort": host_port, "ContainerPort": container_port});
        let answer = self.act("net-in", handle, request).unwrap();
        u16::try_from(answer["host_port"].as_u64().unwrap()).unwrap()
    }

    /// Runs a command line on the host and returns what it printed.
    pub(crate) fn on_host(&self, line: &str) -> String {
        let path = format!("--net={}", self.host().display());
        host::run(&[&["nsenter", &path], &*words(line)].concat()).unwrap()
    }

    /// Returns what `check` finds, one line for each difference, and asserts that its exit code and
    /// its two forms agree.
    pub(crate) fn check(&self) -> Vec<String> {
        self.differences("check")
    }

    /// Puts everything right again and returns what is still different.
    pub(crate) fn reapply(&self) -> Vec<String> {
        self.differences("reapply")
    }

    fn differences(&self, verb: &str) -> Vec<String> {
        let output = self.command(&[verb, "--json"]).output().unwrap();
        let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let code = if found.is_empty() { 0 } else { 3 };
        assert_eq!(output.status.code(), Some(code), "{found:?}");
        let readable = self.command(&["check"]).output().unwrap();
        let readable = String::from_utf8(readable.stdout).unwrap();
        let count = if found.is_empty() { 1 } else { found.len() + 1 };
        assert_eq!(readable.lines().count(), count, "{readable}");
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let keys = ["problem", "object", "name", "handle"];
        found.iter().map(|one| keys.map(|key| text(&one[key])).join(" ")).collect()
    }

    /// Returns what netsetup made on the host: links, and everything in our table but the frame.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let links = self.on_host("ip -br link");
        let links = links.lines().map(|line| line.split([' ', '@']).next().unwrap());
        let links = links.filter(|name| !["lo", "out0"].contains(name)).map(str::to_owned);
        let rules = self.on_host("nft list ruleset");
        let rules = rules.lines().filter(|l| {
            ["elements", "chain out-", "limit up-"].iter().any(|word| l.contains(word))
        });
        let leases = self.run(&["list", "--json"], &Value::Null).unwrap();
        let leases = leases.as_array().unwrap().iter().map(Value::to_string);
        links.chain(rules.map(str::to_owned)).chain(leases).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in self.containers.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in [self.host_name(), self.outside_name()] {
            let _ = host::run(&["ip", "netns", "delete", &name]);
        }
    }
}

pub(crate) struct Container {
    pub(crate) pid: i32,
    pub(crate) netns: PathBuf,
}

/// Returns a refusal with this kind and these words.
pub(crate) fn kind_and_message(kind: &str, message: &str) -> Result<Value, (String, String)> {
    Err((kind.into(), message.into()))
}

/// Feeds a netsetup its request and reads its answer.
pub(crate) fn finish(mut child: Child, request: &Value) -> Result<Value, (String, String)> {
    // A program that needs no request may be gone before it is written.
    let _ = child.stdin.take().unwrap().write_all(request.to_string().as_bytes());
    let output = child.wait_with_output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if output.status.success() {
        return Ok(answer);
    }
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    Err((text("kind"), text("message")))
}

/// Does `work` in a network namespace, on a thread of its own.
pub(crate) fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(netns).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + patience(std::time::Duration::from_secs(5));
    while !is_so() {
        assert!(std::time::Instant::now() < end, "{what}: still not so");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}
