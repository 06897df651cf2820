//! Root filesystems for containers. Three programs share this body:
//!
//! | program | work |
//! | --- | --- |
//! | `rootfs` | the image plugin: images → layers in a store → one overlay mount per container |
//! | `ocitar` | a directory → a layer archive, and back |
//! | `nstar` | streams an archive into and out of a running container |
//!
//! What they share is the archive ([`mod@archive`]), taking it apart onto a disk (`unpack`) and
//! making one (`pack`).

mod ahead;
mod archive;
mod beneath;
mod bulk_stats;
mod clean;
pub mod cli;
mod collect;
mod commit;
mod config;
mod create;
mod df;
mod digest;
mod disk;
mod fsck;
mod full;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod held;
mod image;
mod inventory;
mod layer;
mod layout;
mod leftovers;
mod manifest;
mod maps;
mod mounts;
pub mod nstar;
pub mod ocitar;
mod overlay;
mod owner;
mod pack;
mod preloaded;
mod progress;
mod prune;
mod pull;
mod recipe;
mod registry;
mod remove;
mod resize;
mod source;
mod stats;
mod store;
mod sys;
mod trash;
mod unpack;
mod usage;
mod userns;
mod xattr;
mod zstd;
