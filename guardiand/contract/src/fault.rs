//! How a failure is told: one kind for programs, one message for people.

use serde::{Deserialize, Serialize};

/// Classes of failure a caller may act on. Anything else is [`Kind::Failed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The thing named does not exist.
    NotFound,
    /// The thing named exists already.
    Exists,
    /// The request itself is wrong.
    Invalid,
    /// Not now; the same request may succeed later.
    Unavailable,
    /// A pool (ids, addresses, ports, space) is used up.
    Exhausted,
    /// This kernel, filesystem or build can't do it.
    Unsupported,
    /// The program to run is not in the container.
    ExecutableNotFound,
    /// Anything else.
    Failed,
}

/// A failure with its class.
///
/// Used as an error itself or as anyhow context: the outermost fault of a chain gives the class,
/// the whole chain gives the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The class.
    pub kind: Kind,
    /// One sentence that names the thing and the reason.
    pub message: String,
}

impl Fault {
    /// Returns a fault of this class.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Returns a [`Kind::NotFound`] fault.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Returns a [`Kind::Exists`] fault.
    pub fn exists(message: impl Into<String>) -> Self {
        Self::new(Kind::Exists, message)
    }

    /// Returns a [`Kind::Invalid`] fault.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// Returns a [`Kind::Unsupported`] fault.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// Returns the fault that a chain of errors amounts to: its message is the whole chain, its
    /// class that of the outermost fault in it.
    pub fn of(error: &anyhow::Error) -> Self {
        let kind = error.downcast_ref::<Self>().map_or(Kind::Failed, |fault| fault.kind);
        Self { kind, message: format!("{error:#}") }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_chain_keeps_its_class_and_all_its_words() {
        let error = Err::<(), _>(std::io::Error::other("disk on fire"))
            .context(Fault::exists("handle 'x' already in use"))
            .context("create bundle")
            .unwrap_err();
        let fault = Fault::of(&error);
        assert_eq!(fault.kind, Kind::Exists);
        assert_eq!(fault.message, "create bundle: handle 'x' already in use: disk on fire");
    }

    #[test]
    fn a_plain_error_is_failed() {
        assert_eq!(Fault::of(&anyhow::anyhow!("no")).kind, Kind::Failed);
    }
}
