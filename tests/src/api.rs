//! The API spoken by hand, over the server's unix socket: no client process is started, and nothing
//! is hidden that a client would hide.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};
use guardian_contract::garden::{ProcessPayload, ProcessSpec, decode, encode_line};

use crate::daemon::Daemon;

/// Makes a request that is answered with a length, and returns the body.
///
/// # Errors
/// When the server refuses.
pub fn call(daemon: &Daemon, method: &str, path: &str, body: &str) -> anyhow::Result<Vec<u8>> {
    let mut reader = BufReader::new(request(daemon, method, path, body)?);
    let length = head(&mut reader).with_context(|| format!("{method} {path}"))?;
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer)?;
    Ok(answer)
}

/// A process as a client that relays nothing to a terminal sees it.
#[derive(Debug)]
pub struct Process {
    /// Its name.
    pub id: String,
    /// Its standard output.
    pub stdout: BufReader<UnixStream>,
    /// Its standard error.
    pub stderr: BufReader<UnixStream>,
    control: BufReader<UnixStream>,
}

impl Process {
    /// Starts a process, and asks for both outputs as the Go client does.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn run(daemon: &Daemon, handle: &str, spec: &ProcessSpec) -> anyhow::Result<Self> {
        let path = format!("/containers/{handle}/processes");
        let stream = request(daemon, "POST", &path, &serde_json::to_string(spec)?)?;
        Self::open(daemon, &path, stream)
    }

    /// Joins a process.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn attach(daemon: &Daemon, handle: &str, id: &str) -> anyhow::Result<Self> {
        let path = format!("/containers/{handle}/processes");
        let stream = request(daemon, "GET", &format!("{path}/{id}"), "")?;
        Self::open(daemon, &path, stream)
    }

    fn open(daemon: &Daemon, path: &str, stream: UnixStream) -> anyhow::Result<Self> {
        let mut control = BufReader::new(stream);
        head(&mut control)?;
        let first = payload(&mut control)?;
        let id = first.process_id.context("no process id")?;
        let stream_id = first.stream_id.context("no stream id")?;
        let output = |name: &str| {
            let path = format!("{path}/{id}/attaches/{stream_id}/{name}");
            let mut reader = BufReader::with_capacity(1 << 18, request(daemon, "GET", &path, "")?);
            head(&mut reader)?;
            anyhow::Ok(reader)
        };
        let (stdout, stderr) = (output("stdout")?, output("stderr")?);
        Ok(Self { id, stdout, stderr, control })
    }

    /// Sends standard input, so many times; `None` ends it.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn input(&mut self, text: Option<&str>, times: usize) -> anyhow::Result<()> {
        let message = ProcessPayload {
            process_id: Some(self.id.clone()),
            source: Some(0),
            data: text.map(str::to_owned),
            ..ProcessPayload::default()
        };
        let line = encode_line(&message)?;
        (0..times).try_for_each(|_| Ok(self.control.get_mut().write_all(&line)?))
    }

    /// Sends a signal: 0 is SIGTERM, 1 is SIGKILL.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn signal(&mut self, signal: i64) -> anyhow::Result<()> {
        let message = ProcessPayload {
            process_id: Some(self.id.clone()),
            signal: Some(signal),
            ..ProcessPayload::default()
        };
        Ok(self.control.get_mut().write_all(&encode_line(&message)?)?)
    }

    /// Waits for the end, and returns the exit code.
    ///
    /// # Errors
    /// When the server does not know it.
    pub fn wait(&mut self) -> anyhow::Result<i64> {
        let last = payload(&mut self.control)?;
        last.exit_status.with_context(|| format!("no exit status: {last:?}"))
    }
}

fn payload(control: &mut impl BufRead) -> anyhow::Result<ProcessPayload> {
    let mut line = Vec::new();
    control.read_until(b'\n', &mut line)?;
    decode(&line).map_err(|error| anyhow::anyhow!("the control connection ended: {error}"))
}

fn request(daemon: &Daemon, method: &str, path: &str, body: &str) -> anyhow::Result<UnixStream> {
    let mut stream = UnixStream::connect(daemon.socket())?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: api\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes())?;
    Ok(stream)
}

/// Reads a head and returns the length of what follows, where it says so.
fn head(reader: &mut impl BufRead) -> anyhow::Result<usize> {
    let mut status = String::new();
    reader.read_line(&mut status)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    if status.split(' ').nth(1).is_some_and(|code| code.starts_with('2')) {
        return Ok(length);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    bail!("{}: {}", status.trim(), String::from_utf8_lossy(&body));
}
