//! Grace time: a container that no client uses for so long is destroyed.
//!
//! Each request that uses the container holds a [`Hold`]; the countdown starts, in full, when the
//! last one is dropped. A countdown of 0 never ends. (gdn destroys at once when 0 is set later
//! while nobody is connected; no client can mean that, so here it always means never.)

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::AbortHandle;

use super::{Container, lock};
use crate::guardian::Guardian;

/// The countdown of one container.
#[derive(Debug, Default)]
pub(crate) struct Grace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Nanoseconds; negative means that it is over at once, 0 that it never is.
    countdown: i64,
    holds: usize,
    timer: Option<AbortHandle>,
}

/// A request's use of a container: while it lives, the countdown stands still.
#[derive(Debug)]
pub(crate) struct Hold {
    guardian: Arc<Guardian>,
    container: Arc<Container>,
}

impl Hold {
    /// Stops the countdown.
    pub(crate) fn new(guardian: &Arc<Guardian>, container: &Arc<Container>) -> Self {
        let mut state = lock(&container.grace.0);
        state.holds += 1;
        state.stop();
        Self { guardian: Arc::clone(guardian), container: Arc::clone(container) }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = lock(&self.container.grace.0);
        state.holds -= 1;
        state.start(&self.guardian, &self.container);
    }
}

/// Sets the countdown and starts it, unless the container is in use.
pub(crate) fn set(guardian: &Arc<Guardian>, container: &Arc<Container>, countdown: i64) {
    let mut state = lock(&container.grace.0);
    state.countdown = countdown;
    state.stop();
    state.start(guardian, container);
}

impl State {
    fn stop(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
    }

    fn start(&mut self, guardian: &Arc<Guardian>, container: &Arc<Container>) {
        if self.holds > 0 || self.countdown == 0 {
            return;
        }
        let wait = Duration::from_nanos(u64::try_from(self.countdown).unwrap_or(0));
        let (guardian, handle) = (Arc::clone(guardian), container.handle().clone());
        let timer = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // A task of its own: the destroy takes holds and would abort the timer it runs in.
            tokio::spawn(async move { guardian.reap(&handle).await });
        });
        self.timer = Some(timer.abort_handle());
    }
}
