//! Every verb that changes something, killed at any moment: afterwards `recover` leaves no mount, no
//! half-shifted tree and no claim, and `remove` leaves no id and no volume.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::tree::{self, Fact};
use super::{Bench, is_root};

/// A container's whole life. `C` is its name, `P` its process.
const LIFE: [&str; 18] = [
    "register C --policy exclusive --rootfs image --pid P",
    "update C --netns /proc/P/ns/net",
    "mount prepare C --src shared --dst /a",
    "mount prepare C --src owned --dst /b --strategy chown --exclusive",
    "mount prepare C --src shared --dst /c --recursive",
    "volume create C --kind docker",
    "volume create C --kind custom --dst /srv/x",
    "rootfs prepare C --lower lower --upper rw/upper --work rw/work --target merged --way metacopy",
    "pause C",
    "resume C",
    "volume sync C",
    "mount release C --dst /a",
    "rootfs release C",
    "rootfs prepare C --lower lower --upper rw2/upper --work rw2/work --target merged --way lower",
    "mount release C --dst /b",
    "unregister C",
    "register C --policy exclusive --pid P",
    "remove C",
];

/// Trees that have to be what they were.
const TREES: [&str; 5] = ["shared", "owned", "lower", "rw/upper", "rw2/upper"];

struct World {
    bench: Bench,
    before: Vec<BTreeMap<PathBuf, Fact>>,
}

impl World {
    fn new() -> Self {
        let bench = Bench::new(50);
        for directory in ["rw", "rw2", "rw/work", "rw2/work", "merged", "image"] {
            fs::create_dir(bench.path(directory)).unwrap();
        }
        for tree in TREES {
            tree::make(&bench.path(tree), &tree::special(10));
        }
        fs::create_dir_all(bench.path("image/var/lib")).unwrap();
        tree::make(&bench.path("image/var/lib/docker"), &tree::special(5));
        let before = TREES.iter().map(|tree| tree::facts(&bench.path(tree))).collect();
        Self { bench, before }
    }

    fn start(&self, line: &str, process: &Child) -> Child {
        let pid = process.id().to_string();
        let words = line.split(' ').map(|word| match word {
            "C" => "c".to_owned(),
            "P" => pid.clone(),
            other => other.replace("/P/", &format!("/{pid}/")),
        });
        let words: Vec<String> = words.collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = self.bench.command(&words);
        command.current_dir(self.bench.0.path());
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn finish(&self, line: &str, process: &Child) -> Duration {
        let begun = Instant::now();
        let output = self.start(line, process).wait_with_output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stdout));
        begun.elapsed()
    }

    /// The upper layers keep what was copied into them; all else is as before.
    fn check(&self, round: &str) {
        for (tree, before) in TREES.iter().zip(&self.before) {
            let now = tree::facts(&self.bench.path(tree));
            for (path, fact) in before {
                let place = format!("{round}: {tree}/{}", path.display());
                match tree.starts_with("rw") {
                    true => assert_eq!(now[path].of_layer(), fact.of_layer(), "{place}"),
                    false => assert_eq!(now.get(path), Some(fact), "{place}"),
                }
            }
            let others = now.iter().filter(|(path, _)| !before.contains_key(*path));
            for (path, fact) in others {
                let is_moved = (100_000..100_000 + 50 * 65_536).contains(&fact.uid);
                assert!(!is_moved, "{round}: {tree}/{} {fact:?}", path.display());
            }
        }
        assert_eq!(self.bench.mounts(), Vec::<PathBuf>::new(), "{round}");
        assert_eq!(self.left("state/sources"), Vec::<String>::new(), "{round}");
    }

    fn left(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.bench.path(directory)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

fn process() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

fn end(mut process: Child) {
    process.kill().unwrap();
    process.wait().unwrap();
}

/// A number that looks random and is the same in every run.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn killed_at_any_moment_nothing_stays_half_done() {
    if !is_root("idmgr killed at any moment") {
        return;
    }
    let world = World::new();
    let living = process();
    let times: Vec<Duration> = LIFE.iter().map(|line| world.finish(line, &living)).collect();
    end(living);
    world.check("whole life");
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for round in 0..200 {
        let step = round % LIFE.len();
        let living = process();
        for line in &LIFE[..step] {
            world.finish(line, &living);
        }
        let most = u64::try_from(times[step].as_micros()).unwrap();
        let after = Duration::from_micros(random(&mut state) % (most + 1));
        let mut victim = world.start(LIFE[step], &living);
        std::thread::sleep(after);
        end_now(&mut victim);
        end(living);
        // A recovery that is killed, too.
        let nobody = process();
        let mut recovery = world.start("recover", &nobody);
        std::thread::sleep(Duration::from_micros(random(&mut state) % 30_000));
        end_now(&mut recovery);
        end(nobody);
        let round = format!("round {round}: '{}' killed after {after:?}", LIFE[step]);
        let report = world.bench.ok("recover");
        assert_eq!(report["complete"], true, "{round}: {report}");
        world.check(&round);
        world.bench.ok("remove c");
        let list = world.bench.ok("list");
        assert_eq!(list["holders"], json!({}), "{round}");
        assert_eq!(list["containers"], json!({}), "{round}");
        assert_eq!(world.left("state/volumes"), Vec::<String>::new(), "{round}");
        assert_eq!(world.left("state/containers"), Vec::<String>::new(), "{round}");
    }
}

