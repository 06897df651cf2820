//! The verbs a person types, and namespaces somebody else has prepared.

use serde_json::{Value, json};

use super::packet::{Responder, ping, tcp};
use super::world::{DENIED, HOST, OUTSIDE, World, kind_and_message};

const NOTHING: [String; 0] = [];

#[test]
fn what_a_person_types_is_what_a_server_asks_for() {
    let flags = ["--deny-network", "198.51.100.0/24"];
    let Some(world) = World::new("netsetup: by hand", &flags) else { return };
    let one = world.container();
    let pid = one.pid.to_string();
    let wishes = ["--pid", &pid, "--map", "80:8080", "--map", "8080", "--network", "10.9.0.0/24"];
    let up = [&["up", "web-1"], &wishes[..], &["--allow", r#"{"protocol":1}"#]].concat();
    let _inside = Responder::start(&one.netns, &["0.0.0.0"], 8080);
    let _outside = Responder::start(&world.outside(), &[DENIED], 80);

    let rules = world.text(&[&up[..], &["--dry-run"]].concat());
    assert!(rules.contains("add element inet guardian net_in { 192.0.2.1 . tcp . 80 :"), "{rules}");
    assert!(rules.starts_with("add table inet guardian \n"), "all of it: nothing was set up");
    assert_eq!((world.leftovers(), world.on_host("nft list ruleset")), (vec![], String::new()));

    let shown = world.text(&up);
    assert!(shown.contains("80->8080, 61001->8080\n"), "{shown}");
    assert_eq!(shown, world.text(&["show", "web-1"]));
    assert_eq!(world.run(&[&up[..], &["--json"]].concat(), &Value::Null).unwrap()["stage"], "up");
    for port in [80, 61001] {
        assert_eq!(tcp(&world.outside(), HOST, port), Some(OUTSIDE.into()));
    }
    assert_eq!(tcp(&world.outside(), HOST, 61002), None);
    assert!(tcp(&one.netns, DENIED, 80).is_some() && !ping(&one.netns, DENIED));

    let rules = world.text(&["down", "web-1", "--dry-run"]);
    assert!(rules.contains("delete element inet guardian net_in"), "{rules}");
    let before = world.on_host("nft list ruleset");
    assert!(world.text(&["reapply", "--dry-run"]).contains("delete table inet guardian"));
    assert_eq!(world.on_host("nft list ruleset"), before);
    assert_eq!(world.check(), NOTHING);

    assert_eq!(world.text(&["down", "web-1"]), "web-1 is disconnected\n");
    assert_eq!(world.leftovers(), NOTHING, "by hand down does not return before it is done");
    let again = world.run(&["down", "web-1", "--json"], &Value::Null).unwrap();
    assert_eq!(again, json!({"handle": "web-1", "was_up": false}));
    let rules = world.text(&["up", "web-1", "--pid", &pid, "--dry-run"]);
    assert!(rules.starts_with("# nothing"), "{rules}");
}

#[test]
fn a_prepared_namespace_is_joined_and_stays() {
    let Some(world) = World::new("netsetup: prepared namespace", &[]) else { return };
    // The machine outside is prepared by this test, and has no eth0 yet.
    let path = world.outside();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let inode = || std::fs::metadata(&path).map(|meta| std::os::unix::fs::MetadataExt::ino(&meta));
    let before = inode().unwrap();
    for netns in [name.as_str(), path.to_str().unwrap()] {
        let lease = world.run(&["up", "db", "--netns", netns, "--json"], &Value::Null).unwrap();
        let address = lease["address"].as_str().unwrap();
        assert!(ping(&world.host(), address));
        let links = world.on_host(&format!("ip -n {name} -br link"));
        assert!(links.contains("eth0") && links.contains("host0"), "{links}");
        world.text(&["down", "db"]);
        assert!(!ping(&world.host(), address));
        let links = world.on_host(&format!("ip -n {name} -br link"));
        assert!(!links.contains("eth0") && links.contains("host0"), "{links}");
        assert_eq!(inode().unwrap(), before);
    }
    // The same, as a server would ask.
    world.act("up", "db", json!({"namespace": name})).unwrap();
    world.down("db");
    assert_eq!((inode().unwrap(), world.leftovers()), (before, vec![]));
}

#[test]
fn no_namespace_but_a_container_s_is_joined() {
    let Some(world) = World::new("netsetup: wrong namespaces", &[]) else { return };
    let host = world.host().display().to_string();
    let link = world.state_dir().join("link").display().to_string();
    std::os::unix::fs::symlink(&host, &link).unwrap();
    let fifo = world.state_dir().join("fifo").display().to_string();
    world.on_host(&format!("mkfifo {fifo}"));
    let host_s = |path: &str| format!("{path} is the host's network namespace");
    let no_namespace =
        |path: &str| format!("open the network namespace {path}: this is no network namespace");
    for (netns, kind, message) in [
        (host.as_str(), "invalid", host_s(&host)),
        (host.rsplit('/').next().unwrap(), "invalid", host_s(&host)),
        (&link, "invalid", host_s(&link)),
        ("/proc/self/ns/net", "invalid", host_s("/proc/self/ns/net")),
        ("nobody-s", "not_found", "there is no network namespace /run/netns/nobody-s".into()),
        ("/etc/passwd", "failed", no_namespace("/etc/passwd")),
        (&fifo, "failed", no_namespace(&fifo)),
        ("..", "failed", no_namespace("..")),
    ] {
        let refused = world.run(&["up", "db", "--netns", netns], &Value::Null);
        assert_eq!(refused, kind_and_message(kind, &message));
    }
    // Where we may not even look at pid 1, that is the reason given.
    assert!(world.run(&["up", "db", "--netns", "/proc/1/ns/net"], &Value::Null).is_err());
    let other_kind = world.run(&["up", "db", "--netns", "/proc/self/ns/mnt"], &Value::Null);
    let (_, message) = other_kind.unwrap_err();
    assert!(message.starts_with(&no_namespace("/proc/self/ns/mnt")), "{message}");
    assert_eq!(world.leftovers(), NOTHING);
}
