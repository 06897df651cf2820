//! The page that Prometheus scrapes: what was counted, and what can be counted now.

use std::sync::Arc;

use super::orphan::Orphans;
use super::text::Page;
use super::{
    CREATE_STEPS, CREATING, EVENTS_LOST, OOM_KILLS, OPERATIONS, REQUESTS, REQUESTS_IN_FLIGHT, TOOLS,
};
use crate::cgroup::census;
use crate::container::Phase;
use crate::debug;
use crate::guardian::Guardian;
use crate::host;

/// Phases under the names that they have on the page.
const PHASES: [(Phase, &str); 4] = [
    (Phase::Creating, "creating"),
    (Phase::Live, "live"),
    (Phase::Destroying, "destroying"),
    (Phase::Broken, "broken"),
];

/// Returns the page.
pub(crate) async fn page(guardian: &Arc<Guardian>) -> String {
    let mut page = Page::default();
    let told = (env!("CARGO_PKG_VERSION"), guardian.settings.runtime.program.display().to_string());
    page.begin("guardian_info", "gauge", "Which server this is; always 1.");
    page.value("guardian_info", &[("version", told.0), ("runtime", &told.1)], 1);
    containers(&mut page, guardian);
    work(&mut page);
    // Directories are read on a thread that may block.
    let looking = Arc::clone(guardian);
    let look = tokio::task::spawn_blocking(move || (looking.orphans(), census::dying()));
    if let Ok((orphans, dying)) = look.await {
        leftovers(&mut page, orphans, dying);
    }
    process(&mut page);
    page.finish()
}

fn containers(page: &mut Page, guardian: &Guardian) {
    let all = guardian.all();
    let name = "guardian_containers";
    page.begin(name, "gauge", "Containers by phase; a broken one could not be destroyed yet.");
    for (phase, label) in PHASES {
        let count = all.iter().filter(|container| container.phase() == phase).count();
        page.value(name, &[("phase", label)], count);
    }
    let processes: usize = all.iter().map(|container| container.processes().len()).sum();
    page.single("guardian_processes", "gauge", "Processes that run, without init.", processes);
    let unkillable = all.iter().filter(|container| container.is_unkillable()).count();
    let help = "Containers with a process that does not die.";
    page.single("guardian_unkillable_containers", "gauge", help, unkillable);
    let help = "Containers that there may be; 0 is no limit.";
    let max = guardian.settings.flags.limits.max_containers;
    page.single("guardian_max_containers", "gauge", help, max);
}

fn work(page: &mut Page) {
    let help = "Creates begun and not ended.";
    page.single("guardian_creates_in_flight", "gauge", help, CREATING.get());
    let help = "Requests begun and not ended, streams of processes without.";
    page.single("guardian_requests_in_flight", "gauge", help, REQUESTS_IN_FLIGHT.get());
    let name = ("guardian_operation_seconds", "Creates, destroys and starts of processes.");
    page.histograms(name, &["operation", "result"], &OPERATIONS);
    let name = ("guardian_create_step_seconds", "Steps of creates that were done.");
    page.histograms(name, &["step"], &CREATE_STEPS);
    let name = ("guardian_tool_seconds", "Programs called, from exec to exit.");
    page.histograms(name, &["tool", "verb", "result"], &TOOLS);
    let name = ("guardian_request_seconds", "Requests answered.");
    page.histograms(name, &["route", "status"], &REQUESTS);
    let help = "Processes of containers that the kernel killed for want of memory.";
    page.single("guardian_oom_kills_total", "counter", help, OOM_KILLS.get());
    let help = "Events that listeners were too slow for.";
    page.single("guardian_events_lost_total", "counter", help, EVENTS_LOST.get());
}

fn leftovers(page: &mut Page, orphans: Orphans, dying: Option<u64>) {
    let name = "guardian_leaked";
    page.begin(name, "gauge", "Things that belong to no container.");
    for (kind, count) in [
        ("mounts", orphans.mounts),
        ("cgroups", orphans.cgroups),
        ("depot_dirs", orphans.depot_dirs),
    ] {
        page.value(name, &[("kind", kind)], count);
    }
    if let Some(dying) = dying {
        let help = "Control groups of this host that were removed and are still in the kernel.";
        page.single("guardian_dying_cgroups", "gauge", help, dying);
    }
}

/// The server itself, under the names that all programs have there.
fn process(page: &mut Page) {
    let (resident, _) = debug::memory();
    let help = "Resident memory.";
    page.single("process_resident_memory_bytes", "gauge", help, resident);
    let (open, most) = host::descriptors();
    page.single("process_open_fds", "gauge", "Open descriptors.", open);
    page.single("process_max_fds", "gauge", "Descriptors that may be open.", most);
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    page.single("guardian_tasks", "gauge", "Tasks of the server, most of them waiting.", tasks);
}
