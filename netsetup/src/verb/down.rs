//! `down`: undo all that a lease says, whatever of it is still there.
//!
//! The kernel takes tens of milliseconds to delete rules and links, and mostly it is deleting the
//! links by itself already because the container's namespace is gone. So `down` only notes that
//! the lease is [`Stage::Going`] and leaves the rest to a copy of itself in the background
//! (`reap`). The lease stays until all is gone, so that nobody gets its address or ports too early;
//! who needs them at once finishes the work himself ([`or_after_finishing`]).

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::log;
use guardian_contract::run::Answer;
use serde_json::json;

use super::Network;
use crate::cli::Form;
use crate::conntrack;
use crate::lease::{Lease, Stage};
use crate::link::{self, Links};
use crate::nft;
use crate::ruleset::Script;
use crate::state::{self, Claim, State};

/// Disconnects the container; one never seen is fine.
pub(super) fn run(network: &Network, handle: &Handle) -> anyhow::Result<Answer> {
    let mut state = network.state()?;
    match state.leases.load_short(handle)? {
        Some(lease) if lease.handle == *handle => {
            leave(network, &mut state, lease)?;
            log::info("down", &json!({"handle": handle}));
        }
        Some(_) => {}
        // A link of this name without a lease is left of an `up` whose state was lost.
        None => delete_link(&network.names.host_interface(handle))?,
    }
    Ok(Answer::Silent)
}

/// Disconnects a container to the end, or says what nft would be told, and whether there was any.
pub(super) fn by_hand(network: &Network, handle: &Handle, form: Form) -> anyhow::Result<Answer> {
    let mut state = network.state()?;
    let lease = state.leases.load(handle)?;
    if form.dry_run {
        let script = lease.map(|lease| farewell(network, &state, &lease));
        return Ok(Answer::Text(script.unwrap_or(Script::new(&network.names)).for_person()));
    }
    match &lease {
        Some(lease) => remove(network, &mut state, lease)?,
        None => delete_link(&network.names.host_interface(handle))?,
    }
    let was_up = lease.is_some_and(|lease| lease.stage != Stage::Going);
    match form.json {
        true => Ok(Answer::Json(json!({"handle": handle, "was_up": was_up}))),
        false if was_up => Ok(Answer::Text(format!("{handle} is disconnected\n"))),
        false => Ok(Answer::Text(format!("{handle} was not connected\n"))),
    }
}

fn farewell(network: &Network, state: &State, lease: &Lease) -> Script {
    let mut script = Script::new(&network.names);
    script.forget(lease);
    if lease.bridge.is_some() && state.pool.addresses.is_last(lease.place) {
        script.no_hairpin(lease);
    }
    script
}

/// Undoes a lease now, all of it. When a part fails the lease stays, so that it can be repeated.
pub(super) fn remove(network: &Network, state: &mut State, lease: &Lease) -> anyhow::Result<()> {
    // A reaper that is at work on it already, and its nft, come first.
    drop(state.leases.lock(&lease.handle)?);
    take_apart(network, lease, state.lock())?;
    give_back(network, state, lease)
}

/// Does the part of `down` that takes time, the first half without the state's lock.
pub(super) fn reap(network: &Network, handle: &Handle) -> anyhow::Result<Answer> {
    let leases = state::leases(&network.settings.state_dir)?;
    let is_going = |lease: &Lease| lease.stage == Stage::Going;
    let Some(file) = leases.lock(handle)? else { return Ok(Answer::Silent) };
    let Some(lease) = leases.load(handle)?.filter(is_going) else { return Ok(Answer::Silent) };
    take_apart(network, &lease, &file)?;
    file.unlock().context("unlock the lease")?;
    let mut state = network.state()?;
    if leases.is_current(handle, &file) {
        give_back(network, &mut state, &lease)?;
    }
    Ok(Answer::Silent)
}

/// Does `work`, and once more if it failed while there was something going: what was wanted may
/// have been that.
pub(super) fn or_after_finishing<T>(
    network: &Network,
    state: &mut State,
    mut work: impl FnMut(&mut State) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let refused = match state.attempt(&mut work) {
        Ok(done) => return Ok(done),
        Err(refused) => refused,
    };
    match finish_all(network, state)? {
        0 => Err(refused),
        _ => state.attempt(work),
    }
}

