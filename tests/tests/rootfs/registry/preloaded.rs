//! A root filesystem on this disk with a layer from elsewhere over it.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use guardian_tests::host;
use serde_json::{Value, json};

use super::distribution::told;
use super::fake::Reply;
use super::scene::{CONFIG, HOST, LAYER, MANIFEST, Scene, digest};

/// An application, packed as Diego has it.
fn droplet(scene: &Scene) -> Vec<u8> {
    let tree = scene.bench.path("droplet");
    fs::create_dir_all(tree.join("app")).unwrap();
    fs::write(tree.join("app/main"), "main").unwrap();
    fs::hard_link(tree.join("app/main"), tree.join("app/again")).unwrap();
    fs::write(tree.join("profile"), "anew").unwrap();
    let file = scene.bench.path("droplet.tgz");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&tree).arg("-czf").arg(&file).args(["--owner=1001", "--group=1010", "app"]);
    host::output(tar.arg("profile")).unwrap();
    fs::read(file).unwrap()
}

fn look(root: &Path) {
    let home = root.join("home/alice");
    let stat = fs::metadata(&home).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o777), (1001, 1010, 0o755));
    assert_eq!(fs::read_to_string(home.join("app/main")).unwrap(), "main");
    assert_eq!(fs::metadata(home.join("app/again")).unwrap().nlink(), 2);
    assert!(root.join("bin/busybox").exists() && !root.join("app").exists());
}

#[test]
fn a_layer_from_a_url_lies_in_a_directory_of_the_base() {
    let test = "a_layer_from_a_url_lies_in_a_directory_of_the_base";
    let Some(scene) = Scene::new(test) else { return };
    let (tar, layer) = (scene.bench.tar(), droplet(&scene));
    let (content, name) = (layer.clone(), digest(&layer).replace("sha256:", ""));
    let server = scene.serve(move |seen| match seen.path.as_str() {
        "/droplet?token=a" => Reply::ok(content.as_slice()),
        _ => Reply::status(404),
    });
    let create = |query: &str, id: &str| {
        let uri = format!("preloaded+layer://{tar}?{query}");
        told(scene.bench.command_in(&scene.netns).args(["create", &uri, id]))
    };
    let url = format!("layer=http%3A%2F%2F{HOST}%2Fdroplet%3Ftoken%3Da");
    let good = format!("{url}&layer_path=/home/alice&layer_digest={name}");
    create(&good, "one").unwrap();
    look(&scene.bench.path("store/images/one/rootfs"));
    create(&good, "two").unwrap();
    // One look at its length and one download for both.
    let asked: Vec<bool> = server.asked("/droplet").iter().map(|seen| seen.is_head).collect();
    assert_eq!(asked, [true, false]);
    // The base is the one of the plain image.
    scene.bench.create(&[], &tar, "plain");
    assert_eq!(scene.bench.stored("layers").len(), 2);
    // Elsewhere in the base it is another layer.
    create(&good.replace("/home/alice", "/tmp"), "three").unwrap();
    assert_eq!(scene.bench.stored("layers").len(), 3);
    for (query, want) in [
        (good.replace("/home/alice", "/no/such"), "base directory not found in parent layer"),
        (good.replace("droplet", "gone").replace("alice", "bob"), "does not have the layer"),
        (good.replace(&name, &"0".repeat(64)), "digest mismatch"),
        (good.replace("http%3A", "file%3A"), "a layer's URL is http"),
        (url.clone(), "no query parameter 'layer_path' found in URL preloaded+layer:"),
    ] {
        let said = create(&query, "no").unwrap_err();
        assert!(said.contains(want) && !said.contains('\n'), "{query}: {said}");
    }
    assert_eq!(scene.bench.stored("images").len(), 4);
    assert!(scene.bench.stored("blobs").is_empty() && scene.bench.stored("partial").is_empty());
}

/// What gdn makes of such a URI: digests that are those of nothing, sizes of 0, a link to the tar file.
fn gdn_s_layout(scene: &Scene, layer: &str, url: &str) -> String {
    let path = scene.bench.path("gdn");
    let blobs = path.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let base = digest(b"/base.tar-1234567890");
    symlink(scene.bench.tar(), blobs.join(base.replace("sha256:", ""))).unwrap();
    let document = |value: &Value| {
        let text = value.to_string();
        let digest = digest(text.as_bytes());
        fs::write(blobs.join(digest.replace("sha256:", "")), text).unwrap();
        digest
    };
    let config = document(&json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [base, layer]}}));
    let manifest = document(&json!({"schemaVersion": 2,
        "config": {"mediaType": CONFIG, "digest": config, "size": 0},
        "layers": [{"mediaType": LAYER, "digest": base, "size": 0},
            {"mediaType": format!("{LAYER}+gzip"), "digest": layer, "size": 0, "urls": [url],
             "annotations": {"org.cloudfoundry.experimental.image.base-directory": "/home/alice"}}]}));
    let index = json!({"schemaVersion": 2,
        "manifests": [{"mediaType": MANIFEST, "digest": manifest, "size": 0}]});
    fs::write(path.join("index.json"), index.to_string()).unwrap();
    format!("oci://{}", path.display())
}

#[test]
fn what_gdn_makes_of_it_is_understood_where_digests_are_not_looked_at() {
    let test = "what_gdn_makes_of_it_is_understood_where_digests_are_not_looked_at";
    let Some(scene) = Scene::new(test) else { return };
    let layer = droplet(&scene);
    let name = digest(&layer);
    let server = scene.serve(move |_| Reply::ok(layer.as_slice()));
    let uri = gdn_s_layout(&scene, &name, &format!("http://{HOST}/droplet"));
    let create = |flags: &[&str], id: &str| {
        let mut command = scene.bench.command_in(&scene.netns);
        told(command.arg("create").args(flags).args([&uri, id]))
    };
    let said = create(&[], "no").unwrap_err();
    assert!(said.contains("layer size is different"), "{said}");
    create(&["--skip-layer-validation"], "one").unwrap();
    look(&scene.bench.path("store/images/one/rootfs"));
    assert!(server.seen().iter().any(|seen| !seen.is_head));
    // What nobody checked has a name that no checked layer has.
    let base = digest(b"/base.tar-1234567890").replace("sha256:", "");
    assert!(!scene.bench.stored("layers").contains(&base));
    let config = scene.bench.path("grootfs.yml");
    fs::write(&config, "create:\n  skip_layer_validation: true\n").unwrap();
    let asked = server.seen().len();
    create(&["--config", config.to_str().unwrap()], "two").unwrap();
    assert_eq!(server.seen().len(), asked, "nobody is asked for what the store has");
}
