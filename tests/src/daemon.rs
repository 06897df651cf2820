//! A private guardiand: its state in a temporary directory, its network in a namespace of its
//! own, its handles under a prefix of their own.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::netns::Netns;
use crate::patience::patience;
use crate::{host, leftover};

/// How long a start or a stop may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long work in the background may take before it counts as never done.
const BACKGROUND: Duration = Duration::from_secs(15);

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// What a private server is to be like.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The OCI runtime: a name or a path.
    pub runtime: String,
    /// The default image.
    pub image: String,
    /// Where the depot is to be, if not beside everything else.
    pub depot: Option<PathBuf>,
    /// Further flags; they come last.
    pub flags: Vec<String>,
}

/// A private guardiand. Dropping it removes it with all it made, as well as that can be done;
/// [`Daemon::finish`] also tells what it left behind.
#[derive(Debug)]
pub struct Daemon {
    prefix: String,
    directory: tempfile::TempDir,
    netns: Option<Netns>,
    options: Options,
    server: Option<Child>,
}

impl Daemon {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// When a program is missing, or the server does not come up: then with its last words.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("g{}-{number}", std::process::id());
        let directory = tempfile::Builder::new().prefix("guardian-").tempdir()?;
        let netns = Netns::create(&format!("guardian-{prefix}"))?;
        let mut daemon = Self { prefix, directory, netns: Some(netns), options, server: None };
        daemon.up()?;
        Ok(daemon)
    }

    /// Starts the server again, after [`Daemon::kill`] or [`Daemon::stop`].
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn up(&mut self) -> anyhow::Result<()> {
        let server = self.spawn()?;
        self.server = Some(server);
        let start = Instant::now();
        while self.guardctl().arg("ping").output()?.status.code() != Some(0) {
            let ended = self.server.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || start.elapsed() > patience(PATIENCE) {
                bail!("guardiand did not come up; it said:\n{}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let runtime = match self.options.runtime.as_str() {
            path if path.contains('/') => PathBuf::from(path),
            name => host::program(name).with_context(|| format!("{name} is not installed"))?,
        };
        let store = self.path("store").display().to_string();
        let log = File::options().create(true).append(true).open(self.path("log"))?;
        let mut command = self.netns()?.command(host::bin_dir().join("guardiand"));
        command
            .args(["server", "--network-pool", "10.254.0.0/22"])
            .arg("--bind-socket")
            .arg(self.socket())
            .arg("--depot")
            .arg(self.depot())
            .arg("--properties-path")
            .arg(self.path("properties.json"))
            .arg("--runtime-plugin")
            .arg(runtime)
            .args(["--default-rootfs", &self.options.image]);
        for flag in ["--image-plugin-extra-arg", "--privileged-image-plugin-extra-arg"] {
            command.arg(format!("{flag}=--store")).arg(format!("{flag}={store}"));
        }
        command.args(&self.options.flags).stdin(std::process::Stdio::null());
        // As from a login as root, which must make no difference.
        command.env("XDG_RUNTIME_DIR", self.directory.path());
        // A group of its own: ctrl-c at the terminal is the caller's to handle.
        command.stdout(log.try_clone()?).stderr(log).process_group(0);
        command.spawn().context("start guardiand")
    }

    /// Changes the flags that the next [`Daemon::up`] gives to the server.
    pub fn set_flags(&mut self, flags: Vec<String>) {
        self.options.flags = flags;
    }

    /// Returns the path of something in the server's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the server's depot.
    pub fn depot(&self) -> PathBuf {
        self.options.depot.clone().unwrap_or_else(|| self.path("depot"))
    }

    /// Returns the OCI runtime's name or path.
    pub fn runtime(&self) -> &str {
        &self.options.runtime
    }

    /// Returns the server's default image.
    pub fn image(&self) -> &str {
        &self.options.image
    }

    /// Returns the server's socket.
    pub fn socket(&self) -> PathBuf {
        self.path("garden.sock")
    }

    /// Returns the server's network namespace.
    ///
    /// # Errors
    /// When it has been deleted.
    pub fn netns(&self) -> anyhow::Result<&Netns> {
        self.netns.as_ref().context("the network namespace is gone")
    }

    /// Returns the server's pid.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.server.as_ref().context("guardiand does not run")?.id())
    }

    /// Returns a handle that is recognised as this server's.
    pub fn handle(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Returns `guardctl`, ready to be given a verb.
    pub fn guardctl(&self) -> Command {
        let mut command = Command::new(host::bin_dir().join("guardctl"));
        command.arg("--target").arg(self.socket());
        command
    }

    /// Runs `guardctl` with these words and returns what it printed.
    ///
    /// # Errors
    /// With what it said, when it failed.
    pub fn ctl(&self, words: &[&str]) -> anyhow::Result<String> {
        host::output(self.guardctl().args(words))
    }

    /// Lists the handles of all containers.
    ///
    /// # Errors
    /// As [`Daemon::ctl`].
    pub fn handles(&self) -> anyhow::Result<Vec<String>> {
        let list: Vec<Value> = serde_json::from_str(&self.ctl(&["--json", "ps"])?)?;
        let handles = list.iter().filter_map(|entry| entry["handle"].as_str());
        Ok(handles.map(str::to_owned).collect())
    }

    /// Removes all containers.
    ///
    /// # Errors
    /// As [`Daemon::ctl`].
    pub fn destroy_all(&self) -> anyhow::Result<()> {
        let handles = self.handles()?;
        if handles.is_empty() {
            return Ok(());
        }
        host::output(self.guardctl().arg("rm").args(handles)).map(drop)
    }

    /// Kills the server as a crash would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut server = self.server.take().context("guardiand does not run")?;
        server.kill()?;
        server.wait()?;
        Ok(())
    }

    /// Asks the server to stop and waits for it.
    ///
    /// # Errors
    /// When it does not stop in time (it is killed then), or ends with a failure.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        kill(Pid::from_raw(i32::try_from(server.id())?), Signal::SIGTERM)?;
        let start = Instant::now();
        loop {
            match server.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("guardiand: {status}; it said:\n{}", self.last_words()),
                None if start.elapsed() > patience(PATIENCE) => break,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        server.kill()?;
        server.wait()?;
        bail!("guardiand did not stop on SIGTERM; it said:\n{}", self.last_words())
    }

    /// Returns the end of the server's log.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Returns what containers left in the namespace and on the host, each thing in a line. What
    /// is removed in the background gets some time to go.
    ///
    /// # Errors
    /// When the namespace can't be asked.
    pub fn leftovers(&self) -> anyhow::Result<Vec<String>> {
        let start = Instant::now();
        loop {
            let found = self.present()?;
            if found.is_empty() || start.elapsed() > patience(BACKGROUND) {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns what containers have at this moment in the namespace and on the host.
    ///
    /// # Errors
    /// When the namespace can't be asked.
    pub fn present(&self) -> anyhow::Result<Vec<String>> {
        let links = self.netns()?.links()?;
        let mut found: Vec<String> =
            links.into_iter().map(|link| format!("network link {link}")).collect();
        let rules = self.netns()?.rules()?;
        let rules = rules.lines().filter(|line| names_container(line));
        found.extend(rules.map(|line| format!("firewall rule {}", line.trim())));
        let directory = self.directory.path().display().to_string();
        let server = self.pid().map(|pid| format!("process {pid} ")).unwrap_or_default();
        let things = leftover::search(&[&directory, &format!("{}-", self.prefix)]);
        let others = |line: &String| server.is_empty() || !line.starts_with(&server);
        found.extend(things.into_iter().filter(others));
        found.extend(files(&self.depot()));
        Ok(found)
    }

    /// Removes all containers, stops the server, deletes namespace and directory, and returns
    /// everything that was left behind.
    ///
    /// # Errors
    /// When the server fails to do its part.
    pub fn finish(mut self) -> anyhow::Result<Vec<String>> {
        let start = Instant::now();
        self.destroy_all()?;
        // A container whose client went away is still being made, and not listed before it is.
        while !files(&self.depot()).is_empty() && start.elapsed() < patience(BACKGROUND) {
            std::thread::sleep(Duration::from_millis(50));
            self.destroy_all()?;
        }
        self.stop()?;
        let found = self.leftovers()?;
        self.netns.take().map(Netns::delete).transpose()?;
        if found.is_empty() {
            // Only now: what is still mounted or running below it must not be hidden.
            std::fs::remove_dir_all(self.directory.path())?;
        }
        Ok(found)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.server.is_some() {
            let _ = self.destroy_all();
            let _ = self.stop();
        }
        // After a failure things may be left that would keep the directory busy.
        let directory = self.directory.path().display().to_string();
        leftover::remove(&[&directory, &format!("{}-", self.prefix)]);
    }
}

/// Tells whether a line of a ruleset speaks of one container: an address of the pool that is not
/// the pool itself.
fn names_container(line: &str) -> bool {
    line.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == '/'))
        .any(|word| word.starts_with("10.254.") && !word.ends_with(".0/22"))
}

/// Names what containers have in the depot; files of the server's own begin with a dot.
fn files(depot: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(depot).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with('.')).map(|name| format!("bundle {name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_a_container_are_told_from_the_pool_s() {
        assert!(names_container("elements = { 10.254.0.2 }"));
        assert!(!names_container("ip saddr 10.254.0.0/22 masquerade"));
    }
}
