//! What images cost: unpacking layers beside tar(1) and umoci, creates of a known image, deletes.
//!
//! The layers hold what this host has below /usr/include and /usr/share/doc: thousands of small files.
//! Nothing is removed between measurements: `files.rs` tells why.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use guardian_tests::host;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Summary, summary, timed};

/// Directories that become one layer each.
const SOURCES: [&str; 3] = ["/usr/include", "/usr/share/doc", "/usr/share/perl"];
/// gdn's maps for unprivileged containers.
const MAPS: [&str; 8] = [
    "--uid-mapping",
    "0:4294967294:1",
    "--uid-mapping",
    "1:1:4294967293",
    "--gid-mapping",
    "0:4294967294:1",
    "--gid-mapping",
    "1:1:4294967293",
];
/// How often a whole image is unpacked.
const UNPACKED: usize = 3;
/// Layers of a deep image.
const DEEP: usize = 60;

/// Milliseconds; a process from its start to its end.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Images {
    /// Layers → store, synced to disk.
    pub(crate) unpack: Summary,
    /// The same layers by `tar -xzf`, and a sync.
    pub(crate) tar_synced: Summary,
    /// The same without it.
    pub(crate) tar: Summary,
    /// The same by `umoci unpack`, not synced; zeros where there is none.
    pub(crate) umoci: Summary,
    /// An image of three layers that the store has.
    pub(crate) create: Summary,
    /// One of sixty.
    pub(crate) create_deep: Summary,
    /// Of either.
    pub(crate) delete: Summary,
}

/// Measures in a directory made for that, which is to be removed last of all.
///
/// # Errors
/// When a program fails.
pub(crate) fn measure(count: usize) -> anyhow::Result<(Images, Scene)> {
    let scene = Scene(tempfile::Builder::new().prefix("guardian-").tempdir()?);
    let layers: Vec<PathBuf> =
        SOURCES.iter().map(PathBuf::from).filter(|source| source.is_dir()).collect();
    let image = scene.image("wide", &layers)?;
    let (mut unpack, mut tar, mut synced, mut umoci) = (vec![], vec![], vec![], vec![]);
    for number in 0..UNPACKED {
        scene.settle()?;
        let store = format!("store{number}");
        timed(&mut unpack, || scene.rootfs(&store, &["pull", &image.uri]))?;
        scene.settle()?;
        timed(&mut synced, || {
            scene.by_tar(&image, &format!("synced{number}"))?;
            scene.settle()
        })?;
        timed(&mut tar, || scene.by_tar(&image, &format!("tar{number}")))?;
        scene.settle()?;
        if host::program("umoci").is_some() {
            timed(&mut umoci, || scene.by_umoci(&image, &format!("umoci{number}")))?;
        }
    }
    let mut small = Vec::new();
    for number in 0..DEEP {
        let layer = scene.path(&format!("layer{number}"));
        std::fs::create_dir(&layer)?;
        std::fs::write(layer.join(number.to_string()), "x")?;
        small.push(layer);
    }
    let deep = scene.image("deep", &small)?;
    let mut delete = Vec::new();
    let mut lives = |uri: &str| -> anyhow::Result<Summary> {
        let mut create = Vec::new();
        let store = "store0";
        scene.rootfs(store, &["pull", uri])?;
        for _ in 0..count {
            timed(&mut create, || {
                scene.rootfs(store, &[&MAPS[..], &["create", uri, "x"]].concat())
            })?;
            timed(&mut delete, || scene.rootfs(store, &["delete", "x"]))?;
        }
        Ok(summary(&create))
    };
    let (create, create_deep) = (lives(&image.uri)?, lives(&deep.uri)?);
    let images = Images {
        unpack: summary(&unpack),
        tar_synced: summary(&synced),
        tar: summary(&tar),
        umoci: summary(&umoci),
        create,
        create_deep,
        delete: summary(&delete),
    };
    Ok((images, scene))
}

