//! The main road: start the process through the runtime, then become the program that keeps it.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::log;
use guardian_contract::process::ProcessDir;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, setsid};

use crate::cli::OWN_FAILURE;
use crate::console::{Console, socket_base};
use crate::fifo::{self, Fifos, Streams};
use crate::handover::{self, Kept};
use crate::inherited::{self, Inherited};
use crate::runtime::Stdio;
use crate::terminal::Terminal;
use crate::{runtime, status, tree};

/// The exit code that tells of a runtime's failure.
const RUNTIME_FAILURE: u8 = 3;

/// Which of the runtime's verbs makes the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// A process in a container that is there.
    Exec,
    /// A container of its own.
    Run,
}

impl Task {
    /// Returns the runtime's word for it.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Run => "run",
        }
    }
}

/// What is to be started.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) task: Task,
    pub(crate) runtime: PathBuf,
    pub(crate) root: Option<PathBuf>,
    pub(crate) dir: ProcessDir,
    pub(crate) handle: Handle,
    pub(crate) has_terminal: bool,
    pub(crate) passes_stdio: bool,
    pub(crate) tree: Option<PathBuf>,
    pub(crate) socket_base: Option<PathBuf>,
}

/// Starts a process and becomes its keeper, which exits as the process does. Returns only if there
/// is nothing to keep: with 3, when the runtime failed.
///
/// # Errors
/// dadoo's own failures.
pub(crate) fn keep(start: Start) -> anyhow::Result<u8> {
    let mut inherited = Inherited::adopt(start.passes_stdio)?;
    let keeper = handover::find_program()?;
    let socket_base = socket_base(start.socket_base.as_deref(), std::env::temp_dir())?;
    if !inherited.has_server() {
        fifo::make(&start.dir, !start.passes_stdio)?;
    }
    let runtime_log = inherited.take_log(&start.dir)?;
    // A terminal's hang-up must not reach us. The leader of a process group can't leave its
    // session; the signals blocked below are all that could hurt it there.
    let _ = setsid();
    let fifos = fifo::open_all(&start.dir, !start.passes_stdio, inherited.has_server())?;
    inherited.tell_open();

    let console = match start.has_terminal {
        true => Some(Console::listen(&socket_base)?),
        false => None,
    };
    let stdio = match (&console, &fifos.streams) {
        (Some(console), _) => Stdio::Terminal(console.path()),
        (None, Some(streams)) => Stdio::Fifos(&streams.stdio),
        (None, None) => Stdio::Passed,
    };
    start.tree.as_deref().map_or(Ok(()), |tree| tree::record(&start.dir, tree))?;
    // From here on there is something to keep, and only the process's end ends us.
    SigSet::all().thread_block().context("block signals")?;
    set_child_subreaper(true).context("become subreaper")?;
    let ran = runtime::run(&start, stdio);
    if start.passes_stdio {
        inherited::close_passed();
    }
    drop(runtime_log);
    inherited.tell_exit_status(*ran.as_ref().unwrap_or(&OWN_FAILURE));
    match ran? {
        0 => become_keeper(&keeper, start, fifos, console),
        code => {
            let text = format!("{} exited with status {code}", start.runtime.display());
            log::error("runtime-failed", &serde_json::json!({ "error": text }));
            Ok(RUNTIME_FAILURE)
        }
    }
}

/// Takes hold of a process that has just been started, and keeps it.
fn become_keeper(
    keeper: &Path,
    start: Start,
    fifos: Fifos,
    console: Option<Console>,
) -> anyhow::Result<u8> {
    let pid = status::pid(&start.dir)?;
    let kept = take_hold(pid, start, fifos, console);
    let failed = kept.and_then(|kept| handover::hand_over(keeper, &kept));
    // Nobody could read, wait for or end a process that is not kept.
    let _ = kill(pid, Signal::SIGKILL);
    failed.map(|never| match never {})
}

/// Takes over what the process needs. All else is not inherited by the keeper: above all the
/// process's own FIFO ends, so that their readers see the end of file when the process and its
/// children are gone.
fn take_hold(
    pid: Pid,
    start: Start,
    fifos: Fifos,
    console: Option<Console>,
) -> anyhow::Result<Kept> {
    // The process JSON is read, and nothing is printed on stdout, which may be a pipe to somebody.
    let null =
        File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    let tree = start.tree.as_deref().map(tree::watch).transpose()?;
    let (mut keep_alive, mut terminal) = (None, None);
    if let Some(Streams { keep_alive: held, stdio: [_, stdout, _] }) = fifos.streams {
        keep_alive = Some(held);
        if let Some(console) = console {
            terminal = Some(Terminal::open(&start.dir, console.receive()?, stdout)?);
        }
    }
    Ok(Kept { pid, dir: start.dir, exit: fifos.exit, tree, keep_alive, terminal })
}
