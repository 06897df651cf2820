//! The moment from which a container can be entered.

use std::time::{Duration, Instant};

/// How long a host so busy that its containers hardly run is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked: nearly always it is so at the first look.
const LOOK: Duration = Duration::from_millis(1);

/// Waits until a container's first process has become init. Runtimes come back a little before that,
/// and until then nobody may enter its namespaces (ptrace(2), dumpable): a process that is run at
/// once would fail. One that takes longer than anybody's patience, or has ended, is noticed by
/// whoever needs it.
pub(super) async fn wait(pid: i32) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        // The name that init is executed by, in every container.
        match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) if name.trim_end() != "garden-init" => tokio::time::sleep(LOOK).await,
            _ => return,
        }
    }
}
