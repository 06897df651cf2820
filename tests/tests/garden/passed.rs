//! The control socket: a client's own streams, passed as descriptors.

use std::fs::File;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use guardian_contract::control::{MAX_MESSAGE_BYTES, Reply, Request, path};
use guardian_contract::garden::ProcessSpec;
use guardian_tests::daemon::Daemon;
use guardian_tests::patience::patience;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recv, sendmsg, socket_with,
};

use crate::{code, ctl, run, stderr, stdout, with_each_runtime};

/// A client that says what it likes.
struct Client(OwnedFd);

impl Client {
    fn new(daemon: &Daemon) -> Self {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(path(&daemon.socket())).unwrap()).unwrap();
        Self(socket)
    }

    fn send(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        sendmsg(&self.0, &[IoSlice::new(packet)], &mut control, SendFlags::empty()).unwrap();
    }

    fn reply(&self) -> Reply {
        let mut bytes = vec![0; 1 << 16];
        let (_, length) = recv(&self.0, &mut bytes[..], RecvFlags::empty()).unwrap();
        serde_json::from_slice(&bytes[..length]).unwrap()
    }

    /// Returns the words with which a packet is refused.
    fn refusal(daemon: &Daemon, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> String {
        let client = Self::new(daemon);
        client.send(packet, descriptors);
        match client.reply() {
            Reply::Failed(error) => error.message,
            other => format!("not refused, but {other:?}"),
        }
    }
}

fn request(handle: &str, words: &[&str]) -> Vec<u8> {
    let process = ProcessSpec {
        path: words[0].into(),
        args: words[1..].iter().map(|&word| word.into()).collect(),
        ..ProcessSpec::default()
    };
    let run = Request::Run { handle: handle.into(), process: process.into() };
    serde_json::to_vec(&run).unwrap()
}

fn open_descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid().unwrap())).unwrap().count()
}

/// Tells whether the server has one of a pipe's ends open.
fn has_open(daemon: &Daemon, pipe: &impl AsRawFd) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", pipe.as_raw_fd())).unwrap();
    let all = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid().unwrap())).unwrap();
    all.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|other| other == link))
}

