//! `rootfs bulk-stats`: how much room many images take, for the price of one call.

use std::collections::BTreeMap;

use guardian_contract::image::BulkEntry;

use crate::stats::stats;
use crate::store::{self, Store};

/// Measures the images of these ids. What is wrong with one is said of that one.
pub(crate) fn bulk_stats(store: &Store, ids: Vec<String>) -> BTreeMap<String, BulkEntry> {
    let measure = |id: &str| match store::parse_id(id).and_then(|id| stats(store, &id)) {
        Ok(stats) => BulkEntry { disk_usage: Some(stats.disk_usage), error: None },
        Err(error) => BulkEntry { disk_usage: None, error: Some(format!("{error:#}")) },
    };
    let entries = ids.into_iter().map(|id| {
        let entry = measure(&id);
        (id, entry)
    });
    entries.collect()
}
