//! One HTTP/1.1 exchange over a blocking connection, as far as the Garden API needs it.
//!
//! Every call has a connection of its own, as with the Go client. The four hijacked routes answer
//! with a head that lies about its body (it says `chunked`, what follows is raw), so head and
//! body are read apart: a [`Response`] is a head and the connection behind it.

mod body;

use std::io::{self, BufRead, BufReader, Read, Write};

use anyhow::{Context, bail};
use guardian_contract::garden::ApiError;

use crate::target::{Stream, Target};

pub(crate) use body::{Body, ChunkWriter};

/// Big enough that a copy of process output is bound by the kernel, not by system calls.
const BUFFER: usize = 256 * 1024;

/// No head of ours comes near; a peer that is no Garden server might send anything.
const HEAD_LIMIT: usize = 64 * 1024;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// `GET`, `PUT`, …
    pub(crate) method: &'a str,
    /// Path and query, encoded.
    pub(crate) path: &'a str,
    /// What kind of body follows.
    pub(crate) payload: Payload<'a>,
    /// Whether the connection becomes a raw stream; then it must not be asked to close.
    pub(crate) hijack: bool,
}

/// The body of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payload<'a> {
    /// None.
    Empty,
    /// JSON, sent with the head.
    Json(&'a [u8]),
    /// A tar archive of unknown length, sent by the caller through a [`ChunkWriter`].
    Archive,
}

/// The status and headers of an answer, and the connection on which the rest arrives.
#[derive(Debug)]
pub(crate) struct Response {
    /// 200, 404, …
    pub(crate) status: u16,
    length: Option<u64>,
    chunked: bool,
    connection: BufReader<Stream>,
}

/// Sends a request and reads the head of its answer.
///
/// # Errors
/// When the server can't be reached or answers something that is not HTTP.
pub(crate) fn exchange(target: &Target, request: Request<'_>) -> anyhow::Result<Response> {
    let mut stream = target.connect()?;
    // A server may answer and close before it has read everything: the answer counts.
    let sent = stream.write_all(&request.bytes());
    match Response::read(stream) {
        Ok(response) => Ok(response),
        Err(error) => sent.map_err(anyhow::Error::from).and(Err(error)),
    }
    .with_context(|| format!("talk to guardiand at {target}"))
}

impl Request<'_> {
    /// Returns the head, and the body where it is known by now.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: api\r\n", self.method, self.path);
        match self.payload {
            Payload::Empty => {}
            Payload::Json(body) => {
                head.push_str("Content-Type: application/json\r\n");
                head.push_str(&format!("Content-Length: {}\r\n", body.len()));
            }
            Payload::Archive => {
                head.push_str("Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n");
            }
        }
        if !self.hijack {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if let Payload::Json(body) = self.payload {
            bytes.extend_from_slice(body);
        }
        bytes
    }
}

impl Response {
    /// Reads heads until one is final (1xx are not).
    ///
    /// # Errors
    /// When the connection ends first, or what comes is not HTTP.
    pub(crate) fn read(stream: Stream) -> anyhow::Result<Self> {
        let mut connection = BufReader::with_capacity(BUFFER, stream);
        loop {
            let head = read_head(&mut connection)?;
            let (status, length, chunked) = parse_head(&head)?;
            if status >= 200 {
                return Ok(Self { status, length, chunked, connection });
            }
        }
    }

    /// Turns a status that is no success into the server's own error.
    ///
    /// # Errors
    /// The server's, or a description of an answer that is no Garden error.
    pub(crate) fn success(self) -> anyhow::Result<Self> {
        match self.status {
            200..=299 => Ok(self),
            status => Err(self.failure(status)),
        }
    }

    fn failure(self, status: u16) -> anyhow::Error {
        let mut text = Vec::new();
        if let Err(error) = self.body().read_to_end(&mut text) {
            return anyhow::Error::from(error).context(format!("status {status}, no body"));
        }
        match serde_json::from_slice::<ApiError>(&text) {
            Ok(error) => error.into(),
            Err(_) => anyhow::anyhow!(
                "unexpected answer with status {status}: {}",
                String::from_utf8_lossy(&text).trim()
            ),
        }
    }

    /// Returns the body, its framing taken off.
    pub(crate) fn body(self) -> Body {
        match (self.chunked, self.length) {
            (true, _) => Body::chunked(self.connection),
            (false, Some(length)) => Body::sized(self.connection, length),
            (false, None) => Body::until_end(self.connection),
        }
    }

