//! Peas: processes with a root filesystem of their own.

use serde_json::{Value, json};

use crate::{code, ctl, stderr, stdout, with_each_runtime};

#[test]
fn a_pea_sees_its_bind_mounts_and_a_plain_process_may_have_none() {
    with_each_runtime("pea with bind mounts", |daemon| {
        let handle = daemon.handle("pea");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let shown = daemon.path("shown");
        std::fs::create_dir(&shown).unwrap();
        std::fs::write(shown.join("note"), "from the host\n").unwrap();
        let mount = format!("{}:/mnt/shown:ro", shown.display());
        let image = daemon.image().to_owned();
        let pea = ["exec", "--image", &image, "-v", &mount, &handle, "--"];
        let output = ctl(daemon, &[&pea[..], &["cat", "/mnt/shown/note"]].concat());
        assert_eq!(
            (code(&output), stdout(&output).as_str()),
            (0, "from the host\n"),
            "{}",
            stderr(&output)
        );
        let output = ctl(daemon, &[&pea[..], &["touch", "/mnt/shown/note"]].concat());
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        let inside = ctl(daemon, &["exec", &handle, "--", "ls", "/mnt/shown"]);
        assert_eq!(code(&inside), 1, "the container itself must not see it");
    });
}

/// On cgroup version 2 the first such pea moves the container's own processes (decision 12).
#[test]
fn peas_and_the_container_keep_to_the_container_s_limits_together() {
    with_each_runtime("pea within the container's limits", |daemon| {
        let handle = &daemon.handle("limits");
        daemon.ctl(&["create", "--handle", handle, "--memory=64M", "--pids=40"]).unwrap();
        let image = daemon.image().to_owned();
        daemon.ctl(&["exec", "-d", handle, "--", "sleep", "1000"]).unwrap();
        for _ in 0..2 {
            daemon.ctl(&["exec", "-d", "--image", &image, handle, "--", "sleep", "1000"]).unwrap();
        }
        daemon.kill().unwrap();
        daemon.up().unwrap();
        // What comes afterwards is where the others are.
        daemon.ctl(&["exec", "-d", handle, "--", "sleep", "1000"]).unwrap();
        let metrics = daemon.ctl(&["--json", "metrics", handle]).unwrap();
        let metrics: Value = serde_json::from_str(&metrics).unwrap();
        assert_eq!(metrics["PidStat"], json!({"Current": 5, "Max": 40}), "init, two and two");
        daemon.ctl(&["update", handle, "--memory=32M"]).unwrap();
        for image in [&["--image", &image][..], &[]] {
            let hog = [&["exec"], image, &[handle, "--", "tail", "/dev/zero"]].concat();
            assert_eq!(code(&ctl(daemon, &hog)), 137, "beyond the memory of all");
        }
    });
}
