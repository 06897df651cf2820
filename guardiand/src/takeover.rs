//! The four routes that take the connection over: run and attach, whose connection then carries
//! input, signals and the end; stdout and stderr, whose connection then carries output.

use std::sync::Arc;

use guardian_contract::garden::{
    ApiError, ProcessPayload, ProcessSpec, SIGNAL_KILL, SIGNAL_TERMINATE, decode, encode_line,
};
use guardian_contract::log;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

use crate::connection::{Context, Request};
use crate::container::grace::Hold;
use crate::guardian::api_error;
use crate::http::reply::{send_output_head, send_takeover};
use crate::http::wire::{Reader, Wire};
use crate::process::attach::{Attachment, Output};
use crate::process::messages::Splitter;
use crate::process::{Ending, Process};
use crate::router::Route;

/// A connection's new life.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Input, signals, sizes; and the end.
    Control {
        /// 201 for run, 200 for attach.
        status: u16,
        /// The hold on the output.
        attachment: Arc<Attachment>,
        /// Keeps the container from being reaped.
        hold: Hold,
    },
    /// Output; nothing for a stream id that is unknown or over.
    Output(Option<Arc<Attachment>>, Output),
}

/// Does what the request asks for, as far as it can fail with an answer.
///
/// # Errors
/// Whatever keeps the process from being run or attached to.
pub(crate) async fn begin(
    context: &Context,
    request: &Request,
    body: &[u8],
) -> Result<Taken, ApiError> {
    let guardian = &context.guardian;
    let output = match request.route {
        Route::Stdout => Output::Stdout,
        Route::Stderr => Output::Stderr,
        route => {
            let spec: Option<ProcessSpec> = match route {
                Route::Run => Some(decode(body).map_err(ApiError::other)?),
                _ => None,
            };
            let container = guardian.find(request.value(0))?;
            let hold = Hold::new(guardian, &container);
            let (status, attachment) = match spec {
                None => (200, guardian.attach(&container, request.value(1))?),
                Some(spec) => {
                    // A task of its own: a process that is being started when its client goes
                    // away is started all the same.
                    let guardian = Arc::clone(guardian);
                    let work =
                        tokio::spawn(async move { guardian.run(&container, spec, None).await });
                    let started = work.await.map_err(|error| ApiError::other(error.to_string()))?;
                    (201, started.map_err(|error| api_error(&error))?)
                }
            };
            return Ok(Taken::Control { status, attachment, hold });
        }
    };
    // Handle and process id are not looked at: the stream id is enough.
    Ok(Taken::Output(guardian.attachments.find(request.value(2)), output))
}

impl Taken {
    /// Serves the connection to its end.
    pub(crate) async fn serve(self, context: &Context, wire: Wire) {
        match self {
            Self::Control { status, attachment, hold } => {
                control(context, wire, status, &attachment).await;
                drop(hold);
            }
            Self::Output(attachment, output) => {
                send_output(context, wire, attachment, output).await
            }
        }
    }
}

async fn control(context: &Context, mut wire: Wire, status: u16, attachment: &Arc<Attachment>) {
    let attachments = &context.guardian.attachments;
    let process = &attachment.process;
    let first = ProcessPayload {
        process_id: Some(process.id.to_string()),
        stream_id: Some(attachment.id.clone()),
        ..ProcessPayload::default()
    };
    if send_takeover(&mut wire.writer, status, &first).await.is_err() {
        return attachments.abandon(attachment);
    }
    let ending = tokio::select! {
        ending = process.ended() => ending,
        () = listen(&mut wire.reader, process) => return attachments.abandon(attachment),
        () = context.stopped() => return attachments.abandon(attachment),
    };
    let last = match ending {
        Ending::Code(code) => {
            ProcessPayload { exit_status: Some(code), ..ProcessPayload::default() }
        }
        Ending::Unknown(text) => ProcessPayload { error: Some(text), ..ProcessPayload::default() },
    };
    let last = ProcessPayload { process_id: Some(process.id.to_string()), ..last };
    if let Ok(line) = encode_line(&last) {
        let _ = wire.writer.write_all(&line).await;
    }
    attachments.finish(attachment);
    wire.linger().await;
}

/// Does what the client says until it is gone. A client that says nonsense is as good as gone.
async fn listen(reader: &mut Reader, process: &Process) {
    let mut splitter = Splitter::default();
    let mut stdin = process.stdin().ok();
    while let Ok(Some(value)) = splitter.next(reader).await {
        let Ok(message) = decode::<ProcessPayload>(&value) else { return };
        if !obey(&message, process, &mut stdin).await {
            log::info("unknown-message", &json!({"process": process.id.as_str()}));
            drop(stdin);
            // Garden stops listening here, and still tells how the process ends.
            return std::future::pending().await;
        }
    }
}

/// Obeys one message; `false` when it says nothing known. The order is Garden's: what has a tty
/// is a new size, whatever else it has.
async fn obey(
    message: &ProcessPayload,
    process: &Process,
    stdin: &mut Option<pipe::Sender>,
) -> bool {
    if let Some(tty) = message.tty {
        if let Some(size) = tty.window_size {
            process.resize(size);
        }
        return true;
    }
    if message.source.is_some() {
        match (&message.data, stdin.as_mut()) {
            (None, _) => *stdin = None,
            (Some(data), Some(fifo)) => {
                if fifo.write_all(data.as_bytes()).await.is_err() {
                    *stdin = None;
                }
            }
            (Some(_), None) => {}
        }
        return true;
    }
    match message.signal {
        Some(SIGNAL_TERMINATE) => process.signal(Signal::TERM),
        Some(SIGNAL_KILL) => process.signal(Signal::KILL),
        _ => return false,
    }
    true
}

async fn send_output(
    context: &Context,
    mut wire: Wire,
    attachment: Option<Arc<Attachment>>,
    output: Output,
) {
    if send_output_head(&mut wire.writer).await.is_err() {
        return;
    }
    if let Some(attachment) = attachment {
        let (fanout, ticket) = attachment.output(output);
        loop {
            let chunk = tokio::select! {
                chunk = fanout.next(ticket) => chunk,
                () = context.stopped() => return,
            };
            let Some(chunk) = chunk else { break };
            if wire.writer.write_all(&chunk).await.is_err() {
                return;
            }
        }
        context.guardian.attachments.forget_if_done(&attachment);
    }
    wire.linger().await;
}
