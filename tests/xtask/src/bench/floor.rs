//! The bare runtime on an equal bundle, without network and image work: nothing that makes
//! containers can be faster than this.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;
use guardian_contract::garden::Limits;
use guardian_tests::daemon::Daemon;
use guardian_tests::{host, image};
use serde_json::json;

use super::{Times, timed};

/// Root of unprivileged containers on the host (gdn's id map).
const ROOT: &str = "4294967294:4294967294";

/// A runtime and the bundles it is given.
#[derive(Debug)]
pub(super) struct Floor<'a> {
    daemon: &'a Daemon,
    runtime: PathBuf,
    rootfs: PathBuf,
    depot: PathBuf,
}

impl<'a> Floor<'a> {
    /// Unpacks the image into a plain directory.
    ///
    /// # Errors
    /// When that fails, or the runtime is not installed.
    pub(super) fn prepare(daemon: &'a Daemon, runtime: &str) -> anyhow::Result<Self> {
        let runtime =
            host::program(runtime).with_context(|| format!("{runtime} is not installed"))?;
        let (rootfs, depot) = (daemon.path("floor-rootfs"), daemon.path("floor-depot"));
        std::fs::create_dir_all(&rootfs)?;
        image::unpack(&rootfs)?;
        // Root inside must own it, because the runtime makes the mount points as root inside.
        host::run(&["chown", "-hR", ROOT, &rootfs.display().to_string()])?;
        Ok(Self { daemon, runtime, rootfs, depot })
    }

    /// Starts, runs `/bin/true`, deletes; making and removing the bundle is not counted.
    ///
    /// # Errors
    /// When the runtime fails.
    pub(super) fn life(&self, name: &str, times: &mut Times) -> anyhow::Result<()> {
        let handle = self.daemon.handle(name);
        let bundle = self.bundle(&handle)?;
        let bundle = bundle.display().to_string();
        let pidfile = format!("{bundle}/pidfile");
        timed(&mut times.create, || {
            self.call(&["run", "--detach", "--bundle", &bundle, "--pid-file", &pidfile, &handle])
        })?;
        let ran = timed(&mut times.run, || self.call(&["exec", &handle, "/bin/true"]));
        timed(&mut times.destroy, || self.call(&["delete", "--force", &handle]))?;
        ran?;
        self.depot("destroy", &handle, "").map(drop)
    }

    fn bundle(&self, handle: &str) -> anyhow::Result<PathBuf> {
        let spec = json!({ "root": { "path": self.rootfs }, "limits": Limits::default() });
        self.depot("create", handle, &spec.to_string())?;
        Ok(self.depot.join(handle))
    }

    fn depot(&self, verb: &str, handle: &str, request: &str) -> anyhow::Result<()> {
        let mut command = Command::new(host::bin_dir().join("depot"));
        command.arg("--depot").arg(&self.depot).args([verb, handle]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(request.as_bytes())?;
        }
        match child.wait()?.success() {
            true => Ok(()),
            false => anyhow::bail!("{} failed", host::shown(&command)),
        }
    }

    /// What runs on keeps the descriptors it was given, so none may be a pipe that we read.
    fn call(&self, words: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(&self.runtime);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
        match command.status()?.success() {
            true => Ok(()),
            false => anyhow::bail!("{} failed", host::shown(&command)),
        }
    }
}
