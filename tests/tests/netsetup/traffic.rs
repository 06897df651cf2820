//! How much passes: what is told of it, and what is held back.

use std::net::UdpSocket;
use std::path::Path;

use serde_json::{Value, json};

use super::packet::ping;
use super::world::{OUTSIDE, World, inside, kind_and_message};

/// Sends this many datagrams of 1000 bytes.
fn send(netns: &Path, to: &str, count: usize) {
    inside(netns, || {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        for _ in 0..count {
            socket.send_to(&[0; 1000], (to, 9)).unwrap();
        }
    });
}

#[test]
fn traffic_is_told_from_the_container_s_point_of_view() {
    let Some(world) = World::new("netsetup: metrics", &[]) else { return };
    for network in ["", "10.9.0.0/24"] {
        let (one, two) = (world.container(), world.container());
        let address = world.up("one", &one, json!({"network": network}));
        world.up("two", &two, json!({"network": network}));
        assert!(ping(&one.netns, OUTSIDE) && ping(&two.netns, OUTSIDE));
        let read = |handle: &str| {
            let answer = world.act("metrics", handle, Value::Null).unwrap();
            ["rx_bytes", "tx_bytes", "rx_packets", "tx_packets"]
                .map(|key| answer[key].as_u64().unwrap())
        };
        let (before, others) = (read("one"), read("two"));
        send(&one.netns, OUTSIDE, 100);
        send(&world.host(), &address, 50);
        let after = read("one");
        let grown = |place: usize| after[place] - before[place];
        // 1000 bytes and three heads; some address questions and ICMP answers come on top.
        assert!((100 * 1042..110 * 1042).contains(&grown(1)), "sent {}", grown(1));
        assert!((50 * 1042..80 * 1042).contains(&grown(0)), "received {}", grown(0));
        assert!((100..220).contains(&grown(3)) && (50..170).contains(&grown(2)));
        assert!(read("two")[1] - others[1] < 1000);
        let text = world.text(&["stats", "one"]);
        assert!(text.starts_with("received  ") && text.contains("sent      "), "{text}");
        world.down("one");
        world.down("two");
        let unknown = kind_and_message("not_found", "unknown handle: one");
        assert_eq!(world.act("metrics", "one", Value::Null), unknown);
    }
}
