//! A client that joins a process whose output is here: a dadoo copies between it and us.

use std::path::Path;
use std::sync::Arc;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

use crate::process::attach::{Attachment, Output};
use crate::process::keeper::Passed;
use crate::process::spawn::{Child, spawn};

/// The numbers that `dadoo relay` knows: the process's input, its output, its error output.
const INPUT: i32 = 3;
const OUTPUTS: [(Output, i32); 2] = [(Output::Stdout, 4), (Output::Stderr, 5)];

/// The dadoo of one client. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Relay(Arc<Child>);

impl Relay {
    /// Hands the client's streams over, and starts to send output.
    ///
    /// # Errors
    /// When dadoo can't be started.
    pub(crate) fn start(
        dadoo: &Path,
        attachment: &Arc<Attachment>,
        [stdin, stdout, stderr]: Passed,
        forwards_stdin: bool,
    ) -> anyhow::Result<Self> {
        let mut descriptors = vec![(stdin, 0), (stdout, 1), (stderr, 2)];
        // A process that was passed its own streams takes no input here.
        if forwards_stdin && let Ok(fifo) = attachment.process.stdin() {
            descriptors.push((fifo.into_blocking_fd()?, INPUT));
        }
        let mut sinks = Vec::new();
        for (output, number) in OUTPUTS {
            let (source, sink) = pipe_with(PipeFlags::CLOEXEC)?;
            descriptors.push((source, number));
            sinks.push((output, pipe::Sender::from_owned_fd(sink)?));
        }
        let child = spawn(dadoo, &["relay".into()], descriptors)?;
        for (output, sink) in sinks {
            tokio::spawn(send(Arc::clone(attachment), output, sink));
        }
        Ok(Self(Arc::new(child)))
    }

    /// Waits until all output was written, or nobody reads it any more.
    pub(crate) async fn ended(&self) {
        self.0.ended().await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let child = Arc::clone(&self.0);
        child.kill();
        tokio::spawn(async move { child.ended().await });
    }
}

async fn send(attachment: Arc<Attachment>, output: Output, mut sink: pipe::Sender) {
    let (fanout, ticket) = attachment.output(output);
    while let Some(chunk) = fanout.next(ticket).await {
        if sink.write_all(&chunk).await.is_err() {
            return;
        }
    }
}
