//! The Garden API as calls: one method per route that guardctl uses.
//!
//! Answers that are shown as they came stay JSON values, so that members a newer server adds are
//! not lost on the way to the user.

use std::io::{BufWriter, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use guardian_contract::control;
use guardian_contract::garden::{
    self, ContainerSpec, ImageRef, LimitsChange, NetIn, NetOutRule, ProcessSpec,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::http::{self, Body, ChunkWriter, Payload, Request, Response};
use crate::target::{Stream, Target};

/// Everything but RFC 3986's unreserved characters, so that any handle or key stays one segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How many handles are asked about at once: servers bound the length of a request's head.
const BULK: usize = 100;

/// Which output of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Standard output; with a terminal, everything.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A Garden server to call.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    target: Target,
}

impl Client {
    /// Returns a client; nothing is connected yet.
    pub(crate) fn new(target: Target) -> Self {
        Self { target }
    }

    /// Returns where the server listens for passed descriptors, if it is on this host.
    pub(crate) fn control_socket(&self) -> Option<PathBuf> {
        match &self.target {
            Target::Unix(path) => Some(control::path(path)),
            Target::Tcp(_) => None,
        }
    }

    pub(crate) fn ping(&self) -> anyhow::Result<()> {
        self.call("GET", "/ping", None).map(drop)
    }

    pub(crate) fn capacity(&self) -> anyhow::Result<Value> {
        self.call("GET", "/capacity", None)
    }

    /// Creates a container and returns its handle.
    pub(crate) fn create(&self, spec: &ContainerSpec) -> anyhow::Result<String> {
        let answer = self.call("POST", "/containers", Some(&encode(spec)?))?;
        let handle = member(&answer, "handle").and_then(Value::as_str);
        Ok(handle.context("the answer names no handle")?.to_owned())
    }

    /// Lists the handles of containers with all these properties (`K=V`).
    pub(crate) fn list(&self, filters: &[(String, String)]) -> anyhow::Result<Vec<String>> {
        let path = with_query("/containers", filters.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let answer = self.call("GET", &path, None)?;
        let handles = member(&answer, "handles").and_then(Value::as_array);
        let names = handles.into_iter().flatten().filter_map(Value::as_str);
        Ok(names.map(str::to_owned).collect())
    }

    pub(crate) fn info(&self, handle: &str) -> anyhow::Result<Value> {
        self.call("GET", &of(handle, "info"), None)
    }

    pub(crate) fn metrics(&self, handle: &str) -> anyhow::Result<Value> {
        self.call("GET", &of(handle, "metrics"), None)
    }

    /// Returns the memory limit of a container in bytes; 0 is none.
    pub(crate) fn memory_limit(&self, handle: &str) -> anyhow::Result<u64> {
        let limits = self.call("GET", &of(handle, "limits/memory"), None)?;
        Ok(member(&limits, "limit_in_bytes").and_then(Value::as_u64).unwrap_or(0))
    }

    /// Returns the processes in a container.
    pub(crate) fn top(&self, handle: &str) -> anyhow::Result<Value> {
        self.call("GET", &of(handle, "top"), None)
    }

    /// Returns events as they come, a line each; of all containers when none is named.
    pub(crate) fn events(&self, handles: &[String]) -> anyhow::Result<Body> {
        let list = handles.join(",");
        let handles = (!list.is_empty()).then_some(("handles", list.as_str()));
        let path = with_query("/events", handles);
        let request =
            Request { method: "GET", path: &path, payload: Payload::Empty, hijack: false };
        Ok(http::exchange(&self.target, request)?.success()?.body())
    }

    /// Asks `bulk_info` or `bulk_metrics` about many containers.
    pub(crate) fn bulk(
        &self,
        what: &str,
        handles: &[String],
    ) -> anyhow::Result<serde_json::Map<String, Value>> {
        let mut all = serde_json::Map::new();
        for some in handles.chunks(BULK) {
            let list = some.join(",");
            let path = with_query(&format!("/containers/{what}"), [("handles", list.as_str())]);
            match self.call("GET", &path, None)? {
                Value::Object(entries) => all.extend(entries),
                _ => bail!("the answer to {what} is no object"),
            }
        }
        Ok(all)
    }

    pub(crate) fn destroy(&self, handle: &str) -> anyhow::Result<()> {
        self.call("DELETE", &format!("/containers/{}", segment(handle)), None).map(drop)
    }

    pub(crate) fn stop(&self, handle: &str, kill: bool) -> anyhow::Result<()> {
        let body = encode(&json!({ "kill": kill }))?;
        self.call("PUT", &of(handle, "stop"), Some(&body)).map(drop)
    }

    /// Pulls an image; the answer tells how far that is, a line each.
    pub(crate) fn pull(&self, image: &ImageRef, privileged: bool) -> anyhow::Result<Body> {
        let mut ask = serde_json::to_value(image)?;
        ask["privileged"] = privileged.into();
        let body = encode(&ask)?;
        let payload = Payload::Json(&body);
        let request = Request { method: "POST", path: "/images/pull", payload, hijack: false };
        Ok(http::exchange(&self.target, request)?.success()?.body())
    }

    pub(crate) fn change_limits(
        &self,
        handle: &str,
        pea: Option<&str>,
        change: &LimitsChange,
    ) -> anyhow::Result<Value> {
        let path = match pea {
            Some(id) => format!("{}/limits", process_path(handle, id)),
            None => of(handle, "limits"),
        };
        self.call("PUT", &path, Some(&encode(change)?))
    }

    pub(crate) fn properties(&self, handle: &str) -> anyhow::Result<Value> {
        self.call("GET", &of(handle, "properties"), None)
    }

    pub(crate) fn property(&self, handle: &str, key: &str) -> anyhow::Result<String> {
        let answer = self.call("GET", &property_path(handle, key), None)?;
        let value = member(&answer, "value").and_then(Value::as_str);
        Ok(value.unwrap_or_default().to_owned())
    }

    pub(crate) fn set_property(&self, handle: &str, key: &str, value: &str) -> anyhow::Result<()> {
        let body = encode(&json!({ "value": value }))?;
        self.call("PUT", &property_path(handle, key), Some(&body)).map(drop)
    }

    pub(crate) fn remove_property(&self, handle: &str, key: &str) -> anyhow::Result<()> {
        self.call("DELETE", &property_path(handle, key), None).map(drop)
    }

    pub(crate) fn net_in(&self, handle: &str, mapping: NetIn) -> anyhow::Result<Value> {
        self.call("POST", &of(handle, "net/in"), Some(&encode(&mapping)?))
    }

    pub(crate) fn net_out(&self, handle: &str, rule: &NetOutRule) -> anyhow::Result<()> {
        self.call("POST", &of(handle, "net/out"), Some(&encode(rule)?)).map(drop)
    }

    /// Starts a process; the answer's connection is its control connection.
    pub(crate) fn run(&self, handle: &str, spec: &ProcessSpec) -> anyhow::Result<Response> {
        self.hijack("POST", &of(handle, "processes"), Payload::Json(&encode(spec)?))
    }

    /// Joins a process; the answer's connection is a control connection.
    pub(crate) fn attach(&self, handle: &str, process_id: &str) -> anyhow::Result<Response> {
        self.hijack("GET", &process_path(handle, process_id), Payload::Empty)
    }

    /// Opens an output of an attachment.
    pub(crate) fn output(
        &self,
        process: (&str, &str),
        stream_id: &str,
        output: Output,
    ) -> anyhow::Result<Response> {
        let name = if output == Output::Stdout { "stdout" } else { "stderr" };
        let (handle, process_id) = process;
        let process = process_path(handle, process_id);
        let path = format!("{process}/attaches/{}/{name}", segment(stream_id));
        self.hijack("GET", &path, Payload::Empty)
    }

    /// Sends a tar archive, written by `write`, to be unpacked in the directory `destination`.
    pub(crate) fn stream_in(
        &self,
        (handle, user, destination): (&str, &str, &str),
        write: impl FnOnce(&mut BufWriter<ChunkWriter<Stream>>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let path = with_query(&of(handle, "files"), [("destination", destination), ("user", user)]);
        let request =
            Request { method: "PUT", path: &path, payload: Payload::Archive, hijack: false };
        let mut stream = self.target.connect()?;
        stream.write_all(&request.bytes())?;
        let writer = ChunkWriter::new(stream.try_clone()?);
        let mut writer = BufWriter::with_capacity(256 * 1024, writer);
        let written = write(&mut writer)
            .and_then(|()| Ok(writer.into_inner().map_err(std::io::IntoInnerError::into_error)?))
            .and_then(|chunks| Ok(chunks.finish()?));
        match written {
            Ok(()) => Response::read(stream)?.success().map(drop),
            // A connection that broke under our hands: the server may have said why.
            Err(error) if error.is::<std::io::Error>() && is_hang_up(&error) => {
                let answer = Response::read(stream).and_then(Response::success);
                answer.map_err(|refusal| refusal.context("send the archive")).and(Err(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns a tar archive of `source`; with a trailing slash, of its contents.
    pub(crate) fn stream_out(
        &self,
        handle: &str,
        user: &str,
        source: &str,
    ) -> anyhow::Result<Body> {
        let path = with_query(&of(handle, "files"), [("source", source), ("user", user)]);
        let request =
            Request { method: "GET", path: &path, payload: Payload::Empty, hijack: false };
        Ok(http::exchange(&self.target, request)?.success()?.body())
    }

    fn call(&self, method: &str, path: &str, body: Option<&[u8]>) -> anyhow::Result<Value> {
        let payload = body.map_or(Payload::Empty, Payload::Json);
        let request = Request { method, path, payload, hijack: false };
        let mut text = Vec::new();
        http::exchange(&self.target, request)?.success()?.body().read_to_end(&mut text)?;
        serde_json::from_slice(&text)
            .with_context(|| format!("the answer to {method} {path} is not JSON"))
    }

    fn hijack(&self, method: &str, path: &str, payload: Payload<'_>) -> anyhow::Result<Response> {
        let request = Request { method, path, payload, hijack: true };
        http::exchange(&self.target, request)?.success()
    }
}

/// Returns an object's member, its key spelt in any case: the server writes `Handle`, its
/// documentation `handle`.
pub(crate) fn member<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    let members = object.as_object()?;
    members.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

fn is_hang_up(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(BrokenPipe | ConnectionReset))
}

fn encode(value: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    garden::encode_line(value).context("encode the request")
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

fn of(handle: &str, what: &str) -> String {
    format!("/containers/{}/{what}", segment(handle))
}

fn property_path(handle: &str, key: &str) -> String {
    format!("{}/{}", of(handle, "properties"), segment(key))
}

fn process_path(handle: &str, process_id: &str) -> String {
    format!("{}/{}", of(handle, "processes"), segment(process_id))
}

fn with_query<'a>(path: &str, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded_strictly_and_queries_as_forms() {
        assert_eq!(property_path("a+b", "k k/é"), "/containers/a%2Bb/properties/k%20k%2F%C3%A9");
        assert_eq!(
            with_query("/containers", [("a", "x/y+z"), ("b b", "1&2")]),
            "/containers?a=x%2Fy%2Bz&b+b=1%262"
        );
        assert_eq!(with_query("/containers", []), "/containers");
    }

    #[test]
    fn members_are_found_in_any_case() {
        let answer = json!({ "Handle": "h" });
        assert_eq!(member(&answer, "handle"), Some(&json!("h")));
        assert_eq!(member(&answer, "handles"), None);
    }
}
