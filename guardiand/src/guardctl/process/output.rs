//! Process output to our own standard output or error.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::sync::mpsc::Sender;
use std::thread;

use super::Event;
use crate::client::Output;
use crate::target::Stream;

/// Copies until the server closes the stream, then says so.
pub(super) fn start(output: Output, stream: BufReader<Stream>, events: Sender<Event>) {
    thread::spawn(move || {
        let event = match copy(output, stream) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Event::ReaderGone,
            // A stream that breaks has ended, and the control connection tells why.
            Ok(_) | Err(_) => Event::OutputEnded,
        };
        let _ = events.send(event);
    });
}

/// Bypasses the standard library's line buffer: output has to go out as it comes in, byte by
/// byte the same, and in big pieces when there is much of it.
fn copy(output: Output, mut stream: BufReader<Stream>) -> io::Result<u64> {
    let own = match output {
        Output::Stdout => io::stdout().as_fd().try_clone_to_owned()?,
        Output::Stderr => io::stderr().as_fd().try_clone_to_owned()?,
    };
    io::copy(&mut stream, &mut File::from(own))
}
