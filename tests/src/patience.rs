//! How long a test waits before it counts something as never done: longer on an emulated machine.

use std::sync::LazyLock;
use std::time::Duration;

/// Names the factor by which this machine is slower than a real one; `cargo xtask vm` sets it.
pub const SLOWNESS: &str = "GUARDIAN_SLOWNESS";

static FACTOR: LazyLock<u32> =
    LazyLock::new(|| factor(std::env::var(SLOWNESS).unwrap_or_default().as_str()));

/// Returns the limit for this machine, given the one for a real machine. For deadlines only: what
/// must take some time, and what is measured, is the same everywhere.
pub fn patience(limit: Duration) -> Duration {
    limit * *FACTOR
}

fn factor(text: &str) -> u32 {
    text.parse().unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_makes_a_limit_shorter() {
        assert_eq!([factor(""), factor("0"), factor("no"), factor("10")], [1, 1, 1, 10]);
    }
}
