//! The caller's side of every exec between our programs: spawn, feed, collect, within a deadline.

use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use guardian_contract::fault::Fault;
use guardian_contract::log;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::telemetry;

/// What a program that ended left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// All it printed.
    pub(crate) stdout: Vec<u8>,
    /// All it complained or logged.
    pub(crate) stderr: Vec<u8>,
}

/// Runs `program` with `stdin` as its whole input, in a process group of its own so that signals
/// meant for us do not reach it.
///
/// # Errors
/// When it can't be started, or does not end within `deadline`; it is killed then.
pub(crate) async fn invoke(
    program: &Path,
    args: &[OsString],
    stdin: &[u8],
    deadline: Duration,
) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let name = program.display();
    let mut child = Command::new(program)
        .args(args)
        .stdin(if stdin.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("exec {name}"))?;
    let input = child.stdin.take();
    let feed = async {
        if let Some(mut pipe) = input {
            // A program that does not read its input is judged by its exit code, not by our write.
            let _ = pipe.write_all(stdin).await;
        }
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    let Ok(output) = tokio::time::timeout(deadline, both).await else {
        bail!("{name} did not end within {deadline:?}");
    };
    let output = output.with_context(|| format!("wait for {name}"))?;
    record(program, args, start, output.status);
    Ok(Outcome { status: output.status, stdout: output.stdout, stderr: output.stderr })
}

/// The verbs of the programs we call, as far as they are words of their command lines.
const VERBS: [&str; 20] = [
    "create",
    "delete",
    "stats",
    "bulk-stats",
    "capacity",
    "destroy",
    "allocate",
    "release",
    "setup",
    "up",
    "down",
    "net-in",
    "net-out",
    "bulk-net-out",
    "update",
    "state",
    "kill",
    "check",
    "run",
    "exec",
];

/// Notes how long a program took: the first word of its command line that is a verb is taken for it.
fn record(program: &Path, args: &[OsString], start: Instant, status: ExitStatus) {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let verb = args.iter().find_map(|arg| VERBS.into_iter().find(|verb| arg == verb));
    let result = if status.success() { "done" } else { "failed" };
    telemetry::TOOLS.took(&[&name, verb.unwrap_or("other"), result], start.elapsed());
}

impl Outcome {
    /// Returns how the program ended, in Go's words, which Garden's operators know.
    pub(crate) fn exit_text(&self) -> String {
        use std::os::unix::process::ExitStatusExt;
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal: {signal}"),
            (None, None) => "unknown exit status".into(),
        }
    }

    /// Returns what the program said of its failure: our programs' fault, else all of stdout,
    /// else the end of stderr.
    pub(crate) fn complaint(&self) -> String {
        if let Ok(fault) = serde_json::from_slice::<Fault>(&self.stdout) {
            return fault.message;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        match text(&self.stdout) {
            said if !said.is_empty() => said,
            _ => {
                let said = text(&self.stderr);
                let last = || said.lines().last().unwrap_or_default().to_owned();
                usage(&said).unwrap_or_else(last)
            }
        }
    }

    /// Writes the program's log lines into our log: lager lines at their own level, anything else
    /// as an error.
    pub(crate) fn relog(&self, action: &str) {
        for line in String::from_utf8_lossy(&self.stderr).lines().filter(|line| !line.is_empty()) {
            let lager = serde_json::from_str::<Value>(line).ok();
            let lager = lager.filter(|value| value.get("message").is_some());
            match lager {
                Some(value) => {
                    let level = match value["level"].as_str() {
                        Some("debug") => log::Level::Debug,
                        Some("info") => log::Level::Info,
                        _ => log::Level::Error,
                    };
                    let data = json!({"line": value["message"], "data": value["data"]});
                    log::line(level, action, &data);
                }
                None => log::error(action, &json!({"output": line})),
            }
        }
    }
}

/// Returns what is wrong with the usage, and what would be right: the last line, as of other
/// failures, only tells where help is (clap).
fn usage(said: &str) -> Option<String> {
    let mut lines = said.lines().skip_while(|line| !line.starts_with("error: "));
    let what = lines.next()?.to_owned();
    let values = lines.next().map(str::trim).filter(|line| line.starts_with("[possible values"));
    Some(values.map_or(what.clone(), |values| format!("{what} {values}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_usage_is_told_with_what_would_be_right() {
        let clap = "error: invalid value 'x' for '--kind'\n  [possible values: a, b]\n\nFor more";
        let want = "error: invalid value 'x' for '--kind' [possible values: a, b]";
        assert_eq!(usage(clap).as_deref(), Some(want));
        assert_eq!(usage("error: what?\n\nUsage: x").as_deref(), Some("error: what?"));
        assert_eq!(usage("panic"), None);
    }
}
