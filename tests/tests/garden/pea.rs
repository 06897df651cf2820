//! Peas: processes with a root filesystem of their own.

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
