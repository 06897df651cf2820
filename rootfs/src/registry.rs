//! Images in registries: a reference → its documents → the archives of its layers.
//!
//! The registry is not trusted further than its TLS certificate goes: each document and each
//! archive is checked against the digest that leads to it, sizes are bounded before anything is
//! read, and credentials go to the registry they are given for and to the token service that it
//! names, never along with a redirect to elsewhere.

mod access;
mod challenge;
mod client;
mod docker_config;
pub(crate) mod download;
mod origin;
mod partial;
pub(crate) mod push;
mod reference;
mod tls;
mod token;
mod transport;

use std::collections::VecDeque;
use std::path::PathBuf;

use anyhow::bail;
use guardian_contract::log;
use serde_json::json;

pub(crate) use access::{Access, Credentials, Mirror, Secret};
pub(crate) use client::Client;
pub(crate) use docker_config::DockerConfig;
pub(crate) use origin::measure;
pub(crate) use reference::{Reference, is_tag};

use crate::digest;
use crate::manifest::{self, Documents};
use crate::source::Image;
use crate::store::Store;
use access::Endpoint;
use reference::Pin;

/// Reads the image's documents; its layers are left where they are. Mirrors are asked first; what
/// one of them lacks or gets wrong, the next may have.
///
/// # Errors
/// When the registry can't be reached, does not show us the image, or it is not what it says.
pub(crate) fn image(
    reference: &Reference,
    access: &Access,
    store: &Store,
) -> anyhow::Result<Image> {
    let mut endpoints: VecDeque<Endpoint> = access.endpoints(&reference.host)?.into();
    while let Some(endpoint) = endpoints.pop_front() {
        let host = endpoint.host.clone();
        let client = Client::new(reference, endpoint);
        match ask(&client, &reference.pin, store) {
            Err(error) if !endpoints.is_empty() => {
                let data = json!({"mirror": host, "error": format!("{error:#}")});
                log::error("registry-mirror-failed", &data);
            }
            Err(error) => return Err(error),
            Ok(image) => {
                let others = endpoints.into_iter().map(|other| Client::new(reference, other));
                let origin = std::iter::once(client).chain(others);
                return Ok(Image { origin: origin.collect(), ..image });
            }
        }
    }
    bail!("nobody to ask for {}", reference.uri)
}

fn ask(client: &Client, pin: &Pin, store: &Store) -> anyhow::Result<Image> {
    let top = match pin {
        Pin::Tag(tag) => client.manifest(tag)?,
        Pin::Digest(digest) => {
            let top = client.manifest(&digest::named(digest))?;
            manifest::check(digest, &top.text)?;
            top
        }
    };
    manifest::image(&Repository { client, store }, top)
}

struct Repository<'a> {
    client: &'a Client,
    store: &'a Store,
}

impl Documents for Repository<'_> {
    fn manifest(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        Ok(self.client.manifest(&digest::named(digest))?.text)
    }

    fn config(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        self.client.document(digest)
    }

    fn archive(&self, digest: &str) -> PathBuf {
        self.store.blob(digest)
    }
}
