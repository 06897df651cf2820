//! Who dies first when the whole host is out of memory: containers' processes before those that keep
//! them. A container that reaches its own limit is another matter; nobody else is in its group.

use guardian_contract::process::oom_score_adj;
use oci_spec::runtime::Spec;

use super::process;
use crate::wanted::Wanted;

/// Sets it for init; its processes get it from there.
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    let score = oom_score_adj(wanted.host.oom_score_adj);
    process(&mut spec).set_oom_score_adj(Some(score));
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixture::{made_by, wanted};

    #[test]
    fn containers_die_before_their_keepers() {
        for (ours, want) in [(0, 100), (-900, 100), (300, 400), (950, 1000)] {
            let mut wanted = wanted();
            wanted.host.oom_score_adj = ours;
            let made = made_by(apply, &wanted);
            assert_eq!(made["process"]["oomScoreAdj"], want, "{ours}");
        }
    }
}
