//! How much passes: what is told of it, and what is held back.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use guardian_tests::skip;
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

/// Sends bytes over one connection and returns how long it took until the last was received.
pub(super) fn transfer(from: &Path, to: &Path, address: &str, bytes: usize) -> Duration {
    let listener = inside(to, || TcpListener::bind(("0.0.0.0", 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let receiver = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut count = 0;
        let mut buffer = vec![0; 1 << 16];
        let mut stream = stream.take(u64::try_from(bytes).unwrap());
        while count < bytes {
            count += stream.read(&mut buffer).unwrap();
        }
    });
    let start = Instant::now();
    let mut stream = inside(from, || TcpStream::connect((address, port)).unwrap());
    stream.write_all(&vec![0; bytes]).unwrap();
    receiver.join().unwrap();
    start.elapsed()
}

#[test]
fn bandwidth_is_limited_in_both_directions_and_for_nobody_else() {
    const RATE: u64 = 1_000_000;
    const BYTES: usize = 1_500_000;
    let Some(world) = World::new("netsetup: bandwidth", &[]) else { return };
    for network in ["", "10.9.0.0/24"] {
        let (one, two) = (world.container(), world.container());
        let limits = json!({"rate": RATE, "burst": 100_000});
        let answer = world.try_up("one", &one, json!({"network": network, "bandwidth": limits}));
        let answer = &answer.unwrap()["properties"];
        let enforced: Value =
            serde_json::from_str(answer["garden.network.bandwidth"].as_str().unwrap()).unwrap();
        assert_eq!(enforced, limits);
        let address = answer["garden.network.container-ip"].as_str().unwrap();
        let free = world.up("two", &two, json!({"network": network}));
        assert_eq!(world.check(), Vec::<String>::new());

        // What passes at once does not count; heads of packets do, so it may only be slower.
        let least = Duration::from_secs_f64((1_500_000.0 - 200_000.0) / 1_000_000.0);
        let sent = transfer(&one.netns, &world.outside(), OUTSIDE, BYTES);
        let received = transfer(&world.host(), &one.netns, address, BYTES);
        for (direction, took) in [("sent", sent), ("received", received)] {
            assert!(took > least && took < least * 6, "{direction}: {took:?}");
        }
        let sent = transfer(&two.netns, &world.outside(), OUTSIDE, BYTES);
        let received = transfer(&world.host(), &two.netns, &free, BYTES);
        for (direction, took) in [("sent", sent), ("received", received)] {
            assert!(took < least / 2, "{direction}: {took:?} by a container without a limit");
        }

        // Somebody takes the limit away.
        let untie = format!("nsenter --net={} tc qdisc del dev eth0 root", one.netns.display());
        let lease = world.run(&["show", "one", "--json"], &Value::Null).unwrap();
        let link = lease["host_interface"].as_str().unwrap();
        if skip::can_run("netsetup: a bandwidth limit taken away", &["tc"]) {
            world.on_host(&format!("tc qdisc del dev {link} root"));
            world.on_host(&format!("nft delete element inet guardian upload {{ {address} }}"));
            assert_eq!(world.check().len(), 2);
            assert_eq!(world.reapply(), Vec::<String>::new());
            // From inside there is little to be gained by it: a second's bytes, once.
            world.on_host(&untie);
            let took = transfer(&one.netns, &world.outside(), OUTSIDE, 2 * BYTES);
            assert!(took > least, "{took:?}");
        }
        assert!(transfer(&world.host(), &one.netns, address, BYTES) > least);
        world.down("one");
        world.down("two");
        assert!(!world.on_host("nft list ruleset").contains("limit up-"));
        assert_eq!(world.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn a_limit_by_hand_is_shown() {
    let Some(world) = World::new("netsetup: bandwidth by hand", &[]) else { return };
    let one = world.container().pid.to_string();
    let up = ["up", "one", "--pid", &one, "--rate", "5000000000", "--burst", "1"];
    let shown = world.text(&up);
    assert!(shown.contains("5000000000 bytes/s, burst 65536 bytes\n"), "{shown}");
    assert_eq!(world.check(), Vec::<String>::new());
    world.down("one");
    world.text(&["up", "one", "--pid", &one, "--burst", "99999"]);
    assert!(world.text(&["show", "one"]).contains("unlimited"));
    world.down("one");
    assert_eq!(world.leftovers(), Vec::<String>::new());
}
