//! Limits, as asked for and as reported. Zero means none, everywhere.

use serde::{Deserialize, Serialize};

use super::is_zero;

/// All limits of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Network bandwidth.
    #[serde(rename = "bandwidth_limits")]
    pub bandwidth: BandwidthLimits,
    /// Processor time.
    #[serde(rename = "cpu_limits")]
    pub cpu: CpuLimits,
    /// Disk space.
    #[serde(rename = "disk_limits")]
    pub disk: DiskLimits,
    /// Memory.
    #[serde(rename = "memory_limits")]
    pub memory: MemoryLimits,
    /// Number of tasks.
    #[serde(rename = "pid_limits")]
    pub pid: PidLimits,
    /// Ours: traffic with block devices.
    #[serde(rename = "block_io_limits", skip_serializing_if = "is_zero")]
    pub block_io: BlockIoLimits,
}

/// Network bandwidth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BandwidthLimits {
    /// Bytes per second.
    #[serde(skip_serializing_if = "is_zero")]
    pub rate: u64,
    /// Bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub burst: u64,
}

/// Processor time, in cgroup v1 shares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuLimits {
    /// Shares; wins over `limit_in_shares`.
    #[serde(skip_serializing_if = "is_zero")]
    pub weight: u64,
    /// Shares; the deprecated name.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit_in_shares: u64,
}

impl CpuLimits {
    /// Returns the shares asked for, under whichever name.
    pub fn shares(&self) -> u64 {
        if self.weight > 0 { self.weight } else { self.limit_in_shares }
    }
}

/// Disk space. Only the hard limits and `scope` have an effect; `inode_hard` has none in gdn, nor with
/// an image plugin that is not ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskLimits {
    /// Inodes, soft.
    #[serde(skip_serializing_if = "is_zero")]
    pub inode_soft: u64,
    /// Inodes, hard.
    #[serde(skip_serializing_if = "is_zero")]
    pub inode_hard: u64,
    /// Bytes, soft.
    #[serde(skip_serializing_if = "is_zero")]
    pub byte_soft: u64,
    /// Bytes, hard.
    #[serde(skip_serializing_if = "is_zero")]
    pub byte_hard: u64,
    /// 0: the image counts; 1: only the container's own writes do.
    #[serde(skip_serializing_if = "is_zero")]
    pub scope: u8,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryLimits {
    /// Bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit_in_bytes: u64,
}

/// Number of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PidLimits {
    /// How many at most.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
}

/// Traffic with block devices. What is not given is the operator's default; zero is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockIoLimits {
    /// Share of a busy device, 10 to 1000, against 100 of a container without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Bytes read per second, from each device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bps: Option<u64>,
    /// Bytes written per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_bps: Option<u64>,
    /// Reads per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_iops: Option<u64>,
    /// Writes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_iops: Option<u64>,
}
