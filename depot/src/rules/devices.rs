//! Device nodes, and which devices may be used at all.

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    Spec,
};

use super::{linux, resources};
use crate::device::Rule;
use crate::wanted::Wanted;

/// gdn's list. Nodes of every device may be made; only these may be opened.
const ALLOWED: [Rule; 12] = [
    Rule::mknod(LinuxDeviceType::C),
    Rule::mknod(LinuxDeviceType::B),
    Rule::character(1, Some(3)),    // null
    Rule::character(1, Some(8)),    // random
    Rule::character(1, Some(7)),    // full
    Rule::character(5, Some(0)),    // tty
    Rule::character(1, Some(5)),    // zero
    Rule::character(1, Some(9)),    // urandom
    Rule::character(136, None),     // pts
    Rule::character(5, Some(2)),    // ptmx
    Rule::character(10, Some(200)), // net/tun
    Rule::character(10, Some(229)), // fuse
];

/// Sets `linux.devices` and `linux.resources.devices`. gdn limits unprivileged containers by the
/// list of their parent cgroup; ours is in every bundle, so that it holds on cgroup v2 too.
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    let privileged = wanted.spec.privileged;
    let given: &[Rule] = if privileged { &wanted.options.device_cgroup_rules } else { &[] };
    let kept = ALLOWED.iter().filter(|rule| !given.iter().any(|given| given.replaces(rule)));
    let allowed = given.iter().chain(kept).map(Rule::allow);
    let rules: Result<Vec<_>, _> = std::iter::once(deny_all()).chain(allowed).collect();
    resources(&mut spec).set_devices(Some(rules?));
    if privileged {
        linux(&mut spec).set_devices(Some(vec![fuse()?]));
    }
    Ok(spec)
}

fn deny_all() -> anyhow::Result<LinuxDeviceCgroup> {
    Ok(LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?)
}

fn fuse() -> anyhow::Result<LinuxDevice> {
    Ok(LinuxDeviceBuilder::default()
        .path("/dev/fuse")
        .typ(LinuxDeviceType::C)
        .major(10)
        .minor(229)
        .file_mode(0o666_u32)
        .uid(0_u32)
        .gid(0_u32)
        .build()?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::fixture::{made_by, privileged, wanted};

    fn rules(made: &Value) -> Vec<String> {
        let list = made["linux"]["resources"]["devices"].clone();
        let list: Vec<LinuxDeviceCgroup> = serde_json::from_value(list).unwrap();
        list.iter().map(|rule| format!("{} {rule}", if rule.allow() { "+" } else { "-" })).collect()
    }

    #[test]
    fn everything_is_denied_first() {
        let made = made_by(apply, &wanted());
        let rules = rules(&made);
        assert_eq!(rules[..4], ["- a *:* rwm", "+ c *:* m", "+ b *:* m", "+ c 1:3 rwm"]);
        assert_eq!(rules.len(), 13);
        assert_eq!(made["linux"]["devices"], Value::Null);
    }

    #[test]
    fn privileged_containers_have_fuse() {
        let made = made_by(apply, &privileged());
        assert_eq!(
            made["linux"]["devices"],
            json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229,
                    "fileMode": 0o666, "uid": 0, "gid": 0}])
        );
    }

    #[test]
    fn given_rules_come_first_and_replace_ours_for_privileged_containers_only() {
        for (mut wanted, privileged) in [(wanted(), false), (privileged(), true)] {
            wanted.options.device_cgroup_rules =
                vec!["c 1:3 r".parse().unwrap(), "b *:* rwm".parse().unwrap()];
            let rules = rules(&made_by(apply, &wanted));
            assert_eq!(rules[1] == "+ c 1:3 r", privileged);
            assert_eq!(rules.contains(&"+ c 1:3 rwm".to_owned()), !privileged);
            assert_eq!(rules.contains(&"+ b *:* m".to_owned()), !privileged);
        }
    }
}
