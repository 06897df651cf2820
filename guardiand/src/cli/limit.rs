//! Flags that say what containers may use.

use clap::Args;

/// Limits.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// Refuse more containers than this; 0 is no limit
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) max_containers: u64,
    /// Microseconds of processor time per share and 100 ms; 0 is no cap
    #[arg(long, default_value_t = 0, value_name = "US")]
    pub(crate) cpu_quota_per_share: u64,
    /// Leave swap unlimited where memory is limited
    #[arg(long)]
    pub(crate) disable_swap_limit: bool,
    /// Block I/O weight of containers; 0 is the kernel's
    #[arg(long, default_value_t = 0, value_name = "WEIGHT", value_parser = weight)]
    pub(crate) default_container_blockio_weight: u16,
    /// Most bytes a container reads per second from each block device; 0 is no limit
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub(crate) container_io_max_read_bps: u64,
    /// Most bytes a container writes per second to each block device; 0 is no limit
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub(crate) container_io_max_write_bps: u64,
    /// Most reads of a container per second from each block device; 0 is no limit
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) container_io_max_read_iops: u64,
    /// Most writes of a container per second to each block device; 0 is no limit
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) container_io_max_write_iops: u64,
    /// Percent of a processor that one share is entitled to; 0 computes it
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    pub(crate) cpu_entitlement_per_share: f64,
}

/// What becomes of containers that use more processor time than they are entitled to.
#[derive(Debug, Args)]
#[command(next_help_heading = "CPU throttling")]
pub(crate) struct Throttling {
    /// While others want the processors, give a container that has used more time than it is
    /// entitled to no more than that
    #[arg(long)]
    pub(crate) enable_cpu_throttling: bool,
    /// Seconds between looks at what containers have used
    #[arg(long, default_value_t = 15, value_name = "SECONDS")]
    pub(crate) cpu_throttling_check_interval: u32,
}

/// As the runtime specification has it (config-linux.md, Block IO).
fn weight(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(weight) if weight == 0 || (10..=1000).contains(&weight) => Ok(weight),
        _ => Err("a weight is between 10 and 1000, or 0".into()),
    }
}
