//! The command line: gdn's argv, with its single-dash long flags, and the verbs for a person.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use guardian_contract::depot::Handle;
use guardian_contract::process::ProcessDir;
use guardian_contract::run::Answer;

use crate::keep::{Start, Task};
use crate::{attach, control, detach, keep, relay};

/// The exit code of dadoo's own failures (gdn's; clap uses it for wrong usage too).
pub(crate) const OWN_FAILURE: u8 = 2;

/// gdn writes these with a single dash, as Go's flag package has it.
const VALUE_FLAGS: [&str; 3] = ["runc-root", "socket-dir-path", "tree"];
const BARE_FLAGS: [&str; 2] = ["tty", "pass-stdio"];

const ABOUT: &str = "\
Keep one process of a container: start it through the OCI runtime, hold its FIFOs open, and \
write its exit code";

const DETAILS: &str = "\
The process directory holds the FIFOs stdin, stdout, stderr, winsz and exit, and the files pidfile \
and exitcode. dadoo makes it if it is missing. A process starts when somebody has opened its \
FIFOs, so that no output is lost and its standard input does not end at once.

By hand, with no daemon:
  dadoo --detach --runc-root /run/runc exec runc /tmp/p1 web-1 < process.json
  dadoo attach /tmp/p1

A server hands dadoo three write ends of pipes: descriptor 3 gets one byte, the runtime's exit \
status; 4 the runtime's log; 5 a zero byte once the FIFOs are open. By hand there are none, and \
the runtime's log is DIR/runtime.log. A process that is passed its streams needs nobody to open FIFOs:
  dadoo --pass-stdio exec runc /tmp/p2 web-1 < process.json 6<data 7>&1 8>&2

Exit codes: 2 dadoo failed, 3 the runtime failed, otherwise the process's own, or 128 + n if \
signal n killed it.";

/// dadoo's argv.
#[derive(Debug, Parser)]
#[command(name = "dadoo", version, about = ABOUT, after_help = DETAILS)]
pub(crate) struct Cli {
    /// Where the runtime keeps its state; the runtime's own default if not given
    #[arg(long, value_name = "DIR")]
    runc_root: Option<PathBuf>,
    /// Give the process a terminal
    #[arg(long)]
    tty: bool,
    /// Where the console socket is made, for a moment; at most 80 characters
    #[arg(long, value_name = "DIR")]
    socket_dir_path: Option<PathBuf>,
    /// Give the process descriptors 6, 7 and 8 of ours as its stdin, stdout and stderr, instead of
    /// FIFOs
    #[arg(long, conflicts_with_all = ["tty", "detach"])]
    pass_stdio: bool,
    /// Count the process as running as long as anything runs in this cgroup directory: itself and
    /// all its descendants, for `exec` starts it there, where it must be a child of the container's
    #[arg(long, value_name = "CGROUP")]
    tree: Option<PathBuf>,
    /// Return as soon as the FIFOs can be attached to, and keep the process in the background;
    /// problems are then written to DIR/dadoo.log
    #[arg(long)]
    detach: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a process in a container; stdin is its OCI process JSON
    Exec(Target),
    /// Run a container of its own whose bundle is the process directory
    Run(Target),
    /// Connect stdin, stdout and stderr to the process, and exit as it does
    Attach { dir: PathBuf },
    /// Wait for the process, and exit as it does
    Wait { dir: PathBuf },
    /// Send a signal to the process, or with --tree to all of it: TERM, KILL, any other name, or a number
    Signal { dir: PathBuf, signal: String },
    /// Resize the process's terminal; 0 means 80 columns, 24 rows
    Resize { dir: PathBuf, columns: u16, rows: u16 },
    /// Copy stdin to descriptor 3, 4 to stdout and 5 to stderr, until 4 and 5 have ended
    Relay,
}

#[derive(Debug, clap::Args)]
struct Target {
    /// The OCI runtime, runc or crun
    runtime: PathBuf,
    /// The process directory
    dir: PathBuf,
    /// The container; for `run`, the one to be made
    handle: Handle,
}

