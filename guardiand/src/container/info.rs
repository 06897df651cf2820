//! What a container is reported to be.

use guardian_contract::garden::ContainerInfo;
use guardian_contract::network::{
    CONTAINER_IP, CONTAINER_IPV6, EXTERNAL_IP, HOST_IP, MAPPED_PORTS,
};

use super::network::parse_ports;
use super::properties::{EVENTS, STOPPED};
use super::{Container, properties};

impl Container {
    /// Returns the answer to an info request.
    pub(crate) fn info(&self) -> ContainerInfo {
        let all: properties::Map = self.properties.all();
        let get = |name: &str| all.get(name).cloned().unwrap_or_default();
        let events = all.get(EVENTS).map(|list| list.split(',').map(str::to_owned).collect());
        let is_stopped = all.get(STOPPED).is_some_and(|state| state == "stopped");
        let processes = self.processes();
        let running = processes.values().filter(|process| !process.has_ended());
        let process_ids: Vec<String> = running.map(|process| process.id.to_string()).collect();
        ContainerInfo {
            state: if is_stopped { "stopped" } else { "active" }.into(),
            events,
            host_ip: get(HOST_IP),
            container_ip: get(CONTAINER_IP),
            container_ipv6: get(CONTAINER_IPV6),
            external_ip: get(EXTERNAL_IP),
            container_path: self.bundle.path().display().to_string(),
            process_ids: (!process_ids.is_empty()).then_some(process_ids),
            mapped_ports: Some(parse_ports(&get(MAPPED_PORTS))),
            properties: Some(all),
        }
    }
}
