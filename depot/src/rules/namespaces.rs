//! Which namespaces a container has of its own.

use guardian_contract::depot::Sandbox;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Spec};

use super::linux;
use crate::host::Cgroup;
use crate::wanted::Wanted;

/// In gdn's order.
const NAMESPACES: [LinuxNamespaceType; 5] = [
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Mount,
];

/// Sets `linux.namespaces`.
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    let confined = !wanted.spec.privileged;
    let user = confined.then_some(LinuxNamespaceType::User);
    // Without one, all containers of the host would show where version 2 is mounted inside. On version
    // 1 only the own groups are mounted, and clients look for their host paths in /proc/self/cgroup.
    let cgroup = confined && wanted.host.cgroup == Cgroup::V2;
    let cgroup = cgroup.then_some(LinuxNamespaceType::Cgroup);
    let namespaces: anyhow::Result<Vec<LinuxNamespace>> = NAMESPACES
        .into_iter()
        .chain(user)
        .chain(cgroup)
        .map(|kind| namespace(kind, wanted.spec.sandbox.as_ref()))
        .collect();
    linux(&mut spec).set_namespaces(Some(namespaces?));
    Ok(spec)
}

/// A pea joins its sandbox's namespaces, and has its own mounts and its own view of cgroups only.
fn namespace(
    kind: LinuxNamespaceType,
    sandbox: Option<&Sandbox>,
) -> anyhow::Result<LinuxNamespace> {
    let mut namespace = LinuxNamespaceBuilder::default().typ(kind).build()?;
    // The names of /proc/PID/ns (namespaces(7)) differ from the OCI ones in two cases.
    let name = match kind {
        LinuxNamespaceType::Mount | LinuxNamespaceType::Cgroup => return Ok(namespace),
        LinuxNamespaceType::Network => "net".to_owned(),
        kind => kind.to_string(),
    };
    let path = sandbox.map(|sandbox| format!("/proc/{}/ns/{name}", sandbox.pid).into());
    namespace.set_path(path);
    Ok(namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixture::{made_by, privileged, wanted};

    #[test]
    fn privileged_containers_have_no_user_namespace() {
        let mut v2 = wanted();
        v2.host.cgroup = Cgroup::V2;
        for (wanted, want) in [
            (v2, "network pid uts ipc mount user cgroup"),
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

    #[test]
    fn a_pea_shares_all_namespaces_but_its_mounts() {
        let mut pea = wanted();
        pea.spec.sandbox = Some(Sandbox { pid: 7, ..Sandbox::default() });
        let made = made_by(apply, &pea);
        let paths: Vec<&str> = made["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["path"].as_str().unwrap_or("-"))
            .collect();
        let want = "/proc/7/ns/net /proc/7/ns/pid /proc/7/ns/uts /proc/7/ns/ipc - /proc/7/ns/user";
        assert_eq!(paths.join(" "), want);
    }
}
