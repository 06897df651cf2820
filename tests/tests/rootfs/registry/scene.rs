//! An image on a server that a test can change at will, and a store to pull it into.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use guardian_tests::netns::Netns;
use guardian_tests::skip;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::fake::{Fake, Reply, Seen, namespace};
use crate::bench::Bench;

pub(crate) const HOST: &str = "127.0.0.1:5000";
pub(crate) const OTHER: &str = "127.0.0.2:5001";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What a registry has: paths below `/v2/x/` and what is there.
#[derive(Clone, Default)]
pub(crate) struct Content {
    pub(crate) found: HashMap<String, Reply>,
    pub(crate) layer: String,
    pub(crate) archive: Vec<u8>,
}

impl Content {
    /// An image of one plain layer under the tag `v1`.
    pub(crate) fn image(bench: &Bench) -> Self {
        let archive = fs::read(bench.tar()).unwrap();
        let mut content = Self { layer: digest(&archive), ..Self::default() };
        content.blob(&archive);
        content.archive = archive;
        content.describe(|_| {});
        content
    }

    /// Puts the manifest anew, after `change` had its way with it.
    pub(crate) fn describe(&mut self, change: impl Fn(&mut Value)) {
        let config = json!({"architecture": "amd64", "os": "linux", "config": {"Env": ["A=1"]},
            "rootfs": {"type": "layers", "diff_ids": [self.layer]}});
        let config = self.blob(config.to_string().as_bytes());
        let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": described(CONFIG, &config),
            "layers": [described(LAYER, &(self.layer.clone(), self.archive.len()))]});
        change(&mut manifest);
        self.tag("v1", &manifest, MANIFEST);
    }

    pub(crate) fn blob(&mut self, content: &[u8]) -> (String, usize) {
        let digest = digest(content);
        self.found.insert(format!("blobs/{digest}"), Reply::ok(content));
        (digest, content.len())
    }

    pub(crate) fn tag(
        &mut self,
        name: &str,
        document: &Value,
        media_type: &str,
    ) -> (String, usize) {
        let text = document.to_string();
        let reply = Reply::ok(text.as_str()).header(format!("Content-Type: {media_type}"));
        let digest = digest(text.as_bytes());
        self.found.insert(format!("manifests/{name}"), reply.clone());
        self.found.insert(format!("manifests/{digest}"), reply);
        (digest, text.len())
    }

    pub(crate) fn get(&self, seen: &Seen) -> Reply {
        let path = seen.path.strip_prefix("/v2/x/").unwrap_or_default();
        self.found.get(path).cloned().unwrap_or_else(|| Reply::status(404))
    }

    pub(crate) fn layer_path(&self) -> String {
        format!("blobs/{}", self.layer)
    }

    /// The layer as the registry should give it, in parts.
    pub(crate) fn ranged(&self, seen: &Seen) -> Reply {
        let from = seen.range.as_deref().map_or(0, |range| {
            range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap()
        });
        let reply = Reply::ok(&self.archive[from..]);
        Reply { status: if from > 0 { 206 } else { 200 }, ..reply }
    }
}

pub(crate) fn digest(content: &[u8]) -> String {
    let hash: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}

pub(crate) fn described(media_type: &str, (digest, size): &(String, usize)) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

/// A test's network, server and store.
pub(crate) struct Scene {
    pub(crate) bench: Bench,
    pub(crate) netns: Netns,
}

impl Scene {
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !skip::can_run(test, &["ip", "nsenter"]) {
            return None;
        }
        let bench = Bench::new(test)?;
        let netns = namespace(&bench);
        Some(Self { bench, netns })
    }

    pub(crate) fn serve(&self, answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
        Fake::start(&self.netns, HOST, answer)
    }

    pub(crate) fn create(&self, flags: &[&str], id: &str) -> Result<String, String> {
        self.create_from("x:v1", flags, id)
    }

    pub(crate) fn create_from(
        &self,
        name: &str,
        flags: &[&str],
        id: &str,
    ) -> Result<String, String> {
        let mut command: Command = self.bench.command_in(&self.netns);
        command.args(["create", "--insecure-registry", HOST]).args(flags);
        let output = command.arg(format!("docker://{HOST}/{name}")).arg(id).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    /// Expects a failure that leaves nothing.
    pub(crate) fn refused(&self, want: &str) {
        let said = self.create(&[], "no").unwrap_err();
        assert!(said.contains(want) && !said.contains('\n'), "{said}");
        for directory in ["images", "layers", "partial", "blobs", "trash"] {
            let left = fs::read_dir(self.bench.path("store").join(directory));
            let left = left.map_or(0, |entries| entries.count());
            assert_eq!(left, 0, "{directory} after {said}");
        }
    }
}
