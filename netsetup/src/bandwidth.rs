//! How much may pass to and from a container: a token bucket for each direction.
//!
//! At each end of its link packets wait in a token bucket filter (tc-tbf(8)) before they are sent.
//! The container's end is in its own namespace, where a privileged one could take the filter away;
//! so beyond the limit the host drops what comes from it, by a rule of the nftables table. That
//! bucket is one second's bytes deeper (nft_limit_init() in the kernel), so it is full only when
//! the other one leaks.

use guardian_contract::garden::BandwidthLimits;
use netlink_packet_core::{DefaultNla, Nla, NlasIterator};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use serde::{Deserialize, Serialize};

const KIND: &str = "tbf";
// TCA_TBF_… of linux/pkt_sched.h.
const PARAMETERS: u16 = 1;
const RATE64: u16 = 4;
const BURST: u16 = 6;
/// The kernel hands over up to this much as one packet (segmentation offload), which a smaller
/// bucket would never let pass.
const SMALLEST_BURST: u64 = 64 * 1024;
/// How long a packet may wait, in parts of a second.
const PATIENCE: u64 = 10;

/// A limit on both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bandwidth {
    /// Bytes per second.
    pub(crate) rate: u64,
    /// Bytes that may pass at once.
    pub(crate) burst: u32,
}

/// As little as can be said.
impl Default for Bandwidth {
    fn default() -> Self {
        Self { rate: 1, burst: u32::MAX }
    }
}

impl Bandwidth {
    /// Returns the limit that is enforced for what was asked for: no rate is no limit, and the
    /// burst is at least 64 KiB.
    pub(crate) fn asked(limits: &BandwidthLimits) -> Option<Self> {
        let burst = limits.burst.max(SMALLEST_BURST);
        let burst = u32::try_from(burst).unwrap_or(u32::MAX);
        (limits.rate > 0).then_some(Self { rate: limits.rate, burst })
    }

    /// Returns the limit as Garden reports it.
    pub(crate) fn reported(self) -> BandwidthLimits {
        BandwidthLimits { rate: self.rate, burst: self.burst.into() }
    }

    /// Returns the message that names a link's token bucket filter, to take it away.
    pub(crate) fn filter(index: u32) -> TcMessage {
        let mut message = TcMessage::with_index(index.cast_signed());
        message.header.parent = TcHandle::ROOT;
        message.header.handle = TcHandle { major: 1, minor: 0 };
        message
    }

    /// Returns the message that gives a link its token bucket filter.
    pub(crate) fn message(self, index: u32) -> TcMessage {
        let mut message = Self::filter(index);
        let option = |(kind, value)| TcOption::Other(DefaultNla::new(kind, value));
        let options = self.options().into_iter().map(option).collect();
        message.attributes = vec![TcAttribute::Kind(KIND.into()), TcAttribute::Options(options)];
        message
    }

    /// Returns the rate a link is limited to, with the link's number.
    pub(crate) fn rate_of(message: &TcMessage) -> Option<(u32, u64)> {
        let is_ours = message.attributes.contains(&TcAttribute::Kind(KIND.into()));
        let options = message.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Options(options) if is_ours => Some(options),
            _ => None,
        })?;
        // The options of a kind that the crate doesn't know are one lump of bytes.
        let [lump] = &options[..] else { return None };
        let mut bytes = vec![0; lump.value_len()];
        lump.emit_value(&mut bytes);
        let option = |wanted: u16| {
            let mut all = NlasIterator::new(&bytes[..]).flatten();
            all.find(|one| one.kind() == wanted).map(|one| one.value().to_vec())
        };
        let large = option(RATE64).and_then(|value| value.try_into().ok()).map(u64::from_ne_bytes);
        let small = option(PARAMETERS).and_then(|value| value.get(8..12)?.try_into().ok());
        let rate = large.or(small.map(u32::from_ne_bytes).map(u64::from))?;
        Some((message.header.index.cast_unsigned(), rate))
    }

    fn options(self) -> [(u16, Vec<u8>); 3] {
        [
            (PARAMETERS, self.parameters()),
            (RATE64, self.rate.to_ne_bytes().into()),
            (BURST, self.burst.to_ne_bytes().into()),
        ]
    }

    /// Returns a `struct tc_tbf_qopt`. Its bucket is given by [`BURST`], in bytes, not in ticks.
    fn parameters(self) -> Vec<u8> {
        const ETHERNET: u8 = 1;
        let rate = u32::try_from(self.rate).unwrap_or(u32::MAX);
        let queue = u64::from(self.burst).saturating_add(self.rate / PATIENCE);
        let queue = u32::try_from(queue).unwrap_or(u32::MAX);
        let mut bytes = vec![0; 36];
        bytes[1] = ETHERNET;
        bytes[8..12].copy_from_slice(&rate.to_ne_bytes());
        bytes[24..28].copy_from_slice(&queue.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_is_reported_unless_no_packet_would_pass() {
        for (rate, burst, want) in [
            (0, 0, None),
            (0, 100_000, None),
            (1000, 0, Some((1000, 65536))),
            (1000, 1, Some((1000, 65536))),
            (u64::MAX, 1 << 40, Some((u64::MAX, u64::from(u32::MAX)))),
            (5_000_000_000, 100_000, Some((5_000_000_000, 100_000))),
        ] {
            let limit = Bandwidth::asked(&BandwidthLimits { rate, burst });
            let reported = limit.map(Bandwidth::reported).map(|limit| (limit.rate, limit.burst));
            assert_eq!(reported, want, "{rate} {burst}");
        }
    }
}
