//! A process on this host that has our standard streams: nothing that goes through them passes
//! through us or the server.
//!
//! That is so for pipes and sockets. A terminal or a file of ours is not given to a container, which
//! could type into the one, and whose runtime would make the other the container's: a thread copies
//! between it and a pipe. So it is with our standard error, unless it is where our standard output is:
//! a runtime that can't start a process says why there, and the server says it better.

use std::fs::{File, Metadata};
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use guardian_contract::control::{DESCRIPTORS, MAX_MESSAGE_BYTES, Reply, Request};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recv, sendmsg, socket_with,
};

use super::control::Remote;
use super::output::{CHUNK_BYTES, lost};
use super::{Event, Events, Input, Join, Outcome, decide};
use crate::client::{Client, Output};

/// How long a server that has gone may take to come back, and how often we look.
const ABSENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(200);

/// A process that has our streams.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(super) id: String,
    packets: Arc<Packets>,
    streams: Streams,
    /// What to ask a server that has been started anew.
    again: Option<Again>,
}

/// A process that goes on without a server, since it has our streams: a new one knows how it ends.
#[derive(Debug)]
struct Again {
    path: PathBuf,
    packet: Vec<u8>,
}

impl Passed {
    /// Makes the request with our streams. `None` where they can't be passed; then HTTP is the way.
    ///
    /// # Errors
    /// The server's.
    pub(super) fn open(
        client: &Client,
        join: Join,
        request: &Request,
    ) -> anyhow::Result<Option<Self>> {
        let Some(path) = client.control_socket().filter(|_| join.passes) else { return Ok(None) };
        let packet = serde_json::to_vec(request)?;
        if packet.len() > MAX_MESSAGE_BYTES {
            return Ok(None);
        }
        let Some(packets) = Packets::connect(&path)? else { return Ok(None) };
        let (streams, theirs) = Streams::new(join.input)?;
        packets.send(&packet, &theirs.each_ref().map(AsFd::as_fd))?;
        drop(theirs);
        match packets.receive()? {
            Reply::Started { process_id: id } => {
                let again = Again::new(path, request, &id);
                Ok(Some(Self { id, packets: Arc::new(packets), streams, again }))
            }
            Reply::Failed(error) => Err(error.into()),
            Reply::Exited(_) => bail!("guardiand tells the end before the start"),
        }
    }

    /// Waits for the end, copying meanwhile what is not passed.
    ///
    /// # Errors
    /// When the connection to the server is lost, or our own output can't be written.
    pub(super) fn interact(self, events: &Events) -> anyhow::Result<Outcome> {
        let outputs = self.streams.start(&events.sender)?;
        let (packets, sender) = (Arc::clone(&self.packets), events.sender.clone());
        let ended = outputs.ended;
        let again = self.again;
        thread::spawn(move || {
            let event = loop {
                match packets.receive() {
                    Ok(Reply::Exited(status)) => break Event::Exited(status),
                    Ok(Reply::Failed(error)) => {
                        break Event::Lost(anyhow!("process error: {}", error.message));
                    }
                    Ok(Reply::Started { .. }) => {}
                    Err(error) => match again.as_ref().and_then(Again::ask) {
                        Some(socket) => packets.replace(socket),
                        None => break Event::Lost(error),
                    },
                }
            };
            let _ = sender.send(event);
            drop(ended);
        });
        decide(events, outputs.count, &Remote::Passed(self.packets), None)
    }
}

impl Again {
    /// Only a process that was started here has our streams; one that was joined has the server's.
    fn new(path: PathBuf, request: &Request, process_id: &str) -> Option<Self> {
        let Request::Run { handle, .. } = request else { return None };
        let (handle, process_id) = (handle.clone(), process_id.to_owned());
        let request = Request::Attach { handle, process_id, forwards_stdin: false };
        Some(Self { path, packet: serde_json::to_vec(&request).ok()? })
    }

    /// Waits for a server, and asks it.
    fn ask(&self) -> Option<Packets> {
        let start = Instant::now();
        while start.elapsed() < ABSENCE {
            thread::sleep(LOOK);
            let null = File::options().read(true).write(true).open("/dev/null").ok()?;
            if let Ok(Some(packets)) = Packets::connect(&self.path)
                && packets.send(&self.packet, &[null.as_fd(); DESCRIPTORS]).is_ok()
            {
                return Some(packets);
            }
        }
        None
    }
}

/// Our standard streams as far as they are not passed.
#[derive(Debug)]
struct Streams {
    input: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
}

/// The copying of outputs.
struct Outputs {
    count: usize,
    /// Closed when the process has ended: what its descendants print then is not waited for.
    ended: OwnedFd,
}

