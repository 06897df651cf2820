//! The default image: a static busybox as an OCI image layout, made offline and kept.

mod layer;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{elf, host};

/// The environment of its processes.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the image, unless the cache has it for this busybox, and returns its URI.
///
/// # Errors
/// When there is no static busybox, or the cache can't be written.
pub fn make(cache: &Path) -> anyhow::Result<String> {
    let busybox = find_busybox()?;
    let program = std::fs::read(&busybox)?;
    let layout = cache.join(format!("busybox-{}", &hex(&Sha256::digest(&program))[..16]));
    if !layout.join("index.json").is_file() {
        let applets = host::output(Command::new(&busybox).arg("--list-full"))?;
        write_layout(&layout, &program, &applets)
            .with_context(|| format!("write image {}", layout.display()))?;
    }
    Ok(format!("oci://{}:latest", layout.display()))
}

/// Returns where images are kept between runs.
pub fn cache() -> PathBuf {
    match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache).join("guardian"),
        None => host::target_dir().join("guardian"),
    }
}

/// Unpacks the image's files into `directory`: what a bare runtime is run on.
///
/// # Errors
/// As [`make`].
pub fn unpack(directory: &Path) -> anyhow::Result<()> {
    let busybox = find_busybox()?;
    let program = std::fs::read(&busybox)?;
    let applets = host::output(Command::new(&busybox).arg("--list-full"))?;
    let archive = layer::archive(&program, &applets)?;
    let mut archive = tar::Archive::new(archive.as_slice());
    archive.set_preserve_permissions(true);
    Ok(archive.unpack(directory)?)
}

fn find_busybox() -> anyhow::Result<PathBuf> {
    let busybox = host::program("busybox").context("busybox is not installed (busybox-static)")?;
    match elf::is_static(&busybox)? {
        true => Ok(busybox),
        false => bail!("{} is not static; install busybox-static", busybox.display()),
    }
}

/// Writes blobs first and the index last, so that an interrupted run leaves nothing that counts.
fn write_layout(layout: &Path, program: &[u8], applets: &str) -> anyhow::Result<()> {
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let archive = layer::archive(program, applets)?;
    let diff_id = format!("sha256:{}", hex(&Sha256::digest(&archive)));
    let layer = blob(&blobs, "layer.v1.tar+gzip", &layer::gzip(&archive)?)?;
    let config = blob(&blobs, "config.v1+json", &serde_json::to_vec(&config(&diff_id))?)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    let mut manifest = blob(&blobs, "manifest.v1+json", &serde_json::to_vec(&manifest)?)?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    guardian_contract::file::replace_mode(
        &layout.join("index.json"),
        &serde_json::to_vec(&index)?,
        0o644,
    )
}

fn config(diff_id: &str) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Env": [PATH], "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created_by": "busybox", "created": "1970-01-01T00:00:00Z" }],
    })
}

/// Writes a blob and returns its descriptor (OCI image spec, descriptor.md).
fn blob(directory: &Path, kind: &str, bytes: &[u8]) -> anyhow::Result<Value> {
    let digest = hex(&Sha256::digest(bytes));
    std::fs::write(directory.join(&digest), bytes)?;
    let kind = format!("application/vnd.oci.image.{kind}");
    Ok(json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
