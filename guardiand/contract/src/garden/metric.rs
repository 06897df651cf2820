//! What a container uses. Counters of a cgroup version that the host does not have stay 0.

use serde::{Deserialize, Serialize};

use super::ApiError;

/// The answer to a metrics request; every member is always written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Metrics {
    /// memory.stat, and what counts towards the limit.
    pub memory_stat: MemoryStat,
    /// Nanoseconds of processor time.
    #[serde(rename = "CPUStat")]
    pub cpu_stat: CpuStat,
    /// Bytes on disk.
    pub disk_stat: DiskStat,
    /// Bytes sent and received.
    pub network_stat: Option<NetworkStat>,
    /// Tasks.
    pub pid_stat: PidStat,
    /// Nanoseconds since the container was made.
    pub age: i64,
    /// Nanoseconds of processor time it was entitled to.
    #[serde(rename = "CPUEntitlement")]
    pub cpu_entitlement: u64,
}

/// Counters of memory.stat under their own names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "the kernel documents them: admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst"
)]
pub struct MemoryStat {
    pub active_anon: u64,
    pub active_file: u64,
    pub cache: u64,
    pub hierarchical_memory_limit: u64,
    pub inactive_anon: u64,
    pub inactive_file: u64,
    pub mapped_file: u64,
    pub pgfault: u64,
    pub pgmajfault: u64,
    pub pgpgin: u64,
    pub pgpgout: u64,
    pub rss: u64,
    pub total_active_anon: u64,
    pub total_active_file: u64,
    pub total_cache: u64,
    pub total_inactive_anon: u64,
    pub total_inactive_file: u64,
    pub total_mapped_file: u64,
    pub total_pgfault: u64,
    pub total_pgmajfault: u64,
    pub total_pgpgin: u64,
    pub total_pgpgout: u64,
    pub total_rss: u64,
    pub total_unevictable: u64,
    pub unevictable: u64,
    pub swap: u64,
    pub hierarchical_memsw_limit: u64,
    pub total_swap: u64,
    #[serde(rename = "TotalUsageTowardLimit")]
    pub total_usage_toward_limit: u64,
    pub anon: u64,
    pub file: u64,
    pub swapcached: u64,
}

/// Nanoseconds of processor time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CpuStat {
    /// All.
    pub usage: u64,
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
}

/// Bytes on disk; inodes are never counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DiskStat {
    /// Image and own writes.
    pub total_bytes_used: u64,
    /// Always 0.
    pub total_inodes_used: u64,
    /// Own writes.
    pub exclusive_bytes_used: u64,
    /// Always 0.
    pub exclusive_inodes_used: u64,
}

/// Bytes on the container's interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkStat {
    /// Received by the container.
    pub rx_bytes: u64,
    /// Sent by the container.
    pub tx_bytes: u64,
}

/// Tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PidStat {
    /// Now.
    pub current: u64,
    /// At most; 0 is no limit.
    pub max: u64,
}

/// One entry of a bulk metrics answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct BulkMetrics {
    /// The zero metrics when there is an error.
    pub metrics: Metrics,
    /// Why there are none.
    pub err: Option<ApiError>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_what_gdn_sends() {
        let text = serde_json::to_string(&Metrics::default()).unwrap();
        assert!(text.ends_with(
            r#""CPUStat":{"Usage":0,"User":0,"System":0},"DiskStat":{"TotalBytesUsed":0,"TotalInodesUsed":0,"ExclusiveBytesUsed":0,"ExclusiveInodesUsed":0},"NetworkStat":null,"PidStat":{"Current":0,"Max":0},"Age":0,"CPUEntitlement":0}"#
        ), "{text}");
    }
}
