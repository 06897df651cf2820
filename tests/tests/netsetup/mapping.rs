//! Host ports that lead into containers.

use serde_json::{Value, json};

use super::packet::{Responder, tcp, udp};
use super::world::{HOST, OUTSIDE, World};

#[test]
fn a_mapped_port_is_reached_from_everywhere() {
    let Some(world) = World::new("netsetup: net-in", &[]) else { return };
    let (one, two) = (world.container(), world.container());
    let address_of_one = world.up("one", &one, Value::Null);
    let address_of_two = world.up("two", &two, Value::Null);
    let responder = Responder::start(&one.netns, &["0.0.0.0"], 8080);
    assert_eq!(tcp(&world.outside(), HOST, 61001), None);
    let port = world.net_in("one", 0, 8080);
    assert_eq!(port, 61001);
    for ask in [tcp, udp] {
        assert_eq!(ask(&world.outside(), HOST, port), Some(OUTSIDE.into()));
        assert_eq!(ask(&world.host(), HOST, port), Some(HOST.into()));
        assert_eq!(ask(&two.netns, HOST, port), Some(address_of_two.clone()));
        // Its own address would never come back to it, so here the host's stands in.
        assert_eq!(ask(&one.netns, HOST, port), Some("10.254.0.1".into()));
        assert_eq!(ask(&world.outside(), HOST, port + 1), None);
    }
    let explicit = world.net_in("one", 80, 8080);
    assert_eq!((explicit, tcp(&world.outside(), HOST, 80)), (80, Some(OUTSIDE.into())));
    assert_eq!(tcp(&world.host(), &address_of_one, 8080), Some("10.254.0.1".into()));
    drop(responder);
    world.down("one");
    let _elsewhere = Responder::start(&two.netns, &["0.0.0.0"], 8080);
    assert_eq!(tcp(&world.outside(), HOST, port), None);
    assert_eq!(tcp(&world.outside(), HOST, 80), None);
    // The port is free for the next one, in the same breath.
    world.net_in("two", 80, 8080);
    assert_eq!(tcp(&world.outside(), HOST, 80), Some(OUTSIDE.into()));
}

#[test]
fn mappings_of_the_create_request_are_made_in_order_and_reported() {
    let Some(world) = World::new("netsetup: netin of up", &[]) else { return };
    let one = world.container();
    let _responder = Responder::start(&one.netns, &["0.0.0.0"], 61001);
    let netin =
        json!([{"host_port": 0, "container_port": 0}, {"host_port": 90, "container_port": 61001}]);
    let answer = world.try_up("one", &one, json!({"netin": netin})).unwrap();
    let reported = answer["properties"]["garden.network.mapped-ports"].as_str().unwrap();
    let first = r#"{"ContainerPort":61001,"HostPort":61001}"#;
    let second = r#"{"ContainerPort":61001,"HostPort":90}"#;
    let reported: Value = serde_json::from_str(reported).unwrap();
    assert_eq!(reported, serde_json::from_str::<Value>(&format!("[{first},{second}]")).unwrap());
    assert_eq!(tcp(&world.outside(), HOST, 61001), Some(OUTSIDE.into()));
    assert_eq!(tcp(&world.outside(), HOST, 90), Some(OUTSIDE.into()));
    assert_eq!(world.try_up("one", &one, json!({"netin": netin})).unwrap(), answer);
}

#[test]
fn a_port_rests_after_use_and_an_empty_pool_says_so() {
    let Some(world) = World::new("netsetup: port pool", &["--port-pool-size", "3"]) else { return };
    let (one, two) = (world.container(), world.container());
    world.up("one", &one, Value::Null);
    world.up("two", &two, Value::Null);
    assert_eq!(world.net_in("one", 0, 1), 61001);
    world.down("one");
    assert_eq!([0, 0, 0].map(|any| world.net_in("two", any, 1)), [61002, 61003, 61001]);
    let refused = world.act("net-in", "two", json!({"HostPort": 0, "ContainerPort": 1}));
    assert_eq!(refused, Err(("exhausted".into(), "port pool is exhausted".into())));
    // down may still be at work in the background: whoever needs the ports, gets them.
    world.act("down", "two", Value::Null).unwrap();
    let three = world.container();
    world.up("three", &three, json!({"netin": [{}, {}, {}]}));
    world.down("three");
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn a_host_port_has_one_owner() {
    let Some(world) = World::new("netsetup: port conflict", &[]) else { return };
    let (one, two) = (world.container(), world.container());
    world.up("one", &one, Value::Null);
    let _responder = Responder::start(&one.netns, &["0.0.0.0"], 8080);
    world.net_in("one", 80, 8080);
    world.net_in("one", 61001, 8080);
    assert_eq!(world.net_in("one", 80, 8080), 80, "the same again is no conflict");
    for port in [80, 61001] {
        let refused = ("exists".to_owned(), format!("host port {port} is already mapped"));
        let netin = json!([{"host_port": port, "container_port": 1}]);
        assert_eq!(world.try_up("two", &two, json!({"netin": netin})), Err(refused.clone()));
        let request = json!({"HostPort": port, "ContainerPort": 1});
        assert_eq!(world.act("net-in", "one", request), Err(refused));
        assert_eq!(tcp(&world.outside(), HOST, port), Some(OUTSIDE.into()));
    }
    assert_eq!(world.run(&["list", "--json"], &Value::Null).unwrap().as_array().unwrap().len(), 1);
    assert_eq!(world.net_in("one", 0, 1), 61002, "the pool passes over a port taken by number");
    world.act("down", "one", Value::Null).unwrap();
    world.up("two", &two, json!({"netin": [{"host_port": 80, "container_port": 1}]}));
    world.down("two");
    assert_eq!(world.leftovers(), Vec::<String>::new());
}
