//! What the command line means: paths made whole, siblings found, programs with their arguments.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_contract::depot::Depot;

use crate::cli;
use crate::plugin::{
    depot::DepotTool, idmgr, image::ImagePlugins, network::NetworkPlugin, runtime,
};

/// All that does not change while the server runs.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The flags as given.
    pub(crate) flags: cli::Server,
    /// Where bundles are.
    pub(crate) depot: Depot,
    /// Makes and removes bundles.
    pub(crate) depot_tool: DepotTool,
    /// Makes and removes root filesystems.
    pub(crate) images: ImagePlugins,
    /// Makes and removes links, addresses and rules.
    pub(crate) network: NetworkPlugin,
    /// The OCI runtime.
    pub(crate) runtime: runtime::Runtime,
    /// Keeps processes.
    pub(crate) dadoo: PathBuf,
    /// Streams files.
    pub(crate) nstar: PathBuf,
    /// Who gives ids to unprivileged containers.
    pub(crate) ids: idmgr::Ids,
    /// First process of every container.
    init: PathBuf,
}

impl Settings {
    /// Resolves the flags.
    ///
    /// # Errors
    /// When a program is missing or the host's ids can't be read.
    pub(crate) async fn resolve(flags: cli::Server) -> anyhow::Result<Self> {
        let beside = std::env::current_exe().context("find our own executable")?;
        let beside = beside.parent().unwrap_or(Path::new("/")).to_owned();
        let sibling = |given: &Option<PathBuf>, name: &str| match given {
            Some(path) => present(path),
            None => present(&beside.join(name)),
        };
        let init = sibling(&flags.tools.init_bin, "init")?;
        let ids = idmgr::Ids::new(sibling(&flags.tools.idmgr_bin, "idmgr")?, &flags).await?;
        Ok(Self {
            depot: Depot::at(std::path::absolute(&flags.lifecycle.depot)?),
            depot_tool: DepotTool::new(sibling(&flags.tools.depot_bin, "depot")?, &init, &flags)?,
            images: image_plugins(&flags.image, &beside)?,
            network: network_plugin(&flags, &beside)?,
            runtime: runtime::Runtime::new(&flags.tools),
            dadoo: sibling(&flags.tools.dadoo_bin, "dadoo")?,
            nstar: sibling(&flags.tools.nstar_bin, "nstar")?,
            ids,
            init,
            flags,
        })
    }

    /// Returns all programs that are called, each under the name of its part.
    pub(crate) fn programs(&self) -> Vec<(&'static str, &Path)> {
        let mut programs = vec![
            ("runtime", self.runtime.program.as_path()),
            ("dadoo", &self.dadoo),
            ("init", &self.init),
            ("nstar", &self.nstar),
            ("depot", self.depot_tool.program()),
            ("idmgr", self.ids.program()),
            ("network plugin", self.network.program()),
        ];
        programs.extend(self.images.programs());
        programs
    }
}

fn present(path: &Path) -> anyhow::Result<PathBuf> {
    let meta = std::fs::metadata(path).with_context(|| format!("program {}", path.display()))?;
    anyhow::ensure!(meta.is_file(), "program {} is not a file", path.display());
    Ok(std::path::absolute(path)?)
}

fn image_plugins(flags: &cli::Image, beside: &Path) -> anyhow::Result<ImagePlugins> {
    let ours = beside.join("rootfs");
    let choose = |given: &Option<PathBuf>| match given {
        Some(path) => present(path).map(|path| Some((path, false))),
        None if flags.no_image_plugin || !ours.is_file() => Ok(None),
        None => Ok(Some((ours.clone(), true))),
    };
    Ok(ImagePlugins::new(
        (choose(&flags.image_plugin)?, &flags.image_plugin_extra_arg),
        (choose(&flags.privileged_image_plugin)?, &flags.privileged_image_plugin_extra_arg),
    ))
}

fn network_plugin(flags: &cli::Server, beside: &Path) -> anyhow::Result<NetworkPlugin> {
    if let Some(path) = &flags.network.network_plugin {
        let extra = flags.network.network_plugin_extra_arg.iter().map(OsString::from).collect();
        return Ok(NetworkPlugin::foreign(present(path)?, extra));
    }
    let network = &flags.network;
    let mut args: Vec<OsString> = Vec::new();
    let mut flag = |name: &str, value: &dyn std::fmt::Display| {
        args.extend([OsString::from(name), value.to_string().into()]);
    };
    flag("--network-pool", &network.network_pool);
    flag("--port-pool-start", &network.port_pool_start);
    flag("--port-pool-size", &network.port_pool_size);
    flag("--mtu", &network.mtu);
    network.deny_network.iter().for_each(|cidr| flag("--deny-network", cidr));
    network.dns_server.iter().for_each(|ip| flag("--dns-server", ip));
    network.external_ip.iter().for_each(|ip| flag("--external-ip", ip));
    if !flags.listen.tag.is_empty() {
        flag("--tag", &flags.listen.tag);
    }
    let state = network_state(&flags.lifecycle.depot)?;
    flag("--state-dir", &state.display());
    if network.allow_host_access {
        args.push("--allow-host-access".into());
    }
    args.extend(network.network_plugin_extra_arg.iter().map(OsString::from));
    Ok(NetworkPlugin::ours(present(&beside.join("netsetup"))?, args))
}

/// The network state of a depot: beside it, hidden, so that two daemons with two depots never
/// share leases by accident.
fn network_state(depot: &Path) -> anyhow::Result<PathBuf> {
    let depot = std::path::absolute(depot)?;
    let name = depot.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(depot.with_file_name(format!(".{name}-network")))
}
