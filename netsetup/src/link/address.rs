//! Addresses of links, and the way out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::{Links, NEW, index_of, is};
use crate::subnet::Subnet;

impl Links {
    /// Returns the MTU of the link that has this address; `None` when none has.
    pub(crate) fn mtu_of_holder(&mut self, address: Ipv4Addr) -> anyhow::Result<Option<u32>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let all = self
            .0
            .query(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP)
            .context("list the host's addresses")?;
        let local = AddressAttribute::Local(IpAddr::V4(address));
        let holder = all.into_iter().find_map(|message| match message {
            RouteNetlinkMessage::NewAddress(m) if m.attributes.contains(&local) => {
                Some(m.header.index)
            }
            _ => None,
        });
        let Some(index) = holder else { return Ok(None) };
        let mut message = LinkMessage::default();
        message.header.index = index;
        Ok(self.query_link(message)?.and_then(|link| {
            link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::Mtu(mtu) => Some(mtu),
                _ => None,
            })
        }))
    }

    /// Gives the link `name` this address.
    pub(crate) fn add_address(
        &mut self,
        name: &str,
        address: Ipv4Addr,
        subnet: Subnet,
    ) -> anyhow::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = subnet.prefix();
        message.header.index = index_of(name)?;
        message.attributes.push(AddressAttribute::Local(address.into()));
        message.attributes.push(AddressAttribute::Address(address.into()));
        message.attributes.push(AddressAttribute::Broadcast(subnet.broadcast()));
        self.0
            .change(RouteNetlinkMessage::NewAddress(message), NEW)
            .with_context(|| format!("give {address} to {name}"))
    }

    /// Like [`Links::add_address`], and content when the link has it.
    pub(crate) fn ensure_address(
        &mut self,
        name: &str,
        address: Ipv4Addr,
        subnet: Subnet,
    ) -> anyhow::Result<()> {
        content(self.add_address(name, address, subnet))
    }

    /// Gives the link `name` this IPv6 address, at once: nobody else can have it, so nobody is
    /// asked (RFC 4862, 5.4). Content when the link has it.
    pub(crate) fn ensure_address6(
        &mut self,
        name: &str,
        address: Ipv6Addr,
        prefix: u8,
    ) -> anyhow::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.prefix_len = prefix;
        message.header.flags = AddressHeaderFlags::Nodad;
        message.header.index = index_of(name)?;
        message.attributes.push(AddressAttribute::Local(address.into()));
        let added = self.0.change(RouteNetlinkMessage::NewAddress(message), NEW);
        content(added.with_context(|| format!("give {address} to {name}")))
    }

    /// Sends everything without a better route to `gateway`.
    pub(crate) fn add_default_route(&mut self, gateway: IpAddr) -> anyhow::Result<()> {
        let (family, address) = match gateway {
            IpAddr::V4(gateway) => (AddressFamily::Inet, RouteAddress::Inet(gateway)),
            IpAddr::V6(gateway) => (AddressFamily::Inet6, RouteAddress::Inet6(gateway)),
        };
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Gateway(address));
        self.0
            .change(RouteNetlinkMessage::NewRoute(message), NEW)
            .with_context(|| format!("route to {gateway}"))
    }
}

/// What is there already need not be made.
fn content(done: anyhow::Result<()>) -> anyhow::Result<()> {
    match done {
        Err(error) if error.downcast_ref().is_some_and(|error| is(error, Errno::EEXIST)) => Ok(()),
        done => done,
    }
}
