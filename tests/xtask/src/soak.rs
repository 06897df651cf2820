//! `cargo xtask soak`: thousands of processes, and one that prints for minutes, and what is left of
//! them: nothing may be lost, nothing may stay, nothing may grow.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use guardian_contract::garden::ProcessSpec;
use guardian_tests::api::Process;
use guardian_tests::daemon::{Daemon, Options};
use guardian_tests::hierarchy::Hierarchies;
use guardian_tests::{host, image, memory};

use crate::{build, interrupt, need, say};

/// Clients that run processes at the same time.
const CLIENTS: usize = 4;

/// `soak`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The runtime
    #[arg(long, default_value = "crun")]
    runtime: String,

    /// How many processes are run
    #[arg(long, default_value_t = 10_000)]
    runs: usize,

    /// How long one process prints as fast as it can
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    noise: u64,
}

/// Soaks.
///
/// # Errors
/// With the first loss or leak.
pub(crate) fn soak(args: &Args) -> anyhow::Result<()> {
    ensure!(host::is_root(), "containers are made by root; try: sudo cargo xtask soak");
    interrupt::catch()?;
    need::ensure(&need::CONTAINER)?;
    build::release()?;
    let hierarchies = Hierarchies::now();
    let daemon = Daemon::start(Options {
        runtime: args.runtime.clone(),
        image: image::make(&image::cache())?,
        flags: vec!["--cleanup-process-dirs-on-wait".into()],
        ..Options::default()
    })?;
    let soaked = runs(&daemon, args.runs).and_then(|()| noise(&daemon, args.noise));
    let mut left = daemon.finish()?;
    left.extend(hierarchies.restore());
    ensure!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
    soaked
}

fn runs(daemon: &Daemon, count: usize) -> anyhow::Result<()> {
    let handle = daemon.handle("runs");
    daemon.ctl(&["create", "--handle", &handle])?;
    // As much at a time as will be, so that what is taken once is taken.
    run_some(daemon, &handle, count / 10)?;
    let before = State::settled(daemon, &handle)?;
    let start = Instant::now();
    run_some(daemon, &handle, count)?;
    let rate = count as f64 / start.elapsed().as_secs_f64();
    let after = State::settled(daemon, &handle)?;
    say(&format!("{count} processes, {rate:.0} a second: every byte and exit code right"));
    say(&format!("before: {before:?}\nafter:  {after:?}"));
    ensure!(after.process_dirs == 0 && after.keepers == 0, "something is left of them");
    ensure!(after.descriptors <= before.descriptors, "descriptors are left open");
    ensure!(after.server_kib < before.server_kib + 1024, "guardiand grows");
    daemon.destroy_all()
}

fn run_some(daemon: &Daemon, handle: &str, count: usize) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let client = |first: usize| {
            (first..count).step_by(CLIENTS).try_for_each(|number| {
                interrupt::check()?;
                run(daemon, handle, number)
            })
        };
        let clients: Vec<_> =
            (0..CLIENTS).map(|first| scope.spawn(move || client(first))).collect();
        clients.into_iter().try_for_each(|client| match client.join() {
            Ok(done) => done,
            Err(_) => anyhow::bail!("a client failed"),
        })
    })
}

/// A process that prints on both outputs, and ends with a code of its own.
fn run(daemon: &Daemon, handle: &str, number: usize) -> anyhow::Result<()> {
    let code = number % 100;
    let script = format!("seq {number} {}; echo error {number} >&2; exit {code}", number + 99);
    let args = vec!["-c".to_owned(), script];
    let spec = ProcessSpec { path: "sh".into(), args, ..ProcessSpec::default() };
    let mut process = Process::run(daemon, handle, &spec)?;
    let (mut stdout, mut stderr) = (String::new(), String::new());
    process.stdout.read_to_string(&mut stdout)?;
    process.stderr.read_to_string(&mut stderr)?;
    let want: String = (number..number + 100).map(|line| format!("{line}\n")).collect();
    ensure!(stdout == want, "run {number}: stdout is {stdout:?}");
    ensure!(stderr == format!("error {number}\n"), "run {number}: stderr is {stderr:?}");
    let ended = process.wait()?;
    ensure!(ended == i64::try_from(code)?, "run {number}: exit code {ended} instead of {code}");
    Ok(())
}

/// What processes could leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    server_kib: u64,
    descriptors: usize,
    process_dirs: usize,
    keepers: usize,
}

impl State {
    fn of(daemon: &Daemon, handle: &str) -> anyhow::Result<Self> {
        let pid = daemon.pid()?;
        let processes = daemon.depot().join(handle).join("processes");
        Ok(Self {
            server_kib: memory::of(pid)?.rss_kib,
            descriptors: entries(Path::new(&format!("/proc/{pid}/fd"))),
            process_dirs: entries(&processes),
            keepers: keepers(&processes).len(),
        })
    }

    /// What can be asked for during a minute after the end is gone after that.
    fn settled(daemon: &Daemon, handle: &str) -> anyhow::Result<Self> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(65) {
            interrupt::check()?;
            std::thread::sleep(Duration::from_millis(500));
        }
        Self::of(daemon, handle)
    }
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

/// Finds the dadoos of a container.
fn keepers(processes: &Path) -> Vec<u32> {
    host::processes("dadoo", &processes.display().to_string())
}

/// A process prints as fast as it can, once through a pipe and once through a terminal.
fn noise(daemon: &Daemon, seconds: u64) -> anyhow::Result<()> {
    let handle = daemon.handle("noise");
    daemon.ctl(&["create", "--handle", &handle])?;
    let processes = daemon.depot().join(&handle).join("processes");
    for (name, tty) in
        [("pipe", None), ("terminal", Some(guardian_contract::garden::Tty::default()))]
    {
        let spec = ProcessSpec { path: "yes".into(), tty, ..ProcessSpec::default() };
        let mut process = Process::run(daemon, &handle, &spec)?;
        let keeper = *keepers(&processes).first().context("no dadoo")?;
        let mut buffer = vec![0; 1 << 18];
        let mut bytes = 0_usize;
        let start = Instant::now();
        let mut early = None;
        while start.elapsed() < Duration::from_secs(seconds / 2) {
            interrupt::check()?;
            bytes += process.stdout.read(&mut buffer)?;
            if early.is_none() && start.elapsed() > Duration::from_secs(1) {
                early = Some((memory::of(keeper)?.private_kib, memory::of(daemon.pid()?)?.rss_kib));
            }
        }
        let late = (memory::of(keeper)?.private_kib, memory::of(daemon.pid()?)?.rss_kib);
        let early = early.context("too short")?;
        say(&format!(
            "{name}: {} MiB in {} s; private KiB of dadoo {} then {}, resident of guardiand {} then {}",
            bytes >> 20,
            seconds / 2,
            early.0,
            late.0,
            early.1,
            late.1
        ));
        ensure!(late.0 <= early.0 + 8, "dadoo grows");
        ensure!(late.1 <= early.1 + 2048, "guardiand grows");
        daemon.ctl(&["stop", "--kill", &handle])?;
        while process.stdout.read(&mut buffer)? > 0 {}
    }
    daemon.destroy_all()
}
