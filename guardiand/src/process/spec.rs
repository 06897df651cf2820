//! The OCI process object of an exec, made from what the client asked and what the container is.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use guardian_contract::garden::{ProcessSpec, ResourceLimits};
use oci_spec::runtime::{
    BoxBuilder, Capabilities, Capability, LinuxCapabilitiesBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, UserBuilder,
};

use super::account::Account;
use crate::container::facts::Facts;

/// What a process that is not root may have at most: gdn's list.
const ANY_USER: [Capability; 15] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
    Capability::SysAdmin,
];

/// Builds the process object. `dir` is where it starts.
///
/// # Errors
/// When the environment has an entry without a name.
pub(crate) fn build(
    spec: &ProcessSpec,
    facts: &Facts,
    account: &Account,
    dir: &str,
) -> anyhow::Result<Process> {
    let mut args = vec![spec.path.clone()];
    args.extend_from_slice(&spec.args);
    let window = spec.tty.and_then(|tty| tty.window_size);
    let (columns, rows) = window.map_or((80, 24), |size| (size.columns, size.rows));
    let user = UserBuilder::default()
        .uid(account.uid)
        .gid(account.gid)
        .additional_gids(account.groups.clone())
        .build()?;
    let mut process = ProcessBuilder::default()
        .terminal(spec.tty.is_some())
        .console_size(
            BoxBuilder::default().height(u64::from(rows)).width(u64::from(columns)).build()?,
        )
        .user(user)
        .args(args)
        .env(environment(&facts.env, spec, account)?)
        .cwd(dir)
        .no_new_privileges(facts.no_new_privileges)
        .rlimits(rlimits(&spec.rlimits)?)
        .build()?;
    process.set_apparmor_profile(facts.apparmor.clone());
    process.set_oom_score_adj(facts.oom_score_adj);
    process.set_capabilities(capabilities(facts, account)?);
    Ok(process)
}

/// Image, container and process each overrule the former: the last value of a name counts, in its
/// place. Then what is always there: PATH, USER and HOME.
fn environment(
    inherited: &[String],
    spec: &ProcessSpec,
    account: &Account,
) -> anyhow::Result<Vec<String>> {
    let mut all: Vec<String> = inherited.iter().chain(&spec.env).cloned().collect();
    let has = |all: &[String], prefix: &str| all.iter().any(|entry| entry.starts_with(prefix));
    if !has(&all, "PATH=") {
        let path = match account.uid {
            0 => "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            _ => "/usr/local/bin:/usr/bin:/bin",
        };
        all.push(format!("PATH={path}"));
    }
    if !has(&all, "USER=") {
        let user = if spec.user.is_empty() { "root" } else { &spec.user };
        all.push(format!("USER={user}"));
    }
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for entry in all.into_iter().rev() {
        let name = entry.split_once('=').map(|(name, _)| name).filter(|name| !name.is_empty());
        // Values are secrets: an entry without a name is told by its place only.
        let name = name.context("environment has an entry that is not NAME=VALUE")?.to_owned();
        if seen.insert(name) {
            kept.push(entry);
        }
    }
    kept.reverse();
    // Runtimes set HOME where it is missing or empty, each in its own way; so it never is.
    kept.retain(|entry| entry != "HOME=");
    if !has(&kept, "HOME=") {
        kept.push(format!("HOME={}", account.home));
    }
    ensure!(kept.iter().all(|entry| !entry.contains('\0')), "environment has a NUL byte");
    Ok(kept)
}

/// The container's bounding set; of it, what any user may have where the user is not root.
fn capabilities(
    facts: &Facts,
    account: &Account,
) -> anyhow::Result<Option<oci_spec::runtime::LinuxCapabilities>> {
    let mut set: Capabilities = facts.bounding.clone();
    if account.uid != 0 {
        set.retain(|capability| ANY_USER.contains(capability));
    }
    if set.is_empty() {
        return Ok(None);
    }
    let none = Capabilities::default();
    let effective = if account.uid == 0 { set.clone() } else { none.clone() };
    let permitted = effective.clone();
    let built = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .inheritable(set)
        .permitted(permitted)
        .effective(effective)
        .ambient(none)
        .build()?;
    Ok(Some(built))
}

