//! `dadoo` and `init` on real containers, made by runc and by crun: what a server and a person at a
//! shell rely on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "dadoo/lab.rs"]
mod lab;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use guardian_tests::memory;
use lab::{Keeper, labs, wait_until};

/// The most an idle keeper may hold for itself, in KiB.
const KEEPER_LIMIT_KIB: u64 = 300;
/// The most `init` may hold for itself, in KiB.
const INIT_LIMIT_KIB: u64 = 64;

/// Prints the terminal's size once it has one: crun sets it when the process may already run.
const UNTIL_SIZED: &str = "until [ \"$size\" ]; do size=$(stty size 2>&-); done; echo $size";

#[test]
fn exit_codes_are_the_process_s_own() {
    for lab in labs("exit_codes_are_the_process_s_own") {
        for (script, want) in
            [("exit 0", 0), ("exit 1", 1), ("exit 42", 42), ("kill -9 $$", 137), ("kill $$", 143)]
        {
            let mut keeper = lab.exec(&["sh", "-c", script]);
            assert_eq!(keeper.runtime_exit(), Some(0), "{script}");
            assert_eq!(keeper.wait_exitcode(), want.to_string(), "{script}");
            assert_eq!(keeper.child.wait().unwrap().code(), Some(want), "{script}");
            assert_eq!(keeper.said(), "", "{script}");
        }
    }
}

#[test]
fn fifty_megabytes_arrive_byte_exact() {
    for lab in labs("fifty_megabytes_arrive_byte_exact") {
        let mut keeper = lab.exec(&["sh", "-c", "seq 1 10000000 | head -c 52428800"]);
        let mut output = Vec::new();
        keeper.stdout.read_to_end(&mut output).unwrap();
        let mut want: Vec<u8> = Vec::new();
        for number in 1.. {
            writeln!(want, "{number}").unwrap();
            if want.len() >= 52_428_800 {
                break;
            }
        }
        want.truncate(52_428_800);
        assert!(output == want, "{} bytes", output.len());
        assert_eq!(keeper.wait_exitcode(), "0");
    }
}

#[test]
fn the_end_of_stdin_arrives() {
    for lab in labs("the_end_of_stdin_arrives") {
        let mut keeper = lab.exec(&["cat"]);
        let mut stdin = keeper.stdin.take().unwrap();
        stdin.write_all(b"one\ntwo\n").unwrap();
        drop(stdin);
        assert_eq!(keeper.read_stdout(), "one\ntwo\n");
        assert_eq!(keeper.wait_exitcode(), "0");
    }
}

#[test]
fn the_exit_code_is_on_disk_before_exit_closes() {
    for lab in labs("the_exit_code_is_on_disk_before_exit_closes") {
        for _ in 0..10 {
            let keeper = lab.exec(&["sh", "-c", "exit 9"]);
            keeper.wait_exit_fifo();
            assert_eq!(fs::read_to_string(keeper.dir.join("exitcode")).unwrap(), "9");
        }
    }
}

#[test]
fn a_stray_child_with_stdout_open_delays_nothing_but_the_end_of_stdout() {
    for lab in labs("a_stray_child_with_stdout_open_delays_nothing_but_the_end_of_stdout") {
        let mut keeper = lab.exec(&["sh", "-c", "(sleep 3; echo late) & echo early; exit 4"]);
        let start = Instant::now();
        assert_eq!(keeper.wait_exitcode(), "4");
        assert!(start.elapsed() < Duration::from_secs(2));
        assert_eq!(keeper.read_stdout(), "early\nlate\n");
    }
}

#[test]
fn end_of_stdout_comes_while_the_keeper_lives() {
    for lab in labs("end_of_stdout_comes_while_the_keeper_lives") {
        let mut keeper = lab.exec(&["sh", "-c", "echo x; exec >&- 2>&-; read line; exit 5"]);
        assert_eq!(keeper.read_stdout(), "x\n");
        assert!(!keeper.dir.join("exitcode").exists());
        keeper.stdin.take().unwrap().write_all(b"go\n").unwrap();
        assert_eq!(keeper.wait_exitcode(), "5");
    }
}

#[test]
fn a_failing_runtime_is_told_by_its_status_and_log() {
    for lab in labs("a_failing_runtime_is_told_by_its_status_and_log") {
        let mut keeper = lab.exec(&["/no/such/program"]);
        let status = keeper.runtime_exit().unwrap();
        assert!((1..=255).contains(&status), "{status}");
        assert_eq!(keeper.child.wait().unwrap().code(), Some(3));
        let log = keeper.read_log();
        let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!(line["level"], "error");
        assert!(line["msg"].as_str().unwrap().contains("/no/such/program"), "{log}");
        assert!(!keeper.dir.join("exitcode").exists());

        let mut keeper = Keeper::start(&lab, "/no/such/runtime", &["true"], false);
        assert_eq!(keeper.runtime_exit(), Some(2));
        assert_eq!(keeper.child.wait().unwrap().code(), Some(2));
        assert!(keeper.said().contains("/no/such/runtime"));
    }
}

