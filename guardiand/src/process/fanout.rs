//! One stream of output, many readers: each gets every byte from where it joined, none can hold
//! up the process or another reader, and what is kept is bounded in bytes.
//!
//! All readers share one queue of chunks; a reader is a position in it. A chunk goes when the
//! last reader has passed it. A reader that falls behind by more than the limit loses the oldest
//! bytes: the process is never blocked, which is Garden's promise.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::container::lock;

/// How far behind a reader may be, in bytes: gdn's 4000 chunks, rounded down to what a slow
/// reader of a 50 MB burst needs.
pub(crate) const LIMIT_BYTES: usize = 64 << 20;

/// What is kept for somebody who may never come, in bytes.
pub(crate) const IDLE_LIMIT_BYTES: usize = 1 << 20;

/// A stream of output.
#[derive(Debug, Default)]
pub(crate) struct Fanout {
    queue: Mutex<Queue>,
    changed: Notify,
}

/// A reader's ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(u64);

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Bytes>,
    /// Position of the first chunk's first byte.
    start: u64,
    /// Position after the last chunk.
    end: u64,
    readers: HashMap<Ticket, Reader>,
    next_ticket: u64,
    /// Whether output is kept although nobody has joined yet.
    keeps_for_first: bool,
    is_over: bool,
}

#[derive(Debug)]
struct Reader {
    position: u64,
    limit: usize,
    has_read: bool,
    is_over: bool,
    lost_bytes: u64,
}

impl Fanout {
    /// Returns a stream that keeps its latest output for the first reader to come.
    pub(crate) fn keeping() -> Self {
        let queue = Queue { keeps_for_first: true, ..Queue::default() };
        Self { queue: Mutex::new(queue), changed: Notify::new() }
    }

