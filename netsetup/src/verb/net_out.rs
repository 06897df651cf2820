//! `net-out` and `bulk-net-out`: let some of a container's traffic out, denied networks or not.

use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::garden::NetOutRule;
use guardian_contract::network::{BulkNetOutRequest, NetOutRequest};
use guardian_contract::run::{Answer, request};

use super::Network;
use crate::lease::Lease;
use crate::net_out_rule::matches;
use crate::nft;
use crate::ruleset::Script;

/// A rule's matches, and whether they are logged.
pub(super) type Translated = (Vec<String>, bool);

/// Adds the rule in the request on stdin.
pub(super) fn one(network: &Network, handle: &Handle) -> anyhow::Result<Answer> {
    let request: NetOutRequest = request()?;
    apply(network, handle, &[request.netout_rule])
}

/// Adds the rules in the request on stdin, all or none.
pub(super) fn bulk(network: &Network, handle: &Handle) -> anyhow::Result<Answer> {
    let request: BulkNetOutRequest = request()?;
    apply(network, handle, &request.netout_rules)
}

/// Translates rules, all before the first is put to use.
pub(super) fn translate(rules: &[NetOutRule]) -> Result<Vec<Translated>, Fault> {
    rules.iter().map(|rule| Ok((matches(rule)?, rule.log))).collect()
}

/// Adds rules to a script, the last one in front; no rules, no chain.
pub(super) fn add(script: &mut Script, lease: &Lease, rules: &[Translated]) {
    if rules.is_empty() {
        return;
    }
    script.outbound_chain(lease);
    for (matches, log) in rules {
        script.let_out(lease, matches, *log);
    }
}

fn apply(network: &Network, handle: &Handle, rules: &[NetOutRule]) -> anyhow::Result<Answer> {
    let rules = translate(rules)?;
    let state = network.state()?;
    let mut lease = network.lease(&state, handle)?;
    if rules.is_empty() {
        return Ok(Answer::Silent);
    }
    if !lease.has_outbound_rules {
        lease.has_outbound_rules = true;
        state.leases.save(&lease)?;
    }
    let mut script = Script::new(&network.names);
    add(&mut script, &lease, &rules);
    nft::run(script.text(), state.lock())?;
    Ok(Answer::Silent)
}
