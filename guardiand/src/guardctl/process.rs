//! One process of a container and the terminal or pipes of the caller, joined until either ends.
//!
//! A thread per stream does the copying; the main thread decides. It learns everything through
//! one queue of [`Event`]s: the exit status, the end of each output, signals, the detach keys.
//! The exit status is told only after both outputs have ended, so no output is lost.

mod control;
mod event;
mod input;
mod output;
mod passed;

use std::io::BufReader;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail};
use guardian_contract::control::Request;
use guardian_contract::garden::{ProcessSpec, SIGNAL_KILL, SIGNAL_TERMINATE};
use nix::sys::signal::Signal;

use crate::client::{Client, Output};
use crate::http::Response;
use crate::stdio;
use crate::target::Stream;
use crate::terminal::RawMode;
use control::{Control, Remote, next_payload, start_control};
use event::PATIENCE;
use passed::Passed;

pub(crate) use event::{Event, Events};

/// What a shell reports for a program that a closed pipe has killed.
const READER_GONE: u8 = 128 + 13;

/// What becomes of standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// It is the process's.
    Forward,
    /// The process sees the end of its input at once.
    Close,
    /// The process's input is somebody else's business.
    Leave,
}

/// How the caller is joined to the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Join {
    /// Standard input.
    pub(crate) input: Input,
    /// Whether the process has a terminal.
    pub(crate) tty: bool,
    /// Whether our standard streams are passed to a server on this host, instead of what goes
    /// through them.
    pub(crate) passes: bool,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The process ended with this code.
    Exited(u8),
    /// The caller left; the process runs.
    Detached,
    /// The caller's reader left; the process was told to end.
    ReaderGone,
    /// The caller insisted on leaving, with this signal; the process may run.
    Left(Signal),
}

impl Outcome {
    /// Returns guardctl's exit code for it.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Detached => 0,
            Self::ReaderGone => READER_GONE,
            Self::Left(signal) => exit_code(128 + signal as i64),
        }
    }
}

/// A process that runs, and the connection that controls it.
#[derive(Debug)]
pub(crate) enum Process {
    /// The server relays its streams.
    Relayed(Relayed),
    /// It has ours.
    Passed(Passed),
}

impl Process {
    /// Starts a process.
    ///
    /// # Errors
    /// The server's.
    pub(crate) fn run(
        client: &Client,
        handle: &str,
        spec: &ProcessSpec,
        join: Join,
    ) -> anyhow::Result<Self> {
        let request = Request::Run { handle: handle.into(), process: Box::new(spec.clone()) };
        if let Some(passed) = Passed::open(client, join, &request)? {
            return Ok(Self::Passed(passed));
        }
        Relayed::open(client, handle, client.run(handle, spec)?).map(Self::Relayed)
    }

    /// Joins a process that runs, or has ended.
    ///
    /// # Errors
    /// The server's.
    pub(crate) fn attach(
        client: &Client,
        handle: &str,
        id: &str,
        join: Join,
    ) -> anyhow::Result<Self> {
        let request = Request::Attach {
            handle: handle.into(),
            process_id: id.into(),
            forwards_stdin: join.input == Input::Forward,
        };
        if let Some(passed) = Passed::open(client, join, &request)? {
            return Ok(Self::Passed(passed));
        }
        Relayed::open(client, handle, client.attach(handle, id)?).map(Self::Relayed)
    }

    /// Returns the name that the server gave it.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Relayed(process) => &process.id,
            Self::Passed(process) => &process.id,
        }
    }

    /// Stays until the process ends, the caller detaches, or nobody reads our output.
    ///
    /// # Errors
    /// When the connection to the server is lost, or our own output can't be written.
    pub(crate) fn interact(self, join: Join, events: &Events) -> anyhow::Result<Outcome> {
        match self {
            Self::Relayed(process) => process.interact(join, events),
            Self::Passed(process) => process.interact(events),
        }
    }
}

