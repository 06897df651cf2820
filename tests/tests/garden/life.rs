//! Creating, listing and destroying.

use guardian_tests::host;
use serde_json::Value;

use crate::{code, ctl, run, stderr, stdout, with_each_runtime};

#[test]
fn the_search_for_leftovers_finds_what_a_container_has() {
    with_each_runtime("search for leftovers", |daemon| {
        let handle = daemon.handle("there");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let found = daemon.present().unwrap();
        for thing in ["network link ", "mount ", "process ", "directory /sys/fs/cgroup/", "bundle "]
        {
            assert!(found.iter().any(|line| line.starts_with(thing)), "{thing}: {found:?}");
        }
    });
}

#[test]
fn fifty_cycles_leave_nothing() {
    with_each_runtime("50 create/destroy cycles", |daemon| {
        for number in 0..50 {
            let handle = daemon.handle(&format!("c{number}"));
            daemon.ctl(&["create", "--handle", &handle]).unwrap();
            daemon.ctl(&["rm", &handle]).unwrap();
        }
        assert_eq!(daemon.leftovers().unwrap(), Vec::<String>::new());
    });
}

#[test]
fn twenty_in_parallel_leave_nothing() {
    with_each_runtime("20 in parallel", |daemon| {
        let daemon = &*daemon;
        std::thread::scope(|scope| {
            for number in 0..20 {
                scope.spawn(move || {
                    let handle = daemon.handle(&format!("p{number}"));
                    daemon.ctl(&["create", "--handle", &handle]).unwrap();
                    let said = daemon.ctl(&["exec", &handle, "--", "hostname"]).unwrap();
                    assert_eq!(said.trim(), handle);
                    daemon.ctl(&["rm", &handle]).unwrap();
                });
            }
        });
        assert_eq!(daemon.leftovers().unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_handle_is_used_once_and_may_be_used_again() {
    with_each_runtime("duplicate handle", |daemon| {
        let handle = daemon.handle("twin");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let second = ctl(daemon, &["create", "--handle", &handle]);
        assert_eq!(code(&second), 1);
        assert_eq!(stderr(&second), format!("guardctl: Handle '{handle}' already in use\n"));
        assert_eq!(daemon.ctl(&["exec", &handle, "--", "echo", "well"]).unwrap(), "well\n");
        daemon.ctl(&["rm", &handle]).unwrap();
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
    });
}

#[test]
fn an_unprivileged_container_has_ids_of_its_own() {
    with_each_runtime("unprivileged container", |daemon| {
        let map = stdout(&run(daemon, &["--", "cat", "/proc/self/uid_map"]));
        let numbers: Vec<&str> = map.split_whitespace().take(3).collect();
        assert_eq!(numbers, ["0", "4294967294", "1"], "gdn's mapping");
        let owner = run(daemon, &["--", "stat", "-c", "%u:%g %a", "/bin/busybox", "/tmp"]);
        assert_eq!(stdout(&owner), "0:0 755\n0:0 1777\n");
        let alice = run(daemon, &["-u", "alice", "--", "sh", "-c", "id -u; pwd"]);
        assert_eq!(stdout(&alice), "1000\n/home/alice\n");
    });
}

#[test]
fn a_privileged_container_works_with_what_the_host_has() {
    with_each_runtime("privileged container", |daemon| {
        let script = "cat /proc/self/uid_map; mount -t tmpfs none /mnt 2>/dev/null || \
                      { mkdir -p /mnt; mount -t tmpfs none /mnt; } && echo mounted";
        let output = run(daemon, &["--privileged", "--", "sh", "-c", script]);
        let said = stdout(&output);
        let numbers: Vec<&str> = said.split_whitespace().take(3).collect();
        assert_eq!(numbers, ["0", "0", "4294967295"], "{}", stderr(&output));
        assert!(said.ends_with("mounted\n"), "{said}");
    });
}

#[test]
fn a_container_has_a_network_of_its_own() {
    with_each_runtime("container network", |daemon| {
        let handle = daemon.handle("net");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let info: Value =
            serde_json::from_str(&daemon.ctl(&["inspect", &handle]).unwrap()).unwrap();
        let address = info["ContainerIP"].as_str().unwrap();
        let inside = daemon.ctl(&["exec", &handle, "--", "ip", "-o", "-4", "addr"]).unwrap();
        assert!(inside.contains(&format!("{address}/30")), "{inside}");
        let hosts = daemon.ctl(&["exec", &handle, "--", "cat", "/etc/hosts"]).unwrap();
        assert!(hosts.contains(&format!("{address} {handle}")), "{hosts}");
        // The uplink is the nearest thing that is neither the container nor its host end.
        let out = ctl(daemon, &["exec", &handle, "--", "ip", "route", "get", "192.0.2.1"]);
        assert!(stdout(&out).contains("via"), "{}{}", stdout(&out), stderr(&out));
    });
}

#[test]
fn properties_are_kept_and_filter_lists() {
    with_each_runtime("properties", |daemon| {
        let handle = daemon.handle("props");
        daemon.ctl(&["create", "--handle", &handle, "--property", "color=blue"]).unwrap();
        let filtered = |filter| daemon.ctl(&["--json", "ps", "--property", filter]).unwrap();
        assert!(filtered("color=blue").contains(&handle));
        assert_eq!(filtered("color=red").trim(), "[]");
        daemon.ctl(&["properties", &handle, "set", "color", "red"]).unwrap();
        assert_eq!(daemon.ctl(&["properties", &handle, "get", "color"]).unwrap(), "red\n");
        daemon.ctl(&["properties", &handle, "rm", "color"]).unwrap();
        let gone = ctl(daemon, &["properties", &handle, "get", "color"]);
        assert_eq!(stderr(&gone), "guardctl: property does not exist: color\n");
    });
}

#[test]
fn stop_ends_processes_and_keeps_the_container() {
    with_each_runtime("stop", |daemon| {
        let handle = daemon.handle("stop");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        daemon.ctl(&["exec", "--detach", "--id", "p", &handle, "--", "sleep", "1000"]).unwrap();
        daemon.ctl(&["stop", "--kill", &handle]).unwrap();
        assert_eq!(code(&ctl(daemon, &["attach", &handle, "p"])), 137);
        assert_eq!(daemon.handles().unwrap(), [handle]);
    });
}

#[test]
fn the_image_needs_no_daemon_to_be_valid() {
    if !guardian_tests::skip::can_run("image layout", &["skopeo"]) {
        return;
    }
    let image = guardian_tests::image::make(&guardian_tests::image::cache()).unwrap();
    let place = image.replacen("oci://", "oci:", 1);
    let said = host::run(&["skopeo", "inspect", &place]).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["Layers"].as_array().map(Vec::len), Some(1));
    let copy = tempfile::tempdir().unwrap();
    let copied = format!("dir:{}", copy.path().display());
    // Copying checks every digest.
    host::run(&["skopeo", "--insecure-policy", "copy", &place, &copied]).unwrap();
}