#[test]
fn a_shift_cut_off_is_done_again_or_undone() {
    if !is_root("a shift cut off") {
        return;
    }
    let bench = Bench::new(1);
    let top = bench.path("tree");
    tree::make(&top, &tree::special(300));
    let before = tree::facts(&top);
    let shift = "shift tree --uid-map 0:3000000000:65536 --gid-map 0:3000000000:65536";
    let begun = Instant::now();
    bench.ok(shift);
    let most = u64::try_from(begun.elapsed().as_micros()).unwrap();
    let shifted = tree::facts(&top);
    bench.ok(&format!("{shift} --back"));
    let mut state = 88_172_645_463_325_252;
    for round in 0..60 {
        let words: Vec<&str> = shift.split(' ').collect();
        let mut command = bench.command(&words);
        let mut victim = command.current_dir(bench.0.path()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random(&mut state) % most));
        end_now(&mut victim);
        // It may have been finished after all, or never begun.
        if tree::facts(&top) == shifted {
            bench.ok(&format!("{shift} --back"));
        } else if round % 2 == 0 {
            bench.ok(shift);
            assert!(tree::facts(&top) == shifted, "round {round}");
            bench.ok(&format!("{shift} --back"));
        } else {
            assert_eq!(bench.ok("recover")["complete"], true);
        }
        assert!(tree::facts(&top) == before, "round {round}");
        bench.ok("recover");
    }
}

fn end_now(victim: &mut Child) {
    let _ = victim.kill();
    let _ = victim.wait();
}

#[test]
fn a_range_killed_half_given_is_given_once() {
    let bench = Bench::new(1);
    let begun = Instant::now();
    bench.ranges("bob:100000:65536\n# of bob\n");
    fs::write(bench.path("gid"), "bob:100000:65536\n").unwrap();
    let line = |bench: &Bench| {
        let gid = bench.path("gid").display().to_string();
        let words = ["init", "--size", "131072", "--login-defs", "/dev/null", "--subgid", &gid];
        bench.command(&words)
    };
    line(&bench).output().unwrap();
    let most = u64::try_from(begun.elapsed().as_micros()).unwrap();
    let mut state = 362_436_069;
    for round in 0..60 {
        bench.ranges("bob:100000:65536\n# of bob\n");
        fs::write(bench.path("gid"), "bob:100000:65536\n").unwrap();
        let mut victim = line(&bench).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random(&mut state) % most));
        end_now(&mut victim);
        assert!(line(&bench).output().unwrap().status.success(), "round {round}");
        let uid = fs::read_to_string(bench.path("subid")).unwrap();
        let gid = fs::read_to_string(bench.path("gid")).unwrap();
        assert_eq!(uid, "bob:100000:65536\n# of bob\nroot:165536:131072\n");
        assert_eq!(gid, "bob:100000:65536\nroot:165536:131072\n");
    }
}
