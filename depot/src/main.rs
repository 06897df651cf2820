//! The depot program: the bundle store, one directory per handle.
//!
//! `create` turns what a client and an image want into an OCI bundle; the other verbs read the
//! store or take a bundle away. Nothing is kept running and nothing is cached.

mod apparmor;
mod bind;
mod cli;
mod create;
mod destroy;
mod device;
mod host;
mod info;
mod rules;
mod update;
mod wanted;

fn main() -> std::process::ExitCode {
    guardian_contract::run::run("depot", cli::run)
}
