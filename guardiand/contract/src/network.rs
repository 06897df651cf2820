//! The network plugin: `BIN <extra>* --action ACTION --handle H`, one JSON on stdin, as gdn calls
//! it; and what /etc/hosts and /etc/resolv.conf say, which plugin and caller must agree on.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::garden::{BandwidthLimits, NetIn, NetOutRule, is_zero};

/// Property: the container's address. Without it a container has no network.
pub const CONTAINER_IP: &str = "garden.network.container-ip";
/// Property: the container's IPv6 address.
pub const CONTAINER_IPV6: &str = "garden.network.container-ipv6";
/// Property: the address of the host end.
pub const HOST_IP: &str = "garden.network.host-ip";
/// Property: the host's address for mapped ports.
pub const EXTERNAL_IP: &str = "garden.network.external-ip";
/// Property: JSON list of [`crate::garden::PortMapping`].
pub const MAPPED_PORTS: &str = "garden.network.mapped-ports";
/// Property: the interface's name inside the container.
pub const INTERFACE: &str = "garden.network.interface";
/// Property: JSON of [`BandwidthLimits`], as they are enforced.
pub const BANDWIDTH: &str = "garden.network.bandwidth";

/// What `up` reads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Up {
    /// Host pid of the container's init; its network namespace is the container's.
    #[serde(rename = "Pid")]
    pub pid: i32,
    /// Request properties named `network.*` (prefix removed), and `log_config`.
    #[serde(rename = "Properties")]
    pub properties: BTreeMap<String, String>,
    /// Outbound rules of the create request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub netout_rules: Vec<NetOutRule>,
    /// Port mappings of the create request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub netin: Vec<NetIn>,
    /// The create request's `network` string. Ours; gdn's plugins ignore it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// A network namespace somebody else has prepared, by name below /run/netns or by path; it
    /// counts instead of the pid's. Ours; gdn's plugins ignore it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// How much may pass in each direction. Ours; gdn never hands it to its plugins.
    #[serde(skip_serializing_if = "is_zero")]
    pub bandwidth: BandwidthLimits,
}

/// What `up` and `limit` print; printing nothing at all is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpAnswer {
    /// Stored as container properties.
    #[serde(alias = "Properties")]
    pub properties: BTreeMap<String, String>,
    /// When present, even empty: the only name servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_servers: Option<Vec<String>>,
    /// When present: replaces the host's search domains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search_domains: Option<Vec<String>>,
}

/// What `limit` reads: another bandwidth for a container that is up. Ours; gdn's plugins have no such
/// action.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitRequest {
    /// Host pid of the container's init, as in [`Up`].
    #[serde(rename = "Pid")]
    pub pid: i32,
    /// A namespace that counts instead, as in [`Up`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// How much may pass in each direction; a rate of 0 is no limit.
    pub bandwidth: BandwidthLimits,
}

/// What `net-in` reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetInRequest {
    /// The host's external address.
    #[serde(rename = "HostIP")]
    pub host_ip: String,
    /// 0 lets the plugin choose.
    pub host_port: u32,
    /// The container's address.
    #[serde(rename = "ContainerIP")]
    pub container_ip: String,
    /// 0 means the same as the host port.
    pub container_port: u32,
}

/// What `net-out` reads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetOutRequest {
    /// The container's address.
    pub container_ip: String,
    /// The rule.
    pub netout_rule: NetOutRule,
}

/// What `bulk-net-out` reads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BulkNetOutRequest {
    /// The container's address.
    pub container_ip: String,
    /// The rules; gdn writes `null` for none.
    #[serde(deserialize_with = "or_default")]
    pub netout_rules: Vec<NetOutRule>,
}

/// Reads `null` as the default value.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Returns the text of /etc/hosts.
pub fn hosts(hostname: &str, ip: &str, ipv6: Option<&str>, additional: &[String]) -> String {
    let mut lines = vec!["127.0.0.1 localhost".to_owned()];
    lines.extend(ipv6.map(|_| "::1 localhost".to_owned()));
    lines.push(format!("{ip} {hostname}"));
    lines.extend(ipv6.map(|ipv6| format!("{ipv6} {hostname}")));
    lines.extend(additional.iter().cloned());
    lines.join("\n") + "\n"
}

/// Who answers names, from strongest to weakest say.
#[derive(Debug, Clone, Default)]
pub struct Resolver<'a> {
    /// The plugin's servers: when given, even empty, the only ones.
    pub plugin_servers: Option<&'a [String]>,
    /// The plugin's search domains: when given, they replace the host's.
    pub search_domains: Option<&'a [String]>,
    /// The operator's servers: when any, the host's file has no say.
    pub servers: &'a [IpAddr],
    /// The operator's additional servers.
    pub additional_servers: &'a [IpAddr],
    /// The text of the host's resolv.conf.
    pub host_file: &'a str,
    /// What replaces a host file that only names a loopback server.
    pub loopback_substitute: &'a str,
}

