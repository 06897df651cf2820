//! Which namespaces a container has of its own.

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Spec};

use super::linux;
use crate::wanted::Wanted;

/// In gdn's order. No cgroup namespace: its v1 clients look for host paths in /proc/self/cgroup.
const NAMESPACES: [LinuxNamespaceType; 5] = [
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Mount,
];

/// Sets `linux.namespaces`.
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    let user = (!wanted.spec.privileged).then_some(LinuxNamespaceType::User);
    let namespaces: Result<Vec<LinuxNamespace>, _> = NAMESPACES
        .into_iter()
        .chain(user)
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
        .collect();
    linux(&mut spec).set_namespaces(Some(namespaces?));
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixture::{made_by, privileged, wanted};

    #[test]
    fn privileged_containers_have_no_user_namespace() {
        for (wanted, want) in [
            (wanted(), "network pid uts ipc mount user"),
            (privileged(), "network pid uts ipc mount"),
        ] {
            let made = made_by(apply, &wanted);
            let kinds: Vec<&str> = made["linux"]["namespaces"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["type"].as_str().unwrap())
                .collect();
            assert_eq!(kinds.join(" "), want);
        }
    }
}
