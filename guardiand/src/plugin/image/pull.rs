//! Pulling an image before a container asks for it: a verb that only our own plugin has.

use std::process::Stdio;

use anyhow::{Context, bail};
use guardian_contract::fault::Fault;
use guardian_contract::garden::ImageRef;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::ImagePlugins;

impl ImagePlugins {
    /// Starts to pull an image into the store of the containers of one kind. The child tells on stderr
    /// how far it is, and on stdout what came of it; it dies when it is dropped.
    ///
    /// # Errors
    /// `Unsupported` where there is no plugin of ours.
    pub(crate) async fn pull(&self, image: &ImageRef, privileged: bool) -> anyhow::Result<Child> {
        let plugin = if privileged { &self.privileged } else { &self.unprivileged };
        let Some(plugin) = plugin.as_ref().filter(|plugin| plugin.is_ours) else {
            bail!(Fault::unsupported("the image plugin can't pull ahead; only rootfs can"));
        };
        let mut command = Command::new(&plugin.program);
        command.args(&plugin.extra).args(["pull", "--progress", "json"]);
        if !image.username.is_empty() {
            command.args(["--username", &image.username, "--password-file", "-"]);
        }
        let mut child = command
            .arg(&image.uri)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("exec {}", plugin.program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read it is judged by its exit code.
            let _ = stdin.write_all(image.password.as_bytes()).await;
        }
        Ok(child)
    }
}
