//! stats: what containers use, again and again.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use anyhow::bail;
use guardian_contract::garden::{BulkMetrics, Metrics};
use serde::Serialize;

use super::unit::{bytes, has_limit, percent};
use crate::cli::StatsArgs;
use crate::client::Client;
use crate::stdio;

const HEADINGS: [&str; 9] =
    ["HANDLE", "CPU%", "MEMORY", "LIMIT", "MEM%", "DISK", "RECEIVED", "SENT", "PIDS"];

/// Moves the cursor to the upper left corner and clears what is below it (ECMA-48).
const CLEAR: &[u8] = b"\x1b[H\x1b[J";

/// The metrics of containers at one moment.
type Sample = BTreeMap<String, Metrics>;

/// What one container uses.
#[derive(Debug, PartialEq, Serialize)]
struct Usage {
    handle: String,
    /// Processor time in the time between the two looks, in nanoseconds.
    cpu_ns: u64,
    /// The time between the two looks, in nanoseconds.
    interval_ns: u64,
    memory_bytes: u64,
    /// 0 is no limit.
    memory_limit_bytes: u64,
    disk_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_bytes: Option<u64>,
    pids: u64,
}

/// Prints what containers use, until somebody has enough, or once.
pub(super) fn stats(client: &Client, args: &StatsArgs, as_json: bool) -> anyhow::Result<()> {
    let is_live = !args.once && !as_json && std::io::stdout().is_terminal();
    let mut limits = BTreeMap::new();
    let mut before = look(client, &args.handles)?;
    loop {
        std::thread::sleep(args.interval);
        let now = look(client, &args.handles)?;
        let mut all = Vec::new();
        for (handle, metrics) in &now {
            let ask = || client.memory_limit(handle).unwrap_or(0);
            let limit = *limits.entry(handle.clone()).or_insert_with(ask);
            all.push(usage(handle, metrics, before.get(handle), limit));
        }
        if is_live {
            stdio::written(std::io::stdout().lock().write_all(CLEAR))?;
        }
        match (as_json, args.once) {
            (true, true) => stdio::json(&all)?,
            (true, false) => stdio::line(&serde_json::to_string(&all)?)?,
            (false, _) => stdio::table(&HEADINGS, all.iter().map(row).collect())?,
        }
        if args.once {
            return Ok(());
        }
        before = now;
    }
}

/// Asks for the metrics of the containers named, which must be there, or of all. One that has gone
/// since it was listed is left out.
fn look(client: &Client, named: &[String]) -> anyhow::Result<Sample> {
    let handles = if named.is_empty() { client.list(&[])? } else { named.to_vec() };
    let mut sample = Sample::new();
    for (handle, entry) in client.bulk("bulk_metrics", &handles)? {
        let entry: BulkMetrics = serde_json::from_value(entry)?;
        match entry.err {
            None => drop(sample.insert(handle, entry.metrics)),
            Some(_) if named.is_empty() => {}
            Some(error) => bail!("{handle}: {}", error.message),
        }
    }
    Ok(sample)
}

fn usage(handle: &str, now: &Metrics, before: Option<&Metrics>, limit: u64) -> Usage {
    let before = before.unwrap_or(now);
    Usage {
        handle: handle.to_owned(),
        cpu_ns: now.cpu_stat.usage.saturating_sub(before.cpu_stat.usage),
        // The server's own clock: the way to it and back takes its time, too.
        interval_ns: u64::try_from(now.age - before.age).unwrap_or(0),
        memory_bytes: now.memory_stat.total_usage_toward_limit,
        memory_limit_bytes: limit,
        disk_bytes: now.disk_stat.total_bytes_used,
        received_bytes: now.network_stat.as_ref().map(|stat| stat.rx_bytes),
        sent_bytes: now.network_stat.as_ref().map(|stat| stat.tx_bytes),
        pids: now.pid_stat.current,
    }
}

fn row(usage: &Usage) -> Vec<String> {
    let known = |number: Option<u64>| number.map_or_else(|| "-".into(), bytes);
    let limit = Some(usage.memory_limit_bytes).filter(|limit| has_limit(*limit));
    vec![
        usage.handle.clone(),
        percent(usage.cpu_ns, usage.interval_ns),
        bytes(usage.memory_bytes),
        known(limit),
        percent(usage.memory_bytes, limit.unwrap_or(0)),
        bytes(usage.disk_bytes),
        known(usage.received_bytes),
        known(usage.sent_bytes),
        usage.pids.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_use_is_that_between_two_looks() {
        let at = |age: i64, cpu: u64| {
            let mut metrics = Metrics { age, ..Metrics::default() };
            metrics.cpu_stat.usage = cpu;
            metrics.memory_stat.total_usage_toward_limit = 1 << 20;
            metrics
        };
        let usage = usage("h", &at(3_000, 700), Some(&at(1_000, 200)), 4 << 20);
        let want = ["h", "25.0", "1.0 MiB", "4.0 MiB", "25.0", "0 B", "-", "-", "0"];
        assert_eq!(row(&usage), want);
    }
}
