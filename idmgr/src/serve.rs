//! `idmgr serve`: the verbs on a unix socket.
//!
//! One request per connection, each in a thread of its own, because a copy or a change of owners
//! may take minutes. The threads share nothing: what they work on is on disk and locked there, as
//! if they were processes. A caller that goes away stops nothing.
//!
//! Descriptors follow an answer that names them: one byte for every 64 of them, each with its share
//! as `SCM_RIGHTS` (unix(7)).

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::run::Answer;
use guardian_contract::{file, frame, log};
use interprocess::local_socket::prelude::*;
use interprocess::local_socket::{GenericFilePath, Listener, ListenerOptions, Stream};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use serde::{Deserialize, Serialize};

use crate::request::Request;
use crate::store::Store;

pub(crate) mod passing;

/// Both ends must be one build; this tells them apart better than bytes that don't decode.
pub(crate) const PROTOCOL: u16 = 2;
/// How long a silent caller is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a caller sends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    /// The caller's [`PROTOCOL`].
    pub(crate) protocol: u16,
    /// What is wanted.
    pub(crate) request: Request,
}

/// What the server answers: the JSON that the verb prints, or why there is none. Of `attach`, what
/// the descriptors that follow show ([`crate::mark::Shown`]).
pub(crate) type Reply = Result<String, Fault>;

/// Serves until killed.
pub(crate) fn serve(socket: &Path, store: &Store) -> anyhow::Result<Answer> {
    let _lock = claim(socket)?;
    let listener = listen(socket).with_context(|| format!("listen on {}", socket.display()))?;
    log::info("listening", &serde_json::json!({"socket": socket}));
    for stream in listener.incoming() {
        let store = store.clone();
        let work = move || {
            if let Err(error) = stream.context("accept").and_then(|stream| answer(stream, &store)) {
                log::error("request", &serde_json::json!({"error": format!("{error:#}")}));
            }
        };
        std::thread::Builder::new().spawn(work).context("start a thread")?;
    }
    Ok(Answer::Silent)
}

/// Makes the name free for us alone. The lock decides between two servers of ours; the connect
/// spares a server of anybody else.
fn claim(socket: &Path) -> anyhow::Result<File> {
    let name = socket.display();
    if let Some(directory) = socket.parent() {
        file::private_dir(directory)?;
    }
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    if lock.try_lock().is_err() {
        return Err(in_use(socket).into());
    }
    match std::fs::symlink_metadata(socket) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("look at {name}")),
        Ok(file) if !file.file_type().is_socket() => bail!("{name} is in the way, and no socket"),
        Ok(_) if connect(socket).is_ok() => return Err(in_use(socket).into()),
        Ok(_) => std::fs::remove_file(socket).with_context(|| format!("remove stale {name}"))?,
    }
    Ok(lock)
}

fn in_use(socket: &Path) -> Fault {
    Fault::exists(format!("another server listens on {}", socket.display()))
}

fn listen(socket: &Path) -> std::io::Result<Listener> {
    let name = socket.to_fs_name::<GenericFilePath>()?;
    ListenerOptions::new().name(name).mode(0o600).create_sync()
}

/// Connects to a server.
pub(crate) fn connect(socket: &Path) -> std::io::Result<Stream> {
    Stream::connect(socket.to_fs_name::<GenericFilePath>()?)
}

fn answer(mut stream: Stream, store: &Store) -> anyhow::Result<()> {
    stream.set_recv_timeout(Some(PATIENCE))?;
    stream.set_send_timeout(Some(PATIENCE))?;
    let caller = stream.peer_creds().context("ask who calls")?.euid();
    if caller != Some(0) {
        bail!("caller {caller:?} is not root");
    }
    let Some(message) = frame::receive::<Message>(&mut stream)? else { return Ok(()) };
    let (reply, descriptors) = match reply(&message, store) {
        Ok((text, descriptors)) => (Ok(text), descriptors),
        Err(error) => (Err(Fault::of(&error)), Vec::new()),
    };
    frame::send(&mut stream, &reply)?;
    passing::send(&stream, &descriptors)
}

fn reply(message: &Message, store: &Store) -> anyhow::Result<(String, Vec<OwnedFd>)> {
    if message.protocol != PROTOCOL {
        let text = format!("protocol {} is not {PROTOCOL}", message.protocol);
        return Err(Fault::new(Kind::Unsupported, text).into());
    }
    // A view belongs where the caller lives.
    if let Request::Attach(request) = &message.request {
        let (shown, mounts): (Vec<_>, Vec<_>) =
            request.open()?.into_iter().map(|clone| (clone.shown, clone.mount)).unzip();
        return Ok((serde_json::to_string(&shown)?, mounts));
    }
    Ok((message.request.answer(store)?.to_string(), Vec::new()))
}
