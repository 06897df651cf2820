//! Who may talk to whom.

use serde_json::{Value, json};

use super::packet::{Responder, ping, tcp, udp, udp_from};
use super::world::{DENIED, HOST, OUTSIDE, World, eventually, inside};

#[test]
fn the_outside_is_reached_unless_it_is_denied() {
    let flags = ["--deny-network", "198.51.100.0/24"];
    let Some(world) = World::new("netsetup: deny networks", &flags) else { return };
    let _responders =
        [80, 443, 53].map(|port| Responder::start(&world.outside(), &[OUTSIDE, DENIED], port));
    let one = world.container();
    world.up("one", &one, Value::Null);

    let seen_as = Some(HOST.to_owned());
    assert_eq!(tcp(&one.netns, OUTSIDE, 80), seen_as);
    assert_eq!(udp(&one.netns, OUTSIDE, 80), seen_as);
    assert!(ping(&one.netns, OUTSIDE));
    assert_eq!(tcp(&one.netns, DENIED, 80), None);
    assert_eq!(udp(&one.netns, DENIED, 80), None);
    assert!(!ping(&one.netns, DENIED));

    let tcp_443 =
        json!({"protocol": 1, "networks": [{"start": DENIED}], "ports": [{"start": 443}]});
    world.act("net-out", "one", json!({"container_ip": "", "netout_rule": tcp_443})).unwrap();
    assert_eq!(tcp(&one.netns, DENIED, 443), seen_as);
    assert_eq!(udp(&one.netns, DENIED, 443), None);
    assert_eq!(tcp(&one.netns, DENIED, 80), None);

    let range = json!({"start": "198.51.100.1", "end": "198.51.100.9"});
    let rules = json!([
        {"protocol": 2, "networks": [range], "ports": [{"start": 50, "end": 60}], "log": true},
        {"protocol": 3, "networks": [range], "icmps": {"type": 8, "code": 0}},
    ]);
    let request = json!({"container_ip": "", "netout_rules": rules});
    world.act("bulk-net-out", "one", request).unwrap();
    assert_eq!(udp(&one.netns, DENIED, 53), seen_as);
    assert_eq!(udp(&one.netns, DENIED, 443), None);
    assert!(ping(&one.netns, DENIED));

    // Another container has no part in these rules.
    let two = world.container();
    world.up("two", &two, Value::Null);
    assert_eq!(tcp(&two.netns, DENIED, 443), None);
    assert!(!ping(&two.netns, DENIED));
    assert_eq!(tcp(&two.netns, OUTSIDE, 443), seen_as);
}

#[test]
fn rules_of_the_create_request_hold_from_the_start() {
    let flags = ["--deny-network", "0.0.0.0/0"];
    let Some(world) = World::new("netsetup: netout_rules of up", &flags) else { return };
    let _responders =
        [80, 443].map(|port| Responder::start(&world.outside(), &[OUTSIDE, DENIED], port));
    let one = world.container();
    let rules = json!([{"protocol": 1, "ports": [{"start": 443}]}]);
    world.up("one", &one, json!({"netout_rules": rules}));
    assert!(tcp(&one.netns, OUTSIDE, 443).is_some());
    assert!(tcp(&one.netns, OUTSIDE, 80).is_none());
}

#[test]
fn a_new_policy_holds_for_living_containers() {
    let Some(world) = World::new("netsetup: setup again", &[]) else { return };
    let _responder = Responder::start(&world.outside(), &[OUTSIDE, DENIED], 80);
    let one = world.container();
    world.up("one", &one, Value::Null);
    assert!(tcp(&one.netns, DENIED, 80).is_some());
    let deny = ["--deny-network", "198.51.100.0/24", "--action", "setup"];
    world.run(&deny, &Value::Null).unwrap();
    assert!(tcp(&one.netns, DENIED, 80).is_none());
    assert!(tcp(&one.netns, OUTSIDE, 80).is_some());
    world.run(&["--action", "setup"], &Value::Null).unwrap();
    assert!(tcp(&one.netns, DENIED, 80).is_some());
}

#[test]
fn the_host_is_closed_to_containers_and_they_are_open_to_it() {
    let Some(world) = World::new("netsetup: host access", &[]) else { return };
    let one = world.container();
    let address = world.up("one", &one, Value::Null);
    let _responders = [
        Responder::start(&world.host(), &[HOST, "10.254.0.1"], 80),
        Responder::start(&one.netns, &["0.0.0.0"], 8080),
    ];
    for host_address in ["10.254.0.1", HOST] {
        assert_eq!(tcp(&one.netns, host_address, 80), None, "{host_address}");
        assert_eq!(udp(&one.netns, host_address, 80), None, "{host_address}");
        assert!(!ping(&one.netns, host_address), "{host_address}");
    }
    // Answers to what the host began do pass.
    assert_eq!(tcp(&world.host(), &address, 8080), Some("10.254.0.1".into()));

    world.run(&["--allow-host-access", "--action", "setup"], &Value::Null).unwrap();
    assert_eq!(tcp(&one.netns, "10.254.0.1", 80), Some(address.clone()));
    assert_eq!(udp(&one.netns, HOST, 80), Some(address));
    assert!(ping(&one.netns, HOST));

    // IPv6 is no way around: both ends have a link-local address.
    let lines = world.on_host("ip -6 -o addr show scope link up");
    let line = lines.lines().find(|line| line.contains(" w-")).unwrap();
    let address = line.split_whitespace().find(|word| word.starts_with("fe80")).unwrap();
    let address = format!("{}%eth0", address.split('/').next().unwrap());
    eventually("IPv6 works where it may", || ping(&one.netns, &address));
    world.run(&["--action", "setup"], &Value::Null).unwrap();
    assert!(!ping(&one.netns, &address));
}

