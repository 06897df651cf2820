//! Our nftables table as text for `nft -f`. Nothing here runs anything.
//!
//! What holds for all containers is a handful of rules by interface-name prefix, so a container
//! without mappings or rules needs none of its own. A port mapping is one element of the map
//! `net_in` for each protocol, outbound rules are a chain found through the verdict map `net_out`,
//! so a packet's way is as long with a thousand containers as with one.
//!
//! `nft` fails when it is told to delete what is absent, and nft 1.0.6 has no `destroy`: what may
//! be absent is therefore added first, in the same transaction.

mod policy;

use std::fmt::Write;

use crate::bandwidth::Bandwidth;
use crate::lease::{Lease, Mapping};
use crate::name::Names;
use crate::net_out_rule::Translated;
use crate::subnet6::Place6;

const PROTOCOLS: [&str; 2] = ["tcp", "udp"];

/// Text being put together; every line is a command on our table.
#[derive(Debug)]
pub(crate) struct Script {
    names: Names,
    text: String,
}

impl Script {
    /// Returns a script that does nothing.
    pub(crate) fn new(names: &Names) -> Self {
        Self { names: names.clone(), text: String::new() }
    }

    /// Returns the text; empty when there is nothing to do.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the text for a person to read, who wants to be told when there is none.
    pub(crate) fn for_person(&self) -> String {
        match self.text.as_str() {
            "" => "# nothing: the rules that hold for all containers are enough\n".to_owned(),
            text => text.to_owned(),
        }
    }

    /// Makes all that is a container's own in the table.
    pub(crate) fn container(&mut self, lease: &Lease, rules: &[Translated]) {
        if let Some(limit) = lease.bandwidth {
            self.limit_upload(lease, limit);
        }
        self.map(lease, &lease.mappings);
        self.let_out_all(lease, rules);
    }

    /// Replaces what a container may send, whatever the table has of that now.
    pub(crate) fn change_upload(&mut self, lease: &Lease, limit: Option<Bandwidth>) {
        self.unlimit_upload(lease, limit.or(lease.bandwidth).unwrap_or_default());
        if let Some(limit) = limit {
            self.limit_upload(lease, limit);
        }
    }

    /// Adds outbound rules, the last one in front; no rules, no chain.
    pub(crate) fn let_out_all(&mut self, lease: &Lease, rules: &[Translated]) {
        if rules.is_empty() {
            return;
        }
        self.outbound_chain(lease);
        for rule in rules {
            self.let_out(lease, rule);
        }
    }

    /// Lets host ports lead into the container.
    pub(crate) fn map(&mut self, lease: &Lease, mappings: &[Mapping]) {
        if mappings.is_empty() {
            return;
        }
        self.hairpin(lease);
        self.line("add element", &net_in(lease, mappings));
    }

    /// Lets packets go back where they came from.
    pub(crate) fn hairpin(&mut self, lease: &Lease) {
        let pair = interface_pair(lease);
        self.line("add element", &format!("hairpin {{ {pair} }}"));
    }

    /// Undoes [`Script::hairpin`].
    pub(crate) fn no_hairpin(&mut self, lease: &Lease) {
        let pair = interface_pair(lease);
        self.line("add element", &format!("hairpin {{ {pair} }}"));
        self.line("delete element", &format!("hairpin {{ {pair} }}"));
    }

    /// Undoes [`Script::map`] for these mappings; there may be others.
    pub(crate) fn unmap(&mut self, lease: &Lease, mappings: &[Mapping]) {
        if !mappings.is_empty() {
            self.line("add element", &net_in(lease, mappings));
            self.line("delete element", &net_in(lease, mappings));
        }
    }

    /// Undoes all that was done for a container.
    pub(crate) fn forget(&mut self, lease: &Lease) {
        if !lease.mappings.is_empty() {
            self.unmap(lease, &lease.mappings);
            // On a shared bridge the pair belongs to all containers there; it goes with the bridge.
            if lease.bridge.is_none() {
                self.no_hairpin(lease);
            }
        }
        if let Some(limit) = lease.bandwidth {
            self.unlimit_upload(lease, limit);
        }
        if !lease.outbound.is_empty() {
            let chain = self.names.chain(&lease.handle);
            self.outbound_chain(lease);
            self.line("delete element", &format!("net_out {{ {} }}", lease.place.address));
            if let Some(place) = lease.place6() {
                self.line("delete element", &format!("net_out6 {{ {} }}", place.address));
            }
            self.line("flush chain", &chain);
            self.line("delete chain", &chain);
        }
    }

    /// Makes the container's chain of outbound rules and the way to it.
    fn outbound_chain(&mut self, lease: &Lease) {
        let chain = self.names.chain(&lease.handle);
        self.line("add chain", &chain);
        let address = lease.place.address;
        self.line("add element", &format!("net_out {{ {address} : jump {chain} }}"));
        if let Some(Place6 { address, .. }) = lease.place6() {
            self.line("add element", &format!("net_out6 {{ {address} : jump {chain} }}"));
        }
    }

    /// Lets out what `matches` match, before all earlier rules are asked.
    fn let_out(&mut self, lease: &Lease, rule: &Translated) {
        let chain = self.names.chain(&lease.handle);
        let handle = lease.handle.as_str();
        // Packets of known connections never get here, so this is one line for each connection.
        let log = match rule.log {
            true => format!(" log prefix \"{} \"", &handle[..handle.len().min(28)]),
            false => String::new(),
        };
        for text in &rule.matches {
            self.line("insert rule", &format!("{chain}{text}{log} accept"));
        }
    }

    fn limit_upload(&mut self, lease: &Lease, limit: Bandwidth) {
        let name = self.names.limit(&lease.handle);
        let Bandwidth { rate, burst } = limit;
        let over = format!("rate over {rate} bytes/second burst {burst} bytes;");
        self.line("add limit", &format!("{name} {{ {over} }}"));
        let address = lease.place.address;
        self.line("add element", &format!("upload {{ {address} : \"{name}\" }}"));
        if let Some(Place6 { address, .. }) = lease.place6() {
            self.line("add element", &format!("upload6 {{ {address} : \"{name}\" }}"));
        }
    }

    /// Undoes [`Script::limit_upload`]; nft keeps a limit that is there, whatever it is told to add.
    fn unlimit_upload(&mut self, lease: &Lease, limit: Bandwidth) {
        self.limit_upload(lease, limit);
        self.line("delete element", &format!("upload {{ {} }}", lease.place.address));
        if let Some(place) = lease.place6() {
            self.line("delete element", &format!("upload6 {{ {} }}", place.address));
        }
        self.line("delete limit", &self.names.limit(&lease.handle));
    }

    fn line(&mut self, command: &str, what: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "{command} inet {} {what}", self.names.table());
    }
}

/// All mappings in one command, which costs nft a quarter less than a command for each.
fn net_in(lease: &Lease, mappings: &[Mapping]) -> String {
    let address = lease.place.address;
    let elements = mappings.iter().flat_map(|mapping| {
        let Mapping { host_ip, host_port, container_port } = mapping;
        PROTOCOLS.map(|protocol| {
            format!("{host_ip} . {protocol} . {host_port} : {address} . {container_port}")
        })
    });
    format!("net_in {{ {} }}", elements.collect::<Vec<_>>().join(", "))
}

fn interface_pair(lease: &Lease) -> String {
    let interface = lease.gateway_interface();
    format!("\"{interface}\" . \"{interface}\"")
}
