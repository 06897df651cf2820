//! Garden's outbound rules as nftables matches: pure text, every word of it from a typed value.

use std::net::IpAddr;

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
///
/// IPv6 addresses and ICMPv6 are only understood where containers have IPv6; elsewhere they are
/// refused in gdn's words.
pub(crate) fn translate(rules: &[NetOutRule], has_ipv6: bool) -> Result<Vec<Translated>, Fault> {
    let one =
        |rule: &NetOutRule| Ok(Translated { matches: matches(rule, has_ipv6)?, log: rule.log });
    rules.iter().map(one).collect()
}

/// Returns the matches of a rule: one for each of its networks with each of its ports, as gdn has
/// it, in gdn's order.
fn matches(rule: &NetOutRule, has_ipv6: bool) -> Result<Vec<String>, Fault> {
    let name = match rule.protocol {
        protocol::ALL => "all",
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        protocol::ICMP => "icmp",
        protocol::ICMPV6 if has_ipv6 => "icmpv6",
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
        name => format!(" meta l4proto {name}{}", icmp(rule, name)),
    };
    if rule.icmps.is_some() && !name.starts_with("icmp") {
        return Err(Fault::invalid("ICMP type and code can only be given for protocol ICMP"));
    }
    let networks = each(&rule.networks, |range| network(range, has_ipv6))?;
    let ports = each(&rule.ports, port)?;
    let mut all = Vec::with_capacity(networks.len() * ports.len());
    for port in &ports {
        all.extend(networks.iter().map(|network| format!("{network}{protocol}{port}")));
    }
    Ok(all)
}

/// Translates every item; no items at all is one match that says nothing.
fn each<T>(items: &[T], one: impl Fn(&T) -> Result<String, Fault>) -> Result<Vec<String>, Fault> {
    if items.is_empty() {
        return Ok(vec![String::new()]);
    }
    items.iter().map(one).collect()
}

fn network(range: &IpRange, has_ipv6: bool) -> Result<String, Fault> {
    let kind = if has_ipv6 { "IP" } else { "IPv4" };
    let parse = |text: &str| -> Result<IpAddr, Fault> {
        let address = text.parse().ok().filter(|address: &IpAddr| has_ipv6 || address.is_ipv4());
        address.ok_or_else(|| {
            Fault::invalid(format!("'{}' is not an {kind} address", text.escape_debug()))
        })
    };
    let word = |address: IpAddr| if address.is_ipv4() { "ip" } else { "ip6" };
    match (range.start.as_str(), range.end.as_str()) {
        ("", "") => Ok(String::new()),
        (one, "") | ("", one) => {
            let one = parse(one)?;
            Ok(format!(" {} daddr {one}", word(one)))
        }
        (start, end) => match (parse(start)?, parse(end)?) {
            (start, end) if start.is_ipv4() != end.is_ipv4() => {
                Err(Fault::invalid(format!("the range {start}-{end} has two kinds of addresses")))
            }
            (start, end) if start > end => {
                Err(Fault::invalid(format!("the range {start}-{end} ends before it starts")))
            }
            (start, end) if start == end => Ok(format!(" {} daddr {start}", word(start))),
            (start, end) => Ok(format!(" {} daddr {start}-{end}", word(start))),
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

fn icmp(rule: &NetOutRule, name: &str) -> String {
    match &rule.icmps {
        Some(icmp) if name.starts_with("icmp") => match icmp.code {
            None => format!(" {name} type {}", icmp.kind),
            Some(code) => format!(" {name} type {} {name} code {code}", icmp.kind),
        },
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translate(json: &str) -> Result<Vec<String>, String> {
        matches(&serde_json::from_str(json).unwrap(), false).map_err(|fault| fault.message)
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

    #[test]
    fn ipv6_is_understood_where_there_is_ipv6() {
        let translate = |json: &str| {
            matches(&serde_json::from_str(json).unwrap(), true).map_err(|fault| fault.message)
        };
        for (json, want) in [
            (r#"{"networks":[{"start":"fd00::1"}]}"#, " ip6 daddr fd00::1"),
            (r#"{"networks":[{"start":"fd00::1","end":"fd00::9"}]}"#, " ip6 daddr fd00::1-fd00::9"),
            (r#"{"networks":[{"start":"1.2.3.4"}]}"#, " ip daddr 1.2.3.4"),
            (r#"{"protocol":4}"#, " meta l4proto icmpv6"),
            (
                r#"{"protocol":4,"icmps":{"type":128,"code":0}}"#,
                " meta l4proto icmpv6 icmpv6 type 128 icmpv6 code 0",
            ),
        ] {
            assert_eq!(translate(json).unwrap(), [want], "{json}");
        }
        let mixed = r#"{"networks":[{"start":"1.2.3.4","end":"fd00::1"}]}"#;
        let message = translate(mixed).unwrap_err();
        assert_eq!(message, "the range 1.2.3.4-fd00::1 has two kinds of addresses");
        let none = translate(r#"{"networks":[{"start":"x"}]}"#).unwrap_err();
        assert_eq!(none, "'x' is not an IP address");
    }
}
