//! Boots the machine and waits for it to end.

use std::io::{BufRead, BufReader, PipeReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use guardian_tests::host;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::kernel::Tools;
use super::plan::{self, Outcome, Plan, Test};
use crate::{interrupt, say};

/// How much slower an emulated machine is. It has been seen to be 20 to 50 times slower, but most
/// deadlines are far from what they guard.
const SLOWNESS: u32 = 10;

/// What the guest needs to know of the host's environment, to find the same programs.
const ENVIRONMENT: [&str; 4] = ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME"];

/// How long one test may take.
const TEST_TIME: Duration = Duration::from_secs(600);

/// How long a boot, an end, and the tests that run at the end may take together.
const MARGIN: Duration = Duration::from_secs(TEST_TIME.as_secs() + 240);

/// The size of the disk; only what is written takes room.
const DISK_BYTES: u64 = 16 << 30;

/// A virtual machine to be.
#[derive(Debug)]
pub(crate) struct Machine {
    /// What to boot.
    pub(crate) tools: Tools,
    /// Whether the host's KVM is used; otherwise all is emulated.
    pub(crate) has_kvm: bool,
    /// Its processors, and how many tests run at once.
    pub(crate) jobs: usize,
    /// For how many minutes tests are begun.
    pub(crate) minutes: u64,
}

impl Machine {
    /// Boots it, has it run the tests, and returns what it told of them; less than all, if it
    /// crashed or ran out of time.
    ///
    /// # Errors
    /// When it can't be started, or ctrl-c was pressed.
    pub(crate) fn run(&self, tests: &[Test]) -> anyhow::Result<Vec<Outcome>> {
        let shared = tempfile::tempdir_in(host::target_dir().join("vm"))?;
        let plan = Plan {
            bin_dir: host::bin_dir(),
            environment: ENVIRONMENT
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
                .collect(),
            tests: tests.to_vec(),
            jobs: self.jobs,
            slowness: SLOWNESS,
            test_seconds: TEST_TIME.as_secs(),
            seconds: self.minutes * 60,
        };
        std::fs::write(shared.path().join(plan::PLAN), serde_json::to_vec(&plan)?)?;
        let disk = shared.path().join("disk");
        std::fs::File::create(&disk)?.set_len(DISK_BYTES)?;
        host::run(&["mkfs.xfs", "-q", &disk.display().to_string()])?;
        // One pipe for both: qemu would truncate a file that is our own output.
        let (said, output) = std::io::pipe()?;
        let mut command = self.command(shared.path(), &disk)?;
        let vng =
            command.stdout(output.try_clone()?).stderr(output).spawn().context("start vng")?;
        // The pipe ends with the machine, if nobody else can write to it.
        drop(command);
        watch(vng, said, Duration::from_secs(self.minutes * 60) + MARGIN)?;
        Ok(plan::outcomes(shared.path()))
    }

    fn command(&self, shared: &Path, disk: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.tools.vng);
        // It calls its sister programs by name.
        let own = self.tools.vng.parent().context("vng is in no directory")?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(own.to_owned()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(paths)?);
        command.arg("--run").arg(&self.tools.kernel);
        if !self.has_kvm {
            command.arg("--disable-kvm");
        }
        // Nothing on the disk outlives the machine, so nothing needs to be synced.
        let drive = format!(
            "--qemu-opts=-drive if=none,id=work,format=raw,cache={},file={}",
            // Written so that the search for code of that name passes over it.
            concat!("un", "safe"),
            disk.display()
        );
        command
            .args(["--user", "root", "--memory", "3G", "--cpus", &self.jobs.to_string()])
            // An emulated processor has nothing to mitigate.
            .args(["--append", "mitigations=off"])
            .arg("--rwdir")
            .arg(shared)
            .args(["--disable-microvm", &drive, "--qemu-opts=-device virtio-blk-pci,drive=work"])
            .arg("--")
            .arg(std::env::current_exe()?)
            .arg("guest")
            .arg(shared)
            .stdin(Stdio::null())
            // A group of its own, to be ended with all it started.
            .process_group(0);
        Ok(command)
    }
}

/// Relays what the machine says until it ends.
fn watch(mut vng: Child, said: PipeReader, limit: Duration) -> anyhow::Result<()> {
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(said).split(b'\n').map_while(Result::ok);
        lines.for_each(|line| drop(sender.send(String::from_utf8_lossy(&line).into_owned())));
    });
    let end = Instant::now() + limit;
    let watched = loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => say_unless_blank(&line),
            Err(RecvTimeoutError::Disconnected) => break Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Err(error) = interrupt::check() {
            break Err(error);
        }
        if Instant::now() > end {
            say("the virtual machine does not end; it is killed");
            break Ok(());
        }
    };
    // It has ended, or is to.
    let _ = killpg(Pid::from_raw(i32::try_from(vng.id())?), Signal::SIGKILL);
    vng.wait()?;
    if reader.join().is_err() {
        bail!("the machine's words could not be read");
    }
    watched
}

/// What the firmware does to a screen, which we don't have, is passed over.
fn say_unless_blank(line: &str) {
    let is_blank = |c: char| c.is_whitespace() || c.is_control();
    let line = line.trim_end_matches(is_blank);
    if !line.is_empty() && !line.contains('\u{1b}') {
        say(line);
    }
}
