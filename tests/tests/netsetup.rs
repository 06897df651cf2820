//! `netsetup` on the real kernel, in namespaces of its own: for every line of the policy a packet
//! that passes and one that does not; what is refused, what is left behind, what a kill leaves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "netsetup/packet.rs"]
mod packet;
#[path = "netsetup/world.rs"]
mod world;

#[path = "netsetup/by_hand.rs"]
mod by_hand;
#[path = "netsetup/conntrack.rs"]
mod conntrack;
#[path = "netsetup/ipv6.rs"]
mod ipv6;
#[path = "netsetup/lifecycle.rs"]
mod lifecycle;
#[path = "netsetup/limit.rs"]
mod limit;
#[path = "netsetup/mapping.rs"]
mod mapping;
#[path = "netsetup/policy.rs"]
mod policy;
#[path = "netsetup/refusal.rs"]
mod refusal;
#[path = "netsetup/repair.rs"]
mod repair;
#[path = "netsetup/traffic.rs"]
mod traffic;
