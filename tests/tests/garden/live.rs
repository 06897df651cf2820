//! Disk and bandwidth of living containers: changed, held, told, kept over a restart, taken back.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use guardian_contract::garden::{ImageRef, MemoryLimits, ProcessLimits, ProcessSpec};
use guardian_tests::api::Process;
use guardian_tests::daemon::{Daemon, Options};
use guardian_tests::patience::patience;
use guardian_tests::{api, host};
use serde_json::{Value, json};

use crate::{can_run, code, ctl, options, stderr, with_each_runtime};

const MIB: u64 = 1 << 20;

fn get(daemon: &Daemon, handle: &str, what: &str) -> Value {
    let path = format!("/containers/{handle}/{what}");
    serde_json::from_slice(&api::call(daemon, "GET", &path, "").unwrap()).unwrap()
}

/// What is told of both. The two routes for bandwidth agree; that for the disk tells of none, as gdn's.
fn told(daemon: &Daemon, handle: &str) -> [Value; 2] {
    let all = get(daemon, handle, "limits");
    assert_eq!(all["bandwidth_limits"], get(daemon, handle, "limits/bandwidth"));
    assert_eq!(get(daemon, handle, "limits/disk"), json!({}));
    [all["disk_limits"].clone(), all["bandwidth_limits"].clone()]
}

/// What the image plugin says that the container may write.
fn quota(daemon: &Daemon, handle: &str) -> u64 {
    let mut rootfs = std::process::Command::new(host::bin_dir().join("rootfs"));
    let said =
        host::output(rootfs.arg("--store").arg(daemon.path("store")).args(["stats", handle]));
    let said: Value = serde_json::from_str(&said.unwrap()).unwrap();
    said["disk_usage"]["quota_size_bytes"].as_u64().unwrap()
}

/// Writes so many MiB in the container, and tells whether that worked.
fn write(daemon: &Daemon, handle: &str, mib: u64) -> bool {
    let line = format!("dd if=/dev/zero of=/tmp/x bs=1M count={mib} 2>/dev/null");
    code(&ctl(daemon, &["exec", handle, "--", "sh", "-c", &line])) == 0
}

#[test]
fn the_disk_limit_of_a_living_container_changes() {
    with_each_runtime("change disk limits", |daemon| {
        let handle = &daemon.handle("disk");
        daemon.ctl(&["create", "--handle", handle, "--disk=20M"]).unwrap();
        let sleeper = ["exec", "-d", "--id", "s", handle, "--", "sleep", "1000"];
        daemon.ctl(&sleeper).unwrap();
        let image = 20 * MIB - quota(daemon, handle);
        assert_eq!(told(daemon, handle)[0], json!({"byte_hard": 20 * MIB}));
        assert!(write(daemon, handle, 10) && !write(daemon, handle, 30));

        daemon.ctl(&["update", handle, "--disk=60M"]).unwrap();
        assert!(write(daemon, handle, 30) && !write(daemon, handle, 70));
        let says = |daemon: &Daemon| (told(daemon, handle), quota(daemon, handle));
        let want = ([json!({"byte_hard": 60 * MIB}), json!({})], 60 * MIB - image);
        assert_eq!(says(daemon), want);
        daemon.kill().unwrap();
        daemon.up().unwrap();
        assert_eq!(says(daemon), want);
        let used = get(daemon, handle, "metrics")["DiskStat"]["ExclusiveBytesUsed"].as_u64();
        assert!(used.is_some_and(|used| used > 30 * MIB && used < 60 * MIB), "{used:?}");

        // Below what is used: refused, and what else was asked for is not done either.
        assert!(write(daemon, handle, 30));
        let refused = ctl(daemon, &["update", handle, "--disk=25M", "--memory=64M"]);
        assert_eq!(code(&refused), 1);
        let said = stderr(&refused);
        assert!(said.contains("disk limit of 26214400 is below the 3"), "{said}");
        assert_eq!((says(daemon), get(daemon, handle, "limits/memory")), (want, json!({})));
        daemon.ctl(&["update", handle, "--disk=35M", "--inodes=2000"]).unwrap();
        assert!(!write(daemon, handle, 34));
        let want = json!({"byte_hard": 35 * MIB, "inode_hard": 2000});
        assert_eq!(told(daemon, handle)[0], want);
        let script = "i=0; while touch /tmp/f$i 2>/dev/null; do i=$((i+1)); done; echo $i";
        let line = format!("rm /tmp/x; {script}");
        let made = daemon.ctl(&["exec", handle, "--", "sh", "-c", &line]).unwrap();
        assert!((1000..2000).contains(&made.trim().parse::<u64>().unwrap()), "{made}");
        // The process that was there is there.
        assert_eq!(get(daemon, handle, "info")["ProcessIDs"], json!(["s"]));
    });
}

