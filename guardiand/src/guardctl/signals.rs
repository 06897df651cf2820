//! Signals as messages: blocked everywhere, waited for by one thread.
//!
//! While a process in a container is the caller's business, a signal to guardctl is meant for it,
//! and guardctl must live on to report the exit code, put the terminal back and remove the
//! container.

use std::sync::mpsc::Sender;
use std::thread;

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};

/// Asked to end: what a shell, a supervisor or a closing terminal sends.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// Blocks the signals and sends each that arrives, made into an event, until the receiver is gone.
///
/// Must be called before any other thread exists: threads inherit the mask.
///
/// # Errors
/// When the mask can't be set.
pub(crate) fn forward<T: Send + 'static>(
    events: Sender<T>,
    event: impl Fn(Signal) -> T + Send + 'static,
) -> anyhow::Result<()> {
    let mut set = SigSet::empty();
    for signal in ENDING.into_iter().chain([Signal::SIGWINCH]) {
        set.add(signal);
    }
    set.thread_block().context("block signals")?;
    thread::spawn(move || {
        while let Ok(signal) = set.wait() {
            if events.send(event(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}
