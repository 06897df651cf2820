//! What the server has to do with the network, beside asking for it.

use guardian_tests::daemon::{Daemon, Options};
use guardian_tests::host;
use serde_json::{Value, json};

use crate::failure::raw;
use crate::{can_run, options, with_each_runtime};

#[test]
fn traffic_is_reported_where_that_is_asked_for() {
    if !can_run("network metrics", "crun") {
        return;
    }
    for (flags, is_told) in
        [(vec!["--enable-container-network-metrics".to_owned()], true), (vec![], false)]
    {
        let daemon = Daemon::start(Options { flags, ..options("crun") }).unwrap();
        let read = |handle: &str| -> Value {
            let text = daemon.ctl(&["metrics", "--json", handle]).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()["NetworkStat"].clone()
        };
        let (plain, check) = (daemon.handle("plain"), daemon.handle("check"));
        daemon.ctl(&["create", "--handle", &plain]).unwrap();
        let property = "network.healthcheck=true";
        daemon.ctl(&["create", "--handle", &check, "--property", property]).unwrap();
        assert_eq!(read(&check), Value::Null);
        if is_told {
            let before = read(&plain);
            // The first container of the pool; each question is as long as its answer.
            let mut ping = daemon.netns().unwrap().command("ping");
            host::output(ping.args(["-c5", "-i0.2", "-s1000", "10.254.0.2"])).unwrap();
            let after = read(&plain);
            for key in ["RxBytes", "TxBytes"] {
                let grown = after[key].as_u64().unwrap() - before[key].as_u64().unwrap();
                assert!((5 * 1042..5 * 1042 + 2000).contains(&grown), "{key}: {grown}");
            }
            // Somebody takes the link away: what else is measured is told all the same.
            let pid = std::fs::read_to_string(daemon.depot().join(&plain).join("pidfile")).unwrap();
            let mut nsenter = std::process::Command::new("nsenter");
            nsenter.args(["-t", pid.trim(), "-n", "ip", "link", "delete"]);
            let names = std::fs::read_to_string(format!("/proc/{}/net/dev", pid.trim())).unwrap();
            let mut names = names.lines().filter_map(|line| line.split_once(':'));
            let (name, _) = names.find(|(name, _)| name.trim() != "lo").unwrap();
            host::output(nsenter.arg(name.trim())).unwrap();
            assert_eq!(read(&plain), Value::Null);
        } else {
            assert_eq!(read(&plain), Value::Null);
        }
        assert_eq!(daemon.finish().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_restart_brings_back_rules_that_somebody_flushed() {
    with_each_runtime("restart after a flush", |daemon| {
        let handle = daemon.handle("kept");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        daemon.ctl(&["net-in", &handle, "--container-port", "8080"]).unwrap();
        daemon.ctl(&["net-out", &handle, "--protocol", "tcp", "--port", "443"]).unwrap();
        let netns = daemon.netns().unwrap();
        let before = netns.rules().unwrap();
        assert!(before.contains("443 accept") && before.contains(". 8080"), "{before}");
        host::output(netns.command("nft").args(["flush", "ruleset"])).unwrap();
        assert_eq!(netns.rules().unwrap(), "");
        daemon.kill().unwrap();
        daemon.up().unwrap();
        assert_eq!(daemon.netns().unwrap().rules().unwrap(), before);
    });
}

fn request(daemon: &Daemon, method: &str, path: &str, body: &str) -> Value {
    let answer = raw(daemon, method, path, body);
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn the_bandwidth_limit_reported_is_the_one_enforced() {
    with_each_runtime("bandwidth limit", |daemon| {
        let (limited, free) = (daemon.handle("limited"), daemon.handle("free"));
        let limits = json!({"bandwidth_limits": {"rate": 1_000_000, "burst": 1000}});
        let spec = json!({"handle": limited, "limits": limits});
        request(daemon, "POST", "/containers", &spec.to_string());
        daemon.ctl(&["create", "--handle", &free]).unwrap();
        let read = |handle: &str| {
            request(daemon, "GET", &format!("/containers/{handle}/limits/bandwidth"), "")
        };
        assert_eq!(read(&limited), json!({"rate": 1_000_000, "burst": 65536}));
        assert_eq!(read(&free), json!({}));
        let rules = daemon.netns().unwrap().rules().unwrap();
        assert_eq!(rules.matches("rate over").count(), 1, "{rules}");
    });
}
