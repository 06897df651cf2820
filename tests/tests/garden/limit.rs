//! Limits of living containers: changed, held, told, and kept over a restart of the server.

use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_tests::api;
use guardian_tests::daemon::Daemon;
use guardian_tests::skip;
use serde_json::{Value, json};

use crate::{can_run, code, ctl, options, stderr, with_each_runtime};

/// Whether controllers are on version 1.
fn is_v1() -> bool {
    Path::new("/sys/fs/cgroup/memory").exists()
}

fn group(controller: &str, handle: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    let root = if is_v1() { root.join(controller) } else { root.to_owned() };
    root.join("garden").join(handle)
}

fn read(controller: &str, handle: &str, file: &str) -> String {
    let path = group(controller, handle).join(file);
    std::fs::read_to_string(&path)
        .with_context(|| path.display().to_string())
        .unwrap()
        .trim()
        .into()
}

/// Memory, sum with swap (or swap alone), shares, tasks, as the kernel has them.
fn held(handle: &str) -> [String; 4] {
    let names = match is_v1() {
        true => ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cpu.shares"],
        false => ["memory.max", "memory.swap.max", "cpu.weight"],
    };
    // A kernel may not count swap.
    let swap = group("memory", handle).join(names[1]).exists();
    let swap = if swap { read("memory", handle, names[1]) } else { "-".into() };
    let memory = read("memory", handle, names[0]);
    [memory, swap, read("cpu", handle, names[2]), read("pids", handle, "pids.max")]
}

/// What [`held`] must be; on version 2 the sum with swap is told as what goes beyond memory.
fn want(memory: u64, shares: [&str; 2], tasks: &str, handle: &str) -> [String; 4] {
    let unlimited = if is_v1() { "9223372036854771712" } else { "max" };
    let bytes = if memory == 0 { unlimited.to_owned() } else { memory.to_string() };
    let swap = match (held(handle)[1].as_str(), is_v1(), memory) {
        ("-", ..) => "-".into(),
        (_, false, 0) => "max".into(),
        (_, false, _) => "0".into(),
        _ => bytes.clone(),
    };
    [bytes, swap, shares[usize::from(!is_v1())].into(), tasks.into()]
}

fn told(daemon: &Daemon, handle: &str) -> Value {
    let get = |what: &str| {
        let path = format!("/containers/{handle}/limits{what}");
        let answer = api::call(daemon, "GET", &path, "").unwrap();
        serde_json::from_slice::<Value>(&answer).unwrap()
    };
    let all = get("");
    assert_eq!(all["memory_limits"], get("/memory"));
    assert_eq!(all["cpu_limits"], get("/cpu"));
    json!({"memory": all["memory_limits"], "pid": all["pid_limits"], "cpu": all["cpu_limits"]})
}

#[test]
fn limits_of_a_living_container_change() {
    with_each_runtime("change limits", |daemon| {
        let handle = &daemon.handle("limit");
        let first = ["--memory=64M", "--pids=20", "--limit-cpu-shares=100"];
        daemon.ctl(&[&["create", "--handle", handle], &first[..]].concat()).unwrap();
        assert_eq!(held(handle), want(64 << 20, ["100", "17"], "20", handle));

        // Up, down, one alone, and away.
        daemon.ctl(&["update", handle, "--memory=96M", "--pids=30"]).unwrap();
        assert_eq!(held(handle), want(96 << 20, ["100", "17"], "30", handle));
        daemon.ctl(&["update", handle, "--memory=32M", "--cpu-shares=280"]).unwrap();
        assert_eq!(held(handle), want(32 << 20, ["280", "37"], "30", handle));
        let cpu = if is_v1() { 280 } else { 37 };
        let says = json!({"memory": {"limit_in_bytes": 32 << 20}, "pid": {"max": 30},
                          "cpu": {"limit_in_shares": cpu}});
        assert_eq!(told(daemon, handle), says);
        daemon.kill().unwrap();
        daemon.up().unwrap();
        assert_eq!(told(daemon, handle), says);
        daemon.ctl(&["update", handle, "--memory=0", "--pids=0", "--cpu-shares=0"]).unwrap();
        assert_eq!(held(handle), want(0, ["1024", "100"], "max", handle));
        assert_eq!(told(daemon, handle), json!({"memory": {}, "pid": {}, "cpu": {}}));

        // It is the limit that stops, not only a file that says so.
        daemon.ctl(&["update", handle, "--memory=32M"]).unwrap();
        let fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=";
        let more = ctl(daemon, &["exec", handle, "--", "sh", "-c", &format!("{fill}40")]);
        assert_ne!(code(&more), 0);
    });
}

