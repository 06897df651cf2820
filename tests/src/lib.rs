//! What the integration tests, the demo and the benchmark share: a private guardiand whose state
//! and network touch nothing else on the host, the default image, and the search for what is left
//! behind.

pub mod api;
pub mod daemon;
pub mod elf;
pub mod event;
pub mod hierarchy;
pub mod host;
pub mod image;
pub mod leftover;
pub mod memory;
pub mod netns;
pub mod patience;
pub mod probe;
pub mod skip;
