//! One layer of an image: made in the store once, however many ask for it at the same time.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use flate2::bufread::MultiGzDecoder;
use guardian_contract::fault::Fault;
use guardian_contract::file::{private_dir, read_json, replace_json};
use guardian_contract::log;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::ahead::Ahead;
use crate::beneath::Beneath;
use crate::digest::Hashed;
use crate::recipe::Recorder;
use crate::store::Store;
use crate::unpack::Unpacker;
use crate::zstd::{self, Frames};
use crate::{full, remove, usage};

/// Large enough that system calls don't matter beside copying.
const BUFFER: usize = 256 * 1024;

/// How a gzip file begins (RFC 1952).
const GZIP: &[u8] = b"\x1f\x8b";

/// A layer and where to get it.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// What it is called in the store: it names the layer and all below it.
    pub(crate) chain_id: String,
    /// The archive.
    pub(crate) blob: Blob,
    /// The directory of the layers below that the archive is unpacked in; mostly the root.
    pub(crate) base: PathBuf,
}

/// A layer's archive.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    /// The file.
    pub(crate) path: PathBuf,
    /// SHA-256 of the file, if it is known.
    pub(crate) digest: Option<String>,
    /// Its size.
    pub(crate) size: u64,
    /// SHA-256 of the archive in it, if it is known.
    pub(crate) diff_id: Option<String>,
    /// How the archive is packed.
    pub(crate) packing: Packing,
    /// Where else than in the image's registry it can be had.
    pub(crate) urls: Vec<String>,
}

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// As its first bytes tell.
    Guess,
}

/// What we know of a layer in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Meta {
    /// Bytes it takes on disk.
    pub(crate) size: u64,
    /// Files and everything else in it that has an inode.
    pub(crate) inodes: u64,
    /// SHA-256 of the archive that it came in, before compression.
    pub(crate) diff_id: String,
}

impl Layer {
    /// Returns what is known of the layer if the store has it.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(crate) fn find(&self, store: &Store) -> anyhow::Result<Option<Meta>> {
        match store.layer(&self.chain_id).is_dir() {
            true => read_json(&store.meta(&self.chain_id)),
            false => Ok(None),
        }
    }

    /// Makes sure that the store has the layer, which lies over `below` (bottommost first), and
    /// takes at most `room` bytes.
    ///
    /// # Errors
    /// When the archive is not what it says, or can't be unpacked; nothing of it stays.
    pub(crate) fn ensure(&self, store: &Store, below: &[Layer], room: u64) -> anyhow::Result<Meta> {
        if let Some(meta) = self.find(store)? {
            return Ok(meta);
        }
        let _lock = store.lock_layer(&self.chain_id)?;
        // Whoever held the lock may have made it.
        if let Some(meta) = self.find(store)? {
            return Ok(meta);
        }
        let partial = open_directory(&store.partial())?;
        let name = self.chain_id.as_str();
        // What a dead process left of it.
        remove::tree(&partial, name.as_ref())?;
        let made = self.make(store, below, room);
        if made.is_err() {
            remove::tree(&partial, name.as_ref())?;
        }
        made.map_err(|error| full::explain(store, error))
    }

    fn make(&self, store: &Store, below: &[Layer], room: u64) -> anyhow::Result<Meta> {
        let path = store.partial().join(&self.chain_id);
        private_dir(&path)?;
        let root = open_directory(&path)?;
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755)).context("set mode of the root")?;
        let mut lower = Vec::new();
        for layer in below.iter().rev() {
            lower.push(Beneath::without_links(open_directory(&store.layer(&layer.chain_id))?));
        }
        let mut unpacker = Unpacker::layer(root.try_clone()?, &lower, room);
        unpacker.adopt_root()?;
        unpacker.move_to(&self.base)?;
        let recipe = store.recipe(&self.chain_id);
        let is_recorded = Cell::new(false);
        let file = File::create(&recipe).context("make recipe of layer")?;
        unpacker.record(Recorder::new(file), &is_recorded);
        let diff_id = self.blob.unpack(unpacker);
        if diff_id.is_err() || !is_recorded.get() {
            std::fs::remove_file(&recipe).context("remove recipe of layer")?;
        }
        let (diff_id, usage) = (diff_id?, usage::of(&root)?);
        let meta = Meta { size: usage.bytes, inodes: usage.inodes, diff_id };
        replace_json(&store.meta(&self.chain_id), &meta)?;
        // After a crash a layer must be whole or absent: all of it is on disk before it gets its
        // name (rename(2) alone promises no order).
        rustix::fs::syncfs(&root).context("sync layer")?;
        std::fs::rename(&path, store.layer(&self.chain_id)).context("name layer")?;
        log::info("layer-unpacked", &serde_json::json!({"chain_id": self.chain_id}));
        Ok(meta)
    }
}

