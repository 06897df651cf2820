//! ctrl-c: noted, and acted on between two steps, so that what was begun is removed.
//!
//! The programs run meanwhile are in the terminal's group and end by the same signal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::bail;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static CAME: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Catches the signals that ask to end. By handlers and not by blocking: what is blocked stays so
/// in the programs we start, which then could not be stopped.
///
/// # Errors
/// When signals can't be caught.
pub(crate) fn catch() -> anyhow::Result<()> {
    let came = CAME.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(came))?;
    }
    Ok(())
}

/// Fails when a signal came.
///
/// # Errors
/// Then.
pub(crate) fn check() -> anyhow::Result<()> {
    if CAME.get().is_some_and(|came| came.load(Ordering::Relaxed)) {
        bail!("interrupted");
    }
    Ok(())
}
