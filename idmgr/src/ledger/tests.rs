//! What must hold of the ledger, whatever is asked in whatever order.

use proptest::prelude::*;

use super::*;

const RANGES: [Range; 2] = [
    Range { start: 100_000, end: 100_000 + 40 * BLOCK as u64 },
    Range { start: 9_000_000, end: 9_000_000 + 20 * BLOCK as u64 + 1 },
];

fn request(id: usize, policy: Policy, blocks: u32) -> Allocate {
    Allocate {
        id: format!("c{id}").parse().unwrap(),
        policy,
        size: blocks * BLOCK,
        exhausted: Exhausted::Fail,
        verify: false,
        overrides: Default::default(),
    }
}

#[test]
fn the_same_question_has_the_same_answer() {
    let mut ledger = Ledger::default();
    let one = ledger.allocate(&RANGES, &request(1, Policy::Exclusive, 1)).unwrap();
    assert_eq!(one.maps().uid[0].to_string(), "0:100000:65536");
    assert_eq!(ledger.allocate(&RANGES, &request(1, Policy::Exclusive, 1)).unwrap(), one);
    // Even when the files have changed since.
    assert_eq!(ledger.allocate(&[], &request(1, Policy::Exclusive, 1)).unwrap(), one);
    let other = ledger.allocate(&RANGES, &request(1, Policy::Shared, 1)).unwrap_err();
    assert_eq!(other.message, "'c1' holds 65536 exclusive ids already");
    assert_eq!(other.kind, Kind::Exists);
}

#[test]
fn shared_ids_are_shared_among_themselves_alone() {
    let mut ledger = Ledger::default();
    let mut start = |id, policy| ledger.allocate(&RANGES, &request(id, policy, 1)).unwrap().start;
    let shared = start(1, Policy::Shared);
    assert_eq!(start(2, Policy::Shared), shared);
    assert_ne!(start(3, Policy::Exclusive), shared);
    assert_eq!(start(4, Policy::Shared), shared);
}

#[test]
fn sizes_are_rounded_up_to_blocks() {
    for (size, want) in [(1, BLOCK), (BLOCK, BLOCK), (BLOCK + 1, 2 * BLOCK)] {
        let request = Allocate { size, ..request(1, Policy::Exclusive, 1) };
        assert_eq!(Ledger::default().allocate(&RANGES, &request).unwrap().size, want);
    }
    let request = Allocate { size: u32::MAX, ..request(1, Policy::Exclusive, 1) };
    let fault = Ledger::default().allocate(&RANGES, &request).unwrap_err();
    assert_eq!(fault.kind, Kind::Invalid);
}

#[test]
fn an_exhausted_pool_refuses_or_reuses() {
    let ranges = [Range { start: 100_000, end: 100_000 + 2 * u64::from(BLOCK) }];
    let mut ledger = Ledger::default();
    for id in 0..2 {
        ledger.allocate(&ranges, &request(id, Policy::Exclusive, 1)).unwrap();
    }
    let fault = ledger.allocate(&ranges, &request(9, Policy::Exclusive, 1)).unwrap_err();
    assert_eq!(fault.kind, Kind::Exhausted);
    assert!(fault.message.ends_with("0 of 2 blocks of 65536 are free"), "{}", fault.message);
    let starts: Vec<(u32, bool)> = (2..5)
        .map(|id| {
            let request =
                Allocate { exhausted: Exhausted::Reuse, ..request(id, Policy::Exclusive, 1) };
            let held = ledger.allocate(&ranges, &request).unwrap();
            (held.start, held.reused)
        })
        .collect();
    assert_eq!(starts, [(100_000, true), (165_536, true), (100_000, true)]);
    // What somebody was promised alone is never shared with everybody.
    let request = Allocate { exhausted: Exhausted::Reuse, ..request(9, Policy::Shared, 1) };
    assert_eq!(ledger.allocate(&ranges, &request).unwrap_err().kind, Kind::Exhausted);
}

/// What to do next, to which of a few containers.
fn operations() -> impl Strategy<Value = Vec<(usize, u8, u32)>> {
    prop::collection::vec((0_usize..60, 0_u8..4, 1_u32..4), 200)
}

proptest! {
    #[test]
    fn holdings_never_overlap(operations in operations()) {
        let mut ledger = Ledger::default();
        for (id, what, blocks) in operations {
            match what {
                0 => { ledger.release(&format!("c{id}").parse().unwrap()); }
                1 => { let _ = ledger.allocate(&RANGES, &request(id, Policy::Shared, 1)); }
                _ => { let _ = ledger.allocate(&RANGES, &request(id, Policy::Exclusive, blocks)); }
            }
            check(&ledger)?;
        }
    }
}

fn check(ledger: &Ledger) -> Result<(), TestCaseError> {
    let held: Vec<&Holding> = ledger.holders.values().collect();
    for (at, one) in held.iter().enumerate() {
        let inside = RANGES.iter().any(|range| range.and(one.range()) == Some(one.range()));
        prop_assert!(inside, "{one:?} is outside all ranges");
        for other in &held[at + 1..] {
            let both_shared = one.policy == Policy::Shared && other.policy == Policy::Shared;
            let overlap = one.range().and(other.range()).is_some();
            prop_assert!(!overlap || both_shared && one == other, "{one:?} {other:?}");
        }
    }
    Ok(())
}
