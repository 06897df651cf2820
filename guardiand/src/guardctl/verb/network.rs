//! net-in: a port of the host for a port of a container.

use guardian_contract::garden::NetIn;

use crate::cli::NetInArgs;
use crate::client::{Client, member};
use crate::stdio;

/// Maps a port and prints the mapping, for the server may have chosen it.
pub(super) fn net_in(client: &Client, args: &NetInArgs, as_json: bool) -> anyhow::Result<()> {
    let wanted = NetIn { host_port: args.host_port, container_port: args.container_port };
    let mapping = client.net_in(&args.handle, wanted)?;
    if as_json {
        return stdio::json(&mapping);
    }
    let port = |key| stdio::plain(member(&mapping, key));
    stdio::table(&["HOST", "CONTAINER"], vec![vec![port("host_port"), port("container_port")]])
}
