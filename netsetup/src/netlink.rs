//! A synchronous netlink socket: one request, its answers, the next request.

use std::io;

use anyhow::Context;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::SocketAddr;

/// The kernel never sends more in one datagram (NLMSG_GOODSIZE and dumps, netlink(7)).
const BUFFER_SIZE: usize = 32 * 1024;

/// A socket to one family of the kernel, in the network namespace it was opened in.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket to the family `protocol` (one of [`netlink_sys::protocols`]).
    pub(crate) fn open(protocol: isize) -> anyhow::Result<Self> {
        let kernel = SocketAddr::new(0, 0);
        let mut socket = netlink_sys::Socket::new(protocol).context("open a netlink socket")?;
        socket.bind(&kernel).context("bind a netlink socket")?;
        socket.connect(&kernel).context("connect a netlink socket")?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER_SIZE] })
    }

    /// Sends `message` and waits until the kernel has done it.
    ///
    /// # Errors
    /// With the kernel's errno.
    pub(crate) fn change<M>(&mut self, message: M, flags: u16) -> io::Result<()>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.send(message, flags | NLM_F_ACK)?;
        self.receive::<M>(true).map(drop)
    }

    /// Sends `message` and returns what the kernel answers; with [`NLM_F_DUMP`], all the parts.
    ///
    /// # Errors
    /// With the kernel's errno.
    pub(crate) fn query<M>(&mut self, message: M, flags: u16) -> io::Result<Vec<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.send(message, flags)?;
        self.receive(flags & NLM_F_DUMP == NLM_F_DUMP)
    }

    fn send<M: NetlinkSerializable>(&mut self, message: M, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let length = packet.buffer_len();
        let buffer = self.buffer.get_mut(..length).ok_or(io::ErrorKind::FileTooLarge)?;
        buffer.fill(0);
        packet.serialize(buffer);
        self.socket.send(buffer, 0).map(drop)
    }

    /// Collects messages until the kernel says that it is done or, unless `until_done`, until the
    /// first one.
    fn receive<M: NetlinkDeserializable>(&mut self, until_done: bool) -> io::Result<Vec<M>> {
        let mut messages = Vec::new();
        loop {
            let size = self.socket.recv(&mut &mut self.buffer[..], 0)?;
            let mut rest = &self.buffer[..size];
            while !rest.is_empty() {
                let packet = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
                let length = (packet.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if packet.header.sequence_number != self.sequence {
                    continue;
                }
                match packet.payload {
                    NetlinkPayload::InnerMessage(message) => messages.push(message),
                    NetlinkPayload::Done(_) => return Ok(messages),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) => return Ok(messages),
                    _ => {}
                }
                if !until_done && !messages.is_empty() {
                    return Ok(messages);
                }
            }
        }
    }
}
