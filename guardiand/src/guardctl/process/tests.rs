//! Sessions against a scripted server: a socket that answers with recorded bytes.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::target::Target;

const RUN: &str = "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nDate: Sun, 22 Nov 2026 10:24:26 GMT\r\nTransfer-Encoding: chunked\r\n\r\n{\"process_id\":\"pid-1\",\"stream_id\":\"1\"}\n";
const JOIN: Join = Join { input: Input::Close, tty: false, passes: true };
const OUTPUT: &str =
    "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 10:24:26 GMT\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Reads a request's head and returns its first line.
fn request(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().lines().next().unwrap_or_default().to_owned()
}

/// Runs a process on a server that ends the control connection with `last`, and only after
/// `linger` the outputs.
fn session(last: &'static str, linger: Duration) -> (anyhow::Result<Outcome>, bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let outputs_ended = ended.clone();
    let server = thread::spawn(move || {
        let (mut control, _) = listener.accept().unwrap();
        assert_eq!(request(&mut control), "POST /containers/h/processes HTTP/1.1");
        control.write_all(RUN.as_bytes()).unwrap();
        let mut outputs = Vec::new();
        for name in ["stdout", "stderr"] {
            let (mut output, _) = listener.accept().unwrap();
            let want = format!("GET /containers/h/processes/pid-1/attaches/1/{name} HTTP/1.1");
            assert_eq!(request(&mut output), want);
            output.write_all(OUTPUT.as_bytes()).unwrap();
            outputs.push(output);
        }
        control.write_all(last.as_bytes()).unwrap();
        drop(control);
        thread::sleep(linger);
        outputs_ended.store(true, Ordering::SeqCst);
    });
    let client = Client::new(Target::Unix(path));
    let events = Events::open().unwrap();
    let process = Process::run(&client, "h", &ProcessSpec::default(), JOIN).unwrap();
    let outcome = process.interact(JOIN, &events);
    let all_read = ended.load(Ordering::SeqCst);
    server.join().unwrap();
    (outcome, all_read)
}

#[test]
fn the_exit_code_comes_after_the_last_output() {
    let last = "{\"process_id\":\"pid-1\",\"exit_status\":7}\n";
    let (outcome, all_read) = session(last, Duration::from_millis(200));
    assert_eq!(outcome.unwrap(), Outcome::Exited(7));
    assert!(all_read);
}

#[test]
fn payloads_that_say_nothing_are_passed_over() {
    let last = "{\"process_id\":\"pid-1\"}\n{\"process_id\":\"pid-1\",\"exit_status\":0}\n";
    assert_eq!(session(last, Duration::ZERO).0.unwrap(), Outcome::Exited(0));
}

#[test]
fn a_process_error_and_a_lost_server_are_failures() {
    let failed = "{\"process_id\":\"p9\",\"error\":\"wait failed\"}\n";
    let error = session(failed, Duration::ZERO).0.unwrap_err();
    assert_eq!(error.to_string(), "process error: wait failed");
    let error = session("", Duration::ZERO).0.unwrap_err();
    assert!(error.to_string().contains("closed the connection"), "{error}");
}