/// A process whose streams come through the server.
#[derive(Debug)]
pub(crate) struct Relayed {
    client: Client,
    handle: String,
    id: String,
    stream_id: String,
    control: BufReader<Stream>,
}

impl Relayed {
    fn open(client: &Client, handle: &str, answer: Response) -> anyhow::Result<Self> {
        let mut control = answer.into_raw();
        let first = next_payload(&mut control)?;
        let (Some(id), Some(stream_id)) = (first.process_id, first.stream_id) else {
            bail!("the server names no process or stream");
        };
        Ok(Self { client: client.clone(), handle: handle.into(), id, stream_id, control })
    }

    /// Copies everything in both directions.
    fn interact(self, join: Join, events: &Events) -> anyhow::Result<Outcome> {
        let raw = match join {
            Join { input: Input::Forward, tty: true, .. } => RawMode::enter()?,
            _ => None,
        };
        let outputs = self.start_outputs(join.tty, events)?;
        let control = Control {
            process_id: self.id.clone(),
            stream: Arc::new(Mutex::new(self.control.get_ref().try_clone()?)),
        };
        let (client, handle) = (self.client.clone(), self.handle.clone());
        let remote = Remote::Attached { client, handle, id: self.id };
        match join.input {
            Input::Forward => {
                input::start(control.clone(), raw.is_some(), join.tty, events.sender.clone());
            }
            Input::Close => input::close(control.clone(), join.tty),
            Input::Leave => {}
        }
        start_control(self.control, events.sender.clone());
        let outcome = decide(events, outputs, &remote, join.tty.then_some(&control));
        drop(raw);
        outcome
    }

    fn start_outputs(&self, tty: bool, events: &Events) -> anyhow::Result<usize> {
        // With a terminal everything comes on stdout.
        let wanted: &[Output] =
            if tty { &[Output::Stdout] } else { &[Output::Stdout, Output::Stderr] };
        for &output in wanted {
            let process = (self.handle.as_str(), self.id.as_str());
            let stream = self.client.output(process, &self.stream_id, output)?.into_raw();
            output::start(output, stream, events.sender.clone());
        }
        Ok(wanted.len())
    }
}

/// Handles events until the process and its outputs have ended, or something else ends the wait.
fn decide(
    events: &Events,
    mut outputs: usize,
    remote: &Remote,
    resizable: Option<&Control>,
) -> anyhow::Result<Outcome> {
    let mut exit = None;
    let mut signals = 0;
    loop {
        if let (Some(code), 0) = (exit, outputs) {
            return Ok(Outcome::Exited(code));
        }
        match events.receiver.recv().context("events ended")? {
            Event::Exited(status) => exit = Some(exit_code(status)),
            Event::Lost(error) if exit.is_none() => return Err(error),
            Event::OutputEnded => outputs = outputs.saturating_sub(1),
            Event::ReaderGone => {
                let _ = remote.signal(SIGNAL_TERMINATE);
                return Ok(Outcome::ReaderGone);
            }
            Event::Unwritable(error) => {
                let _ = remote.signal(SIGNAL_TERMINATE);
                return Err(error);
            }
            Event::Detached => return Ok(Outcome::Detached),
            Event::Signal(Signal::SIGWINCH) => {
                if let Some(control) = resizable {
                    control.resize_later();
                }
            }
            Event::Signal(signal) => {
                signals += 1;
                match signals {
                    1 => remote.signal_later(SIGNAL_TERMINATE),
                    PATIENCE.. => return Ok(exit.map_or_else(|| left(signal), Outcome::Exited)),
                    _ => {
                        remote.signal_later(SIGNAL_KILL);
                        events.repeat_later(signal);
                    }
                }
            }
            Event::Lost(_) | Event::Done => {}
        }
    }
}

fn left(signal: Signal) -> Outcome {
    stdio::complain(&format!("left on {signal}; the process may still run"));
    Outcome::Left(signal)
}

/// Garden's statuses are exit codes already; a number that is none becomes the highest.
fn exit_code(status: i64) -> u8 {
    u8::try_from(status).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests;
