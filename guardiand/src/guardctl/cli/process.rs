//! The arguments that say what a process should be: of `run`, `exec` and `attach`.

use clap::Args;
use guardian_contract::garden::{BindMount, ImageRef, ProcessSpec, WaitFor};

use super::{ContainerArgs, parse};
use crate::process::{Input, Join};
use crate::terminal;

/// How the caller and the process are joined, and who the process is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Process")]
pub(crate) struct ProcessArgs {
    /// Pass standard input on; otherwise the program sees its end at once
    #[arg(short, long)]
    pub(crate) interactive: bool,

    /// Give the program a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,

    /// Who runs it: a name or number of the image, with :GROUP if need be [default: root]
    #[arg(short, long)]
    user: Option<String>,

    /// Where it runs, an absolute path [default: the user's home]
    #[arg(short = 'w', long, value_name = "DIR", value_parser = parse::absolute)]
    workdir: Option<String>,

    /// Its name [default: the server makes one up]
    #[arg(long)]
    id: Option<String>,

    /// Wait for all its descendants too, daemons among them
    #[arg(long)]
    tree: bool,

    /// Let the server keep the latest output, for whoever attaches, now or after the end
    #[arg(long)]
    keep_output: bool,

    /// Let the server relay input and output, although it is on this host: others can attach then,
    /// and the program does not notice when we leave
    #[arg(long)]
    relay: bool,
}

impl ProcessArgs {
    /// Returns the specification that the API takes.
    pub(crate) fn spec(&self, command: &[String], env: &[String]) -> ProcessSpec {
        let mut env = env.to_vec();
        if self.tty
            && !env.iter().any(|pair| pair.starts_with("TERM="))
            && let Ok(term) = std::env::var("TERM")
        {
            env.push(format!("TERM={term}"));
        }
        ProcessSpec {
            id: self.id.clone().unwrap_or_default(),
            path: command.first().cloned().unwrap_or_default(),
            args: command.iter().skip(1).cloned().collect(),
            env,
            dir: self.workdir.clone().unwrap_or_default(),
            user: self.user.clone().unwrap_or_default(),
            tty: self.tty.then(terminal::wanted),
            wait_for: if self.tree { WaitFor::Tree } else { WaitFor::Process },
            keep_output: self.keep_output,
            ..ProcessSpec::default()
        }
    }

    /// Returns how a process of our own is joined.
    pub(crate) fn join(&self) -> Join {
        let input = if self.interactive { Input::Forward } else { Input::Close };
        let passes = !(self.tty || self.keep_output || self.relay);
        Join { input, tty: self.tty, passes }
    }
}

/// `run`
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Remove the container afterwards; it is what happens anyway
    #[arg(long, conflicts_with = "keep")]
    rm: bool,

    /// Keep the container afterwards
    #[arg(long)]
    pub(crate) keep: bool,

    /// The process
    #[command(flatten)]
    pub(crate) process: ProcessArgs,

    /// The container
    #[command(flatten)]
    pub(crate) container: ContainerArgs,

    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// `exec`
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Start it, print its name, and leave it running
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    pub(crate) detach: bool,

    /// Its environment; K alone takes the caller's value
    #[arg(short, long = "env", value_name = "K=V", value_parser = parse::variable)]
    env: Vec<String>,

    /// Give it a root filesystem of its own, made of this image
    #[arg(long, value_name = "URI")]
    image: Option<String>,

    /// With --image: show a file or directory of the server's host inside; writable unless :ro
    #[arg(short = 'v', long = "volume", value_name = "SRC:DST[:ro|rw]", value_parser = parse::bind_mount, requires = "image")]
    mounts: Vec<BindMount>,

    /// The process
    #[command(flatten)]
    pub(crate) process: ProcessArgs,

    /// The container
    pub(crate) handle: String,

    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

impl ExecArgs {
    /// Returns the specification that the API takes.
    pub(crate) fn spec(&self) -> ProcessSpec {
        let uri = self.image.clone().unwrap_or_default();
        ProcessSpec {
            image: ImageRef { uri, ..ImageRef::default() },
            bind_mounts: self.mounts.clone(),
            ..self.process.spec(&self.command, &self.env)
        }
    }
}

/// `attach`
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Pass standard input on; otherwise the program's input stays as it is
    #[arg(short, long)]
    interactive: bool,

    /// The program has a terminal: make ours raw, and tell it our size
    #[arg(short, long)]
    tty: bool,

    /// The container
    pub(crate) handle: String,

    /// The process, as `ps` and `inspect` name it
    pub(crate) process: String,
}

impl AttachArgs {
    /// Returns how somebody else's process is joined.
    pub(crate) fn join(&self) -> Join {
        let input = if self.interactive { Input::Forward } else { Input::Leave };
        Join { input, tty: self.tty, passes: !self.tty }
    }
}
