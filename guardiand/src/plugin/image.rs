//! Calls of the image plugins: one for unprivileged containers, one for privileged ones.

mod pull;
mod resize;
mod stats;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use guardian_contract::depot::{Handle, Root};
use guardian_contract::ids::IdMaps;
use guardian_contract::image::{Capacity, Create, Fragment, raw_path};
use guardian_contract::log;
use serde_json::json;

use crate::invoke::{Outcome, invoke};

/// A pull over a slow line takes minutes; only a stuck plugin takes longer than this.
const CREATE_DEADLINE: Duration = Duration::from_secs(3600);

/// Removing and measuring is local work.
const DEADLINE: Duration = Duration::from_secs(300);

/// A plugin, and whether it is our own.
pub(crate) type Choice = Option<(PathBuf, bool)>;

#[derive(Debug, Clone)]
struct Plugin {
    program: PathBuf,
    extra: Vec<OsString>,
    is_ours: bool,
}

/// The image plugins of this server.
#[derive(Debug)]
pub(crate) struct ImagePlugins {
    unprivileged: Option<Plugin>,
    privileged: Option<Plugin>,
}

impl ImagePlugins {
    /// Returns the two plugins with the arguments that come before their verbs.
    pub(crate) fn new(unprivileged: (Choice, &[String]), privileged: (Choice, &[String])) -> Self {
        let plugin = |(choice, extra): (Choice, &[String])| {
            choice.map(|(program, is_ours)| Plugin {
                program,
                extra: extra.iter().map(OsString::from).collect(),
                is_ours,
            })
        };
        Self { unprivileged: plugin(unprivileged), privileged: plugin(privileged) }
    }

    /// Returns the paths of the plugins, each under the name of its part.
    pub(crate) fn programs(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let unprivileged = self.unprivileged.iter().map(|plugin| ("image plugin", plugin));
        let privileged = self.privileged.iter().map(|plugin| ("privileged image plugin", plugin));
        unprivileged.chain(privileged).map(|(name, plugin)| (name, plugin.program.as_path()))
    }

    /// Returns the stores of our own plugins, as far as their arguments name them.
    pub(crate) fn stores(&self) -> Vec<PathBuf> {
        let of = |plugin: &Plugin| {
            let words: Vec<&str> = plugin.extra.iter().filter_map(|word| word.to_str()).collect();
            let joined = words.iter().find_map(|word| word.strip_prefix("--store="));
            let apart = words.windows(2).find(|pair| pair[0] == "--store").map(|pair| pair[1]);
            joined.or(apart).map(PathBuf::from)
        };
        self.distinct().filter_map(of).collect()
    }

    /// Makes the root filesystem of a container or pea. `ids` are the maps of an unprivileged
    /// one; `None` is privileged.
    ///
    /// # Errors
    /// In gdn's words, with all that the plugin printed.
    pub(crate) async fn create(
        &self,
        handle: &Handle,
        create: &Create,
        ids: Option<&IdMaps>,
    ) -> anyhow::Result<Fragment> {
        if let Some(path) = raw_path(&create.uri) {
            return Ok(Fragment { root: Root { path }, ..Fragment::default() });
        }
        let (plugin, kind) = match ids {
            Some(_) => (&self.unprivileged, "image_plugin"),
            None => (&self.privileged, "privileged_image_plugin"),
        };
        let Some(plugin) = plugin else {
            match self.unprivileged.is_none() && self.privileged.is_none() {
                true => bail!("no image plugin configured"),
                false => bail!("creating create command: no {kind} provided"),
            }
        };
        let mut args = plugin.extra.clone();
        if let (true, Some(ids)) = (plugin.is_ours, ids) {
            args.extend(mapping_flags(ids));
        }
        let (verb, stdin) = match plugin.is_ours {
            true => our_argv(create, handle),
            false => (create.argv(handle), Vec::new()),
        };
        args.extend(verb);
        let outcome = invoke(&plugin.program, &args, &stdin, CREATE_DEADLINE).await?;
        outcome.relog("image-plugin-create");
        plugin.check(&outcome, "create")?;
        serde_json::from_slice(&outcome.stdout).with_context(|| {
            format!("parsing image plugin create: {}", String::from_utf8_lossy(&outcome.stdout))
        })
    }

