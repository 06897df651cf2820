//! What it costs: ids in no time, and a large image no more than a small one.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use guardian_tests::host;

use super::{Bench, is_root};

const SMALL: u32 = 10;
const LARGE: u32 = 50_000;

fn image(bench: &Bench, name: &str, files: u32) {
    for at in 0..files {
        let directory = bench.path(name).join((at / 500).to_string());
        if at % 500 == 0 {
            fs::create_dir_all(&directory).unwrap();
        }
        fs::write(directory.join(at.to_string()), "").unwrap();
    }
    for directory in ["rw", "rw/upper", "rw/work", "merged"] {
        fs::create_dir_all(bench.path(&format!("{name}-{directory}"))).unwrap();
    }
}

/// The shortest of several runs: what it costs when nobody disturbs.
fn shortest(count: usize, mut run: impl FnMut() -> Duration) -> Duration {
    (0..count).map(|_| run()).min().unwrap()
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn life(bench: &Bench, name: &str) -> Duration {
    let prepare = format!(
        "rootfs prepare c --lower {name} --upper {name}-rw/upper --work {name}-rw/work --target {name}-merged"
    );
    let source = format!("mount prepare c --src {name} --dst /data");
    let time = timed(|| {
        bench.ok("register c --policy exclusive");
        bench.ok(&prepare);
        bench.ok(&source);
    });
    bench.ok("remove c");
    time
}

#[test]
fn fifty_thousand_files_cost_what_ten_do() {
    if !is_root("the cost of a large image") {
        return;
    }
    let bench = Bench::new(2);
    image(&bench, "small", SMALL);
    image(&bench, "large", LARGE);
    rustix::fs::sync();
    // By turns, so that whatever else this host does disturbs both.
    let mut small = Duration::MAX;
    let large = shortest(15, || {
        small = small.min(life(&bench, "small"));
        life(&bench, "large")
    });
    let maps = "--uid-map 0:3000000000:65536 --gid-map 0:3000000000:65536";
    let chown = timed(|| drop(bench.ok(&format!("shift large {maps}"))));
    eprintln!("register and prepare: {SMALL} files {small:?}, {LARGE} files {large:?}");
    eprintln!("change of owners: {LARGE} files {chown:?}");
    // On a busy host even the shortest of all runs differ; looking at each file would show more.
    assert!(large < small + chown / 10, "{small:?} {large:?} {chown:?}");
}

#[test]
fn ids_are_given_in_two_milliseconds() {
    let bench = Bench::new(100);
    let true_ = Path::new("/bin/true");
    let floor = shortest(50, || {
        timed(|| assert!(std::process::Command::new(true_).status().unwrap().success()))
    });
    let mut next = 0;
    let given = shortest(50, || {
        next += 1;
        let id = format!("c{next}");
        let mut command = bench.command(&["allocate", &id, "--policy", "exclusive"]);
        timed(|| drop(command.output().unwrap()))
    });
    let verified = shortest(30, || {
        next += 1;
        let id = format!("c{next}");
        let mut command = bench.command(&["allocate", &id, "--policy", "exclusive", "--verify"]);
        timed(|| drop(command.output().unwrap()))
    });
    eprintln!("allocate {given:?}, with --verify {verified:?}; /bin/true {floor:?}");
    // Without optimisation most of the time goes into reading the arguments.
    let most = if host::bin_dir().ends_with("release") { 2 } else { 20 };
    assert!(given < floor + Duration::from_millis(most), "{given:?} {floor:?}");
}