#[test]
fn the_keeper_outlives_its_parent() {
    for lab in labs("the_keeper_outlives_its_parent") {
        let mut keeper =
            Keeper::start_below_a_parent(&lab, &["sh", "-c", "read x; echo $x; exit 6"]);
        let pid = keeper.pid();
        keeper.child.kill().unwrap();
        assert_eq!(keeper.child.wait().unwrap().signal(), Some(9));
        assert_eq!(keeper.pid(), pid);
        for signal in ["HUP", "INT", "TERM", "PIPE"] {
            lab::kill(keeper.keeper_pid(), signal);
        }
        keeper.stdin.take().unwrap().write_all(b"still here\n").unwrap();
        assert_eq!(keeper.read_stdout(), "still here\n");
        assert_eq!(keeper.wait_exitcode(), "6");
    }
}

#[test]
fn a_process_inherits_three_descriptors_and_clean_signals() {
    for lab in labs("a_process_inherits_three_descriptors_and_clean_signals") {
        let keeper = lab.exec(&["sleep", "60"]);
        let pid = keeper.pid();
        let name = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        wait_until("the runtime to become the process", || name() == "sleep\n");
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let mut fds: Vec<_> =
            fds.map(|fd| fd.unwrap().file_name().into_string().unwrap()).collect();
        fds.sort();
        assert_eq!(fds, ["0", "1", "2"]);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        for set in ["SigBlk", "SigIgn"] {
            let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t"));
            let signals = u64::from_str_radix(line.unwrap(), 16).unwrap();
            // 32 and 33 are libc's own: posix_spawn(3) leaves them ignored.
            assert_eq!(signals & !(0b11 << 31), 0, "{status}");
        }
        // Nothing of the server's: it must see the end of its pipes.
        let kept = fs::read_dir(format!("/proc/{}/fd", keeper.keeper_pid())).unwrap();
        let kept = kept.map(|fd| fs::read_link(fd.unwrap().path()).unwrap());
        assert_eq!(kept.filter(|path| path.starts_with("pipe:")).count(), 0);
        lab::kill(pid, "KILL");
        assert_eq!(keeper.wait_exitcode(), "137");
    }
}

#[test]
fn an_idle_keeper_is_small_and_sleeps() {
    for lab in labs("an_idle_keeper_is_small_and_sleeps") {
        let keepers = [lab.exec(&["sleep", "60"]), lab.exec(&["sleep", "60"])];
        let terminals = [lab.exec_tty(&["sleep", "60"]), lab.exec_tty(&["sleep", "60"])];
        std::thread::sleep(Duration::from_millis(300));
        assert!(std::process::Command::new("sync").status().unwrap().success());
        for keeper in keepers.iter().chain(&terminals) {
            let pid = keeper.keeper_pid();
            let private = memory::of(pid).unwrap().private_kib;
            assert!(private < KEEPER_LIMIT_KIB, "{private} KiB");
            let wakeups = lab::context_switches(pid);
            std::thread::sleep(Duration::from_secs(1));
            assert_eq!(lab::context_switches(pid), wakeups);
        }
        for keeper in keepers.iter().chain(&terminals) {
            lab::kill(keeper.pid(), "KILL");
            assert_eq!(keeper.wait_exitcode(), "137");
        }
    }
}

#[test]
fn a_terminal_has_its_size_and_sends_carriage_returns() {
    for lab in labs("a_terminal_has_its_size_and_sends_carriage_returns") {
        let script = format!("{UNTIL_SIZED}; printf 'a\\nb\\n'; exit 8");
        let mut keeper = lab.exec_tty(&["sh", "-c", &script]);
        assert_eq!(keeper.read_stdout(), "30 100\r\na\r\nb\r\n");
        assert_eq!(keeper.wait_exitcode(), "8");
    }
}

#[test]
fn two_window_sizes_in_one_write_are_both_applied() {
    for lab in labs("two_window_sizes_in_one_write_are_both_applied") {
        let script = format!("{UNTIL_SIZED}; read x; stty size; read x; stty size");
        let mut keeper = lab.exec_tty(&["sh", "-c", &script]);
        let mut winsz = fs::OpenOptions::new().write(true).open(keeper.dir.join("winsz")).unwrap();
        let mut stdin = keeper.stdin.take().unwrap();
        let output = keeper.collect_stdout();
        wait_until("the first size", || output.text().contains("30 100"));
        winsz.write_all(b"{\"columns\":101,\"rows\":31}\n{\"columns\":102,\"rows\":32}\n").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        stdin.write_all(b"\n").unwrap();
        wait_until("the second size", || output.text().contains("32 102"));
        winsz.write_all(b"}{garbage\n{\"columns\":0}").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        stdin.write_all(b"\n").unwrap();
        wait_until("the default size", || output.text().contains("24 80"));
        assert_eq!(keeper.wait_exitcode(), "0");
    }
}

