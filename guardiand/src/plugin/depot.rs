//! Calls of the bundle store.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use guardian_contract::depot::{BundleSpec, Handle};
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::garden::LimitsChange;
use oci_spec::runtime::LinuxResources;

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
    limit_flags: Vec<OsString>,
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
        if flags.throttling.enable_cpu_throttling {
            create_flags.push("--enable-cpu-throttling".into());
        }
        if flags.lifecycle.no_new_privileges {
            create_flags.push("--no-new-privileges".into());
        }
        let limit_flags = limit_flags(&flags.limits);
        create_flags.extend_from_slice(&limit_flags);
        let depot = std::path::absolute(&flags.lifecycle.depot)?;
        Ok(Self { program, depot, create_flags, limit_flags })
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
        self.call(depot, &args, &serde_json::to_vec(spec)?).await.map(drop)
    }

    /// Changes limits in the bundle of `handle`, or only computes what it would then say, and returns
    /// its resources.
    ///
    /// # Errors
    /// With the store's own words.
    pub(crate) async fn update(
        &self,
        handle: &Handle,
        change: &LimitsChange,
        dry_run: bool,
    ) -> anyhow::Result<LinuxResources> {
        self.update_in(&self.depot, handle, change, dry_run).await
    }

    /// The same for the bundle of a pea, which is below `processes`.
    ///
    /// # Errors
    /// With the store's own words.
    pub(crate) async fn update_pea(
        &self,
        processes: &Path,
        process_id: &Handle,
        change: &LimitsChange,
        dry_run: bool,
    ) -> anyhow::Result<LinuxResources> {
        self.update_in(processes, process_id, change, dry_run).await
    }

    async fn update_in(
        &self,
        depot: &Path,
        handle: &Handle,
        change: &LimitsChange,
        dry_run: bool,
    ) -> anyhow::Result<LinuxResources> {
        let mut args = vec![OsString::from("update"), handle.as_str().into()];
        args.extend(dry_run.then(|| "--dry-run".into()));
        args.extend_from_slice(&self.limit_flags);
        let said = self.call(depot, &args, &serde_json::to_vec(change)?).await?;
        serde_json::from_slice(&said).context("depot update: its answer")
    }

    /// Removes the bundle of `handle`.
    ///
    /// # Errors
    /// With the store's own words.
    pub(crate) async fn destroy(&self, handle: &Handle) -> anyhow::Result<()> {
        self.call(&self.depot, &["destroy".into(), handle.as_str().into()], &[]).await.map(drop)
    }

    async fn call(&self, depot: &Path, verb: &[OsString], stdin: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut args = vec!["--depot".into(), depot.into()];
        args.extend_from_slice(verb);
        let outcome = invoke(&self.program, &args, stdin, DEADLINE).await?;
        if outcome.status.success() {
            return Ok(outcome.stdout);
        }
        outcome.relog("depot");
        let fault: Option<Fault> = serde_json::from_slice(&outcome.stdout).ok();
        Err(fault.unwrap_or_else(|| Fault::new(Kind::Failed, outcome.complaint())))
            .with_context(|| format!("depot: {}", outcome.exit_text()))
    }
}

/// The flags that shape limits, of a new bundle and of one that is changed.
fn limit_flags(limits: &cli::Limits) -> Vec<OsString> {
    let numbers = [
        ("--cpu-quota-per-share", limits.cpu_quota_per_share),
        ("--default-container-blockio-weight", limits.default_container_blockio_weight.into()),
        ("--container-io-max-read-bps", limits.container_io_max_read_bps),
        ("--container-io-max-write-bps", limits.container_io_max_write_bps),
        ("--container-io-max-read-iops", limits.container_io_max_read_iops),
        ("--container-io-max-write-iops", limits.container_io_max_write_iops),
    ];
    let given = numbers.into_iter().filter(|(_, number)| *number > 0);
    let mut flags: Vec<OsString> =
        given.flat_map(|(name, number)| [name.into(), number.to_string().into()]).collect();
    flags.extend(limits.disable_swap_limit.then(|| "--disable-swap-limit".into()));
    flags
}
