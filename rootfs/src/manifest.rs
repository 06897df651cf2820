//! From an image's topmost document to its layers: index → manifest → configuration.
//!
//! The same whether the documents lie in a directory or in a registry. Everything in them is
//! hostile; nothing of the configuration is used but the environment and the diff ids, and each
//! document is checked against the digest by which it is named.

use std::path::PathBuf;

use anyhow::bail;
use guardian_contract::fault::Fault;
use oci_spec::image::{
    Descriptor, DigestAlgorithm, ImageConfiguration, ImageIndex, ImageManifest, MediaType,
};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::beneath::contained;
use crate::digest;
use crate::layer::{Blob, Layer, Packing};
use crate::source::Image;

/// Largest index, manifest or configuration: registries refuse larger manifests, too.
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;
/// An index may name an index; more than this is a loop.
const MAX_DEPTH: usize = 4;
/// Overlay takes at most 500 lower directories (`OVL_MAX_STACK`).
const MAX_LAYERS: usize = 500;

/// Where gdn says in which directory a layer is to be unpacked.
const BASE_DIRECTORY: &str = "org.cloudfoundry.experimental.image.base-directory";

/// Media types of an index, OCI's and Docker's.
pub(crate) const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// Media types of a manifest, OCI's and Docker's.
pub(crate) const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Media types of the configuration of an image that holds a root filesystem.
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Where an image's documents and layers are.
pub(crate) trait Documents {
    /// Reads a manifest or an index of at most [`MAX_DOCUMENT`] bytes; the caller checks it.
    ///
    /// # Errors
    /// When it can't be read or is larger.
    fn manifest(&self, digest: &str) -> anyhow::Result<Vec<u8>>;

    /// Reads a configuration of at most [`MAX_DOCUMENT`] bytes; the caller checks it.
    ///
    /// # Errors
    /// When it can't be read or is larger.
    fn config(&self, digest: &str) -> anyhow::Result<Vec<u8>>;

    /// The file in which a layer's archive lies by the time it is unpacked.
    fn archive(&self, digest: &str) -> PathBuf;
}

/// A document and the media type under which it was found.
#[derive(Debug)]
pub(crate) struct Document {
    /// Its bytes.
    pub(crate) text: Vec<u8>,
    /// As its descriptor or the registry says; the document may say more.
    pub(crate) media_type: String,
}

/// Reads a manifest or an index and checks it against its descriptor.
///
/// # Errors
/// When it can't be read, or is another document.
pub(crate) fn read(
    documents: &impl Documents,
    descriptor: &Descriptor,
) -> anyhow::Result<Document> {
    let digits = sha256(descriptor)?;
    let text = documents.manifest(&digits)?;
    check(&digits, &text)?;
    Ok(Document { text, media_type: descriptor.media_type().to_string() })
}

/// Checks a document against the digest by which it is named.
///
/// # Errors
/// When it is another document.
pub(crate) fn check(expected: &str, text: &[u8]) -> anyhow::Result<()> {
    let actual = digest::of(text);
    if expected != actual {
        bail!(Fault::invalid(format!("digest mismatch: expected: {expected}, actual: {actual}")));
    }
    Ok(())
}

/// Returns the image whose topmost document is `top`, for this machine.
///
/// # Errors
/// When a document is missing, or not what it says, or asks for what we can't do.
pub(crate) fn image(documents: &impl Documents, top: Document) -> anyhow::Result<Image> {
    image_of(documents, &manifest(documents, top)?)
}

/// Returns the image of a manifest.
///
/// # Errors
/// As [`image`].
pub(crate) fn image_of(
    documents: &impl Documents,
    manifest: &ImageManifest,
) -> anyhow::Result<Image> {
    let descriptor = manifest.config();
    let name = descriptor.media_type().to_string();
    if !CONFIGS.contains(&name.as_str()) {
        bail!(Fault::unsupported(format!("not an image: configuration of media type '{name}'")));
    }
    let digits = sha256(descriptor)?;
    if descriptor.size() > MAX_DOCUMENT {
        bail!(too_large("configuration"));
    }
    let text = documents.config(&digits)?;
    check(&digits, &text)?;
    let config: ImageConfiguration = parse(&text, "configuration")?;
    let layers = layers(documents, manifest, &config)?;
    let env = config.config().as_ref().and_then(|config| config.env().clone());
    Ok(Image { layers, env: env.unwrap_or_default(), origin: Vec::new() })
}

