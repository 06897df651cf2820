//! Where an image comes from: the URI of `create`, and the image that stands behind it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_contract::fault::Fault;

use crate::digest;
use crate::layer::{Blob, Layer, Packing};
use crate::layout;
use crate::preloaded::Preloaded;
use crate::progress::Progress;
use crate::registry::download::{self, Download};
use crate::registry::{self, Access, Client, Reference};
use crate::store::Store;

/// A URI of `create`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A root filesystem in one tar file.
    Tar(PathBuf),
    /// An OCI image layout and the tag wanted.
    Layout(PathBuf, Option<String>),
    /// An image in a registry.
    Registry(Reference),
    /// A tar file with a layer from elsewhere over it.
    Preloaded(Preloaded),
    /// A directory used as it is.
    Raw(PathBuf),
}

/// An image, ready to be unpacked.
#[derive(Debug, Default)]
pub(crate) struct Image {
    /// Bottommost first.
    pub(crate) layers: Vec<Layer>,
    /// `K=V`.
    pub(crate) env: Vec<String>,
    /// Who is to be asked for the layers' archives; nobody if they are on this disk.
    pub(crate) origin: Vec<Client>,
}

impl Image {
    /// Downloads the archives of layers that the store lacks, if they are not on this disk.
    ///
    /// # Errors
    /// When one can't be had.
    pub(crate) fn download(
        &self,
        store: &Store,
        progress: &Progress,
    ) -> anyhow::Result<Vec<Download>> {
        match self.is_remote() {
            true => download::all(&self.origin, store, &self.layers, progress),
            false => Ok(Vec::new()),
        }
    }

    /// Tells whether any of it has to come from elsewhere.
    pub(crate) fn is_remote(&self) -> bool {
        !self.origin.is_empty() || self.layers.iter().any(|layer| !layer.blob.urls.is_empty())
    }
}

impl Source {
    /// Takes a URI apart; only the layout's tag needs a look at the disk, because a directory's
    /// name may hold a colon, too.
    ///
    /// # Errors
    /// `Unsupported` for a scheme that we have no source for.
    pub(crate) fn parse(uri: &str) -> anyhow::Result<Self> {
        let Some((scheme, rest)) = uri.split_once(':').filter(|(scheme, _)| is_scheme(scheme))
        else {
            return Ok(Self::Tar(uri.into()));
        };
        let path = rest.strip_prefix("//").unwrap_or(rest);
        match scheme {
            "file" => Ok(Self::Tar(path.into())),
            "raw" => Ok(Self::Raw(path.into())),
            "oci" => Ok(split_tag(path)),
            "preloaded+layer" => Preloaded::parse(uri, rest).map(Self::Preloaded),
            "docker" => Reference::parse(uri, rest).map(Self::Registry),
            other => {
                Err(Fault::unsupported(format!("image '{uri}': source '{other}' is not supported"))
                    .into())
            }
        }
    }

    /// Finds the image's layers and environment.
    ///
    /// # Errors
    /// When there is no image, or none that we understand.
    pub(crate) fn image(&self, store: &Store, access: &Access) -> anyhow::Result<Image> {
        match self {
            Self::Tar(path) => tar(path),
            Self::Layout(path, tag) => {
                layout::image(path, tag.as_deref(), store, !access.skip_layer_validation)
            }
            Self::Registry(reference) => registry::image(reference, access, store),
            Self::Preloaded(preloaded) => {
                let mut image = tar(&preloaded.base)?;
                let over = image.layers.last().map(|below| preloaded.layer(below, store));
                image.layers.extend(over.transpose()?);
                Ok(image)
            }
            Self::Raw(_) => Ok(Image::default()),
        }
    }
}

/// The image that is one tar file. Its chain id is not made of its content but of what stat(2)
/// says, so that creating many containers from one file reads it once.
fn tar(path: &Path) -> anyhow::Result<Image> {
    let path = std::path::absolute(path).context("find the image")?;
    let stat = std::fs::metadata(&path)
        .map_err(|error| Fault::not_found(format!("stat {}: {error}", path.display())))?;
    if stat.is_dir() {
        let text = "invalid base image: directory provided instead of a tar file";
        return Err(Fault::invalid(text).into());
    }
    if !stat.is_file() {
        return Err(Fault::invalid(format!("image {} is not a file", path.display())).into());
    }
    let chain_id = digest::of(format!(
        "{}-{}{:09}-{}-{}",
        path.display(),
        stat.mtime(),
        stat.mtime_nsec(),
        stat.size(),
        stat.ino()
    ));
    let blob = Blob {
        path,
        digest: None,
        size: stat.size(),
        diff_id: None,
        packing: Packing::Guess,
        urls: Vec::new(),
    };
    let layer = Layer { chain_id, blob, base: PathBuf::new() };
    Ok(Image { layers: vec![layer], ..Image::default() })
}

/// Takes `DIR[:TAG]` apart.
pub(crate) fn split_tag(path: &str) -> Source {
    let whole = Source::Layout(path.into(), None);
    if Path::new(path).is_dir() {
        return whole;
    }
    match path.rsplit_once(':') {
        Some((directory, tag)) if !tag.contains('/') && !tag.is_empty() => {
            Source::Layout(directory.into(), Some(tag.into()))
        }
        _ => whole,
    }
}

/// A scheme as in RFC 3986; an ordinary path that holds a colon has a slash before it.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use guardian_contract::fault::Kind;

    #[test]
    fn every_form_is_told_apart() {
        let layout =
            |path: &str, tag: Option<&str>| Source::Layout(path.into(), tag.map(str::to_owned));
        for (uri, want) in [
            ("/images/base.tar", Source::Tar("/images/base.tar".into())),
            ("/odd:name/base.tar", Source::Tar("/odd:name/base.tar".into())),
            ("file:///images/base.tar", Source::Tar("/images/base.tar".into())),
            ("raw:///dir", Source::Raw("/dir".into())),
            ("oci:///no/dir:1.37", layout("/no/dir", Some("1.37"))),
            ("oci:///no/dir", layout("/no/dir", None)),
            ("oci:///no:dir/x", layout("/no:dir/x", None)),
        ] {
            assert_eq!(Source::parse(uri).unwrap(), want, "{uri}");
        }
    }

    #[test]
    fn what_comes_later_says_so_by_name() {
        for uri in ["preloaded:x", "http://x/y.tar"] {
            let fault = Fault::of(&Source::parse(uri).unwrap_err());
            assert_eq!(fault.kind, Kind::Unsupported, "{uri}");
            assert!(fault.message.contains(uri), "{}", fault.message);
        }
    }

    #[test]
    fn a_directory_is_no_tar_file() {
        let error = tar(Path::new("/")).unwrap_err();
        assert!(error.to_string().contains("directory provided instead of a tar file"));
    }
}
