//! What the kernel remembers of connections goes with the container.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::{Value, json};

use super::packet::{Responder, tcp, udp};
use super::world::{HOST, OUTSIDE, World, inside};

/// Returns the connections the host remembers that have to do with this address.
fn remembered(world: &World, word: &str) -> Vec<String> {
    let text = inside(&world.host(), || {
        std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap()
    });
    text.lines().filter(|line| line.contains(&format!("={word} "))).map(str::to_owned).collect()
}

#[test]
fn a_container_s_connections_go_with_it_and_no_others() {
    let Some(world) = World::new("netsetup: conntrack", &[]) else { return };
    if !std::path::Path::new("/proc/self/net/nf_conntrack").exists() {
        guardian_tests::skip::note("netsetup: conntrack", "no /proc/net/nf_conntrack");
        return;
    }
    let _outside = Responder::start(&world.outside(), &[OUTSIDE], 80);
    let (one, two) = (world.container(), world.container());
    let netin = json!({"netin": [{}, {}]});
    let addresses = [world.up("one", &one, netin.clone()), world.up("two", &two, netin)];
    let responders = [
        Responder::start(&one.netns, &["0.0.0.0"], 61001),
        Responder::start(&two.netns, &["0.0.0.0"], 61003),
    ];
    for (container, address, port) in [(&one, &addresses[0], 61001), (&two, &addresses[1], 61003)] {
        for ask in [tcp, udp] {
            assert!(ask(&container.netns, OUTSIDE, 80).is_some());
            assert!(ask(&world.outside(), HOST, port).is_some());
        }
        assert!(tcp(&world.host(), address, port).is_some());
        assert!(remembered(&world, address).len() >= 5);
    }
    let before = remembered(&world, &addresses[1]).len();
    world.down("one");
    assert_eq!(remembered(&world, &addresses[0]), Vec::<String>::new());
    assert_eq!(remembered(&world, &addresses[1]).len(), before);
    drop(responders);
}

#[test]
fn a_sender_that_never_pauses_reaches_the_next_container_on_the_port() {
    let Some(world) = World::new("netsetup: stale datagrams", &[]) else { return };
    let sender = inside(&world.outside(), || UdpSocket::bind(("0.0.0.0", 40000)).unwrap());
    sender.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let ask = || {
        // An answer to an earlier question may still be in the queue, an ICMP refusal too.
        sender.send_to(b"who?", (HOST, 53)).unwrap();
        sender.recv_from(&mut [0; 64]).is_ok()
    };
    // Before the port leads anywhere the host learns the conversation as its own.
    assert!(!ask());
    for (round, handle) in ["one", "two", "three"].into_iter().enumerate() {
        let container = world.container();
        let netin = json!([{"host_port": 53, "container_port": 5353}]);
        let _responder = Responder::start(&container.netns, &["0.0.0.0"], 5353);
        match round {
            0 => {
                world.up(handle, &container, Value::Null);
                assert!(!ask());
                world.net_in(handle, 53, 5353);
            }
            // By a different address, so that an old translation would lead into nothing.
            1 => drop(world.up(
                handle,
                &container,
                json!({"netin": netin, "network": "10.9.0.7/24"}),
            )),
            _ => drop(world.up(handle, &container, json!({"netin": netin}))),
        }
        assert!(ask(), "{handle}");
        world.down(handle);
        assert!(!ask(), "{handle} has gone");
    }
}
