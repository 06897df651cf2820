//! What a container may use.

use std::collections::HashMap;

use guardian_contract::garden::{CpuLimits, LimitsChange, MemoryLimits, PidLimits};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxPidsBuilder, Spec};

use super::{block_io, disk, resources};
use crate::cli;
use crate::host::{Cgroup, Host};
use crate::wanted::Wanted;

/// The length of a quota's period.
const PERIOD_US: u64 = 100_000;
/// The smallest quota that the kernel takes (sched-bwc.rst).
const QUOTA_MIN_US: u64 = 1000;
/// The smallest and largest number of shares that v1 takes; runc fails on others.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// Sets `linux.resources` apart from devices. Zero means no limit, and no limit means no member:
/// runc takes a zero for "not set", crun to the letter.
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    let (limits, options) = (&wanted.spec.limits, &wanted.options.limits);
    let all = LimitsChange {
        cpu: Some(limits.cpu.clone()),
        memory: Some(limits.memory.clone()),
        pid: Some(limits.pid.clone()),
        block_io: Some(block_io::or_default(limits.block_io, options)),
        disk: Some(disk::all_of(&limits.disk)),
        ..LimitsChange::default()
    };
    change(&mut spec, &all, options, &wanted.host)?;
    Ok(spec)
}

/// Sets those parts of `linux.resources` that are to change.
pub(crate) fn change(
    spec: &mut Spec,
    change: &LimitsChange,
    options: &cli::Limits,
    host: &Host,
) -> anyhow::Result<()> {
    let resources = resources(spec);
    if let Some(limits) = &change.memory {
        let limits_swap = host.can_limit_swap && !options.disable_swap_limit;
        resources.set_memory(memory(limits, limits_swap));
    }
    if let Some(limits) = &change.pid {
        resources.set_pids(pids(limits)?);
    }
    if let Some(shares) = change.cpu.as_ref().map(CpuLimits::shares) {
        match host.cgroup {
            Cgroup::V1 => resources.set_cpu(cpu_v1(shares, options)),
            Cgroup::V2 => resources.set_unified(cpu_v2(shares, options)),
        };
    }
    if let Some(limits) = change.disk {
        disk::change(spec, limits)?;
    }
    match change.block_io {
        Some(limits) => block_io::change(spec, limits, &host.block_devices),
        None => Ok(()),
    }
}

fn memory(limits: &MemoryLimits, limits_swap: bool) -> Option<LinuxMemory> {
    let bytes = limits.limit_in_bytes;
    let bytes = (bytes > 0).then(|| i64::try_from(bytes).unwrap_or(i64::MAX))?;
    let mut memory = LinuxMemory::default();
    // The runtime spec's `swap` is memory and swap together: equal values leave no swap.
    memory.set_limit(Some(bytes)).set_swap(limits_swap.then_some(bytes));
    Some(memory)
}

fn pids(limits: &PidLimits) -> anyhow::Result<Option<LinuxPids>> {
    if limits.max == 0 {
        return Ok(None);
    }
    let limit = i64::try_from(limits.max).unwrap_or(i64::MAX);
    Ok(Some(LinuxPidsBuilder::default().limit(limit).build()?))
}

fn cpu_v1(shares: u64, options: &cli::Limits) -> Option<LinuxCpu> {
    let mut cpu = LinuxCpu::default();
    cpu.set_shares((shares > 0).then(|| shares.clamp(*SHARES.start(), *SHARES.end())));
    if let Some(quota) = quota_us(shares, options) {
        cpu.set_quota(i64::try_from(quota).ok()).set_period(Some(PERIOD_US));
    }
    (cpu != LinuxCpu::default()).then_some(cpu)
}

fn cpu_v2(shares: u64, options: &cli::Limits) -> Option<HashMap<String, String>> {
    let mut unified = HashMap::new();
    if shares > 0 {
        unified.insert("cpu.weight".to_owned(), weight(shares).to_string());
    }
    if let Some(quota) = quota_us(shares, options) {
        unified.insert("cpu.max".to_owned(), format!("{quota} {PERIOD_US}"));
    }
    (!unified.is_empty()).then_some(unified)
}

fn quota_us(shares: u64, options: &cli::Limits) -> Option<u64> {
    let quota = shares.saturating_mul(options.cpu_quota_per_share);
    (quota > 0).then_some(quota.max(QUOTA_MIN_US))
}

