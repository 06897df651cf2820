//! One stream of output, many readers: each gets every byte from where it joined, none can hold
//! up the process or another reader, and what is kept is bounded in bytes.
//!
//! All readers share one queue of chunks; a reader is a position in it. A chunk goes when the
//! last reader has passed it.
//!
//! A reader that keeps up with [`PACE_BYTES`] in [`PATIENCE`] gets every byte: the process waits for
//! it. One that does not has the process wait once, for that time, and never again until it has
//! caught up; if it falls behind by more than its limit, it loses the oldest bytes. A stream with scrollback keeps its
//! latest bytes for readers yet to come, and one without it until the first has come.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::container::lock;

/// How far behind a reader may be, in bytes: gdn's 4000 chunks, rounded down to what a slow
/// reader of a 50 MB burst needs.
pub(crate) const LIMIT_BYTES: usize = 64 << 20;

/// From how far behind on a reader is waited for, in bytes.
const HIGH_BYTES: u64 = 16 << 20;

/// How long a reader has for taking [`PACE_BYTES`].
const PATIENCE: Duration = Duration::from_secs(1);

/// What a reader must take to be waited for, in bytes: a tenth of what a slow network carries.
const PACE_BYTES: u64 = 1 << 20;

/// What is kept for somebody who may never come, in bytes.
pub(crate) const IDLE_LIMIT_BYTES: usize = 1 << 20;

/// Output that comes in small pieces is kept in pieces of about this size, or the queue would be
/// mostly bookkeeping.
const PIECE_BYTES: usize = 4096;

/// A stream of output.
#[derive(Debug, Default)]
pub(crate) struct Fanout {
    queue: Mutex<Queue>,
    /// Something came.
    changed: Notify,
    /// Something was taken.
    taken: Notify,
}

/// A reader's ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(u64);

#[derive(Debug, Default)]
struct Queue {
    /// Each with the position of its first byte, so that a reader's place is found quickly.
    chunks: VecDeque<(u64, Bytes)>,
    /// Position after the last chunk.
    end: u64,
    readers: HashMap<Ticket, Reader>,
    next_ticket: u64,
    /// Whether the latest output is kept for whoever joins.
    keeps: bool,
    /// Whether that goes on after the first has joined.
    has_scrollback: bool,
    is_over: bool,
    /// Whether readers are not waited for any more.
    is_last: bool,
}

#[derive(Debug)]
struct Reader {
    position: u64,
    limit: usize,
    has_read: bool,
    is_over: bool,
    /// Whether it has been told the end.
    is_done: bool,
    /// Whether it has been waited for in vain.
    is_slow: bool,
    lost_bytes: u64,
}

impl Fanout {
    /// Returns a stream that keeps its latest output, up to [`IDLE_LIMIT_BYTES`], for the first
    /// reader to come, or with scrollback for every one.
    pub(crate) fn keeping(has_scrollback: bool) -> Self {
        let queue = Queue { keeps: true, has_scrollback, ..Queue::default() };
        Self { queue: Mutex::new(queue), ..Self::default() }
    }

