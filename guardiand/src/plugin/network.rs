//! Calls of the network plugin.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::garden::{NetIn, NetOutRule};
use guardian_contract::log;
use guardian_contract::network::{
    BulkNetOutRequest, LimitRequest, NetInRequest, NetOutRequest, Up, UpAnswer,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::invoke::invoke;

/// A plugin may ask a controller elsewhere; beyond this it is stuck.
const DEADLINE: Duration = Duration::from_secs(300);

/// The network plugin of this server.
#[derive(Debug)]
pub(crate) struct NetworkPlugin {
    program: PathBuf,
    extra: Vec<OsString>,
    is_ours: bool,
}

/// What our own plugin says when it is set up.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SetUp {
    /// The host's address for mapped ports.
    pub(crate) external_ip: String,
    /// How many containers get a subnet.
    pub(crate) capacity: u64,
}

impl NetworkPlugin {
    /// Returns our own plugin with its flags.
    pub(crate) fn ours(program: PathBuf, extra: Vec<OsString>) -> Self {
        Self { program, extra, is_ours: true }
    }

    /// Returns somebody else's plugin with the operator's arguments.
    pub(crate) fn foreign(program: PathBuf, extra: Vec<OsString>) -> Self {
        Self { program, extra, is_ours: false }
    }

    /// Returns the path of the program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Prepares the host; our own plugin also brings back what living containers had, should
    /// somebody have flushed the firewall meanwhile. A foreign plugin has no such action: its capacity has no bound, and the
    /// external address is what the operator said.
    ///
    /// # Errors
    /// With the plugin's own words.
    pub(crate) async fn set_up(&self, external_ip: Option<String>) -> anyhow::Result<SetUp> {
        if !self.is_ours {
            let external_ip = external_ip.unwrap_or_default();
            return Ok(SetUp { external_ip, capacity: u64::MAX });
        }
        let answer = self.call("setup", "", &()).await?;
        serde_json::from_slice(&answer).context("unmarshaling result from netsetup")
    }

    /// Connects a container.
    ///
    /// # Errors
    /// In gdn's words.
    pub(crate) async fn up(&self, handle: &Handle, up: &Up) -> anyhow::Result<UpAnswer> {
        parse(&self.call("up", handle.as_str(), up).await?)
    }

    /// Disconnects a container; one never seen is no error.
    ///
    /// # Errors
    /// In gdn's words.
    pub(crate) async fn down(&self, handle: &Handle) -> anyhow::Result<()> {
        self.call("down", handle.as_str(), &()).await.map(drop)
    }

    /// Maps a port.
    ///
    /// # Errors
    /// In gdn's words.
    pub(crate) async fn net_in(
        &self,
        handle: &Handle,
        ask: &NetInRequest,
    ) -> anyhow::Result<NetIn> {
        parse(&self.call("net-in", handle.as_str(), ask).await?)
    }

    /// Lets outbound traffic through.
    ///
    /// # Errors
    /// In gdn's words.
    pub(crate) async fn net_out(&self, handle: &Handle, ask: &NetOutRequest) -> anyhow::Result<()> {
        self.call("net-out", handle.as_str(), ask).await.map(drop)
    }

    /// Lets outbound traffic through, all rules or none.
    ///
    /// # Errors
    /// In gdn's words.
    pub(crate) async fn bulk_net_out(
        &self,
        handle: &Handle,
        container_ip: String,
        rules: Vec<NetOutRule>,
    ) -> anyhow::Result<()> {
        let ask = BulkNetOutRequest { container_ip, netout_rules: rules };
        self.call("bulk-net-out", handle.as_str(), &ask).await.map(drop)
    }

    /// Tells whether the plugin can change a container's bandwidth. Nobody else's is asked: gdn's
    /// contract has no such action.
    ///
    /// # Errors
    /// `Unsupported` when it can't.
    pub(crate) fn check_limit(&self) -> anyhow::Result<()> {
        if self.is_ours {
            return Ok(());
        }
        let program = self.program.display();
        Err(Fault::unsupported(format!(
            "bandwidth_limits of a container that is there can't be changed: the network plugin \
             {program} is not guardian's netsetup, and has no action for it"
        ))
        .into())
    }

    /// Changes how much may pass to and from a container; answers as [`NetworkPlugin::up`] does.
    ///
    /// # Errors
    /// With our plugin's own words.
    pub(crate) async fn limit(
        &self,
        handle: &Handle,
        ask: &LimitRequest,
    ) -> anyhow::Result<UpAnswer> {
        self.check_limit()?;
        parse(&self.call("limit", handle.as_str(), ask).await?)
    }

    async fn call(
        &self,
        action: &str,
        handle: &str,
        stdin: &impl Serialize,
    ) -> anyhow::Result<Vec<u8>> {
        let mut args = self.extra.clone();
        args.extend(["--action".into(), action.into()]);
        if !handle.is_empty() {
            args.extend(["--handle".into(), handle.into()]);
        }
        let outcome = invoke(&self.program, &args, &serde_json::to_vec(stdin)?, DEADLINE).await?;
        if !outcome.status.success() {
            let said = outcome.complaint();
            let data = json!({"action": action, "handle": handle, "output": said});
            log::error("external-networker-result", &data);
            // Our own plugin's words reach the client: they name what is wrong with its request.
            if self.is_ours {
                bail!("{said}");
            }
            let exit = outcome.exit_text();
            bail!("external networker encountered an error running '{action}' action: {exit}");
        }
        if !outcome.stderr.is_empty() {
            outcome.relog("external-networker-result");
        }
        Ok(outcome.stdout)
    }
}

/// A plugin may have nothing to say.
fn parse<T: for<'a> Deserialize<'a> + Default>(stdout: &[u8]) -> anyhow::Result<T> {
    if stdout.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    serde_json::from_slice(stdout).context("unmarshaling result from external networker")
}
