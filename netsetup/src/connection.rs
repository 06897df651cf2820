//! A container's links, from both ends: making them, and mending the host's end.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use anyhow::Context;

use crate::lease::Lease;
use crate::link::{self, Links, Veth};
use crate::netns::Netns;
use crate::subnet::Subnet;

/// Makes the links and gives them their addresses.
pub(crate) fn make(lease: &Lease, netns: &Netns) -> anyhow::Result<()> {
    let subnet = lease.place.subnet;
    let gateway = subnet.gateway();
    let mut links = Links::open()?;
    // A link of this name without a lease is left of an `up` whose state was lost.
    if let Some(index) = link::index(&lease.host_interface) {
        links.delete(index)?;
    }
    let bridge = match &lease.bridge {
        Some(name) => Some(ensure_bridge(&mut links, name, subnet, lease.mtu)?),
        None => None,
    };
    links.create_veth(&Veth {
        host_end: &lease.host_interface,
        container_end: &lease.container_interface,
        netns: netns.as_fd(),
        address: lease.place.address,
        bridge,
        mtu: lease.mtu,
    })?;
    if let Some(limit) = lease.bandwidth {
        links.limit(&lease.host_interface, limit)?;
    }
    if bridge.is_none() {
        links.add_address(&lease.host_interface, gateway, subnet)?;
    }
    // The first on a bridge brings the bridge's; that the next one finds it there is as well.
    if let Some(place) = lease.place6() {
        links.ensure_address6(lease.gateway_interface(), place.gateway, place.prefix)?;
    }
    netns
        .inside(|| connect_inside(lease, gateway))
        .with_context(|| format!("connect the inside of {}", lease.handle))?;
    links.settle(&lease.host_interface)?;
    lease.bridge.as_deref().map_or(Ok(()), |bridge| links.settle(bridge))
}

fn connect_inside(lease: &Lease, gateway: Ipv4Addr) -> anyhow::Result<()> {
    let mut links = Links::open()?;
    if let Some(limit) = lease.bandwidth {
        links.limit(&lease.container_interface, limit)?;
    }
    links.set_up("lo")?;
    links.set_up(&lease.container_interface)?;
    links.add_address(&lease.container_interface, lease.place.address, lease.place.subnet)?;
    links.add_default_route(gateway.into())?;
    let Some(place) = lease.place6() else { return Ok(()) };
    // Whoever shares a bridge with the container must not tell it where to send its packets.
    let path = format!("/proc/sys/net/ipv6/conf/{}/accept_ra", lease.container_interface);
    std::fs::write(&path, "0").with_context(|| format!("write 0 to {path}"))?;
    links.ensure_address6(&lease.container_interface, place.address, place.prefix)?;
    links.add_default_route(place.gateway.into())
}

/// Makes what the lease says of its bandwidth hold at both ends, no limit too.
pub(crate) fn limit(lease: &Lease, netns: &Netns) -> anyhow::Result<()> {
    let set = |name: &str| Links::open()?.set_limit(name, lease.bandwidth);
    set(&lease.host_interface)?;
    netns
        .inside(|| set(&lease.container_interface))
        .with_context(|| format!("inside of {}", lease.handle))
}

/// Returns the index of the subnet's bridge, made when this is its first container.
fn ensure_bridge(links: &mut Links, name: &str, subnet: Subnet, mtu: u32) -> anyhow::Result<u32> {
    if let Some(index) = links.bridge(name)? {
        return Ok(index);
    }
    links.create_bridge(name, subnet.gateway(), mtu)?;
    links.add_address(name, subnet.gateway(), subnet)?;
    links.bridge(name)?.with_context(|| format!("bridge {name} has gone away"))
}

/// Gives the host's end back what it should have: its bridge, its address, and that it is up. A
/// link that is gone stays so; its other end was in the container.
pub(crate) fn mend(lease: &Lease) -> anyhow::Result<()> {
    let Some(index) = link::index(&lease.host_interface) else { return Ok(()) };
    let subnet = lease.place.subnet;
    let mut links = Links::open()?;
    links.set_limit(&lease.host_interface, lease.bandwidth)?;
    match &lease.bridge {
        None => links.ensure_address(&lease.host_interface, subnet.gateway(), subnet)?,
        Some(name) => {
            let bridge = ensure_bridge(&mut links, name, subnet, lease.mtu)?;
            links.ensure_address(name, subnet.gateway(), subnet)?;
            links.set_up(name)?;
            links.attach(index, bridge)?;
        }
    }
    links.set_up(&lease.host_interface)?;
    match lease.place6() {
        Some(place) => {
            links.ensure_address6(lease.gateway_interface(), place.gateway, place.prefix)
        }
        None => Ok(()),
    }
}