impl Resolver<'_> {
    /// Returns the text of the container's /etc/resolv.conf.
    pub fn text(&self) -> String {
        let server = |server: &dyn std::fmt::Display| format!("nameserver {server}");
        let mut lines: Vec<String> = match self.plugin_servers {
            Some(servers) => servers.iter().map(|name| server(name)).collect(),
            None if !self.servers.is_empty() => self.servers.iter().map(|ip| server(ip)).collect(),
            None => self.host_lines(),
        };
        if self.plugin_servers.is_none() {
            lines.extend(self.additional_servers.iter().map(|ip| server(ip)));
        }
        if let Some(domains) = self.search_domains {
            lines.push(format!("search {}", domains.join(" ")));
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn host_lines(&self) -> Vec<String> {
        let lines: Vec<&str> =
            self.host_file.trim().lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
        if let [only] = lines[..]
            && loopback_server(only)
        {
            return vec![format!("nameserver {}", self.loopback_substitute)];
        }
        lines.into_iter().filter_map(|line| self.host_line(line)).collect()
    }

    fn host_line(&self, line: &str) -> Option<String> {
        if line.starts_with("search") && self.search_domains.is_some() {
            return None;
        }
        if !line.starts_with("nameserver") {
            return Some(line.to_owned());
        }
        let mut words = line.split_whitespace();
        let (_, address, rest) = (words.next(), words.next()?, words.next());
        (rest.is_none() && !loopback_server(line)).then(|| format!("nameserver {address}"))
    }
}

/// Tells whether the line names a server on a loopback address.
fn loopback_server(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("nameserver") && words.next().is_some_and(|ip| ip.starts_with("127."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_the_container() {
        assert_eq!(hosts("h", "10.0.0.2", None, &[]), "127.0.0.1 localhost\n10.0.0.2 h\n");
        assert_eq!(
            hosts("h", "10.0.0.2", Some("fd::2"), &["1.2.3.4 x".into()]),
            "127.0.0.1 localhost\n::1 localhost\n10.0.0.2 h\nfd::2 h\n1.2.3.4 x\n"
        );
    }

    #[test]
    fn resolv_conf_follows_gdn_s_order_of_say() {
        let strings = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let one: Vec<IpAddr> = vec!["8.8.8.8".parse().unwrap()];
        let two: Vec<IpAddr> = vec!["9.9.9.9".parse().unwrap()];
        let plugin = strings(&["1.1.1.1"]);
        let search = strings(&["a", "b"]);
        let host = "search x\nnameserver 10.0.0.1\nnameserver 127.0.0.53\noptions y\n";
        let base =
            Resolver { host_file: host, loopback_substitute: "10.254.0.1", ..Resolver::default() };
        let cases = [
            (base.clone(), "search x\nnameserver 10.0.0.1\noptions y\n"),
            (
                Resolver { additional_servers: &two, ..base.clone() },
                "search x\nnameserver 10.0.0.1\noptions y\nnameserver 9.9.9.9\n",
            ),
            (
                Resolver { servers: &one, additional_servers: &two, ..base.clone() },
                "nameserver 8.8.8.8\nnameserver 9.9.9.9\n",
            ),
            (
                Resolver {
                    plugin_servers: Some(&plugin),
                    additional_servers: &two,
                    ..base.clone()
                },
                "nameserver 1.1.1.1\n",
            ),
            (Resolver { plugin_servers: Some(&[]), ..base.clone() }, ""),
            (
                Resolver { search_domains: Some(&search), ..base.clone() },
                "nameserver 10.0.0.1\noptions y\nsearch a b\n",
            ),
            (Resolver { host_file: "nameserver 127.0.0.11\n", ..base }, "nameserver 10.254.0.1\n"),
        ];
        for (resolver, want) in cases {
            assert_eq!(resolver.text(), want, "{resolver:?}");
        }
    }

    #[test]
    fn plugin_json_is_gdn_s() {
        let up =
            Up { pid: 42, properties: BTreeMap::from([("a".into(), "b".into())]), ..Up::default() };
        assert_eq!(serde_json::to_string(&up).unwrap(), r#"{"Pid":42,"Properties":{"a":"b"}}"#);
        let rules = BulkNetOutRequest {
            container_ip: "10.255.10.10".into(),
            netout_rules: vec![NetOutRule { protocol: 1, ..NetOutRule::default() }],
        };
        assert_eq!(
            serde_json::to_string(&rules).unwrap(),
            r#"{"container_ip":"10.255.10.10","netout_rules":[{"protocol":1}]}"#
        );
        let none = r#"{"container_ip":"10.255.10.10","netout_rules":null}"#;
        let none: BulkNetOutRequest = serde_json::from_str(none).unwrap();
        assert_eq!(none.netout_rules, []);
    }
}
