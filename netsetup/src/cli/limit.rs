//! The arguments of `limit`.

use clap::Args;
use guardian_contract::garden::BandwidthLimits;
use guardian_contract::network::LimitRequest;

/// Another bandwidth.
#[derive(Debug, Args)]
pub(crate) struct Ceiling {
    /// A process in the container's network namespace
    #[arg(long, value_name = "PID", required_unless_present = "netns")]
    pid: Option<i32>,
    /// The namespace itself: a name below /run/netns, or a path
    #[arg(long, value_name = "NAME|PATH", conflicts_with = "pid")]
    netns: Option<String>,
    /// Let no more bytes pass in a second, in each direction; 0 is no limit
    #[arg(long, value_name = "BYTES")]
    rate: u64,
    /// Let this many bytes pass at once before --rate counts; 64 KiB at least
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    burst: u64,
}

impl From<Ceiling> for LimitRequest {
    fn from(ceiling: Ceiling) -> Self {
        Self {
            pid: ceiling.pid.unwrap_or_default(),
            namespace: ceiling.netns.unwrap_or_default(),
            bandwidth: BandwidthLimits { rate: ceiling.rate, burst: ceiling.burst },
        }
    }
}