/// Finishes all that is going, and returns how many leases that were.
pub(super) fn finish_all(network: &Network, state: &mut State) -> anyhow::Result<usize> {
    let mut leases = state.leases.all()?;
    leases.retain(|lease| lease.stage == Stage::Going);
    for lease in &leases {
        remove(network, state, lease)?;
    }
    Ok(leases.len())
}

/// Leaves the work to the background, if there is any that takes time.
fn leave(network: &Network, state: &mut State, lease: Lease) -> anyhow::Result<()> {
    let is_quick = lease.mappings.is_empty()
        && lease.outbound.is_empty()
        && lease.bandwidth.is_none()
        && lease.bridge.is_none()
        && link::index(&lease.host_interface).is_none();
    if is_quick || network.settings.wait || lease.stage == Stage::Going {
        return remove(network, state, &lease);
    }
    let going = Lease { stage: Stage::Going, ..lease };
    state.leases.save(&going)?;
    match spawn_reaper(network, &going.handle) {
        Ok(()) => Ok(()),
        Err(_) => remove(network, state, &going),
    }
}

fn spawn_reaper(network: &Network, handle: &Handle) -> std::io::Result<()> {
    Command::new("/proc/self/exe")
        .arg("--state-dir")
        .arg(&network.settings.state_dir)
        .args(["--tag", &network.settings.tag, "reap", handle.as_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map(drop)
}

/// Removes what is the container's alone: its rules, its link, then what the kernel remembers of
/// its connections, which with rules or link there it would learn again. All are tried.
fn take_apart(network: &Network, lease: &Lease, lock: &File) -> anyhow::Result<()> {
    let rules = remove_rules(network, lease, lock);
    let link = delete_link(&lease.host_interface);
    let connections = conntrack::forget_address(lease.place.address.into());
    let connections6 = match lease.place6() {
        Some(place) => conntrack::forget_address(place.address.into()),
        None => Ok(()),
    };
    [link, connections, connections6].into_iter().fold(rules, |before, next| match (before, next) {
        (Err(before), Err(next)) => Err(before.context(format!("{next:#}"))),
        (before, next) => before.and(next),
    })
}

/// Gives the container's place and ports back; the last one on a bridge takes the bridge with it.
fn give_back(network: &Network, state: &mut State, lease: &Lease) -> anyhow::Result<()> {
    if let Some(bridge) = &lease.bridge
        && state.pool.addresses.is_last(lease.place)
    {
        let mut script = Script::new(&network.names);
        script.no_hairpin(lease);
        change(network, &script, state.lock())?;
        // A link that is no bridge is somebody else's, and `up` has said so.
        if let Ok(Some(index)) = Links::open()?.bridge(bridge) {
            Links::open()?.delete(index)?;
        }
    }
    state.give_back(Claim::whole(lease), None)
}

fn remove_rules(network: &Network, lease: &Lease, lock: &File) -> anyhow::Result<()> {
    let mut script = Script::new(&network.names);
    script.forget(lease);
    match change(network, &script, lock) {
        Err(error) if is_foreign(&error) => remove_own_rules(network, lease, lock),
        done => done,
    }
}

/// Removes a lease's rules where a host port it names belongs to somebody else by now: `up` was
/// refused the port, or killed before it knew. What is somebody else's stays.
fn remove_own_rules(network: &Network, lease: &Lease, lock: &File) -> anyhow::Result<()> {
    for mapping in &lease.mappings {
        let mut script = Script::new(&network.names);
        script.unmap(lease, &[*mapping]);
        match change(network, &script, lock) {
            Err(error) if is_foreign(&error) => {}
            done => done?,
        }
    }
    let mut script = Script::new(&network.names);
    if lease.bridge.is_none() {
        script.no_hairpin(lease);
    }
    script.forget(&Lease { mappings: Vec::new(), ..lease.clone() });
    change(network, &script, lock)
}

/// Runs a script that removes things. Without our table there is nothing to be removed.
fn change(network: &Network, script: &Script, lock: &File) -> anyhow::Result<()> {
    match script.text() {
        "" => Ok(()),
        _ if !nft::has_table(&network.names.table())? => Ok(()),
        text => nft::run(text, lock).context("remove rules"),
    }
}

/// Tells whether nft found one of our elements to say something else than we think.
fn is_foreign(error: &anyhow::Error) -> bool {
    Fault::of(error).kind == Kind::Exists
}

fn delete_link(name: &str) -> anyhow::Result<()> {
    match link::index(name) {
        Some(index) => Links::open()?.delete(index).with_context(|| format!("delete link {name}")),
        None => Ok(()),
    }
}
