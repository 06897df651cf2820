//! What the rules' tests want by default.

use std::collections::BTreeMap;
use std::path::Path;

use guardian_contract::depot::BundleSpec;
use guardian_contract::ids::maximus_map;
use oci_spec::runtime::Spec;
use serde_json::Value;

use super::Rule;
use crate::bind::Bind;
use crate::cli::Options;
use crate::host::{BlockDevice, Cgroup, Host};
use crate::wanted::{INIT, Wanted};

/// An unprivileged container `web-1` without wishes, on a cgroup v1 host that has everything.
pub(super) fn wanted() -> Wanted {
    let map = maximus_map(4_294_967_294, 1, 4_294_967_293);
    let mut spec = BundleSpec::default();
    spec.root.path = "/images/web-1/rootfs".into();
    (spec.ids.uid, spec.ids.gid) = (map.clone(), map);
    Wanted {
        handle: "web-1".parse().unwrap(),
        spec,
        options: Options::default(),
        host: Host {
            bounding: u64::MAX,
            cgroup: Cgroup::V1,
            can_limit_swap: true,
            has_apparmor: true,
            sysctl: BTreeMap::new(),
            block_devices: [(254, 0), (8, 16)]
                .map(|(major, minor)| BlockDevice { major, minor })
                .to_vec(),
            oom_score_adj: 0,
            arch: "x86_64",
        },
        init: Bind::new(Path::new("/proc"), Path::new(INIT), false).unwrap(),
        binds: Vec::new(),
    }
}

/// The same, privileged.
pub(super) fn privileged() -> Wanted {
    let mut wanted = wanted();
    wanted.spec.privileged = true;
    wanted.spec.ids = Default::default();
    wanted
}

/// What one rule makes of an empty specification, as JSON.
pub(super) fn made_by(rule: Rule, wanted: &Wanted) -> Value {
    let empty: Spec = serde_json::from_str(r#"{"linux":{}}"#).unwrap();
    serde_json::to_value(rule(empty, wanted).unwrap()).unwrap()
}
