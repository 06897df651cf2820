//! `net-out`: a rule as words.

use std::net::IpAddr;

use clap::{Args, ValueEnum};
use guardian_contract::garden::{Icmp, IpRange, NetOutRule, PortRange, protocol};

/// `net-out`
#[derive(Debug, Args)]
pub(crate) struct NetOutArgs {
    /// The container
    pub(crate) handle: String,

    /// What may pass
    #[arg(long, value_enum, default_value = "all")]
    protocol: Protocol,

    /// To where: A, A-B or A/N; everywhere when not given
    #[arg(long = "network", value_name = "ADDRESSES", value_parser = network)]
    networks: Vec<IpRange>,

    /// To which ports: P or P-Q; TCP and UDP only
    #[arg(long = "port", value_name = "PORTS", value_parser = ports)]
    ports: Vec<PortRange>,

    /// Which ICMP messages: TYPE or TYPE/CODE
    #[arg(long, value_name = "TYPE[/CODE]", value_parser = icmp)]
    icmp: Option<Icmp>,

    /// Log each new connection
    #[arg(long)]
    log: bool,
}

/// Protocols by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Protocol {
    All,
    Tcp,
    Udp,
    Icmp,
    Icmpv6,
}

impl NetOutArgs {
    /// Returns the rule that the API takes.
    pub(crate) fn rule(&self) -> NetOutRule {
        NetOutRule {
            protocol: match self.protocol {
                Protocol::All => protocol::ALL,
                Protocol::Tcp => protocol::TCP,
                Protocol::Udp => protocol::UDP,
                Protocol::Icmp => protocol::ICMP,
                Protocol::Icmpv6 => protocol::ICMPV6,
            },
            networks: self.networks.clone(),
            ports: self.ports.clone(),
            icmps: self.icmp.clone(),
            log: self.log,
        }
    }
}

/// Reads `A`, `A-B` or `A/N`.
fn network(text: &str) -> Result<IpRange, String> {
    let address =
        |text: &str| text.parse::<IpAddr>().map_err(|_| format!("'{text}' is no address"));
    if let Some((base, length)) = text.split_once('/') {
        return block(address(base)?, length).ok_or_else(|| format!("'/{length}' is no length"));
    }
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (address(start)?, address(end)?);
    if start.is_ipv4() != end.is_ipv4() || start > end {
        return Err("the range is empty".into());
    }
    Ok(IpRange { start: start.to_string(), end: end.to_string() })
}

/// Returns the first and last address of a CIDR block.
fn block(base: IpAddr, length: &str) -> Option<IpRange> {
    let length: u32 = length.parse().ok()?;
    let (start, end) = match base {
        IpAddr::V4(base) => {
            let host = u32::MAX.checked_shr(length).unwrap_or(0);
            let bits = base.to_bits();
            (length <= 32).then(|| {
                let (start, end) = (bits & !host, bits | host);
                (IpAddr::V4(start.into()), IpAddr::V4(end.into()))
            })?
        }
        IpAddr::V6(base) => {
            let host = u128::MAX.checked_shr(length).unwrap_or(0);
            let bits = base.to_bits();
            (length <= 128).then(|| {
                let (start, end) = (bits & !host, bits | host);
                (IpAddr::V6(start.into()), IpAddr::V6(end.into()))
            })?
        }
    };
    Some(IpRange { start: start.to_string(), end: end.to_string() })
}

/// Reads `P` or `P-Q`.
fn ports(text: &str) -> Result<PortRange, String> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    match (start.parse(), end.parse()) {
        (Ok(start), Ok(end)) if start <= end => Ok(PortRange { start, end }),
        _ => Err("not PORT or PORT-PORT".into()),
    }
}

/// Reads `TYPE` or `TYPE/CODE`.
fn icmp(text: &str) -> Result<Icmp, String> {
    let (kind, code) = match text.split_once('/') {
        Some((kind, code)) => (kind, Some(code)),
        None => (text, None),
    };
    let wrong = || "not TYPE or TYPE/CODE".to_owned();
    let kind = kind.parse().map_err(|_| wrong())?;
    let code = code.map(str::parse).transpose().map_err(|_| wrong())?;
    Ok(Icmp { kind, code })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_ranges() {
        for (text, start, end) in [
            ("10.1.2.3", "10.1.2.3", "10.1.2.3"),
            ("10.0.0.1-10.0.0.9", "10.0.0.1", "10.0.0.9"),
            ("10.1.2.3/8", "10.0.0.0", "10.255.255.255"),
            ("1.2.3.4/32", "1.2.3.4", "1.2.3.4"),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
            ("fd00::5/126", "fd00::4", "fd00::7"),
        ] {
            let want = IpRange { start: start.into(), end: end.into() };
            assert_eq!(network(text), Ok(want), "{text}");
        }
        for wrong in ["", "x", "10.0.0.9-10.0.0.1", "1.2.3.4/33", "::1-1.2.3.4"] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ports_and_icmp_are_numbers() {
        assert_eq!(ports("80-90"), Ok(PortRange { start: 80, end: 90 }));
        assert!(ports("90-80").is_err() && ports("70000").is_err());
        assert_eq!(icmp("8"), Ok(Icmp { kind: 8, code: None }));
        assert_eq!(icmp("3/0"), Ok(Icmp { kind: 3, code: Some(0) }));
        assert!(icmp("3/").is_err());
    }
}