fn rlimits(limits: &ResourceLimits) -> anyhow::Result<Vec<PosixRlimit>> {
    use PosixRlimitType as Kind;
    let given = [
        (Kind::RlimitAs, limits.address_space),
        (Kind::RlimitCore, limits.core),
        (Kind::RlimitCpu, limits.cpu),
        (Kind::RlimitData, limits.data),
        (Kind::RlimitFsize, limits.fsize),
        (Kind::RlimitLocks, limits.locks),
        (Kind::RlimitMemlock, limits.memlock),
        (Kind::RlimitMsgqueue, limits.msgqueue),
        (Kind::RlimitNice, limits.nice),
        (Kind::RlimitNofile, limits.nofile),
        (Kind::RlimitNproc, limits.nproc),
        (Kind::RlimitRss, limits.rss),
        (Kind::RlimitRtprio, limits.rtprio),
        (Kind::RlimitSigpending, limits.sigpending),
        (Kind::RlimitStack, limits.stack),
    ];
    let set = given.into_iter().filter_map(|(kind, value)| Some((kind, value?)));
    set.map(|(kind, value)| {
        Ok(PosixRlimitBuilder::default().typ(kind).soft(value).hard(value).build()?)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(uid: u32) -> Account {
        Account { uid, gid: uid, groups: vec![], home: "/h".into() }
    }

    fn spec(env: &[&str], user: &str) -> ProcessSpec {
        let env = env.iter().map(|entry| (*entry).to_owned()).collect();
        ProcessSpec { env, user: user.into(), ..ProcessSpec::default() }
    }

    #[test]
    fn the_last_value_of_a_name_counts_in_its_place() {
        let inherited = ["PATH=/i", "CONTAINER_ENV=1", "TEST=hi"].map(str::to_owned);
        let env = environment(&inherited, &spec(&["TEST=hello", "FRUIT=banana"], ""), &account(0));
        assert_eq!(
            env.unwrap(),
            ["PATH=/i", "CONTAINER_ENV=1", "TEST=hello", "FRUIT=banana", "USER=root", "HOME=/h"]
        );
    }

    #[test]
    fn path_user_and_home_are_always_there() {
        for (uid, user, given, want) in [
            (
                0,
                "",
                vec![],
                vec![
                    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "USER=root",
                    "HOME=/h",
                ],
            ),
            (
                5,
                "1001:1002",
                vec!["APATH=x"],
                vec!["APATH=x", "PATH=/usr/local/bin:/usr/bin:/bin", "USER=1001:1002", "HOME=/h"],
            ),
            (5, "x", vec!["PATH=", "USER=y", "HOME=/z"], vec!["PATH=", "USER=y", "HOME=/z"]),
            (5, "x", vec!["PATH=", "USER=y", "HOME="], vec!["PATH=", "USER=y", "HOME=/h"]),
        ] {
            assert_eq!(environment(&[], &spec(&given, user), &account(uid)).unwrap(), want);
        }
    }

    #[test]
    fn an_entry_without_a_name_is_refused_without_showing_it() {
        for bad in ["secret", "=secret"] {
            let error = environment(&[], &spec(&[bad], ""), &account(0)).unwrap_err();
            assert!(!format!("{error:#}").contains("secret"));
        }
    }

    #[test]
    fn only_given_limits_are_set_and_zero_is_given() {
        let limits = ResourceLimits { nofile: Some(0), ..ResourceLimits::default() };
        let set = rlimits(&limits).unwrap();
        assert_eq!(set.len(), 1);
        assert_eq!((set[0].soft(), set[0].hard()), (0, 0));
    }
}
