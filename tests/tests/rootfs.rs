//! `rootfs`, `ocitar` and `nstar` on the real kernel, with real containers.
//!
//! Needs root, a static busybox and runc; what is missing is said by name and skipped.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skipped"
)]

#[path = "rootfs/absent.rs"]
mod absent;
#[path = "rootfs/bench.rs"]
mod bench;
#[path = "rootfs/clean.rs"]
mod clean;
#[path = "rootfs/commit.rs"]
mod commit;
#[path = "rootfs/container.rs"]
mod container;
#[path = "rootfs/fsck.rs"]
mod fsck;
#[path = "rootfs/hostile.rs"]
mod hostile;
#[path = "rootfs/layout.rs"]
mod layout;
#[path = "rootfs/nstar.rs"]
mod nstar;
#[path = "rootfs/quota.rs"]
mod quota;
#[path = "rootfs/registry.rs"]
mod registry;
#[path = "rootfs/resize.rs"]
mod resize;
#[path = "rootfs/store.rs"]
mod store;
