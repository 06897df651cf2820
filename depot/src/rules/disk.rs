//! Disk limits: held by the image plugin, and kept in the bundle for who asks what they are.

use guardian_contract::depot::DISK_LIMITS;
use guardian_contract::garden::{DiskChange, DiskLimits};
use oci_spec::runtime::Spec;

/// Returns what makes a new bundle say these limits.
pub(super) fn all_of(limits: &DiskLimits) -> DiskChange {
    DiskChange {
        inode_hard: Some(limits.inode_hard),
        byte_hard: Some(limits.byte_hard),
        scope: Some(limits.scope),
    }
}

/// Changes the members that are given; without a limit there is no annotation.
pub(super) fn change(spec: &mut Spec, wanted: DiskChange) -> anyhow::Result<()> {
    let mut annotations = spec.annotations().clone().unwrap_or_default();
    let before = annotations.remove(DISK_LIMITS);
    let before = before.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let limits = wanted.applied_to(&before);
    if limits.byte_hard > 0 || limits.inode_hard > 0 {
        annotations.insert(DISK_LIMITS.into(), serde_json::to_string(&limits)?);
    }
    spec.set_annotations(Some(annotations).filter(|all| !all.is_empty()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_says_what_is_limited_and_nothing_else() {
        let mut spec: Spec = serde_json::from_str("{}").unwrap();
        for (text, want) in [
            ("{}", None),
            (r#"{"byte_hard":5,"scope":1}"#, Some(r#"{"byte_hard":5,"scope":1}"#)),
            (r#"{"inode_hard":7}"#, Some(r#"{"inode_hard":7,"byte_hard":5,"scope":1}"#)),
            (r#"{"byte_hard":0}"#, Some(r#"{"inode_hard":7,"scope":1}"#)),
            (r#"{"inode_hard":0}"#, None),
        ] {
            change(&mut spec, serde_json::from_str(text).unwrap()).unwrap();
            let said = spec.annotations().as_ref().and_then(|all| all.get(DISK_LIMITS));
            assert_eq!(said.map(String::as_str), want, "{text}");
        }
        assert_eq!(*spec.annotations(), None);
    }
}
