//! Many readers of one process.

use std::io::Read;

use guardian_contract::garden::ProcessSpec;
use guardian_tests::api::Process;
use guardian_tests::memory;

use crate::with_each_runtime;

/// 79 MB, more than is kept for somebody who does not read.
const LINES: usize = 10_000_000;
const READERS: usize = 50;

#[test]
fn fifty_readers_get_every_byte_beside_fifty_that_stall() {
    let mut all = String::with_capacity(80_000_000);
    for number in 1..=LINES {
        use std::fmt::Write;
        writeln!(all, "{number}").unwrap();
    }
    let all = all.as_bytes();
    with_each_runtime("a hundred attachers", |daemon| {
        let handle = daemon.handle("crowd");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let script = format!("read start; seq 1 {LINES}; exit 6");
        let args = vec!["-c".into(), script];
        let spec = ProcessSpec { path: "sh".into(), args, ..ProcessSpec::default() };
        let mut first = Process::run(daemon, &handle, &spec).unwrap();
        let attach = |_| Process::attach(daemon, &handle, &first.id).unwrap();
        let stalled: Vec<Process> = (0..READERS).map(attach).collect();
        let readers: Vec<Process> = (1..READERS).map(attach).collect();
        first.input(Some("go\n"), 1).unwrap();
        std::thread::scope(|scope| {
            for mut reader in readers.into_iter().chain([first]) {
                scope.spawn(move || {
                    let (mut at, mut piece) = (0, vec![0; 1 << 16]);
                    loop {
                        let length = reader.stdout.read(&mut piece).unwrap();
                        if length == 0 {
                            break;
                        }
                        assert!(all[at..].starts_with(&piece[..length]), "byte {at} on is wrong");
                        at += length;
                    }
                    assert_eq!(at, all.len());
                    assert_eq!(reader.wait().unwrap(), 6);
                });
            }
        });
        let server = memory::of(daemon.pid().unwrap()).unwrap();
        // What the stalled ones may be behind, once for all of them, and what connections take.
        assert!(server.rss_kib < 120 << 10, "{server:?}");
        drop(stalled);
    });
}
