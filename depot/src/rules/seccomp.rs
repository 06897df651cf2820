//! Which system calls an unprivileged container may make.

use oci_spec::runtime::{
    Arch, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder, Spec,
};

use super::linux;
use crate::wanted::Wanted;

mod allowed;

/// Every CLONE_NEW flag of clone(2). gdn forgets CLONE_NEWCGROUP.
const CLONE_NEW: u64 = 0x7e02_0000;
/// PER_LINUX, PER_LINUX32 and "tell me the current one" (personality(2)).
const PERSONALITIES: [u64; 3] = [0x0, 0x8, 0xffff_ffff];
/// EPERM and ENOSYS, the same number on every architecture we name.
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Sets `linux.seccomp`. What is listed as refused fails with EPERM; what is not listed at all is newer
/// than the lists and fails with ENOSYS, as on a kernel that lacks it, so that libc and language
/// runtimes fall back to what they did before. Privileged containers have no filter.
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    if wanted.spec.privileged {
        return Ok(spec);
    }
    let mut seccomp = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(ENOSYS)
        .syscalls(syscalls()?)
        .build()?;
    seccomp.set_architectures(architectures(wanted.host.arch));
    linux(&mut spec).set_seccomp(Some(seccomp));
    Ok(spec)
}

/// The host's architecture and those whose programs it can run too; `None` lets the runtime take
/// the host's alone. Not x32, which gdn lists: kernels have it off, what asks for it is an attack,
/// and compiling its third of the filter took 4 of the 17 ms that crun needs for a container.
fn architectures(host: &str) -> Option<Vec<Arch>> {
    match host {
        "x86_64" => Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]),
        "aarch64" => Some(vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]),
        _ => None,
    }
}

fn syscalls() -> anyhow::Result<Vec<LinuxSyscall>> {
    let names = allowed::GDN.split_whitespace().chain(allowed::MODERN.split_whitespace());
    let mut syscalls = vec![allow(names, None)?];
    // A new namespace would give a process all capabilities in it.
    let no_namespace = argument(CLONE_NEW, 0, LinuxSeccompOperator::ScmpCmpMaskedEq)?;
    syscalls.push(allow(["clone"], Some(no_namespace))?);
    for flag in (0..u64::BITS).map(|bit| 1 << bit).filter(|flag| CLONE_NEW & flag != 0) {
        let is_asked = argument(flag, flag, LinuxSeccompOperator::ScmpCmpMaskedEq)?;
        let mut refused = fail(["clone"], EPERM)?;
        refused.set_args(Some(vec![is_asked]));
        syscalls.push(refused);
    }
    // clone3 hides its flags in memory, where a filter can't look. libc falls back to clone when
    // the call seems not to exist; EPERM it would take for an answer.
    syscalls.push(fail(["clone3"], ENOSYS)?);
    // Another one does not exist here, rather than being refused: "none of these" can't be said.
    for personality in PERSONALITIES {
        let is = argument(personality, 0, LinuxSeccompOperator::ScmpCmpEq)?;
        syscalls.push(allow(["personality"], Some(is))?);
    }
    syscalls.push(fail(allowed::REFUSED.split_whitespace(), EPERM)?);
    Ok(syscalls)
}

fn fail<'a>(names: impl IntoIterator<Item = &'a str>, errno: u32) -> anyhow::Result<LinuxSyscall> {
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    Ok(LinuxSyscallBuilder::default()
        .names(names)
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(errno)
        .build()?)
}

fn allow<'a>(
    names: impl IntoIterator<Item = &'a str>,
    argument: Option<LinuxSeccompArg>,
) -> anyhow::Result<LinuxSyscall> {
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let mut syscall = LinuxSyscallBuilder::default()
        .names(names)
        .action(LinuxSeccompAction::ScmpActAllow)
        .build()?;
    syscall.set_args(argument.map(|argument| vec![argument]));
    Ok(syscall)
}

/// A test of the call's first argument: that it is `value`, or that of the bits of `value` it has
/// those of `masked`.
fn argument(
    value: u64,
    masked: u64,
    operator: LinuxSeccompOperator,
) -> anyhow::Result<LinuxSeccompArg> {
    Ok(LinuxSeccompArgBuilder::default()
        .index(0_usize)
        .value(value)
        .value_two(masked)
        .op(operator)
        .build()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::rules::fixture::{made_by, privileged, wanted};

    #[test]
    fn no_call_is_listed_twice() {
        let lists = [allowed::GDN, allowed::MODERN, allowed::REFUSED];
        let listed: Vec<&str> = lists.iter().flat_map(|list| list.split_whitespace()).collect();
        let set: BTreeSet<&str> = listed.iter().copied().collect();
        assert_eq!(set.len(), listed.len());
    }

    #[test]
    fn dangerous_calls_are_not_allowed() {
        let set: BTreeSet<&str> =
            allowed::GDN.split_whitespace().chain(allowed::MODERN.split_whitespace()).collect();
        for absent in "mount umount2 unshare setns pivot_root keyctl add_key request_key bpf \
            perf_event_open io_uring_setup io_uring_enter userfaultfd name_to_handle_at \
            open_by_handle_at open_tree move_mount fsopen fsmount mount_setattr swapon reboot \
            kexec_load init_module quotactl acct clock_settime settimeofday process_vm_readv \
            process_vm_writev pidfd_getfd clone clone3 personality"
            .split_whitespace()
        {
            assert!(!set.contains(absent), "{absent}");
        }
    }

    #[test]
    fn namespaces_can_t_be_made() {
        let made = made_by(apply, &wanted());
        let seccomp = &made["linux"]["seccomp"];
        assert_eq!(seccomp["defaultAction"], "SCMP_ACT_ERRNO");
        let rules = seccomp["syscalls"].as_array().unwrap();
        let of = |name: &str| -> Vec<String> {
            let named = rules.iter().filter(|rule| rule["names"] == json!([name]));
            named
                .map(|rule| {
                    let test = &rule["args"][0];
                    let bits = [&test["value"], &test["valueTwo"]].map(Value::to_string);
                    format!("{} {} {}", rule["action"], rule["errnoRet"], bits.join(" "))
                })
                .collect()
        };
        let clone = of("clone");
        assert_eq!(clone[0], format!(r#""SCMP_ACT_ALLOW" null {} 0"#, 0x7e02_0000));
        assert_eq!(clone[1], format!(r#""SCMP_ACT_ERRNO" 1 {0} {0}"#, 0x2_0000));
        assert_eq!(clone.len(), 8, "one for each kind of namespace: {clone:?}");
        assert_eq!(of("clone3"), [r#""SCMP_ACT_ERRNO" 38 null null"#]);
    }

    #[test]
    fn what_is_refused_is_told_from_what_is_not_known() {
        let made = made_by(apply, &wanted());
        assert_eq!(made["linux"]["seccomp"]["defaultErrnoRet"], 38);
        let rules = made["linux"]["seccomp"]["syscalls"].as_array().unwrap();
        let refused = rules.last().unwrap();
        assert_eq!(refused["errnoRet"], 1);
        assert!(refused["names"].as_array().unwrap().contains(&json!("unshare")));
    }

    #[test]
    fn architectures_follow_the_host() {
        for (arch, want) in [
            ("x86_64", json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])),
            ("aarch64", json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])),
            ("riscv64", Value::Null),
        ] {
            let mut wanted = wanted();
            wanted.host.arch = arch;
            assert_eq!(made_by(apply, &wanted)["linux"]["seccomp"]["architectures"], want);
        }
        assert_eq!(made_by(apply, &privileged())["linux"]["seccomp"], Value::Null);
    }
}
