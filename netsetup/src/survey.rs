//! All links of the network namespace we are in, with their addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Context;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::tc::TcMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::bandwidth::Bandwidth;
use crate::netlink::Socket;

/// A link.
#[derive(Debug)]
pub(crate) struct Link {
    /// Its number.
    pub(crate) index: u32,
    /// Whether it is a bridge.
    pub(crate) is_bridge: bool,
    /// Whether it is up, as far as its owner has a say.
    pub(crate) is_up: bool,
    /// The number of the bridge it is attached to.
    pub(crate) controller: Option<u32>,
    /// How many bytes a second it lets pass, when that is limited our way.
    pub(crate) rate: Option<u64>,
    /// Its addresses and their prefixes' lengths.
    pub(crate) addresses: Vec<(IpAddr, u8)>,
}

/// Returns all links by name.
pub(crate) fn links() -> anyhow::Result<BTreeMap<String, Link>> {
    let mut socket = Socket::open(NETLINK_ROUTE)?;
    let links = socket
        .query(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)
        .context("list the links")?;
    let addresses = socket
        .query(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)
        .context("list the addresses")?;
    let queues = socket
        .query(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()), NLM_F_DUMP)
        .context("list the queues")?;
    let rates: BTreeMap<u32, u64> = queues
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewQueueDiscipline(message) => Bandwidth::rate_of(&message),
            _ => None,
        })
        .collect();
    let mut by_index = BTreeMap::<u32, Vec<(IpAddr, u8)>>::new();
    for message in addresses {
        if let RouteNetlinkMessage::NewAddress(message) = message {
            // On a link that is no tunnel an IPv6 address has only the other attribute.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                AddressAttribute::Address(address) if address.is_ipv6() => Some(*address),
                _ => None,
            });
            let holder = by_index.entry(message.header.index).or_default();
            holder.extend(local.map(|address| (address, message.header.prefix_len)));
        }
    }
    let links = links.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(message) => {
            let index = message.header.index;
            let addresses = by_index.remove(&index).unwrap_or_default();
            link(&message, addresses, rates.get(&index).copied())
        }
        _ => None,
    });
    Ok(links.collect())
}

fn link(
    message: &LinkMessage,
    addresses: Vec<(IpAddr, u8)>,
    rate: Option<u64>,
) -> Option<(String, Link)> {
    let index = message.header.index;
    let mut name = None;
    let mut link = Link {
        index,
        is_bridge: false,
        is_up: message.header.flags.contains(LinkFlags::Up),
        controller: None,
        rate,
        addresses,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                link.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    Some((name?, link))
}
