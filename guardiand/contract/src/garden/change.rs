//! Changes of a living container's limits. Not part of Garden, whose limits hold for life.

use serde::{Deserialize, Serialize};

use super::{BandwidthLimits, BlockIoLimits, CpuLimits, DiskLimits, MemoryLimits, PidLimits};
use crate::fault::Fault;

/// What is to change: the members of a create request's `limits`. One that is not given stays as it
/// is; a zero in one that is given takes the limit away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsChange {
    /// Processor time, and with it the quota.
    #[serde(rename = "cpu_limits", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuLimits>,
    /// Memory, and swap with it.
    #[serde(rename = "memory_limits", skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryLimits>,
    /// Number of tasks.
    #[serde(rename = "pid_limits", skip_serializing_if = "Option::is_none")]
    pub pid: Option<PidLimits>,
    /// Traffic with block devices, each member by itself.
    #[serde(rename = "block_io_limits", skip_serializing_if = "Option::is_none")]
    pub block_io: Option<BlockIoLimits>,
    /// Disk space, each member by itself.
    #[serde(rename = "disk_limits", skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskChange>,
    /// Network bandwidth.
    #[serde(rename = "bandwidth_limits", skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<BandwidthLimits>,
}

/// What of [`DiskLimits`] is to change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskChange {
    /// Inodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inode_hard: Option<u64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte_hard: Option<u64>,
    /// Whether the image counts (0) or only the container's own writes do (1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

impl DiskChange {
    /// Returns the limits that there are afterwards.
    pub fn applied_to(self, before: &DiskLimits) -> DiskLimits {
        DiskLimits {
            inode_hard: self.inode_hard.unwrap_or(before.inode_hard),
            byte_hard: self.byte_hard.unwrap_or(before.byte_hard),
            scope: self.scope.unwrap_or(before.scope),
            ..before.clone()
        }
    }
}

impl LimitsChange {
    /// Refuses what changes nothing.
    ///
    /// # Errors
    /// With what could be given.
    pub fn check(&self) -> Result<(), Fault> {
        match *self == Self::default() {
            true => Err(Fault::invalid(
                "no limit is to change: give cpu_limits, memory_limits, pid_limits, \
                 block_io_limits, disk_limits or bandwidth_limits",
            )),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_says_what_changes() {
        for (text, is_taken) in [
            (r#"{"memory_limits":{}}"#, true),
            (r#"{"cpu_limits":{"weight":3},"pid_limits":{"max":0}}"#, true),
            (r#"{"bandwidth_limits":{}}"#, true),
            (r#"{"other":{}}"#, false),
            ("{}", false),
        ] {
            let change: LimitsChange = serde_json::from_str(text).unwrap();
            assert_eq!(change.check().is_ok(), is_taken, "{text}");
        }
    }

    #[test]
    fn of_disk_limits_only_what_is_given_changes() {
        let before = DiskLimits { byte_hard: 5, inode_hard: 6, scope: 1, ..DiskLimits::default() };
        for (text, want) in [
            (r#"{"byte_hard":7}"#, (7, 6, 1)),
            (r#"{"inode_hard":0,"scope":0}"#, (5, 0, 0)),
            ("{}", (5, 6, 1)),
        ] {
            let change: DiskChange = serde_json::from_str(text).unwrap();
            let after = change.applied_to(&before);
            assert_eq!((after.byte_hard, after.inode_hard, after.scope), want, "{text}");
        }
    }
}
