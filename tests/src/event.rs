//! The event stream, listened to by hand.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::patience::patience;

/// How long an event may take that is certain to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody who listens.
#[derive(Debug)]
pub struct Listener(BufReader<UnixStream>);

impl Listener {
    /// Listens from now on, to all containers of this server.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn of(daemon: &Daemon) -> anyhow::Result<Self> {
        let mut stream = UnixStream::connect(daemon.socket())?;
        stream.set_read_timeout(Some(patience(PATIENCE)))?;
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: api\r\n\r\n")?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                bail!("the server closed the event stream");
            }
        }
        Ok(Self(reader))
    }

    /// Returns the next event.
    ///
    /// # Errors
    /// When there is none in reasonable time.
    pub fn next_event(&mut self) -> anyhow::Result<Value> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).context("wait for an event")? == 0 {
                bail!("the event stream has ended");
            }
            // The lines between are those of the chunks.
            if line.starts_with('{') {
                return Ok(serde_json::from_str(&line)?);
            }
        }
    }

    /// Returns the events up to the first of this kind, which is the last.
    ///
    /// # Errors
    /// When there is none in reasonable time.
    pub fn until(&mut self, kind: &str) -> anyhow::Result<Vec<Value>> {
        let mut seen = Vec::new();
        loop {
            let event = self.next_event().with_context(|| format!("no {kind} after {seen:?}"))?;
            let is_last = event["event"] == kind;
            seen.push(event);
            if is_last {
                return Ok(seen);
            }
        }
    }
}
