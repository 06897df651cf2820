//! Flags that grootfs has and we need not: whoever calls it may call us with them.

use std::path::PathBuf;

use clap::Args;

/// Before the verb. grootfs has helpers, and metrics of its own.
#[derive(Debug, Args)]
pub(super) struct Helpers {
    #[arg(long, hide = true, global = true)]
    tardis_bin: Option<PathBuf>,
    #[arg(long, hide = true, global = true)]
    newuidmap_bin: Option<PathBuf>,
    #[arg(long, hide = true, global = true)]
    newgidmap_bin: Option<PathBuf>,
    #[arg(long, hide = true, global = true)]
    metron_endpoint: Option<String>,
}

/// Of `create`. An image is always mounted: the answer is good for whoever would have done so.
#[derive(Debug, Args)]
pub(super) struct Mounting {
    #[arg(long, hide = true, conflicts_with = "without_mount")]
    with_mount: bool,
    #[arg(long, hide = true)]
    without_mount: bool,
}
