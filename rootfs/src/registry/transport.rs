//! One HTTP request: over TLS unless told otherwise, with redirects followed and failures that
//! pass tried again.

use std::fs::File;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::log;
use ureq::http::{Method, Response, StatusCode, Uri, header};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body};

use super::tls;

/// How often a request is tried that fails in a way that may pass.
const TRIES: u32 = 4;
/// Before the second try; doubled before each further one.
const PAUSE: Duration = Duration::from_millis(250);
/// A server may ask for a longer pause, but not for a longer one than this.
const MAX_PAUSE: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 5;

/// What is sent along with a request.
#[derive(Debug, Clone, Default)]
pub(crate) enum Content {
    #[default]
    Nothing,
    /// A document and its media type.
    Document(Vec<u8>, String),
    /// A file, whole.
    File(PathBuf),
}

/// A request to be made.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Where to.
    pub(crate) uri: Uri,
    pub(crate) content: Content,
    /// Media types wanted.
    pub(crate) accept: String,
    /// The `Authorization` header, for the host of `uri` and for no other.
    pub(crate) authorization: Option<String>,
    /// How many bytes of the answer are there already.
    pub(crate) from: u64,
}

impl Request {
    pub(crate) fn new(uri: Uri, accept: &str) -> Self {
        let (method, content, accept) = (Method::GET, Content::Nothing, accept.to_owned());
        Self { method, uri, content, accept, authorization: None, from: 0 }
    }
}

/// What requests go through.
#[derive(Debug, Default)]
pub(crate) struct Transport {
    /// `HOST[:PORT]` whose certificate is not checked.
    insecure: Option<String>,
    checked: OnceLock<Agent>,
    unchecked: OnceLock<Agent>,
}

impl Transport {
    pub(crate) fn new(insecure: Option<String>) -> Self {
        Self { insecure, ..Self::default() }
    }

    /// Makes the request and returns the answer, whatever its status, after redirects.
    ///
    /// # Errors
    /// `Unavailable` when there is no answer.
    pub(crate) fn send(&self, request: &Request) -> anyhow::Result<Response<Body>> {
        let first = origin(&request.uri);
        let mut request = request.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut response = self.send_patiently(&request)?;
            if origin(&request.uri) != first {
                // It may not ask who we are.
                response.headers_mut().remove(header::WWW_AUTHENTICATE);
            }
            // Others than these two turn what is sent into a GET (RFC 9110, 15.4).
            let is_kept = matches!(response.status().as_u16(), 307 | 308);
            let is_redirect =
                response.status().is_redirection() && (request.method.is_safe() || is_kept);
            let Some(location) = response.headers().get(header::LOCATION).filter(|_| is_redirect)
            else {
                return Ok(response);
            };
            let to = redirected(&request.uri, location.to_str().unwrap_or_default())?;
            if origin(&to) != origin(&request.uri) {
                request.authorization = None;
            }
            request.uri = to;
        }
        bail!(Fault::invalid(format!(
            "{}: more than {MAX_REDIRECTS} redirects",
            host(&request.uri)
        )))
    }

    /// Tells whether a TLS server answers at `uri`.
    pub(crate) fn speaks_tls(&self, uri: &Uri) -> bool {
        let request = Request::new(uri.clone(), "*/*");
        self.try_once(&request).is_ok_and(|answer| answer.is_ok())
    }

    /// Tries again what may pass: a lost connection, an overloaded server. A file is sent once, because
    /// its sender has to ask for a new place to send it to.
    fn send_patiently(&self, request: &Request) -> anyhow::Result<Response<Body>> {
        let mut pause = PAUSE;
        let tries = if matches!(request.content, Content::File(_)) { 1 } else { TRIES };
        for left in (0..tries).rev() {
            let answer = self.try_once(request)?;
            let wait = match &answer {
                Ok(response) if passes(response.status()) => asked_pause(response).unwrap_or(pause),
                Err(error) if may_pass(error) => pause,
                _ => return answer.map_err(|error| told(request, error)),
            };
            if left == 0 {
                return answer.map_err(|error| told(request, error));
            }
            let why = match &answer {
                Ok(response) => response.status().to_string(),
                Err(error) => error.to_string(),
            };
            let data = serde_json::json!({"host": host(&request.uri), "reason": why});
            log::info("registry-try-again", &data);
            std::thread::sleep(wait.min(MAX_PAUSE) + spread(pause));
            pause *= 2;
        }
        bail!("no try left")
    }

    fn try_once(&self, request: &Request) -> anyhow::Result<Result<Response<Body>, ureq::Error>> {
        let agent = self.agent(&request.uri)?;
        let mut call = ureq::http::Request::builder().method(&request.method).uri(&request.uri);
        call = call.header(header::ACCEPT, &request.accept);
        if let Some(authorization) = &request.authorization {
            call = call.header(header::AUTHORIZATION, authorization);
        }
        if request.from > 0 {
            call = call.header(header::RANGE, format!("bytes={}-", request.from));
        }
        Ok(match &request.content {
            Content::Nothing if request.method.is_safe() => agent.run(call.body(())?),
            // Without a length some registries take no request that may have a body.
            Content::Nothing => agent.run(call.body(&b""[..])?),
            Content::Document(text, media_type) => {
                agent.run(call.header(header::CONTENT_TYPE, media_type).body(&text[..])?)
            }
            Content::File(path) => {
                let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
                let media_type = "application/octet-stream";
                agent.run(call.header(header::CONTENT_TYPE, media_type).body(file)?)
            }
        })
    }

    fn agent(&self, uri: &Uri) -> anyhow::Result<&Agent> {
        let is_insecure = uri.authority().map(|at| at.as_str()) == self.insecure.as_deref();
        let (agent, tls) = match is_insecure {
            true => (&self.unchecked, TlsConfig::builder().disable_verification(true).build()),
            false if uri.scheme_str() == Some("https") => match self.checked.get() {
                Some(agent) => return Ok(agent),
                None => (&self.checked, TlsConfig::builder().root_certs(tls::roots()?).build()),
            },
            false => (&self.unchecked, TlsConfig::builder().build()),
        };
        Ok(agent.get_or_init(|| new_agent(tls)))
    }
}

