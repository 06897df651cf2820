//! What root may do inside.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilitiesBuilder, Spec};

use super::process;
use crate::wanted::Wanted;

/// gdn's list for privileged containers, which is all there were before Linux 5.8, in the
/// kernel's order: the index is the capability's number (linux/capability.h).
const ALL: [Capability; 38] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
];

/// gdn's list for unprivileged containers: chown dac_override fsetid fowner mknod net_raw setgid
/// setuid setfcap setpcap net_bind_service sys_chroot kill audit_write.
const UNPRIVILEGED: u64 = 0xa804_25fb;

/// Sets `process.capabilities`. gdn leaves `effective` out for privileged containers, which runc
/// takes for "as permitted" when root executes init, and crun for "none".
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    let listed = if wanted.spec.privileged { u64::MAX } else { UNPRIVILEGED };
    // No process can give what it can't have: a runtime asked for it would refuse to start.
    let set = capabilities(listed & wanted.host.bounding);
    let sets = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .inheritable(set.clone())
        .permitted(set)
        .ambient(Capabilities::new())
        .build()?;
    process(&mut spec).set_capabilities(Some(sets));
    Ok(spec)
}

fn capabilities(set: u64) -> Capabilities {
    ALL.into_iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixture::{made_by, privileged, wanted};

    fn names(made: &serde_json::Value, set: &str) -> Vec<String> {
        let list = made["process"]["capabilities"][set].as_array().unwrap();
        let mut names: Vec<String> =
            list.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn unprivileged_root_has_fourteen() {
        let mut want: Vec<String> = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID \
             SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
            .split_whitespace()
            .map(|name| format!("CAP_{name}"))
            .collect();
        want.sort();
        let made = made_by(apply, &wanted());
        for set in ["bounding", "effective", "inheritable", "permitted"] {
            assert_eq!(names(&made, set), want, "{set}");
        }
        assert_eq!(names(&made, "ambient"), Vec::<String>::new());
    }

    #[test]
    fn what_the_host_lacks_is_not_asked_for() {
        let mut wanted = privileged();
        assert_eq!(names(&made_by(apply, &wanted), "effective").len(), 38);
        wanted.host.bounding = 0x1ff_feff_ffff;
        let names = names(&made_by(apply, &wanted), "effective");
        assert_eq!(names.len(), 37);
        assert!(!names.contains(&"CAP_SYS_RESOURCE".to_owned()));
    }
}
