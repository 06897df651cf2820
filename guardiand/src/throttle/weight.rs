//! Version 2: a bad container has a smaller weight, and stays where it is.
//!
//! There all controllers share one tree, so a process that moves takes nothing of its memory along
//! (cgroup-v2.rst, Memory Ownership), and leaves its limits and its devices' filter behind. What
//! moving would do for the processor, weights do too: the kernel shares by weight among those who
//! want the processor, and who that is the last look has shown.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use guardian_contract::depot::Handle;

use super::{Seen, halves};
use crate::cgroup::limit::{number, write};
use crate::container::Container;
use crate::container::facts::Facts;

/// Nanoseconds of processor time that containers had used at the last look.
pub(super) type Uses = BTreeMap<Handle, u64>;

/// The kernel's default.
const WEIGHT: u64 = 100;
/// The shares it stands for.
const SHARES: u64 = 1024;

/// A container that has used so much since the last look wants the processor.
const ACTIVE_NS: u64 = 50_000_000;

/// What weights are made of.
#[derive(Debug, Clone, Copy)]
struct Part {
    weight: u64,
    shares: u64,
    is_bad: bool,
    is_active: bool,
}

/// Gives every container the weight that it is to have until the next look.
pub(super) fn balance(seen: &[Seen], before: &Uses, multiplier: f64) -> anyhow::Result<()> {
    let mut parts = Vec::new();
    for one in seen {
        let facts = one.container.facts()?;
        let used = before.get(one.container.handle()).copied().unwrap_or(0);
        parts.push(Part {
            weight: own_weight(&facts),
            shares: Some(facts.shares()).filter(|shares| *shares > 0).unwrap_or(SHARES),
            is_bad: one.is_bad(),
            is_active: one.used.saturating_sub(used) > ACTIVE_NS,
        });
    }
    let weights = weights(&parts, multiplier);
    seen.iter().zip(weights).try_for_each(|(one, weight)| set(&one.container, weight))
}

/// Gives a container its own weight back.
pub(super) fn release(container: &Container) -> anyhow::Result<()> {
    let weight = own_weight(&*container.facts()?);
    match container.init() {
        Ok(_) => set(container, weight),
        Err(_) => Ok(()),
    }
}

fn own_weight(facts: &Facts) -> u64 {
    if facts.cpu_is_weight { facts.cpu } else { WEIGHT }
}

fn set(container: &Container, weight: u64) -> anyhow::Result<()> {
    let dir: Option<PathBuf> = container.groups()?.0.iter().find_map(|one| one.controller("cpu"));
    let dir = dir.context("the container has no cpu cgroup")?;
    match number(&dir, "cpu.weight")? == weight {
        true => Ok(()),
        false => write(&dir, "cpu.weight", &weight.to_string()),
    }
}

/// The good keep their weights. Those of the bad are to those of the good who want the processor as
/// the halves are to each other. Where none of the good wants it, the least of them is taken: should
/// it want to, it has what is its own at once. Nobody gets more than is its own.
fn weights(parts: &[Part], multiplier: f64) -> Vec<u64> {
    let bad_shares: u64 = parts.iter().filter(|part| part.is_bad).map(|part| part.shares).sum();
    let (good, bad) = halves(bad_shares, multiplier);
    let all_good = || parts.iter().filter(|part| !part.is_bad);
    let active: u64 = all_good().filter(|part| part.is_active).map(|part| part.weight).sum();
    let least = all_good().map(|part| part.weight).min();
    let rivals = if active > 0 { Some(active) } else { least };
    let of = |part: &Part| match rivals {
        Some(rivals) if part.is_bad => {
            let (rivals, bad, shares) =
                (u128::from(rivals), u128::from(bad), u128::from(part.shares));
            let weight = rivals * bad * shares / u128::from(good.max(1) * bad_shares.max(1));
            u64::try_from(weight).unwrap_or(part.weight).clamp(1, part.weight)
        }
        _ => part.weight,
    };
    parts.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::entitlement::total_shares;

    fn part(weight: u64, shares: u64, is_bad: bool, is_active: bool) -> Part {
        Part { weight, shares, is_bad, is_active }
    }

    #[test]
    fn without_good_or_bad_containers_nothing_changes() {
        let good = [part(100, 1024, false, true), part(17, 100, false, false)];
        assert_eq!(weights(&good, 1.0), [100, 17]);
        let bad = [part(100, 1024, true, true), part(17, 100, true, true)];
        assert_eq!(weights(&bad, 1.0), [100, 17]);
    }

    #[test]
    fn the_bad_share_what_they_are_entitled_to() {
        // A tenth of the host is promised to two bad ones, three to one.
        let total = total_shares();
        let (more, less) = (total * 3 / 40, total / 40);
        let made = weights(
            &[
                part(9000, total / 2, false, true),
                part(5000, total / 4, false, false),
                part(3000, more, true, true),
                part(1500, less, true, true),
            ],
            1.0,
        );
        assert_eq!(made[..2], [9000, 5000]);
        let share = 100 * (made[2] + made[3]) / (made[2] + made[3] + 9000);
        assert!((9..=10).contains(&share), "{share} %: {made:?}");
        assert!((29..=30).contains(&(10 * made[2] / made[3])), "{made:?}");
    }

    #[test]
    fn the_least_of_the_good_can_count_on_its_own() {
        let total = total_shares();
        let made = weights(
            &[
                part(9000, total / 2, false, false),
                part(1000, total / 20, false, false),
                part(3000, total / 10, true, true),
            ],
            1.0,
        );
        let share = 100 * made[2] / (made[2] + 1000);
        assert!((9..=10).contains(&share), "{share} %: {made:?}");
    }

    #[test]
    fn nobody_gains_by_being_bad() {
        let total = total_shares();
        let made = weights(&[part(9000, 10, false, true), part(20, total / 2, true, true)], 1.0);
        assert_eq!(made, [9000, 20]);
    }
}
