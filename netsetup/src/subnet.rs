//! An IPv4 subnet and the roles of the addresses in it.

use std::net::Ipv4Addr;
use std::str::FromStr;

use guardian_contract::fault::Fault;
use serde::{Deserialize, Serialize};

/// A network address and how many of its bits are fixed; the rest of the bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// Returns the subnet of this size that `address` is in; a prefix above 32 means 32.
    pub(crate) fn around(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        let network = Ipv4Addr::from_bits(address.to_bits() & !host_bits(prefix));
        Self { network, prefix }
    }

    /// Returns the first address: the subnet's own name, never given away.
    pub(crate) fn network(self) -> Ipv4Addr {
        self.network
    }

    /// Returns how many leading bits are fixed.
    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// Returns the second address: the host's.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits().saturating_add(1))
    }

    /// Returns the last address.
    pub(crate) fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | host_bits(self.prefix))
    }

    /// Returns how many addresses there are, reserved ones included.
    pub(crate) fn size(self) -> u64 {
        u64::from(host_bits(self.prefix)) + 1
    }

    /// Tells whether `address` is in the subnet.
    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        Self::around(address, self.prefix) == self
    }

    /// Tells whether the two have an address in common.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// Returns the addresses a container may have, lowest first.
    pub(crate) fn container_addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        let first = u64::from(self.network.to_bits()) + 2;
        (first..u64::from(self.broadcast().to_bits()))
            .filter_map(|bits| u32::try_from(bits).ok().map(Ipv4Addr::from_bits))
    }

    /// Tells whether at most one container fits in.
    pub(crate) fn is_for_one(self) -> bool {
        self.prefix >= 30
    }
}

/// Returns the bits that a prefix of this length leaves free.
fn host_bits(prefix: u8) -> u32 {
    u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Subnet {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let (address, prefix) = parse_cidr(text)?;
        Ok(Self::around(address, prefix))
    }
}

/// Parses `a.b.c.d/n` without losing the address.
pub(crate) fn parse_cidr(text: &str) -> Result<(Ipv4Addr, u8), Fault> {
    let invalid = || Fault::invalid(format!("invalid CIDR address: {text}"));
    let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
    let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
    let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
    let address = address.parse().map_err(|_| invalid())?;
    if digits && prefix <= 32 { Ok((address, prefix)) } else { Err(invalid()) }
}

impl TryFrom<String> for Subnet {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn roles_are_first_second_and_last() {
        let net = subnet("10.254.0.7/30");
        assert_eq!(net.to_string(), "10.254.0.4/30");
        assert_eq!(net.gateway().to_string(), "10.254.0.5");
        assert_eq!(net.broadcast().to_string(), "10.254.0.7");
        assert_eq!(net.container_addresses().collect::<Vec<_>>(), [Ipv4Addr::new(10, 254, 0, 6)]);
        assert_eq!(subnet("10.254.0.0/22").size(), 1024);
    }

    #[test]
    fn tiny_and_huge_subnets_do_not_overflow() {
        for (text, size) in [("255.255.255.255/32", 1), ("255.255.255.254/31", 2)] {
            assert_eq!(subnet(text).size(), size);
            assert_eq!(subnet(text).container_addresses().count(), 0);
        }
        assert_eq!(subnet("0.0.0.0/0").size(), 1 << 32);
        assert_eq!(subnet("255.255.255.252/30").container_addresses().count(), 1);
    }

    #[test]
    fn what_is_no_cidr_says_so() {
        for text in ["", "x", "10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/+8", "::1/64"] {
            let error = text.parse::<Subnet>().unwrap_err();
            assert_eq!(error.message, format!("invalid CIDR address: {text}"));
        }
    }

    proptest! {
        #[test]
        fn overlap_is_symmetric_and_means_a_common_address(a: u32, b: u32, p in 0u8..=32, q in 0u8..=32) {
            let (left, right) = (Subnet::around(a.into(), p), Subnet::around(b.into(), q));
            prop_assert_eq!(left.overlaps(right), right.overlaps(left));
            let apart = left.broadcast() < right.network() || right.broadcast() < left.network();
            prop_assert_eq!(left.overlaps(right), !apart);
            prop_assert_eq!(left.to_string().parse::<Subnet>().unwrap(), left);
        }
    }
}
