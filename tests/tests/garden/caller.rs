//! What guardctl's caller is not kept waiting for, and is told.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use guardian_tests::daemon::Daemon;
use guardian_tests::patience::patience;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{code, stderr, with_each_runtime};

/// Runs it with `input` on standard input and returns its exit code, or `None` when it hangs.
fn fed(command: &mut Command, input: &str) -> Option<i32> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    ended(&mut child)
}

fn ended(child: &mut Child) -> Option<i32> {
    let start = Instant::now();
    while start.elapsed() < patience(Duration::from_secs(20)) {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

fn container(daemon: &Daemon) -> String {
    let handle = daemon.handle("caller");
    daemon.ctl(&["create", "--handle", &handle]).unwrap();
    handle
}

#[test]
fn a_terminal_s_input_ends_where_ours_does() {
    with_each_runtime("end of a terminal's input", |daemon| {
        let handle = container(daemon);
        for (flags, input, command, want) in [
            (&["-it"][..], "", &["cat"][..], 0),
            (&["-t"], "", &["cat"], 0),
            // An unfinished line counts, and what a shell's child has ended is the shell's end too.
            (&["-it"], "exit 7", &["sh"], 7),
            (&["-it"], "cat\n", &["sh", "-c", "sh; exit 5"], 5),
        ] {
            let mut command_line = daemon.guardctl();
            command_line.arg("exec").args(flags).args([&handle, "--"]).args(command);
            let code = fed(&mut command_line, input);
            assert_eq!(code, Some(want), "{flags:?} {input:?} {command:?}");
        }
    });
}

#[test]
fn a_second_signal_ends_guardctl() {
    with_each_runtime("second signal", |daemon| {
        let handle = container(daemon);
        let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
        let mut child = daemon
            .guardctl()
            .args(["exec", &handle, "--", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        let guardctl = Pid::from_raw(i32::try_from(child.id()).unwrap());
        kill(guardctl, Signal::SIGTERM).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "the process takes no notice of the first");
        // A server that is stopped can't even kill it.
        let server = Pid::from_raw(i32::try_from(daemon.pid().unwrap()).unwrap());
        kill(server, Signal::SIGSTOP).unwrap();
        kill(guardctl, Signal::SIGTERM).unwrap();
        let code = ended(&mut child);
        kill(server, Signal::SIGCONT).unwrap();
        assert_eq!(code, Some(128 + 15));
    });
}

#[test]
fn a_full_disk_is_told() {
    with_each_runtime("full disk", |daemon| {
        let handle = container(daemon);
        for way in [&["--relay"][..], &[], &["-t"]] {
            let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
            let output = daemon
                .guardctl()
                .arg("exec")
                .args(way)
                .args([&handle, "--", "yes"])
                .stdout(full)
                .output()
                .unwrap();
            let text = stderr(&output);
            assert_eq!(code(&output), 125, "{way:?}: {text}");
            assert!(text.contains("write standard output: No space left"), "{way:?}: {text}");
        }
    });
}
