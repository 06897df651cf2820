//! Translations there and back, up to the highest ids.

use guardian_contract::ids::maximus_map;
use proptest::prelude::*;

use super::*;

fn maps(start: u32, size: u32) -> IdMaps {
    let map = vec![IdMapping { container_id: 0, host_id: start, size }];
    IdMaps { uid: map.clone(), gid: map }
}

fn acl(entries: &[(u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(7_u16.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

fn capability(root: Option<u32>) -> Vec<u8> {
    let version = if root.is_some() { CAP_V3 } else { CAP_V2 };
    let mut value = (version | 1).to_le_bytes().to_vec();
    value.extend([0xff; 16]);
    value.extend(root.iter().flat_map(|root| root.to_le_bytes()));
    value
}

#[test]
fn owners_beyond_two_billion_are_moved() {
    let there = Translation::to_host(&maps(4_000_000_000, 65_536));
    for (id, want) in [(0, 4_000_000_000), (65_535, 4_000_065_535), (65_536, 65_536)] {
        assert_eq!(there.uid(id), want);
        assert_eq!(there.reversed().gid(there.gid(id)), id);
    }
    let map = maximus_map(4_294_967_294, 1, 4_294_967_293);
    let gdn = Translation::to_host(&IdMaps { uid: map.clone(), gid: map });
    assert_eq!((gdn.uid(0), gdn.uid(1), gdn.uid(4_294_967_293)), (4_294_967_294, 1, 4_294_967_293));
    gdn.check().unwrap();
}

#[test]
fn acls_and_capabilities_follow() {
    let there = Translation::to_host(&maps(100_000, 65_536));
    let before = acl(&[(1, u32::MAX), (2, 1000), (4, u32::MAX), (8, 1001), (8, 99_999)]);
    let after = acl(&[(1, u32::MAX), (2, 101_000), (4, u32::MAX), (8, 101_001), (8, 99_999)]);
    assert_eq!(there.acl(&before), after);
    assert_eq!(there.reversed().acl(&after), before);
    for (before, after) in [
        (capability(None), capability(Some(100_000))),
        (capability(Some(5)), capability(Some(100_005))),
        (capability(Some(99_999)), capability(Some(99_999))),
        (b"odd".to_vec(), b"odd".to_vec()),
    ] {
        assert_eq!(there.capability(&before), after);
        assert_eq!(there.reversed().capability(&after), before);
    }
}

#[test]
fn what_can_t_be_undone_is_refused() {
    assert!(Translation::to_host(&maps(65_535, 65_536)).check().is_err());
    assert!(Translation::to_host(&maps(65_536, 65_536)).check().is_ok());
    let there = Translation::to_host(&maps(100_000, 65_536));
    let acl = acl(&[(2, 100_007)]);
    let ids = Ids { uid: 100_001, gid: 5, acls: &[&acl], capability: None };
    assert_eq!(there.strangers(&ids), ["owner 100001", "ACL of user 100007"]);
}

#[test]
fn a_base_raises_the_ids_on_disk() {
    let made = based(&maps(100_000, 65_536), (500_000, 600_000)).unwrap();
    assert_eq!(made.uid[0].to_string(), "500000:100000:65536");
    assert_eq!(made.gid[0].to_string(), "600000:100000:65536");
    let map = maximus_map(4_294_967_294, 1, 4_294_967_293);
    let gdn = IdMaps { uid: map.clone(), gid: map };
    let made = based(&gdn, (1000, 0)).unwrap();
    assert_eq!(made.uid[0].to_string(), "1000:4294967294:1");
    assert_eq!(made.uid[1].to_string(), "1001:1:4294966294");
}

proptest! {
    #[test]
    fn there_and_back_is_nowhere(
        start in 65_536_u32..4_294_900_000,
        ids in prop::collection::vec((0_u16..0x40, any::<u32>()), 0..9),
        root in prop::option::of(1_u32..),
    ) {
        let there = Translation::to_host(&maps(start, 65_536));
        let (acl, capability) = (acl(&ids), capability(root));
        let known = Ids { uid: 0, gid: 0, acls: &[&acl], capability: Some(&capability) };
        prop_assume!(there.strangers(&known).is_empty());
        let back = there.reversed();
        prop_assert_eq!(back.acl(&there.acl(&acl)), acl);
        prop_assert_eq!(back.capability(&there.capability(&capability)), capability);
    }
}
