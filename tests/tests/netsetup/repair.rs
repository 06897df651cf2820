//! `check` sees every difference between the leases and the kernel, `reapply` mends it.

use serde_json::{Value, json};

use super::packet::{Responder, ping, tcp};
use super::world::{DENIED, HOST, OUTSIDE, World, eventually, inside};

const NOTHING: [String; 0] = [];

/// A world with a foreign table and three containers, one with everything and two on a bridge.
fn furnished(check: &str) -> Option<World> {
    let world = World::new(check, &[])?;
    // The policy must come from what is written down, so only `setup` hears of it.
    let deny = ["--deny-network", "198.51.100.0/24", "--action", "setup"];
    world.run(&deny, &Value::Null).unwrap();
    world.on_host("nft add table inet foreign");
    world.on_host("nft add chain inet foreign x { type filter hook input priority 5 ; }");
    for (handle, network) in [("one", ""), ("two", "10.9.0.0/24"), ("three", "10.9.0.0/24")] {
        let container = world.container();
        let netin = json!([{"host_port": 0, "container_port": 8080}]);
        world.up(handle, &container, json!({"network": network, "netin": netin}));
    }
    let rules = [
        json!({"protocol": 1, "ports": [{"start": 443}]}),
        json!({"protocol": 1, "ports": [{"start": 80, "end": 90}]}),
    ];
    for rule in rules {
        world.act("net-out", "one", json!({"container_ip": "", "netout_rule": rule})).unwrap();
    }
    assert_eq!(world.check(), NOTHING);
    Some(world)
}

#[test]
fn after_a_foreign_flush_everything_is_as_before() {
    let Some(world) = furnished("netsetup: reapply") else { return };
    let one = world.netns_of(0);
    let _inside = Responder::start(&one, &["0.0.0.0"], 8080);
    let _outside = [80, 443, 22].map(|port| Responder::start(&world.outside(), &[DENIED], port));
    let works = || {
        assert_eq!(tcp(&world.outside(), HOST, 61001), Some(OUTSIDE.into()));
        assert_eq!(tcp(&one, DENIED, 443), Some(HOST.into()));
        assert_eq!(tcp(&one, DENIED, 80), Some(HOST.into()));
        assert_eq!(tcp(&one, DENIED, 22), None);
        assert_eq!(tcp(&one, HOST, 22), None);
    };
    works();
    let logged = json!({"protocol": 3, "log": true});
    world.act("net-out", "one", json!({"container_ip": "", "netout_rule": logged})).unwrap();
    let before = world.on_host("nft -s list table inet guardian");
    for disaster in ["nft flush ruleset", "nft delete table inet guardian"] {
        world.on_host(disaster);
        assert_eq!(world.check(), ["missing table inet guardian -"]);
        assert_eq!(tcp(&world.outside(), HOST, 61001), None);
        world.on_host("nft add table inet foreign");
        world.on_host("nft add chain inet foreign y");
        let foreign = world.on_host("nft list table inet foreign");
        assert_eq!(world.reapply(), NOTHING);
        works();
        assert_eq!(world.on_host("nft -s list table inet guardian"), before, "in this very order");
        assert_eq!(world.on_host("nft list table inet foreign"), foreign);
    }
    // A server that starts anew says setup, and that does as much.
    world.on_host("nft flush ruleset");
    let deny = ["--deny-network", "198.51.100.0/24", "--action", "setup"];
    world.run(&deny, &Value::Null).unwrap();
    assert_eq!(world.check(), NOTHING);
    works();
    for handle in ["one", "two", "three"] {
        world.down(handle);
    }
    assert_eq!(world.check(), NOTHING);
    assert_eq!(world.leftovers(), NOTHING);
}

