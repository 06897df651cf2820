//! The arguments of `resize`.

use clap::Args;
use guardian_contract::run::Answer;

use crate::config::disk_limit;
use crate::resize::{self, Change};
use crate::store::Store;

/// `resize`
#[derive(Debug, Args)]
pub(super) struct Resize {
    /// Most bytes the container may use; 0 is no limit
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    disk_limit_size_bytes: Option<i64>,
    /// Most files, directories and so on the container may have; 0 is no limit
    #[arg(long, value_name = "N")]
    inode_limit: Option<u64>,
    /// Count only the container's own writes in what is given here, not its image; as in create
    #[arg(long)]
    exclude_image_from_quota: bool,
    /// Id or path of the image
    image: String,
}

impl Resize {
    /// Changes the limits, and prints what `stats` does.
    pub(super) fn run(&self, store: &Store) -> anyhow::Result<Answer> {
        let change = Change {
            bytes: self.disk_limit_size_bytes.map(disk_limit).transpose()?,
            inodes: self.inode_limit,
            is_exclusive: self.exclude_image_from_quota,
        };
        let id = super::known(store, &self.image)?;
        Answer::json(&resize::resize(store, &id, change)?)
    }
}
