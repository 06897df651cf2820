//! The id maps of an unprivileged container.

use guardian_contract::ids::IdMapping;
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Spec};

use super::linux;
use crate::wanted::Wanted;

/// Sets `linux.uidMappings` and `linux.gidMappings`; a privileged container has none.
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    if !wanted.spec.privileged {
        let ids = &wanted.spec.ids;
        linux(&mut spec)
            .set_uid_mappings(Some(mappings(&ids.uid)?))
            .set_gid_mappings(Some(mappings(&ids.gid)?));
    }
    Ok(spec)
}

fn mappings(map: &[IdMapping]) -> anyhow::Result<Vec<LinuxIdMapping>> {
    let one = |extent: &IdMapping| {
        Ok(LinuxIdMappingBuilder::default()
            .container_id(extent.container_id)
            .host_id(extent.host_id)
            .size(extent.size)
            .build()?)
    };
    map.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::fixture::{made_by, privileged, wanted};

    #[test]
    fn maps_are_those_wanted() {
        let made = made_by(apply, &wanted());
        for map in ["uidMappings", "gidMappings"] {
            assert_eq!(
                made["linux"][map],
                json!([
                    {"containerID": 0, "hostID": 4_294_967_294_u32, "size": 1},
                    {"containerID": 1, "hostID": 1, "size": 4_294_967_293_u32},
                ])
            );
        }
        assert_eq!(made_by(apply, &privileged())["linux"]["uidMappings"], Value::Null);
    }
}
