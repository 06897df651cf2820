//! What our programs take: the server idle and with containers, one dadoo per process, one init
//! per container.

use anyhow::Context;
use guardian_tests::daemon::Daemon;
use guardian_tests::host;
use guardian_tests::memory::{self, Memory};
use serde::Serialize;

/// Containers and processes kept while measuring.
const COUNT: usize = 10;

/// KiB.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Numbers {
    /// The server without containers, after all that was measured before.
    pub(crate) server_idle: Memory,
    /// What each further container with one process adds to the server.
    pub(crate) server_per_container_kib: f64,
    /// One dadoo that waits for an idle process.
    pub(crate) dadoo: Memory,
    /// One container's init.
    pub(crate) init: Memory,
}

/// Measures.
///
/// # Errors
/// When the server fails.
pub(super) fn measure(daemon: &Daemon) -> anyhow::Result<Numbers> {
    let server_idle = memory::of(daemon.pid()?)?;
    for number in 0..COUNT {
        let handle = daemon.handle(&format!("m{number}"));
        daemon.ctl(&["create", "--handle", &handle])?;
        daemon.ctl(&["exec", "--detach", &handle, "--", "sleep", "1000"])?;
    }
    // Dirty pages of an executable just built would count as private.
    host::run(&["sync"])?;
    let server_busy = memory::of(daemon.pid()?)?;
    let added = server_busy.rss_kib.saturating_sub(server_idle.rss_kib);
    let mark = daemon.depot().display().to_string();
    let numbers = Numbers {
        server_idle,
        server_per_container_kib: added as f64 / COUNT as f64,
        dadoo: one_of("dadoo", &mark)?,
        init: one_of("garden-init", "")?,
    };
    daemon.destroy_all()?;
    Ok(numbers)
}

/// Returns the median, by private memory, of the processes with this name and, in their
/// arguments, this word.
fn one_of(name: &str, word: &str) -> anyhow::Result<Memory> {
    let pids = host::processes(name, word);
    let mut all: Vec<Memory> = pids.into_iter().flat_map(memory::of).collect();
    all.sort_by_key(|memory| memory.private_kib);
    all.get(all.len() / 2).copied().with_context(|| format!("no process named {name}"))
}
