//! Asking about many containers at once, over the unix socket.

use guardian_tests::api::call;
use guardian_tests::daemon::Daemon;
use serde::Serialize;

use super::{Summary, summary, timed};
use crate::interrupt;

/// How many containers there are; a full Diego cell has so many.
const CONTAINERS: usize = 200;

/// How often each question is asked.
const TIMES: usize = 20;

/// How long the answers took.
#[derive(Debug, Serialize)]
pub(crate) struct Bulk {
    pub(super) containers: usize,
    pub(super) info: Summary,
    pub(super) metrics: Summary,
}

/// Makes many containers, asks, and removes them.
///
/// # Errors
/// When the server does not do its part.
pub(super) fn measure(daemon: &Daemon) -> anyhow::Result<Bulk> {
    let handles: Vec<String> =
        (0..CONTAINERS).map(|number| daemon.handle(&format!("m{number}"))).collect();
    for handle in &handles {
        interrupt::check()?;
        call(daemon, "POST", "/containers", &format!(r#"{{"handle":"{handle}"}}"#))?;
    }
    let list = handles.join(",");
    let ask = |what: &str| {
        let path = format!("/containers/{what}?handles={list}");
        let mut times = Vec::new();
        for _ in 0..TIMES {
            timed(&mut times, || call(daemon, "GET", &path, ""))?;
        }
        anyhow::Ok(summary(&times))
    };
    let bulk =
        Bulk { containers: CONTAINERS, info: ask("bulk_info")?, metrics: ask("bulk_metrics")? };
    daemon.destroy_all()?;
    Ok(bulk)
}
