//! `net-out` and `bulk-net-out`: let some of a container's traffic out, denied networks or not.

use guardian_contract::depot::Handle;
use guardian_contract::garden::NetOutRule;
use guardian_contract::network::{BulkNetOutRequest, NetOutRequest};
use guardian_contract::run::{Answer, request};

use super::Network;
use crate::net_out_rule::translate;
use crate::nft;
use crate::ruleset::Script;

/// Adds the rule in the request on stdin.
pub(super) fn one(network: &Network, handle: &Handle) -> anyhow::Result<Answer> {
    let request: NetOutRequest = request()?;
    apply(network, handle, vec![request.netout_rule])
}

/// Adds the rules in the request on stdin, all or none.
pub(super) fn bulk(network: &Network, handle: &Handle) -> anyhow::Result<Answer> {
    let request: BulkNetOutRequest = request()?;
    apply(network, handle, request.netout_rules)
}

/// The rules are written down first: whoever is killed in between leaves a lease that says more
/// than the kernel, which `check` tells and `reapply` and `down` put right.
fn apply(network: &Network, handle: &Handle, rules: Vec<NetOutRule>) -> anyhow::Result<Answer> {
    let state = network.state()?;
    let before = network.lease(&state, handle)?;
    let translated = translate(&rules, before.ipv6_pool.is_some())?;
    if rules.is_empty() {
        return Ok(Answer::Silent);
    }
    let mut lease = before.clone();
    lease.outbound.extend(rules);
    state.leases.save(&lease)?;
    let mut script = Script::new(&network.names);
    script.let_out_all(&lease, &translated);
    if let Err(error) = nft::run(script.text(), state.lock()) {
        state.leases.save(&before)?;
        return Err(error);
    }
    Ok(Answer::Silent)
}
