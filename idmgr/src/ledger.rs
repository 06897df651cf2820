//! Who holds which ids: the state, and its two changes. Pure; [`crate::store`] keeps it on disk.

use std::collections::BTreeMap;

use guardian_contract::depot::Handle;
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::ids::{IdMapping, IdMaps};
use serde::{Deserialize, Serialize};

use crate::block::{BLOCK, Blocks};
use crate::range::Range;
use crate::request::{Allocate, Exhausted, Policy};

/// The state on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// Where the next search begins.
    #[serde(default)]
    cursor: u64,
    /// Who holds what.
    #[serde(default)]
    pub(crate) holders: BTreeMap<Handle, Holding>,
    /// What others on this host use, as far as it was looked for.
    #[serde(skip)]
    pub(crate) foreign: Vec<Range>,
}

/// What one container holds: `size` host ids from `start` on, for users and groups alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holding {
    /// Exclusive or shared.
    pub(crate) policy: Policy,
    /// First host id, which is container root's.
    pub(crate) start: u32,
    /// A multiple of [`BLOCK`].
    pub(crate) size: u32,
    /// Whether the ids were somebody else's already, because none were free.
    pub(crate) reused: bool,
}

impl Holding {
    /// Returns the ids.
    pub(crate) fn range(&self) -> Range {
        let start = u64::from(self.start);
        Range { start, end: start + u64::from(self.size) }
    }

    /// Returns the maps of the container.
    pub(crate) fn maps(&self) -> IdMaps {
        let map = vec![IdMapping { container_id: 0, host_id: self.start, size: self.size }];
        IdMaps { uid: map.clone(), gid: map }
    }
}

impl Ledger {
    /// Gives ids out of `ranges` to a container, or says which it holds already.
    pub(crate) fn allocate(
        &mut self,
        ranges: &[Range],
        request: &Allocate,
    ) -> Result<Holding, Fault> {
        let (id, policy) = (&request.id, request.policy);
        let size = request.size.checked_next_multiple_of(BLOCK).ok_or_else(|| {
            Fault::invalid(format!("size {} is more than there are ids", request.size))
        })?;
        if let Some(held) = self.holders.get(id) {
            let same = (held.policy, held.size) == (policy, size);
            return if same { Ok(*held) } else { Err(conflict(id, held)) };
        }
        let sharer = self.with(policy, size).next().filter(|_| policy == Policy::Shared);
        let holding = match sharer {
            Some((_, held)) => *held,
            None => self.fresh(ranges, request, size)?,
        };
        self.holders.insert(id.clone(), holding);
        Ok(holding)
    }

    /// Gives a container the ids that another one has, as its own until both are released.
    pub(crate) fn join(&mut self, id: &Handle, other: &Handle) {
        if let Some(held) = self.holders.get(other).copied() {
            self.holders.insert(id.clone(), Holding { reused: true, ..held });
        }
    }

    /// Takes a container's ids back; tells whether it had any.
    pub(crate) fn release(&mut self, id: &Handle) -> bool {
        self.holders.remove(id).is_some()
    }

    /// Returns the blocks of `ranges`, with those in use marked.
    pub(crate) fn blocks(&self, ranges: &[Range]) -> Blocks {
        let foreign = self.foreign.iter().copied();
        Blocks::new(ranges, self.holders.values().map(Holding::range).chain(foreign))
    }

    fn fresh(&mut self, ranges: &[Range], request: &Allocate, size: u32) -> Result<Holding, Fault> {
        let blocks = self.blocks(ranges);
        let policy = request.policy;
        if let Some(start) = blocks.find((size / BLOCK) as usize, self.cursor) {
            let holding = Holding { policy, start, size, reused: false };
            self.cursor = holding.range().end;
            return Ok(holding);
        }
        let may_reuse = policy == Policy::Exclusive && request.exhausted == Exhausted::Reuse;
        if let Some(held) = self.least_held(size).filter(|_| may_reuse) {
            return Ok(Holding { reused: true, ..held });
        }
        let (all, free) = blocks.count();
        let message = format!(
            "no {size} subordinate ids in a row left for '{}': \
             {free} of {all} blocks of {BLOCK} are free",
            request.id
        );
        Err(Fault::new(Kind::Exhausted, message))
    }

    /// Returns the exclusive holding of this size that the fewest containers have.
    fn least_held(&self, size: u32) -> Option<Holding> {
        let mut counts: BTreeMap<u32, (usize, Holding)> = BTreeMap::new();
        for (_, held) in self.with(Policy::Exclusive, size) {
            counts.entry(held.start).or_insert((0, *held)).0 += 1;
        }
        counts.into_values().min_by_key(|(count, _)| *count).map(|(_, held)| held)
    }

    fn with(&self, policy: Policy, size: u32) -> impl Iterator<Item = (&Handle, &Holding)> {
        self.holders.iter().filter(move |(_, held)| (held.policy, held.size) == (policy, size))
    }
}

fn conflict(id: &Handle, held: &Holding) -> Fault {
    let policy = if held.policy == Policy::Shared { "shared" } else { "exclusive" };
    Fault::exists(format!("'{id}' holds {} {policy} ids already", held.size))
}

#[cfg(test)]
mod tests;
