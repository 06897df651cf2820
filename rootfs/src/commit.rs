//! `rootfs commit`: an image's layers, and what its container has written over them, as an OCI
//! image layout.
//!
//! The archives that layers came in are not kept; they are made again of the layers and their recipes,
//! and compared with the digests they had. A layer without a recipe is packed anew: the same files, in
//! the same archive each time, so what is committed from one image shares its lower layers with the next.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::file::{private_dir, read_json, replace, replace_json};
use guardian_contract::log;
use serde::Serialize;
use serde_json::{Value, json};

use crate::beneath::Beneath;
use crate::image::{Image, Info};
use crate::layer::Meta;
use crate::ocitar::{self, Digests};
use crate::pack::Marks;
use crate::registry::is_tag;
use crate::store::Store;
use crate::{digest, disk, held, layer, recipe};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const TAG: &str = "org.opencontainers.image.ref.name";

/// What was committed.
#[derive(Debug, Serialize)]
pub(crate) struct Committed {
    /// Of the image's manifest.
    digest: String,
    tag: String,
    /// Bottommost first; the last one is what the container has written.
    layers: Vec<CommittedLayer>,
}

#[derive(Debug, Serialize)]
struct CommittedLayer {
    #[serde(flatten)]
    digests: Digests,
    /// Whether its archive, unpacked, is byte for byte the one that the image was made of.
    is_original: bool,
}

/// Writes the image `id` into the layout `target`, a directory with or without `:TAG`. A tag that
/// is there is moved.
///
/// # Errors
/// `NotFound` for an unknown image; otherwise when something can't be read or written.
pub(crate) fn commit(store: &Store, id: &Handle, target: &str) -> anyhow::Result<Committed> {
    let unknown = || Fault::not_found(format!("Image `{id}` not found"));
    // Its container may go away meanwhile, but its layers may not.
    let _gate = store.keep_gate_open()?;
    let image = Image::peek(store, id);
    let info = image.info()?.ok_or_else(unknown)?;
    if info.has_host_owners {
        let text = "its files have the host's owners, because this kernel could not map them";
        bail!(Fault::unsupported(format!("image `{id}` can't be committed: {text}")));
    }
    let upper =
        disk::upper(&image, &info).with_context(|| format!("open what `{id}` has written"))?;
    let (directory, tag) = split(target)?;
    let layout = Layout::open(directory)?;
    let mut layers = Vec::new();
    for chain_id in info.layers.iter().rev() {
        layers.push(original(store, &layout, chain_id)?);
    }
    layers.push(CommittedLayer { digests: layout.directory(upper)?, is_original: false });
    let config =
        layout.document("application/vnd.oci.image.config.v1+json", &config(&info, &layers))?;
    let digest = layout.finish(&config, &layers, tag)?;
    Ok(Committed { digest, tag: tag.into(), layers })
}

/// Takes `DIR[:TAG]` apart.
fn split(target: &str) -> anyhow::Result<(&Path, &str)> {
    let (directory, tag) = match target.rsplit_once(':') {
        Some((directory, tag)) if !tag.contains('/') => (directory, tag),
        _ => (target, "latest"),
    };
    if directory.is_empty() || tag.is_empty() {
        bail!(Fault::invalid(format!("'{target}' is not a directory with or without :TAG")));
    }
    if !is_tag(tag) {
        let what = "up to 128 letters, digits, '_', '.' and '-', the first a letter, digit or '_'";
        bail!(Fault::invalid(format!("'{}' is no tag: {what}", tag.escape_debug())));
    }
    Ok((Path::new(directory), tag))
}

/// Adds a layer of the store.
fn original(store: &Store, layout: &Layout, chain_id: &str) -> anyhow::Result<CommittedLayer> {
    let meta: Meta = read_json(&store.meta(chain_id))?.unwrap_or_default();
    let root = || layer::open_directory(&store.layer(chain_id));
    let known = digest::named(&meta.diff_id);
    if let Some(recipe) = held::open(&store.recipe(chain_id))? {
        let beneath = Beneath::in_root(root()?);
        let made = layout.layer(|file| {
            let digests = ocitar::write_archive(file, true, |mut output| {
                recipe::replay(recipe, &beneath, &mut output)
            })?;
            match digests.diff_id == known {
                true => Ok(digests),
                false => bail!("it makes {} instead of {known}", digests.diff_id),
            }
        });
        match made {
            Ok(digests) => return Ok(CommittedLayer { digests, is_original: true }),
            Err(error) => {
                let data = json!({"layer": chain_id, "reason": format!("{error:#}")});
                log::info("recipe-failed", &data);
            }
        }
    }
    let digests = layout.directory(root()?)?;
    let is_original = digests.diff_id == known;
    Ok(CommittedLayer { digests, is_original })
}

