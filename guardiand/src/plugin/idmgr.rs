//! Calls of the id manager.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use guardian_contract::depot::Handle;
use guardian_contract::ids::IdMaps;

use crate::cli;
use crate::invoke::invoke;

/// The id manager works on one small file under a lock.
const DEADLINE: Duration = Duration::from_secs(60);

/// Who gives ids to unprivileged containers.
#[derive(Debug)]
pub(crate) struct Ids {
    program: PathBuf,
    policy: cli::IdPolicy,
    /// The maps of containers that get none of their own (gdn's maximus mapping).
    pub(crate) default: IdMaps,
}

impl Ids {
    /// Asks the id manager once for the mapping that all containers share.
    ///
    /// # Errors
    /// With the id manager's own words.
    pub(crate) async fn new(program: PathBuf, flags: &cli::Lifecycle) -> anyhow::Result<Self> {
        let mut ids = Self { program, policy: flags.id_policy, default: IdMaps::default() };
        let numbers = [
            ("--uid-map-start", flags.uid_map_start),
            ("--uid-map-length", flags.uid_map_length),
            ("--gid-map-start", flags.gid_map_start),
            ("--gid-map-length", flags.gid_map_length),
        ];
        let mut args: Vec<OsString> =
            ["allocate", "default", "--policy", "maximus"].map(OsString::from).into();
        for (name, value) in numbers {
            args.extend([name.into(), value.to_string().into()]);
        }
        ids.default = ids.call(&args).await?;
        Ok(ids)
    }

    /// Returns the path of the program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Returns the maps of a container: the shared ones, or ids of its own.
    ///
    /// # Errors
    /// With the id manager's own words.
    pub(crate) async fn allocate(&self, handle: &Handle) -> anyhow::Result<IdMaps> {
        match self.policy {
            cli::IdPolicy::Maximus => Ok(self.default.clone()),
            cli::IdPolicy::Exclusive => {
                let args = ["allocate", handle.as_str(), "--policy", "exclusive"];
                self.call(&args.map(OsString::from)).await
            }
        }
    }

    /// Gives a container's ids back; one that has none is no error.
    ///
    /// # Errors
    /// With the id manager's own words.
    pub(crate) async fn release(&self, handle: &Handle) -> anyhow::Result<()> {
        if self.policy == cli::IdPolicy::Exclusive {
            self.answer(&["release", handle.as_str()].map(OsString::from)).await?;
        }
        Ok(())
    }

    async fn call(&self, args: &[OsString]) -> anyhow::Result<IdMaps> {
        let answer = self.answer(args).await?;
        serde_json::from_slice(&answer).context("parse the answer of idmgr")
    }

    async fn answer(&self, args: &[OsString]) -> anyhow::Result<Vec<u8>> {
        let outcome = invoke(&self.program, args, &[], DEADLINE).await?;
        if !outcome.status.success() {
            outcome.relog("idmgr");
            bail!("idmgr: {}: {}", outcome.exit_text(), outcome.complaint());
        }
        Ok(outcome.stdout)
    }
}