#[test]
fn the_bandwidth_of_a_living_container_changes() {
    with_each_runtime("change bandwidth", |daemon| {
        let handle = &daemon.handle("rate");
        daemon.ctl(&["create", "--handle", handle]).unwrap();
        let limit = |daemon: &Daemon| told(daemon, handle)[1].clone();
        let held = |daemon: &Daemon| {
            let text = daemon.netns().unwrap().rules().unwrap();
            text.lines().filter(|line| line.trim_start().starts_with("limit up-")).count()
        };
        assert_eq!((limit(daemon), held(daemon)), (json!({}), 0));
        for rate in [1_000_000_u64, 3_000_000] {
            daemon.ctl(&["update", handle, "--rate", &rate.to_string()]).unwrap();
            let want = json!({"rate": rate, "burst": 65536});
            assert_eq!((limit(daemon), held(daemon)), (want.clone(), 1));
            daemon.kill().unwrap();
            daemon.up().unwrap();
            assert_eq!((limit(daemon), held(daemon)), (want, 1));
        }
        daemon.ctl(&["update", handle, "--rate=0"]).unwrap();
        assert_eq!((limit(daemon), held(daemon)), (json!({}), 0));
        daemon.ctl(&["update", handle, "--rate=1M", "--burst=1M", "--pids=50"]).unwrap();
        assert_eq!(limit(daemon), json!({"rate": MIB, "burst": MIB}));
        assert_eq!(get(daemon, handle, "limits")["pid_limits"], json!({"max": 50}));
    });
}

#[test]
fn a_part_that_fails_takes_back_the_parts_before_it() {
    with_each_runtime("limits taken back", |daemon| {
        let handle = &daemon.handle("back");
        let limits = ["--disk=30M", "--memory=64M", "--rate=2M"];
        daemon.ctl(&[&["create", "--handle", handle], &limits[..]].concat()).unwrap();
        let all = |daemon: &Daemon| (get(daemon, handle, "limits"), quota(daemon, handle));
        let before = all(daemon);
        // The image plugin takes its part, the network plugin finds no interface.
        let pid = std::fs::read_to_string(daemon.depot().join(handle).join("pidfile")).unwrap();
        let inside = |words: &str| {
            let line = format!("nsenter -t {} -n ip link set {words}", pid.trim());
            host::run(&line.split(' ').collect::<Vec<_>>()).unwrap();
        };
        inside("eth0 down");
        inside("eth0 name away");
        let words = ["--disk=50M", "--rate=5M", "--memory=128M"];
        let refused = ctl(daemon, &[&["update", handle], &words[..]].concat());
        assert_eq!(code(&refused), 1);
        assert!(stderr(&refused).contains("find link eth0"), "{}", stderr(&refused));
        assert_eq!(all(daemon), before);
        inside("away name eth0");
        inside("eth0 up");
        daemon.ctl(&[&["update", handle], &words[..]].concat()).unwrap();
        let now = all(daemon);
        assert_eq!(now.0["disk_limits"], json!({"byte_hard": 50 * MIB}));
        assert_eq!(now.0["memory_limits"], json!({"limit_in_bytes": 128 * MIB}));
        assert_eq!(now.1 - before.1, 20 * MIB);
    });
}