    /// Returns the raw connection of a hijacked route, with what arrived behind the head.
    pub(crate) fn into_raw(self) -> BufReader<Stream> {
        self.connection
    }
}

/// Reads up to and including the empty line.
fn read_head(connection: &mut impl BufRead) -> anyhow::Result<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        if connection.read_until(b'\n', &mut head)? == 0 {
            bail!(io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed, no answer"));
        }
        if matches!(&head[before..], b"\r\n" | b"\n") && before > 0 {
            return Ok(head);
        }
        if head.len() > HEAD_LIMIT {
            bail!("the answer's head is longer than {HEAD_LIMIT} bytes");
        }
    }
}

/// Returns the status, the content length, and whether the body claims to be chunked.
fn parse_head(head: &[u8]) -> anyhow::Result<(u16, Option<u64>, bool)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(head).context("the answer is not HTTP")?;
    let status = response.code.context("the answer has no status")?;
    let value = |name: &str| {
        let header = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        header.map(|header| String::from_utf8_lossy(header.value).trim().to_ascii_lowercase())
    };
    let length = value("content-length")
        .map(|text| text.parse().with_context(|| format!("content length '{text}'")))
        .transpose()?;
    let chunked = value("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked"));
    Ok((status, length, chunked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn answer(bytes: &'static [u8]) -> anyhow::Result<Response> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).unwrap();
        drop(theirs);
        Response::read(Stream::Unix(ours))
    }

    fn text(response: Response) -> io::Result<String> {
        let mut text = String::new();
        response.body().read_to_string(&mut text).map(|_| text)
    }

    #[test]
    fn requests_look_like_the_go_client_s() {
        let ping = Request { method: "GET", path: "/ping", payload: Payload::Empty, hijack: false };
        assert_eq!(ping.bytes(), b"GET /ping HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n");
        let run = Request { payload: Payload::Json(b"{}\n"), hijack: true, method: "POST", ..ping };
        let text = String::from_utf8(run.bytes()).unwrap();
        assert!(text.ends_with("Content-Length: 3\r\n\r\n{}\n"), "{text}");
        assert!(!text.contains("Connection"), "{text}");
    }

    #[test]
    fn recorded_answers_are_understood() {
        let ok = answer(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3\r\nConnection: close\r\n\r\n{}\nnever read");
        assert_eq!(text(ok.unwrap()).unwrap(), "{}\n");
        let chunked = answer(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n3\r\n yo\r\n0\r\nT: v\r\n\r\n");
        assert_eq!(text(chunked.unwrap()).unwrap(), "hello yo");
        let to_the_end = answer(b"HTTP/1.1 200 OK\r\n\r\nall of it");
        assert_eq!(text(to_the_end.unwrap()).unwrap(), "all of it");
    }

    #[test]
    fn a_cut_body_is_an_error() {
        for cut in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ] {
            assert!(text(answer(cut).unwrap()).is_err(), "{cut:?}");
        }
    }

    #[test]
    fn hijacked_answers_are_raw_whatever_their_head_says() {
        let run = answer(b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nDate: Sun, 22 Nov 2026 10:24:26 GMT\r\nTransfer-Encoding: chunked\r\n\r\n{\"process_id\":\"pid-1\",\"stream_id\":\"1\"}\n");
        let mut line = String::new();
        run.unwrap().success().unwrap().into_raw().read_line(&mut line).unwrap();
        assert_eq!(line, "{\"process_id\":\"pid-1\",\"stream_id\":\"1\"}\n");
    }

    #[test]
    fn errors_keep_the_server_s_type_and_words() {
        let error = answer(b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 105\r\n\r\n{\"Type\":\"ProcessNotFoundError\",\"Message\":\"unknown process: p9\",\"Handle\":\"\",\"ProcessID\":\"p9\",\"Binary\":\"\"}\n");
        let error = error.unwrap().success().unwrap_err();
        assert_eq!(error.downcast::<ApiError>().unwrap(), ApiError::process_not_found("p9"));
        let page =
            answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 19\r\n\r\n404 page not found\n");
        let message = page.unwrap().success().unwrap_err().to_string();
        assert_eq!(message, "unexpected answer with status 404: 404 page not found");
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        for wrong in [&b""[..], b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200"] {
            assert!(answer(wrong).is_err(), "{wrong:?}");
        }
    }
}
