//! The pool of host ports: first in, first out, so that a released port rests as long as it can.

use std::collections::{BTreeSet, VecDeque};

use guardian_contract::fault::{Fault, Kind};
use serde::{Deserialize, Serialize};

/// The range the pool covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortRange {
    /// The first port.
    pub(crate) start: u16,
    /// How many there are.
    pub(crate) size: u16,
}

impl PortRange {
    fn end(self) -> u32 {
        u32::from(self.start) + u32::from(self.size)
    }

    fn contains(self, port: u16) -> bool {
        port >= self.start && u32::from(port) < self.end()
    }
}

/// The queue of free ports. Ports never taken so far are not listed one by one: they are all
/// those from `next` on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    range: PortRange,
    next: u32,
    released: VecDeque<u16>,
    /// Ports from `next` on that somebody asked for by number.
    reserved: BTreeSet<u16>,
}

impl Ports {
    /// Returns the full pool, less the ports that are `taken`.
    pub(crate) fn new(range: PortRange, taken: impl IntoIterator<Item = u16>) -> Self {
        let reserved = taken.into_iter().filter(|port| range.contains(*port)).collect();
        Self { range, next: u32::from(range.start), released: VecDeque::new(), reserved }
    }

    /// Returns the range the pool was made for.
    pub(crate) fn range(&self) -> PortRange {
        self.range
    }

    /// Takes the port that has been free for longest.
    pub(crate) fn take(&mut self) -> Result<u16, Fault> {
        while self.next < self.range.end() {
            let port = u16::try_from(self.next);
            self.next += 1;
            if let Ok(port) = port
                && !self.reserved.remove(&port)
            {
                return Ok(port);
            }
        }
        let exhausted = || Fault::new(Kind::Exhausted, "port pool is exhausted");
        self.released.pop_front().ok_or_else(exhausted)
    }

    /// Takes this very port, so that the pool won't give it to somebody else.
    pub(crate) fn reserve(&mut self, port: u16) -> Result<(), Fault> {
        let was_free = if !self.range.contains(port) {
            true
        } else if u32::from(port) >= self.next {
            self.reserved.insert(port)
        } else {
            let place = self.released.iter().position(|free| *free == port);
            place.and_then(|place| self.released.remove(place)).is_some()
        };
        if was_free { Ok(()) } else { Err(already_mapped(port)) }
    }

    /// Gives a port back, to the end of the queue; a port that is free already stays where it is.
    pub(crate) fn release(&mut self, port: u16) {
        if !self.range.contains(port) {
            return;
        }
        if u32::from(port) >= self.next {
            self.reserved.remove(&port);
        } else if !self.released.contains(&port) {
            self.released.push_back(port);
        }
    }
}

/// Returns the error for a host port that another container has.
pub(crate) fn already_mapped(port: u16) -> Fault {
    Fault::exists(format!("host port {port} is already mapped"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(size: u16) -> Ports {
        Ports::new(PortRange { start: 61001, size }, [])
    }

    #[test]
    fn a_released_port_waits_until_all_others_had_their_turn() {
        let mut ports = pool(3);
        assert_eq!(ports.take().unwrap(), 61001);
        assert_eq!(ports.take().unwrap(), 61002);
        ports.release(61001);
        ports.release(61001);
        ports.release(99);
        assert_eq!(ports.take().unwrap(), 61003);
        assert_eq!(ports.take().unwrap(), 61001);
        assert_eq!(ports.take().unwrap_err().message, "port pool is exhausted");
    }

    #[test]
    fn ports_asked_for_by_number_are_not_given_away() {
        let mut ports = pool(3);
        ports.reserve(61002).unwrap();
        ports.reserve(80).unwrap();
        assert_eq!(ports.reserve(61002).unwrap_err().kind, Kind::Exists);
        assert_eq!((ports.take().unwrap(), ports.take().unwrap()), (61001, 61003));
        assert!(ports.take().is_err() && ports.reserve(61003).is_err());
        ports.release(61002);
        ports.reserve(61002).unwrap();
        assert!(ports.take().is_err());
    }

    #[test]
    fn the_last_port_of_all_can_be_had() {
        let mut ports = Ports::new(PortRange { start: 65535, size: 1 }, []);
        assert_eq!(ports.take().unwrap(), 65535);
        assert!(ports.take().is_err());
    }

    proptest! {
        #[test]
        fn a_port_has_one_holder(steps in prop::collection::vec((0u8..3, 0u16..12), 1..80)) {
            let mut ports = pool(10);
            let mut held = BTreeSet::new();
            for (what, n) in steps {
                let port = 61001 + n;
                match what {
                    0 => if let Ok(port) = ports.take() { prop_assert!(held.insert(port)) },
                    1 if n < 10 => prop_assert_eq!(ports.reserve(port).is_ok(), held.insert(port)),
                    _ => if held.remove(&port) { ports.release(port) },
                }
            }
            while let Ok(port) = ports.take() { prop_assert!(held.insert(port)) }
            prop_assert_eq!(held.len(), 10);
        }
    }
}
