//! Which blocks of 64 K ids are free: a bitmap over the ranges of this host.
//!
//! The bitmap is made anew from who holds what. A stored one could only disagree with that.

use crate::range::Range;

/// Ids per block.
pub(crate) const BLOCK: u32 = 65_536;

/// The blocks of some ranges.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// First id of each block, ascending.
    starts: Vec<u32>,
    /// Whether somebody holds an id of it.
    used: Vec<bool>,
}

impl Blocks {
    /// Cuts `ranges` (sorted, not touching) into blocks; those that meet a range of `held` are
    /// used. What is left of a range behind its last whole block is not usable.
    pub(crate) fn new(ranges: &[Range], held: impl IntoIterator<Item = Range>) -> Self {
        let mut starts: Vec<u32> = Vec::new();
        for range in ranges {
            let whole = (range.end - range.start) / u64::from(BLOCK);
            let of = |block: u64| u32::try_from(range.start + block * u64::from(BLOCK)).ok();
            starts.extend((0..whole).filter_map(of));
        }
        let mut used = vec![false; starts.len()];
        for held in held {
            let first = starts.partition_point(|start| end(*start) <= held.start);
            let meeting =
                starts.iter().skip(first).take_while(|start| u64::from(**start) < held.end);
            let count = meeting.count();
            used[first..first + count].fill(true);
        }
        Self { starts, used }
    }

    /// Returns the first id of `count` free blocks in a row, looking from id `after` on and then
    /// from the start, so that ids just given back rest for a while.
    pub(crate) fn find(&self, count: usize, after: u64) -> Option<u32> {
        let from = self.starts.partition_point(|start| u64::from(*start) < after);
        (from..self.starts.len())
            .chain(0..from)
            .find(|&first| self.is_free(first, count))
            .map(|first| self.starts[first])
    }

    fn is_free(&self, first: usize, count: usize) -> bool {
        let (Some(starts), Some(used)) =
            (self.starts.get(first..first + count), self.used.get(first..first + count))
        else {
            return false;
        };
        let in_a_row = |pair: &[u32]| u64::from(pair[1]) == end(pair[0]);
        used.iter().all(|used| !used) && starts.windows(2).all(in_a_row)
    }

    /// Returns how many blocks there are, and how many are free.
    pub(crate) fn count(&self) -> (usize, usize) {
        (self.used.len(), self.used.iter().filter(|used| !**used).count())
    }
}

fn end(start: u32) -> u64 {
    u64::from(start) + u64::from(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: u64 = BLOCK as u64;

    fn range(start: u64, blocks: u64) -> Range {
        Range { start, end: start + blocks * K }
    }

    #[test]
    fn blocks_are_found_next_fit() {
        let ranges = [range(100, 3), Range { start: 500_000, end: 500_000 + 2 * K + 7 }];
        let blocks = Blocks::new(&ranges, [range(100 + K, 1)]);
        assert_eq!(blocks.count(), (5, 4));
        for (count, after, want) in [
            (1, 0, Some(100)),
            (1, 101, Some(100 + 2 * BLOCK)),
            (1, 500_001, Some(500_000 + BLOCK)),
            (1, u64::MAX, Some(100)),
            (2, 0, Some(500_000)),
            (2, 500_001, Some(500_000)),
            (3, 0, None),
            (6, 0, None),
        ] {
            assert_eq!(blocks.find(count, after), want, "{count} after {after}");
        }
    }

    #[test]
    fn a_holder_off_the_grid_uses_all_it_meets() {
        let blocks = Blocks::new(&[range(0, 4)], [Range { start: K + 1, end: 2 * K + 1 }]);
        assert_eq!(blocks.count(), (4, 2));
        assert_eq!(Blocks::new(&[range(0, 4)], [range(9 * K, 1)]).count(), (4, 4));
    }

    #[test]
    fn the_whole_id_space_fits() {
        let all = Range { start: 1, end: 0xffff_fffe };
        let blocks = Blocks::new(&[all], []);
        assert_eq!(blocks.count(), (65_535, 65_535));
    }
}
