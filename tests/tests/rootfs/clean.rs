//! What is used, what is not, and how the latter goes.

use std::fs;
use std::time::{Duration, Instant};

use guardian_tests::patience::patience;

use serde_json::Value;

use crate::bench::{Bench, MAPS};
use crate::fsck::fsck;

/// A tar file of its own for each name, so that each is a layer.
fn tars<const N: usize>(bench: &Bench, names: [&str; N]) -> [String; N] {
    let tar = bench.tar();
    names.map(|name| {
        let path = bench.path(format!("{name}.tar"));
        fs::copy(&tar, &path).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

fn df(bench: &Bench) -> Value {
    serde_json::from_str(&bench.done(&["df", "--json"])).unwrap()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience(Duration::from_secs(10));
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn layers_go_with_their_last_image_and_not_before() {
    let Some(bench) = Bench::new("layers_go_with_their_last_image_and_not_before") else { return };
    let missing = format!("no store found at {}", bench.path("store").display());
    assert_eq!(bench.done(&["clean"]), missing);
    let [a, b] = tars(&bench, ["a", "b"]);
    bench.create(&[], &a, "one");
    bench.create(&MAPS, &a, "two");
    bench.create(&[], &b, "three");
    assert_eq!(bench.done(&["clean"]), "clean completed");
    assert_eq!(bench.stored("layers").len(), 2);
    bench.done(&["delete", "one"]);
    bench.done(&["clean"]);
    assert_eq!(bench.stored("layers").len(), 2);
    bench.done(&["delete", "two"]);
    assert_eq!(bench.done(&["clean", "--threshold-bytes", "0"]), "clean completed");
    // Its size and its recipe.
    assert_eq!((bench.stored("layers").len(), bench.stored("meta").len()), (1, 2));
    assert!(bench.stored("trash").is_empty());
    assert_eq!(fs::read_dir(bench.path("store/images/three/rootfs/usr")).unwrap().count(), 2);
    // What was collected can be made again.
    bench.create(&[], &a, "four");
    let said = bench.refused(&["clean", "--threshold-bytes", "-1"]);
    assert_eq!(said, "invalid argument: clean threshold cannot be negative");
}

#[test]
fn a_threshold_counts_layers_and_limits() {
    let Some(bench) = Bench::new("a_threshold_counts_layers_and_limits") else { return };
    bench.done(&["init-store"]);
    let bytes = |key: &str| df(&bench)[key].as_u64().unwrap();
    if bytes("available_bytes") < bytes("filesystem_bytes") / 5 {
        guardian_tests::skip::note("a threshold counts layers and limits", "the disk is full");
        return;
    }
    let [a, b] = tars(&bench, ["a", "b"]);
    bench.create(&[], &a, "one");
    bench.done(&["delete", "one"]);
    let taken = bytes("total_bytes");
    let (below, above) = (taken.to_string(), (taken + 1).to_string());
    let skipped = "threshold not reached: skipping clean";
    assert_eq!(bench.done(&["clean", "--threshold-bytes", &above]), skipped);
    assert_eq!(bench.stored("layers").len(), 1);
    assert_eq!(bench.done(&["clean", "--threshold-bytes", &below]), "clean completed");
    assert!(bench.stored("layers").is_empty());
    // A limit counts before anything is written.
    bench.create(&[], &a, "one");
    bench.done(&["delete", "one"]);
    let limit = ["--disk-limit-size-bytes", "50000000", "--exclude-image-from-quota"];
    bench.done(&[&["create"], &limit[..], &[&b, "two"]].concat());
    assert_eq!(df(&bench)["committed_bytes"], 50_000_000);
    let threshold = (2 * taken + 50_000_001).to_string();
    assert_eq!(bench.done(&["clean", "--threshold-bytes", &threshold]), skipped);
    let threshold = (2 * taken + 50_000_000).to_string();
    assert_eq!(bench.done(&["clean", "--threshold-bytes", &threshold]), "clean completed");
    assert_eq!(bench.stored("layers").len(), 1);
}

#[test]
fn create_cleans_behind_itself_in_the_background() {
    let Some(bench) = Bench::new("create_cleans_behind_itself_in_the_background") else { return };
    let [a, b, c] = tars(&bench, ["a", "b", "c"]);
    let config = bench.path("grootfs.yml");
    let log = bench.path("clean.log");
    let text = format!("create:\n  with_clean: true\n  clean_log_file: {}\n", log.display());
    fs::write(&config, text).unwrap();
    let config = ["--config", config.to_str().unwrap()];
    bench.create(&[], &a, "one");
    bench.done(&["delete", "one"]);
    bench.done(&[&config[..], &["create", "--without-clean", &b, "two"]].concat());
    assert_eq!(bench.stored("layers").len(), 2);
    bench.done(&[&config[..], &["create", &c, "three"]].concat());
    wait_until("the unused layer is still there", || bench.stored("layers").len() == 2);
    wait_until("the cleaning said nothing", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("layers-collected"))
    });
    bench.done(&["delete", "two"]);
    bench.done(&["create", "--with-clean", &c, "four"]);
    wait_until("the unused layer is still there", || bench.stored("layers").len() == 1);
    let both = ["create", "--with-clean", "--without-clean", &c, "x"];
    assert_eq!(bench.refused(&both), "with-clean and without-clean cannot be used together");
}

#[test]
fn a_configuration_file_gives_way_to_flags() {
    let Some(bench) = Bench::new("a_configuration_file_gives_way_to_flags") else { return };
    let config = bench.path("grootfs.yml");
    let other = bench.path("other");
    fs::write(
        &config,
        format!(
            "store: {}\nlog_level: info\nlog_file: {}\nunheard: of\n\
             create:\n  disk_limit_size_bytes: 1000\ninit:\n  store_size_bytes: 12345\n",
            other.display(),
            bench.path("log").display(),
        ),
    )
    .unwrap();
    let config = config.to_str().unwrap();
    assert_eq!(bench.done(&["--config", config, "capacity"]), r#"{"capacity":12345}"#);
    let log = fs::read_to_string(bench.path("log")).unwrap();
    assert!(log.contains(r#""keys":["unheard"]"#), "{log}");
    let said = bench.refused(&["--config", config, "create", &bench.tar(), "x"]);
    assert!(said.contains("exceeds quota"), "{said}");
    let flags = ["--config", config, "create", "--disk-limit-size-bytes", "0"];
    bench.done(&[&flags[..], &[&bench.tar(), "x"]].concat());
    assert_eq!(bench.stored("images"), ["x"]);
    assert!(!other.exists());
    let mut command = std::process::Command::new(crate::bench::program("rootfs"));
    let output = command.args(["--config", config, "init-store"]).output().unwrap();
    assert!(output.status.success() && other.join("images").is_dir(), "{output:?}");
    let said = bench.refused(&["--config", "/no/such.yml", "list"]);
    assert!(said.starts_with("invalid config path: "), "{said}");
}

#[test]
fn df_tells_what_the_bytes_are_for() {
    let Some(bench) = Bench::new("df_tells_what_the_bytes_are_for") else { return };
    let [a, b] = tars(&bench, ["a", "b"]);
    let (one, _) = bench.create(&[], &a, "one");
    bench.create(&MAPS, &a, "two");
    bench.create(&[], &b, "three");
    bench.done(&["delete", "three"]);
    fs::write(one.join("own"), vec![1; 1 << 20]).unwrap();
    // What a dead process left.
    fs::create_dir(bench.path("store/partial/dead")).unwrap();
    fs::write(bench.path("store/partial/dead/x"), vec![1; 2 << 20]).unwrap();
    let df = df(&bench);
    let number = |key: &str| df[key].as_u64().unwrap();
    let layer = df["layers"][0]["bytes"].as_u64().unwrap();
    assert!(layer > 1 << 20, "{df}");
    assert_eq!(number("shared_bytes"), layer);
    assert_eq!(number("exclusive_bytes"), 1 << 20);
    assert_eq!(number("reclaimable_bytes"), layer + (2 << 20));
    assert_eq!(number("total_bytes"), 2 * layer + (3 << 20));
    assert_eq!(df["images"][0]["id"], "one");
    assert_eq!(df["images"][0]["total_bytes"], layer + (1 << 20));
    let mut images: Vec<u64> = df["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["images"].as_u64().unwrap())
        .collect();
    images.sort_unstable();
    assert_eq!(images, [0, 2]);
    let table = bench.done(&["df"]);
    for word in ["reclaimable", "EXCLUSIVE", "one", "1.0 MiB"] {
        assert!(table.contains(word), "{table}");
    }
}

#[test]
fn prune_takes_what_the_dead_left() {
    let Some(bench) = Bench::new("prune_takes_what_the_dead_left") else { return };
    bench.done(&["init-store"]);
    assert_eq!(
        bench.done(&["prune"]),
        "Removed 0 unused layers (0 bytes) and 0 leftovers (0 bytes)"
    );
    let [a, b] = tars(&bench, ["a", "b"]);
    bench.create(&[], &a, "kept");
    bench.create(&[], &b, "gone");
    bench.done(&["delete", "gone"]);
    for left in ["images/half", "partial/half", "trash/half"] {
        fs::create_dir(bench.path("store").join(left)).unwrap();
    }
    fs::write(bench.path("store/meta/half.json"), r#"{"size":1}"#).unwrap();
    fs::create_dir_all(bench.path("store/blobs")).unwrap();
    fs::create_dir_all(bench.path("store/images/half/writes/upper")).unwrap();
    let mib = vec![1; 1 << 20];
    for file in ["images/half/writes/upper/f", "partial/half/f", "trash/half/f", "blobs/half"] {
        fs::write(bench.path("store").join(file), &mib).unwrap();
    }
    let (_, report) = fsck(&bench);
    assert_eq!(report["left"].as_array().map(Vec::len), Some(4), "{report}");
    let found = df(&bench);
    let bytes = |key: &str| found[key].as_u64().unwrap();
    assert!(bytes("reclaimable_bytes") >= 5 << 20, "{found}");
    assert_eq!(
        bytes("total_bytes"),
        bytes("shared_bytes") + bytes("exclusive_bytes") + bytes("reclaimable_bytes")
    );
    // Without a word on layers, as none are so many.
    bench.done(&["clean", "--threshold-bytes", "1000000000000"]);
    assert!(bench.stored("blobs").is_empty() && bench.stored("trash").is_empty());
    // One that has just been changed may still be its creator's, so that is waited for.
    fs::write(bench.path("store/images/half/layers.json"), "[]").unwrap();
    let pruned: Value = serde_json::from_str(&bench.done(&["prune", "--json"])).unwrap();
    assert_eq!((&pruned["layers"], &pruned["leftovers"]), (&1.into(), &2.into()), "{pruned}");
    assert_eq!(pruned["leftover_bytes"], 2 << 20, "{pruned}");
    assert_eq!(bench.stored("images"), ["kept"]);
    for (directory, count) in [("layers", 1), ("meta", 2), ("partial", 0), ("trash", 0)] {
        assert_eq!(bench.stored(directory).len(), count, "{directory}");
    }
    assert!(bench.path("store/images/kept/rootfs/bin").exists());
}

/// Creates and deletes run against collections; whoever is told that an image was made must find
/// all of it.
#[test]
fn no_create_loses_a_layer_to_a_collection() {
    let Some(bench) = Bench::new("no_create_loses_a_layer_to_a_collection") else { return };
    let tars = tars(&bench, ["a", "b", "c"]);
    let stop = Instant::now() + Duration::from_secs(6);
    let is_over = || Instant::now() >= stop;
    let (mut made, mut collected) = (0, 0);
    std::thread::scope(|scope| {
        let cleaner = scope.spawn(|| {
            let mut collected = 0;
            while !is_over() {
                let pruned = bench.done(&["prune", "--json"]);
                let pruned: Value = serde_json::from_str(&pruned).unwrap();
                collected += pruned["layers"].as_u64().unwrap();
            }
            collected
        });
        let creators = (0..3).map(|n| {
            let (bench, tars) = (&bench, &tars);
            scope.spawn(move || {
                let mut made = 0;
                while !is_over() {
                    let id = format!("c{n}");
                    let tar = &tars[(made + n) % tars.len()];
                    let output = bench.rootfs(&["create", tar, &id]);
                    assert!(output.status.success(), "{output:?}");
                    let root = bench.path(format!("store/images/{id}/rootfs"));
                    assert_eq!(fs::read_to_string(root.join("usr/sub/f")).unwrap(), "below");
                    fs::write(root.join("usr/sub/f"), "changed").unwrap();
                    bench.done(&["delete", &id]);
                    made += 1;
                }
                made
            })
        });
        made = creators.collect::<Vec<_>>().into_iter().map(|one| one.join().unwrap()).sum();
        collected = cleaner.join().unwrap();
    });
    assert!(made > 10 && collected > 3, "{made} made, {collected} collected");
    bench.done(&["prune"]);
    for directory in ["layers", "meta", "partial", "trash", "images"] {
        assert_eq!(bench.stored(directory), [""; 0], "{directory}");
    }
}
