//! What a container must see, exactly, and where hosts and runtimes differ.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use syscalls::Sysno;

/// Paths that are empty in unprivileged containers, on kernels that have them.
pub(super) const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

pub(super) const NAMESPACES: [&str; 8] =
    ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// A system call: by its name here, or by a number that this build knows no name of; and its first
/// argument.
#[derive(Clone, Copy)]
pub(super) enum Call {
    Known(Sysno, i64),
    Number(i64),
}

impl Call {
    /// What the probe is told.
    pub(super) fn words(self) -> String {
        match self {
            Self::Known(name, first) => format!("{}:{first}", name.id()),
            Self::Number(number) => number.to_string(),
        }
    }
}

const fn known(name: Sysno) -> Call {
    Call::Known(name, -1)
}

/// clone(2)
const CLONE_NEWUSER: i64 = 0x1000_0000;

/// The calls that are tried.
pub(super) const CALLS: [(&str, Call); 22] = [
    ("unshare", known(Sysno::unshare)),
    ("setns", known(Sysno::setns)),
    ("clone with a user namespace", Call::Known(Sysno::clone, CLONE_NEWUSER)),
    ("clone3", known(Sysno::clone3)),
    ("mount", known(Sysno::mount)),
    ("move_mount", known(Sysno::move_mount)),
    ("fsopen", known(Sysno::fsopen)),
    ("keyctl", known(Sysno::keyctl)),
    ("bpf", known(Sysno::bpf)),
    ("perf_event_open", known(Sysno::perf_event_open)),
    ("io_uring_setup", known(Sysno::io_uring_setup)),
    ("userfaultfd", known(Sysno::userfaultfd)),
    ("open_by_handle_at", known(Sysno::open_by_handle_at)),
    ("process_vm_readv", known(Sysno::process_vm_readv)),
    ("quotactl", known(Sysno::quotactl)),
    ("swapon", known(Sysno::swapon)),
    ("close_range", known(Sysno::close_range)),
    ("openat2", known(Sysno::openat2)),
    ("pidfd_open", known(Sysno::pidfd_open)),
    ("futex_wake, newer than the profile", known(Sysno::futex_wake)),
    ("cachestat, newer than the profile", known(Sysno::cachestat)),
    ("a number that no kernel has", Call::Number(9999)),
];