    /// Adds output. Never blocks.
    pub(crate) fn push(&self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.lock().push(chunk);
            self.changed.notify_waiters();
        }
    }

    /// Waits for readers that are far behind and keep up nevertheless.
    pub(crate) async fn make_room(&self) {
        loop {
            let far_behind = self.lock().far_behind();
            if far_behind.is_empty() {
                return;
            }
            if tokio::time::timeout(PATIENCE, self.drained()).await.is_err() {
                self.lock().give_up_on(&far_behind);
            }
        }
    }

    async fn drained(&self) {
        loop {
            // Registered before looking, so that a taking in between wakes us.
            let taken = self.taken.notified();
            if self.lock().far_behind().is_empty() {
                return;
            }
            taken.await;
        }
    }

    /// Says that what comes now is the last, and must not wait for anybody.
    pub(crate) fn hurry(&self) {
        self.lock().is_last = true;
        self.taken.notify_waiters();
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
        let position = queue.kept_from();
        queue.keeps = queue.has_scrollback;
        let reader = Reader {
            position,
            limit: LIMIT_BYTES,
            has_read: false,
            is_over: false,
            is_done: false,
            is_slow: false,
            lost_bytes: 0,
        };
        queue.readers.insert(ticket, reader);
        ticket
    }

    /// Returns what is kept for readers to come.
    pub(crate) fn kept(&self) -> Vec<u8> {
        let queue = self.lock();
        let mut position = queue.kept_from();
        let mut kept = Vec::new();
        while let Some(chunk) = at(&queue.chunks, position) {
            kept.extend_from_slice(&chunk);
            position += chunk.len() as u64;
        }
        kept
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

    /// Tells whether this reader has read all there will be, or has left.
    pub(crate) fn is_done(&self, ticket: Ticket) -> bool {
        self.lock().readers.get(&ticket).is_none_or(|reader| reader.is_done)
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
        self.taken.notify_waiters();
        lost
    }

    /// Returns the reader's next chunk, waiting for it; `None` at the end or after it left.
    pub(crate) async fn next(&self, ticket: Ticket) -> Option<Bytes> {
        loop {
            // Registered before looking, so that a push in between wakes us.
            let changed = self.changed.notified();
            match self.lock().take(ticket) {
                Taken::Chunk(chunk) => {
                    self.taken.notify_waiters();
                    return Some(chunk);
                }
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
        let start = self.end;
        self.end += chunk.len() as u64;
        self.append(start, chunk);
        self.trim();
    }

    fn append(&mut self, start: u64, chunk: Bytes) {
        if let Some((_, last)) = self.chunks.back_mut()
            && last.len() + chunk.len() <= PIECE_BYTES
        {
            // Not while somebody is about to send it.
            match std::mem::take(last).try_into_mut() {
                Ok(mut longer) => {
                    longer.extend_from_slice(&chunk);
                    *last = longer.freeze();
                    return;
                }
                Err(same) => *last = same,
            }
        }
        self.chunks.push_back((start, chunk));
    }

    /// Position of the first byte that there is.
    fn start(&self) -> u64 {
        self.chunks.front().map_or(self.end, |(start, _)| *start)
    }

    /// Where a reader begins that joins now.
    fn kept_from(&self) -> u64 {
        match self.keeps {
            true => self.start().max(self.end.saturating_sub(IDLE_LIMIT_BYTES as u64)),
            false => self.end,
        }
    }

    fn take(&mut self, ticket: Ticket) -> Taken {
        let (chunks, end) = (&self.chunks, self.end);
        let Some(reader) = self.readers.get_mut(&ticket) else { return Taken::End };
        reader.has_read = true;
        match at(chunks, reader.position) {
            Some(chunk) => {
                reader.position += chunk.len() as u64;
                reader.is_slow &= end - reader.position > IDLE_LIMIT_BYTES as u64;
                self.trim();
                Taken::Chunk(chunk)
            }
            None if reader.is_over || self.is_over => {
                reader.is_done = true;
                Taken::End
            }
            None => Taken::Nothing,
        }
    }

    /// Returns who is far behind and worth waiting for, and where.
    fn far_behind(&self) -> Vec<(Ticket, u64)> {
        if self.is_last {
            return Vec::new();
        }
        let far = |reader: &Reader| {
            !reader.is_over && !reader.is_slow && self.end - reader.position > HIGH_BYTES
        };
        let readers = self.readers.iter().filter(|(_, reader)| far(reader));
        readers.map(|(ticket, reader)| (*ticket, reader.position)).collect()
    }

    /// Waits no longer for those who have not taken enough since they were there.
    fn give_up_on(&mut self, waited_for: &[(Ticket, u64)]) {
        for (ticket, position) in waited_for {
            if let Some(reader) = self.readers.get_mut(ticket) {
                reader.is_slow = reader.position - position < PACE_BYTES;
            }
        }
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
        let needed = self.readers.values().map(|reader| reader.position).min();
        let needed = needed.unwrap_or(self.end).min(self.kept_from());
        while let Some((start, bytes)) = self.chunks.front()
            && start + bytes.len() as u64 <= needed
        {
            self.chunks.pop_front();
        }
    }
}

/// Returns what there is from a position on to the end of a chunk.
fn at(chunks: &VecDeque<(u64, Bytes)>, position: u64) -> Option<Bytes> {
    let index = chunks.partition_point(|(start, bytes)| start + bytes.len() as u64 <= position);
    let (start, bytes) = chunks.get(index)?;
    let skip = usize::try_from(position.saturating_sub(*start)).unwrap_or(0);
    Some(bytes.slice(skip..))
}

#[cfg(test)]
mod tests;
