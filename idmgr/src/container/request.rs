//! What is said of a container when it is registered, or later.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use guardian_contract::depot::Init;
use guardian_contract::fault::Fault;
use guardian_contract::ids::{IdMapping, IdMaps};
use serde::{Deserialize, Serialize};

use crate::owner;
use crate::record::{Namespace, Record};
use crate::request::{Allocate, absolute};

/// `register`
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct Register {
    /// What ids it gets; nothing is allocated where the maps are given or shared
    #[command(flatten)]
    pub(crate) allocate: Allocate,
    /// Its id maps, where they are not for us to allocate
    #[command(flatten)]
    pub(crate) maps: Maps,
    /// Its root filesystem
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(crate) rootfs: Option<PathBuf>,
    /// It will not be started again: nothing is written back into its root filesystem
    #[arg(long)]
    pub(crate) auto_remove: bool,
    /// Its namespaces and process
    #[command(flatten)]
    pub(crate) refs: References,
}

/// Id maps as the OCI runtime spec has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct Maps {
    /// Users: first in the container, first on the host, how many; may be given again
    #[arg(long = "uid-map", value_name = "C:H:N")]
    uid: Vec<IdMapping>,
    /// Groups, in the same way
    #[arg(long = "gid-map", value_name = "C:H:N")]
    gid: Vec<IdMapping>,
}

impl Maps {
    /// Returns the maps; `None` where none were given.
    ///
    /// # Errors
    /// `Invalid` when only one was given, or one leaves out root.
    pub(crate) fn given(&self) -> anyhow::Result<Option<IdMaps>> {
        let maps = IdMaps { uid: self.uid.clone(), gid: self.gid.clone() };
        match (maps.uid.is_empty(), maps.gid.is_empty()) {
            (true, true) => Ok(None),
            (false, false) => owner::root_of(&maps).map(|_| Some(maps)).map_err(Into::into),
            _ => Err(Fault::invalid("both --uid-map and --gid-map are needed").into()),
        }
    }
}

/// What a container is found by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct References {
    /// Its user namespace
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    pub(crate) userns: Option<PathBuf>,
    /// Its network namespace; a container that shares it shares the user namespace and the maps
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    pub(crate) netns: Option<PathBuf>,
    /// A process whose end is the container's
    #[arg(long)]
    pub(crate) pid: Option<i32>,
}

impl References {
    /// Looks at what is referred to, and notes it.
    ///
    /// # Errors
    /// `NotFound`, with what is not there.
    pub(super) fn apply(&self, record: &mut Record) -> anyhow::Result<()> {
        if let Some(path) = &self.userns {
            record.userns = Some(Namespace::at(path)?);
        }
        if let Some(path) = &self.netns {
            record.netns = Some(Namespace::at(path)?);
        }
        if let Some(pid) = self.pid {
            let gone = || Fault::not_found(format!("there is no process {pid}"));
            record.process = Some(Init::of(pid).with_context(gone)?);
        }
        Ok(())
    }
}
