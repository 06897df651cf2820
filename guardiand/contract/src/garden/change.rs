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
    /// Read only to be refused.
    #[serde(rename = "disk_limits", skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskLimits>,
    /// Read only to be refused.
    #[serde(rename = "bandwidth_limits", skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<BandwidthLimits>,
}

impl LimitsChange {
    /// Refuses what no living container can be given, and what changes nothing.
    ///
    /// # Errors
    /// With the member that can't be changed, or that nothing is to change.
    pub fn check(&self) -> Result<(), Fault> {
        let fixed =
            [(self.disk.is_some(), "disk_limits"), (self.bandwidth.is_some(), "bandwidth_limits")];
        if let Some((_, name)) = fixed.iter().find(|(is_given, _)| *is_given) {
            let message = format!("{name} of a container that is there can't be changed");
            return Err(Fault::invalid(message));
        }
        match *self == Self::default() {
            true => Err(Fault::invalid(
                "no limit is to change: give cpu_limits, memory_limits, pid_limits or block_io_limits",
            )),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_change_is_taken() {
        for (text, want) in [
            (r#"{"memory_limits":{}}"#, None),
            (r#"{"cpu_limits":{"weight":3},"pid_limits":{"max":0}}"#, None),
            (r#"{"disk_limits":{}}"#, Some("disk_limits of a container")),
            (r#"{"memory_limits":{},"bandwidth_limits":{}}"#, Some("bandwidth_limits of")),
            ("{}", Some("no limit is to change")),
        ] {
            let change: LimitsChange = serde_json::from_str(text).unwrap();
            let said = change.check().err().map(|fault| fault.message);
            match want {
                None => assert_eq!(said, None, "{text}"),
                Some(want) => assert!(said.unwrap_or_default().starts_with(want), "{text}"),
            }
        }
    }
}
