//! `nstar`: streams an archive into or out of a running container, as one of its users.
//!
//! It enters the container's user and mount namespaces and from then on trusts nothing that it
//! finds: it starts no program, loads no library, and reads /etc/passwd with a parser of its own.
//! stdout belongs to the archive, so a failure is told on stderr, with exit code 1.

mod enter;
mod user;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use clap::Parser;
use guardian_contract::run::Answer;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::beneath::Beneath;
use crate::owner;
use crate::pack::{Packer, Purpose};
use crate::unpack::Unpacker;
use user::User;

const BUFFER: usize = 512 * 1024;
/// The largest size that every user may give a pipe (`/proc/sys/fs/pipe-max-size`).
const PIPE: usize = 1 << 20;
/// What a container's files get when they are streamed in.
const UMASK: u32 = 0o022;

/// Stream an archive from stdin into a container, or out of it to stdout
#[derive(Debug, Parser)]
#[command(name = "nstar", version)]
pub struct Cli {
    /// A tar program, as gdn passes one; not used
    #[arg(allow_hyphen_values = true)]
    tar: PathBuf,
    /// A process of the container
    pid: i32,
    /// A user of the container: a name, a number, or uid:gid
    #[arg(allow_hyphen_values = true)]
    user: String,
    /// A directory in the container; relative to the user's home
    #[arg(allow_hyphen_values = true)]
    directory: PathBuf,
    /// What in the directory is to be streamed out; without it, stdin is streamed in
    #[arg(allow_hyphen_values = true)]
    what: Option<OsString>,
}

/// Does what argv asks; a failure is told on stderr.
///
/// # Errors
/// None; the exit code tells.
pub fn run(argv: Result<Cli, clap::Error>) -> anyhow::Result<Answer> {
    let cli = match argv {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return Ok(Answer::Exit(u8::from(error.use_stderr())));
        }
    };
    match stream(&cli) {
        Ok(()) => Ok(Answer::Silent),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "nstar: {error:#}");
            Ok(Answer::Exit(1))
        }
    }
}

fn stream(cli: &Cli) -> anyhow::Result<()> {
    rustix::process::umask(Mode::from_raw_mode(UMASK));
    enter::namespaces_of(cli.pid)?;
    let user = user::find(&cli.user)?;
    match &cli.what {
        Some(what) => {
            user.become_it()?;
            stream_out(&absolute(&cli.directory, &user)?, what)
        }
        None => {
            let directory = make(&absolute(&cli.directory, &user)?, &user)?;
            user.become_it()?;
            stream_in(directory)
        }
    }
}

fn stream_in(directory: OwnedFd) -> anyhow::Result<()> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("open stdin")?;
    let _ = rustix::pipe::fcntl_setpipe_size(&stdin, PIPE);
    let input = BufReader::with_capacity(BUFFER, File::from(stdin));
    Unpacker::user(directory, UMASK).run(input)
}

fn stream_out(directory: &Path, what: &OsStr) -> anyhow::Result<()> {
    let is_one_name = Path::new(what).components().count() == 1;
    if !is_one_name || what == ".." || what.as_encoded_bytes().contains(&b'/') {
        bail!("'{}' is not a name in a directory", what.display());
    }
    let directory = open(CWD.as_fd(), directory)
        .with_context(|| format!("open container source {}", directory.display()))?;
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().context("open stdout")?;
    let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE);
    let output = BufWriter::with_capacity(BUFFER, File::from(stdout));
    let root = Beneath::without_links(directory);
    let (_, failed) = Packer::new(root, Purpose::User, output).run(what)?;
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}

fn absolute(directory: &Path, user: &User) -> anyhow::Result<PathBuf> {
    if directory.as_os_str().is_empty() {
        bail!("the directory in the container is missing");
    }
    Ok(Path::new("/").join(&user.home).join(directory))
}

/// Opens a directory, making what is missing of it. We act with the container's own rights but
/// with the user's filesystem ids, so what we make is the user's from the first moment: with a
/// chown afterwards, a process in the container could put something else in its place.
fn make(path: &Path, user: &User) -> anyhow::Result<OwnedFd> {
    let told = || format!("open container destination {}", path.display());
    owner::acting_as(user.owner(), || {
        let mut directory = open(CWD.as_fd(), Path::new("/")).with_context(told)?;
        for part in path.components() {
            let name = match part {
                Component::Normal(name) => name,
                Component::ParentDir => OsStr::new(".."),
                _ => continue,
            };
            directory = match open(directory.as_fd(), Path::new(name)) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
                        // Made by someone else meanwhile.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error).with_context(told),
                    }
                    open(directory.as_fd(), Path::new(name))
                }
                found => found,
            }
            .with_context(told)?;
        }
        Ok(directory)
    })
}

/// Symbolic links lead where they lead inside the container; those of /proc could lead out.
fn open(from: std::os::fd::BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(from, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}
