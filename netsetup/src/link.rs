//! Links of the network namespace that the socket was opened in.

mod address;

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::Context;
use guardian_contract::fault::Fault;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    Stats64,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::bandwidth::Bandwidth;
use crate::netlink::Socket;

const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// A veth pair to be made.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    /// The name of the end that stays here.
    pub(crate) host_end: &'a str,
    /// The name of the other end.
    pub(crate) container_end: &'a str,
    /// Where the other end goes.
    pub(crate) netns: BorrowedFd<'a>,
    /// Whose link it is: its MAC address is made of this.
    pub(crate) address: Ipv4Addr,
    /// The bridge to attach our end to, by index.
    pub(crate) bridge: Option<u32>,
    /// The MTU of both.
    pub(crate) mtu: u32,
}

/// The links of a network namespace.
#[derive(Debug)]
pub(crate) struct Links(Socket);

impl Links {
    /// Opens the links of the network namespace we are in.
    pub(crate) fn open() -> anyhow::Result<Self> {
        Socket::open(NETLINK_ROUTE).map(Self)
    }

    /// Makes a veth pair, our end up and the container's at once where it belongs: moving it there
    /// later would cost more. (Its end can't be made up: it has no peer yet, veth_open().)
    pub(crate) fn create_veth(&mut self, veth: &Veth<'_>) -> anyhow::Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(veth.container_end.to_owned()));
        peer.attributes.push(LinkAttribute::Mtu(veth.mtu));
        peer.attributes.push(LinkAttribute::Address(mac(veth.address).to_vec()));
        peer.attributes.push(LinkAttribute::NetNsFd(veth.netns.as_raw_fd()));
        let mut link = link_up(veth.host_end);
        link.attributes.push(LinkAttribute::Mtu(veth.mtu));
        link.attributes.extend(veth.bridge.map(LinkAttribute::Controller));
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.0.change(RouteNetlinkMessage::NewLink(link), NEW).with_context(|| {
            format!("create the pair of links {} and {}", veth.host_end, veth.container_end)
        })
    }

