//! Debian's docker-registry in a network namespace of a test's own.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use guardian_tests::host;
use guardian_tests::netns::Netns;
use guardian_tests::patience::patience;
use guardian_tests::skip;

use super::fake::namespace;
use crate::bench::Bench;

/// Where the registry answers, inside the test's network namespace.
pub(crate) const HOST: &str = "127.0.0.1:5000";
/// `user` with the password `secret`, as bcrypt has it.
pub(crate) const HTPASSWD: &str =
    "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// docker-registry in a network namespace; both are gone when it is dropped.
pub(crate) struct Registry<'a> {
    bench: &'a Bench,
    pub(crate) netns: Netns,
    child: Child,
}

impl<'a> Registry<'a> {
    /// `auth` and `tls` are parts of its configuration.
    pub(crate) fn start(bench: &'a Bench, auth: &str, tls: &str) -> Self {
        let netns = namespace(bench);
        let config = bench.path("registry.yml");
        let storage = bench.path("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n{auth}\n\
             http: {{addr: '{HOST}'{tls}}}\n",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(bench.path("registry.log")).unwrap();
        let mut command = netns.command(host::program("docker-registry").unwrap());
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        let registry = Self { bench, netns, child };
        let deadline = Instant::now() + patience(Duration::from_secs(20));
        while !registry.answers() {
            assert!(Instant::now() < deadline, "docker-registry does not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        registry
    }

    fn answers(&self) -> bool {
        let mut listening = self.netns.command("ss");
        let output = host::output(listening.args(["-Hltn"])).unwrap();
        output.contains(HOST)
    }

    pub(crate) fn push(&self, uri: &str, name: &str, flags: &[&str]) {
        let from = uri.replacen("oci://", "oci:", 1);
        let mut skopeo = self.netns.command(host::program("skopeo").unwrap());
        skopeo.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]);
        skopeo.args(flags).arg(from).arg(format!("docker://{HOST}/{name}"));
        host::output(&mut skopeo).unwrap();
    }

    /// `rootfs` in the registry's network.
    pub(crate) fn rootfs(&self) -> Command {
        self.bench.command_in(&self.netns)
    }

    pub(crate) fn create(&self, flags: &[&str], name: &str, id: &str) -> Result<String, String> {
        let mut command = self.rootfs();
        command.arg("create").args(flags).arg(format!("docker://{HOST}/{name}")).arg(id);
        told(&mut command)
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the program said on stdout, as success or failure.
pub(crate) fn told(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

pub(crate) fn ready(test: &str, programs: &[&str]) -> Option<Bench> {
    let needed = [&["docker-registry", "skopeo", "ip", "nsenter", "ss"], programs].concat();
    if !skip::can_run(test, &needed) {
        return None;
    }
    Bench::new(test)
}

pub(crate) const INSECURE: [&str; 2] = ["--insecure-registry", HOST];