#[test]
fn a_terminal_that_nobody_reads_holds_nobody_up() {
    for lab in labs("a_terminal_that_nobody_reads_holds_nobody_up") {
        let mut keeper = lab.exec_tty(&[
            "sh",
            "-c",
            "stty -echo; yes | head -c 1000000 & read x; stty size; kill -9 $$",
        ]);
        // Input and resizes get through although the output is stuck.
        std::thread::sleep(Duration::from_millis(500));
        let mut winsz = fs::OpenOptions::new().write(true).open(keeper.dir.join("winsz")).unwrap();
        winsz.write_all(b"{\"columns\":33,\"rows\":44}").unwrap();
        wait_until("the size", || lab.terminal_size(keeper.pid()) == "44 33");
        lab::kill(keeper.pid(), "KILL");
        let start = Instant::now();
        assert_eq!(keeper.wait_exitcode(), "137");
        assert!(start.elapsed() < Duration::from_secs(5));
        // What was written before is still read, as far as it fits.
        assert!(keeper.read_stdout().len() > 10_000);
    }
}

#[test]
fn the_last_words_on_a_terminal_are_delivered() {
    for lab in labs("the_last_words_on_a_terminal_are_delivered") {
        for _ in 0..5 {
            let mut keeper = lab.exec_tty(&["sh", "-c", "seq 1 20000; echo end"]);
            let output = keeper.read_stdout();
            assert!(output.ends_with("20000\r\nend\r\n"), "{} bytes", output.len());
            assert_eq!(output.lines().count(), 20_001);
            assert_eq!(keeper.wait_exitcode(), "0");
        }
        // A child keeps the terminal open: that delays the end, and does not prevent it.
        let script = "(trap '' HUP; sleep 20) & sleep 0.2; echo end; exit 3";
        let mut keeper = lab.exec_tty(&["sh", "-c", script]);
        let start = Instant::now();
        assert_eq!(keeper.read_stdout(), "end\r\n");
        assert_eq!(keeper.wait_exitcode(), "3");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_person_needs_no_server() {
    for lab in labs("a_person_needs_no_server") {
        let dir = lab.detached(&["sh", "-c", "read x; echo got $x; echo oops >&2; exit 17"]);
        let attached = lab::feed(lab.dadoo(&["attach"], &dir), "hello\n");
        assert_eq!(String::from_utf8(attached.stdout).unwrap(), "got hello\n");
        assert_eq!(String::from_utf8(attached.stderr).unwrap(), "oops\n");
        assert_eq!(attached.status.code(), Some(17));
        // All that is known afterwards is the code.
        for verb in ["attach", "wait"] {
            assert_eq!(lab.dadoo(&[verb], &dir).status().unwrap().code(), Some(17));
        }
        assert!(lab.dadoo(&["signal"], &dir).arg("KILL").status().unwrap().success());

        let dir =
            lab.detached(&["sh", "-c", "trap 'exit 5' USR1; echo up; while :; do sleep 0.1; done"]);
        let attached = lab::in_background(lab.dadoo(&["attach"], &dir));
        wait_until("the process", || dir.join("pidfile").exists());
        std::thread::sleep(Duration::from_millis(300));
        let waiting = lab::in_background(lab.dadoo(&["wait"], &dir));
        assert!(lab.dadoo(&["signal"], &dir).arg("USR1").status().unwrap().success());
        assert_eq!(waiting.wait_with_output().unwrap().status.code(), Some(5));
        let attached = attached.wait_with_output().unwrap();
        assert_eq!(attached.status.code(), Some(5));
        assert_eq!(String::from_utf8(attached.stdout).unwrap(), "up\n");
        // A process directory is used once, and a process without a terminal has no size.
        assert_eq!(lab.detach(&dir, &["true"]).code(), Some(2));
        let resize = lab.dadoo(&["resize"], &dir).args(["80", "24"]).output().unwrap();
        assert_eq!(resize.status.code(), Some(2));
    }
}

#[test]
fn orphans_in_a_container_vanish_and_init_is_small() {
    for lab in labs("orphans_in_a_container_vanish_and_init_is_small") {
        let script = "(sleep 0.3 & exec sleep 0.1) & sleep 1; head -n 1 /proc/1/status; \
                      cat /proc/[0-9]*/status | grep -c '^State:.Z'";
        let mut keeper = lab.exec(&["sh", "-c", script]);
        assert_eq!(keeper.read_stdout(), "Name:\tgarden-init\n0\n");
        let private = memory::of(lab.init_pid()).unwrap().private_kib;
        assert!(private <= INIT_LIMIT_KIB, "{private} KiB");
    }
}
