//! Port mappings and outbound rules.

use serde::{Deserialize, Serialize};

use super::is_zero;

/// Values of [`NetOutRule::protocol`].
pub mod protocol {
    /// Every protocol.
    pub const ALL: u8 = 0;
    /// TCP.
    pub const TCP: u8 = 1;
    /// UDP.
    pub const UDP: u8 = 2;
    /// ICMP.
    pub const ICMP: u8 = 3;
    /// ICMPv6.
    pub const ICMPV6: u8 = 4;
}

/// A port mapping as asked for and as answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetIn {
    /// 0 lets the server choose.
    pub host_port: u32,
    /// 0 means the same as the host port.
    pub container_port: u32,
}

/// A port mapping as reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortMapping {
    /// Port on the host's external address.
    pub host_port: u32,
    /// Port in the container.
    pub container_port: u32,
}

/// What outbound traffic is let through; the zero rule is all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetOutRule {
    /// One of [`protocol`].
    #[serde(skip_serializing_if = "is_zero")]
    pub protocol: u8,
    /// Destinations; none means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<IpRange>,
    /// Destination ports, TCP and UDP only; none means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
    /// ICMP type and code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmps: Option<Icmp>,
    /// Whether to log each new connection.
    #[serde(skip_serializing_if = "is_zero")]
    pub log: bool,
}

/// Addresses from `start` to `end`, both included; one alone is a single address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpRange {
    /// First address, as text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub start: String,
    /// Last address, as text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub end: String,
}

/// Ports from `start` to `end`, both included; one alone is a single port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortRange {
    /// First port.
    #[serde(skip_serializing_if = "is_zero")]
    pub start: u16,
    /// Last port.
    #[serde(skip_serializing_if = "is_zero")]
    pub end: u16,
}

/// ICMP type and code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Icmp {
    /// Type.
    #[serde(rename = "type", skip_serializing_if = "is_zero")]
    pub kind: u8,
    /// Code; not given means every code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
}
