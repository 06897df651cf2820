//! The idmgr program: who owns which ids, and what this host can do about ownership.
//!
//! Every verb is a function on state that is on disk, guarded by a lock; `serve` offers the same
//! verbs on a socket. There is no truth in memory, so commands and server can be mixed and either
//! can be killed at any moment.

mod allocate;
mod attach;
mod block;
mod call;
mod cli;
mod container;
mod copy;
mod entry;
mod inode;
mod ledger;
mod live;
mod mark;
mod maximus;
mod mounts;
mod overlay;
mod owner;
mod probe;
mod range;
mod record;
mod recover;
mod removal;
mod reown;
mod request;
mod rootfs;
mod serve;
mod shift;
mod show;
mod source;
mod store;
mod subid;
mod sys;
mod translate;
mod userns;
mod volume;
mod walk;

fn main() -> std::process::ExitCode {
    guardian_contract::run::run("idmgr", cli::run)
}
