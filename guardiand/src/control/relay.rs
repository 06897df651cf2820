//! A client that joins a process whose output is here: a dadoo copies between it and us.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use command_fds::{CommandFdExt, FdMapping};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use crate::process::attach::{Attachment, Output};
use crate::process::keeper::Passed;

/// The numbers that `dadoo relay` knows: the process's input, its output, its error output.
const INPUT: i32 = 3;
const OUTPUTS: [(Output, i32); 2] = [(Output::Stdout, 4), (Output::Stderr, 5)];

/// The dadoo of one client. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Relay(Child);

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
        let mut mappings = Vec::new();
        // A process that was passed its own streams takes no input here.
        if forwards_stdin && let Ok(fifo) = attachment.process.stdin() {
            let parent_fd = fifo.into_blocking_fd()?;
            mappings.push(FdMapping { parent_fd, child_fd: INPUT });
        }
        let mut sinks = Vec::new();
        for (output, child_fd) in OUTPUTS {
            let (parent_fd, sink) = pipe_with(PipeFlags::CLOEXEC)?;
            mappings.push(FdMapping { parent_fd, child_fd });
            rustix::io::ioctl_fionbio(&sink, true)?;
            sinks.push((output, pipe::Sender::from_owned_fd(sink)?));
        }
        let mut command = Command::new(dadoo);
        command.arg("relay").stdin(stdin).stdout(stdout).stderr(stderr);
        command.process_group(0).kill_on_drop(true).fd_mappings(mappings)?;
        let child = command.spawn().with_context(|| format!("exec {}", dadoo.display()))?;
        for (output, sink) in sinks {
            tokio::spawn(send(Arc::clone(attachment), output, sink));
        }
        Ok(Self(child))
    }

    /// Waits until all output was written, or nobody reads it any more.
    pub(crate) async fn ended(mut self) {
        let _ = self.0.wait().await;
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
