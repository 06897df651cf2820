//! The control connection's two halves, and the side door for signals.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, anyhow, bail};
use guardian_contract::control::Request;
use guardian_contract::garden::{self, ProcessPayload, Tty};

use super::Event;
use super::passed::Packets;
use crate::client::Client;
use crate::target::Stream;
use crate::terminal;

/// The way to a process that other attachers and a full input can't block: signals travel on
/// a connection of their own, because a server handles one connection's messages in order.
#[derive(Debug, Clone)]
pub(super) enum Remote {
    /// Over HTTP.
    Attached { client: Client, handle: String, id: String },
    /// Over the control socket, where nothing else is sent.
    Passed(Arc<Packets>),
}

impl Remote {
    pub(super) fn signal(&self, signal: i64) -> anyhow::Result<()> {
        let (client, handle, id) = match self {
            Self::Attached { client, handle, id } => (client, handle, id),
            Self::Passed(packets) => {
                return packets.send(&serde_json::to_vec(&Request::Signal(signal))?, &[]);
            }
        };
        let answer = client.attach(handle, id)?;
        let payload = ProcessPayload {
            process_id: Some(id.clone()),
            signal: Some(signal),
            ..ProcessPayload::default()
        };
        let line = garden::encode_line(&payload)?;
        Ok(answer.into_raw().get_mut().write_all(&line)?)
    }

    /// Signals without making the main thread wait for the server.
    pub(super) fn signal_later(&self, signal: i64) {
        let remote = self.clone();
        thread::spawn(move || remote.signal(signal));
    }
}

/// The writing half of the control connection.
#[derive(Debug, Clone)]
pub(super) struct Control {
    pub(super) process_id: String,
    pub(super) stream: Arc<Mutex<Stream>>,
}

impl Control {
    pub(super) fn payload(&self) -> ProcessPayload {
        ProcessPayload { process_id: Some(self.process_id.clone()), ..ProcessPayload::default() }
    }

    pub(super) fn send(&self, payload: ProcessPayload) -> anyhow::Result<()> {
        let line = garden::encode_line(&payload)?;
        let mut stream = self.stream.lock().map_err(|_| anyhow!("the control stream broke"))?;
        Ok(stream.write_all(&line)?)
    }

    /// Tells the process its terminal's present size, without making the main thread wait.
    pub(super) fn resize_later(&self) {
        let control = self.clone();
        thread::spawn(move || {
            let tty = Some(Tty { window_size: Some(terminal::size()?) });
            control.send(ProcessPayload { tty, ..control.payload() }).ok()
        });
    }
}

/// Reads messages until one tells the end, and passes it on.
pub(super) fn start_control(mut control: BufReader<Stream>, events: Sender<Event>) {
    thread::spawn(move || {
        let event = loop {
            match next_payload(&mut control) {
                Err(error) => break Event::Lost(error),
                Ok(ProcessPayload { error: Some(error), .. }) => {
                    break Event::Lost(anyhow!("process error: {error}"));
                }
                Ok(ProcessPayload { exit_status: Some(status), .. }) => {
                    break Event::Exited(status);
                }
                Ok(_) => {}
            }
        };
        let _ = events.send(event);
    });
}

/// Reads one message. The server ends each with a newline.
pub(super) fn next_payload(control: &mut impl BufRead) -> anyhow::Result<ProcessPayload> {
    let mut line = Vec::new();
    match control.read_until(b'\n', &mut line) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => {
            return Err(error).context("connection to guardiand");
        }
        // A server that is killed with messages unread resets the connection.
        Err(_) | Ok(0) => bail!("guardiand closed the connection; the process may still run"),
        Ok(_) => {}
    }
    garden::decode(&line).map_err(|error| anyhow!("message of guardiand: {error}"))
}