fn config(info: &Info, layers: &[CommittedLayer]) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.digests.diff_id.as_str()).collect();
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Env": info.env },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
}

/// An image layout on disk (OCI image spec, image-layout.md).
struct Layout {
    directory: PathBuf,
    blobs: PathBuf,
}

impl Layout {
    fn open(directory: &Path) -> anyhow::Result<Self> {
        let blobs = directory.join("blobs/sha256");
        private_dir(&blobs)?;
        replace_json(&directory.join("oci-layout"), &json!({ "imageLayoutVersion": "1.0.0" }))?;
        Ok(Self { directory: directory.into(), blobs })
    }

    /// Adds a directory as a layer.
    fn directory(&self, root: OwnedFd) -> anyhow::Result<Digests> {
        self.layer(|file| ocitar::write_layer(root, Marks::Trusted, file, true))
    }

    /// Adds what `write` writes as a layer; it gets its name when it is whole.
    fn layer(
        &self,
        write: impl FnOnce(File) -> anyhow::Result<Digests>,
    ) -> anyhow::Result<Digests> {
        let path = self.blobs.join(format!(".{}", std::process::id()));
        let mut options = OpenOptions::new();
        let written = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("make {}", path.display()))
            .and_then(write)
            .and_then(|digests| {
                std::fs::rename(&path, self.blob(&digests.digest)).context("name layer")?;
                Ok(digests)
            });
        if written.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        written
    }

    /// Adds a document and returns its descriptor.
    fn document(&self, media_type: &str, document: &Value) -> anyhow::Result<Value> {
        let text = serde_json::to_vec(document)?;
        let digest = format!("sha256:{}", digest::of(&text));
        replace(&self.blob(&digest), &text)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": text.len() }))
    }

    /// Writes the manifest, gives it the tag, and returns its digest.
    fn finish(
        &self,
        config: &Value,
        layers: &[CommittedLayer],
        tag: &str,
    ) -> anyhow::Result<String> {
        let descriptor = |layer: &CommittedLayer| {
            let Digests { digest, size, .. } = &layer.digests;
            json!({ "mediaType": LAYER, "digest": digest, "size": size })
        };
        let layers: Vec<Value> = layers.iter().map(descriptor).collect();
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config,
            "layers": layers,
        });
        let mut manifest = self.document(media_type, &manifest)?;
        manifest["annotations"] = json!({ TAG: tag });
        let _lock = self.lock()?;
        let path = self.directory.join("index.json");
        let index: Option<Value> = read_json(&path)?;
        let mut index = index.unwrap_or_else(|| json!({ "schemaVersion": 2, "manifests": [] }));
        let Some(manifests) = index["manifests"].as_array_mut() else {
            bail!(Fault::invalid(format!("{} is not an image index", path.display())));
        };
        manifests.retain(|other| other["annotations"][TAG] != tag);
        let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
        manifests.push(manifest);
        replace_json(&path, &index)?;
        Ok(digest)
    }

    /// Keeps other commits from changing the index meanwhile.
    fn lock(&self) -> anyhow::Result<File> {
        let path = &self.directory;
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        file.lock().context("lock the layout")?;
        Ok(file)
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.blobs.join(digest.trim_start_matches("sha256:"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_taken_apart() {
        for (target, want) in [
            ("/a/b:v1", ("/a/b", "v1")),
            ("/a:b/c", ("/a:b/c", "latest")),
            ("relative", ("relative", "latest")),
        ] {
            assert_eq!(split(target).unwrap(), (Path::new(want.0), want.1));
        }
        for wrong in ["/a:", ":x", "/a:b c", "/a:-b", "/a:.b", "/a:ä", &format!("/a:{:a>129}", "")]
        {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }
}
