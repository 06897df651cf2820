//! Runs tests, each in a process of its own, so that one which hangs or crashes costs no other.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use guardian_tests::{patience, skip};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::world::DISK;
use crate::say;
use crate::vm::plan::{End, OUTCOMES, Outcome, Plan, Test};

/// Runs the plan's tests. As with cargo, some run at once, but those of two executables never; nor
/// do two of one module, which may have reasons to take turns.
///
/// # Errors
/// When a test can't be started, or the outcome not be written.
pub(super) fn run(plan: &Plan, bin_dir: &Path, shared: &Path) -> anyhow::Result<()> {
    let outcomes = Mutex::new(File::create(shared.join(OUTCOMES))?);
    let end = Instant::now() + Duration::from_secs(plan.seconds);
    for tests in plan.tests.chunk_by(|a, b| a.executable == b.executable) {
        let executable = copy(&tests[0].executable)?;
        let modules: Vec<&[Test]> = tests.chunk_by(|a, b| module(a) == module(b)).collect();
        let next = AtomicUsize::new(0);
        let work = || -> anyhow::Result<()> {
            while let Some(module) = modules.get(next.fetch_add(1, Ordering::Relaxed)) {
                for test in *module {
                    let attempt = Attempt { plan, bin_dir, test, executable: &executable };
                    let in_time = Instant::now() < end;
                    let outcome = if in_time { attempt.run()? } else { attempt.left_out() };
                    note(&outcome, &outcomes)?;
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..plan.jobs.max(1)).map(|_| scope.spawn(work)).collect();
            let join = |worker: std::thread::ScopedJoinHandle<'_, anyhow::Result<()>>| {
                worker.join().unwrap_or_else(|_| bail!("a worker crashed"))
            };
            workers.into_iter().try_for_each(join)
        })?;
        std::fs::remove_file(executable)?;
    }
    Ok(())
}

/// Returns the module of a test; one that is in none is alone.
fn module(test: &Test) -> &str {
    test.path.rsplit_once("::").map_or(&test.path, |(module, _)| module)
}

fn note(outcome: &Outcome, outcomes: &Mutex<File>) -> anyhow::Result<()> {
    say(&line(outcome));
    let text = serde_json::to_string(outcome)? + "\n";
    let Ok(mut file) = outcomes.lock() else { bail!("another worker crashed") };
    Ok(file.write_all(text.as_bytes())?)
}

/// Puts a test executable on the disk; see [`super::world::prepare`].
fn copy(executable: &Path) -> anyhow::Result<PathBuf> {
    let name = executable.file_name().context("a test executable has a name")?;
    let copy = Path::new(DISK).join("tests").join(name);
    std::fs::copy(executable, &copy)?;
    Ok(copy)
}

fn line(outcome: &Outcome) -> String {
    let end = match outcome.end {
        End::Passed if outcome.skipped.is_empty() => "ok",
        End::Passed => "ok, but skipped",
        End::Failed => "FAILED",
        End::Overdue => "OVERDUE",
        End::NoTime => "left out, no time",
    };
    format!("{:7.1} s  {}  {end}", outcome.seconds, outcome.name)
}

struct Attempt<'a> {
    plan: &'a Plan,
    bin_dir: &'a Path,
    test: &'a Test,
    executable: &'a Path,
}

impl Attempt<'_> {
    fn left_out(&self) -> Outcome {
        let name = self.test.name.clone();
        let skipped = vec![format!("skipped: {name}: no time was left")];
        Outcome { name, end: End::NoTime, seconds: 0.0, skipped, output: String::new() }
    }

    fn run(&self) -> anyhow::Result<Outcome> {
        let disk = Path::new(DISK);
        let directory = tempfile::tempdir_in(disk)?;
        let (skipped, output) = (directory.path().join("skipped"), directory.path().join("output"));
        let file = File::create(&output)?;
        let start = Instant::now();
        let child = Command::new(self.executable)
            .args(["--exact", &self.test.path, "--test-threads", "1"])
            .envs(self.plan.environment.iter().map(|(name, value)| (name, value)))
            .env("GUARDIAN_BIN_DIR", self.bin_dir)
            .env("TMPDIR", disk.join("tmp"))
            .env("XDG_CACHE_HOME", disk.join("cache"))
            .env(patience::SLOWNESS, self.plan.slowness.to_string())
            .env(skip::LIST, &skipped)
            .env(skip::DISPOSABLE, "1")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", self.executable.display()))?;
        let end = wait(child, start + Duration::from_secs(self.plan.test_seconds))?;
        let read = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into();
        let notes: String = read(&skipped);
        Ok(Outcome {
            name: self.test.name.clone(),
            end,
            seconds: start.elapsed().as_secs_f64(),
            skipped: notes.lines().map(str::to_owned).collect(),
            output: read(&output),
        })
    }
}

fn wait(mut child: Child, limit: Instant) -> anyhow::Result<End> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(if status.success() { End::Passed } else { End::Failed });
        }
        if Instant::now() > limit {
            killpg(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGKILL)?;
            child.wait()?;
            return Ok(End::Overdue);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
