//! A repository of a registry, read over the registry API (OCI distribution spec, "Pull").

use std::io::Read;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use guardian_contract::fault::{Fault, Kind};
use serde::Deserialize;
use ureq::Body;
use ureq::http::uri::Authority;
use ureq::http::{Response, StatusCode, Uri, header};

use super::access::{Credentials, Endpoint, Security};
use super::challenge::Challenge;
use super::reference::Reference;
use super::token;
use super::transport::{self, Request, Transport};
use crate::manifest::{self, MAX_DOCUMENT};

/// How long a document may take to come.
const DOCUMENT_TIME: Duration = Duration::from_secs(120);

/// A repository; threads may share it.
#[derive(Debug)]
pub(crate) struct Client {
    reference: Reference,
    /// What tokens are asked for: `pull`, or `pull,push`.
    actions: &'static str,
    endpoint: Endpoint,
    transport: Transport,
    /// `http` or `https`, once it is known.
    scheme: OnceLock<&'static str>,
    /// The `Authorization` header that the registry took last.
    authorization: Mutex<Option<String>>,
}

impl Client {
    /// Returns a client that asks `endpoint` for the reference's repository.
    pub(crate) fn new(reference: &Reference, endpoint: Endpoint) -> Self {
        Self::with_actions(reference, endpoint, "pull")
    }

    /// Returns a client that may change the repository as well.
    pub(super) fn for_push(reference: &Reference, endpoint: Endpoint) -> Self {
        Self::with_actions(reference, endpoint, "pull,push")
    }

    fn with_actions(reference: &Reference, endpoint: Endpoint, actions: &'static str) -> Self {
        let is_tls = endpoint.security == Security::Tls;
        let transport = Transport::new((!is_tls).then(|| endpoint.host.clone()));
        let (scheme, authorization) = (OnceLock::new(), Mutex::new(None));
        let reference = reference.clone();
        Self { reference, actions, endpoint, transport, scheme, authorization }
    }

