//! ps: all containers in one table.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::unit::duration;
use crate::cli::PsArgs;
use crate::client::{Client, member};
use crate::stdio;

/// Lists containers.
pub(super) fn ps(client: &Client, args: &PsArgs, as_json: bool) -> anyhow::Result<()> {
    let mut handles = client.list(&args.filters)?;
    handles.sort();
    let infos = client.bulk("bulk_info", &handles)?;
    // Ages come with the metrics, which a server may not be able to give.
    let metrics = client.bulk("bulk_metrics", &handles).unwrap_or_default();
    if as_json {
        return stdio::json(&entries(&handles, &infos, &metrics));
    }
    let rows = handles.iter().map(|handle| row(handle, infos.get(handle), metrics.get(handle)));
    stdio::table(&["HANDLE", "STATE", "IP", "AGE", "PROCESSES"], rows.collect())
}

fn entries(handles: &[String], infos: &Map<String, Value>, metrics: &Map<String, Value>) -> Value {
    let entry = |handle: &String| {
        let of = |all: &Map<String, Value>, key| {
            all.get(handle).and_then(|entry| member(entry, key)).cloned()
        };
        json!({ "handle": handle, "info": of(infos, "info"), "metrics": of(metrics, "metrics") })
    };
    handles.iter().map(entry).collect()
}

fn row(handle: &str, info: Option<&Value>, metrics: Option<&Value>) -> Vec<String> {
    let info = info.and_then(|entry| member(entry, "info"));
    let of = |key| info.and_then(|info| member(info, key));
    let processes = of("processids").and_then(Value::as_array).map_or(0, Vec::len);
    vec![
        handle.to_owned(),
        stdio::plain(of("state")),
        stdio::plain(of("containerip")),
        age(metrics.and_then(|entry| member(entry, "metrics"))),
        processes.to_string(),
    ]
}

/// Returns the age in whole seconds; a dash where it is not known.
fn age(metrics: Option<&Value>) -> String {
    let nanos = metrics.and_then(|metrics| member(metrics, "age")).and_then(Value::as_u64);
    match nanos {
        None | Some(0) => "-".into(),
        Some(nanos) => duration(Duration::from_secs(nanos / 1_000_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_show_what_is_known() {
        let info = json!({ "Info": { "State": "active", "ContainerIP": "10.254.0.2", "ProcessIDs": ["p"] }, "Err": null });
        let metrics = json!({ "Metrics": { "Age": 93_000_000_000_u64 }, "Err": null });
        assert_eq!(
            row("h", Some(&info), Some(&metrics)),
            ["h", "active", "10.254.0.2", "1m33s", "1"]
        );
        assert_eq!(row("h", None, None), ["h", "-", "-", "-", "0"]);
    }
}
