//! `idmgr call`: the caller's side of the socket.

use std::path::Path;

use anyhow::Context;
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::frame;

use crate::mark::{Clone, Shown};
use crate::request::Request;
use crate::serve::{Message, PROTOCOL, Reply, connect, passing};

/// Sends a request, and returns the JSON that the verb prints.
pub(crate) fn call(socket: &Path, request: Request) -> anyhow::Result<String> {
    let unreachable =
        || Fault::new(Kind::Unavailable, format!("no server on {}", socket.display()));
    let mut stream = connect(socket).with_context(unreachable)?;
    let message = Message { protocol: PROTOCOL, request };
    frame::send(&mut stream, &message)?;
    let reply: Option<Reply> = frame::receive(&mut stream)?;
    let text = reply.with_context(|| {
        Fault::new(Kind::Unavailable, format!("server on {} hung up", socket.display()))
    })??;
    let Request::Attach(request) = &message.request else { return Ok(text) };
    let shown: Vec<Shown> = serde_json::from_str(&text).context("parse the server's answer")?;
    let mounts = passing::receive(&stream, shown.len())?;
    let clones: Vec<Clone> =
        shown.into_iter().zip(mounts).map(|(shown, mount)| Clone { shown, mount }).collect();
    Ok(request.attach(&clones)?.to_string())
}
