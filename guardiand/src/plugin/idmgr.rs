//! Calls of the id manager.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::garden::{BindMount, VolumeStore};
use guardian_contract::ids::{IdMapping, IdMaps, IdPolicy};
use serde::Deserialize;

use crate::cli;
use crate::invoke::invoke;

/// The id manager works on small files under a lock.
const DEADLINE: Duration = Duration::from_secs(60);

/// A volume may begin as a large directory of the image.
const COPY_DEADLINE: Duration = Duration::from_secs(3600);

/// Who gives ids to containers, and shows them the host's files as theirs.
#[derive(Debug)]
pub(crate) struct Ids {
    program: PathBuf,
    extra: Vec<OsString>,
    policy: IdPolicy,
    /// The maps of containers that get none of their own (gdn's maximus mapping).
    default: IdMaps,
}

/// What the id manager says of a mount.
#[derive(Debug, Deserialize)]
struct Prepared {
    source: String,
    destination: String,
}

impl Ids {
    /// Asks the id manager once for the mapping that all containers share.
    ///
    /// # Errors
    /// With the id manager's own words.
    pub(crate) async fn new(program: PathBuf, flags: &cli::Server) -> anyhow::Result<Self> {
        let lifecycle = &flags.lifecycle;
        let extra = flags.tools.idmgr_extra_arg.iter().map(OsString::from).collect();
        let mut ids =
            Self { program, extra, policy: lifecycle.id_policy, default: IdMaps::default() };
        let numbers = [
            ("--uid-map-start", lifecycle.uid_map_start),
            ("--uid-map-length", lifecycle.uid_map_length),
            ("--gid-map-start", lifecycle.gid_map_start),
            ("--gid-map-length", lifecycle.gid_map_length),
        ];
        let mut args = words(&["allocate", "default", "--policy", "maximus"]);
        for (name, value) in numbers {
            args.extend([name.into(), value.to_string().into()]);
        }
        ids.default = ids.call(&args, DEADLINE).await?;
        Ok(ids)
    }

    /// Returns the path of the program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Returns the policy of a container that wants this one, or none.
    pub(crate) fn policy(&self, wanted: Option<IdPolicy>) -> IdPolicy {
        wanted.unwrap_or(self.policy)
    }

    /// Returns the maps of a container: the shared ones, or ids of its own.
    ///
    /// # Errors
    /// With the id manager's own words.
    pub(crate) async fn allocate(
        &self,
        handle: &Handle,
        policy: IdPolicy,
    ) -> anyhow::Result<IdMaps> {
        match policy {
            IdPolicy::Maximus => Ok(self.default.clone()),
            IdPolicy::Exclusive => {
                let verb = ["allocate", handle.as_str(), "--policy", "exclusive", "--verify"];
                self.call(&words(&verb), DEADLINE).await
            }
        }
    }

    /// Makes a container known, so that mounts can be prepared for it. Without maps its ids are
    /// the host's.
    ///
    /// # Errors
    /// With the id manager's own words.
    pub(crate) async fn register(
        &self,
        handle: &Handle,
        ids: Option<&IdMaps>,
        rootfs: &Path,
    ) -> anyhow::Result<()> {
        let mut args = words(&["register", handle.as_str(), "--rootfs"]);
        args.push(rootfs.into());
        match ids {
            Some(ids) => {
                args.extend(flags("--uid-map", &ids.uid));
                args.extend(flags("--gid-map", &ids.gid));
            }
            None => args.extend(words(&["--policy", "identity"])),
        }
        self.answer(&args, DEADLINE).await.map(drop)
    }

    /// Returns a bind mount that shows the host's files as the container's.
    ///
    /// # Errors
    /// With the id manager's own words.
    pub(crate) async fn mapped(
        &self,
        handle: &Handle,
        mount: &BindMount,
    ) -> anyhow::Result<BindMount> {
        let place = ["--src", &mount.src_path, "--dst", &mount.dst_path, "--strategy", "idmap"];
        let mut args = words(&["mount", "prepare", handle.as_str()]);
        args.extend(words(&place));
        let prepared: Prepared = self.call(&args, DEADLINE).await?;
        Ok(BindMount { src_path: prepared.source, ..mount.clone() })
    }

    /// Makes a volume and returns the bind mount of it.
    ///
    /// # Errors
    /// With the id manager's own words.
    pub(crate) async fn volume(
        &self,
        handle: &Handle,
        store: &VolumeStore,
    ) -> anyhow::Result<BindMount> {
        #[derive(Deserialize)]
        struct Created {
            mount: Prepared,
        }
        let mut args = words(&["volume", "create", handle.as_str(), "--kind", &store.kind]);
        if !store.dst_path.is_empty() {
            args.extend(words(&["--dst", &store.dst_path]));
        }
        let Created { mount } = self.call(&args, COPY_DEADLINE).await?;
        let (src_path, dst_path) = (mount.source, mount.destination);
        Ok(BindMount { src_path, dst_path, mode: 1, ..BindMount::default() })
    }

    /// Writes a container's volumes back into its root filesystem.
    ///
    /// # Errors
    /// With the id manager's own words.
    pub(crate) async fn sync(&self, handle: &Handle) -> anyhow::Result<()> {
        let args = words(&["volume", "sync", handle.as_str()]);
        self.answer(&args, COPY_DEADLINE).await.map(drop)
    }

    /// Takes back whatever a container has of ids, mounts and volumes; nothing is no error.
    ///
    /// # Errors
    /// With the id manager's own words.
    pub(crate) async fn remove(&self, handle: &Handle) -> anyhow::Result<()> {
        self.answer(&words(&["remove", handle.as_str()]), COPY_DEADLINE).await.map(drop)
    }

    async fn call<T: for<'a> Deserialize<'a>>(
        &self,
        verb: &[OsString],
        deadline: Duration,
    ) -> anyhow::Result<T> {
        let answer = self.answer(verb, deadline).await?;
        serde_json::from_slice(&answer).context("parse the answer of idmgr")
    }

    async fn answer(&self, verb: &[OsString], deadline: Duration) -> anyhow::Result<Vec<u8>> {
        let args = [&self.extra, verb].concat();
        let outcome = invoke(&self.program, &args, &[], deadline).await?;
        if outcome.status.success() {
            return Ok(outcome.stdout);
        }
        outcome.relog("idmgr");
        let fault: Option<Fault> = serde_json::from_slice(&outcome.stdout).ok();
        Err(fault.unwrap_or_else(|| Fault::new(Kind::Failed, outcome.complaint())))
            .with_context(|| format!("idmgr: {}", outcome.exit_text()))
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn flags(name: &str, map: &[IdMapping]) -> Vec<OsString> {
    map.iter().flat_map(|extent| [name.into(), extent.to_string().into()]).collect()
}
