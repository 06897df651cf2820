//! Packets of JSON with descriptors, over a unix socket.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use guardian_contract::control::{MAX_MESSAGE_BYTES, Reply, Request};
use guardian_contract::fault::Fault;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType, bind, listen, recvmsg, send, socket_with,
};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

/// SCM_MAX_FD of the kernel (unix(7)): no packet carries more, so none is ever cut, and those that
/// were not asked for are closed here.
const MAX_DESCRIPTORS: usize = 253;

/// How many clients may wait to be accepted.
const BACKLOG: i32 = 128;

/// The control socket. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`, for root alone.
    ///
    /// # Errors
    /// With the path and the reason.
    pub(crate) fn open(path: PathBuf) -> anyhow::Result<Self> {
        let context = || format!("listen on {}", path.display());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .with_context(context)?;
        // What a server left that was killed.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(context);
            }
            _ => {}
        }
        bind(&socket, &SocketAddrUnix::new(&path)?).with_context(context)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .with_context(context)?;
        listen(&socket, BACKLOG).with_context(context)?;
        // tokio's types are for streams, but what is used of them minds no socket's type.
        let socket = UnixListener::from_std(socket.into()).with_context(context)?;
        Ok(Self { socket, path })
    }

    /// Waits for the next client.
    ///
    /// # Errors
    /// accept(2)'s.
    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        let (socket, _) = self.socket.accept().await?;
        Ok(Socket(socket))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A client.
#[derive(Debug)]
pub(crate) struct Socket(UnixStream);

impl Socket {
    /// Refuses a client that is not root, although the socket's mode has let it in.
    ///
    /// # Errors
    /// That it is not.
    pub(crate) fn require_root(&self) -> anyhow::Result<()> {
        let user = self.0.peer_cred().context("find out who is asking")?.uid();
        if user != 0 {
            let text = format!("the control socket is for root, not for user {user}");
            bail!(Fault::invalid(text));
        }
        Ok(())
    }

    /// Receives a request with its descriptors; `None` when the client has gone.
    ///
    /// # Errors
    /// When it is too long, or not understood. Its descriptors are closed then.
    pub(crate) async fn receive(&self) -> anyhow::Result<Option<(Request, Vec<OwnedFd>)>> {
        let packet = self.0.async_io(Interest::READABLE, || receive(&self.0)).await;
        understand(packet.context("receive a request")?)
    }

    /// Sends a reply.
    ///
    /// # Errors
    /// When the client has gone.
    pub(crate) async fn send(&self, reply: &Reply) -> anyhow::Result<()> {
        let packet = serde_json::to_vec(reply).context("encode the reply")?;
        let send = || Ok(send(&self.0, &packet, SendFlags::NOSIGNAL)?);
        self.0.async_io(Interest::WRITABLE, send).await.map(drop).context("send the reply")
    }
}

/// A packet as it came.
struct Packet {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    is_cut: bool,
}

fn receive(socket: &UnixStream) -> io::Result<Packet> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; MAX_MESSAGE_BYTES];
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    bytes.truncate(received.bytes);
    Ok(Packet { bytes, descriptors, is_cut: received.flags.contains(ReturnFlags::TRUNC) })
}

fn understand(packet: Packet) -> anyhow::Result<Option<(Request, Vec<OwnedFd>)>> {
    if packet.bytes.is_empty() {
        return Ok(None);
    }
    if packet.is_cut {
        let text = format!("a message of more than {MAX_MESSAGE_BYTES} bytes; HTTP takes it");
        bail!(Fault::invalid(text));
    }
    let request = serde_json::from_slice(&packet.bytes)
        .map_err(|error| Fault::invalid(format!("message on the control socket: {error}")))?;
    Ok(Some((request, packet.descriptors)))
}