    /// Adds output. Never blocks.
    pub(crate) fn push(&self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.lock().push(chunk);
            self.changed.notify_waiters();
        }
    }

    /// Says that no more output comes.
    pub(crate) fn end(&self) {
        self.lock().is_over = true;
        self.changed.notify_waiters();
    }

    /// Joins: the reader sees what is pushed from now on, and what was kept for the first one.
    pub(crate) fn join(&self) -> Ticket {
        let mut queue = self.lock();
        let ticket = Ticket(queue.next_ticket);
        queue.next_ticket += 1;
        let position = if queue.keeps_for_first { queue.start } else { queue.end };
        queue.keeps_for_first = false;
        let reader =
            Reader { position, limit: LIMIT_BYTES, has_read: false, is_over: false, lost_bytes: 0 };
        queue.readers.insert(ticket, reader);
        ticket
    }

    /// Changes how far behind a reader may be.
    pub(crate) fn set_limit(&self, ticket: Ticket, limit: usize) {
        let mut queue = self.lock();
        if let Some(reader) = queue.readers.get_mut(&ticket) {
            reader.limit = limit;
        }
        queue.trim();
    }

    /// Tells whether this reader was ever asked for.
    pub(crate) fn has_read(&self, ticket: Ticket) -> bool {
        self.lock().readers.get(&ticket).is_some_and(|reader| reader.has_read)
    }

    /// Says that this reader gets what is queued and then the end, whatever comes later.
    pub(crate) fn finish(&self, ticket: Ticket) {
        if let Some(reader) = self.lock().readers.get_mut(&ticket) {
            reader.is_over = true;
        }
        self.changed.notify_waiters();
    }

    /// Leaves. Returns how many bytes the reader lost because it was too slow.
    pub(crate) fn leave(&self, ticket: Ticket) -> u64 {
        let mut queue = self.lock();
        let lost = queue.readers.remove(&ticket).map_or(0, |reader| reader.lost_bytes);
        queue.trim();
        drop(queue);
        self.changed.notify_waiters();
        lost
    }

    /// Returns the reader's next chunk, waiting for it; `None` at the end or after it left.
    pub(crate) async fn next(&self, ticket: Ticket) -> Option<Bytes> {
        loop {
            // Registered before looking, so that a push in between wakes us.
            let changed = self.changed.notified();
            match self.lock().take(ticket) {
                Taken::Chunk(chunk) => return Some(chunk),
                Taken::End => return None,
                Taken::Nothing => {}
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

enum Taken {
    Chunk(Bytes),
    Nothing,
    End,
}

impl Queue {
    fn push(&mut self, chunk: Bytes) {
        self.end += chunk.len() as u64;
        self.chunks.push_back(chunk);
        self.trim();
    }

    fn take(&mut self, ticket: Ticket) -> Taken {
        let Some(reader) = self.readers.get_mut(&ticket) else { return Taken::End };
        reader.has_read = true;
        let (position, is_over) = (reader.position, reader.is_over || self.is_over);
        let mut at = self.start;
        for chunk in &self.chunks {
            let next = at + chunk.len() as u64;
            if next > position {
                let skip = usize::try_from(position.saturating_sub(at)).unwrap_or(0);
                let chunk = chunk.slice(skip..);
                if let Some(reader) = self.readers.get_mut(&ticket) {
                    reader.position = next;
                }
                self.trim();
                return Taken::Chunk(chunk);
            }
            at = next;
        }
        if is_over { Taken::End } else { Taken::Nothing }
    }

    /// Drops what every reader has passed, after moving those on that are too far behind.
    fn trim(&mut self) {
        for reader in self.readers.values_mut() {
            let earliest = self.end.saturating_sub(reader.limit as u64);
            if reader.position < earliest {
                reader.lost_bytes += earliest - reader.position;
                reader.position = earliest;
            }
        }
        let idle_start = match self.keeps_for_first {
            true => self.end.saturating_sub(IDLE_LIMIT_BYTES as u64),
            false => self.end,
        };
        let needed = self.readers.values().map(|reader| reader.position).min();
        let needed = needed.unwrap_or(idle_start);
        while let Some(chunk) = self.chunks.front() {
            let next = self.start + chunk.len() as u64;
            if next > needed {
                break;
            }
            self.start = next;
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(fanout: &Fanout, ticket: Ticket) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(chunk) = fanout.next(ticket).await {
            out.extend_from_slice(&chunk);
        }
        out
    }

    #[tokio::test]
    async fn every_reader_gets_all_from_where_it_joined() {
        let fanout = Fanout::default();
        fanout.push(Bytes::from_static(b"nobody hears this"));
        let first = fanout.join();
        fanout.push(Bytes::from_static(b"one "));
        let second = fanout.join();
        fanout.push(Bytes::from_static(b"two"));
        fanout.end();
        assert_eq!(all(&fanout, first).await, b"one two");
        assert_eq!(all(&fanout, second).await, b"two");
        assert!(fanout.lock().chunks.is_empty());
    }

    #[tokio::test]
    async fn a_stalled_reader_loses_the_oldest_and_the_others_nothing() {
        let fanout = Fanout::default();
        let (stalled, lively) = (fanout.join(), fanout.join());
        fanout.set_limit(stalled, 10);
        for digit in b'0'..=b'9' {
            fanout.push(Bytes::from(vec![digit; 4]));
            assert_eq!(fanout.next(lively).await.unwrap(), vec![digit; 4]);
        }
        fanout.end();
        assert_eq!(all(&fanout, stalled).await, b"7788889999");
        assert_eq!(fanout.leave(stalled), 30);
    }

    #[tokio::test]
    async fn what_is_kept_for_the_first_reader_is_bounded() {
        let fanout = Fanout::keeping();
        for _ in 0..5 {
            fanout.push(Bytes::from(vec![0; IDLE_LIMIT_BYTES / 2]));
        }
        fanout.end();
        let ticket = fanout.join();
        assert_eq!(all(&fanout, ticket).await.len(), IDLE_LIMIT_BYTES);
    }

    #[tokio::test]
    async fn a_finished_reader_ends_while_the_stream_goes_on() {
        let fanout = Fanout::default();
        let ticket = fanout.join();
        fanout.push(Bytes::from_static(b"x"));
        fanout.finish(ticket);
        assert_eq!(all(&fanout, ticket).await, b"x");
    }
}
