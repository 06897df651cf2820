//! Images from registries: Debian's docker-registry, and servers that mean harm.

#[path = "registry/distribution.rs"]
mod distribution;
#[path = "registry/fake.rs"]
mod fake;
#[path = "registry/flags.rs"]
mod flags;
#[path = "registry/full.rs"]
mod full;
#[path = "registry/hostile.rs"]
mod hostile;
#[path = "registry/identity.rs"]
mod identity;
#[path = "registry/preloaded.rs"]
mod preloaded;
#[path = "registry/push.rs"]
mod push;
#[path = "registry/real.rs"]
mod real;
#[path = "registry/scene.rs"]
mod scene;
#[path = "registry/token.rs"]
mod token;
#[path = "registry/trust.rs"]
mod trust;