#[test]
fn somebody_else_s_plugins_are_not_asked() {
    for runtime in ["runc", "crun"] {
        let check = format!("limits and other plugins ({runtime})");
        if !can_run(&check, runtime) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        // The same programs under other names, which note what they are asked.
        let plugin = |name: &str| {
            let path = dir.path().join(name);
            let ours = host::bin_dir().join(name);
            let asked = dir.path().join("asked").display().to_string();
            let text =
                format!("#!/bin/sh\necho \"$@\" >> {asked}\nexec {} \"$@\"\n", ours.display());
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.display().to_string()
        };
        let state = format!("--network-plugin-extra-arg=--state-dir={}", dir.path().display());
        let mut flags = vec![
            format!("--image-plugin={}", plugin("rootfs")),
            format!("--network-plugin={}", plugin("netsetup")),
            state,
        ];
        // gdn's plugins are told the maps by the operator.
        for flag in ["--uid-mapping", "--gid-mapping"] {
            for map in ["0:4294967294:1", "1:1:4294967293"] {
                flags.extend([flag, map].map(|word| format!("--image-plugin-extra-arg={word}")));
            }
        }
        let daemon = Daemon::start(Options { flags, ..options(runtime) }).unwrap();
        let handle = &daemon.handle("other");
        daemon.ctl(&["create", "--handle", handle, "--disk=30M"]).unwrap();
        assert_eq!(told(&daemon, handle)[0], json!({"byte_hard": 30 * MIB}));
        for (words, want) in [
            (["--disk=50M", "--memory=64M"], "disk_limits of a container that is there can't be"),
            (
                ["--rate=5M", "--memory=64M"],
                "bandwidth_limits of a container that is there can't be",
            ),
        ] {
            let refused = ctl(&daemon, &[&["update", handle], &words[..]].concat());
            assert_eq!(code(&refused), 1);
            let said = stderr(&refused);
            assert!(
                said.contains(want) && said.contains(&dir.path().display().to_string()),
                "{said}"
            );
            assert_eq!(get(&daemon, handle, "limits/memory"), json!({}));
        }
        let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
        assert!(!asked.contains("resize") && !asked.contains("--action limit"), "{asked}");
        // Other limits of the container are no business of theirs.
        daemon.ctl(&["update", handle, "--memory=64M"]).unwrap();
        assert_eq!(daemon.finish().unwrap(), Vec::<String>::new());
    }
}

/// Starts a pea that sleeps, with limits of its own or without.
fn pea(daemon: &Daemon, handle: &str, name: &str, own_bytes: Option<u64>) -> (String, Process) {
    let memory = |limit_in_bytes| MemoryLimits { limit_in_bytes };
    let id = daemon.handle(name);
    let spec = ProcessSpec {
        id: id.clone(),
        path: "/bin/sleep".into(),
        args: vec!["1000".into()],
        image: ImageRef { uri: daemon.image().into(), ..ImageRef::default() },
        limits: own_bytes
            .map(|bytes| ProcessLimits { memory: memory(bytes), ..ProcessLimits::default() }),
        ..ProcessSpec::default()
    };
    (id, Process::run(daemon, handle, &spec).unwrap())
}

#[test]
fn a_pea_s_own_limits_change() {
    with_each_runtime("change a pea's limits", |daemon| {
        let handle = &daemon.handle("box");
        daemon.ctl(&["create", "--handle", handle, "--memory=128M"]).unwrap();
        let (own, _one) = pea(daemon, handle, "own", Some(32 << 20));
        let (shared, _two) = pea(daemon, handle, "shared", None);
        daemon.ctl(&["exec", "-d", "--id", "plain", handle, "--", "sleep", "1000"]).unwrap();
        let path = format!("processes/{own}/limits");
        let is_v1 = std::path::Path::new("/sys/fs/cgroup/memory").exists();
        let held = || {
            let (below, file) = match is_v1 {
                true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                false => ("/sys/fs/cgroup", "memory.max"),
            };
            let path = format!("{below}/garden/{own}/{file}");
            std::fs::read_to_string(path).unwrap().trim().parse::<u64>().unwrap()
        };
        let told = |daemon: &Daemon| get(daemon, handle, &path);
        assert_eq!(told(daemon)["memory_limits"], json!({"limit_in_bytes": 32 * MIB}));
        let words = ["--memory=48M", "--cpu-shares=200", "--pids=20"];
        daemon.ctl(&[&["update", handle, "--pea", &own], &words[..]].concat()).unwrap();
        assert_eq!(held(), 48 * MIB);
        let now = told(daemon);
        assert_eq!(now["memory_limits"], json!({"limit_in_bytes": 48 * MIB}));
        assert_eq!(now["pid_limits"], json!({"max": 20}));
        // The container's are as they were.
        assert_eq!(get(daemon, handle, "limits/memory"), json!({"limit_in_bytes": 128 * MIB}));
        daemon.kill().unwrap();
        daemon.up().unwrap();
        assert_eq!((told(daemon), held()), (now.clone(), 48 * MIB));
        for (id, words, want) in [
            (own.as_str(), "--memory=1k", "memory limit of 1024 bytes is below the "),
            (&own, "--disk=50M", "a pea has no disk_limits of its own"),
            (&own, "--rate=50M", "a pea has no bandwidth_limits of its own"),
            (&shared, "--memory=50M", "was given no limits"),
            ("plain", "--memory=50M", "process plain is no pea"),
            ("nobody", "--memory=50M", "unknown process: nobody"),
        ] {
            let refused = ctl(daemon, &["update", handle, "--pea", id, words]);
            assert_eq!(code(&refused), 1, "{id} {words}");
            assert!(stderr(&refused).contains(want), "{id} {words}: {}", stderr(&refused));
        }
        assert_eq!((told(daemon), held()), (now, 48 * MIB));
    });
}

