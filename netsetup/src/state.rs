//! What is written down between calls: the pool and the leases of one network namespace, under
//! one lock that is held for a whole verb.
//!
//! `STATE/net-N/` belongs to the namespace with the kernel's number N, so that calls from several
//! namespaces don't mix; state of an earlier boot is dropped when found. A claim is first noted in
//! the pool file together with its owner (`pending`), then written into the owner's lease. Who
//! opens the state next trusts the lease: what a pending claim names and its owner's lease
//! doesn't, is free. So whoever is killed at any moment loses nothing and keeps nothing.

use std::fs::File;
use std::path::{Path, PathBuf};

use guardian_contract::depot::{Handle, boot_id};
use guardian_contract::{file, log};
use serde::{Deserialize, Serialize};

use crate::address::{Addresses, Place};
use crate::lease::{Lease, Leases};
use crate::netns;
use crate::port::{PortRange, Ports};

/// What is free and what is not.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Pool {
    boot_id: String,
    /// Subnets and addresses.
    pub(crate) addresses: Addresses,
    ports: Ports,
    pending: Option<Claim>,
}

/// Things taken from the pool for one handle, or about to be given back by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    handle: Handle,
    place: Option<Place>,
    ports: Vec<u16>,
}

impl Claim {
    /// Returns the claim on all that `lease` holds.
    pub(crate) fn whole(lease: &Lease) -> Self {
        let ports = lease.mappings.iter().map(|mapping| mapping.host_port).collect();
        Self { handle: lease.handle.clone(), place: Some(lease.place), ports }
    }

    /// Returns the claim on one port.
    pub(crate) fn port(handle: &Handle, port: u16) -> Self {
        Self { handle: handle.clone(), place: None, ports: vec![port] }
    }
}

/// The state, locked.
#[derive(Debug)]
pub(crate) struct State {
    dir: PathBuf,
    /// What is free; changes count once they are written with [`State::claim`].
    pub(crate) pool: Pool,
    /// Who holds what.
    pub(crate) leases: Leases,
    lock: File,
}

impl State {
    /// Locks and reads the state of the present network namespace below `dir`.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let dir = directory(dir)?;
        let leases = leases_in(&dir);
        leases.make_dir()?;
        let lock = file::lock(&dir.join("lock"))?;
        let pool: Pool = file::read_json(&pool_file(&dir))?.unwrap_or_default();
        let mut state = Self { dir, pool, leases, lock };
        if state.pool.boot_id != boot_id() {
            state.forget_everything()?;
        }
        state.settle_pending()?;
        Ok(state)
    }

    /// Returns the pool of host ports. When it was made for another range, it is made anew, less
    /// what is in use.
    pub(crate) fn ports(&mut self, range: PortRange) -> anyhow::Result<&mut Ports> {
        if self.pool.ports.range() != range {
            let all = self.leases.all()?;
            let taken = all.iter().flat_map(|lease| &lease.mappings).map(|m| m.host_port);
            self.pool.ports = Ports::new(range, taken);
        }
        Ok(&mut self.pool.ports)
    }

    /// Returns the lock we hold.
    pub(crate) fn lock(&self) -> &File {
        &self.lock
    }

    /// Does `work`; when that fails, what it took from the pool is free again.
    pub(crate) fn attempt<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let before = self.pool.clone();
        let done = work(self);
        if done.is_err() {
            self.pool = before;
        }
        done
    }

    /// Writes down that what `claim` names, already taken from the pool, is now in `lease`.
    pub(crate) fn claim(&mut self, claim: Claim, lease: &Lease) -> anyhow::Result<()> {
        self.pool.pending = Some(claim);
        self.save_pool()?;
        self.leases.save(lease)
    }

    /// Gives back what `claim` names; `lease` is what its owner still holds, if anything.
    pub(crate) fn give_back(&mut self, claim: Claim, lease: Option<&Lease>) -> anyhow::Result<()> {
        self.pool.pending = Some(claim.clone());
        self.save_pool()?;
        match lease {
            Some(lease) => self.leases.save(lease)?,
            None => self.leases.remove(&claim.handle)?,
        }
        self.settle_pending()?;
        self.save_pool()
    }

    /// Returns the directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns where what `setup` found out is kept.
    pub(crate) fn host_file(&self) -> PathBuf {
        self.dir.join("host.json")
    }

    fn settle_pending(&mut self) -> anyhow::Result<()> {
        let Some(claim) = self.pool.pending.take() else { return Ok(()) };
        let lease = self.leases.load(&claim.handle)?;
        let is_held = |port: u16| {
            lease.as_ref().is_some_and(|l| l.mappings.iter().any(|m| m.host_port == port))
        };
        for port in claim.ports.into_iter().filter(|port| !is_held(*port)) {
            self.pool.ports.release(port);
        }
        if let Some(place) = claim.place
            && lease.as_ref().is_none_or(|lease| lease.place != place)
        {
            self.pool.addresses.release(place);
        }
        Ok(())
    }

    fn forget_everything(&mut self) -> anyhow::Result<()> {
        if !self.pool.boot_id.is_empty() {
            log::info("state-of-earlier-boot-dropped", &serde_json::json!({"dir": self.dir}));
        }
        self.leases.clear()?;
        self.pool = Pool { boot_id: boot_id(), ..Pool::default() };
        Ok(())
    }

    fn save_pool(&self) -> anyhow::Result<()> {
        file::replace_json(&pool_file(&self.dir), &self.pool)
    }
}

/// Returns the leases of the present network namespace for reading only: no lock, nothing made.
pub(crate) fn leases(dir: &Path) -> anyhow::Result<Leases> {
    Ok(leases_in(&directory(dir)?))
}

fn directory(dir: &Path) -> anyhow::Result<PathBuf> {
    Ok(dir.join(format!("net-{}", netns::own_id()?)))
}

fn leases_in(dir: &Path) -> Leases {
    Leases::at(dir.join("leases"))
}

fn pool_file(dir: &Path) -> PathBuf {
    dir.join("pool.json")
}
