//! Looking: commands inside the container, and what they say in a form that two hosts share.

use std::collections::BTreeSet;

use guardian_tests::daemon::Daemon;

use super::table::{CALLS, Case, MASKED, NAMESPACES};

/// A container to look at.
pub(super) struct Look<'a> {
    pub(super) daemon: &'a Daemon,
    pub(super) handle: &'a str,
}

impl Look<'_> {
    /// All that there is to see, a line each.
    pub(super) fn all(&self, case: &Case) -> Vec<String> {
        let mut seen = self.status("root");
        seen.extend(self.status("1000:1000"));
        seen.extend(self.ids());
        seen.extend(self.namespaces());
        seen.push(format!("label {}", self.label()));
        seen.extend(self.mounts(case));
        seen.extend(self.masked(case));
        seen.extend(self.devices());
        seen.extend(self.descriptors());
        seen.extend(self.writable(case));
        seen.extend(self.calls());
        seen
    }

    fn shell_as(&self, user: &str, script: &str) -> String {
        let words = ["exec", "--user", user, self.handle, "--", "sh", "-c", script];
        self.daemon.ctl(&words).unwrap()
    }

    fn shell(&self, script: &str) -> String {
        self.shell_as("root", script)
    }

    fn status(&self, user: &str) -> Vec<String> {
        let script = "grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status";
        let text = self.shell_as(user, script);
        text.lines().map(|line| format!("{user} {}", line.replace('\t', " "))).collect()
    }

    fn ids(&self) -> Vec<String> {
        let of = |map: &str| {
            let text = self.shell(&format!("cat /proc/self/{map}"));
            let line = |line: &str| {
                let words: Vec<&str> = line.split_whitespace().collect();
                format!("{map} {}", words.join(" "))
            };
            text.lines().map(line).collect::<Vec<_>>()
        };
        [of("uid_map"), of("gid_map")].concat()
    }

    /// Whose each namespace is.
    fn namespaces(&self) -> Vec<String> {
        let of = |name: &&str| {
            let inside = self.shell(&format!("readlink /proc/self/ns/{name}"));
            let outside = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            let is_host_s = inside.trim() == outside.display().to_string();
            format!("namespace {name} {}", if is_host_s { "host's" } else { "own" })
        };
        NAMESPACES.iter().map(of).collect()
    }

    /// AppArmor's, or none.
    fn label(&self) -> String {
        let label = self.shell("cat /proc/self/attr/current 2>/dev/null || :");
        let label = label.trim_end_matches(['\n', '\0']);
        if label.is_empty() { "none".into() } else { label.into() }
    }

    /// Mount points with the kind of filesystem and the flags of the mount. What stands for devices
    /// and masked paths is looked at elsewhere; what is shown of the host has its own flags, and only
    /// whether it may be written counts.
    fn mounts(&self, case: &Case) -> Vec<String> {
        let text = self.shell("cat /proc/self/mountinfo");
        let mut all = BTreeSet::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let (root, point, flags) = (words[3], words[4], words[5]);
            let dash = words.iter().position(|word| *word == "-").unwrap();
            let kind = words[dash + 1];
            let is_device = point.starts_with("/dev/") && kind == case.devices_are_on();
            if MASKED.contains(&point) || is_device {
                continue;
            }
            let shown = |flags: &str| flags.split(',').next().unwrap_or_default().to_owned();
            all.insert(match (point, kind) {
                ("/" | "/etc/hosts" | "/etc/resolv.conf" | "/tmp/garden-init" | "/probe", _) => {
                    format!("mount {point} {}", shown(flags))
                }
                (point, "cgroup" | "cgroup2") => {
                    let is_own = root == "/" || root.ends_with(self.handle);
                    let whose = if is_own { "own" } else { "another's" };
                    let dir = if kind == "cgroup" { "/sys/fs/cgroup/*" } else { point };
                    format!("mount {dir} {kind} {flags}, {whose} group")
                }
                _ => format!("mount {point} {kind} {flags}"),
            });
        }
        all.into_iter().collect()
    }

    /// Whether paths that tell too much are empty: a directory without entries, or the null device.
    fn masked(&self, case: &Case) -> Vec<String> {
        let of = |path: &&str| {
            let script = format!(
                "if [ -d {path} ]; then [ -z \"$(ls -A {path})\" ] && echo empty || echo open; \
                 elif [ -e {path} ]; then stat -c %t,%T {path}; else echo absent; fi"
            );
            format!("masked {path} {}", self.shell(&script).trim().replace("1,3", "empty"))
        };
        if case.privileged { Vec::new() } else { MASKED.iter().map(of).collect() }
    }

    fn devices(&self) -> Vec<String> {
        let script = "cd /dev; for f in $(find . ! -type d); do \
            if [ -L $f ]; then echo ${f#./} '->' $(readlink $f); \
            else stat -c '%n %a %t,%T' ${f#./}; fi; done";
        // Numbers of pseudo-terminals come and go.
        let text = self.shell(script);
        let lines = text.lines().filter(|line| !line.starts_with("pts/") || line.contains("ptmx"));
        lines.map(|line| format!("device {line}")).collect()
    }

    fn descriptors(&self) -> Vec<String> {
        // The shell's own: a program that lists a directory holds it open.
        let text = self.shell("cd /proc/self/fd; for f in *; do [ -e $f ] && echo $f; done; :");
        let numbers: Vec<&str> = text.split_whitespace().collect();
        vec![format!("descriptors {}", numbers.join(" "))]
    }

    /// Where in /proc and /sys there is anything that an unprivileged container may write, not counting
    /// what belongs to processes and what is masked: three levels, and four in /proc/sys.
    fn writable(&self, case: &Case) -> Vec<String> {
        if case.privileged {
            return Vec::new();
        }
        let script = "/probe/probe writable /proc /sys | \
            grep -vE '^/proc/([0-9]+|self|thread-self|net)/' || :";
        let text = self.shell(script);
        let area = |line: &str| {
            let depth = if line.starts_with("/proc/sys/") { 5 } else { 4 };
            line.splitn(depth + 1, '/').take(depth).collect::<Vec<_>>().join("/")
        };
        let lines = text.lines().filter(|line| !MASKED.contains(line));
        let areas: BTreeSet<String> = lines.map(area).collect();
        areas.into_iter().map(|area| format!("writable {area}")).collect()
    }

    fn calls(&self) -> Vec<String> {
        let words: Vec<String> = CALLS.iter().map(|(_, call)| call.words()).collect();
        let text = self.shell(&format!("/probe/probe calls {}", words.join(" ")));
        let answers: Vec<&str> = text.lines().collect();
        assert_eq!(answers.len(), CALLS.len(), "{text}");
        let answer = |errno: &str| match errno {
            "1" => "refused",
            "38" => "does not exist",
            _ => "allowed",
        };
        let named = CALLS.iter().zip(answers);
        named.map(|((name, _), errno)| format!("call {name} {}", answer(errno))).collect()
    }
}
