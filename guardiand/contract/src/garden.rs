//! The Garden API's types, with Go's JSON habits where the wire shows them.
//!
//! Two things differ from plain serde: what is read may spell its keys in any case and put `null`
//! anywhere ([`decode`]), and what is written escapes `<`, `>` and `&` ([`encode`]).

mod change;
mod container;
mod error;
mod json;
mod limit;
mod metric;
mod net;
mod process;

pub use change::{DiskChange, LimitsChange};
pub use container::VolumeStore;
pub use container::{BindMount, BulkInfo, Capacity, ContainerInfo, ContainerSpec, ImageRef};
pub use error::{ApiError, CONTAINER_NOT_FOUND, EXECUTABLE_NOT_FOUND, PROCESS_NOT_FOUND};
pub use error::{SERVICE_UNAVAILABLE, UNRECOVERABLE};
pub use json::{decode, decode_list, encode, encode_line};
pub use limit::{BandwidthLimits, BlockIoLimits, CpuLimits, DiskLimits, Limits};
pub use limit::{MemoryLimits, PidLimits};
pub use metric::{BulkMetrics, CpuStat, DiskStat, MemoryStat, Metrics, NetworkStat, PidStat};
pub use net::{Icmp, IpRange, NetIn, NetOutRule, PortMapping, PortRange, protocol};
pub use process::{ProcessLimits, ProcessPayload, ProcessSpec, ResourceLimits, Tty, TtyWindow};
pub use process::{SIGNAL_KILL, SIGNAL_TERMINATE, SOURCE_STDIN, WaitFor};

/// Go's `omitempty` for numbers, strings, lists and booleans: tells whether a value is the zero.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
