//! OCI image layouts, made by `ocitar` and checked against umoci.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use guardian_tests::{host, skip};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::bench::{Bench, program};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// CAP_NET_RAW, permitted and effective (capabilities(7), `VFS_CAP_REVISION_2`).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A layout on disk that grows layer by layer.
pub(crate) struct Layout {
    path: PathBuf,
    pub(crate) layers: Vec<Value>,
    pub(crate) diff_ids: Vec<String>,
}

impl Layout {
    pub(crate) fn new(bench: &Bench, name: &str) -> Self {
        let path = bench.path(name);
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { path, layers: Vec::new(), diff_ids: Vec::new() }
    }

    /// Adds a directory as a layer, every other one compressed.
    pub(crate) fn push(&mut self, directory: &Path) {
        let (gzip, digests) = (self.layers.len().is_multiple_of(2), self.path.join("digests"));
        let mut ocitar = Command::new(program("ocitar"));
        ocitar.arg("create").arg("--digest-file").arg(&digests);
        if gzip {
            ocitar.arg("--gzip");
        }
        let output = ocitar.arg(directory).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let told: Value = serde_json::from_slice(&fs::read(digests).unwrap()).unwrap();
        let (digest, size) = self.blob(&output.stdout);
        assert_eq!((&told["digest"], &told["size"]), (&json!(digest), &json!(size)));
        let media_type = if gzip { format!("{LAYER}+gzip") } else { LAYER.to_owned() };
        self.layers.push(json!({"mediaType": media_type, "digest": digest, "size": size}));
        self.diff_ids.push(told["diff_id"].as_str().unwrap().to_owned());
    }

    fn blob(&self, content: &[u8]) -> (String, usize) {
        let hash: String =
            Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(self.path.join("blobs/sha256").join(&hash), content).unwrap();
        (format!("sha256:{hash}"), content.len())
    }

    /// Writes configuration, manifest and index; returns the URI.
    pub(crate) fn finish(&self) -> String {
        let config = json!({"architecture": "amd64", "os": "linux",
            "config": {"Env": ["A=1", "PATH=/bin"], "Labels": {"x": "y"}},
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids}});
        let (digest, size) = self.blob(config.to_string().as_bytes());
        let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json",
                            "digest": digest, "size": size});
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": self.layers});
        let (digest, size) = self.blob(manifest.to_string().as_bytes());
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": manifest,
            "digest": digest, "size": size,
            "annotations": {"org.opencontainers.image.ref.name": "v1"}}]});
        fs::write(self.path.join("index.json"), index.to_string()).unwrap();
        format!("oci://{}:v1", self.path.display())
    }
}

/// Three layers: things; some of them taken away or changed; a directory made anew.
pub(crate) fn three_layers(bench: &Bench) -> Layout {
    let mut layout = Layout::new(bench, "layout");
    layout.push(&bench.tree());
    let second = bench.path("second");
    fs::create_dir_all(second.join("usr/lib")).unwrap();
    fs::create_dir_all(second.join("etc")).unwrap();
    fs::write(second.join("etc/.wh.passwd"), "").unwrap();
    fs::write(second.join("usr/lib/a"), "a").unwrap();
    fs::hard_link(second.join("usr/lib/a"), second.join("usr/lib/b")).unwrap();
    symlink("../usr", second.join("etc/link")).unwrap();
    let attributes = [("security.capability", &CAPABILITY[..]), ("user.note", b"\0binary\xff")];
    fs::write(second.join("usr/lib/marked"), "marked").unwrap();
    for (name, value) in attributes {
        let path = second.join("usr/lib/marked");
        rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    layout.push(&second);
    let third = bench.path("third");
    fs::create_dir_all(third.join("home")).unwrap();
    fs::write(third.join("home/.wh..wh..opq"), "").unwrap();
    fs::write(third.join("home/only"), "only").unwrap();
    layout.push(&third);
    layout
}

/// What can be seen of a tree.
pub(crate) fn look(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let what = if stat.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if stat.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            "directory".to_owned()
        } else {
            format!("{:?} {}", Sha256::digest(fs::read(&path).unwrap()), stat.nlink())
        };
        let name = path.strip_prefix(root).unwrap().to_owned();
        // A whole directory's time depends on who unpacked what into it; a file's does not.
        let time = if stat.is_dir() { 0 } else { stat.mtime() };
        let attributes = if stat.is_symlink() { Vec::new() } else { attributes(&path) };
        let line =
            format!("{what} {:o} {}:{} {time} {attributes:?}", stat.mode(), stat.uid(), stat.gid());
        seen.insert(name, line);
    }
    seen
}

/// Names and values of extended attributes.
fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 1024];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut all: Vec<_> = names
        .map(|name| {
            let name = String::from_utf8(name.to_vec()).unwrap();
            let mut value = vec![0; 1024];
            let length = rustix::fs::lgetxattr(path, &*name, &mut value).unwrap();
            value.truncate(length);
            (name, value)
        })
        .collect();
    all.sort();
    all
}

/// Lets umoci unpack an image of a layout, and returns its root filesystem.
pub(crate) fn unpack_by_umoci(bench: &Bench, layout: &Path, tag: &str) -> PathBuf {
    let bundle = bench.path("umoci");
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image"]).arg(format!("{}:{tag}", layout.display())).arg(&bundle);
    host::output(&mut umoci).unwrap();
    bundle.join("rootfs")
}

