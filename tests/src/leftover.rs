//! The search for what a server left behind: mounts, processes, cgroups, loop devices, state of
//! the runtimes, files. Everything is recognised by two words only this server's things contain:
//! its directory, and the prefix of its handles.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where runtimes keep the state of containers.
const RUNTIME_STATE: [&str; 3] = ["/run/runc", "/run/crun", "/run/user/0/crun"];

/// cgroup hierarchies are at most this deep above a container's: mount, `garden`, handle.
const CGROUP_DEPTH: usize = 4;

/// Returns one line for each thing whose description contains one of the words.
pub fn search(words: &[&str]) -> Vec<String> {
    let mut found = mounts(words);
    found.extend(processes(words));
    found.extend(loop_devices(words));
    let mut directories = Vec::new();
    named(Path::new("/sys/fs/cgroup"), words, CGROUP_DEPTH, &mut directories);
    for state in RUNTIME_STATE {
        named(Path::new(state), words, 1, &mut directories);
    }
    found.extend(directories.iter().map(|path| format!("directory {}", path.display())));
    found
}

/// Takes away what [`search`] finds, as well as that can be done: for the end of a test that has
/// failed already.
pub fn remove(words: &[&str]) {
    for line in processes(words) {
        let pid = line.split(' ').nth(1).and_then(|pid| pid.parse().ok());
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    for runtime in ["runc", "crun"] {
        let mut containers = Vec::new();
        named(&Path::new("/run").join(runtime), words, 1, &mut containers);
        for container in containers.iter().filter_map(|path| path.file_name()?.to_str()) {
            let _ = crate::host::run(&[runtime, "delete", "--force", container]);
        }
    }
    for line in mounts(words).iter().rev() {
        let _ = crate::host::run(&["umount", "--lazy", line.trim_start_matches("mount ")]);
    }
    let mut cgroups = Vec::new();
    named(Path::new("/sys/fs/cgroup"), words, CGROUP_DEPTH, &mut cgroups);
    for cgroup in cgroups {
        let _ = crate::host::run(&["find", &cgroup.display().to_string(), "-depth", "-delete"]);
    }
}

fn contains(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

fn mounts(words: &[&str]) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // Root, mount point and source may each name us (proc_pid_mountinfo(5)).
    let lines = text.lines().filter(|line| contains(line, words));
    lines.map(|line| format!("mount {}", line.split(' ').nth(4).unwrap_or(line))).collect()
}

fn processes(words: &[&str]) -> Vec<String> {
    let own = std::process::id().to_string();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && *name != own)
        .filter_map(|pid| {
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
            let command = read("cmdline").unwrap_or_default().replace('\0', " ");
            let cgroup = read("cgroup").unwrap_or_default();
            let ours = contains(&command, words) || contains(&cgroup, words);
            let stat = read("stat").unwrap_or_default();
            (ours && !is_host_s_zombie(&stat)).then(|| format!("process {pid} {}", command.trim()))
        })
        .collect()
}

/// A process that has ended and waits for the host's pid 1 to take note is nobody's leftover;
/// one that waits for any other parent is (proc_pid_stat(5)).
fn is_host_s_zombie(stat: &str) -> bool {
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    fields.starts_with("Z 1 ")
}

fn loop_devices(words: &[&str]) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            contains(&file, words).then(|| format!("loop device {name} on {}", file.trim()))
        })
        .collect()
}

/// Collects directories below `root` whose own name contains one of the words.
fn named(root: &Path, words: &[&str], depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())) {
        if contains(&entry.file_name().to_string_lossy(), words) {
            found.push(entry.path());
        } else if depth > 1 {
            named(&entry.path(), words, depth - 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_found_by_its_arguments() {
        let mut child = Command::new("sleep").arg("86399.125").spawn().unwrap();
        // The child may not have called execve(2) yet.
        let found = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            search(&["86399.125"]).iter().any(|line| line.contains("sleep"))
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }

    #[test]
    fn only_pid_1_may_take_its_time() {
        assert!(is_host_s_zombie("5 (a) b) Z 1 5 5"));
        assert!(!is_host_s_zombie("5 (x) Z 17 5 5") && !is_host_s_zombie("5 (x) S 1 5 5"));
    }

    #[test]
    fn nothing_is_found_for_words_nobody_uses() {
        assert_eq!(search(&["no-such-thing-4711-0815"]), Vec::<String>::new());
    }
}
