//! What a person is told of the tests on the second kernel.

use anyhow::bail;

use super::plan::{End, Outcome, Test};
use crate::say;

/// Names what will not run; unit tests, most of which meet no kernel, by their package.
pub(crate) fn left_out(tests: &[Test]) {
    if tests.is_empty() {
        return;
    }
    say(&format!("left out of the second kernel, {} tests:", tests.len()));
    for group in tests.chunk_by(|a, b| a.executable == b.executable) {
        let prefix = group[0].name.trim_end_matches(&group[0].path);
        if prefix.starts_with("unit/") {
            say(&format!("  {prefix} {} unit tests", group.len()));
            continue;
        }
        let paths: Vec<&str> = group.iter().map(|test| test.path.as_str()).collect();
        say(&format!("  {prefix} {}", paths.join(" ")));
    }
}

/// Returns the checks that were skipped there.
pub(crate) fn skipped(outcomes: &[Outcome]) -> Vec<String> {
    let lines = outcomes.iter().flat_map(|outcome| &outcome.skipped);
    lines.map(|line| format!("{line} (on the second kernel)")).collect()
}

/// Tells how the tests ended: in full those that failed.
///
/// # Errors
/// When a test failed, or the machine ended before it had told of all. What there was no time for is
/// no failure, unless that was all.
pub(crate) fn verdict(wanted: &[Test], outcomes: &[Outcome]) -> anyhow::Result<()> {
    let is_failure = |outcome: &&Outcome| matches!(outcome.end, End::Failed | End::Overdue);
    let failed: Vec<&Outcome> = outcomes.iter().filter(is_failure).collect();
    for outcome in &failed {
        say(&format!("\n---- {}, after {:.0} s", outcome.name, outcome.seconds));
        say(outcome.output.trim_end());
    }
    say("");
    for outcome in &failed {
        let how = if outcome.end == End::Overdue { "overdue" } else { "failed" };
        say(&format!("{how}: {}", outcome.name));
    }
    let is_told = |test: &&Test| outcomes.iter().any(|outcome| outcome.name == test.name);
    let (told, lost): (Vec<&Test>, Vec<&Test>) = wanted.iter().partition(is_told);
    lost.iter().for_each(|test| say(&format!("lost: {}", test.name)));
    let left_out = outcomes.iter().filter(|outcome| outcome.end == End::NoTime).count();
    let passed = told.len() - failed.len() - left_out;
    say(&format!("second kernel: {passed} passed, {} failed, {left_out} left out", failed.len()));
    judge(passed, failed.len(), lost.len())
}

fn judge(passed: usize, failed: usize, lost: usize) -> anyhow::Result<()> {
    if lost > 0 {
        bail!("the second kernel came to its end before {lost} tests had come to theirs");
    }
    if failed > 0 || passed == 0 {
        bail!("on the second kernel {passed} tests passed, and {failed} failed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_must_have_passed_and_nothing_failed_or_got_lost() {
        assert!(judge(1, 0, 0).is_ok());
        assert!(judge(1, 1, 0).is_err() && judge(1, 0, 1).is_err() && judge(0, 0, 0).is_err());
    }
}
