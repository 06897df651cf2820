//! A change of limits as it is written down before anybody is told of it, so that a server that was
//! killed meanwhile leaves it to the next one: what the bundle says is then what holds.

use std::sync::Arc;

use guardian_contract::file::{read_json, replace_json};
use guardian_contract::garden::{BandwidthLimits, LimitsChange};
use guardian_contract::log;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::change::Wanted;
use crate::container::Container;
use crate::guardian::Guardian;

/// What was begun.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Unfinished {
    pub(super) change: LimitsChange,
    /// What held before.
    pub(super) before: Wanted,
    /// What was to hold of that which no bundle says.
    pub(super) bandwidth: BandwidthLimits,
}

impl Unfinished {
    /// Writes down that the change begins.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn begin(&self, container: &Container) -> anyhow::Result<()> {
        replace_json(&container.bundle.limits_change(), self)
    }

    /// Forgets it, when it is done or taken back.
    pub(super) fn end(container: &Container) {
        // One that stays is done once more, which changes nothing.
        let _ = std::fs::remove_file(container.bundle.limits_change());
    }
}

impl Guardian {
    /// Ends a change that a former server has begun, in the background.
    pub(crate) fn finish_change_later(self: &Arc<Self>, container: &Arc<Container>) {
        if !container.bundle.limits_change().exists() {
            return;
        }
        let (guardian, container) = (Arc::clone(self), Arc::clone(container));
        tokio::spawn(async move {
            let _one_at_a_time = container.changing.lock().await;
            guardian.finish_change(&container).await;
        });
    }

    /// Ends a change that a former server has begun, or that could not be taken back, if there is one.
    /// What can't be ended is logged, and does not stand in the way of another change.
    pub(super) async fn finish_change(&self, container: &Container) {
        if let Err(error) = self.try_finish_change(container).await {
            let handle = container.handle().as_str();
            let data = json!({"handle": handle, "error": format!("{error:#}")});
            log::error("limits.not-finished", &data);
        }
    }

    /// The bundle was to be changed last: if it was, the whole change holds, and else nothing of it.
    async fn try_finish_change(&self, container: &Container) -> anyhow::Result<()> {
        let path = container.bundle.limits_change();
        let Some(Unfinished { change, before, bandwidth }) = read_json(&path)? else {
            return Ok(());
        };
        // One that the former server began is waited for, or it finds nobody to answer and does nothing.
        self.settings.depot_tool.update(container.handle(), &change, true).await?;
        let before_bandwidth = before.bandwidth.clone();
        let mut now = Wanted::of(container, before_bandwidth)?;
        if serde_json::to_value(&now)? != serde_json::to_value(&before)? {
            now.bandwidth = bandwidth;
        }
        self.tell_all(container, &change, &now, &mut Vec::new()).await?;
        Unfinished::end(container);
        log::info("limits.finished", &json!({"handle": container.handle().as_str()}));
        Ok(())
    }
}
