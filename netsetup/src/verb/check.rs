//! `check`: every difference between what is written down and what the kernel has. Nothing is
//! changed.
//!
//! What the table should be, nft itself says: the same script that would make it is run in a
//! network namespace of its own, and the two listings are compared. So nothing here needs to know
//! how a release of nft writes a rule.

use std::collections::BTreeMap;

use guardian_contract::depot::Handle;
use guardian_contract::run::Answer;
use serde::Serialize;

use super::Network;
use crate::host;
use crate::lease::{Lease, Stage};
use crate::listing::{Deviation, Listing};
use crate::netns::Netns;
use crate::nft;
use crate::policy::Policy;
use crate::state::State;
use crate::survey;

/// The exit code when there are differences; 1 is a failure to look.
const DIFFERS: u8 = 3;

/// What is wrong with a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Problem {
    /// It should be there.
    Missing,
    /// It should not be there.
    Leftover,
    /// It is not as it should be.
    Different,
}

/// One thing that is not as it should be.
#[derive(Debug, Serialize)]
struct Difference {
    problem: Problem,
    /// What kind of thing: table, chain, map, set, rule, element, link, address, setting, lease.
    object: &'static str,
    /// Which one.
    name: String,
    /// The container it is about, where that is known.
    handle: Option<Handle>,
}

/// Compares, and says so with its exit code.
pub(super) fn run(network: &Network, json: bool) -> anyhow::Result<Answer> {
    let state = network.state()?;
    let policy = host::policy(&state)?;
    report(&differences(network, &state, &policy)?, json)
}

/// Compares and returns what there is to say.
pub(super) fn after(
    network: &Network,
    state: &State,
    policy: &Policy,
    json: bool,
) -> anyhow::Result<Answer> {
    report(&differences(network, state, policy)?, json)
}

fn differences(
    network: &Network,
    state: &State,
    policy: &Policy,
) -> anyhow::Result<Vec<Difference>> {
    let leases = state.leases.all()?;
    let owners = Owners::of(network, &leases);
    let mut all = Vec::new();
    for setting in host::not_forwarding(policy)? {
        let name = format!("{setting} is not 1");
        let (problem, object) = (Problem::Different, "setting");
        all.push(Difference { problem, object, name, handle: None });
    }
    all.extend(in_table(network, state, policy, &leases, &owners)?);
    all.extend(in_links(network, &leases, &owners)?);
    // What is going, goes; what an `up` that was killed has left is one thing, not many.
    let stage = |handle: &Handle| {
        leases.iter().find(|lease| lease.handle == *handle).map(|lease| lease.stage)
    };
    all.retain(|one| one.handle.as_ref().and_then(stage).is_none_or(|stage| stage == Stage::Up));
    let unfinished = leases.iter().filter(|lease| lease.stage == Stage::Building);
    all.extend(unfinished.map(|lease| Difference {
        problem: Problem::Leftover,
        object: "lease",
        name: "of an up that was interrupted".into(),
        handle: Some(lease.handle.clone()),
    }));
    Ok(all)
}

fn in_table(
    network: &Network,
    state: &State,
    policy: &Policy,
    leases: &[Lease],
    owners: &Owners,
) -> anyhow::Result<Vec<Difference>> {
    let table = network.names.table();
    if !nft::has_table(&table)? {
        let name = format!("inet {table}");
        let problem = Problem::Missing;
        return Ok(vec![Difference { problem, object: "table", name, handle: None }]);
    }
    let script = host::whole(policy, &network.names, leases)?;
    let expected = Netns::scratch()?.inside(|| {
        nft::run(script.text(), state.lock())?;
        nft::list(&table)
    })?;
    let deviations = Listing::parse(&expected).deviations(&Listing::parse(&nft::list(&table)?));
    let difference = |deviation| {
        let (problem, object, name) = match deviation {
            Deviation::Missing(object, name) => (Problem::Missing, object, name),
            Deviation::Leftover(object, name) => (Problem::Leftover, object, name),
            Deviation::Order(chain) => {
                (Problem::Different, "chain", format!("{chain}: the order of its rules"))
            }
        };
        Difference { problem, object, handle: owners.find(&name), name }
    };
    Ok(deviations.into_iter().map(difference).collect())
}

