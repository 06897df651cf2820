//! Another disk limit for a container that is there: a verb that only our own plugin has.

use std::ffi::OsString;

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::garden::{DiskChange, DiskLimits};

use super::{ImagePlugins, Plugin};

impl ImagePlugins {
    /// Tells whether the plugin of these containers can change limits. Nobody else's is asked: it
    /// could take the verb for something it knows.
    ///
    /// # Errors
    /// `Unsupported` when it can't.
    pub(crate) fn check_resize(&self, is_privileged: bool) -> anyhow::Result<()> {
        self.resizer(is_privileged).map(drop)
    }

    /// Makes those of `limits` hold that a change is about.
    ///
    /// # Errors
    /// With the plugin's own words: when more is used, or nothing can hold the limit.
    pub(crate) async fn resize(
        &self,
        handle: &Handle,
        is_privileged: bool,
        change: DiskChange,
        limits: &DiskLimits,
    ) -> anyhow::Result<()> {
        let argv = argv(handle, change, limits);
        let plugin = self.resizer(is_privileged)?;
        let outcome = plugin.call(&argv, &[]).await?;
        outcome.relog("image-plugin-resize");
        plugin.check(&outcome, "resize")
    }

    fn resizer(&self, is_privileged: bool) -> anyhow::Result<&Plugin> {
        let plugin = if is_privileged { &self.privileged } else { &self.unprivileged };
        let plugin = plugin.as_ref().context(Fault::unsupported(
            "disk_limits of a container that is there can't be changed: there is no image plugin",
        ))?;
        match plugin.is_ours {
            true => Ok(plugin),
            false => Err(Fault::unsupported(format!(
                "disk_limits of a container that is there can't be changed: the image plugin {} is \
                 not guardian's rootfs, and has no verb for it",
                plugin.program.display()
            ))
            .into()),
        }
    }
}

/// Another scope is another limit for all that is limited.
fn argv(handle: &Handle, change: DiskChange, limits: &DiskLimits) -> Vec<OsString> {
    let mut argv: Vec<OsString> = vec!["resize".into()];
    for (flag, given, limit) in [
        ("--disk-limit-size-bytes", change.byte_hard, limits.byte_hard),
        ("--inode-limit", change.inode_hard, limits.inode_hard),
    ] {
        if given.is_some() || change.scope.is_some() && limit > 0 {
            argv.extend([flag.into(), limit.to_string().into()]);
        }
    }
    if limits.scope == 1 {
        argv.push("--exclude-image-from-quota".into());
    }
    argv.push(handle.as_str().into());
    argv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_to_change_is_not_named() {
        let limits = DiskLimits { byte_hard: 5, scope: 1, ..DiskLimits::default() };
        for (change, want) in [
            (r#"{"byte_hard":9}"#, "resize --disk-limit-size-bytes 5 --exclude-image-from-quota h"),
            (r#"{"inode_hard":0}"#, "resize --inode-limit 0 --exclude-image-from-quota h"),
            (r#"{"scope":1}"#, "resize --disk-limit-size-bytes 5 --exclude-image-from-quota h"),
        ] {
            let change = serde_json::from_str(change).unwrap();
            let argv = argv(&"h".parse().unwrap(), change, &limits);
            assert_eq!(argv.join(" ".as_ref()), want);
        }
    }
}
