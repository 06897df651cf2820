//! The netsetup program: containers' links, addresses, port mappings and outbound rules.

mod address;
mod bandwidth;
mod cli;
mod connection;
mod conntrack;
mod host;
mod lease;
mod link;
mod listing;
mod name;
mod net_out_rule;
mod netlink;
mod netns;
mod nft;
mod policy;
mod port;
mod resolver;
mod ruleset;
mod state;
mod subnet;
mod subnet6;
mod survey;
mod verb;

fn main() -> std::process::ExitCode {
    guardian_contract::run::run("netsetup", verb::run)
}