fn in_links(
    network: &Network,
    leases: &[Lease],
    owners: &Owners,
) -> anyhow::Result<Vec<Difference>> {
    let links = survey::links()?;
    let mut found = Vec::new();
    let mut note = |problem, object, name: String, handle: Option<&Handle>| {
        if !found.iter().any(|one: &Difference| one.name == name && one.object == object) {
            found.push(Difference { problem, object, name, handle: handle.cloned() });
        }
    };
    for lease in leases.iter().filter(|lease| lease.stage == Stage::Up) {
        let subnet = lease.place.subnet;
        let gateway = lease.gateway_interface();
        let mut names = vec![lease.host_interface.as_str()];
        names.extend(lease.bridge.as_deref());
        for name in names {
            // A bridge is missed by all its containers, so it is nobody's.
            let owner = (lease.bridge.as_deref() != Some(name)).then_some(&lease.handle);
            let Some(link) = links.get(name) else {
                note(Problem::Missing, "link", name.into(), owner);
                continue;
            };
            if !link.is_up {
                note(Problem::Different, "link", format!("{name} is down"), owner);
            }
            if owner.is_none() && !link.is_bridge {
                note(Problem::Different, "link", format!("{name} is no bridge"), owner);
            }
            let mut addresses = vec![(subnet.gateway().into(), subnet.prefix())];
            addresses.extend(lease.place6().map(|place| (place.gateway.into(), place.prefix)));
            addresses.retain(|address| name == gateway && !link.addresses.contains(address));
            for address in addresses {
                let text = format!("{}/{} on {name}", address.0, address.1);
                note(Problem::Missing, "address", text, owner);
            }
        }
        if let Some(link) = links.get(&lease.host_interface)
            && link.rate != lease.bandwidth.map(|limit| limit.rate)
        {
            let text = format!("{} lets more or less pass than it should", lease.host_interface);
            note(Problem::Different, "link", text, Some(&lease.handle));
        }
        if let (Some(bridge), Some(link)) = (&lease.bridge, links.get(&lease.host_interface))
            && let Some(index) = links.get(bridge).map(|bridge| bridge.index)
            && link.controller != Some(index)
        {
            let text = format!("{} is not attached to {bridge}", lease.host_interface);
            note(Problem::Different, "link", text, Some(&lease.handle));
        }
    }
    let prefix = network.names.interface_prefix();
    for name in links.keys().filter(|name| name.starts_with(&prefix) && !owners.know(name)) {
        note(Problem::Leftover, "link", name.clone(), None);
    }
    Ok(found)
}

/// Whose a name is: words that only one container's things contain.
#[derive(Debug)]
struct Owners(BTreeMap<String, Option<Handle>>);

impl Owners {
    fn of(network: &Network, leases: &[Lease]) -> Self {
        let mut words = BTreeMap::new();
        for lease in leases {
            let own = [
                lease.place.address.to_string(),
                lease.place6().map(|place| place.address.to_string()).unwrap_or_default(),
                lease.host_interface.clone(),
                network.names.chain(&lease.handle),
                network.names.limit(&lease.handle),
            ];
            words.extend(own.into_iter().map(|word| (word, Some(lease.handle.clone()))));
        }
        // A bridge is no single container's, unless the only one that is left there goes too.
        for lease in leases {
            if let Some(bridge) = &lease.bridge {
                let going = (lease.stage != Stage::Up).then(|| lease.handle.clone());
                let owner = words.entry(bridge.clone()).or_insert_with(|| going.clone());
                *owner = owner.take().and(going);
            }
        }
        Self(words)
    }

    fn know(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn find(&self, text: &str) -> Option<Handle> {
        let words = text.split([' ', '"']).map(|word| word.trim_end_matches(':'));
        let mut words = words.filter(|word| !word.is_empty());
        words.find_map(|word| self.0.get(word)?.clone())
    }
}

fn report(all: &[Difference], json: bool) -> anyhow::Result<Answer> {
    let answer = match json {
        true => Answer::json(&all)?,
        false => Answer::Text(text(all)),
    };
    match all.is_empty() {
        true => Ok(answer),
        false => Ok(Answer::Finding(DIFFERS, Box::new(answer))),
    }
}

fn text(all: &[Difference]) -> String {
    if all.is_empty() {
        return "no differences\n".into();
    }
    let line = |one: &Difference| {
        let problem = match one.problem {
            Problem::Missing => "missing",
            Problem::Leftover => "leftover",
            Problem::Different => "different",
        };
        let handle = one.handle.as_ref().map(|handle| format!(" ({handle})"));
        format!("{problem:9}  {:7}  {}{}\n", one.object, one.name, handle.unwrap_or_default())
    };
    let lines: String = all.iter().map(line).collect();
    format!("{lines}differences: {}\n", all.len())
}
