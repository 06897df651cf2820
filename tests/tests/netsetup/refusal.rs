//! What is refused, and with which words.

use std::process::Stdio;

use serde_json::{Value, json};

use super::world::{World, finish, kind_and_message};

#[test]
fn network_requests_are_refused_in_gdn_s_words() {
    let Some(world) = World::new("netsetup: network requests", &[]) else { return };
    let (one, two) = (world.container(), world.container());
    world.up("one", &one, json!({"network": "10.9.1.2/24"}));
    for (network, kind, message) in [
        ("x", "invalid", "invalid CIDR address: x/30"),
        ("10.9.1.2/40", "invalid", "invalid CIDR address: 10.9.1.2/40"),
        ("::1/64", "invalid", "invalid CIDR address: ::1/64"),
        (
            "10.254.1.0/24",
            "invalid",
            "the requested subnet (10.254.1.0/24) overlaps the dynamic allocation range \
             (10.254.0.0/22)",
        ),
        (
            "10.9.0.0/16",
            "invalid",
            "the requested subnet (10.9.0.0/16) overlaps an existing subnet (10.9.1.0/24)",
        ),
        ("10.9.1.255/24", "invalid", "a container IP must not equal the broadcast IP"),
        ("10.9.1.1/24", "invalid", "a container IP must not equal the gateway IP"),
        ("10.9.1.2/24", "exists", "the requested IP is already allocated"),
        ("10.8.0.0/31", "exhausted", "insufficient IPs remaining in the pool"),
    ] {
        let refused = world.try_up("two", &two, json!({"network": network}));
        assert_eq!(refused, kind_and_message(kind, message), "{network}");
    }
    world.down("one");
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn a_full_pool_says_so_and_is_open_again_after_a_down() {
    let flags = ["--network-pool", "10.254.0.0/29"];
    let Some(world) = World::new("netsetup: full pool", &flags) else { return };
    let containers = [world.container(), world.container(), world.container()];
    world.up("c0", &containers[0], Value::Null);
    world.up("c1", &containers[1], Value::Null);
    let full = kind_and_message("exhausted", "insufficient subnets remaining in the pool");
    assert_eq!(world.try_up("c2", &containers[2], Value::Null), full);
    world.act("down", "c0", Value::Null).unwrap();
    assert_eq!(world.up("c2", &containers[2], Value::Null), "10.254.0.2");
    let answer = world.run(&["--action", "setup"], &Value::Null).unwrap();
    assert_eq!(answer, json!({"external_ip": "192.0.2.1", "capacity": 2, "mtu": 1500}));
}

#[test]
fn a_process_that_is_no_container_is_refused() {
    let Some(world) = World::new("netsetup: no container", &[]) else { return };
    let refused = kind_and_message("invalid", "container init PID was 0");
    assert_eq!(world.act("up", "one", json!({"Pid": 0})), refused);
    let child = world.command(&["--action", "up", "--handle", "one"]).spawn().unwrap();
    // nsenter has become netsetup, which is in the host's namespace.
    let request = json!({"Pid": child.id()});
    let (kind, message) = finish(child, &request).unwrap_err();
    assert!(kind == "invalid" && message.ends_with("is in the host's network namespace"));
    for action in ["net-in", "net-out", "bulk-net-out"] {
        let unknown = kind_and_message("not_found", "cannot find container [nobody]");
        assert_eq!(world.act(action, "nobody", json!({})), unknown);
    }
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn bad_rules_are_refused_before_anything_is_done() {
    let Some(world) = World::new("netsetup: bad rules", &[]) else { return };
    let one = world.container();
    for (rule, message) in [
        (json!({"ports": [{"start": 1}]}), "Ports cannot be specified for Protocol ALL"),
        (json!({"protocol": 4}), "invalid protocol: 4"),
        (json!({"networks": [{"start": "1; drop"}]}), "'1; drop' is not an IPv4 address"),
    ] {
        let rules = json!({"netout_rules": [{}, rule]});
        let refused = kind_and_message("invalid", message);
        assert_eq!(world.try_up("one", &one, rules.clone()), refused);
        world.run(&["--action", "setup"], &Value::Null).unwrap();
        assert_eq!(world.leftovers(), Vec::<String>::new());
        world.up("one", &one, Value::Null);
        assert_eq!(world.act("bulk-net-out", "one", rules), refused);
        assert!(!world.on_host("nft list ruleset").contains("chain out-"));
        world.down("one");
    }
}

#[test]
fn a_foreign_link_with_the_bridge_s_name_is_left_alone() {
    let Some(world) = World::new("netsetup: bridge name clash", &[]) else { return };
    let one = world.container();
    world.on_host("ip link add w-b0a090000 type veth peer name foreign");
    let refused = kind_and_message("exists", "link w-b0a090000 exists and is no bridge");
    assert_eq!(world.try_up("one", &one, json!({"network": "10.9.0.0/24"})), refused);
    assert!(world.on_host("ip -br link").contains("w-b0a090000"));
}

#[test]
fn without_nft_one_sentence_says_so() {
    let Some(world) = World::new("netsetup: no nft", &[]) else { return };
    world.run(&["--action", "setup"], &Value::Null).unwrap();
    world.on_host("nft flush ruleset");
    let one = world.container();
    let without = |arguments: &[&str], request: Value| {
        let mut command = world.command(arguments);
        let child = command.env("PATH", "/nonexistent").stderr(Stdio::null());
        let (kind, message) = finish(child.spawn().unwrap(), &request).unwrap_err();
        assert_eq!(kind, "unsupported");
        assert!(message.contains("the program nft (nftables) is not on PATH"), "{message}");
    };
    without(&["--action", "up", "--handle", "one"], json!({"Pid": one.pid}));
    without(&["reapply"], Value::Null);
    world.run(&["reapply"], &Value::Null).unwrap();
    without(&["check"], Value::Null);
    without(&["--action", "setup"], Value::Null);
    assert_eq!(world.leftovers(), Vec::<String>::new());
}
