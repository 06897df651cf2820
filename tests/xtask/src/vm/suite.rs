//! The tests there are, and those that are asked for.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::bail;
use guardian_tests::host;
use serde_json::Value;

use super::plan::Test;
use crate::build;

/// The tests that continuous integration runs on the second kernel.
const PART: &str = include_str!("part.txt");

/// Builds the tests and names them all. Tests of the whole have the name of their executable in
/// front (`garden::life::…`), unit tests that of their package (`unit/depot::…`).
///
/// # Errors
/// When the build fails; cargo has said why.
pub(crate) fn all() -> anyhow::Result<Vec<Test>> {
    let output = Command::new(build::program())
        .args(["test", "--no-run", "--quiet", "--workspace", "--exclude", "xtask"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(host::workspace())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        bail!("cargo test --no-run: {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut executables: Vec<(String, PathBuf)> = text.lines().filter_map(executable).collect();
    executables.sort();
    let mut tests = Vec::new();
    for (prefix, executable) in executables {
        let words = ["--list", "--format", "terse"];
        let list = host::output(Command::new(&executable).args(words))?;
        let paths = list.lines().filter_map(|line| line.strip_suffix(": test"));
        tests.extend(paths.map(|path| Test {
            name: format!("{prefix}::{path}"),
            executable: executable.clone(),
            path: path.to_owned(),
        }));
    }
    Ok(tests)
}

/// Returns the test executable that a line of cargo's messages speaks of, and its prefix (The
/// Cargo Book, "External Tools", JSON messages).
fn executable(line: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let path = message["executable"].as_str()?;
    message["profile"]["test"].as_bool().filter(|is_test| *is_test)?;
    let name = message["target"]["name"].as_str()?;
    let is_whole = message["target"]["kind"].as_array()?.iter().any(|kind| kind == "test");
    let prefix = if is_whole { name.to_owned() } else { format!("unit/{name}") };
    Some((prefix, path.into()))
}

/// Splits the tests into those of continuous integration's part and the others.
///
/// # Errors
/// When the list has a line that no test's name begins with.
pub(crate) fn part(tests: Vec<Test>) -> anyhow::Result<(Vec<Test>, Vec<Test>)> {
    let lines = PART.lines().map(|line| line.split('#').next().unwrap_or(line).trim());
    let prefixes: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let is_known = |prefix: &str| tests.iter().any(|test| test.name.starts_with(prefix));
    if let Some(unknown) = prefixes.iter().find(|prefix| !is_known(prefix)) {
        bail!("tests/xtask/src/vm/part.txt has {unknown}, and no test's name begins so");
    }
    let is_in = |test: &Test| prefixes.iter().any(|prefix| test.name.starts_with(prefix));
    Ok(tests.into_iter().partition(is_in))
}

/// Splits the tests into those whose names contain one of the filters, or all if there is none, and
/// the others.
///
/// # Errors
/// When a filter is in no name: then it is misspelt.
pub(crate) fn matching(
    tests: Vec<Test>,
    filters: &[String],
) -> anyhow::Result<(Vec<Test>, Vec<Test>)> {
    let is_used = |filter: &str| tests.iter().any(|test| test.name.contains(filter));
    if let Some(unused) = filters.iter().find(|filter| !is_used(filter)) {
        bail!("no test's name contains {unused}; cargo xtask vm --list names them all");
    }
    let is_in = |test: &Test| {
        filters.is_empty() || filters.iter().any(|filter| test.name.contains(filter.as_str()))
    };
    Ok(tests.into_iter().partition(is_in))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str) -> Test {
        let path = name.split_once("::").unwrap().1.to_owned();
        Test { name: name.into(), executable: "/x".into(), path }
    }

    #[test]
    fn only_test_executables_count_and_say_what_they_are() {
        let line = |kind: &str, is_test: bool| {
            format!(
                r#"{{"executable":"/x","profile":{{"test":{is_test}}},"target":{{"name":"depot","kind":["{kind}"]}}}}"#
            )
        };
        assert_eq!(executable(&line("test", true)), Some(("depot".into(), "/x".into())));
        assert_eq!(executable(&line("bin", true)), Some(("unit/depot".into(), "/x".into())));
        assert_eq!(executable(&line("bin", false)), None);
        assert_eq!(executable(r#"{"reason":"build-finished"}"#), None);
    }

    #[test]
    fn filters_are_parts_of_names_and_a_misspelt_one_is_told() {
        let tests = || vec![test("garden::life::a"), test("garden::tree::b"), test("depot::c")];
        let wanted = |filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(|&filter| filter.into()).collect();
            matching(tests(), &filters).map(|(wanted, rest)| (wanted.len(), rest.len()))
        };
        assert_eq!(wanted(&[]).unwrap(), (3, 0));
        assert_eq!(wanted(&["life", "depot"]).unwrap(), (2, 1));
        assert!(wanted(&["life", "leif"]).unwrap_err().to_string().contains("leif"));
    }

    #[test]
    fn a_line_of_the_list_that_is_no_test_is_told() {
        let error = part(vec![test("garden::life::a")]).unwrap_err().to_string();
        assert!(error.starts_with("tests/xtask/src/vm/part.txt has "), "{error}");
    }
}
