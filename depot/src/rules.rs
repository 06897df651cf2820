//! How a bundle comes about: an ordered list of rules, each a function from specification to
//! specification that touches nothing but its own part.

use oci_spec::runtime::{Linux, LinuxResources, Process, Spec};

use crate::wanted::Wanted;

mod base;
mod block_io;
mod capabilities;
mod cgroup;
mod devices;
mod disk;
mod environment;
mod hostname;
mod ids;
pub(crate) mod limits;
mod mounts;
mod namespaces;
mod oom;
mod rootfs;
mod seccomp;
mod sysctl;

/// One rule.
type Rule = fn(Spec, &Wanted) -> anyhow::Result<Spec>;

/// All rules. `base` comes first because it lays down what the others change.
const RULES: [Rule; 14] = [
    base::apply,
    namespaces::apply,
    cgroup::apply,
    mounts::apply,
    environment::apply,
    hostname::apply,
    rootfs::apply,
    limits::apply,
    devices::apply,
    capabilities::apply,
    seccomp::apply,
    sysctl::apply,
    ids::apply,
    oom::apply,
];

/// Returns the OCI configuration of what is wanted.
pub(crate) fn apply(wanted: &Wanted) -> anyhow::Result<Spec> {
    RULES.iter().try_fold(Spec::default(), |spec, rule| rule(spec, wanted))
}

/// The `linux` member, which `base` has laid down.
fn linux(spec: &mut Spec) -> &mut Linux {
    spec.linux_mut().get_or_insert_default()
}

/// The `linux.resources` member, which `base` has laid down.
fn resources(spec: &mut Spec) -> &mut LinuxResources {
    linux(spec).resources_mut().get_or_insert_default()
}

/// The `process` member, which `base` has laid down.
fn process(spec: &mut Spec) -> &mut Process {
    spec.process_mut().get_or_insert_default()
}

#[cfg(test)]
mod fixture;
