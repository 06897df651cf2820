//! `depot info`: what a bundle says of its container, for people and for a server that restarts.

use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_contract::depot::{Bundle, Handle, Init};
use guardian_contract::file::read_json;
use guardian_contract::garden::Limits;
use guardian_contract::run::Answer;
use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Spec};
use serde::Serialize;

/// The answer.
#[derive(Debug, Serialize)]
struct Info {
    handle: Handle,
    bundle: PathBuf,
    /// Init's pid on the host; absent until the runtime has started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    /// Whether init is alive.
    alive: bool,
    /// `None` for a directory that was reserved and has no configuration yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Config>,
    processes: Vec<Process>,
}

/// What config.json says.
#[derive(Debug, Serialize)]
struct Config {
    privileged: bool,
    rootfs: PathBuf,
    limits: Limits,
}

/// One process directory.
#[derive(Debug, Serialize)]
struct Process {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exitcode: Option<i32>,
    running: bool,
}

/// Describes one bundle.
pub(crate) fn info(bundle: &Bundle) -> anyhow::Result<Answer> {
    let pid = number(&bundle.pidfile());
    let known: Option<Init> = read_json(&bundle.init())?;
    Answer::json(&Info {
        handle: bundle.handle().clone(),
        bundle: bundle.path().into(),
        pid,
        // A pid alone may have been given to a stranger since; where more is known, it decides.
        alive: known.map_or_else(|| is_alive(pid), |init| init.is_alive()),
        config: read_json::<Spec>(&bundle.config())?.map(|spec| config(&spec)),
        processes: processes(bundle)?,
    })
}

fn is_alive(pid: Option<i32>) -> bool {
    pid.and_then(Init::of).is_some()
}

fn config(spec: &Spec) -> Config {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let has_user = namespaces.iter().any(|one| one.typ() == LinuxNamespaceType::User);
    Config {
        privileged: !has_user,
        rootfs: spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default(),
        limits: linux.and_then(|linux| linux.resources().as_ref()).map(limits).unwrap_or_default(),
    }
}

/// On cgroup v2 the weight is told where shares are asked for, as gdn does.
fn limits(resources: &LinuxResources) -> Limits {
    let positive = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    let weight = resources.unified().as_ref().and_then(|unified| unified.get("cpu.weight"));
    let shares = resources.cpu().as_ref().and_then(|cpu| cpu.shares());
    let mut limits = Limits::default();
    limits.memory.limit_in_bytes =
        positive(resources.memory().as_ref().and_then(|memory| memory.limit())).unwrap_or(0);
    limits.cpu.weight = shares.or(weight.and_then(|text| text.parse().ok())).unwrap_or(0);
    limits.pid.max = positive(resources.pids().as_ref().map(|pids| pids.limit())).unwrap_or(0);
    limits
}

fn processes(bundle: &Bundle) -> anyhow::Result<Vec<Process>> {
    let directory = bundle.processes();
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
    };
    let mut ids: Vec<Handle> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    ids.sort();
    Ok(ids.iter().map(|id| process(bundle, id)).collect())
}

fn process(bundle: &Bundle, id: &Handle) -> Process {
    let paths = bundle.process(id);
    let (pid, exitcode) = (number(&paths.pidfile()), number(&paths.exitcode()));
    Process { id: id.to_string(), pid, exitcode, running: exitcode.is_none() && is_alive(pid) }
}

/// Returns the number a file holds; `None` where there is none yet.
fn number(path: &Path) -> Option<i32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
