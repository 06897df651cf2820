//! The callee's side of every exec between our programs: parse argv, run the verb, print one
//! document, choose the exit code. Nothing else in the workspace prints or exits.
//!
//! Exit codes: 0 done, 1 failed (a [`Fault`] as JSON on stdout), 2 wrong usage (clap's text on
//! stderr). Log lines go to stderr; nobody parses them to decide.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fault::{Fault, Kind};
use crate::log;

/// What a verb has to say when it succeeded.
#[derive(Debug)]
pub enum Answer {
    /// Nothing.
    Silent,
    /// One JSON document.
    Json(serde_json::Value),
    /// Text for a person, or for a peer whose contract is text.
    Text(String),
    /// A document of either form, and this exit code: a finding that is no failure of ours.
    Finding(u8, Box<Self>),
    /// Nothing, and this exit code: a kept process's, never a failure of ours.
    Exit(u8),
}

impl Answer {
    /// Returns the JSON answer made of `value`.
    pub fn json(value: &impl Serialize) -> anyhow::Result<Self> {
        Ok(Self::Json(serde_json::to_value(value).context("encode the answer")?))
    }
}

/// How a failure is printed on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultStyle {
    /// `{"kind":…,"message":…}`: our own contract.
    Json,
    /// The message alone: the image plugin's contract, where callers show stdout to the user.
    Text,
    /// Nothing, and this exit code instead of 1: dadoo, whose 1 is the kept process's own.
    Code(u8),
}

/// Runs a program: parses argv into `C`, calls `body`, prints its answer.
pub fn run<C: Parser>(
    name: &'static str,
    body: impl FnOnce(C) -> anyhow::Result<Answer>,
) -> ExitCode {
    run_styled(name, FaultStyle::Json, C::parse, body)
}

/// Like [`run`], with the fault style and the way argv is parsed chosen by the caller.
pub fn run_styled<C>(
    name: &'static str,
    style: FaultStyle,
    parse: impl FnOnce() -> C,
    body: impl FnOnce(C) -> anyhow::Result<Answer>,
) -> ExitCode {
    log::init(name);
    match body(parse()) {
        Ok(answer) => print(&answer),
        Err(error) => fail(name, style, &Fault::of(&error)),
    }
}

/// Reads one JSON document from stdin; an empty stdin is the default value.
///
/// # Errors
/// When stdin can't be read or is not the JSON expected.
pub fn request<T: DeserializeOwned + Default>() -> anyhow::Result<T> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("read the request from stdin")?;
    if text.trim().is_empty() || text.trim() == "null" {
        return Ok(T::default());
    }
    serde_json::from_str(&text)
        .map_err(|error| Fault::invalid(format!("request on stdin: {error}")).into())
}

/// Refuses what nobody waits for any more: our stdout is a pipe, and its reader has gone. Asked under the
/// lock that everybody takes who does the same, it keeps what a server began that was killed from coming
/// after what the next one does.
///
/// # Errors
/// `Unavailable` when the caller has gone.
pub fn check_caller() -> anyhow::Result<()> {
    let stdout = std::io::stdout();
    let mut watched = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    poll(&mut watched, PollTimeout::ZERO).context("look for the caller")?;
    // Nobody can read what would be written (poll(2)).
    match watched[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLERR)) {
        true => Err(Fault::new(Kind::Unavailable, "whoever asked for this has gone").into()),
        false => Ok(()),
    }
}

fn print(answer: &Answer) -> ExitCode {
    let text = match answer {
        Answer::Silent => return ExitCode::SUCCESS,
        Answer::Exit(code) => return ExitCode::from(*code),
        Answer::Finding(code, document) => {
            let printed = print(document);
            return if printed == ExitCode::SUCCESS { ExitCode::from(*code) } else { printed };
        }
        Answer::Json(value) => value.to_string(),
        Answer::Text(text) => text.clone(),
    };
    let mut stdout = std::io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    // A reader that has gone away is its own business; anything else lost is a failure.
    match write!(stdout, "{text}{newline}").and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(name: &str, style: FaultStyle, fault: &Fault) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        let _ = writeln!(stderr, "{name}: {}", fault.message);
    } else {
        log::error("failed", &serde_json::json!({"error": fault.message}));
    }
    let mut stdout = std::io::stdout().lock();
    let is_read = !stdout.is_terminal();
    let _ = match style {
        FaultStyle::Code(code) => return ExitCode::from(code),
        FaultStyle::Json if is_read => writeln!(stdout, "{}", serde_json::json!(fault)),
        FaultStyle::Text if is_read => writeln!(stdout, "{}", fault.message),
        FaultStyle::Json | FaultStyle::Text => Ok(()),
    };
    ExitCode::FAILURE
}
