//! What the store holds, and which layers are used by which images.
//!
//! There are no counters that could go wrong: an image says which layers it lies on before anybody
//! looks for the first of them ([`Image::rely_on`]), and it says so as long as it exists. A layer
//! that no image names is unused.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::file::read_json;

use crate::image::{Image, Info, MOMENT};
use crate::layer::Meta;
use crate::store::Store;
use crate::{held, usage};

/// All layers and all images, each sorted by name.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// The layers that are whole.
    pub(crate) layers: Vec<StoredLayer>,
    /// The images, also those that are being made or were never made whole.
    pub(crate) images: Vec<StoredImage>,
}

/// A layer of the store.
#[derive(Debug)]
pub(crate) struct StoredLayer {
    pub(crate) chain_id: String,
    /// Bytes it takes on disk, as measured when it was unpacked; layers don't change.
    pub(crate) bytes: u64,
    /// How many images lie on it.
    pub(crate) images: usize,
}

/// An image of the store.
#[derive(Debug)]
pub(crate) struct StoredImage {
    pub(crate) id: Handle,
    /// `None` for one that is not whole.
    pub(crate) info: Option<Info>,
}

impl Inventory {
    /// Looks at the whole store.
    ///
    /// # Errors
    /// When something can't be read: who does not know which layers an image needs must not take
    /// one for unused.
    pub(crate) fn take(store: &Store) -> anyhow::Result<Self> {
        let mut users: HashMap<String, usize> = HashMap::new();
        let mut images = Vec::new();
        for name in names(&store.images())? {
            let id: Handle = name.to_string_lossy().parse().context("read the store")?;
            let image = Image::peek(store, &id);
            for chain_id in image.layers()? {
                *users.entry(chain_id).or_default() += 1;
            }
            images.push(StoredImage { info: image.info()?, id });
        }
        let mut layers = Vec::new();
        for name in names(&store.layers())? {
            let chain_id = name.to_string_lossy().into_owned();
            let bytes = match read_json::<Meta>(&store.meta(&chain_id))? {
                Some(meta) => meta.size,
                None => match held::open(&store.layer(&chain_id))? {
                    Some(directory) => usage::of(&directory.into())?.bytes,
                    // Collected while we look.
                    None => continue,
                },
            };
            let images = users.get(&chain_id).copied().unwrap_or_default();
            layers.push(StoredLayer { chain_id, bytes, images });
        }
        Ok(Self { layers, images })
    }

    /// Looks at the whole store, but first waits for [`MOMENT`] if an image is unfinished: before that
    /// nobody can tell a maker who has just died from one who has just begun.
    ///
    /// # Errors
    /// As [`Inventory::take`].
    pub(crate) fn take_settled(store: &Store) -> anyhow::Result<Self> {
        let inventory = Self::take(store)?;
        let is_unfinished = |info: &Option<Info>| info.as_ref().is_none_or(|it| it.is_changing);
        if !inventory.images.iter().any(|image| is_unfinished(&image.info)) {
            return Ok(inventory);
        }
        std::thread::sleep(MOMENT);
        Self::take(store)
    }

    /// The layers that no image lies on.
    pub(crate) fn unused(&self) -> impl Iterator<Item = &StoredLayer> {
        self.layers.iter().filter(|layer| layer.images == 0)
    }

    /// Bytes of all layers.
    pub(crate) fn layer_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }

    /// Bytes that all images together may write, as far as they are limited.
    pub(crate) fn committed_bytes(&self) -> u64 {
        let limits = self.images.iter().flat_map(|image| &image.info).map(|info| info.limit_bytes);
        limits.fold(0, u64::saturating_add)
    }
}

/// The sorted names in a directory; a missing one is empty.
///
/// # Errors
/// When it can't be read.
pub(crate) fn names(directory: &Path) -> anyhow::Result<Vec<OsString>> {
    let told = || format!("read {}", directory.display());
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(told)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.with_context(told)?.file_name());
    }
    names.sort();
    Ok(names)
}
