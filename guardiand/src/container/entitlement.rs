//! How much processor time a container is entitled to.

use super::facts::Facts;
use crate::guardian::Guardian;

impl Guardian {
    /// Returns nanoseconds: shares times what a share is entitled to times age. A container without
    /// shares was promised nothing.
    pub(crate) fn entitlement(&self, facts: &Facts, age: i64) -> u64 {
        let shares = facts.shares();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate: float casts saturate, and neither factor is negative"
        )]
        let nanoseconds =
            (shares as f64 * self.percent_per_share() / 100.0 * age.max(0) as f64) as u64;
        nanoseconds
    }

    /// Returns what one share is entitled to, in percent of one processor.
    pub(crate) fn percent_per_share(&self) -> f64 {
        match self.settings.flags.limits.cpu_entitlement_per_share {
            0.0 => default_percent_per_share(),
            percent => percent,
        }
    }
}

impl Facts {
    /// Returns the shares asked for, on version 2 as near as the weight tells them; 0 is none.
    pub(crate) fn shares(&self) -> u64 {
        if self.cpu_is_weight { shares_of(self.cpu) } else { self.cpu }
    }
}

/// By default all shares together, one for each MiB of memory, are entitled to all processors.
pub(crate) fn default_percent_per_share() -> f64 {
    let cores = crate::host::processors();
    #[expect(clippy::cast_precision_loss, reason = "both are far below 2^52")]
    let per_share = 100.0 * cores as f64 / total_shares().max(1) as f64;
    per_share
}

/// One share for each MiB of memory.
pub(crate) fn total_shares() -> u64 {
    crate::host::memory_bytes().unwrap_or(1 << 30) >> 20
}

/// Returns the shares that a weight of version 2 stands for: the inverse of the curve by which depot,
/// and runc, made it.
fn shares_of(weight: u64) -> u64 {
    if weight == 0 {
        return 0;
    }
    #[expect(clippy::cast_precision_loss, reason = "weights end at 10000")]
    let height = (weight as f64).log10() + 7.0 / 34.0;
    let log = ((125.0_f64 * 125.0 + 4.0 * 612.0 * height).sqrt() - 125.0) / 2.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "shares end at 262144, and no power of two is negative"
    )]
    let shares = log.exp2().round() as u64;
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_what_the_weight_was_made_of() {
        // Several numbers of shares have one weight.
        for (shares, weight) in
            [(100, 17), (280, 37), (1024, 100), (10_000, 627), (262_144, 10_000)]
        {
            let found = shares_of(weight);
            assert!(found.abs_diff(shares) <= shares / 25, "{weight}: {found}, not {shares}");
        }
        assert_eq!(shares_of(0), 0);
    }
}
