//! Asking about many containers at once, over the unix socket: bare ones, and such as a cell has, each
//! with a disk limit and a pea.

use anyhow::{Context, ensure};
use guardian_contract::garden::{ImageRef, ProcessSpec};
use guardian_tests::api::{Process, call};
use guardian_tests::daemon::Daemon;
use serde::Serialize;
use serde_json::Value;

use super::{Summary, summary, timed};
use crate::interrupt;

/// How many containers there are; a full Diego cell has so many.
const CONTAINERS: usize = 200;

/// How often each question is asked.
const TIMES: usize = 20;

/// What each container may have on disk, where that is limited.
const DISK_BYTES: u64 = 256 << 20;

/// How long the answers took.
#[derive(Debug, Serialize)]
pub(crate) struct Bulk {
    pub(super) containers: usize,
    /// Peas that were asked about beside them.
    pub(super) peas: usize,
    pub(super) info: Summary,
    pub(super) metrics: Summary,
}

/// Makes many containers, asks, and removes them.
///
/// # Errors
/// When the server does not do its part.
pub(super) fn measure(daemon: &Daemon) -> anyhow::Result<Bulk> {
    let containers = create(daemon, "")?;
    ask(daemon, &containers, &[])
}

/// The same with a disk limit and a pea for each.
///
/// # Errors
/// When the server does not do its part.
pub(super) fn measure_crowd(daemon: &Daemon) -> anyhow::Result<Bulk> {
    let limits = format!(r#","limits":{{"disk_limits":{{"byte_hard":{DISK_BYTES}}}}}"#);
    let containers = create(daemon, &limits)?;
    let mut peas = Vec::new();
    for handle in &containers {
        interrupt::check()?;
        let id = format!("{handle}-pea");
        let spec = ProcessSpec {
            id: id.clone(),
            path: "/bin/sleep".into(),
            args: vec!["1000000".into()],
            image: ImageRef { uri: daemon.image().into(), ..ImageRef::default() },
            ..ProcessSpec::default()
        };
        Process::run(daemon, handle, &spec)?;
        peas.push(id);
    }
    ask(daemon, &containers, &peas)
}

fn create(daemon: &Daemon, more: &str) -> anyhow::Result<Vec<String>> {
    let handles: Vec<String> =
        (0..CONTAINERS).map(|number| daemon.handle(&format!("m{number}"))).collect();
    for handle in &handles {
        interrupt::check()?;
        call(daemon, "POST", "/containers", &format!(r#"{{"handle":"{handle}"{more}}}"#))?;
    }
    Ok(handles)
}

fn ask(daemon: &Daemon, containers: &[String], peas: &[String]) -> anyhow::Result<Bulk> {
    let ask = |what: &str, names: &[&[String]]| {
        let path = format!("/containers/{what}?handles={}", names.concat().join(","));
        check(&call(daemon, "GET", &path, "")?).with_context(|| what.to_owned())?;
        let mut times = Vec::new();
        for _ in 0..TIMES {
            timed(&mut times, || call(daemon, "GET", &path, ""))?;
        }
        anyhow::Ok(summary(&times))
    };
    let bulk = Bulk {
        containers: containers.len(),
        peas: peas.len(),
        info: ask("bulk_info", &[containers])?,
        metrics: ask("bulk_metrics", &[containers, peas])?,
    };
    daemon.destroy_all()?;
    Ok(bulk)
}

/// An answer that says of some that they could not be looked at is quick, and worth nothing.
fn check(answer: &[u8]) -> anyhow::Result<()> {
    let answer: Value = serde_json::from_slice(answer)?;
    for (name, entry) in answer.as_object().into_iter().flatten() {
        ensure!(entry["Err"].is_null(), "{name}: {entry}");
    }
    Ok(())
}