/// Returns the weight (1 to 10000) that stands for so many shares (2 to 262144): runc's curve,
/// which takes the default 1024 near to the default 100.
fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::fixture::{made_by, wanted};

    fn resources_of(wanted: &Wanted) -> Value {
        made_by(apply, wanted)["linux"]["resources"].clone()
    }

    #[test]
    fn no_limit_is_no_member() {
        assert_eq!(resources_of(&wanted()), json!({}));
        let mut v2 = wanted();
        v2.host.cgroup = Cgroup::V2;
        assert_eq!(resources_of(&v2), json!({}));
    }

    #[test]
    fn memory_and_pids() {
        let mut wanted = wanted();
        wanted.spec.limits.memory.limit_in_bytes = 64 << 20;
        wanted.spec.limits.pid.max = 10;
        let both = json!({"limit": 64 << 20, "swap": 64 << 20});
        assert_eq!(resources_of(&wanted), json!({"memory": both, "pids": {"limit": 10}}));
        wanted.options.limits.disable_swap_limit = true;
        assert_eq!(resources_of(&wanted)["memory"], json!({"limit": 64 << 20}));
        wanted.options.limits.disable_swap_limit = false;
        wanted.host.can_limit_swap = false;
        assert_eq!(resources_of(&wanted)["memory"], json!({"limit": 64 << 20}));
        wanted.spec.limits.memory.limit_in_bytes = u64::MAX;
        assert_eq!(resources_of(&wanted)["memory"]["limit"], i64::MAX);
    }

    #[test]
    fn shares_on_v1() {
        for (weight, legacy, want) in [(10, 0, 10), (0, 20, 20), (10, 20, 10), (1, 0, 2)] {
            let mut wanted = wanted();
            wanted.spec.limits.cpu.weight = weight;
            wanted.spec.limits.cpu.limit_in_shares = legacy;
            assert_eq!(resources_of(&wanted), json!({"cpu": {"shares": want}}));
        }
    }

    #[test]
    fn a_quota_follows_the_shares() {
        for (per_share, want) in [(3, 1000), (100, 10_000)] {
            let mut wanted = wanted();
            wanted.spec.limits.cpu.weight = 100;
            wanted.options.limits.cpu_quota_per_share = per_share;
            let cpu = json!({"shares": 100, "quota": want, "period": 100_000});
            assert_eq!(resources_of(&wanted)["cpu"], cpu);
            wanted.host.cgroup = Cgroup::V2;
            let unified = json!({"cpu.weight": "17", "cpu.max": format!("{want} 100000")});
            assert_eq!(resources_of(&wanted), json!({"unified": unified}));
        }
    }

    #[test]
    fn weights_are_runc_s() {
        for (shares, want) in
            [(1, 1), (2, 1), (10, 4), (100, 17), (123, 20), (1024, 100), (262_144, 10_000)]
        {
            assert_eq!(weight(shares), want, "{shares}");
        }
    }

    #[test]
    fn a_change_leaves_the_rest_as_it_is() {
        let mut before = wanted();
        before.spec.limits.memory.limit_in_bytes = 64 << 20;
        before.spec.limits.cpu.weight = 100;
        before.spec.limits.pid.max = 10;
        for (text, member, want) in [
            (r#"{"memory_limits":{}}"#, "memory", Value::Null),
            (r#"{"pid_limits":{"max":7}}"#, "pids", json!({"limit": 7})),
            (r#"{"cpu_limits":{"weight":50}}"#, "cpu", json!({"shares": 50})),
            (r#"{"cpu_limits":{}}"#, "cpu", Value::Null),
        ] {
            let mut spec: Spec = serde_json::from_str(r#"{"linux":{}}"#).unwrap();
            spec = apply(spec, &before).unwrap();
            let mut want_all = serde_json::to_value(spec.linux().as_ref().unwrap().resources());
            let asked = serde_json::from_str(text).unwrap();
            change(&mut spec, &asked, &before.options.limits, &before.host).unwrap();
            let got = serde_json::to_value(spec.linux().as_ref().unwrap().resources()).unwrap();
            let want_all = want_all.as_mut().unwrap().as_object_mut().unwrap();
            match want {
                Value::Null => want_all.remove(member),
                want => want_all.insert(member.to_owned(), want),
            };
            assert_eq!(got, json!(want_all), "{text}");
        }
    }
}
