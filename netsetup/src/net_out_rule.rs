//! Garden's outbound rules as nftables matches: pure text, every word of it from a typed value.

use std::net::Ipv4Addr;

use guardian_contract::fault::Fault;
use guardian_contract::garden::{IpRange, NetOutRule, PortRange, protocol};

/// A rule in nft's words.
#[derive(Debug)]
pub(crate) struct Translated {
    /// The matches; a packet that one of them matches is let out.
    pub(crate) matches: Vec<String>,
    /// Whether it is logged.
    pub(crate) log: bool,
}

/// Translates rules, all before the first is put to use.
pub(crate) fn translate(rules: &[NetOutRule]) -> Result<Vec<Translated>, Fault> {
    rules.iter().map(|rule| Ok(Translated { matches: matches(rule)?, log: rule.log })).collect()
}

/// Returns the matches of a rule: one for each of its networks with each of its ports, as gdn has
/// it, in gdn's order.
fn matches(rule: &NetOutRule) -> Result<Vec<String>, Fault> {
    let name = match rule.protocol {
        protocol::ALL => "all",
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        protocol::ICMP => "icmp",
        _ => "",
    };
    if !rule.ports.is_empty() && name != "tcp" && name != "udp" {
        let name = name.to_uppercase();
        return Err(Fault::invalid(format!("Ports cannot be specified for Protocol {name}")));
    }
    if name.is_empty() {
        return Err(Fault::invalid(format!("invalid protocol: {}", rule.protocol)));
    }
    let protocol = match name {
        "all" => String::new(),
        name => format!(" meta l4proto {name}{}", icmp(rule)?),
    };
    if rule.icmps.is_some() && name != "icmp" {
        return Err(Fault::invalid("ICMP type and code can only be given for protocol ICMP"));
    }
    let networks = each(&rule.networks, network)?;
    let ports = each(&rule.ports, port)?;
    let mut all = Vec::with_capacity(networks.len() * ports.len());
    for port in &ports {
        all.extend(networks.iter().map(|network| format!("{network}{protocol}{port}")));
    }
    Ok(all)
}

/// Translates every item; no items at all is one match that says nothing.
fn each<T>(items: &[T], one: fn(&T) -> Result<String, Fault>) -> Result<Vec<String>, Fault> {
    if items.is_empty() {
        return Ok(vec![String::new()]);
    }
    items.iter().map(one).collect()
}

fn network(range: &IpRange) -> Result<String, Fault> {
    let parse = |text: &str| -> Result<Ipv4Addr, Fault> {
        text.parse().map_err(|_| {
            Fault::invalid(format!("'{}' is not an IPv4 address", text.escape_debug()))
        })
    };
    match (range.start.as_str(), range.end.as_str()) {
        ("", "") => Ok(String::new()),
        (one, "") | ("", one) => Ok(format!(" ip daddr {}", parse(one)?)),
        (start, end) => match (parse(start)?, parse(end)?) {
            (start, end) if start > end => {
                Err(Fault::invalid(format!("the range {start}-{end} ends before it starts")))
            }
            (start, end) if start == end => Ok(format!(" ip daddr {start}")),
            (start, end) => Ok(format!(" ip daddr {start}-{end}")),
        },
    }
}

fn port(range: &PortRange) -> Result<String, Fault> {
    match (range.start, range.end) {
        (one, 0) | (0, one) => Ok(format!(" th dport {one}")),
        (start, end) if start > end => {
            Err(Fault::invalid(format!("the range {start}-{end} ends before it starts")))
        }
        (start, end) if start == end => Ok(format!(" th dport {start}")),
        (start, end) => Ok(format!(" th dport {start}-{end}")),
    }
}

fn icmp(rule: &NetOutRule) -> Result<String, Fault> {
    Ok(match &rule.icmps {
        None => String::new(),
        Some(icmp) => match icmp.code {
            None => format!(" icmp type {}", icmp.kind),
            Some(code) => format!(" icmp type {} icmp code {code}", icmp.kind),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translate(json: &str) -> Result<Vec<String>, String> {
        matches(&serde_json::from_str(json).unwrap()).map_err(|fault| fault.message)
    }

    #[test]
    fn rules_become_matches() {
        for (json, want) in [
            ("{}", vec![""]),
            (r#"{"protocol":1}"#, vec![" meta l4proto tcp"]),
            (r#"{"networks":[{"start":"1.2.3.4"}]}"#, vec![" ip daddr 1.2.3.4"]),
            (r#"{"networks":[{"end":"1.2.3.4"}]}"#, vec![" ip daddr 1.2.3.4"]),
            (
                r#"{"protocol":2,"networks":[{"start":"1.0.0.0","end":"1.0.0.9"},{"start":"2.0.0.0"}],
                    "ports":[{"start":53},{"start":80,"end":90}]}"#,
                vec![
                    " ip daddr 1.0.0.0-1.0.0.9 meta l4proto udp th dport 53",
                    " ip daddr 2.0.0.0 meta l4proto udp th dport 53",
                    " ip daddr 1.0.0.0-1.0.0.9 meta l4proto udp th dport 80-90",
                    " ip daddr 2.0.0.0 meta l4proto udp th dport 80-90",
                ],
            ),
            (
                r#"{"protocol":3,"icmps":{"type":8,"code":0}}"#,
                vec![" meta l4proto icmp icmp type 8 icmp code 0"],
            ),
            (r#"{"protocol":3,"icmps":{}}"#, vec![" meta l4proto icmp icmp type 0"]),
        ] {
            assert_eq!(translate(json).unwrap(), want, "{json}");
        }
    }

    #[test]
    fn nonsense_has_gdn_s_words() {
        for (json, want) in [
            (r#"{"ports":[{"start":1}]}"#, "Ports cannot be specified for Protocol ALL"),
            (
                r#"{"protocol":3,"ports":[{"start":1}]}"#,
                "Ports cannot be specified for Protocol ICMP",
            ),
            (r#"{"protocol":4,"ports":[{"start":1}]}"#, "Ports cannot be specified for Protocol "),
            (r#"{"protocol":4}"#, "invalid protocol: 4"),
            (r#"{"protocol":200}"#, "invalid protocol: 200"),
            (
                r#"{"protocol":1,"icmps":{"type":8}}"#,
                "ICMP type and code can only be given for protocol ICMP",
            ),
            (
                r#"{"networks":[{"start":"x; flush ruleset"}]}"#,
                "'x; flush ruleset' is not an IPv4 address",
            ),
            (r#"{"networks":[{"start":"::1"}]}"#, "'::1' is not an IPv4 address"),
            (
                r#"{"networks":[{"start":"2.0.0.0","end":"1.0.0.0"}]}"#,
                "the range 2.0.0.0-1.0.0.0 ends before it starts",
            ),
        ] {
            assert_eq!(translate(json).unwrap_err(), want, "{json}");
        }
    }
}