    /// A server that may be insecure is asked first whether it can't do better.
    fn scheme(&self) -> anyhow::Result<&'static str> {
        let host = &self.endpoint.host;
        let secure: Uri = format!("https://{host}/v2/")
            .parse()
            .map_err(|_| Fault::invalid(format!("'{host}' is not a registry's address")))?;
        Ok(self.scheme.get_or_init(|| match self.endpoint.security {
            Security::Plain => "http",
            Security::Any if !self.transport.speaks_tls(&secure) => "http",
            Security::Any | Security::Tls => "https",
        }))
    }

    /// Fetches a manifest or an index and its media type.
    ///
    /// # Errors
    /// When there is none, or it is larger than [`MAX_DOCUMENT`].
    pub(crate) fn manifest(&self, name: &str) -> anyhow::Result<manifest::Document> {
        let accept = [manifest::MANIFESTS, manifest::INDEXES].concat().join(", ");
        let response = self.get(&format!("manifests/{name}"), &accept, 0)?;
        let media_type = response.headers().get(header::CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let text = bounded(response, MAX_DOCUMENT, "image manifest")?;
        Ok(manifest::Document { text, media_type })
    }

    /// Fetches a blob that is a document.
    ///
    /// # Errors
    /// When there is none, or it is larger than [`MAX_DOCUMENT`].
    pub(crate) fn document(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        bounded(self.blob(digest, 0)?, MAX_DOCUMENT, "image configuration")
    }

    /// Asks for a blob without its first `from` bytes, which the registry may send nevertheless.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn blob(&self, digest: &str, from: u64) -> anyhow::Result<Response<Body>> {
        self.get(&format!("blobs/sha256:{digest}"), "*/*", from)
    }

    /// Gets something of the repository, and shows who we are when the registry asks for it.
    fn get(&self, path: &str, accept: &str, from: u64) -> anyhow::Result<Response<Body>> {
        let request = Request { from, ..Request::new(self.uri(path)?, accept) };
        let response = self.send(request)?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(response)
            }
            _ => bail!(self.refusal(response)),
        }
    }

    /// Returns the URL of something of the repository.
    pub(super) fn uri(&self, path: &str) -> anyhow::Result<Uri> {
        let (host, repository) = (&self.endpoint.host, &self.reference.repository);
        let uri = format!("{}://{host}/v2/{repository}/{path}", self.scheme()?);
        uri.parse().context("make a URL of the reference")
    }

    /// Sends a request to the registry, and shows who we are when it asks for it. Elsewhere nobody is
    /// told.
    pub(super) fn send(&self, mut request: Request) -> anyhow::Result<Response<Body>> {
        let own = self.uri("")?;
        if transport::origin(&request.uri) != transport::origin(&own) {
            return self.transport.send(&request);
        }
        request.authorization = self.known_authorization();
        let response = self.transport.send(&request)?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        request.authorization = Some(self.authorize(&response)?);
        self.transport.send(&request)
    }

    /// Says why the registry did not do what it was asked.
    pub(super) fn refusal(&self, response: Response<Body>) -> Fault {
        let host = &self.endpoint.host;
        match response.status() {
            StatusCode::UNAUTHORIZED if self.is_basic(&response) => self.wrong_password(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.denied(),
            StatusCode::NOT_FOUND => {
                Fault::not_found(format!("{} ({})", self.denied().message, reason(response)))
            }
            status => {
                let text = format!("registry {host} answers {status}: {}", reason(response));
                Fault::new(Kind::Unavailable, text)
            }
        }
    }

    fn known_authorization(&self) -> Option<String> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the `Authorization` header that answers the challenge in `response`.
    fn authorize(&self, response: &Response<Body>) -> anyhow::Result<String> {
        let authorization = match (challenge(response), &self.endpoint.credentials) {
            (Some(Challenge::Bearer { realm, service }), _) => {
                format!("Bearer {}", self.token(&realm, service.as_deref())?)
            }
            (Some(Challenge::Basic), Some(credentials)) => credentials.basic(),
            _ => bail!(self.denied()),
        };
        let mut known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(authorization.clone());
        Ok(authorization)
    }

    /// Fetches a token for this repository.
    fn token(&self, realm: &str, service: Option<&str>) -> anyhow::Result<String> {
        let host = &self.endpoint.host;
        let uri = token::uri(realm, service, &self.reference.repository, self.actions)
            .ok_or_else(|| Fault::invalid(format!("registry {host}: malformed token service")))?;
        let own: Option<Authority> = host.parse().ok();
        let is_own = own.is_some_and(|own| uri.host() == Some(own.host()));
        let may_be_plain = self.endpoint.security != Security::Tls && is_own;
        if uri.scheme_str() != Some("https") && !may_be_plain {
            let text = format!("registry {host}: its token service is not secured by TLS");
            bail!(Fault::invalid(text));
        }
        let authorization = self.endpoint.credentials.as_ref().map(Credentials::basic);
        let request = Request { authorization, ..Request::new(uri, "application/json") };
        let response = self.transport.send(&request)?;
        let at = transport::host(&request.uri);
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => bail!(self.wrong_password()),
            status => {
                let text = format!("token service {at} answers {status}");
                bail!(Fault::new(Kind::Unavailable, text));
            }
        }
        let text = bounded(response, token::MAX_ANSWER, "answer of the token service")?;
        token::parse(&text).with_context(|| format!("token service {at}"))
    }

    fn is_basic(&self, response: &Response<Body>) -> bool {
        self.endpoint.credentials.is_some() && challenge(response) == Some(Challenge::Basic)
    }

    /// The text is grootfs'. Registries don't tell what is absent from what is private.
    fn denied(&self) -> Fault {
        let uri = &self.reference.uri;
        Fault::not_found(format!("{uri} does not exist or you do not have permissions to see it."))
    }

    /// The text is grootfs'.
    fn wrong_password(&self) -> Fault {
        match self.endpoint.credentials {
            Some(_) => Fault::invalid("authorization failed: username and password are invalid"),
            None => self.denied(),
        }
    }
}

/// The first challenge that we understand.
fn challenge(response: &Response<Body>) -> Option<Challenge> {
    let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
    headers.iter().filter_map(|value| value.to_str().ok()).find_map(Challenge::parse)
}

/// Reads an answer of at most `most` bytes.
fn bounded(response: Response<Body>, most: u64, what: &str) -> anyhow::Result<Vec<u8>> {
    let too_large = || Fault::invalid(format!("{what} is larger than {most} bytes"));
    if response.body().content_length().is_some_and(|length| length > most) {
        bail!(too_large());
    }
    let end = Instant::now() + DOCUMENT_TIME;
    let mut body = response.into_body().into_reader();
    let (mut text, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let length = body.read(&mut buffer).with_context(|| format!("read {what}"))?;
        if length == 0 {
            return Ok(text);
        }
        text.extend_from_slice(&buffer[..length]);
        if text.len() as u64 > most {
            bail!(too_large());
        }
        if Instant::now() > end {
            let text = format!("{what} takes more than {} seconds", DOCUMENT_TIME.as_secs());
            bail!(Fault::new(Kind::Unavailable, text));
        }
    }
}

/// What the registry says of a failure, in short (OCI distribution spec, "Error Codes").
fn reason(response: Response<Body>) -> String {
    #[derive(Deserialize)]
    struct Failure {
        message: Option<String>,
    }
    #[derive(Deserialize)]
    struct Failures {
        errors: Vec<Failure>,
    }
    let status = response.status();
    let told = bounded(response, 16 << 10, "failure").ok();
    let told = told.and_then(|text| serde_json::from_slice::<Failures>(&text).ok());
    let first = told.and_then(|told| told.errors.into_iter().find_map(|one| one.message));
    let text = first.unwrap_or_else(|| status.canonical_reason().unwrap_or("failure").to_owned());
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
