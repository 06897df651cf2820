//! What happens to containers, told to whoever listens at that moment. Nothing is kept: who wants to
//! know what is, asks; who wants to know what happens, listens.

pub(crate) mod stream;

use std::time::SystemTime;

use guardian_contract::depot::Handle;
use guardian_contract::log;
use serde::Serialize;
use tokio::sync::broadcast;

/// How many events wait for a listener that is slow. It loses the oldest of what is more, and is
/// told how many; nobody waits for it.
const QUEUE: usize = 1024;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A container was made.
    Create,
    /// A container could not be made; `destroy` follows when nothing of it is left.
    #[serde(rename = "create_failed")]
    CreateFailed,
    /// A process was started.
    Start,
    /// The kernel killed a process for want of memory.
    Oom,
    /// A process ended, or with no name of a process, a container's first one.
    Exit,
    /// A container was taken away.
    Destroy,
}

/// One event. Members that have no value are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    time: String,
    event: Kind,
    handle: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Event {
    /// Returns an event of a container, at this moment.
    pub(crate) fn new(kind: Kind, handle: &Handle) -> Self {
        Self {
            time: log::timestamp(SystemTime::now()),
            event: kind,
            handle: handle.to_string(),
            process: None,
            pid: None,
            exit_code: None,
            command: None,
            error: None,
        }
    }

    /// Names the process that it is about.
    pub(crate) fn process(self, process_id: &Handle) -> Self {
        Self { process: Some(process_id.to_string()), ..self }
    }

    /// Adds a pid on the host.
    pub(crate) fn pid(self, pid: Option<i32>) -> Self {
        Self { pid, ..self }
    }

    /// Adds how the process ended, if that is known.
    pub(crate) fn exit_code(self, exit_code: Option<i64>) -> Self {
        Self { exit_code, ..self }
    }

    /// Adds the name of the program (proc_pid_comm(5)).
    pub(crate) fn command(self, command: String) -> Self {
        Self { command: Some(command), ..self }
    }

    /// Adds why it failed.
    pub(crate) fn error(self, error: String) -> Self {
        Self { error: Some(error), ..self }
    }
}

/// Where events come from and go to.
#[derive(Debug)]
pub(crate) struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(QUEUE))
    }
}

impl Events {
    /// Tells everybody who listens.
    pub(crate) fn tell(&self, event: Event) {
        // The only failure is that nobody listens.
        let _ = self.0.send(event);
    }

    /// Listens from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_only_what_is_known() {
        let handle = "h".parse().unwrap();
        let event = Event::new(Kind::Exit, &handle).process(&"p".parse().unwrap());
        let mut value = serde_json::to_value(event.exit_code(Some(137))).unwrap();
        assert!(value["time"].as_str().unwrap().ends_with('Z'));
        value.as_object_mut().unwrap().remove("time");
        let want =
            serde_json::json!({"event": "exit", "handle": "h", "process": "p", "exit_code": 137});
        assert_eq!(value, want);
    }
}
