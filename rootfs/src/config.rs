//! grootfs' configuration file, so that an operator's own goes on working.
//!
//! A flag wins over the file. What grootfs has and we don't need is read and means nothing here:
//! its helpers (`tardis_bin`, `newuidmap_bin`, `newgidmap_bin`), `metron_endpoint`, the loop device
//! of its store (`init.with_direct_io`), and `create.without_mount` (an image is always mounted).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use guardian_contract::fault::Fault;
use guardian_contract::log::{self, Level};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::clean;

const WITHOUT_MEANING: [&str; 8] = [
    "tardis_bin",
    "newuidmap_bin",
    "newgidmap_bin",
    "metron_endpoint",
    // Written by the BOSH job for grootfs, which does not know it either.
    "log_timestamp_format",
    "create.without_mount",
    "create.remote_layer_client_certificates_path",
    "init.with_direct_io",
];

/// What the file says; every part of it may be missing.
#[derive(Debug, Default)]
pub(crate) struct Config {
    pub(crate) store: Option<PathBuf>,
    pub(crate) log_level: Option<Level>,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) exclude_image_from_quota: bool,
    pub(crate) disk_limit_bytes: u64,
    pub(crate) with_clean: bool,
    /// Whether layers of an image layout are taken without a look at their digests.
    pub(crate) skip_layer_validation: bool,
    /// `HOST[:PORT]`.
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) clean_log_file: Option<PathBuf>,
    pub(crate) clean_threshold_bytes: u64,
    /// Size of the whole store; 0 is that of its filesystem.
    pub(crate) store_size_bytes: u64,
    /// Keys that mean nothing to us.
    unknown: Vec<String>,
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// `Invalid`, in grootfs' words, when it can't be read or is no such file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Fault::invalid(format!("invalid config path: {}: {error}", path.display()))
        })?;
        Self::parse(&text)
    }

    /// Logs the keys that nobody knows; grootfs passes them over, too.
    pub(crate) fn tell_unknown(&self) {
        if !self.unknown.is_empty() {
            log::info("unknown-config-keys", &serde_json::json!({"keys": self.unknown}));
        }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let file: Option<Document> = yaml_serde::from_str(text)
            .map_err(|error| Fault::invalid(format!("invalid config file: {error}")))?;
        let file = file.unwrap_or_default();
        let (create, clean, init) = (
            file.create.unwrap_or_default(),
            file.clean.unwrap_or_default(),
            file.init.unwrap_or_default(),
        );
        let mut unknown = Vec::new();
        for (section, keys) in [
            ("", file.other),
            ("create.", create.other),
            ("clean.", clean.other),
            ("init.", init.other),
        ] {
            unknown.extend(keys.into_keys().map(|key| format!("{section}{key}")));
        }
        unknown.retain(|key| !WITHOUT_MEANING.contains(&key.as_str()));
        Ok(Self {
            store: file.store,
            log_level: file.log_level.map(|name| level(&name)),
            log_file: file.log_file,
            exclude_image_from_quota: create.exclude_image_from_quota,
            disk_limit_bytes: disk_limit(create.disk_limit_size_bytes)?,
            with_clean: create.with_clean,
            skip_layer_validation: create.skip_layer_validation,
            insecure_registries: create.insecure_registries,
            clean_log_file: create.clean_log_file,
            clean_threshold_bytes: clean::threshold(clean.threshold_bytes)?,
            store_size_bytes: u64::try_from(init.store_size_bytes).unwrap_or_default(),
            unknown,
        })
    }
}

/// Takes a disk limit as an operator gives it.
///
/// # Errors
/// In grootfs' words for a negative one.
pub(crate) fn disk_limit(bytes: i64) -> anyhow::Result<u64> {
    u64::try_from(bytes)
        .map_err(|_| Fault::invalid("invalid argument: disk limit cannot be negative").into())
}

/// grootfs takes any other word for `fatal`.
fn level(name: &str) -> Level {
    clap::ValueEnum::from_str(name, true).unwrap_or(Level::Fatal)
}

type Other = BTreeMap<String, IgnoredAny>;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    store: Option<PathBuf>,
    log_level: Option<String>,
    log_file: Option<PathBuf>,
    create: Option<Create>,
    clean: Option<Clean>,
    init: Option<Init>,
    #[serde(flatten)]
    other: Other,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Create {
    exclude_image_from_quota: bool,
    disk_limit_size_bytes: i64,
    with_clean: bool,
    skip_layer_validation: bool,
    insecure_registries: Vec<String>,
    clean_log_file: Option<PathBuf>,
    #[serde(flatten)]
    other: Other,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Clean {
    threshold_bytes: i64,
    #[serde(flatten)]
    other: Other,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Init {
    store_size_bytes: i64,
    #[serde(flatten)]
    other: Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As garden-runc-release writes it for unprivileged containers.
    const BOSH: &str = "\
store: /var/vcap/data/grootfs/store/unprivileged
tardis_bin: /var/vcap/packages/grootfs/bin/tardis
newuidmap_bin: /var/vcap/packages/garden-idmapper/bin/newuidmap
newgidmap_bin: /var/vcap/packages/garden-idmapper/bin/newgidmap
log_level: ERROR
log_timestamp_format: rfc3339
metron_endpoint: 127.0.0.1:3457
create:
  without_mount: false
  skip_layer_validation: true
  insecure_registries: [registry.example:5000]
  with_clean: true
  clean_log_file: /var/vcap/sys/log/garden/groot-clean.log
clean:
  threshold_bytes: 70000000000
init:
  store_size_bytes: 80000000000
";

    #[test]
    fn a_file_of_the_bosh_job_is_understood_whole() {
        let config = Config::parse(BOSH).unwrap();
        assert_eq!(config.unknown, [""; 0]);
        assert_eq!(config.store, Some("/var/vcap/data/grootfs/store/unprivileged".into()));
        assert_eq!(config.log_level, Some(Level::Error));
        assert_eq!(config.insecure_registries, ["registry.example:5000"]);
        assert!(config.with_clean && !config.exclude_image_from_quota);
        assert_eq!(config.clean_threshold_bytes, 70_000_000_000);
        assert_eq!(config.store_size_bytes, 80_000_000_000);
    }

    #[test]
    fn mistakes_are_told_in_grootfs_words() {
        for (text, want) in [
            ("create:\n  disk_limit_size_bytes: -1\n", "disk limit cannot be negative"),
            ("clean:\n  threshold_bytes: -5\n", "clean threshold cannot be negative"),
            ("store: [1, 2]\n", "invalid config file"),
            ("\"", "invalid config file"),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        let error = Config::read("/no/such/file".as_ref()).unwrap_err().to_string();
        assert!(error.starts_with("invalid config path: "), "{error}");
    }

    #[test]
    fn unknown_keys_are_named_and_empty_parts_are_fine() {
        let config = Config::parse("stroe: /x\ncreate:\n  with_claen: true\n").unwrap();
        assert_eq!(config.unknown, ["stroe", "create.with_claen"]);
        for text in ["", "---\n", "create:\nclean:\ninit:\n"] {
            assert!(Config::parse(text).unwrap().unknown.is_empty());
        }
    }
}
