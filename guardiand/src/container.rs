//! One container, as the server sees it. Everything here is on disk too, and found again there.

mod begun;
pub(crate) mod bulk;
pub(crate) mod create;
pub(crate) mod destroy;
pub(crate) mod entitlement;
pub(crate) mod facts;
mod forsaken;
pub(crate) mod grace;
pub(crate) mod ids;
pub(crate) mod info;
pub(crate) mod limit;
pub(crate) mod metrics;
pub(crate) mod network;
pub(crate) mod pea;
pub(crate) mod properties;
pub(crate) mod restore;
pub(crate) mod run;
pub(crate) mod stop;
pub(crate) mod top;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::Context;
use guardian_contract::depot::{Bundle, Handle, Init};
use guardian_contract::journal::Journal;

use crate::oom::Watches;
use crate::process::Process;
use facts::Facts;
use grace::Grace;
use properties::Properties;

/// Where in its life a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Being made; its handle is taken, nobody sees it.
    Creating,
    /// There.
    Live,
    /// Being taken away.
    Destroying,
    /// A destroy failed; it is still there and can be destroyed again.
    Broken,
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    /// Where its bundle is.
    pub(crate) bundle: Bundle,
    /// Its properties, ours and the client's.
    pub(crate) properties: Properties,
    /// When it is destroyed for want of clients.
    pub(crate) grace: Grace,
    /// What watches it.
    pub(crate) watches: Watches,
    is_unkillable: AtomicBool,
    phase: Mutex<Phase>,
    facts: Mutex<Option<Arc<Facts>>>,
    /// Held while limits change: one after the other.
    pub(crate) changing: tokio::sync::Mutex<()>,
    init: OnceLock<Init>,
    processes: Mutex<BTreeMap<Handle, Arc<Process>>>,
}

impl Container {
    /// Returns a container with this bundle and these properties.
    pub(crate) fn new(bundle: Bundle, phase: Phase, properties: Properties) -> Arc<Self> {
        Arc::new(Self {
            bundle,
            properties,
            grace: Grace::default(),
            watches: Watches::default(),
            is_unkillable: AtomicBool::new(false),
            phase: Mutex::new(phase),
            facts: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            init: OnceLock::new(),
            processes: Mutex::default(),
        })
    }

    /// Returns its name.
    pub(crate) fn handle(&self) -> &Handle {
        self.bundle.handle()
    }

    /// Returns where in its life it is.
    pub(crate) fn phase(&self) -> Phase {
        *lock(&self.phase)
    }

    /// Moves it on.
    pub(crate) fn set_phase(&self, phase: Phase) {
        *lock(&self.phase) = phase;
    }

    /// Begins to destroy it; `false` when somebody does so already.
    pub(crate) fn begin_destroy(&self) -> bool {
        let mut phase = lock(&self.phase);
        let is_first = *phase != Phase::Destroying;
        *phase = Phase::Destroying;
        is_first
    }

    /// Tells whether the latest try to destroy it met a process that does not die.
    pub(crate) fn is_unkillable(&self) -> bool {
        self.is_unkillable.load(Ordering::Relaxed)
    }

    fn set_unkillable(&self, is_unkillable: bool) {
        self.is_unkillable.store(is_unkillable, Ordering::Relaxed);
    }

    /// Returns the record of what is done to it.
    pub(crate) fn journal(&self) -> Journal {
        Journal::at(self.bundle.journal())
    }

    /// Returns what its bundle says, reading it once.
    ///
    /// # Errors
    /// When the bundle can't be read.
    pub(crate) fn facts(&self) -> anyhow::Result<Arc<Facts>> {
        let mut known = lock(&self.facts);
        if let Some(facts) = &*known {
            return Ok(Arc::clone(facts));
        }
        let facts = Arc::new(Facts::read(&self.bundle)?);
        Ok(Arc::clone(known.insert(facts)))
    }

    /// Has the bundle read again: it has changed.
    pub(crate) fn forget_facts(&self) {
        *lock(&self.facts) = None;
    }

    /// Returns the first process of the container, if it lives.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn init(&self) -> anyhow::Result<&Init> {
        if self.init.get().is_none()
            && let Some(init) = facts::read_init(&self.bundle)
        {
            let _ = self.init.set(init);
        }
        let init = self.init.get().filter(|init| init.is_alive());
        init.with_context(|| format!("container '{}' is not running", self.handle()))
    }

    /// Returns the processes that run, and those whose end was not collected yet.
    pub(crate) fn processes(&self) -> MutexGuard<'_, BTreeMap<Handle, Arc<Process>>> {
        lock(&self.processes)
    }
}

/// Nothing of ours panics while it holds a lock; if something did, the value is still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