#[test]
fn a_name_server_on_the_host_is_reached_and_nothing_else_there() {
    let flags = ["--dns-server", HOST];
    let Some(world) = World::new("netsetup: dns server", &flags) else { return };
    let one = world.container();
    world.up("one", &one, Value::Null);
    let _responders = [53, 54].map(|port| Responder::start(&world.host(), &[HOST], port));
    assert!(udp(&one.netns, HOST, 53).is_some() && tcp(&one.netns, HOST, 53).is_some());
    assert!(udp(&one.netns, HOST, 54).is_none() && tcp(&one.netns, HOST, 54).is_none());
}

#[test]
fn containers_see_each_other_s_true_address_unless_the_pool_is_denied() {
    let Some(world) = World::new("netsetup: two containers", &[]) else { return };
    let (one, two) = (world.container(), world.container());
    let address_of_one = world.up("one", &one, Value::Null);
    let address_of_two = world.up("two", &two, Value::Null);
    let _responder = Responder::start(&two.netns, &["0.0.0.0"], 8080);
    assert_eq!(tcp(&one.netns, &address_of_two, 8080), Some(address_of_one));
    world.run(&["--deny-network", "10.254.0.0/22", "--action", "setup"], &Value::Null).unwrap();
    assert_eq!(tcp(&one.netns, &address_of_two, 8080), None);
}

#[test]
fn a_false_source_address_goes_nowhere() {
    let Some(world) = World::new("netsetup: spoofed source", &[]) else { return };
    let (one, two) = (world.container(), world.container());
    let address = world.up("one", &one, Value::Null);
    let victim = world.up("two", &two, Value::Null);
    let _responder = Responder::start(&world.outside(), &[OUTSIDE, DENIED], 80);
    assert!(udp_from(&one.netns, &address, OUTSIDE, 80).is_some());
    let forge = format!("nsenter --net={} ip addr add {victim}/32 dev lo", one.netns.display());
    world.on_host(&forge);
    let before = udp_count(&world);
    assert!(udp_from(&one.netns, &victim, OUTSIDE, 80).is_none());
    assert_eq!(udp_count(&world), before, "the forged packet got out");
}

/// Returns how many datagrams the machine outside has received.
fn udp_count(world: &World) -> String {
    inside(&world.outside(), || {
        let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let line = text.lines().rfind(|line| line.starts_with("Udp: ")).unwrap();
        line.split(' ').nth(1).unwrap().to_owned()
    })
}

#[test]
fn containers_of_one_subnet_share_a_bridge() {
    let flags = ["--deny-network", "198.51.100.0/24", "--deny-network", "10.9.0.0/16"];
    let Some(world) = World::new("netsetup: shared subnet", &flags) else { return };
    let _outside = Responder::start(&world.outside(), &[OUTSIDE, DENIED], 80);
    let (one, two) = (world.container(), world.container());
    let network = json!({"network": "10.9.0.0/24"});
    assert_eq!(world.up("one", &one, network.clone()), "10.9.0.2");
    assert_eq!(world.up("two", &two, json!({"network": "10.9.0.77/24"})), "10.9.0.77");
    let inner = Responder::start(&two.netns, &["0.0.0.0"], 8080);
    assert_eq!(tcp(&one.netns, "10.9.0.77", 8080), Some("10.9.0.2".into()));
    assert_eq!(tcp(&one.netns, OUTSIDE, 80), Some(HOST.into()));
    assert_eq!(tcp(&one.netns, DENIED, 80), None);
    assert_eq!(tcp(&one.netns, "10.9.0.1", 80), None);
    // Through the host and back into the same bridge.
    let port = world.net_in("two", 0, 8080);
    for (bridge_filter, seen_as) in [("0", "10.9.0.1"), ("1", "10.9.0.2")] {
        // With br_netfilter the answer passes through our hands even on the bridge, so that the
        // true source can be kept.
        inside(&world.host(), || {
            let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", bridge_filter);
        });
        let asker = tcp(&one.netns, HOST, port);
        assert!(asker == Some(seen_as.into()) || asker == Some("10.9.0.1".into()), "{asker:?}");
        assert_eq!(tcp(&one.netns, HOST, port + 1), None);
        assert!(tcp(&one.netns, "10.9.0.77", 8080).is_some());
    }
    drop(inner);
    // The one that stays keeps its network, and the place of the other is free at once.
    world.down("two");
    assert_eq!(tcp(&one.netns, OUTSIDE, 80), Some(HOST.into()));
    let three = world.container();
    assert_eq!(world.up("three", &three, json!({"network": "10.9.0.77/24"})), "10.9.0.77");
    assert!(ping(&one.netns, "10.9.0.77"));
    world.down("one");
    world.down("three");
    assert_eq!(world.leftovers(), Vec::<String>::new());
}
