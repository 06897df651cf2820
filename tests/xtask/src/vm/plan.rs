//! What host and guest tell each other, in files of a directory that both see.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file with the [`Plan`], from the host.
pub(crate) const PLAN: &str = "plan.json";
/// The file with an [`Outcome`] in each line, from the guest, in the order in which they came.
pub(crate) const OUTCOMES: &str = "outcomes.jsonl";

/// What the guest is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Our executables.
    pub(crate) bin_dir: PathBuf,
    /// Where the host finds programs and toolchains: variables and their values.
    pub(crate) environment: Vec<(String, String)>,
    /// The tests, those of one executable together.
    pub(crate) tests: Vec<Test>,
    /// How many tests may run at once.
    pub(crate) jobs: usize,
    /// How much slower the guest is than the host; see `guardian_tests::patience`.
    pub(crate) slowness: u32,
    /// How long one test may take, in seconds.
    pub(crate) test_seconds: u64,
    /// After how many seconds no further test is begun.
    pub(crate) seconds: u64,
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Test {
    /// The name by which it is asked for, such as `garden::life::hello`.
    pub(crate) name: String,
    /// The test executable that has it.
    pub(crate) executable: PathBuf,
    /// Its name there.
    pub(crate) path: String,
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// It passed, as far as it could run.
    Passed,
    /// It failed.
    Failed,
    /// It did not end in time, and was killed.
    Overdue,
    /// It was not begun: the time for all tests was over.
    NoTime,
}

/// What became of a test.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// [`Test::name`].
    pub(crate) name: String,
    /// How it ended.
    pub(crate) end: End,
    /// How long it took.
    pub(crate) seconds: f64,
    /// The checks it skipped, a line each.
    pub(crate) skipped: Vec<String>,
    /// All it printed.
    pub(crate) output: String,
}

/// Reads the plan.
///
/// # Errors
/// When there is none.
pub(crate) fn read(directory: &Path) -> anyhow::Result<Plan> {
    Ok(serde_json::from_slice(&std::fs::read(directory.join(PLAN))?)?)
}

/// Reads all outcomes there are. A line that the guest could not finish does not count.
pub(crate) fn outcomes(directory: &Path) -> Vec<Outcome> {
    let text = std::fs::read_to_string(directory.join(OUTCOMES)).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
