//! An image of a layout → a repository of a registry (OCI distribution spec, "Push").
//!
//! Blobs first, then the manifest, so that nobody can pull an image that is not there whole. A blob
//! that the repository has is not sent.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use guardian_contract::fault::{Fault, Kind};
use oci_spec::image::{Descriptor, ImageManifest};
use serde::Serialize;
use ureq::http::{Method, StatusCode, Uri, header};

use super::access::Access;
use super::client::Client;
use super::reference::{Pin, Reference};
use super::transport::{self, Content, Request};
use crate::digest;
use crate::layout::Layout;
use crate::manifest;
use crate::progress::{Progress, State};

/// How often a blob is sent that the registry did not get whole.
const TRIES: usize = 3;

/// What was pushed.
#[derive(Debug, Serialize)]
pub(crate) struct Pushed {
    /// Of the image's manifest.
    digest: String,
    /// Blobs that were sent.
    sent: usize,
    /// Blobs that the repository had.
    known: usize,
    /// Bytes of what was sent.
    bytes: u64,
}

/// Pushes the image with this tag of the layout in `directory`; without a tag, the only one.
///
/// # Errors
/// When there is no such image, it is not whole, or the registry does not take it.
pub(crate) fn push(
    directory: &Path,
    tag: Option<&str>,
    reference: &Reference,
    access: &Access,
    progress: &Progress,
) -> anyhow::Result<Pushed> {
    let Pin::Tag(name) = &reference.pin else {
        let uri = &reference.uri;
        bail!(Fault::invalid(format!("{uri}: an image is pushed to a tag, not to a digest")));
    };
    let layout = Layout::at(directory)?;
    let document = manifest::choose(&layout, manifest::read(&layout, &layout.find(tag)?)?)?;
    let image: ImageManifest = manifest::parse(&document.text, "image manifest")?;
    // Mirrors are for reading.
    let endpoint = access.endpoints(&reference.host)?.pop().context("no registry to push to")?;
    let client = Client::for_push(reference, endpoint);
    let digest = digest::named(&digest::of(&document.text));
    let mut pushed = Pushed { digest, sent: 0, known: 0, bytes: 0 };
    for blob in blobs(&image) {
        let digest = blob.digest().to_string();
        let mut told = progress.layer(blob.digest().digest(), blob.size());
        if has(&client, &digest)? {
            pushed.known += 1;
        } else {
            told.is(State::Upload, 0);
            let path = layout.blob(blob)?;
            send(&client, &digest, &path).with_context(|| format!("push {digest}"))?;
            pushed.sent += 1;
            pushed.bytes += blob.size();
        }
        told.is(State::Done, blob.size());
    }
    let mut request = Request::new(client.uri(&format!("manifests/{name}"))?, "*/*");
    (request.method, request.content) =
        (Method::PUT, Content::Document(document.text, document.media_type));
    let response = client.send(request)?;
    match response.status() {
        StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED => Ok(pushed),
        _ => Err(client.refusal(response)).context("push the manifest"),
    }
}

/// Layers first: without its configuration nobody takes them for an image.
fn blobs(image: &ImageManifest) -> impl Iterator<Item = &Descriptor> {
    image.layers().iter().chain(std::iter::once(image.config()))
}

fn has(client: &Client, digest: &str) -> anyhow::Result<bool> {
    let mut request = Request::new(client.uri(&format!("blobs/{digest}"))?, "*/*");
    request.method = Method::HEAD;
    let response = client.send(request)?;
    match response.status() {
        StatusCode::OK => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(client.refusal(response)).with_context(|| format!("look for {digest}")),
    }
}

/// Sends a blob, and again if it did not arrive whole.
fn send(client: &Client, digest: &str, path: &Path) -> anyhow::Result<()> {
    let mut tries = 1;
    loop {
        match send_once(client, digest, path) {
            Err(error) if tries < TRIES && Fault::of(&error).kind == Kind::Unavailable => {
                tries += 1;
            }
            done => return done,
        }
    }
}

fn send_once(client: &Client, digest: &str, path: &Path) -> anyhow::Result<()> {
    let mut request = Request::new(client.uri("blobs/uploads/")?, "*/*");
    request.method = Method::POST;
    let from = request.uri.clone();
    let response = client.send(request)?;
    if response.status() != StatusCode::ACCEPTED {
        bail!(client.refusal(response));
    }
    let location = response.headers().get(header::LOCATION);
    let location = location.and_then(|location| location.to_str().ok()).unwrap_or_default();
    let mut request = Request::new(with_digest(&from, location, digest)?, "*/*");
    (request.method, request.content) = (Method::PUT, Content::File(PathBuf::from(path)));
    let response = client.send(request)?;
    match response.status() {
        StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
        _ => bail!(client.refusal(response)),
    }
}

/// Where the registry wants the blob, with the digest it is to check it by.
fn with_digest(from: &Uri, location: &str, digest: &str) -> anyhow::Result<Uri> {
    let to = transport::redirected(from, location)?;
    let mark = if to.query().is_some() { '&' } else { '?' };
    let text = format!("{to}{mark}digest={digest}");
    text.parse().with_context(|| format!("{}: malformed upload location", transport::host(from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_joins_what_the_registry_asks_for() {
        let from: Uri = "https://r/v2/x/blobs/uploads/".parse().unwrap();
        for (location, want) in [
            ("/v2/x/blobs/uploads/1?state=a", "https://r/v2/x/blobs/uploads/1?state=a&digest=d"),
            ("https://s/put/1", "https://s/put/1?digest=d"),
        ] {
            assert_eq!(with_digest(&from, location, "d").unwrap().to_string(), want);
        }
        assert!(with_digest(&from, "http://s/put/1", "d").is_err());
        assert!(with_digest(&from, "", "d").is_err());
    }
}