#[test]
fn layers_lie_over_each_other_as_umoci_has_them() {
    let Some(bench) = Bench::new("layers_lie_over_each_other_as_umoci_has_them") else { return };
    let layout = three_layers(&bench);
    let uri = layout.finish();
    let (root, env) = bench.create(&[], &uri, "one");
    assert_eq!(env, ["A=1", "PATH=/bin"]);
    assert!(!root.join("etc/passwd").exists() && !root.join("home/alice").exists());
    assert_eq!(fs::read_to_string(root.join("home/only")).unwrap(), "only");
    assert_eq!(attributes(&root.join("usr/lib/marked")).len(), 2);
    if skip::can_run("layers lie over each other as umoci has them", &["umoci"]) {
        assert_eq!(look(&root), look(&unpack_by_umoci(&bench, &layout.path, "v1")));
    }
    // The same image again, and one that shares two layers with it.
    bench.create(&[], uri.strip_suffix(":v1").unwrap(), "two");
    assert_eq!(bench.stored("layers").len(), 3);
}

#[test]
fn zstd_layers_are_unpacked() {
    let Some(bench) = Bench::new("zstd_layers_are_unpacked") else { return };
    if !skip::can_run("zstd_layers_are_unpacked", &["skopeo"]) {
        return;
    }
    let uri = three_layers(&bench).finish();
    let (want, _) = bench.create(&[], &uri, "plain");
    let want = look(&want);
    // The second one makes many frames, and some that are to be skipped.
    for format in ["zstd", "zstd:chunked"] {
        bench.done(&["delete-store"]);
        let to = bench.path(format.replace(':', "-"));
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--quiet", "--dest-compress-format", format]);
        skopeo.arg(uri.replacen("oci://", "oci:", 1)).arg(format!("oci:{}:v1", to.display()));
        host::output(&mut skopeo).unwrap();
        let (root, _) = bench.create(&[], &format!("oci://{}:v1", to.display()), "packed");
        assert_eq!(look(&root), want, "{format}");
        // As a stream, too.
        let mut packed = 0;
        for blob in fs::read_dir(to.join("blobs/sha256")).unwrap() {
            let blob = blob.unwrap().path();
            if fs::read(&blob).unwrap().starts_with(b"\x28\xb5\x2f\xfd") {
                let mut ocitar = Command::new(program("ocitar"));
                let to = bench.path(format!("extracted-{packed}-{format}"));
                ocitar.arg("extract").arg(to).stdin(fs::File::open(blob).unwrap());
                host::output(&mut ocitar).unwrap();
                packed += 1;
            }
        }
        assert_eq!(packed, 3, "{format}");
    }
}

#[test]
fn a_hundred_and_thirty_layers_are_no_problem() {
    let Some(bench) = Bench::new("a_hundred_and_thirty_layers_are_no_problem") else { return };
    let mut layout = Layout::new(&bench, "deep");
    for n in 0..130 {
        let directory = bench.path(format!("layer{n}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(n.to_string()), "x").unwrap();
        fs::write(directory.join("last"), n.to_string()).unwrap();
        layout.push(&directory);
    }
    let uri = layout.finish();
    for (id, flags) in [("plain", &[][..]), ("mapped", &crate::bench::MAPS[..])] {
        let (root, _) = bench.create(flags, &uri, id);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 131);
        assert_eq!(fs::read_to_string(root.join("last")).unwrap(), "129");
    }
}

#[test]
fn an_image_that_lies_is_refused() {
    let Some(bench) = Bench::new("an_image_that_lies_is_refused") else { return };
    let refused = |layout: &Layout, want: &str| {
        let said = bench.refused(&["create", &layout.finish(), "x"]);
        assert!(said.contains(want), "{said}");
        for directory in ["layers", "partial", "images", "trash"] {
            assert_eq!(bench.stored(directory), [""; 0], "{directory}");
        }
    };
    let good = || {
        let mut layout = Layout::new(&bench, "lie");
        layout.push(&bench.tree());
        layout
    };
    bench.done(&["init-store"]);
    let mut layout = good();
    layout.diff_ids[0] = format!("sha256:{}", "0".repeat(64));
    refused(&layout, "diffID digest mismatch");
    let mut layout = good();
    layout.layers[0]["size"] = json!(5);
    refused(&layout, "layer size is different from the value in the manifest");
    let mut layout = good();
    layout.diff_ids.push(layout.diff_ids[0].clone());
    refused(&layout, "1 layers and 2 diff ids");
    let mut layout = good();
    layout.layers[0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+lzma");
    refused(&layout, "tar+lzma");
    // Bytes that are not those of the digest.
    let layout = good();
    let other = layout.blob(b"other").0;
    let digest = layout.layers[0]["digest"].as_str().unwrap().replace("sha256:", "");
    let other = layout.path.join("blobs/sha256").join(other.replace("sha256:", ""));
    fs::copy(other, layout.path.join("blobs/sha256").join(digest)).unwrap();
    let said = bench.refused(&["create", &layout.finish(), "x"]);
    assert!(said.contains("layer size is different"), "{said}");
    let uri = good().finish().replace(":v1", ":v2");
    let said = bench.refused(&["create", &uri, "x"]);
    assert!(said.contains("no tag 'v2'"), "{said}");
}

#[test]
fn ocitar_takes_apart_what_it_made() {
    let Some(bench) = Bench::new("ocitar_takes_apart_what_it_made") else { return };
    let tree = bench.tree();
    fs::hard_link(tree.join("usr/sub/f"), tree.join("usr/sub/again")).unwrap();
    let to = bench.path("to");
    let mut create = Command::new(program("ocitar"))
        .args(["create", "--gzip"])
        .arg(&tree)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let layer = create.stdout.take().unwrap();
    let extract = Command::new(program("ocitar")).arg("extract").arg(&to).stdin(layer).status();
    assert!(extract.unwrap().success() && create.wait().unwrap().success());
    assert_eq!(look(&tree), look(&to));
}
