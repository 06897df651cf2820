//! The image plugin: `BIN <extra>* create|delete|stats|capacity`, as gdn calls grootfs.
//!
//! Failures are told as plain text on stdout with exit code 1; logs go to stderr.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::depot::{Handle, ImageProcess, Root};

/// What `create` prints: a fragment of an OCI runtime configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fragment {
    /// `root.path` is the container's root filesystem.
    pub root: Root,
    /// `process.env` is the image's environment.
    pub process: ImageProcess,
    /// Mounts that come before all others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Value>,
    /// Copied whole into the bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<Value>,
}

/// What is asked of `create`.
#[derive(Clone, Default)]
pub struct Create {
    /// Quota in bytes; 0 is none.
    pub disk_limit_bytes: u64,
    /// Most inodes; 0 is none. Only our own plugin has a flag for it, so it is not part of `argv`.
    pub inode_limit: u64,
    /// Whether only the container's own writes count.
    pub exclude_image_from_quota: bool,
    /// Registry user; empty is none.
    pub username: String,
    /// Registry password; empty is none.
    pub password: String,
    /// Where the image is.
    pub uri: String,
}

/// Without the credentials.
impl std::fmt::Debug for Create {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Create")
            .field("disk_limit_bytes", &self.disk_limit_bytes)
            .field("exclude_image_from_quota", &self.exclude_image_from_quota)
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

impl Create {
    /// Renders the verb and its arguments for the container or pea `handle`.
    pub fn argv(&self, handle: &Handle) -> Vec<OsString> {
        let mut argv: Vec<OsString> = vec!["create".into()];
        if self.disk_limit_bytes > 0 {
            argv.extend([
                "--disk-limit-size-bytes".into(),
                self.disk_limit_bytes.to_string().into(),
            ]);
            if self.exclude_image_from_quota {
                argv.push("--exclude-image-from-quota".into());
            }
        }
        for (flag, value) in [("--username", &self.username), ("--password", &self.password)] {
            if !value.is_empty() {
                argv.extend([flag.into(), value.into()]);
            }
        }
        argv.extend([self.uri.clone().into(), handle.as_str().into()]);
        argv
    }
}

/// What `stats` prints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Sizes in bytes.
    pub disk_usage: DiskUsage,
}

/// What `bulk-stats` prints of each image, by its id: one of the two. gdn's contract has no such verb;
/// only our own plugin is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BulkEntry {
    /// Sizes in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_usage: Option<DiskUsage>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How much room one image takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskUsage {
    /// Image and own writes.
    pub total_bytes_used: u64,
    /// Own writes.
    pub exclusive_bytes_used: u64,
    /// What own writes may come to; 0 is no limit.
    pub quota_size_bytes: u64,
    /// Image, and what own writes may come to.
    pub committed_space_bytes: u64,
}

/// What `capacity` prints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Bytes the store may use.
    pub capacity: u64,
}

/// Returns the path behind `raw://<path>`, which uses a directory as it is.
pub fn raw_path(uri: &str) -> Option<PathBuf> {
    uri.strip_prefix("raw://").map(PathBuf::from)
}

/// Returns the URI as a plugin reads it: gdn turns the first `#` (Garden's tag mark) into `:`.
pub fn plugin_uri(uri: &str) -> String {
    uri.replacen('#', ":", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn create_is_called_as_gdn_calls_it() {
        let create = Create {
            disk_limit_bytes: 10,
            inode_limit: 0,
            exclude_image_from_quota: true,
            username: "u".into(),
            password: "secret".into(),
            uri: plugin_uri("docker:///busybox#1.37"),
        };
        assert_eq!(
            create.argv(&"h".parse().unwrap()).join(" ".as_ref()),
            "create --disk-limit-size-bytes 10 --exclude-image-from-quota --username u \
             --password secret docker:///busybox:1.37 h"
        );
        assert!(!format!("{create:?}").contains("secret"));
    }
}
