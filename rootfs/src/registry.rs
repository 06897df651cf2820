//! Images in registries: a reference → its documents → the archives of its layers.
//!
//! The registry is not trusted further than its TLS certificate goes: each document and each
//! archive is checked against the digest that leads to it, sizes are bounded before anything is
//! read, and credentials go to the registry they are given for and to the token service that it
//! names, never along with a redirect to elsewhere.

mod access;
mod challenge;
mod client;
pub(crate) mod download;
mod reference;
mod transport;

use std::path::PathBuf;

pub(crate) use access::{Access, Credentials, Secret};
pub(crate) use client::Client;
pub(crate) use reference::Reference;

use crate::manifest::{self, Documents};
use crate::source::Image;
use crate::store::Store;
use reference::Pin;

/// Reads the image's documents; its layers are left where they are.
///
/// # Errors
/// When the registry can't be reached, does not show us the image, or it is not what it says.
pub(crate) fn image(
    reference: &Reference,
    access: &Access,
    store: &Store,
) -> anyhow::Result<Image> {
    let client = Client::new(reference, access)?;
    let top = match &reference.pin {
        Pin::Tag(tag) => client.manifest(tag)?,
        Pin::Digest(digest) => {
            let top = client.manifest(&crate::digest::named(digest))?;
            manifest::check(digest, &top.text)?;
            top
        }
    };
    let image = manifest::image(&Repository { client: &client, store }, top)?;
    Ok(Image { origin: Some(client), ..image })
}

struct Repository<'a> {
    client: &'a Client,
    store: &'a Store,
}

impl Documents for Repository<'_> {
    fn manifest(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        Ok(self.client.manifest(&crate::digest::named(digest))?.text)
    }

    fn config(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        self.client.document(digest)
    }

    fn archive(&self, digest: &str) -> PathBuf {
        self.store.blob(digest)
    }
}
