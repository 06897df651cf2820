//! Every name we give to something in the kernel. Interface names end at 15 bytes.

use guardian_contract::depot::Handle;

use crate::subnet::Subnet;

/// What the link is called inside the container.
pub(crate) const CONTAINER_INTERFACE: &str = "eth0";

/// The names used by one daemon, told apart from another's by its tag.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    tag: String,
}

impl Names {
    /// Returns the names of the daemon with this tag; it is one character or none.
    pub(crate) fn new(tag: &str) -> Self {
        Self { tag: tag.to_owned() }
    }

    /// Returns how every interface of ours on the host begins. gdn has no dash, so that without a
    /// tag its rules also match wlan0 and wg0.
    pub(crate) fn interface_prefix(&self) -> String {
        format!("w{}-", self.tag)
    }

    /// Returns the name of a container's link on the host.
    pub(crate) fn host_interface(&self, handle: &Handle) -> String {
        format!("{}{}", self.interface_prefix(), short(handle))
    }

    /// Returns the name of the bridge of a shared subnet.
    pub(crate) fn bridge(&self, subnet: Subnet) -> String {
        format!("{}b{:08x}", self.interface_prefix(), subnet.network().to_bits())
    }

    /// Returns the name of our nftables table.
    pub(crate) fn table(&self) -> String {
        match self.tag.as_str() {
            "" => "guardian".to_owned(),
            tag => format!("guardian-{tag}"),
        }
    }

    /// Returns the name of a container's limit on what it sends.
    pub(crate) fn limit(&self, handle: &Handle) -> String {
        format!("up-{}", short(handle))
    }

    /// Returns the name of a container's chain of outbound rules.
    pub(crate) fn chain(&self, handle: &Handle) -> String {
        format!("out-{}", short(handle))
    }
}

/// Returns 11 characters for a handle (as long as gdn's): 55 bits of its FNV-1a hash, so that
/// `down` finds the link of a handle even when nothing is written about it.
pub(crate) fn short(handle: &Handle) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let hash = handle.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (0..11).map(|place| char::from(DIGITS[(hash >> (5 * place)) as usize & 31])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let names = Names::new("t");
        let one = names.host_interface(&"one".parse().unwrap());
        let two = names.host_interface(&"two".parse().unwrap());
        assert_ne!(one, two);
        let bridge = names.bridge("192.168.12.0/24".parse().unwrap());
        assert_eq!(bridge, "wt-bc0a80c00");
        for name in [one, two, bridge] {
            assert!(name.len() <= 15 && name.starts_with("wt-"), "{name}");
        }
        assert_eq!(Names::new("").table(), "guardian");
        assert_eq!(names.table(), "guardian-t");
    }

    #[test]
    fn the_name_of_a_handle_never_changes() {
        // A newer release must find the links an older one made.
        assert_eq!(Names::new("").host_interface(&"web-1".parse().unwrap()), "w-vg8ol4o52ur");
    }
}