#[test]
fn the_process_has_the_descriptors_and_the_server_has_not() {
    with_each_runtime("passed descriptors", |daemon| {
        let handle = daemon.handle("passed");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let before = open_descriptors(daemon);
        let client = Client::new(daemon);
        let null = File::open("/dev/null").unwrap();
        let (mut out, theirs) = std::io::pipe().unwrap();
        let script = "ls /proc/self/fd | wc -l; readlink /proc/self/fd/1; sleep 100";
        let streams = [null.as_fd(), theirs.as_fd(), theirs.as_fd()];
        client.send(&request(&handle, &["sh", "-c", script]), &streams);
        drop(theirs);
        let Reply::Started { process_id } = client.reply() else { panic!("not started") };
        assert!(!has_open(daemon, &out), "the server keeps what it has passed on");
        let dir = daemon.path("depot").join(&handle).join("processes").join(&process_id);
        assert!(!dir.join("stdout").exists() && dir.join("exit").exists());
        let mut said = Vec::new();
        while said.iter().filter(|byte| **byte == b'\n').count() < 2 {
            let mut piece = [0; 100];
            let length = out.read(&mut piece).unwrap();
            said.extend_from_slice(&piece[..length]);
        }
        // 0, 1, 2, and the directory itself.
        assert!(String::from_utf8(said).unwrap().starts_with("4\npipe:"));
        client.send(&serde_json::to_vec(&Request::Signal(1)).unwrap(), &[]);
        assert_eq!(client.reply(), Reply::Exited(137));
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "the pipe ends with the process");
        let start = Instant::now();
        while open_descriptors(daemon) > before {
            assert!(start.elapsed() < patience(Duration::from_secs(5)), "descriptors leak");
            drop(Client::new(daemon));
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    with_each_runtime("refused requests", |daemon| {
        let handle = daemon.handle("refused");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let run = request(&handle, &["true"]);
        let before = open_descriptors(daemon);
        for count in [0, 1, 2, 4, 64] {
            let said = Client::refusal(daemon, &run, &vec![null.as_fd(); count]);
            assert_eq!(said, format!("run and attach take 3 descriptors, and {count} came"));
        }
        let three = [null.as_fd(); 3];
        let long = vec![b' '; MAX_MESSAGE_BYTES + 1];
        let said = Client::refusal(daemon, &long, &three);
        assert_eq!(said, "a message of more than 131072 bytes; HTTP takes it");
        let said = Client::refusal(daemon, b"{\"dance\":1}", &three);
        assert!(said.contains("unknown variant `dance`"), "{said}");
        let said = Client::refusal(daemon, b"\xff", &three);
        assert!(said.starts_with("message on the control socket: "), "{said}");
        let said = Client::refusal(daemon, &request("nobody", &["true"]), &three);
        assert_eq!(said, "unknown handle: nobody");
        let attach = Request::Attach {
            handle: handle.clone(),
            process_id: "nothing".into(),
            forwards_stdin: false,
        };
        let said = Client::refusal(daemon, &serde_json::to_vec(&attach).unwrap(), &three);
        assert_eq!(said, "unknown process: nothing");
        let terminal = terminal_master();
        let said = Client::refusal(daemon, &run, &[null.as_fd(), terminal.as_fd(), null.as_fd()]);
        assert_eq!(said, "stdout is a terminal, which no container may have; pass a pipe");
        let start = Instant::now();
        while open_descriptors(daemon) > before {
            assert!(start.elapsed() < patience(Duration::from_secs(5)), "refused descriptors leak");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

/// The master of a new terminal, which is one itself.
fn terminal_master() -> File {
    File::options().read(true).write(true).open("/dev/ptmx").unwrap()
}

#[test]
fn others_than_root_are_refused() {
    with_each_runtime("a client that is not root", |daemon| {
        let control = path(&daemon.socket());
        let mode = |path: &std::path::Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        assert_eq!(std::fs::metadata(&control).unwrap().permissions().mode() & 0o777, 0o600);
        // As if somebody had opened the door by mistake.
        mode(&daemon.path(""), 0o711);
        mode(&control, 0o666);
        let handle = daemon.handle("locked");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let guardctl = daemon.path("guardctl");
        std::fs::copy(guardian_tests::host::bin_dir().join("guardctl"), &guardctl).unwrap();
        let output = std::process::Command::new(&guardctl)
            .arg("--target")
            .arg(daemon.socket())
            .args(["exec", &handle, "--", "true"])
            .uid(65534)
            .gid(65534)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(code(&output), 125);
        let want = "guardctl: the control socket is for root, not for user 65534\n";
        assert_eq!(stderr(&output), want);
    });
}

#[test]
fn a_client_s_file_stays_the_client_s() {
    with_each_runtime("output to a file", |daemon| {
        let file = daemon.path("out");
        let status = daemon
            .guardctl()
            .args(["run", "--handle", &daemon.handle("file"), "--", "sh", "-c", "seq 100000"])
            .stdout(File::create(&file).unwrap())
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 100_000);
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&file).unwrap());
        assert_eq!(owner, 0, "the runtime gave the file to the container");
        // One error, not the runtime's too.
        let output = run(daemon, &["--", "no-such-program"]);
        assert_eq!(
            (code(&output), stderr(&output).lines().count()),
            (127, 1),
            "{}",
            stderr(&output)
        );
    });
}

#[test]
fn kept_output_is_there_for_whoever_attaches() {
    with_each_runtime("kept output", |daemon| {
        let handle = daemon.handle("kept");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let script = "echo early >&2; seq 300000; sleep 1; echo late; exit 5";
        let run = ["exec", "-d", "--keep-output", "--id", "p", &handle, "--", "sh", "-c", script];
        daemon.ctl(&run).unwrap();
        let all: String = (1..=300_000).map(|number| format!("{number}\n")).collect();
        let all = all + "late\n";
        let want = &all[all.len() - (1 << 20)..];
        std::thread::sleep(Duration::from_millis(700));
        // While it runs, when it has ended, and when the server that heard it is gone.
        for attempt in 0..4 {
            let relay: &[&str] = if attempt == 1 { &["-i"] } else { &[] };
            let output = ctl(daemon, &[&["attach"], relay, &[&handle, "p"]].concat());
            assert_eq!((code(&output), stderr(&output).as_str()), (5, "early\n"), "{attempt}");
            let said = stdout(&output);
            // The first attacher heard the last megabyte before the end, and then the end.
            assert!(
                said.ends_with(want) && said.len() <= want.len() + 5,
                "{attempt} {}",
                said.len()
            );
            if attempt == 2 {
                daemon.kill().unwrap();
                daemon.up().unwrap();
            }
        }
    });
}
