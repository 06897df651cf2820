//! events: what happens, as it happens, one JSON object per line.

use std::io::{BufRead, BufReader};

use anyhow::Context;

use crate::cli::EventsArgs;
use crate::client::Client;
use crate::stdio;

/// Prints events until the server stops or nobody reads them any more.
pub(super) fn events(client: &Client, args: &EventsArgs) -> anyhow::Result<()> {
    let mut body = BufReader::new(client.events(&args.handles)?);
    let mut line = String::new();
    while body.read_line(&mut line).context("the server is gone")? > 0 {
        stdio::line(line.trim_end())?;
        line.clear();
    }
    Ok(())
}
