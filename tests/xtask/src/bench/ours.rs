//! One container's life through the API, over the unix socket: no client process is started, so
//! that the server alone is measured.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};
use guardian_tests::daemon::Daemon;
use serde_json::Value;

use super::{Times, timed};

/// Creates, runs `/bin/true`, destroys.
///
/// # Errors
/// When the server does.
pub(super) fn life(daemon: &Daemon, name: &str, times: &mut Times) -> anyhow::Result<()> {
    let handle = daemon.handle(name);
    let spec = format!(r#"{{"handle":"{handle}"}}"#);
    timed(&mut times.create, || call(daemon, "POST", "/containers", &spec))?;
    timed(&mut times.run, || run_true(daemon, &handle))?;
    let path = format!("/containers/{handle}");
    timed(&mut times.destroy, || call(daemon, "DELETE", &path, "")).map(drop)
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

fn call(daemon: &Daemon, method: &str, path: &str, body: &str) -> anyhow::Result<()> {
    let mut reader = BufReader::new(request(daemon, method, path, body)?);
    let length = head(&mut reader).with_context(|| format!("{method} {path}"))?;
    let mut answer = vec![0; length];
    Ok(reader.read_exact(&mut answer)?)
}

/// Like the Go client: reads both outputs to their end.
fn run_true(daemon: &Daemon, handle: &str) -> anyhow::Result<()> {
    let path = format!("/containers/{handle}/processes");
    let stream = request(daemon, "POST", &path, r#"{"path":"/bin/true","user":"root"}"#)?;
    let mut control = BufReader::new(stream);
    head(&mut control).with_context(|| format!("run in {handle}"))?;
    let first = payload(&mut control)?;
    let word = |key: &str| first[key].as_str().with_context(|| format!("no {key}"));
    let (id, stream_id) = (word("process_id")?, word("stream_id")?);
    let mut outputs = Vec::new();
    for name in ["stdout", "stderr"] {
        let path = format!("{path}/{id}/attaches/{stream_id}/{name}");
        let mut reader = BufReader::new(request(daemon, "GET", &path, "")?);
        head(&mut reader)?;
        outputs.push(reader);
    }
    match payload(&mut control)?["exit_status"].as_i64() {
        Some(0) => {}
        other => bail!("/bin/true in {handle}: {other:?}"),
    }
    for mut output in outputs {
        output.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

fn payload(control: &mut impl BufRead) -> anyhow::Result<Value> {
    let mut line = String::new();
    control.read_line(&mut line)?;
    serde_json::from_str(&line).context("the control connection ended")
}
