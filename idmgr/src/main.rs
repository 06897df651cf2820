//! The idmgr program: who owns which ids, and what this host can do about ownership.
//!
//! Every verb is a function on state that is on disk, guarded by a lock; `serve` offers the same
//! verbs on a socket. There is no truth in memory, so commands and server can be mixed and either
//! can be killed at any moment.

mod allocate;
mod block;
mod call;
mod cli;
mod ledger;
mod maximus;
mod probe;
mod range;
mod request;
mod serve;
mod store;
mod sys;

fn main() -> std::process::ExitCode {
    guardian_contract::run::run("idmgr", cli::run)
}
