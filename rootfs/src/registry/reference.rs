//! What a `docker://` URI names: a registry, a repository in it, and one of its images.

use anyhow::bail;
use guardian_contract::fault::Fault;

use crate::digest;

/// How Docker Hub is called in references, and where it answers.
pub(crate) const HUB: [&str; 2] = ["docker.io", "index.docker.io"];
pub(crate) const HUB_HOST: &str = "registry-1.docker.io";
/// Longest name that registries take.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// The URI as it was given, for messages.
    pub(crate) uri: String,
    /// `HOST[:PORT]`.
    pub(crate) host: String,
    /// The repository's name.
    pub(crate) repository: String,
    /// Which of its images.
    pub(crate) pin: Pin,
}

/// One image of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pin {
    /// A name that may be given to another image tomorrow.
    Tag(String),
    /// The digits of the manifest's SHA-256.
    Digest(String),
}

impl Reference {
    /// Takes apart what follows `docker:`. As in docker, and so in grootfs, the first part names a
    /// registry only if it looks like a host; anything else is on Docker Hub, where a name of one
    /// part belongs to `library`.
    ///
    /// # Errors
    /// When a part of it is malformed.
    pub(crate) fn parse(uri: &str, rest: &str) -> anyhow::Result<Self> {
        // Nothing of a URI with a password in it may be repeated in a message.
        if rest.trim_start_matches('/').split('/').next().is_some_and(has_user) {
            bail!(Fault::invalid("credentials don't belong into the URI of an image"));
        }
        let invalid = |what: &str| Fault::invalid(format!("image '{uri}': {what}"));
        // Garden's form of a tag is the fragment.
        let text = rest.trim_start_matches('/').replacen('#', ":", 1);
        let (host, path) = match text.split_once('/') {
            Some((host, path)) if is_host(host) => (host.to_ascii_lowercase(), path),
            _ => (HUB[0].to_owned(), text.as_str()),
        };
        let (path, digest) = match path.split_once('@') {
            Some((path, digest)) => (path, Some(digest::parse(digest)?)),
            None => (path, None),
        };
        let (name, tag) = match path.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (path, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            bail!(invalid("malformed tag"));
        }
        if name.len() > MAX_NAME || !name.split('/').all(is_component) {
            bail!(invalid("malformed name of a repository"));
        }
        let is_hub = HUB.contains(&host.as_str());
        let repository = match is_hub && !name.contains('/') {
            true => format!("library/{name}"),
            false => name.to_owned(),
        };
        let pin = match digest {
            Some(digest) => Pin::Digest(digest),
            None => Pin::Tag(tag.unwrap_or("latest").to_owned()),
        };
        let host = if is_hub { HUB_HOST.to_owned() } else { host };
        Ok(Self { uri: uri.to_owned(), host, repository, pin })
    }
}

/// Tells whether a part that should be a host, or a name with a digest, begins with `USER@` or
/// `USER:PASSWORD@`.
fn has_user(first: &str) -> bool {
    first.split_once('@').is_some_and(|(_, after)| !after.starts_with("sha256:"))
}

/// Tells whether a text can be `HOST[:PORT]` of a registry.
pub(crate) fn is_host(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-:[]_".contains(c);
    (text == "localhost" || text.contains(['.', ':'])) && text.chars().all(is_allowed)
}

/// A part of a repository's name: lower-case letters and digits, with separators between them.
fn is_component(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(is_letter)
        && text.ends_with(is_letter)
        && text.chars().all(|c| is_letter(c) || "._-".contains(c))
        && !text.contains("..")
}

/// Tells whether an image may be called so (OCI distribution specification, "Pulling manifests").
pub(crate) fn is_tag(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(is_word)
        && text.len() <= MAX_TAG
        && text.chars().all(|c| is_word(c) || ".-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> anyhow::Result<Reference> {
        Reference::parse(uri, uri.strip_prefix("docker:").unwrap())
    }

    #[test]
    fn every_form_is_understood() {
        let digits = "a".repeat(64);
        let by_digest = format!("docker:///x/y:v1@sha256:{digits}");
        for (uri, host, repository, tag) in [
            ("docker:///busybox", HUB_HOST, "library/busybox", "latest"),
            ("docker://busybox:1.37", HUB_HOST, "library/busybox", "1.37"),
            ("docker:///cfgarden/empty#v0.1.0", HUB_HOST, "cfgarden/empty", "v0.1.0"),
            (
                "docker:///library/debian#jessie-20180312",
                HUB_HOST,
                "library/debian",
                "jessie-20180312",
            ),
            ("docker://docker.io/busybox", HUB_HOST, "library/busybox", "latest"),
            ("docker://gnome.azurecr.io/alpine#3.7", "gnome.azurecr.io", "alpine", "3.7"),
            ("docker://host:5000/a/b/c:t", "host:5000", "a/b/c", "t"),
            ("docker://[::1]:5000/a:t", "[::1]:5000", "a", "t"),
            ("docker:///localhost/a", "localhost", "a", "latest"),
        ] {
            let got = parse(uri).unwrap();
            assert_eq!((got.host.as_str(), got.repository.as_str()), (host, repository), "{uri}");
            assert_eq!(got.pin, Pin::Tag(tag.into()), "{uri}");
        }
        assert_eq!(parse(&by_digest).unwrap().pin, Pin::Digest(digits));
    }

    #[test]
    fn what_could_escape_a_url_is_refused() {
        for uri in [
            "docker://",
            "docker:///",
            "docker:///Busy",
            "docker:///a/../b",
            "docker:///a//b",
            "docker:///a:b?c",
            "docker:///a:",
            "docker:///a@sha256:12",
            "docker://h:1/a%2fb",
            "docker:///a b",
            "docker:///a:b:c",
            "docker:///a@md5:x",
        ] {
            assert!(parse(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn a_password_in_the_uri_is_not_repeated() {
        let error = parse("docker://me:secret@host.example/a").unwrap_err().to_string();
        assert!(error.contains("credentials") && !error.contains("secret"), "{error}");
    }
}
