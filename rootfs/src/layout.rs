//! Reads an OCI image layout: a directory with the documents and layers of images.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use guardian_contract::fault::Fault;
use oci_spec::image::{Descriptor, ImageIndex};

use crate::digest;
use crate::layer::{Blob, Layer};
use crate::manifest::{self, Documents, MAX_DOCUMENT};
use crate::registry;
use crate::source::Image;
use crate::store::Store;

/// Where a tag stands in an index.
const TAG: &str = "org.opencontainers.image.ref.name";

/// Returns the image with this tag; without a tag, the only one or the one for this machine. A layer
/// that the layout does not have is asked for where its descriptor says.
///
/// # Errors
/// When there is no such image, or it is not what it says.
pub(crate) fn image(
    directory: &Path,
    tag: Option<&str>,
    store: &Store,
    is_checked: bool,
) -> anyhow::Result<Image> {
    let layout = Layout::at(directory)?;
    let top = manifest::read(&layout, &layout.find(tag)?)?;
    let manifest = manifest::manifest(&layout, top)?;
    let mut image = manifest::image_of(&layout, &manifest)?;
    for (layer, descriptor) in image.layers.iter_mut().zip(manifest.layers()) {
        let urls = descriptor.urls().clone().unwrap_or_default();
        if !urls.is_empty() && !layer.blob.path.exists() {
            send_for(&mut layer.blob, urls, store)?;
        }
        if !is_checked {
            take_as_it_is(layer)?;
        }
        registry::measure(layer, store)?;
    }
    Ok(image)
}

fn send_for(blob: &mut Blob, urls: Vec<String>, store: &Store) -> anyhow::Result<()> {
    let digest = blob.digest.as_deref().context("layer without a digest")?;
    blob.path = store.blob(digest);
    blob.urls = urls;
    Ok(())
}

/// The layout's word does not count, so its layer must never be taken for one that was checked: its
/// name in the store is another. What comes from elsewhere is still checked against its digest.
fn take_as_it_is(layer: &mut Layer) -> anyhow::Result<()> {
    layer.chain_id = digest::of(format!("unchecked {}", layer.chain_id));
    layer.blob.diff_id = None;
    if layer.blob.urls.is_empty() {
        let path = &layer.blob.path;
        let told = || format!("look at {}", path.display());
        layer.blob.size = std::fs::metadata(path).with_context(told)?.len();
        layer.blob.digest = None;
    }
    Ok(())
}

fn tagged<'a>(index: &'a ImageIndex, tag: &str) -> anyhow::Result<&'a Descriptor> {
    let has_tag = |descriptor: &&Descriptor| {
        descriptor.annotations().as_ref().and_then(|all| all.get(TAG)).is_some_and(|at| at == tag)
    };
    let found = index.manifests().iter().find(has_tag);
    found.ok_or_else(|| Fault::not_found(format!("the image has no tag '{tag}'")).into())
}

/// A layout's directory.
#[derive(Debug)]
pub(crate) struct Layout<'a>(&'a Path);

impl<'a> Layout<'a> {
    /// Returns the layout in `directory`.
    ///
    /// # Errors
    /// In grootfs' words when there is none.
    pub(crate) fn at(directory: &'a Path) -> anyhow::Result<Self> {
        match directory.is_dir() {
            true => Ok(Self(directory)),
            false => {
                let text = format!("Image source doesn't exist: {}", directory.display());
                Err(Fault::not_found(text).into())
            }
        }
    }

    /// Finds the image with this tag; without a tag, the only one or the one for this machine.
    ///
    /// # Errors
    /// When there is no such image.
    pub(crate) fn find(&self, tag: Option<&str>) -> anyhow::Result<Descriptor> {
        let file = self.0.join("index.json");
        let index: ImageIndex = manifest::parse(&read(&file)?, &file.display().to_string())?;
        let found = match tag {
            Some(tag) => tagged(&index, tag),
            None => manifest::for_this_machine(&index),
        };
        found.cloned().with_context(|| format!("read {}", file.display()))
    }

    /// Returns the file of a blob, which is there and has the size that its descriptor says.
    ///
    /// # Errors
    /// When it is not so.
    pub(crate) fn blob(&self, descriptor: &Descriptor) -> anyhow::Result<PathBuf> {
        let path = self.archive(&manifest::sha256(descriptor)?);
        let told = || format!("look at {}", path.display());
        let size = std::fs::metadata(&path).with_context(told)?.len();
        if size != descriptor.size() {
            let (path, wanted) = (path.display(), descriptor.size());
            bail!(Fault::invalid(format!("{path} has {size} bytes instead of {wanted}")));
        }
        Ok(path)
    }
}

impl Documents for Layout<'_> {
    fn manifest(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        read(&self.archive(digest))
    }

    fn config(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        read(&self.archive(digest))
    }

    fn archive(&self, digest: &str) -> PathBuf {
        self.0.join("blobs/sha256").join(digest)
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let told = || format!("read {}", path.display());
    let file = std::fs::File::open(path).with_context(told)?;
    let mut text = Vec::new();
    file.take(MAX_DOCUMENT + 1).read_to_end(&mut text).with_context(told)?;
    if text.len() as u64 > MAX_DOCUMENT {
        bail!(manifest::too_large(&path.display().to_string()));
    }
    Ok(text)
}
