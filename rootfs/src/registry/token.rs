//! Token services (docker's "Token Authentication Specification").

use anyhow::Context;
use guardian_contract::fault::Fault;
use serde::Deserialize;
use ureq::http::Uri;

/// Largest answer; tokens have a few kilobytes.
pub(super) const MAX_ANSWER: u64 = 256 << 10;

/// What a registry must not choose for us: whom our credentials are used for, and for what.
const OURS: [&str; 3] = ["scope", "service", "account"];

/// Returns the URL at which the service `realm` gives a token for these actions on `repository`, and
/// for nothing else; `None` for a malformed one.
pub(super) fn uri(
    realm: &str,
    service: Option<&str>,
    repository: &str,
    actions: &str,
) -> Option<Uri> {
    let realm: Uri = realm.parse().ok()?;
    let (scheme, at) = (realm.scheme_str()?, realm.authority()?);
    let given = realm.query().unwrap_or_default().split('&');
    let is_ours = |pair: &&str| {
        let key = pair.split('=').next().unwrap_or_default();
        // An escaped key could be one of ours in disguise.
        key.is_empty() || key.contains('%') || OURS.contains(&key)
    };
    let mut query: Vec<String> = given.filter(|pair| !is_ours(pair)).map(str::to_owned).collect();
    query.extend(service.map(|service| format!("service={}", escaped(service))));
    query.push(format!("scope=repository:{repository}:{actions}"));
    format!("{scheme}://{at}{}?{}", realm.path(), query.join("&")).parse().ok()
}

/// Returns the token in a service's answer.
///
/// # Errors
/// When there is none.
pub(super) fn parse(answer: &[u8]) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    // The parser quotes what it stumbles over, and that may be the token.
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|error| Fault::invalid(format!("malformed answer, column {}", error.column())))?;
    let token = answer.token.or(answer.access_token).filter(|token| is_sendable(token));
    token.context(Fault::invalid("no token in its answer"))
}

/// It becomes part of a header.
fn is_sendable(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Escapes what has a meaning in a query.
fn escaped(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte);
    text.bytes()
        .map(|byte| match is_plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_asked_for_one_repository() {
        let scope = "scope=repository:a/b:pull";
        for (realm, service, want) in [
            ("https://t", None, format!("https://t/?{scope}")),
            (
                "https://t/x?y=z",
                Some("r & s"),
                format!("https://t/x?y=z&service=r%20%26%20s&{scope}"),
            ),
            (
                "https://t/x?scope=repository:c:pull&s%63ope=d&account=root&k",
                None,
                format!("https://t/x?k&{scope}"),
            ),
        ] {
            assert_eq!(uri(realm, service, "a/b", "pull").unwrap().to_string(), want);
        }
        for bad in ["", "/x", "t", "https://"] {
            assert_eq!(uri(bad, None, "a", "pull"), None, "{bad}");
        }
    }

    #[test]
    fn a_token_can_be_sent() {
        assert_eq!(parse(br#"{"token":"a.b"}"#).unwrap(), "a.b");
        assert_eq!(parse(br#"{"access_token":"a","x":1}"#).unwrap(), "a");
        for bad in [&b"{}"[..], br#"{"token":""}"#, br#"{"token":"a\nb"}"#, b"secret"] {
            let error = format!("{:#}", parse(bad).unwrap_err());
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
