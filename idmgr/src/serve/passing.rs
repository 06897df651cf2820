//! Descriptors on a socket, as `SCM_RIGHTS` (unix(7)).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, ensure};
use interprocess::local_socket::Stream;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// How many go with one byte; the kernel takes 253 (SCM_MAX_FD).
const AT_ONCE: usize = 64;

/// Sends descriptors.
///
/// # Errors
/// The kernel's.
pub(crate) fn send(socket: &Stream, descriptors: &[OwnedFd]) -> anyhow::Result<()> {
    let Stream::UdSocket(socket) = socket;
    for share in descriptors.chunks(AT_ONCE) {
        let share: Vec<_> = share.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        ensure!(control.push(SendAncillaryMessage::ScmRights(&share)), "too many descriptors");
        sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)
            .context("send descriptors")?;
    }
    Ok(())
}

/// Receives as many descriptors as are expected.
///
/// # Errors
/// When fewer come, or the kernel's.
pub(crate) fn receive(socket: &Stream, count: usize) -> anyhow::Result<Vec<OwnedFd>> {
    let Stream::UdSocket(socket) = socket;
    let mut descriptors = Vec::with_capacity(count);
    while descriptors.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut buffers = [IoSliceMut::new(&mut byte)];
        let received = recvmsg(socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)
            .context("receive descriptors")?;
        ensure!(received.bytes > 0, "the server hung up before all descriptors had come");
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(share) = message {
                descriptors.extend(share);
            }
        }
    }
    Ok(descriptors)
}