#[test]
fn a_server_that_is_killed_while_limits_change_leaves_all_or_nothing() {
    with_each_runtime("kill -9 while limits change", |daemon| {
        let handle = &daemon.handle("cut");
        let limits = ["--disk=20M", "--memory=64M", "--rate=2M", "--burst=1M"];
        daemon.ctl(&[&["create", "--handle", handle], &limits[..]].concat()).unwrap();
        let image = 20 * MIB - quota(daemon, handle);
        let file = daemon.depot().join(handle).join("limits-change.json");
        let (mut cut, mut changed) = (0, 0);
        // How long a change takes that nobody cuts off.
        let start = Instant::now();
        daemon.ctl(&[&["update", handle], &limits[..]].concat()).unwrap();
        let whole = start.elapsed();
        for round in 0..24_u32 {
            let size = if round % 2 == 0 { 40 * MIB } else { 24 * MIB };
            let mut client = daemon.guardctl();
            client.args(["update", handle]);
            for flag in ["--disk", "--memory", "--rate"] {
                client.arg(format!("{flag}={}", if flag == "--memory" { 2 * size } else { size }));
            }
            client.arg("--burst=1M").stdout(Stdio::null()).stderr(Stdio::null());
            let mut client = client.spawn().unwrap();
            std::thread::sleep(whole * round / 16);
            daemon.kill().unwrap();
            client.wait().unwrap();
            cut += usize::from(file.exists());
            // What it had begun to run may end by itself.
            std::thread::sleep(patience(Duration::from_millis(100)));
            daemon.up().unwrap();
            let start = Instant::now();
            while file.exists() && start.elapsed() < patience(Duration::from_secs(10)) {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(!file.exists(), "{round}: {}", daemon.last_words());
            let told = get(daemon, handle, "limits");
            let disk = told["disk_limits"]["byte_hard"].as_u64().unwrap();
            assert_eq!(quota(daemon, handle), disk - image, "{round}: {told}");
            let group = std::path::Path::new("/sys/fs/cgroup/memory/garden").join(handle);
            if let Ok(held) = std::fs::read_to_string(group.join("memory.limit_in_bytes")) {
                let memory = told["memory_limits"]["limit_in_bytes"].as_u64().unwrap();
                assert_eq!(held.trim().parse::<u64>().unwrap(), memory, "{round}: {told}");
                // All of a change or nothing of it.
                assert!(
                    [(20, 64), (24, 48), (40, 80)].contains(&(disk / MIB, memory / MIB)),
                    "{told}"
                );
            }
            let rate = told["bandwidth_limits"]["rate"].as_u64().unwrap();
            let want = if disk == 20 * MIB { 2 * MIB } else { disk };
            assert_eq!(rate, want, "{round}: {told}");
            let rules = daemon.netns().unwrap().rules().unwrap();
            assert!(rules.contains("limit up-"), "{rules}");
            changed += usize::from(disk == size);
        }
        assert!(cut > 0 && changed > 0, "{cut} of 24 were cut off, {changed} were done");
        assert!(write(daemon, handle, 10));
    });
}
