//! Reads an OCI image layout: index → manifest → configuration and layers.
//!
//! Everything in it is hostile; nothing of the configuration is used but the environment and the
//! diff ids, and each document is checked against the digest by which it is named.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use guardian_contract::fault::Fault;
use oci_spec::image::{
    Descriptor, DigestAlgorithm, ImageConfiguration, ImageIndex, ImageManifest, MediaType,
};
use serde::de::DeserializeOwned;

use crate::digest;
use crate::layer::{Blob, Layer, Packing};
use crate::source::Image;

/// Largest index, manifest or configuration: registries refuse larger manifests, too.
const MAX_DOCUMENT: u64 = 4 << 20;
/// An index may name an index; more than this is a loop.
const MAX_DEPTH: usize = 4;
/// Overlay takes at most 500 lower directories (`OVL_MAX_STACK`).
const MAX_LAYERS: usize = 500;
/// Where a tag stands in an index.
const TAG: &str = "org.opencontainers.image.ref.name";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Returns the image with this tag; without a tag, the only one or the one for this machine.
///
/// # Errors
/// When there is no such image, or it is not what it says.
pub(crate) fn image(directory: &Path, tag: Option<&str>) -> anyhow::Result<Image> {
    if !directory.is_dir() {
        return Err(Fault::not_found("Image source doesn't exist").into());
    }
    let file = directory.join("index.json");
    let text = read(&file)?;
    let index: ImageIndex = parse(&text, &file)?;
    let descriptor = tagged(&index, tag).with_context(|| format!("read {}", file.display()))?;
    let manifest = manifest(directory, descriptor.clone())?;
    let config: ImageConfiguration = document(directory, manifest.config())?;
    let layers = layers(directory, &manifest, &config)?;
    let env = config.config().as_ref().and_then(|config| config.env().clone());
    Ok(Image { layers, env: env.unwrap_or_default() })
}

fn tagged<'a>(index: &'a ImageIndex, tag: Option<&str>) -> anyhow::Result<&'a Descriptor> {
    let Some(tag) = tag else { return for_this_machine(index) };
    let has_tag = |descriptor: &&Descriptor| {
        descriptor.annotations().as_ref().and_then(|all| all.get(TAG)).is_some_and(|at| at == tag)
    };
    let found = index.manifests().iter().find(has_tag);
    found.ok_or_else(|| Fault::not_found(format!("the image has no tag '{tag}'")).into())
}

/// Follows indexes down to a manifest.
fn manifest(directory: &Path, mut descriptor: Descriptor) -> anyhow::Result<ImageManifest> {
    for _ in 0..MAX_DEPTH {
        let is_index = match descriptor.media_type() {
            MediaType::ImageIndex => true,
            MediaType::Other(name) => name == DOCKER_LIST,
            _ => false,
        };
        if !is_index {
            return document(directory, &descriptor);
        }
        let index: ImageIndex = document(directory, &descriptor)?;
        descriptor = for_this_machine(&index)?.clone();
    }
    bail!(Fault::invalid(format!("image index within image index more than {MAX_DEPTH} deep")))
}

/// Chooses among the images of an index.
fn for_this_machine(index: &ImageIndex) -> anyhow::Result<&Descriptor> {
    if let [only] = &index.manifests()[..] {
        return Ok(only);
    }
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let fits = |descriptor: &&Descriptor| {
        descriptor.platform().as_ref().is_some_and(|platform| {
            platform.os().to_string() == "linux" && platform.architecture().to_string() == arch
        })
    };
    let found = index.manifests().iter().find(fits);
    found.ok_or_else(|| Fault::not_found(format!("no image for linux/{arch}; name a tag")).into())
}

