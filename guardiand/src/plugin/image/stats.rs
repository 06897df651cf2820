//! How much room root filesystems take. gdn's contract asks a plugin about one at a time; ours is
//! asked about all at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use guardian_contract::depot::Handle;
use guardian_contract::image::{BulkEntry, DiskUsage, Stats};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{ImagePlugins, Plugin};

/// How many calls of a plugin that knows no other way run at once.
const AT_ONCE: usize = 8;

/// What is known of each.
pub(crate) type Disks = BTreeMap<Handle, anyhow::Result<DiskUsage>>;

impl ImagePlugins {
    /// Returns how much room each of these takes: what the first plugin says that knows it, or the
    /// words of all of them.
    pub(crate) async fn bulk_stats(&self, handles: Vec<Handle>) -> Disks {
        let mut found = Disks::new();
        let mut complaints: BTreeMap<Handle, Vec<String>> =
            handles.into_iter().map(|handle| (handle, Vec::new())).collect();
        for plugin in self.distinct() {
            let wanted: Vec<Handle> = complaints.keys().cloned().collect();
            if wanted.is_empty() {
                break;
            }
            let said = match plugin.is_ours {
                true => ask_about_all(plugin, wanted).await,
                false => ask_one_by_one(plugin, wanted).await,
            };
            for (handle, result) in said {
                match result {
                    Ok(usage) => {
                        complaints.remove(&handle);
                        found.insert(handle, Ok(usage));
                    }
                    Err(error) => {
                        let of_it = complaints.entry(handle).or_default();
                        of_it.push(format!("{error:#}"));
                    }
                }
            }
        }
        found.extend(complaints.into_iter().map(|(handle, complaints)| {
            let all = complaints.join("; ");
            (handle, Err(anyhow::anyhow!("image plugin returned these errors: {all}")))
        }));
        found
    }
}

async fn ask_about_all(plugin: &Plugin, handles: Vec<Handle>) -> Disks {
    let ask = async {
        let list = serde_json::to_vec(&handles)?;
        let outcome = plugin.call(&["bulk-stats".into()], &list).await?;
        plugin.check(&outcome, "metrics")?;
        serde_json::from_slice::<BTreeMap<String, BulkEntry>>(&outcome.stdout)
            .context("parsing stats")
    };
    let answer: anyhow::Result<_> = ask.await;
    let of = |handle: &Handle| {
        let entries = answer.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        match entries.get(handle.as_str()) {
            Some(BulkEntry { disk_usage: Some(usage), .. }) => Ok(usage.clone()),
            Some(BulkEntry { error: Some(error), .. }) => bail!("{error}"),
            _ => bail!("nothing is said of {handle}"),
        }
    };
    handles.iter().map(|handle| (handle.clone(), of(handle))).collect()
}

async fn ask_one_by_one(plugin: &Plugin, handles: Vec<Handle>) -> Disks {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut calls = JoinSet::new();
    for handle in handles {
        let (plugin, room) = (plugin.clone(), Arc::clone(&room));
        calls.spawn(async move {
            // It is never closed.
            let _permit = room.acquire().await;
            let asked = ask(&plugin, &handle).await;
            (handle, asked)
        });
    }
    calls.join_all().await.into_iter().collect()
}

async fn ask(plugin: &Plugin, handle: &Handle) -> anyhow::Result<DiskUsage> {
    let outcome = plugin.call(&["stats".into(), handle.as_str().into()], &[]).await?;
    plugin.check(&outcome, "metrics")?;
    let stats: Stats = serde_json::from_slice(&outcome.stdout).context("parsing stats")?;
    Ok(stats.disk_usage)
}
