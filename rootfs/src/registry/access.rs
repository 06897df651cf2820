//! What the caller grants for talking to a registry.

use std::convert::Infallible;
use std::str::FromStr;

use base64::Engine;

/// A password; it does not show itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
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
        let pair = format!("{}:{}", self.username, self.password.0);
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    }
}

/// How registries may be talked to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// Who we are.
    pub(crate) credentials: Option<Credentials>,
    /// Registries, `HOST[:PORT]`, whose certificate does not matter and that may speak plain HTTP.
    pub(crate) insecure: Vec<String>,
}

impl Access {
    pub(crate) fn is_insecure(&self, host: &str) -> bool {
        self.insecure.iter().any(|insecure| insecure.eq_ignore_ascii_case(host))
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
}
