//! Our standard input to the process: bytes become JSON strings, the detach keys become an event.

use std::io::{self, Read};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use guardian_contract::garden::{ProcessPayload, SOURCE_STDIN};

use super::{Control, Event};
use crate::stdio;

/// As much as a pipe holds.
const CHUNK: usize = 64 * 1024;

/// ctrl-p, ctrl-q: leaves the process running, as in docker.
const DETACH: [u8; 2] = [0x10, 0x11];

/// ctrl-d: what a terminal takes for the end of input (VEOF, termios(3)).
const END: &str = "\x04";

/// The same to a line editor, which takes it for something else behind an unfinished line.
const ENTER_AND_END: &str = "\n\x04";

/// The time from the first [`END`] to the second; it doubles with each.
const END_AGAIN: Duration = Duration::from_millis(100);

/// Copies until standard input or the connection ends; a terminal is watched for detach keys.
pub(super) fn start(control: Control, is_terminal: bool, tty: bool, events: Sender<Event>) {
    thread::spawn(move || {
        let mut keys = Keys::default();
        let mut text = Text::default();
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match io::stdin().lock().read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            let (bytes, detached) = match is_terminal {
                true => keys.filter(&buffer[..count]),
                false => (buffer[..count].to_vec(), false),
            };
            // A server that is gone is told by the control connection's reader.
            if send(&control, text.push(&bytes)).is_err() {
                return;
            }
            if detached {
                let _ = events.send(Event::Detached);
                return;
            }
        }
        let _ = send(&control, text.finish());
        end(&control, tty);
    });
}

/// Lets the process see the end of its input at once.
pub(super) fn close(control: Control, tty: bool) {
    thread::spawn(move || end(&control, tty));
}

/// Ends the input. A process that has ended by now is told by the control connection.
fn end(control: &Control, tty: bool) {
    if !tty {
        let payload = control.payload();
        let _ = control.send(ProcessPayload { source: Some(SOURCE_STDIN), ..payload });
        return;
    }
    // A terminal has no end, only a character for it, which ends one read: it finishes a line that
    // has no newline, is lost on a shell that makes the terminal raw just then, and a shell's child
    // takes it for itself. Whoever reads after that must not wait for ever either.
    let mut pause = END_AGAIN;
    for text in [END; 2].into_iter().chain(std::iter::repeat(ENTER_AND_END)) {
        if send(control, text.to_owned()).is_err() {
            return;
        }
        thread::sleep(pause);
        pause *= 2;
    }
}

fn send(control: &Control, data: String) -> anyhow::Result<()> {
    if data.is_empty() {
        return Ok(());
    }
    let payload = control.payload();
    control.send(ProcessPayload { source: Some(SOURCE_STDIN), data: Some(data), ..payload })
}

/// Finds the detach keys, wherever reads happen to be cut.
#[derive(Debug, Default)]
struct Keys {
    held: bool,
}

impl Keys {
    /// Returns the bytes that are the process's, and whether the caller wants to leave.
    fn filter(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            if self.held && byte == DETACH[1] {
                return (passed, true);
            }
            if self.held {
                passed.push(DETACH[0]);
            }
            self.held = byte == DETACH[0];
            if !self.held {
                passed.push(byte);
            }
        }
        (passed, false)
    }
}

/// Bytes as text. A character that a read has cut waits for its rest; bytes that are no text at
/// all are replaced, because the API carries input in JSON strings, and the user is told once.
#[derive(Debug, Default)]
struct Text {
    tail: Vec<u8>,
    warned: bool,
}

impl Text {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.tail.extend_from_slice(bytes);
        let whole = self.tail.len() - cut_character(&self.tail);
        let rest = self.tail.split_off(whole);
        let bytes = std::mem::replace(&mut self.tail, rest);
        self.decode(bytes)
    }

    fn finish(&mut self) -> String {
        let bytes = std::mem::take(&mut self.tail);
        self.decode(bytes)
    }

    fn decode(&mut self, bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap_or_else(|error| {
            if !std::mem::replace(&mut self.warned, true) {
                stdio::complain("standard input is not UTF-8; what is no text arrives as U+FFFD");
            }
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        })
    }
}

/// Returns how many bytes at the end are the beginning of a character (RFC 3629, section 3).
fn cut_character(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    let Some(at) = tail.iter().rposition(|byte| byte & 0b1100_0000 != 0b1000_0000) else {
        return 0;
    };
    let have = tail.len() - at;
    let needed = match tail[at] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    if have < needed { have } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_across_reads() {
        let mut keys = Keys::default();
        assert_eq!(keys.filter(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.filter(b"\x10b"), (b"\x10\x10b".to_vec(), false));
        assert_eq!(keys.filter(b"c\x10"), (b"c".to_vec(), false));
        assert_eq!(keys.filter(b"\x11d"), (Vec::new(), true));
        assert_eq!(Keys::default().filter(b"\x11x"), (b"\x11x".to_vec(), false));
    }

    #[test]
    fn cut_characters_wait_for_their_rest() {
        let mut text = Text::default();
        assert_eq!(text.push(b"a\xc3"), "a");
        assert_eq!(text.push(b"\xa9\xf0\x9f"), "é");
        assert_eq!(text.push(b"\xa6\x80"), "🦀");
        assert_eq!(text.push(b"\xe2"), "");
        assert_eq!(text.finish(), "\u{fffd}");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let mut text = Text { warned: true, ..Text::default() };
        assert_eq!(text.push(b"a\xff\xfeb"), "a\u{fffd}\u{fffd}b");
    }

    proptest::proptest! {
        #[test]
        fn text_survives_any_cut(words: String, cuts in proptest::collection::vec(1_usize..7, 0..40)) {
            let mut text = Text { warned: true, ..Text::default() };
            let (mut bytes, mut out) = (words.as_bytes(), String::new());
            for cut in cuts {
                let (piece, rest) = bytes.split_at(cut.min(bytes.len()));
                out += &text.push(piece);
                bytes = rest;
            }
            out += &text.push(bytes);
            out += &text.finish();
            proptest::prop_assert_eq!(out, words);
        }
    }
}
