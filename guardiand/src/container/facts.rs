//! What a bundle says of its container: read from config.json, so that it is the same before and
//! after a restart, and for a container that a gdn made.

use std::path::PathBuf;

use anyhow::Context;
use guardian_contract::depot::{BLOCK_IO_WEIGHT, Bundle, DISK_LIMITS, Init};
use guardian_contract::file::read_json;
use guardian_contract::garden::{
    BandwidthLimits, BlockIoLimits, CpuLimits, DiskLimits, Limits, MemoryLimits, PidLimits,
};
use guardian_contract::ids::{IdMapping, IdMaps};
use oci_spec::runtime::{Capabilities, LinuxIdMapping, LinuxThrottleDevice, Spec};

/// What the server needs of an OCI configuration.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Environment of image and container.
    pub(crate) env: Vec<String>,
    /// Capabilities at most.
    pub(crate) bounding: Capabilities,
    /// User id map; empty when privileged.
    pub(crate) uid_map: Vec<IdMapping>,
    /// Group id map; empty when privileged.
    pub(crate) gid_map: Vec<IdMapping>,
    /// AppArmor profile.
    pub(crate) apparmor: Option<String>,
    /// How gladly the kernel kills its processes for want of memory.
    pub(crate) oom_score_adj: Option<i32>,
    /// no_new_privs.
    pub(crate) no_new_privileges: bool,
    /// Memory limit in bytes; 0 is none.
    pub(crate) memory_bytes: u64,
    /// Shares (cgroup v1) or weight (v2), whichever the bundle has; 0 is neither.
    pub(crate) cpu: u64,
    /// Whether `cpu` is a weight.
    pub(crate) cpu_is_weight: bool,
    /// Most tasks; 0 is no limit.
    pub(crate) tasks: u64,
    /// Where its groups are, below each hierarchy; a gdn's privileged container does not say so.
    pub(crate) cgroup: Option<PathBuf>,
    /// Traffic with block devices.
    pub(crate) block_io: BlockIoLimits,
    /// Disk space, as it was asked for.
    pub(crate) disk: DiskLimits,
}

impl Facts {
    /// Reads the facts of a bundle.
    ///
    /// # Errors
    /// When there is no configuration, or it is none.
    pub(crate) fn read(bundle: &Bundle) -> anyhow::Result<Self> {
        let path = bundle.config();
        let spec: Spec = read_json(&path)?
            .with_context(|| format!("Failed to load bundle: {} is missing", path.display()))?;
        Ok(Self::of(&spec))
    }

    /// Returns both id maps; empty when privileged.
    pub(crate) fn ids(&self) -> IdMaps {
        IdMaps { uid: self.uid_map.clone(), gid: self.gid_map.clone() }
    }

    /// Returns the limits that can change, but for bandwidth.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            cpu: CpuLimits { limit_in_shares: self.cpu, weight: 0 },
            memory: MemoryLimits { limit_in_bytes: self.memory_bytes },
            pid: PidLimits { max: self.tasks },
            block_io: self.block_io,
            disk: self.disk.clone(),
            bandwidth: BandwidthLimits::default(),
        }
    }

    /// Returns the facts of a configuration.
    pub(crate) fn of(spec: &Spec) -> Self {
        let process = spec.process().as_ref();
        let linux = spec.linux().as_ref();
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        let maps = |maps: Option<&Vec<LinuxIdMapping>>| {
            maps.into_iter().flatten().map(extent).collect::<Vec<_>>()
        };
        let memory = resources.and_then(|resources| resources.memory().as_ref()?.limit());
        let shares = resources.and_then(|resources| resources.cpu().as_ref()?.shares());
        let tasks = resources.and_then(|resources| Some(resources.pids().as_ref()?.limit()));
        let weight = resources
            .and_then(|resources| resources.unified().as_ref()?.get("cpu.weight")?.parse().ok());
        let bounding = process.and_then(|p| p.capabilities().as_ref()?.bounding().clone());
        Self {
            env: process.and_then(|process| process.env().clone()).unwrap_or_default(),
            bounding: bounding.unwrap_or_default(),
            uid_map: maps(linux.and_then(|linux| linux.uid_mappings().as_ref())),
            gid_map: maps(linux.and_then(|linux| linux.gid_mappings().as_ref())),
            apparmor: process.and_then(|process| process.apparmor_profile().clone()),
            oom_score_adj: process.and_then(|process| process.oom_score_adj()),
            no_new_privileges: process.and_then(|p| p.no_new_privileges()).unwrap_or(false),
            memory_bytes: memory.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
            cpu: weight.or(shares).unwrap_or(0),
            cpu_is_weight: weight.is_some(),
            tasks: tasks.and_then(|tasks| u64::try_from(tasks).ok()).unwrap_or(0),
            cgroup: linux.and_then(|linux| linux.cgroups_path().clone()),
            block_io: block_io(spec),
            disk: disk(spec),
        }
    }
}

fn disk(spec: &Spec) -> DiskLimits {
    let text = spec.annotations().as_ref().and_then(|all| all.get(DISK_LIMITS));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// All devices have the same rates.
fn block_io(spec: &Spec) -> BlockIoLimits {
    let weight = spec.annotations().as_ref().and_then(|all| all.get(BLOCK_IO_WEIGHT)?.parse().ok());
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let all = resources.and_then(|all| all.block_io().clone()).unwrap_or_default();
    let rate = |list: &Option<Vec<LinuxThrottleDevice>>| Some(list.as_ref()?.first()?.rate());
    BlockIoLimits {
        weight,
        read_bps: rate(all.throttle_read_bps_device()),
        write_bps: rate(all.throttle_write_bps_device()),
        read_iops: rate(all.throttle_read_iops_device()),
        write_iops: rate(all.throttle_write_iops_device()),
    }
}

fn extent(map: &LinuxIdMapping) -> IdMapping {
    IdMapping { container_id: map.container_id(), host_id: map.host_id(), size: map.size() }
}

/// Reads who a container's init is: our own record, else (a gdn's container) the bare pidfile,
/// which is then as good as it gets.
pub(crate) fn read_init(bundle: &Bundle) -> Option<Init> {
    if let Ok(Some(init)) = read_json::<Init>(&bundle.init()) {
        return Some(init);
    }
    Init::of(read_pid(bundle)?)
}

/// Reads the pid that the runtime wrote.
pub(crate) fn read_pid(bundle: &Bundle) -> Option<i32> {
    std::fs::read_to_string(bundle.pidfile()).ok()?.trim().parse().ok()
}
