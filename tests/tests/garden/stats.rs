//! What the server tells of itself and of what containers use.

use guardian_tests::api::call;
use guardian_tests::daemon::{Daemon, Options};
use serde_json::Value;

use crate::{can_run, options, with_each_runtime};

/// Returns the page that Prometheus gets.
pub(crate) fn scrape(daemon: &Daemon) -> String {
    String::from_utf8(call(daemon, "GET", "/metrics", "").unwrap()).unwrap()
}

/// Returns a value of the page, by its name with its labels.
pub(crate) fn value(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn creates_are_counted_by_step_and_tool() {
    with_each_runtime("metrics of creates", |daemon| {
        let handle = daemon.handle("counted");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        daemon.ctl(&["exec", &handle, "--", "true"]).unwrap();
        let missing = ["create", "--handle", &daemon.handle("no"), "--image", "oci:///nowhere"];
        daemon.ctl(&missing).unwrap_err();
        let page = scrape(daemon);
        for (name, want) in [
            ("guardian_operation_seconds_count{operation=\"create\",result=\"done\"}", 1.0),
            ("guardian_operation_seconds_count{operation=\"create\",result=\"failed\"}", 1.0),
            ("guardian_operation_seconds_count{operation=\"run\",result=\"done\"}", 1.0),
            ("guardian_create_step_seconds_count{step=\"rootfs\"}", 1.0),
            ("guardian_create_step_seconds_count{step=\"runtime\"}", 1.0),
            ("guardian_create_step_seconds_count{step=\"network\"}", 1.0),
            ("guardian_tool_seconds_count{tool=\"rootfs\",verb=\"create\",result=\"failed\"}", 1.0),
            ("guardian_tool_seconds_count{tool=\"netsetup\",verb=\"up\",result=\"done\"}", 1.0),
            ("guardian_request_seconds_count{route=\"create\",status=\"500\"}", 1.0),
            ("guardian_containers{phase=\"live\"}", 1.0),
            ("guardian_creates_in_flight", 0.0),
            ("guardian_unkillable_containers", 0.0),
        ] {
            assert_eq!(value(&page, name), Some(want), "{name} in\n{page}");
        }
        assert!(value(&page, "guardian_dying_cgroups").is_some(), "{page}");
    });
}

#[test]
fn what_belongs_to_nobody_is_counted_as_leaked() {
    let check = "leaked things";
    if !can_run(check, "crun") {
        return;
    }
    // A parent group that no other server of this host has.
    let flags = vec!["--tag".into(), "v".into()];
    let mut daemon = Daemon::start(Options { flags, ..options("crun") }).unwrap();
    let handle = daemon.handle("owned");
    daemon.ctl(&["create", "--handle", &handle]).unwrap();
    let leaked = |daemon: &Daemon| {
        let page = scrape(daemon);
        ["mounts", "cgroups", "depot_dirs"]
            .map(|kind| value(&page, &format!("guardian_leaked{{kind=\"{kind}\"}}")).unwrap())
    };
    assert_eq!(leaked(&daemon), [0.0; 3]);
    let lost = daemon.handle("lost");
    let group = ["pids", "memory", ""].map(|hierarchy| {
        std::path::Path::new("/sys/fs/cgroup").join(hierarchy).join("garden-v").join(&lost)
    });
    let group = group.iter().find(|group| std::fs::create_dir(group).is_ok()).unwrap();
    std::fs::create_dir(daemon.depot().join(&lost)).unwrap();
    let mount = daemon.path("store").join("images").join(&lost);
    std::fs::create_dir(&mount).unwrap();
    let target = mount.display().to_string();
    guardian_tests::host::run(&["mount", "-t", "tmpfs", "tmpfs", &target]).unwrap();
    let found = leaked(&daemon);
    guardian_tests::host::run(&["umount", &target]).unwrap();
    std::fs::remove_dir(&mount).unwrap();
    std::fs::remove_dir(daemon.depot().join(&lost)).unwrap();
    std::fs::remove_dir(group).unwrap();
    assert_eq!(found, [1.0; 3]);
    assert_eq!(leaked(&daemon), [0.0; 3]);
    // The server takes what is lost for a container that died, when it starts.
    daemon.kill().unwrap();
    daemon.up().unwrap();
    assert_eq!(daemon.finish().unwrap(), Vec::<String>::new());
}

#[test]
fn readiness_names_what_is_missing() {
    let check = "readiness";
    if !can_run(check, "crun") {
        return;
    }
    let dadoo = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(guardian_tests::host::bin_dir().join("dadoo"), dadoo.path()).unwrap();
    let flags = vec!["--dadoo-bin".into(), dadoo.path().display().to_string()];
    let daemon = Daemon::start(Options { flags, ..options("crun") }).unwrap();
    let ready: Value =
        serde_json::from_slice(&call(&daemon, "GET", "/readyz", "").unwrap()).unwrap();
    assert_eq!(ready["ready"], true, "{ready}");
    let path = dadoo.path().display().to_string();
    drop(dadoo);
    let refused = format!("{:#}", call(&daemon, "GET", "/readyz", "").unwrap_err());
    assert!(refused.contains("HTTP/1.1 503") && refused.contains(&path), "{refused}");
    // It lives all the same.
    assert_eq!(call(&daemon, "GET", "/healthz", "").unwrap(), b"ok, 0 containers\n");
    assert_eq!(daemon.finish().unwrap(), Vec::<String>::new());
}

#[test]
fn stats_and_top_show_what_runs() {
    with_each_runtime("stats and top", |daemon| {
        let handle = daemon.handle("busy");
        daemon.ctl(&["create", "--handle", &handle, "--memory", "64M"]).unwrap();
        let words =
            ["exec", "-d", "--id", "spin", &handle, "--", "sh", "-c", "while :; do :; done"];
        daemon.ctl(&words).unwrap();
        let idle = daemon.handle("idle");
        daemon.ctl(&["create", "--handle", &idle]).unwrap();
        let text = daemon.ctl(&["--json", "stats", "--once"]).unwrap();
        let stats: Vec<Value> = serde_json::from_str(&text).unwrap();
        let of = |name: &str| stats.iter().find(|one| one["handle"] == name).unwrap();
        assert_eq!(of(&handle)["memory_limit_bytes"], 64 << 20);
        assert_eq!(of(&idle)["memory_limit_bytes"], 0);
        assert!(of(&handle)["cpu_ns"].as_u64() > of(&idle)["cpu_ns"].as_u64(), "{text}");
        assert!(of(&handle)["interval_ns"].as_u64() > Some(900_000_000), "{text}");
        let table = daemon.ctl(&["stats", "--once", &handle]).unwrap();
        assert!(table.contains("64.0 MiB") && !table.contains(&idle), "{table}");
        daemon.ctl(&["stats", "--once", "nobody"]).unwrap_err();
        let top: Vec<Value> =
            serde_json::from_str(&daemon.ctl(&["--json", "top", &handle]).unwrap()).unwrap();
        assert_eq!(top.len(), 2, "{top:?}");
        assert_eq!((&top[0]["container_pid"], &top[0]["user"]), (&1.into(), &"root".into()));
        assert_eq!((&top[1]["process"], &top[1]["uid"]), (&"spin".into(), &0.into()));
        assert_eq!(top[1]["command"], "sh -c while :; do :; done");
        assert!(top[1]["cpu_ns"].as_u64() > Some(0) && top[1]["rss_bytes"].as_u64() > Some(0));
        let pid =
            std::fs::read_to_string(daemon.depot().join(&handle).join("processes/spin/pidfile"));
        assert_eq!(top[1]["pid"].to_string(), pid.unwrap().trim());
    });
}

#[test]
fn the_debug_port_has_gdn_s_variables_and_ours() {
    let check = "debug port";
    if !can_run(check, "crun") {
        return;
    }
    let flags = ["--debug-bind-ip", "127.0.0.1"].map(String::from).into();
    let daemon = Daemon::start(Options { flags, ..options("crun") }).unwrap();
    daemon.ctl(&["create", "--handle", &daemon.handle("one")]).unwrap();
    let busybox = guardian_tests::host::program("busybox").unwrap();
    let get = |path: &str, more: &[&str]| {
        let url = format!("http://127.0.0.1:17013{path}");
        let mut command = daemon.netns().unwrap().command(busybox.clone());
        guardian_tests::host::output(command.args(["wget", "-qO-"]).args(more).arg(url))
    };
    let vars: Value = serde_json::from_str(&get("/debug/vars", &[]).unwrap()).unwrap();
    for (name, least) in [("numCPUS", 1), ("numGoRoutines", 1), ("depotDirs", 1)] {
        assert!(vars[name].as_u64().unwrap() >= least, "{vars}");
    }
    assert_eq!((&vars["loopDevices"], &vars["backingStores"]), (&0.into(), &0.into()));
    assert!(vars["memstats"]["Alloc"].as_u64().unwrap() > 0, "{vars}");
    assert!(vars["cmdline"][1] == "server", "{vars}");
    assert!(get("/metrics", &[]).unwrap().contains("guardian_containers{phase=\"live\"} 1"));
    assert_eq!(get("/healthz", &[]).unwrap(), "ok, 1 containers\n");
    assert!(get("/readyz", &[]).unwrap().contains("\"ready\":true"));
    get("/log-level", &["--post-data", "debug"]).unwrap();
    get("/log-level", &["--post-data", "loud"]).unwrap_err();
    assert_eq!(daemon.finish().unwrap(), Vec::<String>::new());
}