/// Parses this program's argv; prints help or what is wrong and exits if there is nothing to do.
pub(crate) fn parse() -> Cli {
    Cli::parse_from(double_dashed(std::env::args_os()))
}

/// Does what `cli` says.
///
/// # Errors
/// dadoo's own failures; the exit code of a kept process is an answer.
pub(crate) fn dispatch(cli: Cli) -> anyhow::Result<Answer> {
    let (task, target) = match cli.verb {
        Verb::Exec(target) => (Task::Exec, target),
        Verb::Run(target) => (Task::Run, target),
        Verb::Attach { dir } => return attach::attach(&ProcessDir::at(dir)).map(Answer::Exit),
        Verb::Wait { dir } => return control::wait(&ProcessDir::at(dir)).map(Answer::Exit),
        Verb::Signal { dir, signal } => {
            return control::signal(&ProcessDir::at(dir), &signal).map(|()| Answer::Silent);
        }
        Verb::Relay => return relay::relay().map(|()| Answer::Silent),
        Verb::Resize { dir, columns, rows } => {
            return control::resize(&ProcessDir::at(dir), columns, rows).map(|()| Answer::Silent);
        }
    };
    let dir = ProcessDir::at(std::path::absolute(target.dir)?);
    if cli.detach {
        return detach::detach(&dir, double_dashed(std::env::args_os())).map(|()| Answer::Silent);
    }
    let start = Start {
        task,
        runtime: target.runtime,
        root: cli.runc_root,
        dir,
        handle: target.handle,
        has_terminal: cli.tty,
        passes_stdio: cli.pass_stdio,
        tree: cli.tree.map(std::path::absolute).transpose()?,
        socket_base: cli.socket_dir_path,
    };
    keep::keep(start).map(Answer::Exit)
}

/// Returns argv with gdn's single-dash long flags doubled. Nothing behind the verb is touched.
fn double_dashed(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut doubled: Vec<OsString> = args.next().into_iter().collect();
    while let Some(arg) = args.next() {
        let flag = arg.to_str().map(|text| text.trim_start_matches('-'));
        let is_flag = arg.as_encoded_bytes().starts_with(b"-");
        let name = flag.map(|flag| flag.split_once('=').map_or(flag, |(name, _)| name));
        match (flag, name) {
            (Some(flag), Some(name)) if is_flag && VALUE_FLAGS.contains(&name) => {
                doubled.push(format!("--{flag}").into());
                if !flag.contains('=') {
                    doubled.extend(args.next());
                }
            }
            (Some(flag), Some(name)) if is_flag && BARE_FLAGS.contains(&name) => {
                doubled.push(format!("--{flag}").into());
            }
            _ => doubled.push(arg),
        }
        if !is_flag {
            doubled.extend(args);
            break;
        }
    }
    doubled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(double_dashed(line.split(' ').map(OsString::from)))
    }

    #[test]
    fn both_spellings_of_the_flags_mean_the_same() {
        for line in [
            "dadoo -runc-root /r -tty -socket-dir-path /s exec runc /p h",
            "dadoo --runc-root /r --tty --socket-dir-path /s exec runc /p h",
            "dadoo -runc-root=/r -tty -socket-dir-path=/s exec runc /p h",
        ] {
            let cli = parsed(line).unwrap();
            assert_eq!(cli.runc_root.as_deref(), Some("/r".as_ref()), "{line}");
            assert_eq!(cli.socket_dir_path.as_deref(), Some("/s".as_ref()), "{line}");
            assert!(cli.tty && !cli.detach, "{line}");
            assert!(matches!(cli.verb, Verb::Exec(_)), "{line}");
        }
    }

    #[test]
    fn what_follows_the_verb_is_left_alone() {
        let args = ["dadoo", "-runc-root", "-tty", "run", "-tty"].map(OsString::from);
        let doubled = double_dashed(args);
        assert_eq!(doubled, ["dadoo", "--runc-root", "-tty", "run", "-tty"].map(OsString::from));
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        assert!(parsed("dadoo exec runc /p").is_err());
        assert!(parsed("dadoo exec runc /p bad/handle").is_err());
    }
}
