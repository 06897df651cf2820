//! IPv6 beside IPv4, where the operator asks for it.

use guardian_tests::skip;
use serde_json::{Value, json};

use super::packet::{Responder, ping, tcp, udp, udp_from};
use super::world::{World, eventually, inside, kind_and_message};

const HOST: &str = "2001:db8::1";
const OUTSIDE: &str = "2001:db8::2";
const DENIED: &str = "2001:db8:dead::2";
const NOTHING: [String; 0] = [];

/// A world whose host and outside have IPv6 too.
fn world(check: &str, flags: &[&str]) -> Option<World> {
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        skip::note(check, "this kernel has no IPv6");
        return None;
    }
    let world = World::new(check, &[&["--ipv6-pool", "fd00:9::/64"], flags].concat())?;
    world.on_host(&format!("ip addr add {HOST}/64 dev out0 nodad"));
    world.on_host(&format!("ip route add default via {OUTSIDE}"));
    let outside = format!("nsenter --net={}", world.outside().display());
    world.on_host(&format!("{outside} ip addr add {OUTSIDE}/64 dev host0 nodad"));
    world.on_host(&format!("{outside} ip addr add {DENIED}/128 dev host0 nodad"));
    world.run(&["--action", "setup"], &Value::Null).unwrap();
    Some(world)
}

#[test]
fn the_outside_is_reached_unless_it_is_denied() {
    let Some(world) = world("netsetup: IPv6", &["--deny-network", "2001:db8:dead::/48"]) else {
        return;
    };
    let _responders =
        [80, 443].map(|port| Responder::start(&world.outside(), &[OUTSIDE, DENIED], port));
    for network in ["", "10.9.0.0/24"] {
        let one = world.container();
        let answer = world.try_up("one", &one, json!({"network": network})).unwrap();
        let address = answer["properties"]["garden.network.container-ipv6"].as_str().unwrap();
        let last = if network.is_empty() { "afe:2" } else { "a09:2" };
        assert_eq!(address, format!("fd00:9::{last}"));
        // At once: nothing is asked first, and nothing is lost.
        let seen_as = Some(HOST.to_owned());
        assert_eq!(tcp(&one.netns, OUTSIDE, 80), seen_as);
        assert_eq!(udp(&one.netns, OUTSIDE, 80), seen_as);
        assert!(ping(&one.netns, OUTSIDE));
        assert_eq!(tcp(&one.netns, DENIED, 443), None);
        assert_eq!(udp(&one.netns, DENIED, 443), None);
        assert!(!ping(&one.netns, DENIED));

        let range = json!({"start": "2001:db8:dead::1", "end": "2001:db8:dead::9"});
        let rule = json!({"protocol": 1, "networks": [range], "ports": [{"start": 443}]});
        world.act("net-out", "one", json!({"container_ip": "", "netout_rule": rule})).unwrap();
        assert_eq!(tcp(&one.netns, DENIED, 443), seen_as);
        assert_eq!(tcp(&one.netns, DENIED, 80), None);
        assert!(!ping(&one.netns, DENIED));
        let rule = json!({"protocol": 4, "icmps": {"type": 128, "code": 0}});
        world.act("net-out", "one", json!({"container_ip": "", "netout_rule": rule})).unwrap();
        assert!(ping(&one.netns, DENIED));
        assert_eq!(udp(&one.netns, DENIED, 443), None);

        assert_eq!(world.check(), NOTHING);
        world.on_host("nft flush ruleset");
        assert_eq!(world.reapply(), NOTHING);
        assert_eq!(tcp(&one.netns, DENIED, 443), seen_as);
        assert_eq!(tcp(&one.netns, DENIED, 80), None);
        let is_remembered = || {
            inside(&world.host(), || {
                let text = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack");
                text.unwrap_or_default().contains("src=fd00:0009:")
            })
        };
        if std::path::Path::new("/proc/self/net/nf_conntrack").exists() {
            assert!(is_remembered());
        }
        world.down("one");
        assert!(!is_remembered());
        assert_eq!(world.leftovers(), NOTHING);
        assert_eq!(world.check(), NOTHING);
    }
}

