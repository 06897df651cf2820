//! What the caller grants for talking to registries.

use std::convert::Infallible;
use std::str::FromStr;

use base64::Engine;
use guardian_contract::fault::Fault;
use serde::Deserialize;

use super::docker_config::DockerConfig;
use super::reference::{HUB, HUB_HOST, is_host};

/// A password or a token; it does not show itself.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// A user of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The user's name.
    pub(crate) username: String,
    /// The password.
    pub(crate) password: Secret,
}

impl Credentials {
    /// Returns the value of the `Authorization` header (RFC 7617).
    pub(crate) fn basic(&self) -> String {
        let pair = format!("{}:{}", self.username, self.password.reveal());
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    }
}

/// A server that has a registry's images, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// The registry.
    of: String,
    /// The server, `HOST[:PORT]`.
    host: String,
    /// Whether its URL says `http`.
    is_plain: bool,
}

impl FromStr for Mirror {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let invalid = || Fault::invalid("a mirror is HOST[:PORT]=http[s]://HOST[:PORT]");
        let (of, url) = text.split_once('=').ok_or_else(invalid)?;
        let (scheme, host) = url.split_once("://").ok_or_else(invalid)?;
        let host = host.trim_end_matches('/');
        if !is_host(of) || !is_host(host) || !["http", "https"].contains(&scheme) {
            return Err(invalid());
        }
        let of = if HUB.contains(&of) { HUB_HOST } else { of };
        Ok(Self { of: of.to_owned(), host: host.to_owned(), is_plain: scheme == "http" })
    }
}

/// How registries may be talked to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// Who we are at the registry of the image.
    pub(crate) credentials: Option<Credentials>,
    /// Who we are at any registry, if `credentials` don't say.
    pub(crate) config: DockerConfig,
    /// Registries, `HOST[:PORT]`, whose certificate does not matter and that may speak plain HTTP.
    pub(crate) insecure: Vec<String>,
    /// Servers to be asked before the registry.
    pub(crate) mirrors: Vec<Mirror>,
    /// Whether layers of an image layout are taken without a look at their digests; nothing else is.
    pub(crate) skip_layer_validation: bool,
}

/// A server to be asked for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `HOST[:PORT]`.
    pub(crate) host: String,
    /// How it may be talked to.
    pub(crate) security: Security,
    /// Who we are there.
    pub(crate) credentials: Option<Credentials>,
}

/// How a server may be talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    /// TLS with a certificate that the host trusts.
    Tls,
    /// TLS with any certificate, or plain HTTP if there is no TLS.
    Any,
    /// Plain HTTP.
    Plain,
}

impl Access {
    /// Returns who is to be asked for images of the registry `host`, in this order.
    ///
    /// # Errors
    /// When docker's configuration asks for what we can't do.
    pub(crate) fn endpoints(&self, host: &str) -> anyhow::Result<Vec<Endpoint>> {
        let mut endpoints = Vec::new();
        for mirror in self.mirrors.iter().filter(|mirror| mirror.of == host) {
            endpoints.push(Endpoint {
                host: mirror.host.clone(),
                security: if mirror.is_plain {
                    Security::Plain
                } else {
                    self.security(&mirror.host)
                },
                // The caller's credentials are the registry's business alone.
                credentials: self.config.credentials(&mirror.host)?,
            });
        }
        let credentials = match &self.credentials {
            Some(credentials) => Some(credentials.clone()),
            None => self.config.credentials(host)?,
        };
        endpoints.push(Endpoint { host: host.into(), security: self.security(host), credentials });
        Ok(endpoints)
    }

    fn security(&self, host: &str) -> Security {
        match self.insecure.iter().any(|insecure| insecure.eq_ignore_ascii_case(host)) {
            true => Security::Any,
            false => Security::Tls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_show_itself() {
        let password = "open sesame".parse().unwrap();
        let credentials = Credentials { username: "Aladdin".into(), password };
        assert_eq!(credentials.basic(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(!format!("{credentials:?}").contains("sesame"));
    }

    #[test]
    fn mirrors_come_first_and_without_the_caller_s_credentials() {
        let me = Credentials { username: "me".into(), password: "x".into() };
        let access = Access {
            credentials: Some(me.clone()),
            mirrors: [
                "docker.io=https://m.example/",
                "docker.io=http://n:80",
                "o.example=http://p:1",
            ]
            .map(|text| text.parse().unwrap())
            .to_vec(),
            insecure: vec!["M.example".into()],
            ..Access::default()
        };
        let endpoints = access.endpoints(HUB_HOST).unwrap();
        let got: Vec<_> = endpoints
            .iter()
            .map(|at| (at.host.as_str(), at.security, at.credentials.as_ref()))
            .collect();
        assert_eq!(
            got,
            [
                ("m.example", Security::Any, None),
                ("n:80", Security::Plain, None),
                (HUB_HOST, Security::Tls, Some(&me)),
            ]
        );
        for bad in ["", "docker.io", "docker.io=m.example", "a b=https://m", "x.y=https://m.z/p"] {
            assert!(bad.parse::<Mirror>().is_err(), "{bad}");
        }
    }
}
