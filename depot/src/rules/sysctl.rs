//! Kernel settings of the container's network namespace.

use std::collections::HashMap;

use oci_spec::runtime::Spec;

use super::linux;
use crate::host::TCP_SYSCTLS;
use crate::wanted::Wanted;

/// Sets `linux.sysctl`. A new network namespace starts with the kernel's defaults, so the host's
/// own values have to be carried over. A setting that this kernel lacks is left out.
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    if wanted.spec.sandbox.is_some() {
        // A pea shares its sandbox's network namespace, settings included.
        return Ok(spec);
    }
    let tcp = &wanted.options.tcp;
    let given = [
        tcp.keepalive_time,
        tcp.keepalive_interval,
        tcp.keepalive_probes,
        tcp.retries1,
        tcp.retries2,
    ];
    let mut sysctl = HashMap::new();
    for (name, given) in TCP_SYSCTLS.into_iter().zip(given) {
        if let Some(current) = wanted.host.sysctl.get(name) {
            let value = if given > 0 { given.to_string() } else { current.clone() };
            sysctl.insert(name.to_owned(), value);
        }
    }
    if wanted.no_new_privileges() {
        // ping is set-user-id or has a file capability, neither of which works any more.
        sysctl.insert("net.ipv4.ping_group_range".into(), "1 65535".into());
    }
    linux(&mut spec).set_sysctl(Some(sysctl));
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rules::fixture::{made_by, wanted};

    #[test]
    fn flags_win_over_the_host_and_what_is_missing_stays_out() {
        let mut wanted = wanted();
        wanted.host.sysctl = [(TCP_SYSCTLS[0], "7200".into()), (TCP_SYSCTLS[3], "3".into())].into();
        wanted.options.tcp.keepalive_time = 60;
        wanted.options.tcp.retries2 = 5;
        assert_eq!(
            made_by(apply, &wanted)["linux"]["sysctl"],
            json!({"net.ipv4.tcp_keepalive_time": "60", "net.ipv4.tcp_retries1": "3"})
        );
    }

    #[test]
    fn ping_works_without_new_privileges() {
        let mut wanted = wanted();
        wanted.options.no_new_privileges = true;
        assert_eq!(
            made_by(apply, &wanted)["linux"]["sysctl"],
            json!({"net.ipv4.ping_group_range": "1 65535"})
        );
    }
}
