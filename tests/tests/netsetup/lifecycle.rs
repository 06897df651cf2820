//! Up and down, again, at once, halfway; and what is left afterwards.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::packet::{Responder, ping, tcp};
use super::world::{HOST, OUTSIDE, World, eventually, finish, inside};

const NOTHING: [String; 0] = [];

#[test]
fn down_leaves_nothing_and_can_be_repeated() {
    let Some(world) = World::new("netsetup: down", &[]) else { return };
    world.down("never-seen");
    for network in ["", "10.9.0.0/24", "10.8.0.2"] {
        let one = world.container();
        let rules = json!([{"protocol": 1, "ports": [{"start": 80}], "log": true}]);
        let more = json!({"network": network, "netin": [{}, {}], "netout_rules": rules});
        world.up("one", &one, more);
        assert!(world.on_host("nft list ruleset").contains("log prefix \"one \""));
        world.act("down", "one", Value::Null).unwrap();
        let list = world.run(&["list", "--json"], &Value::Null).unwrap();
        assert_eq!(list, json!([]), "it is gone for everybody as soon as down has returned");
        eventually("everything is gone", || world.leftovers() == NOTHING);
        world.down("one");
    }
    let lease_files = std::fs::read_dir(world.state_dir())
        .unwrap()
        .map(|entry| std::fs::read_dir(entry.unwrap().path().join("leases")).unwrap().count());
    assert_eq!(lease_files.sum::<usize>(), 0);
}

#[test]
fn down_works_when_the_container_s_namespace_is_gone() {
    let Some(world) = World::new("netsetup: down after the end", &[]) else { return };
    for network in ["", "10.9.0.0/24"] {
        let one = world.container();
        world.up("one", &one, json!({"network": network, "netin": [{}]}));
        world.end(&one);
        world.down("one");
        assert_eq!(world.leftovers(), NOTHING);
    }
}

#[test]
fn a_repeated_up_gives_the_same_answer_and_another_container_a_new_network() {
    let Some(world) = World::new("netsetup: up again", &[]) else { return };
    let one = world.container();
    let answer = world.try_up("one", &one, json!({"netin": [{}]})).unwrap();
    assert_eq!(world.try_up("one", &one, json!({"netin": [{}]})).unwrap(), answer);
    // The container was started anew and nobody said down.
    world.end(&one);
    let again = world.container();
    world.up("one", &again, Value::Null);
    assert!(ping(&again.netns, OUTSIDE));
    world.act("down", "one", Value::Null).unwrap();
    world.up("one", &again, Value::Null);
    assert!(ping(&again.netns, OUTSIDE));
    world.down("one");
    assert_eq!(world.leftovers(), NOTHING);
}

