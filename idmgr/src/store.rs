//! Where the ledger is kept, and which ids it may give away.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::file;

use crate::entry::Entry;
use crate::ledger::Ledger;
use crate::range::{Range, common, parse};
use crate::record::Record;

/// The places on this host. Every program that works on one state directory must be told the same
/// ones, so they are no part of a request.
#[derive(Debug, Clone, Args)]
pub(crate) struct Store {
    /// Directory of the state
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/idmgr")]
    pub(crate) state_dir: PathBuf,
    /// Directory of marks, on a filesystem that is empty after a boot
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/idmgr")]
    run_dir: PathBuf,
    /// How many seconds somebody else's lock is waited for
    #[arg(long, global = true, value_name = "S", default_value_t = 30)]
    lock_timeout: u64,
    /// User whose subordinate ids are given away
    #[arg(long, global = true, value_name = "NAME", default_value = "root")]
    pub(crate) owner: String,
    /// File of subordinate users
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/subuid")]
    pub(crate) subuid: PathBuf,
    /// File of subordinate groups
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/subgid")]
    pub(crate) subgid: PathBuf,
}

/// The ledger, locked. Dropping it unlocks; only [`Open::save`] changes what is on disk.
#[derive(Debug)]
pub(crate) struct Open {
    path: PathBuf,
    /// What was read, and is to be changed.
    pub(crate) ledger: Ledger,
    _lock: File,
}

impl Open {
    /// Replaces what is on disk.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        file::replace_json(&self.path, &self.ledger)
    }
}

impl Store {
    /// The entries of containers ([`crate::record`]).
    pub(crate) fn containers(&self) -> PathBuf {
        self.state_dir.join("containers")
    }

    /// The entries of mounted sources ([`crate::source`]).
    pub(crate) fn sources(&self) -> PathBuf {
        self.state_dir.join("sources")
    }

    /// Volumes: a directory for each container.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.state_dir.join("volumes")
    }

    /// Marks ([`crate::mark`]).
    pub(crate) fn marks(&self) -> PathBuf {
        self.run_dir.join("marks")
    }

    /// Returns how long a lock is waited for.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.lock_timeout)
    }

    /// Locks and reads what is known of a container.
    ///
    /// # Errors
    /// As [`Entry::open`].
    pub(crate) fn container(&self, id: &Handle) -> anyhow::Result<Entry<Record>> {
        Entry::open(&self.containers().join(id.as_str()), self.patience())
    }

    /// The same for a container that has to be known.
    ///
    /// # Errors
    /// `NotFound`, and as [`Entry::open`].
    pub(crate) fn known(&self, id: &Handle) -> anyhow::Result<(Entry<Record>, Record)> {
        let unknown = || Fault::not_found(format!("container '{id}' is not registered"));
        if !self.containers().join(id.as_str()).is_dir() {
            return Err(unknown().into());
        }
        let entry = self.container(id)?;
        match entry.document.clone() {
            Some(record) => Ok((entry, record)),
            None => {
                entry.delete()?;
                Err(unknown().into())
            }
        }
    }

    /// Locks and reads the ledger; waits for others. The kernel drops the lock of a killed holder.
    pub(crate) fn open(&self) -> anyhow::Result<Open> {
        let directory = self.state_dir.join("subid");
        file::private_dir(&directory)?;
        let lock = file::lock(&directory.join("lock"))?;
        let path = directory.join("state.json");
        Ok(Open { ledger: file::read_json(&path)?.unwrap_or_default(), path, _lock: lock })
    }

    /// Returns the ids that may be given away: those of the owner in both files.
    pub(crate) fn ranges(&self) -> anyhow::Result<Vec<Range>> {
        let (uid, gid) = (self.read(&self.subuid)?, self.read(&self.subgid)?);
        let ranges = common(&uid, &gid);
        if ranges.is_empty() {
            let message = format!(
                "{} and {} have no range of '{}' in common",
                self.subuid.display(),
                self.subgid.display(),
                self.owner
            );
            return Err(Fault::unsupported(message).into());
        }
        Ok(ranges)
    }

    fn read(&self, path: &Path) -> anyhow::Result<Vec<Range>> {
        let name = path.display();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("read {name}")),
        };
        let ranges = parse(&text, &self.owner, &name.to_string())?;
        if ranges.is_empty() {
            let owner = &self.owner;
            let message = format!(
                "{name} has no range of '{owner}'; a line like '{owner}:100000:268435456' gives one"
            );
            return Err(Fault::unsupported(message).into());
        }
        Ok(ranges)
    }
}
