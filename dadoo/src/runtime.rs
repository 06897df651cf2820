//! The OCI runtime's part: the argv that runc and crun both understand, and how it ended.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use guardian_contract::process::descriptor;
use nix::sys::wait::{WaitStatus, waitpid};

use crate::keep::{Start, Task};
use crate::spawn::spawn;

/// What a server is told of a runtime that a signal killed (gdn's -1 as a byte).
const SIGNALLED: u8 = 0xff;

/// Where the process's standard streams come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stdio<'a> {
    /// Ends of FIFOs.
    Fifos(&'a [OwnedFd; 3]),
    /// Passed descriptors.
    Passed,
    /// A terminal, whose master the runtime sends to this socket.
    Terminal(&'a Path),
}

/// Runs the runtime, and returns its exit status.
///
/// # Errors
/// When the runtime can't be started.
pub(crate) fn run(start: &Start, stdio: Stdio<'_>) -> anyhow::Result<u8> {
    let pid = match stdio {
        Stdio::Fifos(ends) => {
            spawn(argv(start, std::process::id(), None), ends.each_ref().map(AsRawFd::as_raw_fd))
        }
        Stdio::Passed => spawn(argv(start, std::process::id(), None), descriptor::PASSED),
        Stdio::Terminal(console) => {
            let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
            spawn(argv(start, std::process::id(), Some(console)), [null.as_raw_fd(); 3])
        }
    }?;
    // Only this child: others are the process and its children, which are waited for later.
    match waitpid(pid, None).context("wait for the runtime")? {
        WaitStatus::Exited(_, code) => Ok(u8::try_from(code).unwrap_or(SIGNALLED)),
        _ => Ok(SIGNALLED),
    }
}

/// Returns the runtime's argv. `--debug` is gdn's, and left out: it makes runc slower, and callers
/// use the error lines only.
fn argv(start: &Start, keeper: u32, console: Option<&Path>) -> Vec<OsString> {
    let mut argv: Vec<OsString> = vec![start.runtime.clone().into()];
    if let Some(root) = &start.root {
        argv.extend(["--root".into(), root.into()]);
    }
    let log = format!("/proc/{keeper}/fd/{}", descriptor::RUNTIME_LOG);
    argv.extend(["--log", &log, "--log-format", "json"].map(OsString::from));
    argv.push(start.task.verb().into());
    argv.extend(["--detach".into(), "--pid-file".into(), start.dir.pidfile().into()]);
    match start.task {
        Task::Exec => {
            argv.extend(["-p".into(), format!("/proc/{keeper}/fd/0").into()]);
            argv.extend(console.map(|_| "--tty".into()));
            let leaf = start.tree.as_deref().and_then(Path::file_name);
            argv.extend(leaf.into_iter().flat_map(|leaf| ["--cgroup".into(), leaf.into()]));
        }
        Task::Run => {
            argv.extend(["--no-new-keyring".into(), "--bundle".into(), start.dir.path().into()]);
        }
    }
    if let Some(socket) = console {
        argv.extend(["--console-socket".into(), socket.into()]);
    }
    argv.push(start.handle.as_str().into());
    argv
}

#[cfg(test)]
mod tests {
    use guardian_contract::process::ProcessDir;

    use super::*;

    fn start(task: Task, root: Option<&str>) -> Start {
        Start {
            task,
            runtime: "crun".into(),
            root: root.map(Into::into),
            dir: ProcessDir::at("/p"),
            handle: "h".parse().unwrap(),
            has_terminal: false,
            passes_stdio: false,
            tree: None,
            socket_base: None,
        }
    }

    #[test]
    fn argv_is_the_runtime_plugin_contract_s() {
        let tty = Path::new("/t/s");
        let head = "--log /proc/7/fd/4 --log-format json";
        for (start, console, want) in [
            (
                start(Task::Exec, Some("/r")),
                None,
                format!(
                    "crun --root /r {head} exec --detach --pid-file /p/pidfile -p /proc/7/fd/0 h"
                ),
            ),
            (
                start(Task::Exec, None),
                Some(tty),
                format!(
                    "crun {head} exec --detach --pid-file /p/pidfile -p /proc/7/fd/0 \
                     --tty --console-socket /t/s h"
                ),
            ),
            (
                start(Task::Run, Some("/r")),
                Some(tty),
                format!(
                    "crun --root /r {head} run --detach --pid-file /p/pidfile --no-new-keyring \
                     --bundle /p --console-socket /t/s h"
                ),
            ),
            (
                Start {
                    tree: Some("/sys/fs/cgroup/garden/h/p1".into()),
                    ..start(Task::Exec, None)
                },
                None,
                format!(
                    "crun {head} exec --detach --pid-file /p/pidfile -p /proc/7/fd/0 \
                     --cgroup p1 h"
                ),
            ),
        ] {
            let argv = argv(&start, 7, console).join(" ".as_ref());
            assert_eq!(argv.to_str(), Some(want.as_str()));
        }
    }
}
