//! The container's /etc/hosts and /etc/resolv.conf, written into its bundle.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use guardian_contract::depot::Depot;
use guardian_contract::network::{Resolver, hosts};

use crate::cli::Settings;
use crate::lease::Lease;

const HOST_FILE: &str = "/etc/resolv.conf";

/// Writes both files below `depot`.
pub(crate) fn write(depot: &Path, settings: &Settings, lease: &Lease) -> anyhow::Result<()> {
    let bundle = Depot::at(depot).bundle(&lease.handle);
    let host_file =
        std::fs::read_to_string(HOST_FILE).with_context(|| format!("read {HOST_FILE}"))?;
    let gateway = lease.place.subnet.gateway().to_string();
    let resolver = Resolver {
        servers: &settings.policy.dns_servers,
        additional_servers: &settings.additional_dns_servers,
        host_file: &host_file,
        loopback_substitute: &gateway,
        ..Resolver::default()
    };
    let address = lease.place.address.to_string();
    let ipv6 = lease.place6().map(|place| place.address.to_string());
    let hosts = hosts(
        lease.handle.hostname(),
        &address,
        ipv6.as_deref(),
        &settings.additional_host_entries,
    );
    write_in_place(&bundle.hosts(), &hosts)?;
    write_in_place(&bundle.resolv_conf(), &resolver.text())
}

/// Replaces the content, not the file: the container has that very inode mounted.
fn write_in_place(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("write {}", path.display()))
}
