//! An IPv6 subnet, and the way a container's IPv6 address follows from its IPv4 address, so that
//! nothing has to be handed out or given back twice.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use guardian_contract::fault::Fault;
use serde::{Deserialize, Serialize};

use crate::address::Place;

/// A network address and how many of its bits are fixed; the rest of the bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Subnet6 {
    network: Ipv6Addr,
    prefix: u8,
}

/// What a container has beside its IPv4 place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place6 {
    /// The container's address.
    pub(crate) address: Ipv6Addr,
    /// The host's address on the same link.
    pub(crate) gateway: Ipv6Addr,
    /// How many leading bits the two have in common.
    pub(crate) prefix: u8,
}

impl Subnet6 {
    /// Returns the place that goes with an IPv4 place. Two that differ there, differ here.
    pub(crate) fn beside(self, place: Place) -> Place6 {
        Place6 {
            address: self.embed(place.address),
            gateway: self.embed(place.subnet.gateway()),
            prefix: 96 + place.subnet.prefix(),
        }
    }

    fn embed(self, address: Ipv4Addr) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.network.to_bits() | u128::from(address.to_bits()))
    }
}

impl FromStr for Subnet6 {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let invalid = || Fault::invalid(format!("invalid CIDR address: {text}"));
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
        let address: Ipv6Addr = address.parse().map_err(|_| invalid())?;
        if !is_number || prefix > 128 {
            return Err(invalid());
        }
        let free = u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        Ok(Self { network: Ipv6Addr::from_bits(address.to_bits() & !free), prefix })
    }
}

/// Parses a pool, which must have room for every IPv4 address.
pub(crate) fn parse_pool(text: &str) -> Result<Subnet6, Fault> {
    let pool: Subnet6 = text.parse()?;
    match pool.prefix <= 96 {
        true => Ok(pool),
        false => Err(Fault::invalid(format!("the IPv6 pool {pool} is smaller than a /96"))),
    }
}

impl TryFrom<String> for Subnet6 {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

impl From<Subnet6> for String {
    fn from(subnet: Subnet6) -> Self {
        subnet.to_string()
    }
}

impl std::fmt::Display for Subnet6 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_follows_from_the_other() {
        let pool = parse_pool("fd00:1:2::9/64").unwrap();
        assert_eq!(pool.to_string(), "fd00:1:2::/64");
        let address = "10.254.0.6".parse().unwrap();
        let place = pool.beside(Place { subnet: "10.254.0.4/30".parse().unwrap(), address });
        assert_eq!(place.address, "fd00:1:2::10.254.0.6".parse::<Ipv6Addr>().unwrap());
        assert_eq!(place.gateway, "fd00:1:2::10.254.0.5".parse::<Ipv6Addr>().unwrap());
        assert_eq!(place.prefix, 126);
    }

    #[test]
    fn what_is_no_pool_says_so() {
        for text in ["", "x", "fd00::", "fd00::/", "fd00::/129", "fd00::/+8", "10.0.0.0/8"] {
            let message = parse_pool(text).unwrap_err().message;
            assert_eq!(message, format!("invalid CIDR address: {text}"));
        }
        let message = parse_pool("fd00::/97").unwrap_err().message;
        assert_eq!(message, "the IPv6 pool fd00::/97 is smaller than a /96");
        assert_eq!(parse_pool("::/0").unwrap().to_string(), "::/0");
    }
}
