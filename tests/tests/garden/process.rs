//! Exit codes, streams and terminals.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use guardian_tests::{host, skip};

use crate::{code, ctl, run, stderr, stdout, with_each_runtime};

/// Prints the checksum of what it is about to print, and prints it.
const FIFTY_MB: &str = "dd if=/dev/urandom of=/tmp/x bs=1M count=50 2>/dev/null; \
                        sha256sum < /tmp/x | cut -c1-64 >&2; cat /tmp/x";

/// Output and input through the server, and by descriptors that the process has itself.
const WAYS: [&[&str]; 2] = [&["--relay"], &[]];

#[test]
fn run_ends_with_the_process_s_exit_code() {
    with_each_runtime("exit codes of run", |daemon| {
        for (command, want) in [
            (&["true"][..], 0),
            (&["false"], 1),
            (&["sh", "-c", "exit 42"], 42),
            (&["sh", "-c", "kill -9 $$"], 137),
            (&["sh", "-c", "kill -15 $$"], 143),
            (&["no-such-program"], 127),
            (&["/no/such/program"], 127),
        ] {
            let output = run(daemon, &[&["--"], command].concat());
            assert_eq!(code(&output), want, "{command:?}: {}", stderr(&output));
        }
        assert_eq!(daemon.handles().unwrap(), Vec::<String>::new(), "run removes its container");
    });
}

#[test]
fn a_signal_to_run_ends_the_process_and_removes_the_container() {
    with_each_runtime("signal to run", |daemon| {
        let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
        let mut child = daemon
            .guardctl()
            .args(["run", "--handle", &daemon.handle("int"), "--", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(9));
        assert_eq!(daemon.handles().unwrap(), Vec::<String>::new());
    });
}

#[test]
fn fifty_megabytes_arrive_byte_for_byte() {
    with_each_runtime("50 MB through stdout", |daemon| {
        for way in WAYS {
            let output = run(daemon, &[way, &["--", "sh", "-c", FIFTY_MB]].concat());
            assert_eq!(output.stdout.len(), 50 << 20, "{way:?}");
            assert_eq!(sha256(&output.stdout), stderr(&output).trim(), "{way:?}");
        }
    });
}

#[test]
fn a_slow_reader_loses_nothing() {
    with_each_runtime("50 MB to a slow reader", |daemon| {
        let mut child = daemon
            .guardctl()
            .args(["run", "--relay", "--handle", &daemon.handle("slow")])
            .args(["--", "sh", "-c", FIFTY_MB])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut all, mut piece) = (Vec::new(), vec![0; 1 << 20]);
        loop {
            std::thread::sleep(Duration::from_millis(5));
            match child.stdout.as_mut().unwrap().read(&mut piece).unwrap() {
                0 => break,
                count => all.extend_from_slice(&piece[..count]),
            }
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(all.len(), 50 << 20);
        assert_eq!(sha256(&all), stderr(&output).trim());
    });
}

#[test]
fn two_hundred_runs_of_echo_lose_no_byte() {
    with_each_runtime("200 runs of echo", |daemon| {
        let handle = daemon.handle("echo");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        for number in 0..200 {
            let word = format!("line {number}");
            let words = [&["exec"], WAYS[number % 2], &[&handle, "--", "echo", &word]].concat();
            let output = ctl(daemon, &words);
            assert_eq!(stdout(&output), format!("{word}\n"), "{}", stderr(&output));
        }
    });
}

#[test]
fn standard_input_arrives_whole_and_ends() {
    with_each_runtime("standard input", |daemon| {
        let text: String = (0..200_000).map(|number| format!("{number} äöü 🦀\n")).collect();
        for way in WAYS {
            let mut child = daemon
                .guardctl()
                .args(["run", "-i", "--handle", &daemon.handle("in")])
                .args(way)
                .args(["--", "sha256sum"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            assert_eq!(stdout(&output)[..64], sha256(text.as_bytes()), "{way:?}");
        }
        // Without -i a program that reads ends at once.
        assert_eq!(code(&run(daemon, &["--", "cat"])), 0);
    });
}

#[test]
fn a_terminal_is_one() {
    if !skip::can_run("terminal", &["script"]) {
        return;
    }
    with_each_runtime("terminal", |daemon| {
        let guardctl = host::bin_dir().join("guardctl").display().to_string();
        let target = daemon.socket().display().to_string();
        let handle = daemon.handle("tty");
        // crun 1.8 tells the terminal its size only after the process has started.
        let command = format!(
            "stty cols 91 rows 33; {guardctl} --target {target} run --handle {handle} -it -- sh -c \
             'n=0; until [ \"$(stty size)\" = \"33 91\" ] || [ $n = 500 ]; do n=$((n+1)); sleep 0.01; done; \
             stty size; tty; test -t 2; exit 7'; echo code $?; stty | head -1"
        );
        let typescript = daemon.path("typescript").display().to_string();
        let output = Command::new("script").args(["-qec", &command, &typescript]).output().unwrap();
        let text = stdout(&output);
        assert!(text.contains("33 91"), "{text}");
        assert!(text.contains("/dev/pts/0"), "{text}");
        assert!(text.contains("code 7"), "{text}");
    });
}

#[test]
fn a_reader_that_leaves_ends_the_process() {
    with_each_runtime("reader leaves", |daemon| {
        let handle = daemon.handle("yes");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        // Told to end by guardctl, or by the broken pipe.
        for (way, id, want) in [(WAYS[0], "p", 143), (WAYS[1], "q", 141)] {
            let mut child = daemon
                .guardctl()
                .args(["exec", "--id", id])
                .args(way)
                .args([&handle, "--", "yes"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
            drop(child.stdout.take());
            assert_eq!(child.wait().unwrap().code(), Some(141), "{way:?}");
            assert_eq!(code(&ctl(daemon, &["attach", &handle, id])), want, "{way:?}");
        }
    });
}

fn sha256(bytes: &[u8]) -> String {
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    stdout(&child.wait_with_output().unwrap())[..64].to_owned()
}