    /// Removes a root filesystem; one that was never made is no error. Both plugins are asked,
    /// as gdn does, because nobody keeps which one made it.
    ///
    /// # Errors
    /// In gdn's words.
    pub(crate) async fn delete(&self, handle: &Handle) -> anyhow::Result<()> {
        for plugin in self.distinct() {
            let outcome = plugin.call(&["delete".into(), handle.as_str().into()], &[]).await?;
            outcome.relog("image-plugin-destroy");
            plugin.check(&outcome, "destroy")?;
        }
        Ok(())
    }

    /// Returns how many bytes the store may use; `None` when no plugin tells.
    pub(crate) async fn capacity(&self) -> Option<u64> {
        let plugin = self.unprivileged.as_ref().or(self.privileged.as_ref())?;
        let outcome = plugin.call(&["capacity".into()], &[]).await.ok()?;
        if let Err(error) = plugin.check(&outcome, "capacity") {
            log::info("image-plugin-capacity", &json!({"error": format!("{error:#}")}));
            return None;
        }
        let capacity: Capacity = serde_json::from_slice(&outcome.stdout).ok()?;
        (capacity.capacity > 0).then_some(capacity.capacity)
    }

    /// The plugins, without asking the same one twice.
    fn distinct(&self) -> impl Iterator<Item = &Plugin> {
        let same = match (&self.unprivileged, &self.privileged) {
            (Some(one), Some(other)) => one.program == other.program && one.extra == other.extra,
            _ => false,
        };
        self.unprivileged.iter().chain(self.privileged.iter().filter(move |_| !same))
    }
}

impl Plugin {
    async fn call(&self, verb: &[OsString], stdin: &[u8]) -> anyhow::Result<Outcome> {
        let mut args = self.extra.clone();
        args.extend_from_slice(verb);
        invoke(&self.program, &args, stdin, DEADLINE).await
    }

    /// Makes a failure an error, in gdn's words with what the plugin said.
    fn check(&self, outcome: &Outcome, verb: &str) -> anyhow::Result<()> {
        if outcome.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&outcome.stdout);
        let said = match said.trim() {
            "" => outcome.complaint(),
            said => said.to_owned(),
        };
        let said = match said.is_empty() {
            true => format!("{} says nothing", self.program.display()),
            false => said,
        };
        bail!("running image plugin {verb}: {said}: {}", outcome.exit_text())
    }
}

/// Returns argv and stdin. An argv can be read by everybody on the host; grootfs knows no other way.
fn our_argv(create: &Create, handle: &Handle) -> (Vec<OsString>, Vec<u8>) {
    let mut create = create.clone();
    let password = std::mem::take(&mut create.password);
    let mut argv = create.argv(handle);
    if !password.is_empty() {
        argv.splice(1..1, ["--password-file", "-"].map(OsString::from));
    }
    if create.inode_limit > 0 {
        let scope = (create.exclude_image_from_quota && create.disk_limit_bytes == 0)
            .then(|| "--exclude-image-from-quota".into());
        let limit = ["--inode-limit".into(), create.inode_limit.to_string().into()];
        argv.splice(1..1, limit.into_iter().chain(scope));
    }
    (argv, password.into_bytes())
}

fn mapping_flags(ids: &IdMaps) -> impl Iterator<Item = OsString> {
    let of = |flag: &'static str, maps: &[guardian_contract::ids::IdMapping]| {
        maps.iter().map(|map| (flag, map.to_string())).collect::<Vec<_>>()
    };
    let flags = [of("--uid-mapping", &ids.uid), of("--gid-mapping", &ids.gid)].concat();
    flags.into_iter().flat_map(|(flag, map)| [OsString::from(flag), map.into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_on_stdin_and_not_in_argv() {
        let create = Create {
            username: "me".into(),
            password: "sesame".into(),
            uri: "docker:///x".into(),
            ..Create::default()
        };
        let (argv, stdin) = our_argv(&create, &"h".parse().unwrap());
        let want = ["create", "--password-file", "-", "--username", "me", "docker:///x", "h"];
        assert_eq!(argv, want.map(OsString::from));
        assert_eq!(stdin, b"sesame");
    }
}
