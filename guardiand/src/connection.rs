//! One connection: request after request, until one of them takes it over or somebody is done.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guardian_contract::garden::ApiError;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use crate::event::stream;
use crate::guardian::Guardian;
use crate::http::body::Body;
use crate::http::head::Head;
use crate::http::reply::Reply;
use crate::http::wire::Wire;
use crate::router::{self, Found, Route};
use crate::{files, pull, route, takeover, telemetry};

/// What a connection needs to know of the server.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The server's state.
    pub(crate) guardian: Arc<Guardian>,
    /// Becomes true when the server stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Context {
    /// Returns when the server stops.
    pub(crate) async fn stopped(&self) {
        let _ = self.stopping.clone().wait_for(|stops| *stops).await;
    }
}

/// A request as handlers get it.
#[derive(Debug)]
pub(crate) struct Request {
    /// Which route.
    pub(crate) route: Route,
    /// The values of its parameters.
    pub(crate) values: Vec<String>,
    /// The first value of each query parameter.
    pub(crate) query: Vec<(String, String)>,
}

impl Request {
    /// Returns a path parameter.
    pub(crate) fn value(&self, at: usize) -> &str {
        self.values.get(at).map_or("", String::as_str)
    }

    /// Returns a query parameter; a missing one is empty.
    pub(crate) fn parameter(&self, name: &str) -> &str {
        let found = self.query.iter().find(|(found, _)| found == name);
        found.map_or("", |(_, value)| value)
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(context: Context, mut wire: Wire) {
    loop {
        let head = tokio::select! {
            head = read_head(&context, &mut wire) => head,
            () = context.stopped() => return,
        };
        let head = match head {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(error) if error.kind() == io::ErrorKind::Other => {
                let _ = Reply::bad_request(&error.to_string()).send(&mut wire.writer, true).await;
                return wire.linger().await;
            }
            Err(_) => return,
        };
        match answer(&context, &head, wire).await {
            Some(again) => wire = again,
            None => return,
        }
    }
}

/// Reads a head within the operator's time for it; one that is late is answered by nothing, as
/// gdn does. The time runs from the first connection on, idle or not.
async fn read_head(context: &Context, wire: &mut Wire) -> io::Result<Option<Head>> {
    let timeout = context.guardian.settings.flags.listen.read_header_timeout;
    if timeout == Duration::ZERO {
        return wire.head().await;
    }
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(timeout, wire.head()).await.map_err(late)?
}

/// Answers one request. Returns the connection if it can serve another.
async fn answer(context: &Context, head: &Head, mut wire: Wire) -> Option<Wire> {
    let mut body = Body::new(head.framing);
    let request = match router::find(&head.method, &head.path) {
        Found::Nothing => return finish(&Reply::not_found(), head, &body, wire).await,
        Found::WrongMethod(allowed) => {
            return finish(&Reply::method_not_allowed(&allowed), head, &body, wire).await;
        }
        Found::Route(route, values) => Request { route, values, query: query(&head.query) },
    };
    if head.expects_continue {
        wire.writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
    }
    let (start, _in_flight) = (Instant::now(), telemetry::REQUESTS_IN_FLIGHT.hold());
    let reply = match request.route {
        Route::Pull => {
            let bytes = body.whole(&mut wire.reader).await.ok()?;
            match pull::begin(context, &bytes).await {
                Ok(pull) => {
                    pull.serve(context, wire).await;
                    return None;
                }
                Err(error) => Reply::error(&error),
            }
        }
        Route::Events => {
            stream::serve(context, &request, wire).await;
            return None;
        }
        Route::Run | Route::Attach | Route::Stdout | Route::Stderr => {
            return take_over(context, &request, body, wire).await;
        }
        Route::StreamIn => files::stream_in(context, &request, &mut body, &mut wire).await,
        Route::StreamOut => match files::stream_out(context, &request, &mut wire).await {
            Ok(()) => {
                wire.linger().await;
                return None;
            }
            Err(error) => Reply::error(&error),
        },
        _ => match body.whole(&mut wire.reader).await {
            Ok(bytes) => route::answer(&context.guardian, &request, &bytes).await,
            Err(error) => Reply::error(&ApiError::other(format!("read request body: {error}"))),
        },
    };
    let status = reply.status().to_string();
    telemetry::REQUESTS.took(&[&request.route.name(), &status], start.elapsed());
    finish(&reply, head, &body, wire).await
}

/// Hands the connection over. When that fails, the error must not close the connection: Go's
/// client would report the closing and not the error.
async fn take_over(
    context: &Context,
    request: &Request,
    mut body: Body,
    mut wire: Wire,
) -> Option<Wire> {
    let bytes = body.whole(&mut wire.reader).await.ok()?;
    match takeover::begin(context, request, &bytes).await {
        Ok(taken) => {
            taken.serve(context, wire).await;
            None
        }
        Err(error) => {
            Reply::error(&error).send(&mut wire.writer, false).await.ok()?;
            Some(wire)
        }
    }
}

/// Sends an ordinary answer. A body that was not read ends the connection: what would be read
/// next is no head.
async fn finish(reply: &Reply, head: &Head, body: &Body, mut wire: Wire) -> Option<Wire> {
    let close = head.close || !body.is_read();
    reply.send(&mut wire.writer, close).await.ok()?;
    if close {
        wire.linger().await;
        return None;
    }
    Some(wire)
}

/// Pairs that contain a semicolon are dropped, as Go does.
fn query(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
    let decoded = pairs.flat_map(|pair| form_urlencoded::parse(pair.as_bytes()));
    decoded.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_go_reads_them() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            query("a=x%2Fy%2Bz&b+b=1%262&c&d;e=1&="),
            [pair("a", "x/y+z"), pair("b b", "1&2"), pair("c", ""), pair("", ""),]
        );
    }
}