/// An image layout.
struct Image {
    directory: PathBuf,
    uri: String,
    archives: Vec<PathBuf>,
}

/// Where images lie; dropping it removes them.
#[derive(Debug)]
pub(crate) struct Scene(tempfile::TempDir);

impl Scene {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes to disk what is not there yet.
    fn settle(&self) -> anyhow::Result<()> {
        host::output(Command::new("sync").arg("-f").arg(self.0.path())).map(drop)
    }

    fn rootfs(&self, store: &str, words: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(host::bin_dir().join("rootfs"));
        command.arg("--store").arg(self.path(store)).args(words);
        let status = command.stdout(Stdio::null()).status()?;
        ensure!(status.success(), "{} failed", host::shown(&command));
        Ok(())
    }

    /// Makes a layout of one compressed layer for each directory.
    fn image(&self, name: &str, sources: &[PathBuf]) -> anyhow::Result<Image> {
        let directory = self.path(name);
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs)?;
        let (mut layers, mut diff_ids, mut archives) = (Vec::new(), Vec::new(), Vec::new());
        for source in sources {
            let (archive, digests) = (blobs.join("new"), self.path("digests"));
            let mut ocitar = Command::new(host::bin_dir().join("ocitar"));
            ocitar.args(["create", "--gzip", "--digest-file"]).arg(&digests).arg(source);
            let status = ocitar.stdout(std::fs::File::create(&archive)?).status()?;
            ensure!(status.success(), "{} failed", host::shown(&ocitar));
            let told: Value = serde_json::from_slice(&std::fs::read(digests)?)?;
            let digest = told["digest"].as_str().context("ocitar tells no digest")?;
            let path = blobs.join(digest.trim_start_matches("sha256:"));
            std::fs::rename(archive, &path)?;
            let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
            layers.push(json!({"mediaType": media_type, "digest": digest, "size": told["size"]}));
            diff_ids.push(told["diff_id"].clone());
            archives.push(path);
        }
        document(&directory, &layers, &diff_ids)?;
        let uri = format!("oci://{}:v1", directory.display());
        Ok(Image { directory, uri, archives })
    }

    fn by_tar(&self, image: &Image, to: &str) -> anyhow::Result<()> {
        std::fs::create_dir(self.path(to))?;
        for archive in &image.archives {
            let mut tar = Command::new("tar");
            host::output(tar.arg("-xzf").arg(archive).arg("-C").arg(self.path(to)))?;
        }
        Ok(())
    }

    fn by_umoci(&self, image: &Image, to: &str) -> anyhow::Result<()> {
        let from = format!("{}:v1", image.directory.display());
        let mut umoci = Command::new(host::program("umoci").context("no umoci")?);
        host::output(umoci.args(["unpack", "--image", &from]).arg(self.path(to))).map(drop)
    }
}

/// Writes configuration, manifest and index, by ocitar's digests.
fn document(directory: &Path, layers: &[Value], diff_ids: &[Value]) -> anyhow::Result<()> {
    use sha2::{Digest, Sha256};
    let blob = |value: &Value| -> anyhow::Result<(String, usize)> {
        let text = value.to_string();
        let hash = Sha256::digest(text.as_bytes());
        let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(directory.join("blobs/sha256").join(&name), &text)?;
        Ok((format!("sha256:{name}"), text.len()))
    };
    let (digest, size) = blob(&json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}}))?;
    let media_type = "application/vnd.oci.image.config.v1+json";
    let (digest, size) = blob(&json!({"schemaVersion": 2, "layers": layers,
        "config": {"mediaType": media_type, "digest": digest, "size": size}}))?;
    let index = json!({"schemaVersion": 2, "manifests": [{"digest": digest, "size": size,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "annotations": {"org.opencontainers.image.ref.name": "v1"}}]});
    std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(std::fs::write(directory.join("index.json"), index.to_string())?)
}
