//! What goes wrong is told once, clearly, and harms nothing else.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use guardian_tests::daemon::{Daemon, Options};
use guardian_tests::host;
use guardian_tests::patience::patience;

use crate::{can_run, code, ctl, options, stderr, stdout, with_each_runtime};

/// Sends a request as it is and returns the whole answer.
pub(crate) fn raw(daemon: &Daemon, method: &str, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn an_unknown_handle_is_404_with_gdn_s_words() {
    with_each_runtime("unknown handle", |daemon| {
        let answer = raw(daemon, "DELETE", "/containers/nobody", "");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        assert!(
            answer.ends_with("{\"Type\":\"ContainerNotFoundError\",\"Message\":\"unknown handle: nobody\",\"Handle\":\"nobody\",\"ProcessID\":\"\",\"Binary\":\"\"}\n"),
            "{answer}"
        );
        let said = ctl(daemon, &["exec", "nobody", "--", "true"]);
        assert_eq!(code(&said), 125);
        assert_eq!(stderr(&said), "guardctl: unknown handle: nobody\n");
    });
}

#[test]
fn garbage_is_refused_and_the_server_lives() {
    with_each_runtime("garbage JSON", |daemon| {
        for body in ["", "{", "nonsense", "{\"handle\":5}", "{\"grace_time\":1.5}", "[]"] {
            let answer = raw(daemon, "POST", "/containers", body);
            assert!(answer.starts_with("HTTP/1.1 500 "), "{body}: {answer}");
            assert!(answer.contains("{\"Type\":\"\",\"Message\":\""), "{body}: {answer}");
        }
        assert!(raw(daemon, "GET", "/nothing", "").starts_with("HTTP/1.1 404 "));
        assert!(raw(daemon, "PUT", "/ping", "").starts_with("HTTP/1.1 405 "));
        for handle in ["a/b", "..", "a b", ""] {
            let body = format!("{{\"handle\":\"{handle}\",\"image\":{{\"uri\":\"/none\"}}}}");
            let answer = raw(daemon, "POST", "/containers", &body);
            assert!(answer.starts_with("HTTP/1.1 500 "), "{handle}: {answer}");
        }
        daemon.ctl(&["ping"]).unwrap();
    });
}

#[test]
fn a_missing_image_is_named_and_nothing_stays() {
    with_each_runtime("missing image", |daemon| {
        for image in ["oci:///no/such/layout:latest", "/no/such/rootfs.tar", "nonsense://x"] {
            let handle = daemon.handle("noimage");
            let said = ctl(daemon, &["create", "--handle", &handle, "--image", image]);
            assert_eq!(code(&said), 1);
            assert_eq!(stderr(&said).lines().count(), 1, "{}", stderr(&said));
            assert!(stderr(&said).starts_with("guardctl: "), "{}", stderr(&said));
            assert_eq!(daemon.leftovers().unwrap(), Vec::<String>::new(), "{image}");
        }
    });
}

#[test]
fn a_mount_without_source_leaves_nothing() {
    with_each_runtime("missing mount source", |daemon| {
        let handle = daemon.handle("nomount");
        let said = ctl(daemon, &["create", "--handle", &handle, "-v", "/no/such/dir:/x"]);
        assert_eq!(code(&said), 1);
        assert!(stderr(&said).contains("/no/such/dir"), "{}", stderr(&said));
        assert_eq!(daemon.leftovers().unwrap(), Vec::<String>::new());
    });
}

#[test]
fn an_unwritable_depot_is_named() {
    if !can_run("unwritable depot", "crun") {
        return;
    }
    // A file where a directory should be stops even root.
    let flags = vec!["--tag".to_owned(), "x".to_owned()];
    let daemon = Daemon::start(Options { flags, ..options("crun") }).unwrap();
    let depot = daemon.path("depot");
    let _ = std::fs::remove_dir_all(&depot);
    std::fs::write(&depot, "in the way").unwrap();
    let said = ctl(&daemon, &["create", "--handle", &daemon.handle("x")]);
    assert_eq!(code(&said), 1);
    assert_eq!(stderr(&said).lines().count(), 1, "{}", stderr(&said));
    assert!(stderr(&said).contains("depot"), "{}", stderr(&said));
    std::fs::remove_file(&depot).unwrap();
    assert_eq!(daemon.finish().unwrap(), Vec::<String>::new());
}

#[test]
fn a_missing_runtime_is_named() {
    if !can_run("missing runtime", "crun") {
        return;
    }
    let runtime = "/no/such/runtime".to_owned();
    // Either the server refuses to start, or it refuses to create: in both cases by name.
    let said = match Daemon::start(Options { runtime, ..options("crun") }) {
        Err(error) => format!("{error:#}"),
        Ok(daemon) => {
            let said = ctl(&daemon, &["create", "--handle", &daemon.handle("x")]);
            assert_eq!(code(&said), 1);
            assert_eq!(stderr(&said).lines().count(), 1, "{}", stderr(&said));
            assert_eq!(daemon.finish().unwrap(), Vec::<String>::new());
            stderr(&said)
        }
    };
    assert!(said.contains("/no/such/runtime"), "{said}");
}

/// Runs a server that is to give up at once, and returns what it said.
fn refused_server(daemon: &Daemon, socket: &Path, depot: &Path) -> String {
    let mut server = daemon.netns().unwrap().command(host::bin_dir().join("guardiand"));
    server.args(["server", "--network-pool", "10.254.0.0/22", "--bind-socket"]).arg(socket);
    server.arg("--depot").arg(depot).args(["--runtime-plugin", daemon.runtime()]);
    let mut server = server.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while server.try_wait().unwrap().is_none() {
        let is_late = start.elapsed() > patience(Duration::from_secs(20));
        if is_late {
            server.kill().unwrap();
        }
        assert!(!is_late, "it serves");
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = server.wait_with_output().unwrap();
    assert_eq!(code(&output), 1);
    stdout(&output) + &stderr(&output)
}

#[test]
fn a_second_server_takes_nothing_from_the_first() {
    with_each_runtime("a second server", |daemon| {
        let pid = daemon.pid().unwrap();
        let said = refused_server(daemon, &daemon.path("other.sock"), &daemon.depot());
        assert!(said.contains(&format!("is in use by another server, process {pid}")), "{said}");
        let other = daemon.path("other-depot");
        let said = refused_server(daemon, &daemon.socket(), &other);
        assert!(said.contains("a server listens there already"), "{said}");
        daemon.ctl(&["ping"]).unwrap();
        assert!(!daemon.path("other.sock").exists());
    });
}
