//! The control socket ([`guardian_contract::control`]): run and attach for clients that pass their
//! standard streams. The descriptors go on to dadoo, and none of them stays open here.

mod relay;
mod socket;

use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use guardian_contract::control::{DESCRIPTORS, Reply, Request};
use guardian_contract::fault::Fault;
use guardian_contract::garden::{ApiError, ProcessSpec, SIGNAL_KILL, SIGNAL_TERMINATE};
use guardian_contract::log;
use rustix::process::Signal;
use rustix::termios::isatty;
use serde_json::json;
use tokio::sync::mpsc;

use crate::connection::Context;
use crate::container::grace::Hold;
use crate::guardian::api_error;
use crate::process::attach::Attachment;
use crate::process::keeper::Passed;
use crate::process::{Ending, Process};
use crate::server::accept_failed;
use relay::Relay;
use socket::Socket;

pub(crate) use socket::Listener;

/// Serves until the server stops. Sessions hold `busy`.
pub(crate) async fn serve(context: Context, listener: Listener, busy: mpsc::Sender<()>) {
    loop {
        let socket = tokio::select! {
            socket = listener.accept() => socket,
            () = context.stopped() => return,
        };
        match socket {
            Ok(socket) => {
                let (context, busy) = (context.clone(), busy.clone());
                tokio::spawn(async move {
                    session(&context, &socket).await;
                    drop(busy);
                });
            }
            Err(error) => accept_failed(&error).await,
        }
    }
}

async fn session(context: &Context, socket: &Socket) {
    let reply = match converse(context, socket).await {
        Ok(Some(reply)) => reply,
        Ok(None) => return,
        Err(error) => Reply::Failed(api_error(&error)),
    };
    // A client that has gone does not want to know.
    let _ = socket.send(&reply).await;
}

/// Starts or joins a process, and returns how it ended; nothing if the client or the server was
/// gone before.
async fn converse(context: &Context, socket: &Socket) -> anyhow::Result<Option<Reply>> {
    let request = tokio::select! {
        request = socket.receive() => request?,
        () = context.stopped() => return Ok(None),
    };
    let Some((request, descriptors)) = request else { return Ok(None) };
    // Not before: whoever is refused with his request unread hears of a broken connection only.
    socket.require_root()?;
    let count = descriptors.len();
    let streams: Passed = descriptors.try_into().map_err(|_| {
        let text = format!("run and attach take {DESCRIPTORS} descriptors, and {count} came");
        Fault::invalid(text)
    })?;
    let guardian = &context.guardian;
    match request {
        Request::Run { handle, process } => {
            refuse(&process, &streams)?;
            let container = guardian.find(&handle)?;
            let _hold = Hold::new(guardian, &container);
            // A task of its own: a process that is being started when its client goes away is
            // started all the same.
            let guardian = Arc::clone(guardian);
            let work =
                tokio::spawn(
                    async move { guardian.run(&container, *process, Some(streams)).await },
                );
            let attachment = work.await.context("start the process")??;
            follow(context, socket, &attachment, None).await
        }
        Request::Attach { handle, process_id, forwards_stdin } => {
            let container = guardian.find(&handle)?;
            let _hold = Hold::new(guardian, &container);
            let attachment = guardian.attach(&container, &process_id)?;
            let dadoo = &guardian.settings.dadoo;
            let relay = Relay::start(dadoo, &attachment, streams, forwards_stdin)
                .inspect_err(|_| guardian.attachments.abandon(&attachment))?;
            follow(context, socket, &attachment, Some(relay)).await
        }
        Request::Signal(_) => bail!(Fault::invalid("a signal comes after run or attach")),
    }
}

/// Refuses what can't be had with passed streams.
fn refuse(spec: &ProcessSpec, streams: &Passed) -> anyhow::Result<()> {
    ensure!(spec.tty.is_none(), Fault::invalid("a process with a terminal is run over HTTP"));
    let text = "output that does not pass through the server can't be kept";
    ensure!(!spec.keep_output, Fault::invalid(text));
    for (stream, name) in streams.iter().zip(["stdin", "stdout", "stderr"]) {
        // Whoever has a terminal open can type into it: TIOCSTI of ioctl_tty(2).
        let text = format!("{name} is a terminal, which no container may have; pass a pipe");
        ensure!(!isatty(stream), Fault::invalid(text));
    }
    Ok(())
}

/// Waits for the end of a process, obeying its client meanwhile.
async fn follow(
    context: &Context,
    socket: &Socket,
    attachment: &Arc<Attachment>,
    relay: Option<Relay>,
) -> anyhow::Result<Option<Reply>> {
    let attachments = &context.guardian.attachments;
    let process = &attachment.process;
    let started = Reply::Started { process_id: process.id.to_string() };
    if socket.send(&started).await.is_err() {
        attachments.abandon(attachment);
        return Ok(None);
    }
    let ending = tokio::select! {
        ending = process.ended() => Some(ending),
        () = obey(socket, process) => None,
        () = context.stopped() => None,
    };
    let Some(ending) = ending else {
        attachments.abandon(attachment);
        return Ok(None);
    };
    attachments.finish(attachment);
    if let Some(relay) = relay {
        // All its output was written when it ends; a client that does not read it waits for itself.
        tokio::select! {
            () = relay.ended() => {}
            () = obey(socket, process) => {}
            () = context.stopped() => {}
        }
    }
    attachments.abandon(attachment);
    Ok(Some(match ending {
        Ending::Code(code) => Reply::Exited(code),
        Ending::Unknown(text) => Reply::Failed(ApiError::other(text)),
    }))
}

/// Signals the process until the client is gone, or says what nobody understands.
async fn obey(socket: &Socket, process: &Process) {
    while let Ok(Some((Request::Signal(signal), _))) = socket.receive().await {
        match signal {
            SIGNAL_TERMINATE => process.signal(Signal::TERM),
            SIGNAL_KILL => process.signal(Signal::KILL),
            other => log::info("unknown-signal", &json!({"signal": other})),
        }
    }
}
