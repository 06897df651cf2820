//! Reads ahead in a thread of its own, so that whoever makes bytes (a decoder) and whoever takes them
//! apart work at the same time.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use anyhow::{Context, anyhow};

/// Large enough that waking the other thread doesn't matter beside decoding.
const PIECE: usize = 256 * 1024;
/// Pieces that may wait.
const WAITING: usize = 4;

/// The reader's end.
#[derive(Debug)]
pub(crate) struct Ahead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    taken: usize,
}

/// What reads ahead; returns the source.
pub(crate) struct Source<'scope, R>(ScopedJoinHandle<'scope, R>);

impl Ahead {
    /// Begins to read `source`.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(crate) fn start<'scope, R: Read + Send + 'scope>(
        scope: &'scope Scope<'scope, '_>,
        mut source: R,
    ) -> anyhow::Result<(Self, Source<'scope, R>)> {
        let (output, pieces) = sync_channel(WAITING);
        let work = move || {
            read_all(&mut source, &output);
            source
        };
        let thread = Builder::new().spawn_scoped(scope, work).context("start a thread")?;
        Ok((Self { pieces, piece: Vec::new(), taken: 0 }, Source(thread)))
    }
}

impl<R> Source<'_, R> {
    /// Waits for the end, which comes when all is read or the [`Ahead`] is gone.
    ///
    /// # Errors
    /// When the thread panicked.
    pub(crate) fn finish(self) -> anyhow::Result<R> {
        self.0.join().map_err(|_| anyhow!("the thread that reads ahead died"))
    }
}

/// An empty piece is the end.
fn read_all(source: &mut impl Read, output: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = source.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let is_last = piece.is_empty() || read.is_err();
        // What came before a failure is good.
        if !piece.is_empty() && output.send(Ok(piece)).is_err() {
            return;
        }
        if is_last {
            let _ = output.send(read.map(|_| Vec::new()));
            return;
        }
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.piece.len() {
            // Nobody sends any more after the end.
            self.piece = self.pieces.recv().unwrap_or(Ok(Vec::new()))?;
            self.taken = 0;
        }
        Ok(&self.piece[self.taken..])
    }

    fn consume(&mut self, length: usize) {
        self.taken += length;
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes and then fails, if it is to.
    struct Bytes(usize, bool);

    impl Read for Bytes {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 && self.1 {
                return Err(io::Error::other("broken"));
            }
            let length = buffer.len().min(self.0).min(1000);
            buffer[..length].fill(7);
            self.0 -= length;
            Ok(length)
        }
    }

    #[test]
    fn all_bytes_come_and_then_the_failure() {
        for (size, fails) in [(0, false), (1, true), (PIECE, true), (PIECE * 9 + 1, false)] {
            std::thread::scope(|scope| {
                let (mut ahead, source) = Ahead::start(scope, Bytes(size, fails)).unwrap();
                let mut bytes = Vec::new();
                let read = ahead.read_to_end(&mut bytes);
                assert_eq!((read.is_err(), bytes.len()), (fails, size));
                assert_eq!(source.finish().unwrap().0, 0);
            });
        }
    }

    #[test]
    fn who_takes_no_more_keeps_nobody_waiting() {
        std::thread::scope(|scope| {
            let (mut ahead, source) = Ahead::start(scope, io::repeat(7)).unwrap();
            ahead.read_exact(&mut [0; 10]).unwrap();
            drop(ahead);
            source.finish().unwrap();
        });
    }
}