#[test]
fn every_single_change_is_told_and_mended() {
    let Some(world) = furnished("netsetup: check") else { return };
    let link = |handle: &str| {
        let lease = world.run(&["show", handle, "--json"], &Value::Null).unwrap();
        lease["host_interface"].as_str().unwrap().to_owned()
    };
    let (one, two) = (link("one"), link("two"));
    let chain = format!("out-{}", one.trim_start_matches("w-"));
    let udp = format!("{HOST} . 17 . 61001 : 10.254.0.2 . 8080");
    let table = "inet guardian";
    for (change, want) in [
        (
            format!("nft delete element {table} net_in {{ {HOST} . udp . 61001 }}"),
            vec![format!("missing element net_in: {udp} one")],
        ),
        (
            format!("nft add element {table} net_in {{ {HOST} . tcp . 9 : 10.254.0.2 . 9 }}"),
            vec![format!("leftover element net_in: {HOST} . 6 . 9 : 10.254.0.2 . 9 one")],
        ),
        (
            format!("nft add element {table} net_in {{ {HOST} . tcp . 9 : 10.254.0.99 . 9 }}"),
            vec![format!("leftover element net_in: {HOST} . 6 . 9 : 10.254.0.99 . 9 -")],
        ),
        (
            format!("nft delete element {table} hairpin {{ \"{one}\" . \"{one}\" }}"),
            vec![format!("missing element hairpin: \"{one}\" . \"{one}\" one")],
        ),
        (format!("nft add chain {table} out-nobody"), vec!["leftover chain out-nobody -".into()]),
        (format!("nft add set {table} s {{ type ipv4_addr; }}"), vec!["leftover set s -".into()]),
        (
            format!("nft add rule {table} {chain} accept"),
            vec![format!("leftover rule {chain}: accept one")],
        ),
        (
            format!("nft insert rule {table} outbound accept"),
            vec!["leftover rule outbound: accept -".into()],
        ),
        (
            format!("ip addr del 10.254.0.1/30 dev {one}"),
            vec![format!("missing address 10.254.0.1/30 on {one} one")],
        ),
        (
            "ip addr del 10.9.0.1/24 dev w-b0a090000".into(),
            vec!["missing address 10.9.0.1/24 on w-b0a090000 -".into()],
        ),
        (format!("ip link set {one} down"), vec![format!("different link {one} is down one")]),
        (
            format!("ip link set {two} nomaster"),
            vec![format!("different link {two} is not attached to w-b0a090000 two")],
        ),
    ] {
        world.on_host(&change);
        assert_eq!(world.check(), want, "{change}");
        assert_eq!(world.reapply(), NOTHING, "{change}");
    }
    // Rules of one chain, the other way round.
    world.on_host(&format!("nft flush chain {table} {chain}"));
    assert_eq!(world.check().len(), 2);
    assert!(world.check().iter().all(|line| line.starts_with("missing rule out-")));
    world.on_host(&format!("nft add rule {table} {chain} meta l4proto tcp th dport 443 accept"));
    world.on_host(&format!("nft add rule {table} {chain} meta l4proto tcp th dport 80-90 accept"));
    assert_eq!(world.check(), [format!("different chain {chain}: the order of its rules one")]);
    assert_eq!(world.reapply(), NOTHING);
    assert!(ping(&world.netns_of(1), OUTSIDE));
    // A bridge that is gone is made anew and joined by its containers.
    world.on_host("ip link del w-b0a090000");
    assert!(world.check().contains(&"missing link w-b0a090000 -".to_owned()));
    assert_eq!(world.reapply(), NOTHING);
    assert!(ping(&world.netns_of(1), OUTSIDE));
    assert!(ping(&world.netns_of(2), OUTSIDE));
}

#[test]
fn what_can_not_be_mended_is_told() {
    let Some(world) = furnished("netsetup: check of links") else { return };
    world.on_host("ip link add w-stranger type veth peer name foreign");
    assert_eq!(world.check(), ["leftover link w-stranger -"]);
    assert_eq!(world.reapply(), ["leftover link w-stranger -"]);
    world.on_host("ip link del w-stranger");
    let lease = world.run(&["show", "one", "--json"], &Value::Null).unwrap();
    let link = lease["host_interface"].as_str().unwrap();
    world.on_host(&format!("ip link del {link}"));
    let gone = format!("missing link {link} one");
    assert_eq!(world.check(), [&*gone]);
    assert_eq!(world.reapply(), [gone]);
    world.down("one");
    assert_eq!(world.check(), NOTHING);
    // What is on its way out is no difference, and nobody's.
    world.act("down", "two", Value::Null).unwrap();
    assert_eq!(world.check(), NOTHING);
    world.act("down", "three", Value::Null).unwrap();
    assert_eq!(world.check(), NOTHING);
    eventually("everything is gone", || world.leftovers() == NOTHING);
    inside(&world.host(), || std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap());
    assert_eq!(world.check(), ["different setting net.ipv4.ip_forward is not 1 -"]);
    assert_eq!(world.reapply(), NOTHING);
}

#[test]
fn an_up_that_was_killed_is_told_as_one_thing() {
    let Some(world) = furnished("netsetup: check of an unfinished up") else { return };
    let dir = std::fs::read_dir(world.state_dir()).unwrap().next().unwrap().unwrap().path();
    for entry in std::fs::read_dir(dir.join("leases")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        if text.contains("\"handle\":\"one\"") {
            std::fs::write(&path, text.replace("\"stage\":\"up\"", "\"stage\":\"building\""))
                .unwrap();
        }
    }
    assert_eq!(world.check(), ["leftover lease of an up that was interrupted one"]);
    world.down("one");
    assert_eq!(world.check(), NOTHING);
}

#[test]
fn a_state_directory_that_knows_nothing_has_no_say() {
    let Some(world) = furnished("netsetup: wrong state directory") else { return };
    let before = world.on_host("nft list ruleset");
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().display().to_string();
    for verb in ["check", "reapply"] {
        let (kind, message) = world.run(&["--state-dir", &path, verb], &Value::Null).unwrap_err();
        assert_eq!(kind, "not_found");
        assert!(message.contains(&path) && message.contains("--state-dir"), "{message}");
    }
    assert_eq!(world.on_host("nft list ruleset"), before);
}