/// The kernel's version, as far as it says what there is.
fn kernel() -> (u32, u32) {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(['.', '-']).map_while(|number| number.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// A kind of container on a kind of host.
pub(super) struct Case {
    pub(super) privileged: bool,
    is_crun: bool,
    is_v2: bool,
    has_apparmor: bool,
    /// The capabilities that this host could give.
    bounding: u64,
}

impl Case {
    pub(super) fn here(runtime: &Path, privileged: bool) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
        let apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Self {
            privileged,
            is_crun: runtime.ends_with("crun"),
            is_v2: !Path::new("/sys/fs/cgroup/memory").exists(),
            has_apparmor: apparmor.is_ok_and(|text| text.starts_with('Y')),
            bounding: u64::from_str_radix(bounding, 16).unwrap(),
        }
    }

    /// What the device nodes of a container are mounted from, if they are mounted: in a user namespace
    /// nobody can make a node that works.
    pub(super) fn devices_are_on(&self) -> &'static str {
        if self.privileged { "" } else { "devtmpfs" }
    }

    /// All lines.
    pub(super) fn table(&self) -> Vec<String> {
        let mut table = self.rights();
        table.extend(self.identity());
        table.extend(self.mounts());
        table.extend(self.masked());
        table.extend(self.devices());
        table.push("descriptors 0 1 2".into());
        table.extend(self.writable());
        table.extend(self.calls());
        table
    }

    fn rights(&self) -> Vec<String> {
        let (root, other) = match self.privileged {
            false => (0xa804_25fb, 0xa804_25fb),
            true => (0x3f_ffff_ffff, 0xa824_25fb),
        };
        let of = |user: &str, listed: u64, is_root: bool| {
            let set = listed & self.bounding;
            let (inheritable, used) = (set, if is_root { set } else { 0 });
            let filters = u8::from(!self.privileged);
            [
                ("CapInh", format!("{inheritable:016x}")),
                ("CapPrm", format!("{used:016x}")),
                ("CapEff", format!("{used:016x}")),
                ("CapBnd", format!("{set:016x}")),
                ("CapAmb", format!("{:016x}", 0)),
                ("NoNewPrivs", "0".into()),
                ("Seccomp", (filters * 2).to_string()),
                ("Seccomp_filters", filters.to_string()),
            ]
            .map(|(name, value)| format!("{user} {name}: {value}"))
        };
        [of("root", root, true), of("1000:1000", other, false)].concat()
    }

    fn identity(&self) -> Vec<String> {
        let map: &[&str] = match self.privileged {
            true => &["0 0 4294967295"],
            false => &["0 4294967294 1", "1 1 4294967293"],
        };
        let maps = ["uid_map", "gid_map"];
        let mut lines: Vec<String> = maps
            .iter()
            .flat_map(|name| map.iter().map(move |line| format!("{name} {line}")))
            .collect();
        lines.extend(NAMESPACES.iter().map(|name| {
            let is_host_s = match *name {
                "time" => true,
                "user" => self.privileged,
                "cgroup" => self.privileged || !self.is_v2,
                _ => false,
            };
            format!("namespace {name} {}", if is_host_s { "host's" } else { "own" })
        }));
        lines.push(format!("label {}", if self.has_apparmor { "unconfined" } else { "none" }));
        lines
    }

    fn mounts(&self) -> Vec<String> {
        let mut lines = vec![
            "/ rw",
            "/dev tmpfs rw,noexec",
            "/dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime",
            "/dev/pts devpts rw,nosuid,noexec,relatime",
            "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime",
            "/etc/hosts rw",
            "/etc/resolv.conf rw",
            "/probe ro",
            "/proc proc rw,nosuid,nodev,noexec,relatime",
            "/sys sysfs ro,nosuid,nodev,noexec,relatime",
            // A privileged container has an init of its own.
            if self.privileged { "/tmp/garden-init rw" } else { "/tmp/garden-init ro" },
        ];
        lines.extend_from_slice(match (self.privileged, self.is_v2) {
            (true, _) => &[],
            (false, true) => &["/sys/fs/cgroup cgroup2 ro,nosuid,nodev,noexec,relatime, own group"],
            (false, false) => &[
                "/sys/fs/cgroup tmpfs rw,nosuid,nodev,noexec,relatime",
                "/sys/fs/cgroup/* cgroup ro,nosuid,nodev,noexec,relatime, own group",
            ],
        });
        lines.into_iter().map(|line| format!("mount {line}")).collect()
    }

    fn masked(&self) -> Vec<String> {
        let of = |path: &str| if Path::new(path).exists() { "empty" } else { "absent" };
        let masked = MASKED.iter().filter(|_| !self.privileged);
        masked.map(|path| format!("masked {path} {}", of(path))).collect()
    }

    fn devices(&self) -> Vec<String> {
        let mut lines = vec![
            "fd -> /proc/self/fd",
            "full 666 1,7",
            "null 666 1,3",
            "ptmx -> pts/ptmx",
            "pts/ptmx 666 5,2",
            "random 666 1,8",
            "stderr -> /proc/self/fd/2",
            "stdin -> /proc/self/fd/0",
            "stdout -> /proc/self/fd/1",
            "tty 666 5,0",
            "urandom 666 1,9",
            "zero 666 1,5",
        ];
        // runc makes it where the kernel has the file.
        let has_core = self.is_crun || Path::new("/proc/kcore").exists();
        lines.extend(has_core.then_some("core -> /proc/kcore"));
        lines.extend(self.privileged.then_some("fuse 666 a,e5"));
        lines.into_iter().map(|line| format!("device {line}")).collect()
    }

    /// Settings of its own namespaces (ipc_namespaces(7), pid_namespaces(7)), as far as this kernel has
    /// them, and what the kernel lets everybody open for writing.
    fn writable(&self) -> Vec<String> {
        if self.privileged {
            return Vec::new();
        }
        let own = "fs/mqueue kernel/auto_msgmni kernel/msgmax kernel/msgmnb kernel/msgmni \
            kernel/ns_last_pid kernel/sem kernel/shm_rmid_forced kernel/shmall kernel/shmmax \
            kernel/shmmni";
        let mut areas: Vec<String> =
            own.split_whitespace().map(|name| format!("/proc/sys/{name}")).collect();
        // One for each pid namespace since Linux 6.14.
        areas.extend((kernel() >= (6, 14)).then(|| "/proc/sys/kernel/pid_max".into()));
        let for_all = |path: &String| {
            let mode = std::fs::metadata(path).map(|meta| meta.permissions().mode());
            mode.is_ok_and(|mode| mode & 0o002 != 0)
        };
        let pressure = ["cpu", "io", "memory"].map(|name| format!("/proc/pressure/{name}"));
        areas.retain(|path| Path::new(path).exists());
        areas.extend(pressure.into_iter().filter(for_all));
        areas.into_iter().map(|area| format!("writable {area}")).collect()
    }

    fn calls(&self) -> Vec<String> {
        let answer = |name: &str| match name {
            "a number that no kernel has" => "does not exist",
            name if name.starts_with("futex_wake") && kernel() < (6, 7) => "does not exist",
            name if name.starts_with("cachestat") && kernel() < (6, 5) => "does not exist",
            _ if self.privileged => "allowed",
            "close_range" | "openat2" | "pidfd_open" => "allowed",
            name if name == "clone3" || name.contains("newer") => "does not exist",
            _ => "refused",
        };
        CALLS.iter().map(|(name, _)| format!("call {name} {}", answer(name))).collect()
    }
}
