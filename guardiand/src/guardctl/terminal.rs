//! The caller's own terminal: raw while a container's process owns it, as before afterwards.
//!
//! Restoring must not be forgotten on any way out: the guard does it when it is dropped, a panic
//! hook does it because panics abort here (no destructor runs), and signals never kill guardctl
//! while it is raw ([`crate::signals`]).

use std::sync::Mutex;

use anyhow::Context;
use guardian_contract::garden::{Tty, TtyWindow};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// What the terminal was like before; `None` while nothing is to be restored.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal on standard input, raw as long as this lives.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Makes the terminal raw; `None` where standard input is no terminal.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub(crate) fn enter() -> anyhow::Result<Option<Self>> {
        let stdin = rustix::stdio::stdin();
        if !isatty(stdin) {
            return Ok(None);
        }
        let before = tcgetattr(stdin).context("read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        restore_on_panic();
        if let Ok(mut slot) = BEFORE.lock() {
            *slot = Some(before);
        }
        let guard = Self(());
        tcsetattr(stdin, OptionalActions::Now, &raw).context("make the terminal raw")?;
        Ok(Some(guard))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    // `try_lock`: a panic hook must not wait for the thread that panicked.
    if let Ok(mut slot) = BEFORE.try_lock()
        && let Some(before) = slot.take()
    {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &before);
    }
}

fn restore_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        report(info);
    }));
}

/// Returns the request for a terminal like the caller's own; without one, of default size.
pub(crate) fn wanted() -> Tty {
    Tty { window_size: size() }
}

/// Returns the size of the terminal on standard output, or else on standard input.
pub(crate) fn size() -> Option<TtyWindow> {
    let size = tcgetwinsize(rustix::stdio::stdout())
        .or_else(|_| tcgetwinsize(rustix::stdio::stdin()))
        .ok()?;
    let known = size.ws_col > 0 && size.ws_row > 0;
    known.then_some(TtyWindow { columns: size.ws_col, rows: size.ws_row })
}
