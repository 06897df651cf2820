//! Calls of the bundle store.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use guardian_contract::depot::{BundleSpec, Handle};
use guardian_contract::fault::{Fault, Kind};

use crate::cli;
use crate::invoke::invoke;

/// A store answers in milliseconds; one that does not is stuck on its disk.
const DEADLINE: Duration = Duration::from_secs(120);

/// The `depot` program with the arguments that never change.
#[derive(Debug)]
pub(crate) struct DepotTool {
    program: PathBuf,
    depot: PathBuf,
    create_flags: Vec<OsString>,
}

impl DepotTool {
    /// Returns the store as the flags describe it.
    ///
    /// # Errors
    /// When the working directory is gone.
    pub(crate) fn new(program: PathBuf, init: &Path, flags: &cli::Server) -> anyhow::Result<Self> {
        let mut create_flags: Vec<OsString> = vec!["--init-bin".into(), init.into()];
        let mut flag = |name: &str, value: &dyn std::fmt::Display| {
            create_flags.extend([OsString::from(name), value.to_string().into()]);
        };
        if !flags.listen.tag.is_empty() {
            flag("--tag", &flags.listen.tag);
        }
        flags.lifecycle.apparmor.iter().for_each(|profile| flag("--apparmor", profile));
        flags.lifecycle.device_cgroup_rule.iter().for_each(|r| flag("--device-cgroup-rule", r));
        if flags.limits.cpu_quota_per_share > 0 {
            flag("--cpu-quota-per-share", &flags.limits.cpu_quota_per_share);
        }
        if flags.limits.default_container_blockio_weight > 0 {
            let weight = flags.limits.default_container_blockio_weight;
            flag("--default-container-blockio-weight", &weight);
        }
        if flags.limits.disable_swap_limit {
            create_flags.push("--disable-swap-limit".into());
        }
        if flags.lifecycle.no_new_privileges {
            create_flags.push("--no-new-privileges".into());
        }
        Ok(Self { program, depot: std::path::absolute(&flags.lifecycle.depot)?, create_flags })
    }

    /// Returns the path of the program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Writes the bundle of `handle`.
    ///
    /// # Errors
    /// With the store's own words.
    pub(crate) async fn create(&self, handle: &Handle, spec: &BundleSpec) -> anyhow::Result<()> {
        self.create_in(&self.depot, handle, spec).await
    }

    /// Writes the bundle of a pea into its process directory, which is below `processes`.
    ///
    /// # Errors
    /// With the store's own words.
    pub(crate) async fn create_pea(
        &self,
        processes: &Path,
        process_id: &Handle,
        spec: &BundleSpec,
    ) -> anyhow::Result<()> {
        self.create_in(processes, process_id, spec).await
    }

    async fn create_in(
        &self,
        depot: &Path,
        handle: &Handle,
        spec: &BundleSpec,
    ) -> anyhow::Result<()> {
        let mut args = vec![OsString::from("create"), handle.as_str().into()];
        args.extend_from_slice(&self.create_flags);
        self.call(depot, &args, &serde_json::to_vec(spec)?).await
    }

    /// Removes the bundle of `handle`.
    ///
    /// # Errors
    /// With the store's own words.
    pub(crate) async fn destroy(&self, handle: &Handle) -> anyhow::Result<()> {
        self.call(&self.depot, &["destroy".into(), handle.as_str().into()], &[]).await
    }

    async fn call(&self, depot: &Path, verb: &[OsString], stdin: &[u8]) -> anyhow::Result<()> {
        let mut args = vec!["--depot".into(), depot.into()];
        args.extend_from_slice(verb);
        let outcome = invoke(&self.program, &args, stdin, DEADLINE).await?;
        if outcome.status.success() {
            return Ok(());
        }
        outcome.relog("depot");
        let fault: Option<Fault> = serde_json::from_slice(&outcome.stdout).ok();
        Err(fault.unwrap_or_else(|| Fault::new(Kind::Failed, outcome.complaint())))
            .with_context(|| format!("depot: {}", outcome.exit_text()))
    }
}
