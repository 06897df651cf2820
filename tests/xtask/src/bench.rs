//! `cargo xtask bench`: our latencies beside the bare runtime's, measured alternately in one run,
//! and what our programs take of the memory.

mod bulk;
mod files;
mod floor;
mod images;
mod memory;
mod network;
mod ours;
mod streams;
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;
use guardian_tests::daemon::{Daemon, Options};
use guardian_tests::hierarchy::Hierarchies;
use guardian_tests::{host, image};
use serde::Serialize;

use crate::{build, interrupt, need, say};

/// `bench`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The runtimes to measure
    #[arg(long, value_delimiter = ',', default_value = "runc,crun")]
    runtime: Vec<String>,

    /// How many times each thing is done
    #[arg(long, default_value_t = 30)]
    count: usize,

    /// What to measure; all by default
    #[arg(long, value_delimiter = ',')]
    only: Vec<Section>,

    /// Write the numbers here as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Section {
    /// Files into and out of a container
    Files,
    /// Create, run, destroy; what programs take of the memory; streams; all containers asked at once
    Life,
    /// netsetup
    Network,
    /// rootfs
    Images,
}

impl Args {
    fn wants(&self, section: Section) -> bool {
        self.only.is_empty() || self.only.contains(&section)
    }
}

/// All numbers of one runtime.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    runtime: String,
    count: usize,
    files: Option<files::Files>,
    life: Option<Life>,
}

/// What lives of containers cost.
#[derive(Debug, Serialize)]
pub(crate) struct Life {
    latencies: Vec<Comparison>,
    memory: memory::Numbers,
    bulk: bulk::Bulk,
    crowd: bulk::Bulk,
    streams: streams::Streams,
}

/// One thing done by us and by the bare runtime.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    name: &'static str,
    floor_name: &'static str,
    ours: Summary,
    floor: Summary,
    /// Ours by the floor's, of the medians.
    ratio: f64,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Summary {
    p50: f64,
    p95: f64,
}

/// What one life of a container took.
#[derive(Debug, Default)]
pub(crate) struct Times {
    create: Vec<Duration>,
    run: Vec<Duration>,
    destroy: Vec<Duration>,
}

/// Measures.
///
/// # Errors
/// When something is missing or fails, or a server leaves something behind.
pub(crate) fn bench(args: &Args) -> anyhow::Result<()> {
    if !host::is_root() {
        bail!("containers are made by root; try: sudo cargo xtask bench");
    }
    if args.count == 0 {
        bail!("--count must be at least 1");
    }
    interrupt::catch()?;
    need::ensure(&need::CONTAINER)?;
    build::release()?;
    let images = args.wants(Section::Images).then(|| images::measure(args.count)).transpose()?;
    let (images, _removed_last) = images.unzip();
    if let Some(images) = &images {
        say(&table::render_images(images, args.count));
    }
    let image = image::make(&image::cache())?;
    let hierarchies = Hierarchies::now();
    let mut reports = Vec::new();
    // On a tmpfs, where the default depot is: below /run.
    let depot = tempfile::Builder::new().prefix("guardian-").tempdir_in("/dev/shm")?;
    let runtimes = match args.wants(Section::Files) || args.wants(Section::Life) {
        true => &args.runtime[..],
        false => &[],
    };
    for runtime in runtimes {
        let options = Options {
            runtime: runtime.clone(),
            image: image.clone(),
            depot: Some(depot.path().into()),
            ..Options::default()
        };
        let daemon = Daemon::start(options)?;
        let measured = measure(&daemon, runtime, args);
        let mut left = daemon.finish()?;
        left.extend(hierarchies.restore());
        if !left.is_empty() {
            bail!("left behind:\n  {}", left.join("\n  "));
        }
        let report = measured?;
        say(&table::render(&report));
        reports.push(report);
    }
    let network = args.wants(Section::Network).then(|| network::measure(args.count)).transpose()?;
    if let Some(network) = &network {
        say(&table::render_network(network, args.count));
    }
    if let Some(path) = &args.json {
        let all = serde_json::json!({"runtimes": reports, "network": network, "images": images});
        guardian_contract::file::replace_mode(path, &serde_json::to_vec_pretty(&all)?, 0o644)?;
    }
    Ok(())
}

fn measure(daemon: &Daemon, runtime: &str, args: &Args) -> anyhow::Result<Report> {
    let files = args.wants(Section::Files).then(|| files::measure(daemon)).transpose()?;
    let life = args.wants(Section::Life).then(|| life(daemon, runtime, args.count)).transpose()?;
    Ok(Report { runtime: runtime.to_owned(), count: args.count, files, life })
}

fn life(daemon: &Daemon, runtime: &str, count: usize) -> anyhow::Result<Life> {
    let floor = floor::Floor::prepare(daemon, runtime)?;
    let (mut ours, mut bare) = (Times::default(), Times::default());
    // The first life pays for unpacking the image and for cold caches.
    ours::life(daemon, "warm", &mut Times::default())?;
    floor.life("warm", &mut Times::default())?;
    for number in 0..count {
        interrupt::check()?;
        ours::life(daemon, &format!("o{number}"), &mut ours)?;
        floor.life(&format!("f{number}"), &mut bare)?;
    }
    Ok(Life {
        latencies: vec![
            compare("create", "run --detach", &ours.create, &bare.create),
            compare("run /bin/true and wait", "exec", &ours.run, &bare.run),
            compare("destroy", "delete --force", &ours.destroy, &bare.destroy),
        ],
        memory: memory::measure(daemon)?,
        bulk: bulk::measure(daemon)?,
        crowd: bulk::measure_crowd(daemon)?,
        streams: streams::measure(daemon, runtime)?,
    })
}

fn compare(
    name: &'static str,
    floor_name: &'static str,
    ours: &[Duration],
    floor: &[Duration],
) -> Comparison {
    let (ours, floor) = (summary(ours), summary(floor));
    Comparison { name, floor_name, ours, floor, ratio: ours.p50 / floor.p50 }
}

/// Returns median and 95th percentile (nearest rank).
fn summary(times: &[Duration]) -> Summary {
    let mut sorted = times.to_vec();
    sorted.sort();
    let rank = |percent: usize| {
        let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(at).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    Summary { p50: rank(50), p95: rank(95) }
}

/// Does something and notes how long it took.
fn timed<T>(
    times: &mut Vec<Duration>,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    let result = work()?;
    times.push(start.elapsed());
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let times: Vec<Duration> = (1..=20).rev().map(Duration::from_millis).collect();
        let Summary { p50, p95 } = summary(&times);
        assert_eq!((p50, p95), (10.0, 19.0));
        assert_eq!(summary(&times[..1]).p95, 20.0);
    }
}
