//! docker's configuration file, as `docker login` writes it: who we are at which registry.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guardian_contract::fault::Fault;
use serde::Deserialize;

use super::access::{Credentials, Secret};
use super::reference::{HUB, HUB_HOST};

/// What we use of the file; its `Debug` shows no secret.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DockerConfig {
    auths: HashMap<String, Entry>,
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// `USER:PASSWORD` in base64.
    auth: Secret,
    username: String,
    password: Secret,
    identitytoken: Secret,
}

impl DockerConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// When it can't be read or is malformed; the message does not quote it.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let told = || format!("read docker's configuration {}", path.display());
        let text = std::fs::read(path).with_context(told)?;
        serde_json::from_slice(&text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let text = format!("{} is malformed: line {line} column {column}", path.display());
            Fault::invalid(text).into()
        })
    }

    /// Returns who we are at the registry `host`; `None` for nobody.
    ///
    /// # Errors
    /// `Unsupported` where a program would have to be asked, `Invalid` for a malformed entry.
    pub(crate) fn credentials(&self, host: &str) -> anyhow::Result<Option<Credentials>> {
        let is_hers = |key: &str| canonical(key) == canonical(host);
        if let Some((_, helper)) = self.cred_helpers.iter().find(|(key, _)| is_hers(key)) {
            bail!(helped(host, helper));
        }
        let Some((_, entry)) = self.auths.iter().find(|(key, _)| is_hers(key)) else {
            return Ok(None);
        };
        match (entry, &self.creds_store) {
            (entry, _) if !entry.identitytoken.is_empty() => bail!(Fault::unsupported(format!(
                "docker's configuration has an identity token for {host}; only user and password \
                 are supported"
            ))),
            (entry, _) if !entry.auth.is_empty() => entry.decode(host).map(Some),
            (entry, _) if !entry.username.is_empty() => Ok(Some(Credentials {
                username: entry.username.clone(),
                password: entry.password.clone(),
            })),
            (_, Some(helper)) => bail!(helped(host, helper)),
            (_, None) => Ok(None),
        }
    }
}

impl Entry {
    fn decode(&self, host: &str) -> anyhow::Result<Credentials> {
        let pair = STANDARD.decode(self.auth.reveal().trim()).ok();
        let pair = pair.and_then(|pair| String::from_utf8(pair).ok());
        let (username, password) =
            pair.as_deref().and_then(|pair| pair.split_once(':')).ok_or_else(|| {
                Fault::invalid(format!("docker's configuration: malformed 'auth' for {host}"))
            })?;
        Ok(Credentials { username: username.to_owned(), password: Secret::from(password) })
    }
}

fn helped(host: &str, helper: &str) -> Fault {
    Fault::unsupported(format!(
        "docker's configuration leaves {host} to docker-credential-{helper}; credential helpers \
         are not supported"
    ))
}

/// Docker Hub has many names, and `docker login` writes a URL for it; other registries may stand
/// there as URLs, too.
fn canonical(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    if HUB.contains(&key) { HUB_HOST } else { key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guardian_contract::fault::Kind;

    fn config() -> DockerConfig {
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "bWU6YTpi"},
            "plain:5000": {"username": "you", "password": "b"},
            "stored.example": {},
            "token.example": {"identitytoken": "x", "auth": "bWU6YTpi"},
            "broken.example": {"auth": "%%"}},
            "credHelpers": {"helped.example": "ecr"}, "credsStore": "pass", "other": 1}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_registry_s_entry_is_found() {
        let who = |host: &str| {
            let found = config().credentials(host).unwrap();
            found.map(|found| (found.username.clone(), found.password.reveal().to_owned()))
        };
        assert_eq!(who("registry-1.docker.io"), Some(("me".into(), "a:b".into())));
        assert_eq!(who("plain:5000"), Some(("you".into(), "b".into())));
        for host in ["plain", "plain:5001", "unknown.example"] {
            assert_eq!(who(host), None, "{host}");
        }
    }

    #[test]
    fn what_we_can_t_do_is_said() {
        for (host, kind, want) in [
            ("helped.example", Kind::Unsupported, "docker-credential-ecr"),
            ("stored.example", Kind::Unsupported, "docker-credential-pass"),
            ("token.example", Kind::Unsupported, "identity token"),
            ("broken.example", Kind::Invalid, "malformed"),
        ] {
            let fault = Fault::of(&config().credentials(host).unwrap_err());
            assert!(fault.kind == kind && fault.message.contains(want), "{}", fault.message);
        }
        assert!(!format!("{:?}", config()).contains("bWU6"));
    }
}
