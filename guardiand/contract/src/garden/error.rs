//! The error object that every failing call answers with.

use serde::{Deserialize, Serialize};

/// [`ApiError::kind`] of an unknown container.
pub const CONTAINER_NOT_FOUND: &str = "ContainerNotFoundError";
/// [`ApiError::kind`] of an unknown process.
pub const PROCESS_NOT_FOUND: &str = "ProcessNotFoundError";
/// [`ApiError::kind`] of a program that is not in the container.
pub const EXECUTABLE_NOT_FOUND: &str = "ExecutableNotFoundError";
/// [`ApiError::kind`] of something that can't be served now.
pub const SERVICE_UNAVAILABLE: &str = "ServiceUnavailableError";
/// [`ApiError::kind`] of a server that can't recover by itself.
pub const UNRECOVERABLE: &str = "UnrecoverableError";

/// An error on the wire. All five members are always written, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ApiError {
    /// One of the constants above, or empty.
    #[serde(rename = "Type")]
    pub kind: String,
    /// For people.
    pub message: String,
    /// The unknown handle.
    pub handle: String,
    /// The unknown process.
    #[serde(rename = "ProcessID")]
    pub process_id: String,
    /// Never filled.
    pub binary: String,
}

impl ApiError {
    /// Returns an error without a type: any failure.
    pub fn other(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// Returns an error of one of the types that carry a message only.
    pub fn typed(kind: &str, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), ..Self::default() }
    }

    /// Returns the error for an unknown container.
    pub fn container_not_found(handle: &str) -> Self {
        let message = format!("unknown handle: {handle}");
        Self { handle: handle.into(), ..Self::typed(CONTAINER_NOT_FOUND, message) }
    }

    /// Returns the error for an unknown process.
    pub fn process_not_found(process_id: &str) -> Self {
        let message = format!("unknown process: {process_id}");
        Self { process_id: process_id.into(), ..Self::typed(PROCESS_NOT_FOUND, message) }
    }

    /// Returns the HTTP status: 404 for what is not found, 500 for all else; there is no other.
    pub fn status(&self) -> u16 {
        match self.kind.as_str() {
            CONTAINER_NOT_FOUND | PROCESS_NOT_FOUND => 404,
            _ => 500,
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_look_like_gdn_s() {
        assert_eq!(
            serde_json::to_string(&ApiError::container_not_found("h1")).unwrap(),
            r#"{"Type":"ContainerNotFoundError","Message":"unknown handle: h1","Handle":"h1","ProcessID":"","Binary":""}"#
        );
        assert_eq!(
            serde_json::to_string(&ApiError::process_not_found("p9")).unwrap(),
            r#"{"Type":"ProcessNotFoundError","Message":"unknown process: p9","Handle":"","ProcessID":"p9","Binary":""}"#
        );
    }
}