/// An agent that does nothing of its own accord: no redirects, no errors made of statuses.
fn new_agent(tls: TlsConfig) -> Agent {
    // An error would say that another thread was first, with the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("guardian-rootfs/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(15)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .timeout_per_write(Some(Duration::from_secs(60)))
        .build()
        .new_agent()
}

/// A part of `pause` that differs from process to process: those who failed at the same time
/// should not come back at the same time.
fn spread(pause: Duration) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    pause * (now.subsec_micros().wrapping_add(std::process::id()) % 100) / 200
}

/// Tells whether the server may think better of this status.
fn passes(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

fn may_pass(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(_) => tls::failure(error).is_none(),
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => true,
        ureq::Error::Protocol(_) => true,
        _ => false,
    }
}

/// How long the server wants us to wait (RFC 9110, 10.2.3).
fn asked_pause(response: &Response<Body>) -> Option<Duration> {
    let text = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

/// Where a redirect leads: only what URLs of registries need of RFC 3986, 5.2.
pub(crate) fn redirected(from: &Uri, location: &str) -> anyhow::Result<Uri> {
    let invalid = || Fault::invalid(format!("{}: malformed redirect", host(from)));
    let scheme = from.scheme_str().unwrap_or_default();
    let absolute = match location {
        path if path.starts_with("//") => format!("{scheme}:{path}"),
        path if path.starts_with('/') => {
            format!("{scheme}://{}{path}", from.authority().map_or("", |at| at.as_str()))
        }
        _ => location.to_owned(),
    };
    let to: Uri = absolute.parse().map_err(|_| invalid())?;
    match (scheme, to.scheme_str()) {
        (_, Some("https")) | ("http", Some("http")) if to.host().is_some() => Ok(to),
        (_, Some("http")) => {
            bail!(Fault::invalid(format!("{}: refused a redirect from https to http", host(from))))
        }
        _ => bail!(invalid()),
    }
}

/// Two URLs with the same one lead to the same server.
pub(crate) fn origin(uri: &Uri) -> (Option<&str>, Option<&str>, Option<u16>) {
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    (uri.scheme_str(), uri.host(), Some(uri.port_u16().unwrap_or(usual)))
}

/// The server's name, for messages: the rest of a URL may be a secret.
pub(crate) fn host(uri: &Uri) -> &str {
    uri.authority().map_or("", |authority| authority.as_str())
}

/// Says why there is no answer.
fn told(request: &Request, error: ureq::Error) -> anyhow::Error {
    let host = host(&request.uri);
    if let Some(fault) = tls::failure(&error).and_then(|failure| tls::explain(host, failure)) {
        return fault.into();
    }
    let text = format!("registry {host} can't be reached");
    anyhow::Error::new(error).context(Fault::new(Kind::Unavailable, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_may() {
        let from: Uri = "https://a:1/v2/x".parse().unwrap();
        for (location, want) in
            [("/y?z", "https://a:1/y?z"), ("//b/y", "https://b/y"), ("https://b/y", "https://b/y")]
        {
            assert_eq!(redirected(&from, location).unwrap().to_string(), want);
        }
        for location in ["http://a:1/y", "ftp://a/y", "y", "", "https:///y", "file:///etc/passwd"] {
            assert!(redirected(&from, location).is_err(), "{location}");
        }
        let from: Uri = "http://a/v2/x".parse().unwrap();
        assert!(redirected(&from, "http://b/y").is_ok());
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| {
            origin(&a.parse::<Uri>().unwrap()) == origin(&b.parse::<Uri>().unwrap())
        };
        assert!(same("https://a/x", "https://a:443/y"));
        for other in ["https://a:444/x", "http://a/x", "https://b/x", "https://a.b/x"] {
            assert!(!same("https://a/x", other), "{other}");
        }
    }
}
