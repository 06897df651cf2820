//! The README's container without a server: its lines are run as they stand, in a network
//! namespace of their own.

#![expect(clippy::unwrap_used, reason = "a test that can't go on must fail")]

use guardian_tests::netns::Netns;
use guardian_tests::{host, image, leftover, skip};

/// Returns the README's shell lines, with the handle replaced.
fn lines(handle: &str) -> String {
    let readme = std::fs::read_to_string(host::workspace().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("\n```sh\n").unwrap();
    let (script, _) = rest.split_once("\n```").unwrap();
    assert!(script.lines().filter(|line| !line.is_empty()).count() <= 20, "keep it short");
    script.replace(" web", &format!(" {handle}")).replace("/web", &format!("/{handle}"))
}

#[test]
fn the_readme_s_pipeline_works_and_undoes_itself() {
    for runtime in ["runc", "crun"] {
        let check = format!("README pipeline ({runtime})");
        if !skip::can_run(&check, &[runtime, "busybox", "nft", "ip", "nsenter"]) {
            continue;
        }
        if !host::bin_dir().join("rootfs").is_file() {
            skip::note(&check, "our executables are not built; try cargo xtask test");
            continue;
        }
        let handle = format!("readme-{}-{runtime}", std::process::id());
        let state = tempfile::tempdir().unwrap();
        let netns = Netns::create(&handle.replacen("readme", "guardian-pipe", 1)).unwrap();
        let bin = host::bin_dir().display().to_string();
        let path = format!("{bin}:/usr/sbin:/usr/bin:/sbin:/bin");
        let script = format!("set -eu\n{}", lines(&handle));
        let mut command = netns.command("/bin/sh");
        command.args(["-c", &script]).env("PATH", path).env("STATE", state.path());
        command.env("IMAGE", image::make(&image::cache()).unwrap()).env("RUNTIME", runtime);
        let said = host::output(&mut command).unwrap();
        assert!(said.lines().any(|line| line == handle), "{runtime}: {said}");
        assert_eq!(netns.links().unwrap(), Vec::<String>::new());
        let directory = state.path().display().to_string();
        // Trash is emptied in the background.
        let mut left = leftover::search(&[&handle, &directory]);
        for _ in 0..100 {
            if left.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            left = leftover::search(&[&handle, &directory]);
        }
        assert_eq!(left, Vec::<String>::new(), "{runtime}");
        netns.delete().unwrap();
    }
}
