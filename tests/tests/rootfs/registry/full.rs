//! A download that the store's filesystem has no room for.

use std::fs;

use guardian_tests::host;

use super::scene::{Content, HOST, Scene};
use crate::bench::program;
use crate::quota::Filesystem;

#[test]
fn a_download_without_room_leaves_none_taken() {
    let Some(scene) = Scene::new("a_download_without_room_leaves_none_taken") else { return };
    let content = Content::image(&scene.bench);
    let half = content.archive.len() / 2;
    scene.serve(move |seen| content.get(seen));
    let point = scene.bench.path("small");
    fs::create_dir(&point).unwrap();
    let size = format!("size={half}");
    host::run(&["mount", "-t", "tmpfs", "-o", &size, "tmpfs", point.to_str().unwrap()]).unwrap();
    let small = Filesystem { point };
    small.done(&["init-store"]);
    // What others left there is in the way as well.
    let (store, blobs) = (small.point.join("store"), small.point.join("store/blobs"));
    fs::create_dir(&blobs).unwrap();
    fs::write(blobs.join("dead"), vec![0; half / 2]).unwrap();
    let mut command = scene.netns.command(program("rootfs"));
    command.arg("--store").arg(&store).args(["create", "--insecure-registry", HOST]);
    let output = command.arg(format!("docker://{HOST}/x:v1")).arg("x").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let want =
        format!("no room in the store {}: write download {}/", store.display(), blobs.display());
    assert!(said.starts_with(&want) && said.contains("No space left on device"), "{said}");
    for directory in ["blobs", "images", "partial", "trash"] {
        assert_eq!(fs::read_dir(store.join(directory)).unwrap().count(), 0, "{directory}");
    }
    // Nor does one that is there, but can't be unpacked.
    let output = small.rootfs(&["create", &scene.bench.tar(), "x"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let want = format!("no room in the store {}: unpack ", store.display());
    assert!(said.starts_with(&want) && said.contains("No space left on device"), "{said}");
    assert_eq!(fs::read_dir(store.join("partial")).unwrap().count(), 0);
}
