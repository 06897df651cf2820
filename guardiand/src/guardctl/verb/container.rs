//! create, rm, metrics and capacity.

use anyhow::Context;
use serde_json::{Value, json};

use super::unit::with_unit;
use crate::cli::{CreateArgs, RmArgs};
use crate::client::{Client, member};
use crate::stdio;

/// Creates a container and prints its handle.
pub(super) fn create(client: &Client, args: &CreateArgs, as_json: bool) -> anyhow::Result<()> {
    let handle = client.create(&args.container.spec())?;
    if as_json { stdio::json(&json!({ "handle": handle })) } else { stdio::line(&handle) }
}

/// Removes every container named, and tells of each that could not be removed.
pub(super) fn rm(client: &Client, args: &RmArgs) -> anyhow::Result<()> {
    let mut failures = args.handles.iter().filter_map(|handle| {
        client.destroy(handle).with_context(|| format!("remove {handle}")).err()
    });
    // The last failure is told by the exit; those before it are told here.
    let Some(mut last) = failures.next() else { return Ok(()) };
    for failure in failures {
        stdio::complain(&format!("{last:#}"));
        last = failure;
    }
    Err(last)
}

/// Prints what a container uses.
pub(super) fn metrics(client: &Client, handle: &str, as_json: bool) -> anyhow::Result<()> {
    let metrics = match client.metrics(handle) {
        Err(error) => process_metrics(client, handle).ok_or(error)?,
        Ok(metrics) => metrics,
    };
    if as_json { stdio::json(&metrics) } else { stdio::table(&[], readable(&metrics)) }
}

/// Peas and trees have metrics of their own, which only the bulk route tells.
fn process_metrics(client: &Client, process_id: &str) -> Option<Value> {
    let all = client.bulk("bulk_metrics", &[process_id.to_owned()]).ok()?;
    let entry = all.get(process_id)?;
    member(entry, "err").is_none_or(Value::is_null).then(|| member(entry, "metrics").cloned())?
}

/// Prints what the server can hold.
pub(super) fn capacity(client: &Client, as_json: bool) -> anyhow::Result<()> {
    let capacity = client.capacity()?;
    if as_json { stdio::json(&capacity) } else { stdio::table(&[], readable(&capacity)) }
}

/// Returns the leaves of an object as rows, numbers in their units.
fn readable(value: &Value) -> Vec<Vec<String>> {
    let mut rows = flat("", value);
    for row in &mut rows {
        if let [name, value] = &mut row[..]
            && let Ok(number) = value.parse()
        {
            *value = with_unit(name, number);
        }
    }
    rows
}

/// Returns the leaves of an object as rows of dotted name and value; zeros say nothing.
pub(super) fn flat(prefix: &str, value: &Value) -> Vec<Vec<String>> {
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(key, value)| {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flat(&name, value)
            })
            .collect(),
        Value::Null => Vec::new(),
        Value::Number(number) if number.as_u64() == Some(0) => Vec::new(),
        other => vec![vec![prefix.to_owned(), stdio::plain(Some(other))]],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_become_rows() {
        let value = json!({ "A": { "B": 1, "C": 0 }, "D": null, "E": "x" });
        assert_eq!(flat("", &value), [["A.B", "1"], ["E", "x"]]);
    }
}
