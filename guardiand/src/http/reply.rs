//! Answers: ordinary ones with a length, and the heads of the four routes that take the
//! connection over.

use std::fmt::Write;
use std::io;
use std::time::SystemTime;

use guardian_contract::garden::{ApiError, encode_line};
use serde::Serialize;
use tokio::io::AsyncWriteExt;

use super::wire::Writer;

/// An ordinary answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    status: u16,
    fields: &'static str,
    extra: Option<String>,
    body: Vec<u8>,
}

const JSON: &str = "Content-Type: application/json\r\n";
const TEXT: &str = "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n";

impl Reply {
    /// Returns a success with `value` as its body.
    pub(crate) fn json(value: &impl Serialize) -> Self {
        match encode_line(value) {
            Ok(body) => Self { status: 200, fields: JSON, extra: None, body },
            Err(error) => Self::error(&ApiError::other(error.to_string())),
        }
    }

    /// Returns the success that says nothing: `{}`, because Go's client decodes every body.
    pub(crate) fn empty() -> Self {
        Self { status: 200, fields: JSON, extra: None, body: b"{}\n".to_vec() }
    }

    /// Returns an error object with the status that belongs to its type.
    pub(crate) fn error(error: &ApiError) -> Self {
        let body = encode_line(error).unwrap_or_default();
        Self { status: error.status(), fields: JSON, extra: None, body }
    }

    /// Returns plain text.
    pub(crate) fn text(status: u16, body: String) -> Self {
        Self { status, fields: TEXT, extra: None, body: body.into_bytes() }
    }

    /// Returns a success with another status.
    pub(crate) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Returns the status.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// Returns the answer for a path that is no route.
    pub(crate) fn not_found() -> Self {
        Self { status: 404, fields: TEXT, extra: None, body: b"404 page not found\n".to_vec() }
    }

    /// Returns the answer for a route with other methods.
    pub(crate) fn method_not_allowed(allowed: &[&str]) -> Self {
        Self {
            status: 405,
            fields: TEXT,
            extra: Some(format!("Allow: {}\r\n", allowed.join(", "))),
            body: b"Method Not Allowed\n".to_vec(),
        }
    }

    /// Returns the answer for a request that is no HTTP.
    pub(crate) fn bad_request(reason: &str) -> Self {
        let body = format!("400 Bad Request: {reason}\n").into_bytes();
        Self { status: 400, fields: TEXT, extra: None, body }
    }

    /// Sends the answer.
    ///
    /// `close` says that no further answer follows. The four takeover routes must never say it,
    /// not even with an error: Go's client then hides the error.
    pub(crate) async fn send(&self, writer: &mut Writer, close: bool) -> io::Result<()> {
        let mut head = status_line(self.status);
        head.push_str(self.fields);
        head.push_str(self.extra.as_deref().unwrap_or_default());
        date(&mut head);
        let _ = write!(head, "Content-Length: {}\r\n", self.body.len());
        head.push_str(if close { "Connection: close\r\n\r\n" } else { "\r\n" });
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        writer.write_all(&bytes).await?;
        writer.flush().await
    }
}

/// Sends the head of a run (201) or attach (200) answer and its first payload. The stream that
/// follows is raw although the head says chunked: that is what Go's server does and its client
/// wants.
pub(crate) async fn send_takeover(
    writer: &mut Writer,
    status: u16,
    first: &impl Serialize,
) -> io::Result<()> {
    let mut head = status_line(status);
    head.push_str(JSON);
    date(&mut head);
    head.push_str("Transfer-Encoding: chunked\r\n\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend(encode_line(first).map_err(io::Error::other)?);
    writer.write_all(&bytes).await?;
    writer.flush().await
}

/// Sends the head of a stdout or stderr answer; raw output follows.
pub(crate) async fn send_output_head(writer: &mut Writer) -> io::Result<()> {
    let mut head = status_line(200);
    date(&mut head);
    head.push_str("Transfer-Encoding: chunked\r\n\r\n");
    writer.write_all(head.as_bytes()).await?;
    writer.flush().await
}

/// Sends the head of a body of unknown length, really in chunks.
pub(crate) async fn send_chunked_head(writer: &mut Writer, content_type: &str) -> io::Result<()> {
    let mut head = status_line(200);
    let _ = write!(head, "Content-Type: {content_type}\r\n");
    date(&mut head);
    head.push_str("Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    writer.write_all(head.as_bytes()).await
}

/// Sends one line of a body in chunks, at once.
pub(crate) async fn send_line(writer: &mut Writer, mut line: Vec<u8>) -> io::Result<()> {
    line.push(b'\n');
    let mut chunk = format!("{:x}\r\n", line.len()).into_bytes();
    chunk.extend_from_slice(&line);
    chunk.extend_from_slice(b"\r\n");
    writer.write_all(&chunk).await?;
    writer.flush().await
}

/// Ends a body in chunks.
pub(crate) async fn send_last_chunk(writer: &mut Writer) -> io::Result<()> {
    writer.write_all(b"0\r\n\r\n").await?;
    writer.flush().await
}

fn status_line(status: u16) -> String {
    let reason = match status {
        200 => "OK",
        201 => "Created",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    };
    format!("HTTP/1.1 {status} {reason}\r\n")
}

fn date(head: &mut String) {
    let _ = write!(head, "Date: {}\r\n", httpdate::fmt_http_date(SystemTime::now()));
}
