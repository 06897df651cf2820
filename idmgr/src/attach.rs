//! `attach`: an id-mapped view of a source, mounted at once and for whoever calls. Through the
//! server it arrives as descriptors, and is mounted where the caller lives: a hook of a runtime can
//! so mount in a container what it could not see from there.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use guardian_contract::fault::Fault;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::container::Maps;
use crate::mark::{self, Clone};
use crate::request::absolute;

/// `attach`
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct Attach {
    /// File or directory, as the server sees it
    #[arg(value_parser = absolute)]
    source: PathBuf,
    /// Where to mount it, as the caller sees it
    #[arg(value_parser = absolute)]
    destination: PathBuf,
    /// The id maps through which it is shown
    #[command(flatten)]
    maps: Maps,
    /// With the mounts below it
    #[arg(long)]
    recursive: bool,
}

impl Attach {
    /// Makes the view.
    pub(crate) fn open(&self) -> anyhow::Result<Vec<Clone>> {
        let maps = self.maps.given()?;
        let maps = maps.context(Fault::invalid("--uid-map and --gid-map are needed"))?;
        let source = std::fs::canonicalize(&self.source)
            .with_context(|| format!("find {}", self.source.display()))?;
        mark::clone(&source, &maps, self.recursive)
    }

    /// Mounts it here.
    pub(crate) fn attach(&self, clones: &[Clone]) -> anyhow::Result<Value> {
        mark::attach(clones, &self.destination)?;
        Ok(json!({"attached": clones.iter().map(|one| &one.shown).collect::<Vec<_>>()}))
    }
}
