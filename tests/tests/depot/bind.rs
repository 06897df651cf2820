//! Bind mounts: the flags of their sources stay, whatever the container asks for.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::{Bench, Container, MAXIMUS, ok, runtimes};

/// What the source is mounted with, whether the bind may be written, and what it must be inside.
const TABLE: [(&str, u8, &str); 13] = [
    ("rw", 1, "rw,relatime"),
    ("rw", 0, "ro,relatime"),
    ("ro", 1, "ro,relatime"),
    ("nosuid", 1, "rw,nosuid,relatime"),
    ("nodev", 1, "rw,nodev,relatime"),
    ("noexec", 0, "ro,noexec,relatime"),
    ("nosuid,nodev,noexec", 1, "rw,nosuid,nodev,noexec,relatime"),
    ("ro,nosuid,nodev,noexec", 1, "ro,nosuid,nodev,noexec,relatime"),
    ("noatime", 1, "rw,noatime"),
    ("noatime,nodiratime,nosuid", 0, "ro,nosuid,noatime,nodiratime"),
    ("strictatime", 1, "rw"),
    ("strictatime,nodiratime,nodev", 0, "ro,nodev,nodiratime"),
    ("relatime,nodiratime", 1, "rw,nodiratime,relatime"),
];

/// Filesystems with the flags of [`TABLE`]; unmounted when it is dropped.
struct Sources(Vec<PathBuf>);

impl Sources {
    fn mount(bench: &Bench) -> Self {
        let mut sources = Self(Vec::new());
        for (number, (options, ..)) in TABLE.iter().enumerate() {
            let place = bench.path(&format!("source{number}"));
            fs::create_dir(&place).unwrap();
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&place);
            assert!(mount.status().unwrap().success(), "{options}");
            sources.0.push(place);
        }
        sources
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        for place in &self.0 {
            let _ = Command::new("umount").arg("--lazy").arg(place).status();
        }
    }
}

#[test]
fn a_bind_keeps_the_flags_that_its_source_has() {
    let Some(bench) = Bench::new("flags of bind mounts") else { return };
    let Some(root) = bench.rootfs("rootfs", MAXIMUS) else { return };
    let sources = Sources::mount(&bench);
    let binds = sources.0.iter().zip(TABLE).enumerate().map(|(number, (source, (_, mode, _)))| {
        json!({"src_path": source, "dst_path": format!("/bind{number}"), "mode": mode})
    });
    let spec = json!({"root": {"path": root}, "bind_mounts": binds.collect::<Vec<_>>()});
    for runtime in runtimes("flags of bind mounts") {
        let handle = format!("bind-{runtime}");
        ok(bench.create(&handle, &spec));
        let container = Container::run(runtime, &bench, &handle);
        let mounts = container.shell("cat /proc/self/mountinfo");
        for (number, (options, _, want)) in TABLE.iter().enumerate() {
            let point = format!("/bind{number}");
            let of = |line: &str| {
                let mut words = line.split(' ').skip(4);
                (words.next() == Some(&point)).then(|| words.next().unwrap_or("").to_owned())
            };
            let found = mounts.lines().find_map(of);
            assert_eq!(found.as_deref(), Some(*want), "{runtime}: a source with {options}");
        }
    }
}