impl Streams {
    /// Returns them, and the three descriptors that are to be passed.
    fn new(input: Input) -> anyhow::Result<(Self, [OwnedFd; DESCRIPTORS])> {
        let (own_input, stdin) = match input {
            Input::Forward if is_passable(&io::stdin())? => (None, duplicate(&io::stdin())?),
            Input::Forward => {
                let (read, write) = io::pipe().context("make a pipe")?;
                (Some(write.into()), read.into())
            }
            Input::Close | Input::Leave => (None, File::open("/dev/null")?.into()),
        };
        let (own_stdout, stdout) = output(&io::stdout(), is_passable(&io::stdout())?)?;
        let (own_stderr, stderr) = output(&io::stderr(), is_one_pipe()?)?;
        let streams = Self { input: own_input, outputs: [own_stdout, own_stderr] };
        Ok((streams, [stdin, stdout, stderr]))
    }

    fn start(self, events: &Sender<Event>) -> anyhow::Result<Outputs> {
        let (watch, ended) = io::pipe().context("make a pipe")?;
        if let Some(pipe) = self.input {
            let own = duplicate(&io::stdin())?;
            // Ends with us, or when nobody reads it any more.
            thread::spawn(move || io::copy(&mut File::from(own), &mut File::from(pipe)));
        }
        let mut count = 0;
        let [stdout, stderr] = self.outputs;
        let outputs = [
            (stdout, duplicate(&io::stdout())?, Output::Stdout),
            (stderr, duplicate(&io::stderr())?, Output::Stderr),
        ];
        for (pipe, own, output) in outputs {
            let Some(pipe) = pipe else { continue };
            count += 1;
            let (events, watch) = (events.clone(), watch.try_clone()?);
            thread::spawn(move || {
                let event = match copy(&mut File::from(pipe), &mut File::from(own), watch.as_fd()) {
                    Err(error) => lost(error, output),
                    Ok(()) => Event::OutputEnded,
                };
                let _ = events.send(event);
            });
        }
        Ok(Outputs { count, ended: ended.into() })
    }
}

/// Returns the end of a pipe that we read, if there is need for one, and what is passed.
fn output(own: &impl AsFd, passes: bool) -> anyhow::Result<(Option<OwnedFd>, OwnedFd)> {
    if passes {
        return Ok((None, duplicate(own)?));
    }
    let (read, write) = io::pipe().context("make a pipe")?;
    Ok((Some(read.into()), write.into()))
}

/// Tells what a container may have: it can do nothing with it but read or write.
fn is_passable(stream: &impl AsFd) -> anyhow::Result<bool> {
    let kind = metadata(stream)?.file_type();
    Ok(kind.is_fifo() || kind.is_socket())
}

/// Tells whether both outputs are one pipe, in which their order must not change.
fn is_one_pipe() -> anyhow::Result<bool> {
    let [stdout, stderr] = [metadata(&io::stdout())?, metadata(&io::stderr())?];
    let is_same = (stdout.dev(), stdout.ino()) == (stderr.dev(), stderr.ino());
    Ok(is_same && is_passable(&io::stderr())?)
}

fn metadata(stream: &impl AsFd) -> anyhow::Result<Metadata> {
    File::from(duplicate(stream)?).metadata().context("look at a stream")
}

fn duplicate(stream: &impl AsFd) -> anyhow::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned().context("duplicate a stream")
}

/// Copies until the end, or until nothing is left after `watch` has hung up.
fn copy(from: &mut File, to: &mut File, watch: BorrowedFd<'_>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let mut polled =
            [PollFd::new(from, PollFlags::IN), PollFd::from_borrowed_fd(watch, PollFlags::empty())];
        // Every signal is blocked here, so nothing interrupts this.
        poll(&mut polled, None)?;
        if polled[0].revents().is_empty() {
            return Ok(());
        }
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            length => to.write_all(&buffer[..length])?,
        }
    }
}

/// The connection to the control socket.
#[derive(Debug)]
pub(super) struct Packets(Mutex<Arc<OwnedFd>>);

impl Packets {
    /// Connects. `None` when nobody listens there for us.
    fn connect(path: &Path) -> anyhow::Result<Option<Self>> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // A foreign server has no such socket, a dead one does not answer, and one that is not for
        // us says so.
        let connected = SocketAddrUnix::new(path).and_then(|address| connect(&socket, &address));
        Ok(connected.is_ok().then_some(Self(Mutex::new(Arc::new(socket)))))
    }

    /// Goes on with another connection.
    fn replace(&self, other: Self) {
        *self.guard() = Arc::clone(&other.guard());
    }

    fn guard(&self) -> MutexGuard<'_, Arc<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while it is used, and no lock with it: whoever waits for a reply must not keep others
    /// from sending.
    fn socket(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.guard())
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When the server has gone.
    pub(super) fn send(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> anyhow::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            bail!("too many descriptors");
        }
        let slices = [IoSlice::new(packet)];
        sendmsg(self.socket(), &slices, &mut control, SendFlags::NOSIGNAL)
            .context("ask guardiand")?;
        Ok(())
    }

    fn receive(&self) -> anyhow::Result<Reply> {
        let mut bytes = vec![0; MAX_MESSAGE_BYTES];
        let (_, length) = recv(self.socket(), &mut bytes[..], RecvFlags::empty())
            .context("connection to guardiand")?;
        if length == 0 {
            bail!("guardiand closed the connection; the process may still run");
        }
        serde_json::from_slice(&bytes[..length]).context("message of guardiand")
    }
}
