//! `ocitar`: a directory → an OCI layer archive on stdout, and a layer archive on stdin → a
//! directory.
//!
//! stdout belongs to the archive, so a failure is told on stderr, and so are the digests.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use flate2::Compression;
use flate2::write::GzEncoder;
use guardian_contract::file::replace_json;
use guardian_contract::run::Answer;
use serde::Serialize;

use crate::beneath::Beneath;
use crate::digest::{self, Hashed};
use crate::layer;
use crate::pack::{Marks, Packer, Purpose};
use crate::unpack::Unpacker;

const BUFFER: usize = 256 * 1024;

/// Make and take apart layers of OCI images
#[derive(Debug, Parser)]
#[command(name = "ocitar", version)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write a directory to stdout as a layer; digests go to stderr
    Create {
        /// The directory is the upper one of an overlay, and the layer what differs from those below. Any
        /// directory is looked at for overlay's marks, so this says no more than that they are expected
        #[arg(long)]
        diff: bool,
        /// Compress the layer
        #[arg(long)]
        gzip: bool,
        /// Write the digests to this file instead of stderr
        #[arg(long, value_name = "FILE")]
        digest_file: Option<PathBuf>,
        /// The directory is overlay's upper one, mounted with `userxattr`: its marks are user.overlay.*
        /// and not trusted.overlay.*
        #[arg(long)]
        userxattr: bool,
        /// What becomes the layer's root; may be the upper directory of an overlay
        directory: PathBuf,
    },
    /// Unpack a layer from stdin, plain, gzip or zstd, with overlay's whiteouts
    Extract {
        /// What is to hold the layer; made when it is missing
        directory: PathBuf,
    },
}

/// What is told of a layer that was made.
#[derive(Debug, Serialize)]
pub(crate) struct Digests {
    /// Of what was written.
    pub(crate) digest: String,
    /// Of the archive before compression.
    pub(crate) diff_id: String,
    /// Bytes written.
    pub(crate) size: u64,
}

/// Runs the verb; a failure is told on stderr.
///
/// # Errors
/// None; the exit code tells.
pub fn run(cli: Cli) -> anyhow::Result<Answer> {
    let done = match cli.verb {
        Verb::Create { diff: _, gzip, digest_file, userxattr, directory } => {
            let marks = if userxattr { Marks::User } else { Marks::Trusted };
            create(&directory, marks, gzip)
                .and_then(|digests| tell(&digests, digest_file.as_deref()))
        }
        Verb::Extract { directory } => extract(&directory),
    };
    match done {
        Ok(()) => Ok(Answer::Silent),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ocitar: {error:#}");
            Ok(Answer::Exit(1))
        }
    }
}

fn create(directory: &Path, marks: Marks, is_packed: bool) -> anyhow::Result<Digests> {
    let root = layer::open_directory(directory)?;
    let stdout = File::from(std::io::stdout().as_fd().try_clone_to_owned().context("open stdout")?);
    write_layer(root, marks, stdout, is_packed)
}

/// Writes a directory as a layer.
///
/// # Errors
/// When something in it can't be read, or stands for something elsewhere; or for the output's sake.
pub(crate) fn write_layer(
    root: OwnedFd,
    marks: Marks,
    output: File,
    is_packed: bool,
) -> anyhow::Result<Digests> {
    let root = Beneath::without_links(root);
    write_archive(output, is_packed, |output| {
        let (_, failed) = Packer::new(root, Purpose::Layer(marks), output).run(".".as_ref())?;
        if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
    })
}

/// Writes an archive, and returns what it and its packed form are called.
///
/// # Errors
/// Those of `write`, or the output's.
pub(crate) fn write_archive(
    output: File,
    is_packed: bool,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<Digests> {
    let output = BufWriter::with_capacity(BUFFER, Hashed::new(output));
    let (output, diff_id) = match is_packed {
        true => {
            let (encoder, diff_id) = hashed(GzEncoder::new(output, Compression::default()), write)?;
            (encoder.finish().context("write layer")?, diff_id)
        }
        false => hashed(output, write)?,
    };
    let output = output.into_inner().map_err(|error| error.into_error()).context("write layer")?;
    let (digest, size) = output.finish();
    Ok(Digests { digest: digest::named(&digest), diff_id: digest::named(&diff_id), size })
}

fn hashed<W: Write>(
    output: W,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<(W, String)> {
    let mut output = BufWriter::with_capacity(BUFFER, Hashed::new(output));
    write(&mut output)?;
    let output = output.into_inner().map_err(|error| error.into_error()).context("write layer")?;
    let (output, diff_id, _) = output.into_parts();
    Ok((output, diff_id))
}

fn tell(digests: &Digests, file: Option<&Path>) -> anyhow::Result<()> {
    match file {
        Some(file) => replace_json(file, digests),
        None => {
            let text = serde_json::to_string(digests)?;
            writeln!(std::io::stderr(), "{text}").context("write digests")
        }
    }
}

fn extract(directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("make directory {}", directory.display()))?;
    let root = layer::open_directory(directory)?;
    let stdin = File::from(std::io::stdin().as_fd().try_clone_to_owned().context("open stdin")?);
    layer::unpack_stream(stdin, Unpacker::layer(root, &[], u64::MAX))
}
