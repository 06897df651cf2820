//! What one container holds: its place, its links, its port mappings, its rules. One JSON file per handle.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::garden::{NetOutRule, PortMapping};
use guardian_contract::{file, network};
use serde::{Deserialize, Serialize};

use crate::address::Place;
use crate::bandwidth::Bandwidth;
use crate::name::short;
use crate::subnet6::{Place6, Subnet6};

/// A host port that leads into the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mapping {
    /// The host's address the port is on.
    pub(crate) host_ip: Ipv4Addr,
    /// The port there.
    pub(crate) host_port: u16,
    /// The port in the container.
    pub(crate) container_port: u16,
}

/// The life of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// `up` is at work, or was killed.
    Building,
    /// The container has its network.
    Up,
    /// `down` was answered; the kernel takes its time to delete rules and links.
    Going,
}

/// All that has to be undone when the container goes. It is written before any of it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// Whose it is.
    pub(crate) handle: Handle,
    /// How far it has come.
    pub(crate) stage: Stage,
    /// The container's network namespace, by inode number.
    pub(crate) netns: u64,
    /// The container's address and subnet.
    #[serde(flatten)]
    pub(crate) place: Place,
    /// The host's address for mapped ports.
    pub(crate) external_ip: Ipv4Addr,
    /// The MTU of both ends.
    pub(crate) mtu: u32,
    /// The link's name on the host.
    pub(crate) host_interface: String,
    /// The link's name in the container.
    pub(crate) container_interface: String,
    /// The bridge the host end is attached to; a subnet for one has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bridge: Option<String>,
    /// The port mappings, in the order they were made.
    #[serde(default)]
    pub(crate) mappings: Vec<Mapping>,
    /// Where its IPv6 address comes from, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ipv6_pool: Option<Subnet6>,
    /// How much may pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bandwidth: Option<Bandwidth>,
    /// The outbound rules, in the order they were added; the last one is asked first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) outbound: Vec<NetOutRule>,
}

impl Lease {
    /// Returns the interface that routes to the container.
    pub(crate) fn gateway_interface(&self) -> &str {
        self.bridge.as_deref().unwrap_or(&self.host_interface)
    }

    /// Returns the container's IPv6 place, if it has one.
    pub(crate) fn place6(&self) -> Option<Place6> {
        self.ipv6_pool.map(|pool| pool.beside(self.place))
    }

    /// Returns the properties `up` answers with: Garden's, and gdn's own where we have the thing.
    pub(crate) fn properties(&self) -> BTreeMap<String, String> {
        let mappings: Vec<PortMapping> = self.mappings.iter().map(Mapping::reported).collect();
        let mappings = serde_json::json!(mappings).to_string();
        let mut properties = vec![
            (network::CONTAINER_IP, self.place.address.to_string()),
            (network::HOST_IP, self.place.subnet.gateway().to_string()),
            (network::EXTERNAL_IP, self.external_ip.to_string()),
            (network::MAPPED_PORTS, mappings),
            (network::INTERFACE, self.container_interface.clone()),
            ("kawasaki.host-interface", self.host_interface.clone()),
            ("kawasaki.container-interface", self.container_interface.clone()),
            ("kawasaki.subnet", self.place.subnet.to_string()),
            ("kawasaki.mtu", self.mtu.to_string()),
        ];
        properties.extend(self.bridge.clone().map(|name| ("kawasaki.bridge-interface", name)));
        let ipv6 = self.place6().map(|place| (network::CONTAINER_IPV6, place.address.to_string()));
        properties.extend(ipv6);
        properties
            .extend(self.bandwidth.map(|limit| {
                (network::BANDWIDTH, serde_json::json!(limit.reported()).to_string())
            }));
        properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

impl Mapping {
    /// Returns the mapping as Garden reports it.
    pub(crate) fn reported(&self) -> PortMapping {
        PortMapping { host_port: self.host_port.into(), container_port: self.container_port.into() }
    }
}

/// The directory of lease files.
#[derive(Debug, Clone)]
pub(crate) struct Leases(PathBuf);

impl Leases {
    /// Returns the leases kept in `dir`; nothing is touched yet.
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// Makes the directory.
    pub(crate) fn make_dir(&self) -> anyhow::Result<()> {
        file::private_dir(&self.0)
    }

    /// Returns the lease of `handle`, if there is one.
    pub(crate) fn load(&self, handle: &Handle) -> anyhow::Result<Option<Lease>> {
        Ok(self.load_short(handle)?.filter(|lease| lease.handle == *handle))
    }

    /// Returns the lease under the short name of `handle`. As good as never it is another
    /// handle's; all our names are made of the short one, so the two can't live side by side.
    pub(crate) fn load_short(&self, handle: &Handle) -> anyhow::Result<Option<Lease>> {
        file::read_json(&self.path(handle))
    }

    /// Writes a lease.
    pub(crate) fn save(&self, lease: &Lease) -> anyhow::Result<()> {
        file::replace_json(&self.path(&lease.handle), lease)
    }

    /// Locks a lease that is going, for who takes it apart; `None` when it has gone. Its holder must
    /// not open the state before letting go: others wait for it with the state open.
    pub(crate) fn lock(&self, handle: &Handle) -> anyhow::Result<Option<File>> {
        let path = self.path(handle);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.with_context(|| format!("open {}", path.display()))?,
        };
        file.lock().with_context(|| format!("lock {}", path.display()))?;
        Ok(Some(file))
    }

    /// Tells whether `file` is the lease that `handle` has now, and not one it had before.
    pub(crate) fn is_current(&self, handle: &Handle, file: &File) -> bool {
        let inode = |metadata: std::io::Result<Metadata>| metadata.ok().map(|m| m.ino());
        let now = inode(std::fs::metadata(self.path(handle)));
        now.is_some() && now == inode(file.metadata())
    }

    /// Removes a lease; an absent one is fine.
    pub(crate) fn remove(&self, handle: &Handle) -> anyhow::Result<()> {
        match std::fs::remove_file(self.path(handle)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove the lease of {handle}"))
            }
            _ => Ok(()),
        }
    }

    /// Removes all leases without reading them.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        for path in self.files()? {
            std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(())
    }

    /// Returns all leases, by handle.
    pub(crate) fn all(&self) -> anyhow::Result<Vec<Lease>> {
        let mut leases = Vec::new();
        for path in self.files()? {
            // Between the listing and the reading a lease may go.
            leases.extend(file::read_json::<Lease>(&path)?);
        }
        leases.sort_by(|a, b| a.handle.cmp(&b.handle));
        Ok(leases)
    }

    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context("list the leases"),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.context("list the leases")?.path();
            // A writer that was killed may have left its temporary, which has another extension.
            if path.extension().is_some_and(|extension| extension == "json") {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// A handle may be too long for a file name.
    fn path(&self, handle: &Handle) -> PathBuf {
        self.0.join(format!("{}.json", short(handle)))
    }
}