impl Packing {
    /// Returns how the archive is packed, after a look at its first bytes if need be.
    fn or_guess(self, packed: &mut impl BufRead) -> anyhow::Result<Self> {
        if self != Self::Guess {
            return Ok(self);
        }
        let start = packed.fill_buf().context("read image")?;
        Ok(match start {
            _ if start.starts_with(GZIP) => Self::Gzip,
            _ if start.starts_with(zstd::MAGIC) => Self::Zstd,
            _ => Self::None,
        })
    }
}

impl Blob {
    /// Unpacks the archive, checks on the way that it is the one expected, and returns its diff id.
    fn unpack(&self, unpacker: Unpacker<'_>) -> anyhow::Result<String> {
        let file =
            File::open(&self.path).with_context(|| format!("open {}", self.path.display()))?;
        let mut packed = BufReader::with_capacity(BUFFER, Hashed::new(file));
        let unpacked = self.unpack_from(&mut packed, unpacker);
        // Read to its end even after a failure: that it is another file is the better reason.
        std::io::copy(&mut packed, &mut std::io::sink()).context("read image")?;
        let (digest, size) = packed.into_inner().finish();
        self.check_digest(&digest, size)?;
        let diff_id = unpacked?.unwrap_or(digest);
        compare("diffID", self.diff_id.as_deref(), &diff_id)?;
        Ok(diff_id)
    }

    /// Returns the diff id if the archive is packed; if not, it is the digest.
    fn unpack_from(
        &self,
        packed: &mut (impl BufRead + Send),
        unpacker: Unpacker<'_>,
    ) -> anyhow::Result<Option<String>> {
        match self.packing.or_guess(packed)? {
            Packing::Gzip => unpack_hashed(MultiGzDecoder::new(packed), unpacker).map(Some),
            Packing::Zstd => unpack_hashed(Frames::new(packed), unpacker).map(Some),
            Packing::None | Packing::Guess => unpacker.run(packed).map(|()| None),
        }
    }

    fn check_digest(&self, actual: &str, size: u64) -> anyhow::Result<()> {
        if size != self.size {
            bail!(size_mismatch(self.size, size));
        }
        compare("layerID", self.digest.as_deref(), actual)
    }
}

/// The text is grootfs'.
pub(crate) fn size_mismatch(expected: u64, actual: u64) -> Fault {
    Fault::invalid(format!(
        "layer size is different from the value in the manifest; expected: {expected}, actual {actual}"
    ))
}

fn compare(what: &str, expected: Option<&str>, actual: &str) -> anyhow::Result<()> {
    match expected {
        Some(expected) if expected != actual => bail!(Fault::invalid(format!(
            "{what} digest mismatch: expected: {expected}, actual: {actual}"
        ))),
        _ => Ok(()),
    }
}

/// Opens a directory of the store.
pub(crate) fn open_directory(path: &Path) -> anyhow::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))
}

/// Unpacks a layer from a stream that is packed as its first bytes tell; for callers that have no
/// store.
///
/// # Errors
/// When the archive is broken or can't be unpacked.
pub(crate) fn unpack_stream(input: impl Read + Send, unpacker: Unpacker<'_>) -> anyhow::Result<()> {
    let mut packed = BufReader::with_capacity(BUFFER, input);
    match Packing::Guess.or_guess(&mut packed)? {
        Packing::Gzip => unpack_hashed(MultiGzDecoder::new(packed), unpacker).map(drop),
        Packing::Zstd => unpack_hashed(Frames::new(packed), unpacker).map(drop),
        Packing::None | Packing::Guess => unpacker.run(packed),
    }
}

/// Unpacks what comes out of a decoder and returns its SHA-256.
fn unpack_hashed(decoder: impl Read + Send, unpacker: Unpacker<'_>) -> anyhow::Result<String> {
    std::thread::scope(|scope| {
        let (archive, source) = Ahead::start(scope, Hashed::new(decoder))?;
        unpacker.run(archive)?;
        Ok(source.finish()?.finish().0)
    })
}