/// Says that a document is refused for its size.
pub(crate) fn too_large(what: &str) -> Fault {
    Fault::invalid(format!("{what} is larger than {MAX_DOCUMENT} bytes"))
}

/// Parses a document.
///
/// # Errors
/// When it is not what is expected.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8], what: &str) -> anyhow::Result<T> {
    serde_json::from_slice(text)
        .map_err(|error| Fault::invalid(format!("parse {what}: {error}")).into())
}

/// Follows indexes down to the manifest of the image for this machine.
///
/// # Errors
/// As [`choose`].
pub(crate) fn manifest(documents: &impl Documents, top: Document) -> anyhow::Result<ImageManifest> {
    parse(&choose(documents, top)?.text, "image manifest")
}

/// Follows indexes to the manifest of the image for this machine.
///
/// # Errors
/// When there is none, or a document is not what it says.
pub(crate) fn choose(documents: &impl Documents, top: Document) -> anyhow::Result<Document> {
    let mut document = top;
    for _ in 0..MAX_DEPTH {
        if !is_index(&document)? {
            return Ok(document);
        }
        let index: ImageIndex = parse(&document.text, "image index")?;
        document = read(documents, for_this_machine(&index)?)?;
    }
    bail!(Fault::invalid(format!("image index within image index more than {MAX_DEPTH} deep")))
}

/// What tells an index from a manifest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    #[serde(default)]
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// Tells an index from a manifest. What could be read as both is refused: the one who checked it
/// may have seen the other.
fn is_index(document: &Document) -> anyhow::Result<bool> {
    let outline: Outline = parse(&document.text, "image manifest")?;
    if outline.schema_version == 1 || outline.fs_layers.is_some() {
        bail!(Fault::unsupported(
            "image manifest of schema 1, which docker gave up in 2019; push the image again"
        ));
    }
    let is_index = outline.manifests.is_some();
    if is_index && (outline.layers.is_some() || outline.config.is_some()) {
        bail!(Fault::invalid("a document that is an image index and an image manifest"));
    }
    let wanted = if is_index { INDEXES } else { MANIFESTS };
    for name in [Some(document.media_type.as_str()), outline.media_type.as_deref()] {
        // A registry on a plain file server knows no better than this.
        let is_generic = |name: &str| ["", "application/json"].contains(&name);
        match name {
            Some(name) if !wanted.contains(&name) && !is_generic(name) => {
                bail!(Fault::unsupported(format!("image manifest of media type '{name}'")))
            }
            _ => {}
        }
    }
    Ok(is_index)
}

/// Chooses among the images of an index.
///
/// # Errors
/// When none is for this machine.
pub(crate) fn for_this_machine(index: &ImageIndex) -> anyhow::Result<&Descriptor> {
    if let [only] = &index.manifests()[..] {
        return Ok(only);
    }
    // An image for the least capable processor runs on all of its family.
    let (arch, least) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", "v1"),
        "aarch64" => ("arm64", "v8"),
        other => (other, ""),
    };
    let fits = |descriptor: &&Descriptor| {
        descriptor.platform().as_ref().is_some_and(|platform| {
            platform.os().to_string() == "linux"
                && platform.architecture().to_string() == arch
                && platform.variant().as_deref().is_none_or(|variant| variant == least)
        })
    };
    let found = index.manifests().iter().find(fits);
    found.ok_or_else(|| Fault::not_found(format!("no image for linux/{arch}; name a tag")).into())
}

fn layers(
    documents: &impl Documents,
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
        let diff_id = digest::parse(diff_id)?;
        let chain_id = match layers.last() {
            Some(below) => {
                let (below, this) = (digest::named(&below.chain_id), digest::named(&diff_id));
                digest::of(format!("{below} {this}"))
            }
            None => diff_id.clone(),
        };
        let base = base(descriptor)?;
        let chain_id = match base.as_os_str().is_empty() {
            true => chain_id,
            false => digest::of(format!("{chain_id} {}", base.display())),
        };
        let digits = sha256(descriptor)?;
        let blob = Blob {
            path: documents.archive(&digits),
            digest: Some(digits),
            size: descriptor.size(),
            diff_id: Some(diff_id),
            packing: packing(descriptor.media_type())?,
            // Of a layer that is elsewhere: only who has the image on this disk may send us there.
            urls: Vec::new(),
        };
        layers.push(Layer { chain_id, blob, base });
    }
    Ok(layers)
}