#[test]
fn the_host_is_closed_and_containers_see_each_other() {
    let Some(world) = world("netsetup: IPv6 on the host", &[]) else { return };
    let (one, two) = (world.container(), world.container());
    world.up("one", &one, Value::Null);
    world.up("two", &two, Value::Null);
    let (ours, theirs, gateway) = ("fd00:9::afe:2", "fd00:9::afe:6", "fd00:9::afe:1");
    let _responders = [
        Responder::start(&world.host(), &[HOST, gateway], 80),
        Responder::start(&one.netns, &[ours], 8080),
    ];
    for address in [gateway, HOST] {
        assert_eq!(tcp(&one.netns, address, 80), None, "{address}");
        assert_eq!(udp(&one.netns, address, 80), None, "{address}");
        assert!(!ping(&one.netns, address), "{address}");
    }
    assert_eq!(tcp(&world.host(), ours, 8080), Some(gateway.into()));
    assert_eq!(udp(&two.netns, ours, 8080), Some(theirs.into()));
    // Another's address goes nowhere.
    world
        .on_host(&format!("nsenter --net={} ip addr add {theirs}/128 dev lo", one.netns.display()));
    let _outside = Responder::start(&world.outside(), &[OUTSIDE], 80);
    assert_eq!(udp_from(&one.netns, ours, OUTSIDE, 80), Some(HOST.into()));
    assert_eq!(udp_from(&one.netns, theirs, OUTSIDE, 80), None);
    world.run(&["--allow-host-access", "--action", "setup"], &Value::Null).unwrap();
    assert_eq!(tcp(&one.netns, gateway, 80), Some(ours.into()));
    // No neighbour on a bridge may pose as a router.
    let accepts = || std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/accept_ra").unwrap();
    assert_eq!(inside(&one.netns, accepts), "0\n");
}

#[test]
fn what_is_missing_of_ipv6_is_told_and_mended() {
    let Some(world) = world("netsetup: IPv6 check", &[]) else { return };
    let one = world.container();
    let limits = json!({"rate": 1_000_000_000});
    world.up("one", &one, json!({"netout_rules": [{}], "bandwidth": limits}));
    let lease = world.run(&["show", "one", "--json"], &Value::Null).unwrap();
    let link = lease["host_interface"].as_str().unwrap();
    let chain = link.replace("w-", "out-");
    let limit = link.replace("w-", "up-");
    for (change, want) in [
        (
            format!("ip addr del fd00:9::afe:1/126 dev {link}"),
            format!("missing address fd00:9::afe:1/126 on {link} one"),
        ),
        (
            "nft delete element inet guardian net_out6 { fd00:9::afe:2 }".into(),
            format!("missing element net_out6: fd00:9::afe:2 : jump {chain} one"),
        ),
        (
            "nft delete element inet guardian upload6 { fd00:9::afe:2 }".into(),
            format!("missing element upload6: fd00:9::afe:2 : \"{limit}\" one"),
        ),
    ] {
        world.on_host(&change);
        assert_eq!(world.check(), [want], "{change}");
        assert_eq!(world.reapply(), NOTHING, "{change}");
    }
    inside(&world.host(), || {
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "0").unwrap();
    });
    let setting = "different setting net.ipv6.conf.all.forwarding is not 1 -";
    assert_eq!(world.check(), [setting]);
    assert_eq!(world.reapply(), NOTHING);
    eventually("the way out is back", || ping(&one.netns, OUTSIDE));
    world.down("one");
    assert_eq!(world.leftovers(), NOTHING);
}

#[test]
fn without_a_pool_nothing_of_it_is_there() {
    let Some(world) = World::new("netsetup: no IPv6", &[]) else { return };
    let one = world.container();
    let answer = world.try_up("one", &one, Value::Null).unwrap();
    assert_eq!(answer["properties"].get("garden.network.container-ipv6"), None);
    let rule = json!({"netout_rule": {"networks": [{"start": "fd00::1"}]}});
    let refused = kind_and_message("invalid", "'fd00::1' is not an IPv4 address");
    assert_eq!(world.act("net-out", "one", rule), refused);
    assert!(!world.on_host("ip -6 addr show scope global").contains("fd00"));
}
