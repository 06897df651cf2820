//! What is told of containers while they live.

use std::process::Stdio;

use guardian_tests::event::Listener;
use serde_json::Value;

use crate::{stdout, with_each_runtime};

fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event[key].as_str().unwrap_or_default()
}

#[test]
fn a_life_is_told_in_order() {
    with_each_runtime("events of a life", |daemon| {
        let mut listener = Listener::of(daemon).unwrap();
        let handle = daemon.handle("life");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        daemon.ctl(&["exec", "-d", "--id", "p", &handle, "--", "sh", "-c", "exit 7"]).unwrap();
        let mut seen = listener.until("exit").unwrap();
        daemon.ctl(&["exec", "-d", "--id", "q", &handle, "--", "sleep", "1000"]).unwrap();
        daemon.ctl(&["rm", &handle]).unwrap();
        seen.extend(listener.until("destroy").unwrap());
        let kinds: Vec<&str> = seen.iter().map(|event| text(event, "event")).collect();
        assert_eq!(kinds, ["create", "start", "exit", "start", "exit", "destroy"], "{seen:?}");
        let processes: Vec<&str> = seen.iter().map(|event| text(event, "process")).collect();
        assert_eq!(processes, ["", "p", "p", "q", "q", ""]);
        assert!(seen.iter().all(|event| text(event, "handle") == handle), "{seen:?}");
        assert!(seen[1]["pid"].as_i64().unwrap() > 1);
        assert_eq!((&seen[2]["exit_code"], &seen[4]["exit_code"]), (&7.into(), &137.into()));
        assert!(seen.windows(2).all(|pair| text(&pair[0], "time") <= text(&pair[1], "time")));
    });
}

#[test]
fn the_client_follows_the_containers_named_and_ends_with_the_server() {
    with_each_runtime("guardctl events", |daemon| {
        let (wanted, other) = (daemon.handle("wanted"), daemon.handle("other"));
        let mut client = daemon.guardctl();
        let client = client.args(["events", &wanted]).stdout(Stdio::piped()).spawn().unwrap();
        // Whoever listens is known to the server when it is asked how much it does.
        while !crate::stats::scrape(daemon).contains("\nguardian_requests_in_flight 2\n") {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        for handle in [&other, &wanted] {
            daemon.ctl(&["create", "--handle", handle]).unwrap();
            daemon.ctl(&["rm", handle]).unwrap();
        }
        daemon.stop().unwrap();
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = stdout(&output);
        let events: Vec<Value> =
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<&str> = events.iter().map(|event| text(event, "event")).collect();
        assert_eq!(kinds, ["create", "destroy"]);
        assert!(events.iter().all(|event| text(event, "handle") == wanted), "{said}");
        daemon.up().unwrap();
    });
}

#[test]
fn a_container_whose_first_process_dies_is_told() {
    with_each_runtime("events of a dead init", |daemon| {
        let handle = daemon.handle("dead");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let mut listener = Listener::of(daemon).unwrap();
        let pidfile = daemon.depot().join(&handle).join("pidfile");
        let pid: i32 = std::fs::read_to_string(pidfile).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
        let seen = listener.until("exit").unwrap();
        let last = seen.last().unwrap();
        assert_eq!((text(last, "handle"), &last["pid"]), (handle.as_str(), &pid.into()));
        assert_eq!(last["process"], Value::Null);
    });
}

#[test]
fn a_container_that_can_t_be_made_is_told_with_the_reason() {
    with_each_runtime("events of a failed create", |daemon| {
        let mut listener = Listener::of(daemon).unwrap();
        let handle = daemon.handle("never");
        let image = ["create", "--handle", &handle, "--image", "oci:///no/such/layout:latest"];
        assert_eq!(crate::code(&crate::ctl(daemon, &image)), 1);
        let seen = listener.until("destroy").unwrap();
        let kinds: Vec<&str> = seen.iter().map(|event| text(event, "event")).collect();
        assert_eq!(kinds, ["create_failed", "destroy"]);
        assert!(text(&seen[0], "error").contains("Image source doesn't exist"), "{seen:?}");
        assert!(seen.iter().all(|event| text(event, "handle") == handle), "{seen:?}");
    });
}
