//! Our own oom_score_adj (proc_pid_oom_score_adj(5)), which children inherit.

use guardian_contract::process::oom_score_adj;

const FILE: &str = "/proc/self/oom_score_adj";

/// Does something as a container's process, and is a keeper again afterwards. Where the host does not
/// let us, everything is as it was.
pub(crate) fn while_expendable<T>(work: impl FnOnce() -> T) -> T {
    let text = std::fs::read_to_string(FILE).unwrap_or_default();
    let Ok(own) = text.trim().parse() else { return work() };
    let _ = std::fs::write(FILE, oom_score_adj(own).to_string());
    let result = work();
    let _ = std::fs::write(FILE, text.trim());
    result
}
