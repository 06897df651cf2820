//! Asking about many containers at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use guardian_contract::garden::{
    BulkMetrics, CpuLimits, ImageRef, MemoryLimits, ProcessLimits, ProcessSpec,
};
use guardian_tests::api::{Process, call};
use guardian_tests::patience::patience;

use crate::stats::{scrape, value};
use crate::with_each_runtime;

/// Enough that one call for each would show.
const CONTAINERS: usize = 12;

const CALLS: &str =
    "guardian_tool_seconds_count{tool=\"rootfs\",verb=\"bulk-stats\",result=\"done\"}";

#[test]
fn many_containers_and_peas_are_measured_with_one_call_of_the_image_plugin() {
    with_each_runtime("bulk metrics", |daemon| {
        let mut names: Vec<String> =
            (0..CONTAINERS).map(|number| daemon.handle(&format!("b{number}"))).collect();
        for (number, handle) in names.iter().enumerate() {
            let mut words = vec!["create", "--handle", handle];
            // Those with a filesystem of their own are measured in another way.
            words.extend((number == 0).then_some(["--disk", "32M"]).into_iter().flatten());
            daemon.ctl(&words).unwrap();
        }
        let limits = ProcessLimits {
            memory: MemoryLimits { limit_in_bytes: 16 << 20 },
            cpu: CpuLimits::default(),
        };
        let mut peas = Vec::new();
        for (name, limits) in [("shared", None), ("own", Some(limits))] {
            let spec = ProcessSpec {
                id: daemon.handle(name),
                path: "sleep".into(),
                args: vec!["1000".into()],
                image: ImageRef { uri: daemon.image().into(), ..ImageRef::default() },
                limits,
                ..ProcessSpec::default()
            };
            peas.push(Process::run(daemon, &names[1], &spec).unwrap());
            names.push(spec.id);
        }
        let path = format!("/containers/bulk_metrics?handles={},nobody", names.join(","));
        let ask = || -> BTreeMap<String, BulkMetrics> {
            serde_json::from_slice(&call(daemon, "GET", &path, "").unwrap()).unwrap()
        };
        ask();
        let before = value(&scrape(daemon), CALLS).unwrap();
        let mut answer = ask();
        assert_eq!(value(&scrape(daemon), CALLS).unwrap(), before + 1.0);
        // The kernel counts what an idle process has with a delay of some seconds.
        let start = Instant::now();
        let is_counted = |all: &BTreeMap<String, BulkMetrics>| {
            let mut known = all.values().filter(|one| one.err.is_none());
            known.all(|one| one.metrics.memory_stat.total_usage_toward_limit > 0)
        };
        while !is_counted(&answer) && start.elapsed() < patience(Duration::from_secs(10)) {
            std::thread::sleep(Duration::from_millis(100));
            answer = ask();
        }
        let unknown = answer.remove("nobody").unwrap().err.unwrap();
        assert_eq!(unknown.message, "unknown handle: nobody");
        assert_eq!(answer.len(), CONTAINERS + 2);
        for (name, BulkMetrics { metrics, err }) in &answer {
            assert_eq!(err.as_ref().map(|error| error.message.as_str()), None, "{name}");
            assert!(metrics.memory_stat.total_usage_toward_limit > 0, "{name}: {metrics:?}");
            assert!(metrics.cpu_stat.usage > 0 && metrics.age > 0, "{name}: {metrics:?}");
            assert!(metrics.pid_stat.current >= 1, "{name}: {metrics:?}");
            let disk = &metrics.disk_stat;
            assert!(disk.total_bytes_used > disk.exclusive_bytes_used, "{name}: {metrics:?}");
        }
        // One alone says the same of itself.
        let one: guardian_contract::garden::Metrics = serde_json::from_slice(
            &call(daemon, "GET", &format!("/containers/{}/metrics", names[0]), "").unwrap(),
        )
        .unwrap();
        assert_eq!(one.disk_stat, answer[&names[0]].metrics.disk_stat);
        for pea in &mut peas {
            pea.signal(1).unwrap();
            assert_eq!(pea.wait().unwrap(), 137);
        }
        // What has ended uses nothing, and is not known any more.
        let gone = &ask()[&names[CONTAINERS]];
        assert!(gone.err.is_some(), "{gone:?}");
    });
}