#[test]
fn a_limit_below_what_is_used_is_refused_and_nothing_changes() {
    with_each_runtime("limits below use", |daemon| {
        let handle = &daemon.handle("used");
        daemon.ctl(&["create", "--handle", handle, "--memory=64M", "--pids=20"]).unwrap();
        let fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null";
        daemon.ctl(&["exec", handle, "--", "sh", "-c", fill]).unwrap();
        for _ in 0..3 {
            daemon.ctl(&["exec", "-d", handle, "--", "sleep", "1000"]).unwrap();
        }
        let before = (held(handle), told(daemon, handle));
        for (words, want) in [
            (&["--memory=10M"][..], "memory limit of 10485760 bytes is below the "),
            (&["--memory=10M", "--pids=40"], "memory limit of 10485760 bytes is below the "),
            (&["--pids=3", "--memory=128M"], "limit of 3 tasks is below the "),
            (&["--io-weight=9", "--pids=30"], "block I/O weight 9 is not between 10 and 1000"),
        ] {
            let refused = ctl(daemon, &[&["update", handle], words].concat());
            assert_eq!(code(&refused), 1, "{words:?}");
            assert!(stderr(&refused).contains(want), "{words:?}: {}", stderr(&refused));
            assert_eq!((held(handle), told(daemon, handle)), before, "{words:?}");
        }
        for (body, want) in [
            (r#"{"disk_limits":{"byte_hard":500000000}}"#, "was made without a disk limit"),
            ("{}", "no limit is to change"),
        ] {
            let path = format!("/containers/{handle}/limits");
            let refused = format!("{:#}", api::call(daemon, "PUT", &path, body).unwrap_err());
            assert!(refused.contains(want), "{refused}");
        }
        // What is in the page cache only can be taken back.
        let cache = "dd if=/dev/zero of=/tmp/x bs=1M count=30 2>/dev/null";
        daemon.ctl(&["exec", handle, "--", "sh", "-c", cache]).unwrap();
        daemon.ctl(&["update", handle, "--memory=30M"]).unwrap();
    });
}

#[test]
fn a_quota_follows_the_shares() {
    for runtime in ["runc", "crun"] {
        let check = format!("quota per share ({runtime})");
        if !can_run(&check, runtime) {
            continue;
        }
        let flags = ["--cpu-quota-per-share", "100"].map(str::to_owned).to_vec();
        let daemon = Daemon::start(guardian_tests::daemon::Options { flags, ..options(runtime) });
        let daemon = daemon.unwrap();
        let handle = &daemon.handle("quota");
        daemon.ctl(&["create", "--handle", handle, "--limit-cpu-shares=100"]).unwrap();
        let quota = || match is_v1() {
            true => read("cpu", handle, "cpu.cfs_quota_us"),
            false => read("cpu", handle, "cpu.max"),
        };
        let want = |us: &str| if is_v1() { us.to_owned() } else { format!("{us} 100000") };
        assert_eq!(quota(), want("10000"));
        daemon.ctl(&["update", handle, "--cpu-shares=300"]).unwrap();
        assert_eq!(quota(), want("30000"));
        daemon.ctl(&["update", handle, "--cpu-shares=0"]).unwrap();
        assert_eq!(quota(), if is_v1() { "-1" } else { "max 100000" });
        assert_eq!(daemon.finish().unwrap(), Vec::<String>::new());
    }
}

/// The first line about the disk with the depot in a file of rates, without its device.
fn rate(handle: &str, file: &str) -> Option<String> {
    let text = read(if is_v1() { "blkio" } else { "io" }, handle, file);
    let line = text.lines().next()?;
    line.split_once(' ').map(|(_, rates)| rates.to_owned())
}

#[test]
fn traffic_with_block_devices_is_limited() {
    for runtime in ["runc", "crun"] {
        let check = format!("block I/O limits ({runtime})");
        if !can_run(&check, runtime) {
            continue;
        }
        let flags = "--default-container-blockio-weight 500 --container-io-max-read-bps 8388608";
        let flags = flags.split(' ').map(str::to_owned).collect();
        let daemon = Daemon::start(guardian_tests::daemon::Options { flags, ..options(runtime) });
        let daemon = daemon.unwrap();
        let handle = &daemon.handle("io");
        daemon.ctl(&["create", "--handle", handle]).unwrap();
        let weight = || {
            let files = ["blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight"];
            let dir = group(if is_v1() { "blkio" } else { "io" }, handle);
            let file = files.into_iter().find(|file| dir.join(file).exists())?;
            let text = std::fs::read_to_string(dir.join(file)).unwrap();
            text.split_whitespace().last().map(str::to_owned)
        };
        match weight() {
            None => skip::note(&check, "this kernel has no weights of block I/O"),
            Some(weight) => assert!(["500", "4950"].contains(&weight.as_str()), "{weight}"),
        }
        let read_bps = || match is_v1() {
            true => rate(handle, "blkio.throttle.read_bps_device"),
            false => rate(handle, "io.max"),
        };
        let want = |rate: &str| match is_v1() {
            true => rate.to_owned(),
            false => format!("rbps={rate} wbps=max riops=max wiops=max"),
        };
        assert_eq!(read_bps(), Some(want("8388608")));
        daemon.ctl(&["update", handle, "--io-read-bps=4M", "--io-weight=200"]).unwrap();
        assert_eq!(read_bps(), Some(want("4194304")));
        if let Some(weight) = weight() {
            assert!(["200", "1920"].contains(&weight.as_str()), "{weight}");
        }
        daemon.ctl(&["update", handle, "--io-read-bps=0"]).unwrap();
        assert_eq!(read_bps(), None);
        assert_eq!(daemon.finish().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_limited_writer_takes_its_time() {
    with_each_runtime("block I/O in time", |daemon| {
        let handle = &daemon.handle("slow");
        daemon.ctl(&["create", "--handle", handle, "--io-write-bps=4M"]).unwrap();
        let start = std::time::Instant::now();
        let write = "dd if=/dev/zero of=/tmp/x bs=1M count=8 oflag=direct";
        let done = ctl(daemon, &["exec", handle, "--", "sh", "-c", write]);
        if code(&done) != 0 {
            skip::note("block I/O in time", "files here can't be written past the page cache");
            return;
        }
        let took = start.elapsed().as_secs_f64();
        assert!(took > 1.5, "8 MiB at 4 MiB/s took {took:.2} s");
    });
}
