//! Forgetting connections (ctnetlink, linux/netfilter/nfnetlink_conntrack.h). The kernel goes on
//! translating a connection it knows whatever the rules say by now, so what led to a container
//! that has gone would lead to the next one with its address.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context;
use guardian_contract::log;
use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use nix::libc::{AF_INET, AF_INET6, IPPROTO_UDP};
use serde_json::json;

use crate::netlink::Socket;

/// Which connections; a connection has one tuple for each direction.
#[derive(Debug)]
struct Filter {
    tuple: Tuple,
    /// The parts of the tuple that count: `CTA_FILTER_F_…`.
    flags: u32,
    source: IpAddr,
    destination: IpAddr,
    destination_port: u16,
}

/// The direction a filter looks at, as the numbers of its attributes.
#[derive(Debug, Clone, Copy)]
enum Tuple {
    /// As the first packet was.
    Original = 1,
    /// As the answer to it is: this tells where a translated packet has gone.
    Reply = 2,
}

const IP_SRC: u32 = 1;
const IP_DST: u32 = 1 << 1;
const PROTO_NUM: u32 = 1 << 3;
const PROTO_DST_PORT: u32 = 1 << 5;

/// Forgets all connections from `address`, and all that led to it, translated or not.
pub(crate) fn forget_address(address: IpAddr) -> anyhow::Result<()> {
    let filter = |tuple| Filter { tuple, flags: IP_SRC, ..Filter::any(address) };
    delete([filter(Tuple::Original), filter(Tuple::Reply)])
        .with_context(|| format!("forget the connections of {address}"))
}

/// Forgets who has been sending datagrams to these ports of `address` before they led anywhere:
/// to the kernel they go on being the same conversation. A TCP connection has come to its end.
pub(crate) fn forget_datagrams(
    address: Ipv4Addr,
    ports: impl Iterator<Item = u16>,
) -> anyhow::Result<()> {
    let flags = IP_DST | PROTO_NUM | PROTO_DST_PORT;
    let filter =
        |destination_port| Filter { destination_port, flags, ..Filter::any(address.into()) };
    delete(ports.map(filter))
        .with_context(|| format!("forget the datagrams to mapped ports of {address}"))
}

fn delete(filters: impl IntoIterator<Item = Filter>) -> anyhow::Result<()> {
    let mut socket = Socket::open(NETLINK_NETFILTER)?;
    for filter in filters {
        let Err(error) = socket.change(filter, 0) else { continue };
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT) => {}
            // A kernel without connection tracking for us (module nf_conntrack_netlink) or, before
            // 5.8, without such filters. Nobody's network shall stay or be missing for that.
            Some(Errno::EINVAL) => {
                log::info("connections-not-forgotten", &json!({"reason": "kernel has no filters"}));
                return Ok(());
            }
            _ => return Err(error.into()),
        }
    }
    Ok(())
}

impl Filter {
    fn any(address: IpAddr) -> Self {
        let (source, destination) = (address, address);
        Self { tuple: Tuple::Original, flags: 0, source, destination, destination_port: 0 }
    }

    fn bytes(&self) -> Vec<u8> {
        const CTA_TUPLE_IP: u16 = 1;
        const CTA_TUPLE_PROTO: u16 = 2;
        const CTA_FILTER: u16 = 25;
        const NLA_F_NESTED: u16 = 1 << 15;
        const VERSION_THAT_HEEDS_THE_FAMILY: u8 = 1;
        let udp = u8::try_from(IPPROTO_UDP).unwrap_or_default();
        let ip = |place: u16, address: IpAddr| match address {
            IpAddr::V4(address) => attribute(place, &address.octets()),
            // CTA_IP_V6_SRC and CTA_IP_V6_DST follow those of IPv4.
            IpAddr::V6(address) => attribute(place + 2, &address.octets()),
        };
        let ip = [ip(1, self.source), ip(2, self.destination)].concat();
        let family = if self.source.is_ipv4() { AF_INET } else { AF_INET6 };
        let family = u8::try_from(family).unwrap_or_default();
        let protocol =
            [attribute(1, &[udp]), attribute(3, &self.destination_port.to_be_bytes())].concat();
        let tuple = [
            attribute(CTA_TUPLE_IP | NLA_F_NESTED, &ip),
            attribute(CTA_TUPLE_PROTO | NLA_F_NESTED, &protocol),
        ]
        .concat();
        let flags = attribute(self.tuple as u16, &self.flags.to_ne_bytes());
        [
            vec![family, VERSION_THAT_HEEDS_THE_FAMILY, 0, 0],
            attribute(self.tuple as u16 | NLA_F_NESTED, &tuple),
            attribute(CTA_FILTER | NLA_F_NESTED, &flags),
        ]
        .concat()
    }
}

/// Returns an attribute: length, kind, value, and zeros up to a multiple of four (netlink(7)).
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

impl NetlinkSerializable for Filter {
    fn message_type(&self) -> u16 {
        const NFNL_SUBSYS_CTNETLINK: u16 = 1;
        const IPCTNL_MSG_CT_DELETE: u16 = 2;
        NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE
    }

    fn buffer_len(&self) -> usize {
        self.bytes().len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.bytes());
    }
}

impl NetlinkDeserializable for Filter {
    type Error = std::convert::Infallible;

    /// Nothing but an acknowledgement ever comes back.
    fn deserialize(_: &NetlinkHeader, _: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self::any(Ipv4Addr::UNSPECIFIED.into()))
    }
}
