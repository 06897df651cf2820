//! Images pulled ahead, through the API.

use serde_json::Value;

use crate::{code, ctl, stderr, with_each_runtime};

#[test]
fn an_image_is_there_before_a_container_asks() {
    with_each_runtime("pull an image", |daemon| {
        let image = daemon.image().to_owned();
        let pulled = daemon.ctl(&["pull", &image]).unwrap();
        assert!(pulled.starts_with("1 layers, 0 known before, "), "{pulled}");
        let lines = daemon.ctl(&["--json", "pull", &image]).unwrap();
        let lines: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["state"], "unpack", "{lines:?}");
        assert_eq!(lines[1]["state"], "done", "{lines:?}");
        assert_eq!(lines[2]["pulled"]["known"], 1, "{lines:?}");
        let handle = daemon.handle("pulled");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        for (image, want) in [
            ("oci:///no/such/layout", "Image source doesn't exist"),
            ("raw:///", "a raw directory is used where it lies"),
            ("", "no image to pull"),
        ] {
            let refused = ctl(daemon, &["pull", image]);
            assert_eq!(code(&refused), 1);
            assert!(stderr(&refused).contains(want), "{}", stderr(&refused));
        }
    });
}
