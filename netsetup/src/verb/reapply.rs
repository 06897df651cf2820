//! `reapply`: make the kernel have what is written down, after somebody else's `nft flush ruleset`
//! or `ip link set down`.

use guardian_contract::log;
use guardian_contract::run::Answer;
use serde_json::json;

use super::{Network, check};
use crate::cli::Form;
use crate::connection;
use crate::host;
use crate::lease::Stage;

/// Replaces our table in one transaction, mends the host's ends of the links, and tells what is
/// still wrong: a link that is gone can't be brought back.
pub(super) fn run(network: &Network, form: Form) -> anyhow::Result<Answer> {
    let state = network.state()?;
    let policy = host::policy(&state)?;
    let leases = state.leases.all()?;
    if form.dry_run {
        let script = host::whole(&policy, &network.names, &leases)?;
        return Ok(Answer::Text(script.text().to_owned()));
    }
    for lease in leases.iter().filter(|lease| lease.stage == Stage::Up) {
        if let Err(error) = connection::mend(lease) {
            let error = format!("{error:#}");
            log::error("mend", &json!({"handle": lease.handle, "error": error}));
        }
    }
    host::apply(&policy, &network.names, &state)?;
    check::after(network, &state, &policy, form.json)
}