fn layers(
    directory: &Path,
    manifest: &ImageManifest,
    config: &ImageConfiguration,
) -> anyhow::Result<Vec<Layer>> {
    let diff_ids = config.rootfs().diff_ids();
    let count = manifest.layers().len();
    if count != diff_ids.len() {
        bail!(Fault::invalid(format!("image with {count} layers and {} diff ids", diff_ids.len())));
    }
    if count == 0 || count > MAX_LAYERS {
        bail!(Fault::invalid(format!("image with {count} layers; 1 to {MAX_LAYERS} are allowed")));
    }
    let mut layers: Vec<Layer> = Vec::with_capacity(count);
    for (descriptor, diff_id) in manifest.layers().iter().zip(diff_ids) {
        let diff_id = hexadecimal(diff_id)?;
        let chain_id = match layers.last() {
            Some(below) => digest::of(format!("{} {}", sha256(&below.chain_id), sha256(&diff_id))),
            None => diff_id.clone(),
        };
        let blob = Blob {
            path: blob_path(directory, descriptor)?,
            digest: Some(descriptor.digest().digest().to_owned()),
            size: descriptor.size(),
            diff_id: Some(diff_id),
            packing: packing(descriptor.media_type())?,
        };
        layers.push(Layer { chain_id, blob });
    }
    Ok(layers)
}

/// A layer's packing by its media type, OCI's or Docker's.
fn packing(media_type: &MediaType) -> anyhow::Result<Packing> {
    let name = media_type.to_string();
    let is_tar = name.starts_with("application/vnd.oci.image.layer.")
        || name.starts_with("application/vnd.docker.image.rootfs.diff.tar");
    match name.rsplit_once(['+', '.']) {
        Some((_, "gzip")) if is_tar => Ok(Packing::Gzip),
        Some((_, "tar")) if is_tar => Ok(Packing::None),
        _ => bail!(Fault::unsupported(format!("image layer of media type '{name}'"))),
    }
}

fn document<T: DeserializeOwned>(directory: &Path, descriptor: &Descriptor) -> anyhow::Result<T> {
    let path = blob_path(directory, descriptor)?;
    let text = read(&path)?;
    let (expected, actual) = (descriptor.digest().digest(), digest::of(&text));
    if expected != actual {
        bail!(Fault::invalid(format!("digest mismatch: expected: {expected}, actual: {actual}")));
    }
    parse(&text, &path)
}

fn blob_path(directory: &Path, descriptor: &Descriptor) -> anyhow::Result<PathBuf> {
    let digest = descriptor.digest();
    if *digest.algorithm() != DigestAlgorithm::Sha256 {
        bail!(Fault::unsupported(format!("digest '{digest}' is not sha256")));
    }
    Ok(directory.join("blobs/sha256").join(hexadecimal(&sha256(digest.digest()))?))
}

/// Returns the digits of `sha256:…`; the text becomes a file name, so it is checked here.
fn hexadecimal(digest: &str) -> anyhow::Result<String> {
    let digits = digest.strip_prefix("sha256:").unwrap_or_default();
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 64 || !digits.bytes().all(is_digit) {
        bail!(Fault::invalid(format!("'{}' is not a sha256 digest", digest.escape_debug())));
    }
    Ok(digits.to_owned())
}

fn sha256(digits: &str) -> String {
    format!("sha256:{digits}")
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let told = || format!("read {}", path.display());
    let file = std::fs::File::open(path).with_context(told)?;
    let mut text = Vec::new();
    file.take(MAX_DOCUMENT + 1).read_to_end(&mut text).with_context(told)?;
    if text.len() as u64 > MAX_DOCUMENT {
        bail!(Fault::invalid(format!("{} is larger than {MAX_DOCUMENT} bytes", path.display())));
    }
    Ok(text)
}

fn parse<T: DeserializeOwned>(text: &[u8], path: &Path) -> anyhow::Result<T> {
    serde_json::from_slice(text)
        .map_err(|error| Fault::invalid(format!("parse {}: {error}", path.display())).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packings_go_by_media_type() {
        let of = |name: &str| packing(&MediaType::from(name));
        for name in [
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ] {
            assert_eq!(of(name).unwrap(), Packing::Gzip);
        }
        assert_eq!(of("application/vnd.oci.image.layer.v1.tar").unwrap(), Packing::None);
        for name in ["application/vnd.oci.image.layer.v1.tar+zstd", "text/x.tar", "x"] {
            assert!(of(name).unwrap_err().to_string().contains(name));
        }
    }

    #[test]
    fn a_digest_is_no_path() {
        for bad in ["sha256:../../etc/passwd", "sha256:", "md5:x", "sha256:ABC"] {
            assert!(hexadecimal(bad).is_err(), "{bad}");
        }
    }
}