#[test]
fn inside_there_is_all_a_container_needs() {
    let Some(world) = World::new("netsetup: inside", &["--mtu", "1400"]) else { return };
    let one = world.container();
    let answer = world.try_up("one", &one, Value::Null).unwrap();
    let properties = answer["properties"].as_object().unwrap();
    for (key, value) in [
        ("garden.network.container-ip", "10.254.0.2"),
        ("garden.network.host-ip", "10.254.0.1"),
        ("garden.network.external-ip", HOST),
        ("garden.network.mapped-ports", "[]"),
        ("garden.network.interface", "eth0"),
        ("kawasaki.mtu", "1400"),
    ] {
        assert_eq!(properties[key], value, "{key}");
    }
    let enter = format!("nsenter --net={}", one.netns.display());
    let links = world.on_host(&format!("{enter} ip -o link"));
    assert!(
        links.contains("eth0") && links.contains("mtu 1400") && links.contains("lo: <LOOPBACK,UP")
    );
    assert!(ping(&one.netns, "127.0.0.1") && ping(&one.netns, "10.254.0.2"));
    let name = properties["kawasaki.host-interface"].as_str().unwrap();
    assert!(name.starts_with("w-") && world.on_host("ip -o link").contains(name));
    let forward =
        inside(&world.host(), || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward"));
    assert_eq!(forward.unwrap(), "1\n");
}

#[test]
fn twenty_at_once_get_twenty_subnets() {
    let Some(world) = World::new("netsetup: parallel up", &[]) else { return };
    let containers: Vec<_> = (0..20).map(|_| world.container()).collect();
    let spawn = |action: &str, n: usize| {
        let handle = format!("c{n}");
        world.command(&["--action", action, "--handle", &handle]).spawn().unwrap()
    };
    let ups: Vec<_> = (0..20).map(|n| spawn("up", n)).collect();
    let mut subnets = BTreeSet::new();
    for (child, container) in ups.into_iter().zip(&containers) {
        let request = json!({"Pid": container.pid, "netin": [{}], "netout_rules": [{}]});
        let answer = finish(child, &request).unwrap();
        subnets.insert(answer["properties"]["kawasaki.subnet"].to_string());
    }
    assert_eq!(subnets.len(), 20);
    assert!(containers.iter().all(|container| ping(&container.netns, OUTSIDE)));
    let downs: Vec<_> = (0..20).map(|n| spawn("down", n)).collect();
    for child in downs {
        finish(child, &Value::Null).unwrap();
    }
    eventually("everything is gone", || world.leftovers() == NOTHING);
}

#[test]
fn three_thousand_rules_are_one_transaction() {
    let Some(world) = World::new("netsetup: bulk", &["--deny-network", "0.0.0.0/0"]) else {
        return;
    };
    let one = world.container();
    world.up("one", &one, Value::Null);
    let rule = |n: usize| json!({"protocol": 1, "networks": [{"start": format!("10.{}.{}.1", n / 256, n % 256)}]});
    let mut rules: Vec<Value> = (0..3000).map(rule).collect();
    rules.push(json!({"networks": [{"start": OUTSIDE}]}));
    let request = json!({"container_ip": "", "netout_rules": rules});
    assert!(!ping(&one.netns, OUTSIDE));
    world.act("bulk-net-out", "one", request).unwrap();
    assert!(ping(&one.netns, OUTSIDE));
    let chain = world.on_host("nft list ruleset");
    let rules: Vec<&str> = chain.lines().filter(|line| line.ends_with("accept")).collect();
    assert!(rules.len() > 3000);
    assert!(rules.iter().any(|rule| rule.trim() == format!("ip daddr {OUTSIDE} accept")));
    world.act("bulk-net-out", "one", json!({"container_ip": "", "netout_rules": []})).unwrap();
    world.act("bulk-net-out", "one", json!({"container_ip": "", "netout_rules": null})).unwrap();
    world.down("one");
    assert_eq!(world.leftovers(), NOTHING);
}

#[test]
fn foreign_rules_are_not_touched_and_a_foreign_flush_is_healed() {
    let Some(world) = World::new("netsetup: foreign rules", &[]) else { return };
    world.on_host("nft add table inet foreign");
    world.on_host("nft add chain inet foreign x { type filter hook input priority 5 ; }");
    let foreign = world.on_host("nft list table inet foreign");
    let one = world.container();
    let _responder = Responder::start(&one.netns, &["0.0.0.0"], 8080);
    world.up("one", &one, Value::Null);
    let port = world.net_in("one", 0, 8080);
    assert_eq!(world.on_host("nft list table inet foreign"), foreign);
    world.on_host("nft flush ruleset");
    assert_eq!(tcp(&world.outside(), HOST, port), None);
    world.run(&["--action", "setup"], &Value::Null).unwrap();
    assert_eq!(tcp(&world.outside(), HOST, port), Some(OUTSIDE.into()));
    world.on_host("nft flush ruleset");
    world.down("one");
    assert_eq!(world.on_host("nft list ruleset"), "");
    assert_eq!(world.leftovers(), NOTHING);
}

#[test]
fn killed_at_any_moment_it_leaves_nothing_that_down_does_not_find() {
    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
    let Some(world) = World::new("netsetup: kill", &["--port-pool-size", "4"]) else { return };
    world.run(&["--action", "setup"], &Value::Null).unwrap();
    let one = world.container();
    let net_in = json!({"HostPort": 0, "ContainerPort": 2});
    let net_out = json!({"container_ip": "", "netout_rule": {"protocol": 1}});
    let end = Instant::now() + Duration::from_secs(60);
    let mut random = SEED;
    for round in 0..200_u64 {
        if Instant::now() > end {
            assert!(round >= 50, "only {round} rounds in a minute");
            break;
        }
        // xorshift64: any moment, but the same ones in every run.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let victim = ["up", "net-in", "net-out", "down"][usize::try_from(random % 4).unwrap()];
        let network = ["", "10.9.0.0/24"][usize::try_from(random >> 8 & 1).unwrap()];
        let up = json!({"Pid": one.pid, "network": network, "netout_rules": [{}],
                        "netin": [{}, {"host_port": 80, "container_port": 1}],
                        "bandwidth": {"rate": 1_000_000_000}});
        // The whole life of the program, and a little more.
        let moment = Duration::from_micros((random >> 16) % 20_000);
        for (action, request) in
            [("up", &up), ("net-in", &net_in), ("net-out", &net_out), ("down", &Value::Null)]
        {
            let mut child =
                world.command(&["--action", action, "--handle", "one"]).spawn().unwrap();
            if action == victim {
                use std::io::Write;
                let _ = child.stdin.take().unwrap().write_all(request.to_string().as_bytes());
                std::thread::sleep(moment);
                child.kill().unwrap();
                child.wait().unwrap();
                break;
            }
            finish(child, request).unwrap();
        }
        world.down("one");
        let told = format!("round {round}, {victim} was killed after {moment:?}");
        assert_eq!(world.leftovers(), NOTHING, "{told}");
        if round % 10 == 0 {
            assert_eq!(world.check(), NOTHING, "{told}");
        }
    }
    assert_eq!(world.check(), NOTHING);
    // No port and no subnet has been lost on the way.
    let more = json!({"Pid": one.pid, "netin": [{}, {}, {}, {}]});
    let answer = world.act("up", "one", more).unwrap();
    assert_eq!(answer["properties"]["garden.network.container-ip"], "10.254.0.2");
}

#[test]
fn with_a_depot_up_writes_hosts_and_resolv_conf_in_place() {
    let depot = tempfile::tempdir().unwrap();
    let path = depot.path().display().to_string();
    let flags = [
        "--depot",
        &path,
        "--dns-server",
        "9.9.9.9",
        "--additional-dns-server",
        "8.8.8.8",
        "--additional-host-entry",
        "1.2.3.4 db",
    ];
    let Some(world) = World::new("netsetup: depot", &flags) else { return };
    let bundle = depot.path().join("web-1");
    std::fs::create_dir(&bundle).unwrap();
    std::fs::write(bundle.join("hosts"), "something that was much longer before\n".repeat(9))
        .unwrap();
    std::fs::write(bundle.join("resolv.conf"), "").unwrap();
    let inode = |name: &str| std::fs::metadata(bundle.join(name)).unwrap().ino();
    let before = (inode("hosts"), inode("resolv.conf"));
    let one = world.container();
    world.up("web-1", &one, Value::Null);
    assert_eq!((inode("hosts"), inode("resolv.conf")), before);
    let text = |name: &str| std::fs::read_to_string(bundle.join(name)).unwrap();
    assert_eq!(text("hosts"), "127.0.0.1 localhost\n10.254.0.2 web-1\n1.2.3.4 db\n");
    assert_eq!(text("resolv.conf"), "nameserver 9.9.9.9\nnameserver 8.8.8.8\n");
    // Where they can't be written, the whole up is undone.
    let two = world.container();
    let (_, message) = world.try_up("no-bundle", &two, Value::Null).unwrap_err();
    assert!(message.contains("no-bundle/hosts"), "{message}");
    world.down("web-1");
    assert_eq!(world.leftovers(), NOTHING);
}

#[test]
fn what_the_background_could_not_do_the_next_one_does() {
    let Some(world) =
        World::new("netsetup: failed background", &["--network-pool", "10.254.0.0/30"])
    else {
        return;
    };
    let one = world.container();
    for next in ["down", "up", "setup"] {
        world.up("one", &one, json!({"netin": [{"host_port": 80, "container_port": 1}]}));
        let mut command = world.command(&["--action", "down", "--handle", "one"]);
        // Without nft the copy in the background can't remove the rules.
        finish(command.env("PATH", "/nonexistent").spawn().unwrap(), &Value::Null).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert!(world.leftovers().iter().any(|line| line.contains("elements")));
        match next {
            "up" => assert_eq!(world.up("two", &one, Value::Null), "10.254.0.2"),
            "setup" => drop(world.run(&["--action", "setup"], &Value::Null).unwrap()),
            _ => world.down("one"),
        }
        world.down("two");
        assert_eq!(world.leftovers(), NOTHING, "{next}");
    }
}

#[test]
fn the_state_of_an_earlier_boot_counts_for_nothing() {
    let Some(world) = World::new("netsetup: reboot", &["--network-pool", "10.254.0.0/30"]) else {
        return;
    };
    let (one, two) = (world.container(), world.container());
    world.up("one", &one, Value::Null);
    world.end(&one);
    eventually("no link survives a boot", || !world.on_host("ip -br link").contains("w-"));
    let dir = std::fs::read_dir(world.state_dir()).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(dir.join("pool.json")).unwrap();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let earlier = text.replace(boot_id.trim(), "an-earlier-boot");
    assert_ne!(text, earlier);
    std::fs::write(dir.join("pool.json"), earlier).unwrap();
    std::fs::write(dir.join("leases/old.json"), "{\"of\": \"another release\"}").unwrap();
    assert_eq!(world.up("two", &two, Value::Null), "10.254.0.2");
    assert!(ping(&two.netns, OUTSIDE));
    world.down("two");
    world.down("one");
    assert_eq!(world.leftovers(), NOTHING);
}

#[test]
fn the_very_first_packet_passes() {
    let Some(world) = World::new("netsetup: first packet", &[]) else { return };
    for round in 0..30 {
        let one = world.container();
        let network = if round % 2 == 0 { "" } else { "10.9.0.0/24" };
        world.up("one", &one, json!({"network": network}));
        // An address question that is lost is asked again only after this one second is over.
        assert!(ping(&one.netns, OUTSIDE), "round {round}");
        world.act("down", "one", Value::Null).unwrap();
        world.end(&one);
    }
}
