//! What a container is asked to be, and what it is reported to be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::IdPolicy;

use super::{ApiError, Limits, NetIn, NetOutRule, PortMapping, is_zero};

/// The body of a create request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// The name; empty lets the server choose a UUID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub handle: String,
    /// Nanoseconds without a client before the container is destroyed; 0 is the server's default.
    #[serde(skip_serializing_if = "is_zero")]
    pub grace_time: i64,
    /// The deprecated way to name an image.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rootfs: String,
    /// The image.
    pub image: ImageRef,
    /// Host directories and files to show inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bind_mounts: Vec<BindMount>,
    /// Empty, `A`, or `A/N`: the subnet and address wanted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// The client's own notes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
    /// `K=V`, for every process but peas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// No user namespace, more capabilities.
    #[serde(skip_serializing_if = "is_zero")]
    pub privileged: bool,
    /// Ours: processes can't gain privileges by exec, whatever the server's flag says.
    #[serde(skip_serializing_if = "is_zero")]
    pub no_new_privileges: bool,
    /// Limits.
    pub limits: Limits,
    /// Outbound rules applied at create.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub netout_rules: Vec<NetOutRule>,
    /// Port mappings made at create.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub netin: Vec<NetIn>,
    /// Whose ids it gets, if not what the server gives by default; ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_policy: Option<IdPolicy>,
    /// Directories for what can't live on an overlay; ours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_stores: Vec<VolumeStore>,
}

/// A directory of its own for an engine inside the container, kept as long as the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeStore {
    /// `docker`, `kubelet`, `k0s`, `k3s`, `rke2`, `buildkit`, `containerd` or `custom`.
    pub kind: String,
    /// In the container; empty is where that program keeps its data.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dst_path: String,
}

/// An image and who may pull it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageRef {
    /// Where it is; empty is the server's default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Registry user.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Registry password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
}

/// Without the credentials.
impl std::fmt::Debug for ImageRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageRef").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// A host path shown inside a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindMount {
    /// On the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub src_path: String,
    /// In the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dst_path: String,
    /// 0 read-only, 1 read-write.
    #[serde(skip_serializing_if = "is_zero")]
    pub mode: u8,
    /// 0 host, 1 container; gdn takes both for host, and so do we.
    #[serde(skip_serializing_if = "is_zero")]
    pub origin: u8,
    /// Show the host's ids as those of an unprivileged container, without a change on disk; ours.
    #[serde(skip_serializing_if = "is_zero")]
    pub idmap: bool,
}

/// The answer to an info request; every member is always written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerInfo {
    /// `active` or `stopped`.
    pub state: String,
    /// What happened to it.
    pub events: Option<Vec<String>>,
    /// Address of the host end.
    #[serde(rename = "HostIP")]
    pub host_ip: String,
    /// The container's address.
    #[serde(rename = "ContainerIP")]
    pub container_ip: String,
    /// The container's IPv6 address.
    #[serde(rename = "ContainerIPv6")]
    pub container_ipv6: String,
    /// The host's address for mapped ports.
    #[serde(rename = "ExternalIP")]
    pub external_ip: String,
    /// The depot directory.
    pub container_path: String,
    /// The processes that run.
    #[serde(rename = "ProcessIDs")]
    pub process_ids: Option<Vec<String>>,
    /// All properties.
    pub properties: Option<BTreeMap<String, String>>,
    /// All port mappings.
    pub mapped_ports: Option<Vec<PortMapping>>,
}

/// One entry of a bulk info answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct BulkInfo {
    /// The zero info when there is an error.
    pub info: ContainerInfo,
    /// Why there is none.
    pub err: Option<ApiError>,
}

/// The answer to a capacity request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capacity {
    /// Bytes of memory.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_in_bytes: u64,
    /// Bytes of the depot's filesystem.
    #[serde(skip_serializing_if = "is_zero")]
    pub disk_in_bytes: u64,
    /// Bytes the image store may use.
    #[serde(skip_serializing_if = "is_zero")]
    pub schedulable_disk_in_bytes: u64,
    /// Containers.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_containers: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::garden::encode;

    #[test]
    fn the_empty_specification_is_what_the_go_client_sends() {
        assert_eq!(
            String::from_utf8(encode(&ContainerSpec::default()).unwrap()).unwrap(),
            r#"{"image":{},"limits":{"bandwidth_limits":{},"cpu_limits":{},"disk_limits":{},"memory_limits":{},"pid_limits":{}}}"#
        );
    }

    #[test]
    fn the_zero_info_is_what_gdn_sends() {
        assert_eq!(
            String::from_utf8(encode(&ContainerInfo::default()).unwrap()).unwrap(),
            r#"{"State":"","Events":null,"HostIP":"","ContainerIP":"","ContainerIPv6":"","ExternalIP":"","ContainerPath":"","ProcessIDs":null,"Properties":null,"MappedPorts":null}"#
        );
    }

    #[test]
    fn credentials_are_not_shown() {
        let image = ImageRef { uri: "u".into(), username: "bob".into(), password: "hush".into() };
        let shown = format!("{image:?}");
        assert!(!shown.contains("bob") && !shown.contains("hush"), "{shown}");
    }
}
