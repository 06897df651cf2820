//! Out of memory: seen by the kernel's notice, told in the container's info and as an event.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use guardian_contract::garden::{ImageRef, MemoryLimits, ProcessLimits, ProcessSpec};
use guardian_tests::api::Process;
use guardian_tests::daemon::Daemon;
use guardian_tests::event::Listener;
use guardian_tests::patience::patience;
use serde_json::Value;

use crate::stats::{scrape, value};
use crate::{code, ctl, with_each_runtime};

/// Holds more and more: the line that it looks for has no end.
const HOG: [&str; 2] = ["tail", "/dev/zero"];

/// The kernel names no more than ten victims in five seconds, so tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Runs `body` alone.
fn in_turn(check: &str, body: impl Fn(&mut Daemon)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    with_each_runtime(check, body);
}

/// Returns the events in the container's info.
fn events(daemon: &Daemon, handle: &str) -> Vec<String> {
    let info: Value = serde_json::from_str(&daemon.ctl(&["inspect", handle]).unwrap()).unwrap();
    serde_json::from_value(info["Events"].clone()).unwrap_or_default()
}

/// Waits until the container's info has so many events.
fn await_events(daemon: &Daemon, handle: &str, count: usize) {
    let start = Instant::now();
    while events(daemon, handle).len() < count
        && start.elapsed() < patience(Duration::from_secs(20))
    {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(events(daemon, handle), vec!["Out of memory"; count]);
}

fn hog(daemon: &Daemon, handle: &str) {
    assert_eq!(code(&ctl(daemon, &[&["exec", handle, "--"], &HOG[..]].concat())), 137);
}

#[test]
fn the_killed_process_is_named_and_the_info_says_out_of_memory() {
    in_turn("out of memory", |daemon| {
        let handle = daemon.handle("oom");
        daemon.ctl(&["create", "--handle", &handle, "--memory", "16M"]).unwrap();
        assert_eq!(events(daemon, &handle), Vec::<String>::new());
        let mut listener = Listener::of(daemon).unwrap();
        hog(daemon, &handle);
        let mut seen = listener.until("oom").unwrap();
        await_events(daemon, &handle, 1);
        if !seen.iter().any(|event| event["event"] == "exit") {
            seen.extend(listener.until("exit").unwrap());
        }
        let of = |kind: &str| seen.iter().find(|event| event["event"] == kind).unwrap();
        assert_eq!(of("oom")["pid"], of("start")["pid"], "{seen:?}");
        assert_eq!(
            (&of("oom")["handle"], &of("oom")["command"]),
            (&handle.as_str().into(), &"tail".into())
        );
        assert_eq!(of("exit")["exit_code"], 137);
        // Taking the group away gives notice, too, and is no such event.
        daemon.ctl(&["rm", &handle]).unwrap();
        let rest = listener.until("destroy").unwrap();
        assert!(rest.iter().all(|event| event["event"] != "oom"), "{rest:?}");
    });
}

#[test]
fn a_server_that_was_killed_hears_of_it_again_and_of_what_it_missed() {
    in_turn("out of memory after a restart", |daemon| {
        let handle = daemon.handle("again");
        daemon.ctl(&["create", "--handle", &handle, "--memory", "16M"]).unwrap();
        hog(daemon, &handle);
        await_events(daemon, &handle, 1);
        let words = ["exec", "-d", &handle, "--", "sh", "-c", "sleep 0.5; tail /dev/zero"];
        daemon.ctl(&words).unwrap();
        daemon.kill().unwrap();
        std::thread::sleep(patience(Duration::from_secs(2)));
        daemon.up().unwrap();
        await_events(daemon, &handle, 2);
        let mut listener = Listener::of(daemon).unwrap();
        hog(daemon, &handle);
        assert!(listener.until("oom").unwrap().last().unwrap()["pid"].as_i64().unwrap() > 1);
        await_events(daemon, &handle, 3);
    });
}

#[test]
fn a_pea_is_watched_whether_its_limit_is_the_container_s_or_its_own() {
    in_turn("out of memory in a pea", |daemon| {
        let handle = daemon.handle("peas");
        daemon.ctl(&["create", "--handle", &handle, "--memory", "16M"]).unwrap();
        let mut listener = Listener::of(daemon).unwrap();
        for own_bytes in [None, Some(8 << 20)] {
            let memory = |limit_in_bytes| MemoryLimits { limit_in_bytes };
            let limits = own_bytes
                .map(|bytes| ProcessLimits { memory: memory(bytes), ..ProcessLimits::default() });
            let id = daemon.handle(if own_bytes.is_some() { "own" } else { "shared" });
            let spec = ProcessSpec {
                id: id.clone(),
                // One that is killed before its group is watched is told of by its exit code alone.
                path: "sh".into(),
                args: vec!["-c".into(), format!("sleep 0.5; exec {}", HOG.join(" "))],
                image: ImageRef { uri: daemon.image().into(), ..ImageRef::default() },
                limits,
                ..ProcessSpec::default()
            };
            let mut pea = Process::run(daemon, &handle, &spec).unwrap();
            assert_eq!(pea.wait().unwrap(), 137);
            let seen = listener.until("oom").unwrap();
            let last = seen.last().unwrap();
            // One that shares the container's limit is killed for the container.
            let want = own_bytes.map_or(Value::Null, |_| id.as_str().into());
            assert_eq!(last["process"], want, "{seen:?}");
            // Who starts and is killed at once may be told of in either order.
            let started = seen.iter().find(|event| event["event"] == "start").cloned();
            let started = started.or_else(|| listener.until("start").unwrap().last().cloned());
            assert_eq!(last["pid"], started.unwrap()["pid"], "{seen:?}");
        }
        await_events(daemon, &handle, 2);
    });
}

#[test]
fn a_container_that_is_out_of_memory_all_the_time_does_not_grow() {
    in_turn("out of memory again and again", |daemon| {
        let handle = daemon.handle("often");
        daemon.ctl(&["create", "--handle", &handle, "--memory", "8M"]).unwrap();
        let script = "i=0; while [ $i -lt 40 ]; do tail /dev/zero; i=$((i+1)); done";
        ctl(daemon, &["exec", &handle, "--", "sh", "-c", script]);
        await_events(daemon, &handle, 16);
        // Each is counted, however many are told together.
        let start = Instant::now();
        let kills = || value(&scrape(daemon), "guardian_oom_kills_total").unwrap();
        while kills() < 40.0 && start.elapsed() < patience(Duration::from_secs(20)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(kills(), 40.0);
        // What comes next is to have its victims named.
        std::thread::sleep(Duration::from_secs(5));
    });
}