/// The directory in which a layer is unpacked, by gdn's own annotation.
fn base(descriptor: &Descriptor) -> anyhow::Result<PathBuf> {
    let annotations = descriptor.annotations().as_ref();
    let path = annotations.and_then(|all| all.get(BASE_DIRECTORY)).map_or("", String::as_str);
    let path = contained(path.as_bytes());
    path.ok_or_else(|| Fault::invalid("base directory of a layer is not a path").into())
}

/// A layer's packing by its media type, OCI's or Docker's.
fn packing(media_type: &MediaType) -> anyhow::Result<Packing> {
    let name = media_type.to_string();
    let is_tar = name.starts_with("application/vnd.oci.image.layer.")
        || name.starts_with("application/vnd.docker.image.rootfs.diff.tar");
    match name.rsplit_once(['+', '.']) {
        Some((_, "gzip")) if is_tar => Ok(Packing::Gzip),
        Some((_, "zstd")) if is_tar => Ok(Packing::Zstd),
        Some((_, "tar")) if is_tar => Ok(Packing::None),
        _ => bail!(Fault::unsupported(format!("image layer of media type '{name}'"))),
    }
}

/// Returns the digits of a descriptor's digest.
pub(crate) fn sha256(descriptor: &Descriptor) -> anyhow::Result<String> {
    let digest = descriptor.digest();
    if *digest.algorithm() != DigestAlgorithm::Sha256 {
        bail!(Fault::unsupported(format!("digest '{digest}' is not sha256")));
    }
    digest::parse(&digest::named(digest.digest()))
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
        assert_eq!(of("application/vnd.oci.image.layer.v1.tar+zstd").unwrap(), Packing::Zstd);
        for name in ["application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "text/x.tar", "x"]
        {
            assert!(of(name).unwrap_err().to_string().contains(name));
        }
    }

    #[test]
    fn an_index_is_told_from_a_manifest() {
        let of = |text: &str, media_type: &str| {
            is_index(&Document { text: text.into(), media_type: media_type.into() })
        };
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        let manifest = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        for name in ["", "application/json"] {
            assert!(of(index, name).unwrap() && !of(manifest, name).unwrap());
        }
        assert!(of(index, INDEXES[1]).unwrap() && !of(manifest, MANIFESTS[0]).unwrap());
        for (text, media_type, want) in [
            (index, MANIFESTS[0], "media type"),
            (manifest, INDEXES[0], "media type"),
            (manifest, "text/html", "text/html"),
            (r#"{"mediaType":"x/y","layers":[]}"#, MANIFESTS[0], "x/y"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, "", "schema 1"),
            (r#"{"manifests":[],"layers":[]}"#, "", "index and an image manifest"),
            ("[1", "", "parse"),
        ] {
            let error = of(text, media_type).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn the_least_capable_processor_is_chosen() {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let entry = |digit: &str, platform: &str| {
            format!(
                r#"{{"mediaType":"{}","size":1,"digest":"sha256:{}","platform":{{{platform}}}}}"#,
                MANIFESTS[0],
                digit.repeat(64)
            )
        };
        let of = |entries: &[String]| {
            let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
            let index: ImageIndex = parse(text.as_bytes(), "index").unwrap();
            for_this_machine(&index).map(|found| found.digest().digest()[..1].to_owned())
        };
        let new = entry("a", &format!(r#""os":"linux","architecture":"{arch}","variant":"v9""#));
        let windows = entry("b", &format!(r#""os":"windows","architecture":"{arch}""#));
        let plain = entry("c", &format!(r#""os":"linux","architecture":"{arch}""#));
        let attestation = entry("d", r#""os":"unknown","architecture":"unknown""#);
        let all = [new.clone(), windows.clone(), plain, attestation];
        assert_eq!(of(&all).unwrap(), "c");
        assert!(of(&[new, windows]).unwrap_err().to_string().contains("no image for linux"));
    }
}
