//! `nstar` in real containers, privileged and not.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::bench::{Bench, Container, MAPS, program};

fn nstar(container: &Container, arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(program("nstar"))
        .args(["/no/tar", &container.pid])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that refuses at once reads nothing.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory with a file of 10 bytes, the way clients send it, owned by nobody in particular.
fn archive(bench: &Bench) -> Vec<u8> {
    let source = bench.path("source/some-temp-dir");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("some-temp-file"), "some-body\n").unwrap();
    tar(&bench.path("source"), &["./some-temp-dir"])
}

fn tar(directory: &Path, what: &[&str]) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--owner=77", "--group=77", "-cf", "-", "-C"]);
    let output = tar.arg(directory).args(what).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap();
    entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

/// Runs the test in both kinds of container.
fn in_containers(test: &str, body: impl Fn(&Bench, &Container)) {
    let Some(bench) = Bench::new(test) else { return };
    for (name, flags) in [("user", &MAPS[..]), ("privileged", &[])] {
        let (root, _) = bench.create(flags, &bench.tar(), name);
        let Some(container) = bench.container(name, &root, flags.is_empty()) else { return };
        body(&bench, &container);
    }
}

#[test]
fn files_streamed_in_belong_to_the_user() {
    in_containers("files_streamed_in_belong_to_the_user", |bench, container| {
        let archive = archive(bench);
        for (user, directory, place, owner) in [
            ("alice", "/home/alice", "/home/alice", "1001:1010"),
            ("alice", ".", "/home/alice", "1001:1010"),
            ("1001", "by/number", "/home/alice/by/number", "1001:1010"),
            ("root", "/", "", "0:0"),
            ("root", "/new/deep", "/new/deep", "0:0"),
            ("alice", "/made/for/alice", "/made/for/alice", "1001:1010"),
            ("5555", "/tmp", "/tmp", "5555:0"),
        ] {
            let output = nstar(container, &[user, directory], &archive);
            assert!(output.status.success(), "{output:?}");
            let file = format!("{place}/some-temp-dir/some-temp-file");
            assert_eq!(
                container.sh(&format!("stat -c %u:%g {file}; cat {file}")),
                format!("{owner}\nsome-body")
            );
        }
        let made = "stat -c '%n %u:%g %a' /made/for /made/for/alice";
        assert_eq!(container.sh(made), "/made/for 1001:1010 755\n/made/for/alice 1001:1010 755");
    });
}

#[test]
fn refusals_are_told_and_make_nothing() {
    in_containers("refusals_are_told_and_make_nothing", |bench, container| {
        let archive = archive(bench);
        let refused = |arguments: &[&str], want: &str| {
            let said = said(&nstar(container, arguments, &archive));
            assert!(said.contains(want), "{arguments:?}: {said}");
        };
        refused(&["batman", "/tmp"], "unable to find user batman");
        refused(&["bob", "/home/alice"], "Permission denied");
        refused(&["alice", "/gone", "x"], "No such file or directory");
        refused(&["alice", "/tmp", "gone"], "No such file or directory");
        refused(&["alice", "/tmp", "../etc"], "not a name");
        refused(&["alice", "/tmp", ".."], "not a name");
        refused(&["alice"], "Usage");
        let cut = said(&nstar(container, &["alice", "/tmp/cut"], &archive[..10]));
        assert!(cut.contains("unexpected end of archive"), "{cut}");
        assert_eq!(container.sh("ls -d /gone 2>/dev/null; ls /home/alice"), "");
    });
}

#[test]
fn a_source_with_a_slash_streams_its_content() {
    in_containers("a_source_with_a_slash_streams_its_content", |_, container| {
        container.sh(
            "mkdir -p /home/alice/o/i; echo x > /home/alice/o/i/f; chown -R 1001 /home/alice/o",
        );
        let out = |arguments: &[&str]| {
            let output = nstar(container, arguments, b"");
            assert!(output.status.success(), "{output:?}");
            names(&output.stdout)
        };
        for user in ["alice", "root"] {
            assert_eq!(out(&[user, "/home/alice/o", "i"]), ["i/", "i/f"]);
        }
        assert_eq!(out(&["alice", "o/i/", "."]), ["./", "./f"]);
        assert_eq!(out(&["alice", "o/i", "f"]), ["f"]);
        let output = nstar(container, &["alice", "o", "i"], b"");
        let mut archive = tar::Archive::new(&output.stdout[..]);
        for entry in archive.entries().unwrap() {
            assert_eq!(entry.unwrap().header().uid().unwrap(), 1001);
        }
    });
}

#[test]
fn what_can_t_be_read_is_told_beside_the_rest() {
    in_containers("what_can_t_be_read_is_told_beside_the_rest", |_, container| {
        container.sh("mkdir /mix; echo a > /mix/a; echo b > /mix/b; chmod 600 /mix/a");
        let output = nstar(container, &["alice", "/", "mix"], b"");
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"));
        assert_eq!(names(&output.stdout), ["mix/", "mix/b"]);
    });
}

#[test]
fn file_capabilities_go_in_and_come_out() {
    in_containers("file_capabilities_go_in_and_come_out", |bench, container| {
        let source = bench.path("capable");
        let file = source.join("file");
        if !file.exists() {
            fs::create_dir(&source).unwrap();
            fs::write(&file, "x").unwrap();
        }
        let set = Command::new("setcap").arg("cap_net_raw+ep").arg(&file).status();
        if !set.is_ok_and(|status| status.success()) {
            eprintln!("skipped: no setcap");
            return;
        }
        let sent = tar(&source, &["file"]);
        assert!(nstar(container, &["root", "/home/alice"], &sent).status.success());
        let back = nstar(container, &["root", "/home/alice", "file"], b"").stdout;
        let mut archive = tar::Archive::new(&back[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let value = entry
            .pax_extensions()
            .unwrap()
            .unwrap()
            .map(|all| all.unwrap())
            .find(|one| one.key() == Ok("SCHILY.xattr.security.capability"));
        // cap_net_raw, effective, version 2: as seen from inside, so without a root id.
        let want = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(value.unwrap().value_bytes(), want);
    });
}

#[test]
fn a_hostile_container_shows_nothing_of_the_host() {
    in_containers("a_hostile_container_shows_nothing_of_the_host", |bench, container| {
        let secret = bench.path("secret");
        fs::write(&secret, "host").unwrap();
        container
            .sh(&format!("ln -s {} /tmp/link; ln -s /proc/1/root /tmp/root", secret.display()));
        // A link is archived, not what it leads to.
        let output = nstar(container, &["root", "/tmp", "link"], b"");
        assert!(output.status.success());
        assert!(!output.stdout.windows(4).any(|window| window == b"host"));
        // Magic links are followed by nobody.
        said(&nstar(container, &["root", "/tmp/root", "etc"], b""));
        said(&nstar(container, &["root", "/proc/1/cwd/x"], b""));
        // A pipe for a passwd must not keep us waiting.
        container.sh("rm /etc/passwd; mkfifo /etc/passwd || ln -s /dev/console /etc/passwd");
        let refused = nstar(container, &["alice", "/tmp"], b"");
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert_eq!(fs::metadata(&secret).unwrap().len(), 4);
        assert_eq!(fs::metadata(&secret).unwrap().uid(), 0);
    });
}
