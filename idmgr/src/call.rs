//! `idmgr call`: the caller's side of the socket.

use std::path::Path;

use anyhow::Context;
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::frame;

use crate::request::Request;
use crate::serve::{Message, PROTOCOL, Reply, connect};

/// Sends a request, and returns the JSON that the verb prints.
pub(crate) fn call(socket: &Path, request: Request) -> anyhow::Result<String> {
    let unreachable =
        || Fault::new(Kind::Unavailable, format!("no server on {}", socket.display()));
    let mut stream = connect(socket).with_context(unreachable)?;
    frame::send(&mut stream, &Message { protocol: PROTOCOL, request })?;
    let reply: Option<Reply> = frame::receive(&mut stream)?;
    Ok(reply.with_context(|| {
        Fault::new(Kind::Unavailable, format!("server on {} hung up", socket.display()))
    })??)
}