    /// Makes a bridge, up, for this gateway. Without a MAC address of its own it would change its
    /// address whenever a container comes or goes.
    pub(crate) fn create_bridge(
        &mut self,
        name: &str,
        gateway: Ipv4Addr,
        mtu: u32,
    ) -> anyhow::Result<()> {
        let mut link = link_up(name);
        link.attributes.push(LinkAttribute::Mtu(mtu));
        link.attributes.push(LinkAttribute::Address(mac(gateway).to_vec()));
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
        ]));
        self.0
            .change(RouteNetlinkMessage::NewLink(link), NEW)
            .with_context(|| format!("create bridge {name}"))
    }

    /// Returns the index of the bridge `name`; `None` when there is no such link.
    ///
    /// # Errors
    /// When the name belongs to a link of another kind.
    pub(crate) fn bridge(&mut self, name: &str) -> anyhow::Result<Option<u32>> {
        let Some(link) = self.get(name)? else { return Ok(None) };
        let is_bridge = link.attributes.iter().any(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Bridge)),
            _ => false,
        });
        match is_bridge {
            true => Ok(Some(link.header.index)),
            false => Err(Fault::exists(format!("link {name} exists and is no bridge")).into()),
        }
    }

    /// Returns what has passed through the link `name`, from its own point of view.
    pub(crate) fn traffic(&mut self, name: &str) -> anyhow::Result<Option<Stats64>> {
        let link = self.get(name)?;
        Ok(link.and_then(|link| {
            link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::Stats64(stats) => Some(stats),
                _ => None,
            })
        }))
    }

    /// Makes this limit hold for what the link `name` passes on to its peer, or none.
    ///
    /// # Errors
    /// As [`Links::limit`].
    pub(crate) fn set_limit(&mut self, name: &str, limit: Option<Bandwidth>) -> anyhow::Result<()> {
        match limit {
            Some(limit) => self.limit(name, limit),
            None => self.unlimit(name),
        }
    }

    /// Limits what the link `name` passes on to its peer.
    ///
    /// # Errors
    /// With a [`Fault`] of kind unsupported where the kernel can't.
    pub(crate) fn limit(&mut self, name: &str, limit: Bandwidth) -> anyhow::Result<()> {
        let message = RouteNetlinkMessage::NewQueueDiscipline(limit.message(index_of(name)?));
        match self.0.change(message, NLM_F_CREATE | NLM_F_REPLACE) {
            Err(error) if is(&error, Errno::ENOENT) => Err(error).context(Fault::unsupported(
                "this kernel can't limit bandwidth: it has no token bucket filter (sch_tbf)",
            )),
            done => done.with_context(|| format!("limit the bandwidth of {name}")),
        }
    }

    /// Lets the link `name` pass on whatever comes; one that is not limited our way is left as it is.
    fn unlimit(&mut self, name: &str) -> anyhow::Result<()> {
        let message = RouteNetlinkMessage::DelQueueDiscipline(Bandwidth::filter(index_of(name)?));
        match self.0.change(message, 0) {
            // There is none, or it is not the one we name (tc_get_qdisc()).
            Err(error) if is(&error, Errno::ENOENT) || is(&error, Errno::EINVAL) => Ok(()),
            done => done.with_context(|| format!("lift the limit on the bandwidth of {name}")),
        }
    }

    /// Attaches a link to a bridge, by index.
    pub(crate) fn attach(&mut self, index: u32, bridge: u32) -> anyhow::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::Controller(bridge));
        self.0
            .change(RouteNetlinkMessage::SetLink(link), 0)
            .with_context(|| format!("attach link number {index} to link number {bridge}"))
    }

    /// Brings a link up.
    pub(crate) fn set_up(&mut self, name: &str) -> anyhow::Result<()> {
        self.0
            .change(RouteNetlinkMessage::SetLink(link_up(name)), 0)
            .with_context(|| format!("bring {name} up"))
    }

    /// Returns when the link can send. A link that came up before its peer waits for a worker of
    /// the kernel, and drops the first packets meanwhile; being asked for makes it hurry
    /// (linkwatch_sync_dev() in rtnl_getlink(), since Linux 6.8).
    pub(crate) fn settle(&mut self, name: &str) -> anyhow::Result<()> {
        self.get(name).map(drop)
    }

    /// Deletes a link, and with it its peer; an absent one is fine. The kernel waits for all its
    /// readers meanwhile (synchronize_net), which takes some ten milliseconds.
    pub(crate) fn delete(&mut self, index: u32) -> anyhow::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        match self.0.change(RouteNetlinkMessage::DelLink(link), 0) {
            Err(error) if !is(&error, Errno::ENODEV) => {
                Err(error).with_context(|| format!("delete link number {index}"))
            }
            _ => Ok(()),
        }
    }

    fn get(&mut self, name: &str) -> anyhow::Result<Option<LinkMessage>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.query_link(message)
    }

    fn query_link(&mut self, message: LinkMessage) -> anyhow::Result<Option<LinkMessage>> {
        match self.0.query(RouteNetlinkMessage::GetLink(message), 0) {
            Ok(found) => Ok(found.into_iter().find_map(|message| match message {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })),
            Err(error) if is(&error, Errno::ENODEV) => Ok(None),
            Err(error) => Err(error).context("look a link up"),
        }
    }
}

/// Returns the number of the link of this name, which no other link gets as long as the namespace
/// lives; `None` when there is no such link.
pub(crate) fn index(name: &str) -> Option<u32> {
    if_nametoindex(name).ok()
}

fn index_of(name: &str) -> anyhow::Result<u32> {
    if_nametoindex(name).with_context(|| format!("find link {name}"))
}

/// Returns the MAC address that goes with an IP address: locally administered (IEEE 802c), and the
/// same for the next container with that address, whose neighbours may remember the last one's.
fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, b'g', a, b, c, d]
}

/// Returns a message that names a link and says that it is to be up.
fn link_up(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

fn is(error: &std::io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}
