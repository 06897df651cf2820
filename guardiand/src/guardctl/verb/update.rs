//! update

use crate::cli::UpdateArgs;
use crate::client::Client;
use crate::stdio;

/// Changes limits, and prints those that then hold.
pub(super) fn update(client: &Client, args: &UpdateArgs, as_json: bool) -> anyhow::Result<()> {
    let limits = client.change_limits(&args.handle, args.pea.as_deref(), &args.change())?;
    if as_json {
        return stdio::json(&limits);
    }
    stdio::table(&[], super::container::flat("", &limits))
}
