//! A store that is whole, one that is not, and one whose users were killed at any moment.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use guardian_tests::patience::patience;
use serde_json::Value;

use crate::bench::{Bench, MAPS};
use crate::layout::Layout;

pub(crate) fn fsck(bench: &Bench) -> (i32, Value) {
    let output = bench.rootfs(&["fsck", "--json"]);
    let report = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code().unwrap(), report)
}

#[test]
fn damage_is_told_by_name() {
    let Some(bench) = Bench::new("damage_is_told_by_name") else { return };
    bench.done(&["init-store"]);
    assert_eq!(bench.done(&["fsck"]), "0 images, 0 layers");
    bench.create(&[], &bench.tar(), "one");
    assert_eq!(bench.done(&["fsck"]), "1 images, 1 layers");
    let layer = bench.path("store/layers").join(&bench.stored("layers")[0]);
    fs::remove_file(layer.join("usr/sub/f")).unwrap();
    let (code, report) = fsck(&bench);
    let text = report["damaged"].to_string();
    assert!(code == 3 && text.contains("when it was unpacked"), "{code} {report}");
    fs::rename(&layer, bench.path("elsewhere")).unwrap();
    let (code, report) = fsck(&bench);
    let text = report["damaged"].to_string();
    assert!(code == 3 && text.contains("image one") && text.contains("is missing"), "{report}");
    let output = bench.rootfs(&["fsck"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("\ndamaged: image one: layer "), "{said}");
}

/// A random number that the same seed gives again (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Kills `rootfs` at 200 random moments of everything that changes a store; two at a time, because
/// nobody has a store for himself.
#[test]
fn two_hundred_deaths_leave_a_store_that_is_whole() {
    let Some(bench) = Bench::new("two_hundred_deaths_leave_a_store_that_is_whole") else { return };
    for n in 0..200 {
        fs::write(bench.tree().join(format!("usr/{n}")), n.to_string()).unwrap();
    }
    let images: Vec<String> = (0..3)
        .map(|n| {
            let mut layout = Layout::new(&bench, &format!("layout{n}"));
            layout.push(&bench.tree());
            let own = bench.path(format!("own{n}"));
            fs::create_dir(&own).unwrap();
            for file in 0..20 {
                fs::write(own.join(file.to_string()), n.to_string()).unwrap();
            }
            layout.push(&own);
            layout.finish()
        })
        .collect();
    // Most deaths should be in the middle of something.
    let start = Instant::now();
    bench.done(&["create", &images[0], "c0"]);
    let longest = u64::try_from(start.elapsed().as_micros()).unwrap().min(150_000);
    let seed = u64::from(std::process::id()) * 2_654_435_761 + 1;
    let mut dice = Dice(seed);
    let limit = ["--disk-limit-size-bytes", "10000000", "--exclude-image-from-quota"];
    for round in 0..100 {
        let children: Vec<_> = (0..2)
            .map(|_| {
                let image = &images[usize::try_from(dice.below(3)).unwrap()];
                let id = format!("c{}", dice.below(3));
                let mut command: Command = bench.command();
                match dice.below(8) {
                    0 => command.args(["pull", image]),
                    1 => command.arg("create").args(limit).args([image, &id]),
                    2 | 3 => command.args(MAPS).args(["create", image, &id]),
                    4 | 5 => command.args(["delete", &id]),
                    6 => command.arg("clean"),
                    _ => command.arg("prune"),
                };
                command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        for mut child in children {
            // Only who unpacks takes long.
            let most = if dice.below(4) == 0 { longest } else { 12_000 };
            std::thread::sleep(Duration::from_micros(dice.below(most)));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        if round % 10 == 9 {
            let (_, report) = fsck(&bench);
            assert_eq!(report["damaged"].as_array().unwrap().len(), 0, "seed {seed}: {report}");
        }
    }
    bench.done(&["prune"]);
    let (code, report) = fsck(&bench);
    assert_eq!(code, 0, "seed {seed}: {report}");
    for id in ["c0", "c1", "c2"] {
        bench.done(&["delete", id]);
    }
    bench.done(&["prune"]);
    assert_eq!(bench.done(&["fsck"]), "0 images, 0 layers");
    assert_eq!(bench.mounts(), 0);
    let store = bench.path("store").display().to_string();
    let deadline = Instant::now() + patience(Duration::from_secs(5));
    loop {
        let loops = guardian_tests::host::run(&["losetup", "-a"]).unwrap();
        if !loops.contains(&store) {
            break;
        }
        assert!(Instant::now() < deadline, "{loops}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
