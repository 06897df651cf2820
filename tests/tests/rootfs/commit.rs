//! What a container has changed, as a layer, and its whole image, as a layout.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use serde_json::Value;

use crate::bench::{Bench, MAPS};
use crate::layout::{Layout, look};

/// Takes away, changes, adds and replaces.
fn change(root: &Path) {
    fs::remove_file(root.join("etc/passwd")).unwrap();
    fs::remove_file(root.join("bin/ls")).unwrap();
    fs::create_dir(root.join("bin/ls")).unwrap();
    fs::write(root.join("bin/ls/inside"), "a link became a directory").unwrap();
    fs::remove_dir_all(root.join("usr/sub")).unwrap();
    fs::create_dir(root.join("usr/sub")).unwrap();
    fs::write(root.join("usr/sub/anew"), "opaque").unwrap();
    fs::remove_dir_all(root.join("home")).unwrap();
    fs::write(root.join("home"), "a directory became a file").unwrap();
    fs::write(root.join("tmp/a"), "twice").unwrap();
    fs::hard_link(root.join("tmp/a"), root.join("tmp/b")).unwrap();
    symlink("../tmp/a", root.join("etc/link")).unwrap();
    fs::set_permissions(root.join("usr/setid"), Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(root.join("root"), Permissions::from_mode(0o500)).unwrap();
    fs::rename(root.join("bin/cat"), root.join("bin/dog")).unwrap();
    chown(root.join("tmp/a"), Some(1001), Some(1010)).unwrap();
}

#[test]
fn an_upper_directory_is_a_layer_over_the_same_layers() {
    let Some(bench) = Bench::new("an_upper_directory_is_a_layer_over_the_same_layers") else {
        return;
    };
    let mut layout = Layout::new(&bench, "layout");
    layout.push(&bench.tree());
    let (one, _) = bench.create(&[], &layout.finish(), "one");
    change(&one);
    layout.push(&bench.path("store/images/one/writes/upper"));
    let (two, _) = bench.create(&[], &layout.finish(), "two");
    assert!(!two.join("etc/passwd").exists() && !two.join("usr/sub/f").exists());
    assert_eq!(look(&one), look(&two));
    // What was unpacked is again what was packed.
    layout.layers.pop();
    let diff_id = layout.diff_ids.pop();
    layout.push(&bench.path("store/images/one/writes/upper"));
    assert_eq!(layout.diff_ids.last(), diff_id.as_ref());
}

/// The host's root has no id in the container's map, so it can make nothing there.
fn as_container_root(action: impl FnOnce()) {
    let (uid, gid) = (Uid::from_raw(u32::MAX - 1), Gid::from_raw(u32::MAX - 1));
    let (uid, gid) = (setfsuid(uid), setfsgid(gid));
    action();
    setfsuid(uid);
    setfsgid(gid);
}

#[test]
fn a_committed_image_is_the_container_s() {
    let Some(bench) = Bench::new("a_committed_image_is_the_container_s") else { return };
    let mut layout = Layout::new(&bench, "layout");
    layout.push(&bench.tree());
    let more = bench.path("more");
    fs::create_dir_all(more.join("usr/sub")).unwrap();
    fs::write(more.join("usr/sub/g"), "second layer").unwrap();
    layout.push(&more);
    let uri = layout.finish();
    let limit = ["--disk-limit-size-bytes", "30000000", "--exclude-image-from-quota"];
    let to = bench.path("committed");
    for (id, maps, limit) in
        [("plain", &[][..], &[][..]), ("mapped", &MAPS[..], &[]), ("limited", &MAPS, &limit)]
    {
        bench.done(&[maps, &["create"], limit, &[&uri, id]].concat());
        let root = bench.path("store/images").join(id).join("rootfs");
        match maps.is_empty() {
            true => fs::write(root.join("tmp/mine"), id).unwrap(),
            false => as_container_root(|| fs::write(root.join("tmp/mine"), id).unwrap()),
        }
        if maps.is_empty() {
            change(&root);
        }
        let target = format!("{}:{id}", to.display());
        let committed: Value = serde_json::from_str(&bench.done(&["commit", id, &target])).unwrap();
        let originals: Vec<bool> = committed["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer["is_original"].as_bool().unwrap())
            .collect();
        assert_eq!(originals, [true, true, false], "{committed}");
        let again = format!("oci://{target}");
        let (copy, env) = bench.create(maps, &again, &format!("copy-of-{id}"));
        assert_eq!(env, ["A=1", "PATH=/bin"]);
        assert_eq!(fs::read_to_string(copy.join("tmp/mine")).unwrap(), id);
        assert_eq!(look(&root), look(&copy), "{id}");
    }
    // A tag moves; the others stay.
    bench.done(&["commit", "plain", &format!("{}:mapped", to.display())]);
    let index: Value = serde_json::from_slice(&fs::read(to.join("index.json")).unwrap()).unwrap();
    let tags: Vec<&Value> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["annotations"]["org.opencontainers.image.ref.name"])
        .collect();
    assert_eq!(tags, ["plain", "limited", "mapped"]);
    assert_eq!(index["manifests"][0]["digest"], index["manifests"][2]["digest"]);
    assert_eq!(bench.mounts(), 6);
    if guardian_tests::skip::can_run("skopeo reads a committed image", &["skopeo"]) {
        let mut skopeo = Command::new("skopeo");
        skopeo.arg("copy").arg(format!("oci:{}:plain", to.display()));
        let copied = skopeo.arg(format!("oci:{}:x", bench.path("copied").display())).output();
        let copied = copied.unwrap();
        assert!(copied.status.success(), "{copied:?}");
    }
    let said = bench.refused(&["commit", "nobody", "/tmp/x"]);
    assert_eq!(said, "Image `nobody` not found");
}
