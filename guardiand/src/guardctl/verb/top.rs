//! top: the processes in a container.

use std::time::Duration;

use serde_json::Value;

use super::unit::{bytes, percent};
use crate::client::{Client, member};
use crate::stdio;

const HEADINGS: [&str; 8] = ["PID", "INSIDE", "USER", "CPU%", "RSS", "TIME", "PROCESS", "COMMAND"];

/// Prints them, init first.
pub(super) fn top(client: &Client, handle: &str, as_json: bool) -> anyhow::Result<()> {
    let processes = client.top(handle)?;
    if as_json {
        return stdio::json(&processes);
    }
    let rows = processes.as_array().into_iter().flatten().map(row);
    stdio::table(&HEADINGS, rows.collect())
}

/// Processor use is that of the process's whole life, as ps(1) has it.
fn row(process: &Value) -> Vec<String> {
    let number = |key| member(process, key).and_then(Value::as_u64).unwrap_or(0);
    let text = |key| stdio::plain(member(process, key));
    let seconds = Duration::from_nanos(number("cpu_ns")).as_secs();
    vec![
        text("pid"),
        text("container_pid"),
        text("user"),
        percent(number("cpu_ns"), number("age_ns")),
        bytes(number("rss_bytes")),
        format!("{}:{:02}", seconds / 60, seconds % 60),
        text("process"),
        text("command"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_for_people() {
        let process = serde_json::json!({
            "pid": 71, "container_pid": 5, "user": "root", "cpu_ns": 90_000_000_000_u64,
            "age_ns": 180_000_000_000_u64, "rss_bytes": 2_097_152, "command": "sh -c x",
        });
        assert_eq!(row(&process), ["71", "5", "root", "50.0", "2.0 MiB", "1:30", "-", "sh -c x"]);
    }
}
