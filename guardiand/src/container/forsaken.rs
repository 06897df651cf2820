//! Programs that a killed server had called for a container, and that run on. What they make after
//! the container has been taken away would stay.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guardian_contract::depot::Handle;
use guardian_contract::log;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::guardian::Guardian;
use crate::host;

/// How long they have to end by themselves. Most steps take some milliseconds, but one that fetches an
/// image could take for ever.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one that was killed may take: it may be in the middle of a system call.
const LAST_MOMENT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

impl Guardian {
    /// Returns when nobody works any more for a container that a former server was making or taking
    /// away; who does not end is killed, which leaves what a destroy takes away.
    pub(crate) async fn outlast_forsaken(&self, handle: &Handle) {
        // Keepers and what they keep are the container's own, and go with it.
        let is_called = |part: &str| !matches!(part, "dadoo" | "init");
        let programs = self.settings.programs().into_iter().filter(|(part, _)| is_called(part));
        let programs: BTreeSet<PathBuf> = programs
            .filter_map(|(_, path)| host::program(path).ok()?.canonicalize().ok())
            .collect();
        let start = Instant::now();
        let mut killed = false;
        loop {
            let pids = find(&programs, handle);
            if pids.is_empty() || start.elapsed() > PATIENCE + LAST_MOMENT {
                return;
            }
            if !killed && start.elapsed() > PATIENCE {
                killed = true;
                let data = json!({"handle": handle.as_str(), "pids": pids});
                log::info("restore.forsaken-killed", &data);
                for pid in pids {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Finds processes that run one of these programs with the handle in their arguments.
fn find(programs: &BTreeSet<PathBuf>, handle: &Handle) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_for(Path::new(&format!("/proc/{pid}")), programs, handle)).collect()
}

fn is_for(process: &Path, programs: &BTreeSet<PathBuf>, handle: &Handle) -> bool {
    let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
    names(&arguments, handle)
        && std::fs::read_link(process.join("exe")).is_ok_and(|exe| programs.contains(&exe))
}

/// Arguments end with zeros (proc_pid_cmdline(5)). A handle stands alone or is a directory's name.
fn names(arguments: &[u8], handle: &Handle) -> bool {
    let handle = handle.as_str().as_bytes();
    arguments.split(|byte| matches!(byte, 0 | b'/')).any(|part| part == handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_a_container_as_a_whole() {
        let handle = "web".parse().unwrap();
        for (arguments, want) in [
            (&b"/bin/crun\0run\0--bundle\0/d/web\0web2\0"[..], true),
            (b"rootfs\0create\0x\0web\0", true),
            (b"rootfs\0create\0x\0web2\0", false),
            (b"netsetup\0--handle=web\0", false),
            (b"", false),
        ] {
            assert_eq!(names(arguments, &handle), want);
        }
    }

    #[test]
    fn a_process_is_found_by_its_program_and_its_arguments() {
        // Seconds that nobody else sleeps.
        let seconds = format!("9{}", std::process::id());
        let handle: Handle = seconds.parse().unwrap();
        let mut sleeper = std::process::Command::new("sleep").arg(&seconds).spawn().unwrap();
        let pid = i32::try_from(sleeper.id()).unwrap();
        // It is we until it has become another program, which is named before it has its arguments.
        while !names(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap(), &handle) {
            std::thread::sleep(PAUSE);
        }
        let programs = BTreeSet::from([std::fs::read_link(format!("/proc/{pid}/exe")).unwrap()]);
        let found = find(&programs, &handle);
        let others =
            [find(&programs, &"9".parse().unwrap()), find(&BTreeSet::new(), &handle)].concat();
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert_eq!((found, others), (vec![pid], vec![]));
    }
}
