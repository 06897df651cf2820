//! Where the ledger is kept, and which ids it may give away.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use guardian_contract::fault::Fault;
use guardian_contract::file;

use crate::ledger::Ledger;
use crate::range::{Range, common, parse};

/// The places on this host. Every program that works on one state directory must be told the same
/// ones, so they are no part of a request.
#[derive(Debug, Clone, Args)]
pub(crate) struct Store {
    /// Directory of the state
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/idmgr")]
    pub(crate) state_dir: PathBuf,
    /// User whose subordinate ids are given away
    #[arg(long, global = true, value_name = "NAME", default_value = "root")]
    owner: String,
    /// File of subordinate users
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/subuid")]
    subuid: PathBuf,
    /// File of subordinate groups
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/subgid")]
    subgid: PathBuf,
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
