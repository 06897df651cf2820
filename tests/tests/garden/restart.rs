//! A server that dies takes nothing with it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use guardian_contract::depot::Init;
use guardian_tests::daemon::Daemon;
use guardian_tests::host;
use guardian_tests::patience::patience;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{code, ctl, stdout, with_each_runtime};

/// Ticks for as long as a server may take to be killed and started again, then ends with a code of
/// its own.
fn ticks() -> String {
    let pause = patience(Duration::from_millis(50)).as_secs_f64();
    format!("i=0; while [ $i -lt 60 ]; do echo tick $i; i=$((i+1)); sleep {pause}; done; exit 7")
}

#[test]
fn a_process_outlives_kill_9_of_the_server() {
    with_each_runtime("kill -9 and attach", |daemon| {
        let handle = daemon.handle("survivor");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let mut client = daemon
            .guardctl()
            .args(["exec", "--relay", "--id", "p", &handle, "--", "sh", "-c", &ticks()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(client.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "tick 0\n");
        let pidfile = daemon.path("depot").join(&handle).join("processes/p/pidfile");
        let pid = || std::fs::read_to_string(&pidfile).unwrap().trim().parse::<i32>().unwrap();
        let process = Init::of(pid()).unwrap();

        daemon.kill().unwrap();
        assert_eq!(client.wait().unwrap().code(), Some(125), "the client lost its server");
        assert!(process.is_alive());
        daemon.up().unwrap();

        assert_eq!(daemon.handles().unwrap().as_slice(), std::slice::from_ref(&handle));
        let output = ctl(daemon, &["attach", &handle, "p"]);
        assert_eq!(code(&output), 7);
        assert_eq!(pid(), process.pid);
        let said = stdout(&output);
        let numbers: Vec<u32> =
            said.lines().map(|line| line.trim_start_matches("tick ").parse().unwrap()).collect();
        let first = *numbers.first().expect("no output after the restart");
        assert_eq!(numbers, (first..60).collect::<Vec<_>>(), "no tick is lost or doubled");
        // Its exit code is still known to whoever asks later.
        assert_eq!(code(&ctl(daemon, &["attach", &handle, "p"])), 7);
    });
}

#[test]
fn a_process_with_its_client_s_streams_does_not_notice() {
    with_each_runtime("kill -9 and passed streams", |daemon| {
        let handle = daemon.handle("passed");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let file = daemon.path("ticks");
        let client = |out: Stdio| {
            let words = ["exec", &handle, "--", "sh", "-c", &ticks()];
            daemon.guardctl().args(words).stdout(out).spawn().unwrap()
        };
        // A pipe is the process's own, a file is written by its client.
        let mut piped = client(Stdio::piped());
        let mut filed = client(std::fs::File::create(&file).unwrap().into());
        let mut stdout = BufReader::new(piped.stdout.take().unwrap());
        let mut said = String::new();
        // A process prints before its client has been told that it runs.
        for _ in 0..10 {
            stdout.read_line(&mut said).unwrap();
        }
        while std::fs::metadata(&file).unwrap().len() < 50 {
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon.kill().unwrap();
        daemon.up().unwrap();
        std::io::Read::read_to_string(&mut stdout, &mut said).unwrap();
        let want: String = (0..60).map(|tick| format!("tick {tick}\n")).collect();
        assert_eq!(said, want);
        assert_eq!(piped.wait().unwrap().code(), Some(7));
        assert_eq!(filed.wait().unwrap().code(), Some(7));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), want);
    });
}

#[test]
fn an_exit_while_the_server_is_away_is_known_afterwards() {
    with_each_runtime("exit while away", |daemon| {
        let handle = daemon.handle("away");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let words =
            ["exec", "--detach", "--id", "p", &handle, "--", "sh", "-c", "sleep 0.3; exit 5"];
        daemon.ctl(&words).unwrap();
        daemon.kill().unwrap();
        std::thread::sleep(Duration::from_millis(600));
        daemon.up().unwrap();
        assert_eq!(code(&ctl(daemon, &["attach", &handle, "p"])), 5);
        let echo = daemon.ctl(&["exec", &handle, "--", "echo", "still here"]).unwrap();
        assert_eq!(echo, "still here\n");
    });
}

#[test]
fn a_create_cut_short_leaves_nothing() {
    with_each_runtime("kill -9 during create", |daemon| {
        for delay in [5, 20, 50, 90] {
            let handle = daemon.handle(&format!("half{delay}"));
            let mut client = daemon
                .guardctl()
                .args(["create", "--handle", &handle])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(delay));
            daemon.kill().unwrap();
            client.wait().unwrap();
            daemon.up().unwrap();
            // What was complete stays; what was not is unwound in the background.
            daemon.destroy_all().unwrap();
            let left = daemon.leftovers().unwrap();
            assert_eq!(left, Vec::<String>::new(), "killed after {delay} ms");
        }
    });
}

/// Stops the image plugin that makes the image of `handle`, if it is met before it has ended.
fn stop_plugin(daemon: &Daemon, handle: &str) -> Option<Child> {
    let mut create = daemon.guardctl();
    create.args(["create", "--handle", handle]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut client = create.spawn().unwrap();
    while client.try_wait().unwrap().is_none() {
        if let Some(pid) = host::processes("rootfs", handle).first() {
            let pid = Pid::from_raw(i32::try_from(*pid).unwrap());
            return kill(pid, Signal::SIGSTOP).is_ok().then_some(client);
        }
    }
    None
}

/// The image plugin hangs, as if a registry were slow, when its server is killed; later it would go on.
#[test]
fn what_a_killed_server_had_called_makes_nothing_afterwards() {
    with_each_runtime("a forsaken image plugin", |daemon| {
        let met = (0..50).find_map(|number| {
            let handle = daemon.handle(&format!("forsaken{number}"));
            stop_plugin(daemon, &handle).map(|client| (handle, client))
        });
        let (handle, mut client) = met.expect("no image plugin was met while it ran");
        daemon.kill().unwrap();
        client.wait().unwrap();
        daemon.up().unwrap();
        daemon.destroy_all().unwrap();
        assert_eq!(daemon.leftovers().unwrap(), Vec::<String>::new());
        assert!(host::processes("rootfs", &handle).is_empty(), "it is still there");
        assert!(!daemon.path("store/images").join(&handle).exists());
    });
}
