//! Limits of a bundle, read where the kernel holds them.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::{Bench, Container, MAXIMUS, ok, runtimes};

#[test]
fn limits_are_the_cgroup_s() {
    let Some(bench) = Bench::new("limits") else { return };
    let Some(root) = bench.rootfs("rootfs", MAXIMUS) else { return };
    let is_v1 = Path::new("/sys/fs/cgroup/memory").exists();
    let spec = json!({"root": {"path": root}, "limits": {
        "memory_limits": {"limit_in_bytes": 67_108_864}, "cpu_limits": {"weight": 123},
        "pid_limits": {"max": 20},
    }});
    for runtime in runtimes("limits") {
        for (handle, spec, want) in [
            ("limited", &spec, [["67108864", "123", "20"], ["67108864", "20", "20"]]),
            (
                "free",
                &json!({"root": {"path": root}}),
                [["9223372036854771712", "1024", "max"], ["max", "100", "max"]],
            ),
        ] {
            ok(bench.create(handle, spec));
            let _container = Container::run(runtime, &bench, handle);
            let read = |file: &str| {
                let (hierarchy, file) = file.split_once('/').unwrap();
                let hierarchy = if is_v1 { hierarchy } else { "." };
                let path =
                    format!("/sys/fs/cgroup/{hierarchy}/garden-{}/{handle}/{file}", bench.tag);
                fs::read_to_string(path).unwrap().trim().to_owned()
            };
            let (files, want) = match is_v1 {
                true => {
                    (["memory/memory.limit_in_bytes", "cpu/cpu.shares", "pids/pids.max"], want[0])
                }
                false => (["memory/memory.max", "cpu/cpu.weight", "pids/pids.max"], want[1]),
            };
            assert_eq!(files.map(read), want, "{runtime}: {handle}");
            ok(bench.depot(&["destroy", handle], ""));
        }
    }
}
