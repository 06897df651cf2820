//! Attachments: each run or attach connection has one, found again by its stream id when the
//! client asks for the output.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use guardian_contract::log;
use serde_json::json;
use tokio::task::AbortHandle;

use super::Process;
use super::fanout::{Fanout, IDLE_LIMIT_BYTES, Ticket};
use crate::container::lock;

/// How long output can still be asked for after the end, and how long all of it is kept for a
/// client that has not asked yet: Garden's promise.
const RETENTION: Duration = Duration::from_secs(60);

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A client's hold on the output of a process.
#[derive(Debug)]
pub(crate) struct Attachment {
    /// The stream id.
    pub(crate) id: String,
    /// The process.
    pub(crate) process: Arc<Process>,
    stdout: Ticket,
    stderr: Ticket,
    /// Whether its client has heard the end.
    is_finished: AtomicBool,
    /// What is to happen when nobody has asked for long enough.
    timer: Mutex<Option<AbortHandle>>,
}

impl Attachment {
    /// Returns one output and this attachment's place in it.
    pub(crate) fn output(&self, output: Output) -> (&Fanout, Ticket) {
        match output {
            Output::Stdout => (&self.process.stdout, self.stdout),
            Output::Stderr => (&self.process.stderr, self.stderr),
        }
    }

    /// Does `work` after the retention time, and nothing that was to be done before.
    fn after_retention(&self, work: impl FnOnce() + Send + 'static) {
        let task = tokio::spawn(async move {
            tokio::time::sleep(RETENTION).await;
            work();
        });
        if let Some(before) = lock(&self.timer).replace(task.abort_handle()) {
            before.abort();
        }
    }

    fn is_done(&self) -> bool {
        self.is_finished.load(Ordering::SeqCst)
            && self.both().iter().all(|(fanout, ticket)| fanout.is_done(*ticket))
    }

    fn both(&self) -> [(&Fanout, Ticket); 2] {
        [self.output(Output::Stdout), self.output(Output::Stderr)]
    }
}

/// All attachments of this server, by stream id.
#[derive(Debug, Default)]
pub(crate) struct Attachments {
    last_id: AtomicU64,
    known: Mutex<HashMap<String, Arc<Attachment>>>,
}

impl Attachments {
    /// Attaches to a process: from now on its output is kept for this attachment.
    pub(crate) fn attach(self: &Arc<Self>, process: &Arc<Process>) -> Arc<Attachment> {
        let id = (self.last_id.fetch_add(1, Ordering::Relaxed) + 1).to_string();
        let attachment = Arc::new(Attachment {
            id: id.clone(),
            stdout: process.stdout.join(),
            stderr: process.stderr.join(),
            process: Arc::clone(process),
            is_finished: AtomicBool::new(false),
            timer: Mutex::default(),
        });
        self.lock().insert(id, Arc::clone(&attachment));
        let unasked = Arc::downgrade(&attachment);
        attachment.after_retention(move || {
            for (fanout, ticket) in unasked.upgrade().iter().flat_map(|unasked| unasked.both()) {
                fanout.shrink_unless_read(ticket);
            }
        });
        attachment
    }

    /// Returns the attachment with this stream id.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Attachment>> {
        self.lock().get(id).cloned()
    }

    /// Ends an attachment whose client has heard the end, or has gone: readers get what is
    /// queued. It can be found for a while longer.
    pub(crate) fn finish(self: &Arc<Self>, attachment: &Arc<Attachment>) {
        attachment.both().into_iter().for_each(|(fanout, ticket)| fanout.finish(ticket));
        attachment.is_finished.store(true, Ordering::SeqCst);
        let (all, kept) = (Arc::clone(self), Arc::clone(attachment));
        attachment.after_retention(move || all.forget(&kept));
        self.forget_if_done(attachment);
    }

    /// Forgets an attachment that has given all there is: whoever asks again gets the same as from
    /// one that never was, which is nothing.
    pub(crate) fn forget_if_done(&self, attachment: &Attachment) {
        if attachment.is_done() {
            self.forget(attachment);
        }
    }

    /// Ends an attachment whose client has gone: nothing more is kept for it.
    pub(crate) fn abandon(&self, attachment: &Attachment) {
        attachment.both().into_iter().for_each(|(fanout, ticket)| fanout.finish(ticket));
        self.forget(attachment);
    }

    fn forget(&self, attachment: &Attachment) {
        self.lock().remove(&attachment.id);
        if let Some(timer) = lock(&attachment.timer).take() {
            timer.abort();
        }
        let lost = attachment.both().map(|(fanout, ticket)| fanout.leave(ticket));
        if lost != [0, 0] {
            let data = json!({"process": attachment.process.id.as_str(), "bytes": lost});
            log::info("slow-reader-lost-output", &data);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Attachment>>> {
        lock(&self.known)
    }
}

impl Fanout {
    /// Keeps less for a reader that has not read anything yet.
    fn shrink_unless_read(&self, ticket: Ticket) {
        if !self.has_read(ticket) {
            self.set_limit(ticket, IDLE_LIMIT_BYTES);
        }
    }
}
