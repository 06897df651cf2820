//! Everything that a bundle is made from: what the client and the image want, what the operator
//! set, and what the host has.

use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_contract::depot::{Bundle, BundleSpec, Handle};
use guardian_contract::fault::Fault;
use guardian_contract::ids::{host_id, maximus, maximus_map};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::apparmor;
use crate::bind::Bind;
use crate::cli::Options;
use crate::host::Host;

/// Where init is inside every container.
pub(crate) const INIT: &str = "/tmp/garden-init";

/// The input of all rules.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The container's name.
    pub(crate) handle: Handle,
    /// What client and image want. `ids` holds the maps of an unprivileged container, and nothing
    /// for a privileged one.
    pub(crate) spec: BundleSpec,
    /// What the operator set.
    pub(crate) options: Options,
    /// What the host has.
    pub(crate) host: Host,
    /// The program that becomes pid 1.
    pub(crate) init: Bind,
    /// The client's bind mounts, then hosts and resolv.conf.
    pub(crate) binds: Vec<Bind>,
}

impl Wanted {
    /// Checks and completes a request. Nothing is written.
    pub(crate) fn gather(
        handle: &Handle,
        mut spec: BundleSpec,
        options: Options,
    ) -> anyhow::Result<Self> {
        check_root(&spec.root.path)?;
        spec.privileged |= options.privileged;
        complete_ids(&mut spec)?;
        if let Some(profile) = options.apparmor.as_deref().filter(|_| !spec.privileged) {
            apparmor::require(profile)?;
        }
        let init = init_program(options.init_bin.as_deref())?;
        Ok(Self {
            handle: handle.clone(),
            init: Bind::new(&init, Path::new(INIT), false).context("init program")?,
            binds: spec.bind_mounts.iter().map(Bind::wanted).collect::<Result<_, _>>()?,
            host: Host::read()?,
            spec,
            options,
        })
    }

    /// Gives a privileged container an init of its own, which it may change: its root is root here,
    /// and `chown -R … /tmp` is common there. All others see one program that they can't change.
    pub(crate) fn give_own_init(&mut self, bundle: &Bundle) -> anyhow::Result<()> {
        let own = bundle.init_program();
        // Where nothing may be executed, a copy would be of no use.
        if statvfs(bundle.path()).context("look at the depot")?.flags().contains(FsFlags::ST_NOEXEC)
        {
            return Ok(());
        }
        std::fs::copy(self.init.source(), &own)
            .with_context(|| format!("copy init to {}", own.display()))?;
        self.init = Bind::new(&own, Path::new(INIT), true).context("init program")?;
        Ok(())
    }

    /// Adds the bundle's own files, or for a pea its sandbox's, behind the client's bind mounts.
    /// They must exist by now.
    pub(crate) fn bind_own_files(&mut self, bundle: &Bundle) -> anyhow::Result<()> {
        let owner = match &self.spec.sandbox {
            Some(sandbox) => Bundle::at(bundle.handle().clone(), &sandbox.bundle),
            None => bundle.clone(),
        };
        for (source, destination) in
            [(owner.hosts(), "/etc/hosts"), (owner.resolv_conf(), "/etc/resolv.conf")]
        {
            self.binds.push(Bind::new(&source, Path::new(destination), true)?);
        }
        Ok(())
    }

    /// Tells whether no process may gain privileges by exec: the operator says so for unprivileged
    /// containers, a client for the container at hand.
    pub(crate) fn no_new_privileges(&self) -> bool {
        let by_operator = self.options.no_new_privileges && !self.spec.privileged;
        by_operator || self.spec.no_new_privileges
    }

    /// Returns the host's user and group behind root of the container.
    pub(crate) fn owner(&self) -> (u32, u32) {
        (host_id(&self.spec.ids.uid, 0), host_id(&self.spec.ids.gid, 0))
    }
}

fn check_root(path: &Path) -> anyhow::Result<()> {
    if path.as_os_str().is_empty() {
        return Err(Fault::invalid("request on stdin: root.path is missing").into());
    }
    let wrong = |why: &str| Fault::invalid(format!("root.path '{}' {why}", path.display()));
    if !path.is_absolute() {
        return Err(wrong("is not absolute").into());
    }
    match std::fs::metadata(path) {
        Ok(root) if root.is_dir() => Ok(()),
        Ok(_) => Err(wrong("is not a directory").into()),
        Err(error) => Err(error).with_context(|| wrong("can't be used")),
    }
}

/// Unprivileged containers get gdn's map unless the request has its own.
fn complete_ids(spec: &mut BundleSpec) -> anyhow::Result<()> {
    if spec.privileged {
        spec.ids = Default::default();
        return Ok(());
    }
    match (spec.ids.uid.is_empty(), spec.ids.gid.is_empty()) {
        (true, true) => {
            let map = std::fs::read_to_string("/proc/self/uid_map").context("read own id map")?;
            let maximus = maximus(&map).context("own id map is empty")?;
            // gdn takes the highest user id for groups too.
            let map = maximus_map(maximus, 1, maximus.saturating_sub(1));
            (spec.ids.uid, spec.ids.gid) = (map.clone(), map);
            Ok(())
        }
        (false, false) => Ok(()),
        _ => Err(Fault::invalid("request on stdin: ids has only one of uid and gid").into()),
    }
}

fn init_program(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    match given {
        Some(path) => std::path::absolute(path).context("find the init program"),
        None => {
            let own = std::env::current_exe().context("find own program")?;
            Ok(own.with_file_name("init"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guardian_contract::ids::{IdMapping, IdMaps};

    #[test]
    fn a_root_that_can_t_be_used_is_named() {
        for (path, want) in [
            ("", "request on stdin: root.path is missing"),
            ("rootfs", "root.path 'rootfs' is not absolute"),
            ("/no/such", "root.path '/no/such' can't be used"),
            ("/proc/version", "root.path '/proc/version' is not a directory"),
        ] {
            assert_eq!(check_root(Path::new(path)).unwrap_err().to_string(), want);
        }
        assert!(check_root(Path::new("/proc")).is_ok());
    }

    #[test]
    fn ids_are_completed() {
        let own = vec![IdMapping { container_id: 0, host_id: 100_000, size: 65_536 }];
        let both = IdMaps { uid: own.clone(), gid: own.clone() };
        let of = |privileged, ids: &IdMaps| {
            let mut spec = BundleSpec { privileged, ids: ids.clone(), ..BundleSpec::default() };
            complete_ids(&mut spec).map(|()| spec.ids)
        };
        assert_eq!(of(true, &both).unwrap(), IdMaps::default());
        assert_eq!(of(false, &both).unwrap(), both);
        assert_eq!(of(false, &IdMaps::default()).unwrap().uid[1].container_id, 1);
        assert!(of(false, &IdMaps { uid: own, gid: vec![] }).is_err());
    }
}
