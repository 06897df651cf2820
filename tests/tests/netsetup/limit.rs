//! Another bandwidth for a container that is up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::traffic::transfer;
use super::world::{Container, OUTSIDE, World, kind_and_message};

fn limit(world: &World, handle: &str, of: &Container, rate: u64) -> Option<Value> {
    let request = json!({"Pid": of.pid, "bandwidth": {"rate": rate, "burst": 100_000}});
    let answer = world.act("limit", handle, request).unwrap();
    let told = answer["properties"]["garden.network.bandwidth"].as_str();
    told.map(|text| serde_json::from_str(text).unwrap())
}

/// What the kernel holds for both directions, and the table for what is sent.
fn held(world: &World, of: &Container) -> [usize; 3] {
    let inside = format!("nsenter --net={} tc qdisc show dev eth0", of.netns.display());
    [
        world.on_host("tc qdisc show").matches(" tbf ").count(),
        world.on_host(&inside).matches(" tbf ").count(),
        world.on_host("nft list ruleset").matches("limit up-").count(),
    ]
}

/// The file of the only lease there is.
fn only_lease(world: &World) -> PathBuf {
    let entries = |dir: &Path| {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let all = entries(world.state_dir()).into_iter().flat_map(|dir| entries(&dir.join("leases")));
    let all: Vec<PathBuf> = all.collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

#[test]
fn bandwidth_changes_while_connections_last() {
    const BYTES: usize = 1_500_000;
    let Some(world) = World::new("netsetup: change of bandwidth", &[]) else { return };
    if !guardian_tests::skip::can_run("netsetup: change of bandwidth", &["tc"]) {
        return;
    }
    for more in [json!({}), json!({"network": "10.9.0.0/24"})] {
        let one = world.container();
        let address = world.up("one", &one, more);
        let both = || {
            let sent = transfer(&one.netns, &world.outside(), OUTSIDE, BYTES);
            let received = transfer(&world.host(), &one.netns, &address, BYTES);
            [sent, received]
        };
        assert_eq!(held(&world, &one), [0, 0, 0]);
        for (rate, least) in [(1_000_000, 1.2), (20_000_000, 0.0), (2_000_000, 0.6)] {
            let told = limit(&world, "one", &one, rate);
            assert_eq!(told, Some(json!({"rate": rate, "burst": 100_000})));
            assert_eq!(world.check(), Vec::<String>::new(), "{rate}");
            assert_eq!(held(&world, &one).map(|count| count > 0), [true; 3]);
            let least = Duration::from_secs_f64(least);
            for took in both() {
                assert!(took >= least, "{rate}: {took:?}");
                assert!(rate != 20_000_000 || took < Duration::from_millis(900), "{took:?}");
            }
            let shown = world.text(&["show", "one"]);
            assert!(shown.contains(&format!("{rate} bytes/s, burst 100000 bytes\n")), "{shown}");
        }
        // The same again changes nothing, and 0 takes it away.
        limit(&world, "one", &one, 2_000_000);
        assert_eq!(world.check(), Vec::<String>::new());
        assert_eq!(limit(&world, "one", &one, 0), None);
        assert_eq!(held(&world, &one), [0, 0, 0]);
        assert_eq!(world.check(), Vec::<String>::new());
        assert_eq!(limit(&world, "one", &one, 0), None);
        world.down("one");
        assert_eq!(world.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn a_change_that_was_cut_off_is_told_and_put_right() {
    let Some(world) = World::new("netsetup: bandwidth cut off", &[]) else { return };
    let one = world.container();
    world.up("one", &one, json!({"bandwidth": {"rate": 1_000_000}}));
    let pid = one.pid.to_string();
    let file = only_lease(&world);
    let told = |rate: u64| {
        let text = std::fs::read(&file).unwrap();
        let mut lease: Value = serde_json::from_slice(&text).unwrap();
        lease["bandwidth"] = match rate {
            0 => Value::Null,
            rate => json!({"rate": rate, "burst": 65536}),
        };
        std::fs::write(&file, lease.to_string()).unwrap();
    };
    // Written down and not done: another limit, none.
    for (rate, wrong) in [(3_000_000, 3), (0, 3)] {
        told(rate);
        let differences = world.check();
        assert!((2..=wrong).contains(&differences.len()), "{differences:?}");
        assert_eq!(world.reapply(), Vec::<String>::new());
        limit(&world, "one", &one, 1_000_000);
        told(rate);
        limit(&world, "one", &one, 5_000_000);
        assert_eq!(world.check(), Vec::<String>::new());
    }
    told(0);
    world.text(&["limit", "one", "--pid", &pid, "--rate", "7000000"]);
    assert_eq!(world.check(), Vec::<String>::new());
    world.down("one");
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn what_can_t_be_limited_is_refused() {
    let Some(world) = World::new("netsetup: refused bandwidth", &[]) else { return };
    let (one, two) = (world.container(), world.container());
    let ask = |pid: i32| json!({"Pid": pid, "bandwidth": {"rate": 1}});
    let unknown = kind_and_message("not_found", "cannot find container [one]");
    assert_eq!(world.act("limit", "one", ask(one.pid)), unknown);
    world.up("one", &one, json!({}));
    let wrong = "this is not the network namespace that container one is in";
    assert_eq!(world.act("limit", "one", ask(two.pid)), kind_and_message("invalid", wrong));
    let nobody = kind_and_message("invalid", "container init PID was 0");
    assert_eq!(world.act("limit", "one", json!({"bandwidth": {"rate": 1}})), nobody);
    // A part that fails takes the others back.
    let untie = format!("nsenter --net={} ip link set eth0 name eth9", one.netns.display());
    world.on_host(&format!("nsenter --net={} ip link set eth0 down", one.netns.display()));
    world.on_host(&untie);
    let (kind, said) = world.act("limit", "one", ask(one.pid)).unwrap_err();
    assert!(kind == "failed" && said.contains("find link eth0"), "{said}");
    assert_eq!(world.check(), Vec::<String>::new());
    assert!(world.text(&["show", "one"]).contains("unlimited"));
    let pid = one.pid.to_string();
    let dry = world.text(&["limit", "one", "--pid", &pid, "--rate", "9", "--dry-run"]);
    assert!(dry.contains("rate over 9 bytes/second"), "{dry}");
    assert!(world.text(&["show", "one"]).contains("unlimited"));
    world.down("one");
    assert_eq!(world.leftovers(), Vec::<String>::new());
}
