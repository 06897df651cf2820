//! The arguments of `update`, and the limits of block I/O and of bandwidth, which `create` takes too.

use clap::Args;
use guardian_contract::garden::{
    BandwidthLimits, BlockIoLimits, CpuLimits, DiskChange, LimitsChange, MemoryLimits, PidLimits,
};

use super::parse;

/// `update`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("limit").required(true).multiple(true).args(
    ["memory", "pids", "cpu_shares", "disk", "inodes", "rate", "io_weight", "io_read_bps",
     "io_write_bps", "io_read_iops", "io_write_iops"]
))]
pub(crate) struct UpdateArgs {
    /// The container
    pub(crate) handle: String,

    /// Not the container, but this pea in it, which was given limits of its own
    #[arg(long, value_name = "PROCESS")]
    pub(crate) pea: Option<String>,

    /// Most memory, in bytes or with k, M, G; 0 takes the limit away
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = parse::size)]
    memory: Option<u64>,

    /// Most tasks; 0 takes the limit away
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids: Option<u64>,

    /// Share of processor time, and with it the server's quota per share; 0 is as if never set
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    cpu_shares: Option<u64>,

    /// Most space on disk, with or without the image as when it was created; 0 takes the limit away
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = parse::size)]
    disk: Option<u64>,

    /// Most files and directories; 0 takes the limit away
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    inodes: Option<u64>,

    #[command(flatten)]
    bandwidth: BandwidthArgs,

    #[command(flatten)]
    block_io: BlockIoArgs,
}

/// Limits of network bandwidth.
#[derive(Debug, Args)]
pub(crate) struct BandwidthArgs {
    /// Most bytes per second from and to the network, each; 0 is no limit
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = parse::size)]
    rate: Option<u64>,

    /// Bytes that may pass at once before --rate counts; 64K at least
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = parse::size, requires = "rate")]
    burst: Option<u64>,
}

impl BandwidthArgs {
    /// Returns the limits if they were given.
    pub(crate) fn limits(&self) -> Option<BandwidthLimits> {
        let burst = self.burst.unwrap_or_default();
        self.rate.map(|rate| BandwidthLimits { rate, burst })
    }
}

/// Limits of block I/O.
#[derive(Debug, Args)]
pub(crate) struct BlockIoArgs {
    /// Share of a busy block device, 10 to 1000, against 100 of a container without this flag
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    io_weight: Option<u16>,

    /// Most bytes read per second from each block device
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = parse::size)]
    io_read_bps: Option<u64>,

    /// Most bytes written per second to each block device
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = parse::size)]
    io_write_bps: Option<u64>,

    /// Most reads per second from each block device
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    io_read_iops: Option<u64>,

    /// Most writes per second to each block device
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    io_write_iops: Option<u64>,
}

impl BlockIoArgs {
    /// Returns the limits that were given.
    pub(crate) fn limits(&self) -> BlockIoLimits {
        BlockIoLimits {
            weight: self.io_weight,
            read_bps: self.io_read_bps,
            write_bps: self.io_write_bps,
            read_iops: self.io_read_iops,
            write_iops: self.io_write_iops,
        }
    }
}

impl UpdateArgs {
    /// Returns the change that the API takes.
    pub(crate) fn change(&self) -> LimitsChange {
        let block_io = self.block_io.limits();
        let (byte_hard, inode_hard) = (self.disk, self.inodes);
        let disk = DiskChange { byte_hard, inode_hard, scope: None };
        LimitsChange {
            cpu: self.cpu_shares.map(|weight| CpuLimits { weight, limit_in_shares: 0 }),
            memory: self.memory.map(|limit_in_bytes| MemoryLimits { limit_in_bytes }),
            pid: self.pids.map(|max| PidLimits { max }),
            disk: (disk != DiskChange::default()).then_some(disk),
            bandwidth: self.bandwidth.limits(),
            block_io: (block_io != BlockIoLimits::default()).then_some(block_io),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Verb};

    fn change(words: &[&str]) -> Option<String> {
        let cli = Cli::try_parse_from([&["guardctl", "update", "h"], words].concat()).ok()?;
        let Verb::Update(args) = cli.verb else { panic!("not update") };
        serde_json::to_string(&args.change()).ok()
    }

    #[test]
    fn only_what_is_given_is_to_change() {
        for (words, want) in [
            (&["--memory", "64M"][..], r#"{"memory_limits":{"limit_in_bytes":67108864}}"#),
            (&["--memory", "0"], r#"{"memory_limits":{}}"#),
            (
                &["--pids", "5", "--cpu-shares=7"],
                r#"{"cpu_limits":{"weight":7},"pid_limits":{"max":5}}"#,
            ),
            (
                &["--disk=1k", "--rate", "2k"],
                r#"{"disk_limits":{"byte_hard":1024},"bandwidth_limits":{"rate":2048}}"#,
            ),
            (&["--inodes=0"], r#"{"disk_limits":{"inode_hard":0}}"#),
            (&["--io-weight", "500"], r#"{"block_io_limits":{"weight":500}}"#),
        ] {
            assert_eq!(change(words).as_deref(), Some(want));
        }
        let negative = Cli::try_parse_from(["guardctl", "update", "h", "--memory", "-1"]);
        assert!(negative.unwrap_err().to_string().contains("not a size such as 64M"));
        assert_eq!(change(&[]), None, "nothing to change");
        assert_eq!(change(&["--burst=1M", "--pids=5"]), None, "a burst of what?");
    }
}
