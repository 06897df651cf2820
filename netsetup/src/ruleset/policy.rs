//! The frame of our table: what holds for all containers alike.

use super::Script;
use crate::policy::{Network, Policy};

/// A source address that doesn't belong where the packet came from.
const SPOOFED: &str = "fib saddr . iif oif missing drop";
const ESTABLISHED: &str = "ct state established,related accept";

impl Script {
    /// Makes the table, or makes one that exists say what `policy` says. Elements and containers'
    /// chains stay.
    fn base(&mut self, policy: &Policy) {
        self.line("add table", "");
        self.line(
            "add map",
            "net_in { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }",
        );
        self.line("add map", "net_out { type ipv4_addr : verdict; }");
        self.line("add map", "net_out6 { type ipv6_addr : verdict; }");
        self.line("add set", "hairpin { type ifname . ifname; }");
        self.line("add map", "upload { type ipv4_addr : limit; }");
        self.line("add map", "upload6 { type ipv6_addr : limit; }");
        self.translation(policy);
        self.upload();
        self.toward_host(policy);
        self.outbound(policy);
    }

    /// Replaces the table, if there is one, by one that says what `policy` says and has what the
    /// containers had: all of it in the same instant, so that no packet sees less than the rules.
    pub(crate) fn whole(&mut self, policy: &Policy) {
        self.line("add table", "");
        self.line("delete table", "");
        self.base(policy);
    }

    /// Drops what a container sends beyond its limit. By address, so that it costs others one
    /// look-up; what two containers of a bridge say to each other does not pass here.
    fn upload(&mut self) {
        let prefix = self.names.interface_prefix();
        let rules = [("ip", "upload"), ("ip6", "upload6")].map(|(family, map)| {
            format!("iifname \"{prefix}*\" limit name {family} saddr map @{map} drop")
        });
        // Before connections are tracked: what is dropped should cost nothing more.
        self.chain("limits", "type filter hook prerouting priority -350;", &rules);
    }

    fn translation(&mut self, policy: &Policy) {
        let prefix = self.names.interface_prefix();
        let pool = policy.network_pool;
        let mapped = "dnat ip to ip daddr . meta l4proto . th dport map @net_in";
        self.chain("prerouting", "type nat hook prerouting priority dstnat;", &[mapped.into()]);
        self.chain("output", "type nat hook output priority -100;", &[mapped.into()]);
        let mut rules = vec![
            // Back out of the interface it came from: the answer must come through us, not
            // straight from one container of a bridge to the other, or from a container to itself.
            "ct status dnat iifname . oifname @hairpin masquerade".to_owned(),
            format!("oifname \"{prefix}*\" accept"),
            format!("ip saddr {pool} ip daddr != {pool} masquerade"),
            // The same for subnets out of the pool; before Linux 5.7 this matches nothing.
            format!("iifname \"{prefix}*\" masquerade"),
        ];
        if let Some(pool) = policy.ipv6_pool {
            rules.push(format!("ip6 saddr {pool} ip6 daddr != {pool} masquerade"));
        }
        self.chain("postrouting", "type nat hook postrouting priority srcnat;", &rules);
    }

    fn toward_host(&mut self, policy: &Policy) {
        let prefix = self.names.interface_prefix();
        let mut rules = vec![SPOOFED.to_owned(), ESTABLISHED.to_owned()];
        if policy.ipv6_pool.is_some() {
            // Without these no neighbour learns of the other; routers are nobody's business here.
            let kinds = "nd-neighbor-solicit, nd-neighbor-advert";
            rules.push(format!("icmpv6 type {{ {kinds} }} accept"));
        }
        for server in &policy.dns_servers {
            let family = if server.is_ipv4() { "ip" } else { "ip6" };
            rules.push(format!(
                "{family} daddr {server} meta l4proto {{ tcp, udp }} th dport 53 accept"
            ));
        }
        match policy.allow_host_access {
            true => rules.push("accept".into()),
            false => {
                rules.push("meta nfproto ipv4 reject with icmp type host-prohibited".into());
                rules.push("drop".into());
            }
        }
        self.chain("to_host", "", &rules);
        let jump = format!("iifname \"{prefix}*\" jump to_host");
        self.chain("input", "type filter hook input priority filter;", &[jump]);
    }

    fn outbound(&mut self, policy: &Policy) {
        let prefix = self.names.interface_prefix();
        let mut rules = vec![
            match policy.ipv6_pool {
                None => "meta nfproto ipv6 drop".to_owned(),
                Some(pool) => format!("ip6 saddr != {pool} drop"),
            },
            SPOOFED.to_owned(),
            ESTABLISHED.to_owned(),
            // Containers of one bridge are free to talk. This sees their packets only where
            // br_netfilter is on, or when they come by way of a mapped port.
            "iifname . oifname @hairpin accept".to_owned(),
            "ip saddr vmap @net_out".to_owned(),
            "ip6 saddr vmap @net_out6".to_owned(),
        ];
        rules.extend(policy.deny_networks.iter().map(|network| match network {
            Network::V4(network) => format!("ip daddr {network} reject"),
            Network::V6(network) => format!("ip6 daddr {network} reject"),
        }));
        self.chain("outbound", "", &rules);
        let jump = format!("iifname \"{prefix}*\" jump outbound");
        self.chain("forward", "type filter hook forward priority filter;", &[jump]);
    }

    /// Makes a chain that holds exactly these rules.
    fn chain(&mut self, name: &str, hook: &str, rules: &[String]) {
        let hook = if hook.is_empty() { String::new() } else { format!(" {{ {hook} }}") };
        self.line("add chain", &format!("{name}{hook}"));
        self.line("flush chain", name);
        for rule in rules {
            self.line("add rule", &format!("{name} {rule}"));
        }
    }
}
