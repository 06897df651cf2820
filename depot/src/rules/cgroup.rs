//! Where a container's cgroup is.

use guardian_contract::depot::GOOD;
use oci_spec::runtime::Spec;

use super::linux;
use crate::host::Cgroup;
use crate::wanted::Wanted;

/// Sets `linux.cgroupsPath`. The leading slash makes both runtimes take the path from the root of
/// each hierarchy; without it runc counts from its own cgroup and crun from the root, so that
/// nobody else could say where the container is.
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    let parent = match &wanted.options.tag {
        Some(tag) => format!("garden-{tag}"),
        None => "garden".to_owned(),
    };
    // On version 2 throttled containers are never moved.
    let is_moved = wanted.options.enable_cpu_throttling && wanted.host.cgroup == Cgroup::V1;
    let parent = match is_moved {
        true => format!("{parent}/{GOOD}"),
        false => parent,
    };
    let path = match &wanted.spec.sandbox {
        Some(sandbox) if sandbox.shares_limits => {
            format!("/{parent}/{}/{}", sandbox.handle, wanted.handle)
        }
        _ => format!("/{parent}/{}", wanted.handle),
    };
    linux(&mut spec).set_cgroups_path(Some(path.into()));
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixture::{made_by, privileged, wanted};
    use guardian_contract::depot::Sandbox;

    #[test]
    fn cgroups_are_beneath_the_installation_s_own() {
        let mut tagged = wanted();
        tagged.options.tag = Some("2".parse().unwrap());
        let pea = |shares_limits| {
            let mut pea = wanted();
            let handle = "box".to_owned();
            pea.spec.sandbox = Some(Sandbox { handle, shares_limits, ..Sandbox::default() });
            pea
        };
        let mut throttled = pea(true);
        throttled.options.enable_cpu_throttling = true;
        let mut v2 = wanted();
        v2.options.enable_cpu_throttling = true;
        v2.host.cgroup = Cgroup::V2;
        for (wanted, want) in [
            (v2, "/garden/web-1"),
            (throttled, "/garden/good/box/web-1"),
            (pea(true), "/garden/box/web-1"),
            (pea(false), "/garden/web-1"),
            (wanted(), "/garden/web-1"),
            (privileged(), "/garden/web-1"),
            (tagged, "/garden-2/web-1"),
        ] {
            assert_eq!(made_by(apply, &wanted)["linux"]["cgroupsPath"], want);
        }
    }
}
