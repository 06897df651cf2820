//! What can be typed.

mod container;
mod parse;
mod process;
mod pull;
mod rule;
mod update;
mod watch;

use clap::{Args, Parser, Subcommand};

pub(crate) use container::{ContainerArgs, CreateArgs};
pub(crate) use parse::Place;
pub(crate) use process::{AttachArgs, ExecArgs, RunArgs};
pub(crate) use pull::PullArgs;
pub(crate) use rule::NetOutArgs;
pub(crate) use update::UpdateArgs;
pub(crate) use watch::{EventsArgs, StatsArgs};

use crate::target::{self, Target};

/// Make, enter and remove containers of a guardiand, or of any Garden server
#[derive(Debug, Parser)]
#[command(
    name = "guardctl",
    version,
    after_help = "\
Examples:
  guardctl run --image oci:///images/busybox:latest -- echo hello
  guardctl run -it -- sh                        the server's default image; ctrl-p ctrl-q leaves it running
  guardctl create --handle web --memory 64M -v /srv/web:/www:ro
  guardctl exec -it web -- sh
  tar c . | guardctl cp-in - web:/app
  guardctl --json ps | jq -r '.[].handle'

Exit codes:
  run, exec and attach end with the process's own code (128 + n when signal n killed it),
  127 when the program is not in the container, 125 when guardctl or the server failed.
  All else: 0 done, 1 failed, 2 wrong usage."
)]
pub(crate) struct Cli {
    /// Where the server listens: unix:PATH, /PATH or HOST:PORT
    /// [default: $GUARDIAN_TARGET, or unix:/tmp/garden.sock]
    #[arg(long, global = true, value_name = "TARGET")]
    target: Option<Target>,

    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

impl Cli {
    /// Returns the target: the flag's, the environment's, or the default.
    ///
    /// # Errors
    /// When the environment's is none.
    pub(crate) fn target(&self) -> anyhow::Result<Target> {
        if let Some(target) = &self.target {
            return Ok(target.clone());
        }
        let text = std::env::var("GUARDIAN_TARGET").ok().filter(|text| !text.is_empty());
        let text = text.as_deref().unwrap_or(target::DEFAULT);
        text.parse().map_err(|error| anyhow::anyhow!("GUARDIAN_TARGET '{text}': {error}"))
    }
}

/// One verb with its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a container and print its handle
    Create(CreateArgs),
    /// Create a container, run one program in it, remove it, and end with the program's exit code
    Run(RunArgs),
    /// Run a program in a container
    Exec(ExecArgs),
    /// Join a process that runs; ends with its exit code
    Attach(AttachArgs),
    /// List containers
    Ps(PsArgs),
    /// Print all the server knows about a container, as JSON
    Inspect(HandleArgs),
    /// End all processes of a container, but keep the container
    Stop(StopArgs),
    /// Remove containers
    Rm(RmArgs),
    /// Change limits of a container, and print those that then hold
    Update(UpdateArgs),
    /// Read and change a container's properties
    Properties(PropertiesArgs),
    /// Copy files into a container
    CpIn(CpInArgs),
    /// Copy files out of a container
    CpOut(CpOutArgs),
    /// Let a port of the host lead to a port of a container
    NetIn(NetInArgs),
    /// Let a container reach addresses outside
    NetOut(NetOutArgs),
    /// Print what a container uses, or a process that has its own image or is waited for with --tree
    Metrics(HandleArgs),
    /// Print what happens from now on, one JSON object per line
    Events(EventsArgs),
    /// Print what containers use, again and again
    Stats(StatsArgs),
    /// Print the processes in a container
    Top(HandleArgs),
    /// Get an image into the server's store before a container asks for it
    Pull(PullArgs),
    /// Print what the server can hold
    Capacity,
    /// Check that the server answers
    Ping,
}

/// Verbs that take a handle and nothing else.
#[derive(Debug, Args)]
pub(crate) struct HandleArgs {
    /// The container
    pub(crate) handle: String,
}

/// `ps`
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Only containers with this property; may be given several times
    #[arg(long = "property", value_name = "K=V", value_parser = parse::pair)]
    pub(crate) filters: Vec<(String, String)>,
}

/// `stop`
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Kill at once instead of asking first (SIGTERM, then SIGKILL)
    #[arg(long)]
    pub(crate) kill: bool,
    /// The container
    pub(crate) handle: String,
}

/// `rm`
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The containers
    #[arg(required = true, value_name = "HANDLE")]
    pub(crate) handles: Vec<String>,
}

/// `properties`
#[derive(Debug, Args)]
pub(crate) struct PropertiesArgs {
    /// The container
    pub(crate) handle: String,
    /// What to do with them; `list` when nothing is said
    #[command(subcommand)]
    pub(crate) action: Option<PropertyAction>,
}

/// What `properties` does.
#[derive(Debug, Subcommand)]
pub(crate) enum PropertyAction {
    /// Print all
    List,
    /// Print one value
    Get {
        /// Its name
        key: String,
    },
    /// Make or change one
    Set {
        /// Its name
        key: String,
        /// Its new value
        value: String,
    },
    /// Remove one; an absent one is no error
    Rm {
        /// Its name
        key: String,
    },
}

/// `cp-in`
#[derive(Debug, Args)]
pub(crate) struct CpInArgs {
    /// Whose files they become; decides what a relative DIR is relative to
    #[arg(short, long, default_value = "root")]
    pub(crate) user: String,
    /// A file or directory; with a trailing slash the directory's contents; - for a tar stream
    pub(crate) source: String,
    /// The directory to put it in; made when missing
    #[arg(value_name = "HANDLE:DIR")]
    pub(crate) destination: Place,
}

/// `cp-out`
#[derive(Debug, Args)]
pub(crate) struct CpOutArgs {
    /// Who reads; decides what a relative PATH is relative to
    #[arg(short, long, default_value = "root")]
    pub(crate) user: String,
    /// A file or directory; with a trailing slash the directory's contents
    #[arg(value_name = "HANDLE:PATH")]
    pub(crate) source: Place,
    /// The directory to put it in, made when missing; - for a tar stream
    #[arg(value_name = "DIR")]
    pub(crate) destination: String,
}

/// `net-in`
#[derive(Debug, Args)]
pub(crate) struct NetInArgs {
    /// The container
    pub(crate) handle: String,
    /// The host's port; 0 lets the server choose
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub(crate) host_port: u32,
    /// The container's port; 0 means the same as the host's
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub(crate) container_port: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn programs_keep_their_own_flags() {
        let cli = Cli::try_parse_from(["guardctl", "exec", "-it", "h", "--", "ls", "-l", "--json"]);
        let Verb::Exec(args) = cli.unwrap().verb else { panic!("not exec") };
        assert_eq!(args.command, ["ls", "-l", "--json"]);
        assert!(args.process.interactive && args.process.tty);
        let cli = Cli::try_parse_from(["guardctl", "run", "--image", "x", "--", "sh", "-c", "-e"]);
        let Verb::Run(args) = cli.unwrap().verb else { panic!("not run") };
        assert_eq!(args.command, ["sh", "-c", "-e"]);
    }

    #[test]
    fn properties_list_by_default() {
        let cli = Cli::try_parse_from(["guardctl", "properties", "h"]).unwrap();
        let Verb::Properties(args) = cli.verb else { panic!("not properties") };
        assert!(args.action.is_none());
        assert!(Cli::try_parse_from(["guardctl", "properties", "h", "set", "k", "v"]).is_ok());
    }
}
