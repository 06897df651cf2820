//! Connecting a container, and what the network plugin says afterwards.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use guardian_contract::garden::{BandwidthLimits, ContainerSpec, NetIn, NetOutRule, PortMapping};
use guardian_contract::network::{
    self, CONTAINER_IP, CONTAINER_IPV6, EXTERNAL_IP, HOST_IP, MAPPED_PORTS, NetInRequest,
    NetOutRequest, Resolver, Up, UpAnswer,
};

use super::Container;
use crate::guardian::Guardian;

impl Guardian {
    /// Connects a new container and writes its hosts and resolv.conf.
    pub(crate) async fn connect(
        &self,
        container: &Container,
        spec: &ContainerSpec,
        pid: i32,
    ) -> anyhow::Result<()> {
        let up = Up {
            pid,
            properties: plugin_properties(&spec.properties),
            netout_rules: spec.netout_rules.clone(),
            netin: spec.netin.clone(),
            network: spec.network.clone(),
            namespace: String::new(),
            bandwidth: spec.limits.bandwidth.clone(),
        };
        let answer = self.settings.network.up(container.handle(), &up).await?;
        container.properties.change(|map| {
            map.insert(EXTERNAL_IP.into(), self.host.external_ip.clone());
            map.extend(answer.properties.clone());
        })?;
        match container.properties.get(CONTAINER_IP) {
            Some(ip) => self.write_names(container, &answer, &ip),
            None => Ok(()),
        }
    }

    fn write_names(
        &self,
        container: &Container,
        answer: &UpAnswer,
        ip: &str,
    ) -> anyhow::Result<()> {
        let flags = &self.settings.flags.network;
        let ipv6 = container.properties.get(CONTAINER_IPV6);
        // gdn's rule: a foreign plugin's containers get no additional entries.
        let additional = match flags.network_plugin {
            None => flags.additional_host_entry.as_slice(),
            Some(_) => &[],
        };
        let hostname = container.handle().hostname();
        let hosts = network::hosts(hostname, ip, ipv6.as_deref(), additional);
        write_in_place(&container.bundle.hosts(), &hosts)?;

        let host_file = std::fs::read_to_string("/etc/resolv.conf").context("/etc/resolv.conf")?;
        let host_ip = container.properties.get(HOST_IP).unwrap_or_else(|| ip.to_owned());
        let resolver = Resolver {
            plugin_servers: answer.dns_servers.as_deref(),
            search_domains: answer.search_domains.as_deref(),
            servers: &flags.dns_server,
            additional_servers: &flags.additional_dns_server,
            host_file: &host_file,
            loopback_substitute: &host_ip,
        };
        write_in_place(&container.bundle.resolv_conf(), &resolver.text())
    }

    /// Maps a port and records it.
    pub(crate) async fn net_in(&self, container: &Container, ask: NetIn) -> anyhow::Result<NetIn> {
        let request = NetInRequest {
            host_ip: container.properties.get(EXTERNAL_IP).unwrap_or_default(),
            host_port: ask.host_port,
            container_ip: container_ip(container)?,
            container_port: ask.container_port,
        };
        let made = self.settings.network.net_in(container.handle(), &request).await?;
        let mapping =
            PortMapping { host_port: made.host_port, container_port: made.container_port };
        container.properties.change(|map| {
            let mut all = map.get(MAPPED_PORTS).map(|text| parse_ports(text)).unwrap_or_default();
            all.push(mapping);
            let text = serde_json::to_string(&all).unwrap_or_default();
            map.insert(MAPPED_PORTS.into(), text);
        })?;
        Ok(made)
    }

    /// Lets outbound traffic through.
    pub(crate) async fn net_out(
        &self,
        container: &Container,
        rule: NetOutRule,
    ) -> anyhow::Result<()> {
        let ask = NetOutRequest { container_ip: container_ip(container)?, netout_rule: rule };
        self.settings.network.net_out(container.handle(), &ask).await
    }

    /// Lets outbound traffic through, all rules or none.
    pub(crate) async fn bulk_net_out(
        &self,
        container: &Container,
        rules: Vec<NetOutRule>,
    ) -> anyhow::Result<()> {
        let ip = container_ip(container)?;
        self.settings.network.bulk_net_out(container.handle(), ip, rules).await
    }
}

/// Parses what the network plugin says it enforces; anything else is no limit.
pub(crate) fn parse_bandwidth(text: &str) -> BandwidthLimits {
    serde_json::from_str(text).unwrap_or_default()
}

/// Parses a mapped-ports property; anything else is no ports.
pub(crate) fn parse_ports(text: &str) -> Vec<PortMapping> {
    serde_json::from_str(text).unwrap_or_default()
}

fn container_ip(container: &Container) -> anyhow::Result<String> {
    let ip = container.properties.get(CONTAINER_IP);
    ip.with_context(|| format!("cannot find container [{}]\n", container.handle()))
}

/// The plugin sees what the client addressed to it: properties named `network.*`, without that
/// prefix, and `log_config`.
fn plugin_properties(all: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let seen = all.iter().filter_map(|(name, value)| match name.strip_prefix("network.") {
        Some(name) => Some((name.to_owned(), value.clone())),
        None => (name == "log_config").then(|| (name.clone(), value.clone())),
    });
    seen.collect()
}

/// The file is bind-mounted in the container: a new one at its name would not be seen there.
fn write_in_place(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_sees_only_its_own_properties() {
        let all = [("network.a", "1"), ("log_config", "2"), ("secret", "3"), ("network.", "4")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()));
        let seen = plugin_properties(&BTreeMap::from(all));
        assert_eq!(
            seen.into_iter().collect::<Vec<_>>(),
            [
                (String::new(), "4".to_owned()),
                ("a".to_owned(), "1".to_owned()),
                ("log_config".to_owned(), "2".to_owned()),
            ]
        );
    }
}
