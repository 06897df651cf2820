//! Which subnets and addresses are taken, and the choice of the next: pure, over one value.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use guardian_contract::fault::{Fault, Kind};
use serde::{Deserialize, Serialize};

use crate::subnet::{Subnet, parse_cidr};

/// What a create request's `network` string asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// A /30 of its own from the pool.
    Dynamic,
    /// This subnet, and this address in it; without one, the first free.
    Fixed(Subnet, Option<Ipv4Addr>),
}

impl Request {
    /// Parses nothing, `A` (meaning `A/30`), or `A/n`. `A` may be the subnet's own address.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        if text.is_empty() {
            return Ok(Self::Dynamic);
        }
        let (address, prefix) = match text.contains('/') {
            true => parse_cidr(text)?,
            false => parse_cidr(&format!("{text}/30"))?,
        };
        let subnet = Subnet::around(address, prefix);
        Ok(Self::Fixed(subnet, (address != subnet.network()).then_some(address)))
    }
}

/// A container's place: its address and the subnet that address is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The subnet.
    pub(crate) subnet: Subnet,
    /// The container's address.
    pub(crate) address: Ipv4Addr,
}

/// The subnets in use, which never overlap, with the container addresses taken in each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Addresses(BTreeMap<Subnet, BTreeSet<Ipv4Addr>>);

impl Addresses {
    /// Takes what `request` asks for; dynamic subnets come from `pool`, lowest free first.
    pub(crate) fn take(&mut self, request: Request, pool: Subnet) -> Result<Place, Fault> {
        let place = match request {
            Request::Dynamic => self.next_dynamic(pool)?,
            Request::Fixed(subnet, address) => {
                self.check_subnet(subnet, pool)?;
                Place { subnet, address: self.choose_address(subnet, address)? }
            }
        };
        self.0.entry(place.subnet).or_default().insert(place.address);
        Ok(place)
    }

    /// Gives `place` back; what is not taken stays so.
    pub(crate) fn release(&mut self, place: Place) {
        if let Some(addresses) = self.0.get_mut(&place.subnet) {
            addresses.remove(&place.address);
            if addresses.is_empty() {
                self.0.remove(&place.subnet);
            }
        }
    }

    /// Tells whether `place` is the only one taken in its subnet.
    pub(crate) fn is_last(&self, place: Place) -> bool {
        self.0.get(&place.subnet).is_none_or(|taken| taken.iter().all(|ip| *ip == place.address))
    }

    fn next_dynamic(&self, pool: Subnet) -> Result<Place, Fault> {
        let first = u64::from(pool.network().to_bits());
        (first..first + pool.size() / 4 * 4)
            .step_by(4)
            .filter_map(|bits| u32::try_from(bits).ok())
            .map(|bits| Subnet::around(Ipv4Addr::from_bits(bits), 30))
            .find(|subnet| self.overlapping(*subnet).is_none())
            .and_then(|subnet| {
                Some(Place { subnet, address: subnet.container_addresses().next()? })
            })
            .ok_or_else(|| {
                Fault::new(Kind::Exhausted, "insufficient subnets remaining in the pool")
            })
    }

    fn check_subnet(&self, subnet: Subnet, pool: Subnet) -> Result<(), Fault> {
        if subnet.overlaps(pool) {
            return Err(Fault::invalid(format!(
                "the requested subnet ({subnet}) overlaps the dynamic allocation range ({pool})"
            )));
        }
        match self.overlapping(subnet) {
            Some(other) if other != subnet => Err(Fault::invalid(format!(
                "the requested subnet ({subnet}) overlaps an existing subnet ({other})"
            ))),
            _ => Ok(()),
        }
    }

    fn choose_address(&self, subnet: Subnet, wish: Option<Ipv4Addr>) -> Result<Ipv4Addr, Fault> {
        let is_taken = |ip: &Ipv4Addr| self.0.get(&subnet).is_some_and(|taken| taken.contains(ip));
        match wish {
            None => subnet.container_addresses().find(|ip| !is_taken(ip)).ok_or_else(|| {
                Fault::new(Kind::Exhausted, "insufficient IPs remaining in the pool")
            }),
            Some(ip) if ip == subnet.broadcast() => {
                Err(Fault::invalid("a container IP must not equal the broadcast IP"))
            }
            Some(ip) if ip == subnet.gateway() => {
                Err(Fault::invalid("a container IP must not equal the gateway IP"))
            }
            Some(ip) if !subnet.contains(ip) => {
                Err(Fault::invalid("the requested IP is not within the subnet"))
            }
            Some(ip) if is_taken(&ip) => {
                Err(Fault::exists("the requested IP is already allocated"))
            }
            Some(ip) => Ok(ip),
        }
    }

