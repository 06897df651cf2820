//! The one queue on which the main thread learns everything.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use nix::sys::signal::Signal;

use crate::signals;

/// After so many signals the caller means guardctl itself.
pub(super) const PATIENCE: usize = 3;

/// How long a process may take to be killed before nobody waits for it any more.
const KILLING: Duration = Duration::from_secs(2);

/// What the main thread is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// guardctl got a signal.
    Signal(Signal),
    /// The process ended, with this status.
    Exited(i64),
    /// The server can't say how the process ended.
    Lost(anyhow::Error),
    /// An output has been copied to its end.
    OutputEnded,
    /// Nobody reads our own output any more.
    ReaderGone,
    /// Our own output can't be written.
    Unwritable(anyhow::Error),
    /// The detach keys were typed.
    Detached,
    /// Work in the background is done ([`Events::complete`]).
    Done,
}

/// The queue on which the main thread learns everything.
#[derive(Debug)]
pub(crate) struct Events {
    pub(super) sender: Sender<Event>,
    pub(super) receiver: Receiver<Event>,
}

impl Events {
    /// Returns the queue, signals coming in already. Call it before any thread is started.
    ///
    /// # Errors
    /// When signals can't be blocked.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let (sender, receiver) = channel();
        signals::forward(sender.clone(), Event::Signal)?;
        Ok(Self { sender, receiver })
    }

    /// Acts as if a signal came now: one that came when there was no process to pass it to.
    pub(crate) fn interrupt(&self) {
        // We hold the receiver.
        let _ = self.sender.send(Event::Signal(Signal::SIGTERM));
    }

    /// Acts as if the signal came once more, when what it led to has had its time.
    pub(super) fn repeat_later(&self, signal: Signal) {
        let sender = self.sender.clone();
        thread::spawn(move || {
            thread::sleep(KILLING);
            // Whoever has left by then needs no reminder.
            let _ = sender.send(Event::Signal(signal));
        });
    }

    /// Does `work` to its end. Signals are kept back, and the first says so by `true`; at the
    /// third, the caller wants out and the work is left alone.
    ///
    /// # Errors
    /// The work's, or that it was left.
    pub(crate) fn complete<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<(T, bool)> {
        let sender = self.sender.clone();
        let worker = thread::spawn(move || {
            let result = work();
            let _ = sender.send(Event::Done);
            result
        });
        let mut signals = 0;
        loop {
            match self.receiver.recv().context("events ended")? {
                Event::Done => break,
                Event::Signal(Signal::SIGWINCH) => {}
                Event::Signal(_) if signals + 1 == PATIENCE => bail!("interrupted"),
                Event::Signal(_) => signals += 1,
                _ => {}
            }
        }
        let result = worker.join().map_err(|_| anyhow!("a thread of guardctl failed"))?;
        Ok((result?, signals > 0))
    }
}
