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

/// Tells how the tests ended: in full those that did not pass.
///
/// # Errors
/// When there are any of them.
pub(crate) fn verdict(wanted: &[Test], outcomes: &[Outcome]) -> anyhow::Result<()> {
    let failed: Vec<&Outcome> =
        outcomes.iter().filter(|outcome| outcome.end != End::Passed).collect();
    let has_run = |test: &&Test| outcomes.iter().any(|outcome| outcome.name == test.name);
    let (run, not_run): (Vec<&Test>, Vec<&Test>) = wanted.iter().partition(has_run);
    for outcome in &failed {
        say(&format!("\n---- {}, after {:.0} s", outcome.name, outcome.seconds));
        say(outcome.output.trim_end());
    }
    let passed = run.len() - failed.len();
    let (failures, missing) = (failed.len(), not_run.len());
    say(&format!("\nsecond kernel: {passed} passed, {failures} failed, {missing} not run"));
    for outcome in &failed {
        let how = if outcome.end == End::Overdue { "overdue" } else { "failed" };
        say(&format!("  {how}: {}", outcome.name));
    }
    not_run.iter().for_each(|test| say(&format!("  not run: {}", test.name)));
    if passed < wanted.len() {
        bail!("on the second kernel {failures} tests failed, and {missing} did not run");
    }
    Ok(())
}