    /// Returns a subnet in use that shares an address with `subnet`. As those in use are apart
    /// from each other, the last one that begins before `subnet` ends tells for all of them.
    fn overlapping(&self, subnet: Subnet) -> Option<Subnet> {
        let end = Subnet::around(subnet.broadcast(), 32);
        self.0.range(..=end).next_back().map(|(other, _)| *other).filter(|o| o.overlaps(subnet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POOL: &str = "10.254.0.0/28";

    fn take(addresses: &mut Addresses, text: &str) -> Result<String, String> {
        let request = Request::parse(text).map_err(|fault| fault.message)?;
        let place = addresses.take(request, POOL.parse().unwrap()).map_err(|f| f.message)?;
        Ok(format!("{} {}", place.address, place.subnet))
    }

    #[test]
    fn dynamic_subnets_are_lowest_free_first_and_reused_at_once() {
        let mut all = Addresses::default();
        assert_eq!(take(&mut all, "").unwrap(), "10.254.0.2 10.254.0.0/30");
        assert_eq!(take(&mut all, "").unwrap(), "10.254.0.6 10.254.0.4/30");
        let place = Place {
            subnet: "10.254.0.0/30".parse().unwrap(),
            address: "10.254.0.2".parse().unwrap(),
        };
        assert!(all.is_last(place));
        all.release(place);
        all.release(place);
        for _ in 0..3 {
            take(&mut all, "").unwrap();
        }
        let full = take(&mut all, "").unwrap_err();
        assert_eq!(full, "insufficient subnets remaining in the pool");
    }

    #[test]
    fn fixed_requests_give_gdn_s_answers_and_errors() {
        let mut all = Addresses::default();
        let overlap = "the requested subnet (10.254.0.0/24) overlaps the dynamic allocation range \
                       (10.254.0.0/28)";
        let existing = "the requested subnet (10.9.0.0/16) overlaps an existing subnet \
                        (10.9.1.0/24)";
        for (text, want) in [
            ("10.9.1.0/24", Ok("10.9.1.2 10.9.1.0/24")),
            ("10.9.1.9/24", Ok("10.9.1.9 10.9.1.0/24")),
            ("10.9.1.0/24", Ok("10.9.1.3 10.9.1.0/24")),
            ("10.9.1.9/24", Err("the requested IP is already allocated")),
            ("10.9.1.1/24", Err("a container IP must not equal the gateway IP")),
            ("10.9.1.255/24", Err("a container IP must not equal the broadcast IP")),
            ("10.9.3.4/16", Err(existing)),
            ("10.254.0.99/24", Err(overlap)),
            ("10.8.0.0", Ok("10.8.0.2 10.8.0.0/30")),
            ("10.8.0.0", Err("insufficient IPs remaining in the pool")),
            ("10.8.1.2", Ok("10.8.1.2 10.8.1.0/30")),
            ("10.7.0.0/31", Err("insufficient IPs remaining in the pool")),
            ("10.7.0.1/31", Err("a container IP must not equal the broadcast IP")),
            ("nonsense", Err("invalid CIDR address: nonsense/30")),
            ("1.2.3.4/99", Err("invalid CIDR address: 1.2.3.4/99")),
        ] {
            let got = take(&mut all, text);
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_two_containers_ever_share_an_address(
            steps in prop::collection::vec((0u8..4, 0u8..3, 24u8..=32, any::<u8>()), 1..60)
        ) {
            let pool: Subnet = POOL.parse().unwrap();
            let mut all = Addresses::default();
            let mut held: Vec<Place> = Vec::new();
            for (what, third, prefix, last) in steps {
                let request = match what {
                    0 if !held.is_empty() => {
                        all.release(held.swap_remove(usize::from(last) % held.len()));
                        continue;
                    }
                    1 => Request::parse(&format!("10.9.{third}.{last}/{prefix}")).unwrap(),
                    _ => Request::Dynamic,
                };
                if let Ok(place) = all.take(request, pool) {
                    for other in &held {
                        prop_assert!(other.address != place.address);
                        prop_assert!(other.subnet == place.subnet || !other.subnet.overlaps(place.subnet));
                    }
                    held.push(place);
                }
            }
            held.iter().for_each(|place| all.release(*place));
            prop_assert_eq!(all, Addresses::default());
        }
    }
}
