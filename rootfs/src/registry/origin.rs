//! Who is asked for a layer's archive: a registry, or a server that has it under a URL.

use anyhow::bail;
use guardian_contract::fault::{Fault, Kind};
use ureq::Body;
use ureq::http::{Method, Response, StatusCode, Uri};

use super::client::Client;
use super::transport::{self, Request, Transport};
use crate::layer::Layer;
use crate::store::Store;

/// Somebody to ask.
#[derive(Debug)]
pub(crate) enum Origin<'a> {
    /// A repository.
    Registry(&'a Client),
    /// One archive.
    Url(Uri, Box<Transport>),
}

impl Origin<'_> {
    /// Returns the server of a URL.
    ///
    /// # Errors
    /// `Invalid` for what is no URL of HTTP.
    pub(crate) fn url(text: &str) -> anyhow::Result<Self> {
        let uri = text.parse::<Uri>().ok();
        let is_http = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
        match uri.filter(is_http) {
            Some(uri) => Ok(Self::Url(uri, Box::new(Transport::new(None)))),
            None => bail!(Fault::invalid("a layer's URL is http://… or https://…")),
        }
    }

    /// Asks for an archive without its first `from` bytes, which may be sent nevertheless.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn blob(&self, digest: &str, from: u64) -> anyhow::Result<Response<Body>> {
        match self {
            Self::Registry(client) => client.blob(digest, from),
            Self::Url(uri, transport) => {
                let request = Request { from, ..Request::new(uri.clone(), "*/*") };
                checked(uri, transport.send(&request)?)
            }
        }
    }

    /// Returns how many bytes the archive of a URL has.
    ///
    /// # Errors
    /// When there is none, or its server does not say.
    pub(crate) fn size(&self) -> anyhow::Result<u64> {
        let Self::Url(uri, transport) = self else { bail!("a registry's manifest tells sizes") };
        let request = Request { method: Method::HEAD, ..Request::new(uri.clone(), "*/*") };
        let response = checked(uri, transport.send(&request)?)?;
        let length = response.headers().get(ureq::http::header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        length.ok_or_else(|| {
            let host = transport::host(uri);
            Fault::unsupported(format!("{host} does not say how long the layer is")).into()
        })
    }
}

/// Asks how long the archive of a layer under a URL is, if nothing says so and the store lacks the layer.
///
/// # Errors
/// As [`Origin::size`].
pub(crate) fn measure(layer: &mut Layer, store: &Store) -> anyhow::Result<()> {
    let Some(url) = layer.blob.urls.first() else { return Ok(()) };
    let origin = Origin::url(url)?;
    if layer.blob.size == 0 && layer.find(store)?.is_none() {
        layer.blob.size = origin.size()?;
    }
    Ok(())
}

fn checked(uri: &Uri, response: Response<Body>) -> anyhow::Result<Response<Body>> {
    let status = response.status();
    let host = transport::host(uri);
    match status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
            Ok(response)
        }
        StatusCode::NOT_FOUND => bail!(Fault::not_found(format!("{host} does not have the layer"))),
        _ => {
            let text = format!("{host} answers {status} when asked for the layer");
            bail!(Fault::new(Kind::Unavailable, text))
        }
    }
}
