//! What is the same in every container: init as the process, and which paths are masked.

use anyhow::Context;
use guardian_contract::fault::Fault;
use oci_spec::runtime::{LinuxBuilder, LinuxResources, Process, Spec, User, Windows};

use crate::wanted::{INIT, Wanted};

/// Paths that tell of the host or its other users. Those that a kernel lacks are passed over by
/// the runtimes.
const MASKED: [&str; 11] = [
    "/proc/kcore",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/keys",
    "/sys/firmware",
    // Not on gdn's list: hardware, and how much power it uses, from which secrets can be told.
    "/proc/acpi",
    "/proc/asound",
    "/sys/devices/virtual/powercap",
];

/// Replaces the whole specification.
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    let masked: &[&str] = if wanted.spec.privileged { &[] } else { &MASKED };
    let linux = LinuxBuilder::default()
        .resources(LinuxResources::default())
        .rootfs_propagation("private")
        .masked_paths(masked.iter().map(|&path| path.to_owned()).collect::<Vec<_>>())
        .readonly_paths(Vec::new())
        .build()?;
    spec.set_version("1.0.0".into())
        .set_root(None)
        .set_mounts(None)
        .set_hostname(None)
        .set_annotations(None)
        .set_process(Some(process(wanted)))
        .set_linux(Some(linux))
        .set_windows(windows(wanted)?);
    Ok(spec)
}

/// The image plugin's own; no runtime on Linux looks at it.
fn windows(wanted: &Wanted) -> anyhow::Result<Option<Windows>> {
    let windows = wanted.spec.windows.clone().map(serde_json::from_value).transpose();
    windows.with_context(|| Fault::invalid("request on stdin: windows"))
}

fn process(wanted: &Wanted) -> Process {
    let (options, confined) = (&wanted.options, !wanted.spec.privileged);
    let profile = options.apparmor.clone().filter(|_| confined && wanted.host.has_apparmor);
    let mut process = Process::default();
    process
        .set_terminal(Some(false))
        .set_user(User::default())
        .set_args(Some(vec![INIT.to_owned()]))
        .set_env(None)
        .set_cwd("/".into())
        .set_capabilities(None)
        .set_rlimits(None)
        .set_no_new_privileges(Some(wanted.no_new_privileges()))
        .set_apparmor_profile(profile);
    process
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::fixture::{made_by, privileged, wanted};

    #[test]
    fn init_is_the_process() {
        let made = made_by(apply, &wanted());
        assert_eq!(made["ociVersion"], "1.0.0");
        assert_eq!(
            made["process"],
            json!({
                "terminal": false, "user": {"uid": 0, "gid": 0}, "args": ["/tmp/garden-init"],
                "cwd": "/", "noNewPrivileges": false,
            })
        );
    }

    #[test]
    fn only_unprivileged_containers_are_confined() {
        let mut confined = wanted();
        confined.options.apparmor = Some("garden-default".into());
        confined.options.no_new_privileges = true;
        let made = made_by(apply, &confined);
        assert_eq!(made["process"]["apparmorProfile"], "garden-default");
        assert_eq!(made["process"]["noNewPrivileges"], true);
        assert_eq!(made["linux"]["maskedPaths"].as_array().map(Vec::len), Some(11));

        confined.host.has_apparmor = false;
        assert_eq!(made_by(apply, &confined)["process"]["apparmorProfile"], Value::Null);

        let mut asked = wanted();
        asked.spec.no_new_privileges = true;
        assert_eq!(made_by(apply, &asked)["process"]["noNewPrivileges"], true);

        let mut free = privileged();
        free.options = confined.options;
        let made = made_by(apply, &free);
        assert_eq!(made["process"]["apparmorProfile"], Value::Null);
        assert_eq!(made["process"]["noNewPrivileges"], false);
        assert_eq!(made["linux"]["maskedPaths"], json!([]));
    }
}
