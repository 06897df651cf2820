//! Process output to our own standard output or error.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::Sender;
use std::thread;

use super::Event;
use crate::client::Output;
use crate::target::Stream;

/// A pipe's capacity.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// Copies until the server closes the stream, then says so.
pub(super) fn start(output: Output, stream: BufReader<Stream>, events: Sender<Event>) {
    thread::spawn(move || {
        let event = match copy(output, stream) {
            Err(error) => lost(error, output),
            Ok(()) => Event::OutputEnded,
        };
        let _ = events.send(event);
    });
}

/// Tells a reader that has left from an output that can't be written, such as a file on a full disk.
pub(super) fn lost(error: io::Error, output: Output) -> Event {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Event::ReaderGone;
    }
    let name = match output {
        Output::Stdout => "standard output",
        Output::Stderr => "standard error",
    };
    Event::Unwritable(anyhow::Error::from(error).context(format!("write {name}")))
}

/// Bypasses the standard library's line buffer: output has to go out as it comes in, byte by
/// byte the same, and in big pieces when there is much of it. Fails only when it can't be written.
fn copy(output: Output, mut stream: BufReader<Stream>) -> io::Result<()> {
    let mut own = File::from(match output {
        Output::Stdout => io::stdout().as_fd().try_clone_to_owned()?,
        Output::Stderr => io::stderr().as_fd().try_clone_to_owned()?,
    });
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match stream.read(&mut buffer) {
            // A stream that breaks has ended, and the control connection tells why.
            Ok(0) | Err(_) => return Ok(()),
            Ok(length) => own.write_all(&buffer[..length])?,
        }
    }
}
