//! Where a container's cgroup is.

use guardian_contract::depot::GOOD;
use oci_spec::runtime::Spec;

use super::linux;
use crate::wanted::Wanted;

/// Sets `linux.cgroupsPath`. The leading slash makes both runtimes take the path from the root of
/// each hierarchy; without it runc counts from its own cgroup and crun from the root, so that
/// nobody else could say where the container is.
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    let parent = match &wanted.options.tag {
        Some(tag) => format!("garden-{tag}"),
        None => "garden".to_owned(),
    };
    let parent = match wanted.options.enable_cpu_throttling {
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
        for (wanted, want) in [
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
