//! Ranges of subordinate ids: /etc/subuid and /etc/subgid, and what both have in common.

use guardian_contract::fault::Fault;

/// Ids from `start` up to and without `end`. 64 bits, because a range may end behind the last id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    /// First id.
    pub(crate) start: u64,
    /// The id after the last.
    pub(crate) end: u64,
}

/// Ids that may be given away: not 0, which is the host's root, nor the two highest ones, which
/// are gdn's root and chown(2)'s "leave as it is".
const USABLE: Range = Range { start: 1, end: 0xffff_fffe };

impl Range {
    /// Returns what both have in common.
    pub(crate) fn and(self, other: Self) -> Option<Self> {
        let both = Self { start: self.start.max(other.start), end: self.end.min(other.end) };
        (both.start < both.end).then_some(both)
    }
}

/// Returns the ranges of `owner` in the text of a subid file (subuid(5)): sorted, and merged where
/// they touch. `file` is named in errors. Lines of others are not judged.
pub(crate) fn parse(text: &str, owner: &str, file: &str) -> Result<Vec<Range>, Fault> {
    let mut ranges = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some((name, rest)) = line.trim().split_once(':') else { continue };
        // subuid(5) takes a user's number for the name, which we know of root alone.
        if name != owner && !(owner == "root" && name == "0") {
            continue;
        }
        let range = numbers(rest).ok_or_else(|| {
            Fault::invalid(format!("{file} line {}: '{line}' is not OWNER:START:COUNT", number + 1))
        })?;
        ranges.extend(range.and(USABLE));
    }
    Ok(merge(ranges))
}

/// Returns the ranges of everybody, as far as their lines are whole.
pub(crate) fn all(text: &str) -> Vec<Range> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.filter_map(|line| numbers(line.trim().split_once(':')?.1)).collect()
}

fn numbers(text: &str) -> Option<Range> {
    let (start, count) = text.split_once(':')?;
    let (start, count) = (start.parse::<u32>().ok()?, count.parse::<u32>().ok()?);
    (count > 0).then_some(Range { start: start.into(), end: u64::from(start) + u64::from(count) })
}

fn merge(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort();
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Returns what two sorted lists have in common.
pub(crate) fn common(one: &[Range], other: &[Range]) -> Vec<Range> {
    one.iter().flat_map(|a| other.iter().filter_map(|b| a.and(*b))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(ranges: &[Range]) -> Vec<(u64, u64)> {
        ranges.iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn ranges_of_the_owner_are_read_sorted_and_merged() {
        for (text, want) in [
            ("", vec![]),
            ("root:100000:65536", vec![(100_000, 165_536)]),
            (
                "bob:1:2\n# root:1:2\n\nroot:200000:10\nroot:100000:10\n",
                vec![(100_000, 100_010), (200_000, 200_010)],
            ),
            ("root:100:10\nroot:110:10\nroot:105:2", vec![(100, 120)]),
            ("0:100:10", vec![(100, 110)]),
            ("root:0:10", vec![(1, 10)]),
            ("root:4294967295:4294967295", vec![]),
            ("root:4294967000:4294967295", vec![(4_294_967_000, 4_294_967_294)]),
            ("bob:broken\nbroken", vec![]),
        ] {
            assert_eq!(pairs(&parse(text, "root", "f").unwrap()), want, "{text}");
        }
        assert_eq!(parse("0:100:10", "bob", "f").unwrap(), []);
    }

    #[test]
    fn a_broken_line_of_the_owner_is_named() {
        for line in
            ["root:1", "root:a:1", "root:1:0", "root:1:-1", "root:1:2:3", "root:1:4294967296"]
        {
            let message = parse(&format!("bob:1:1\n{line}"), "root", "/f").unwrap_err().message;
            assert_eq!(message, format!("/f line 2: '{line}' is not OWNER:START:COUNT"));
        }
    }

    #[test]
    fn only_what_both_files_have_is_common() {
        let of = |pairs: &[(u64, u64)]| -> Vec<Range> {
            pairs.iter().map(|&(start, end)| Range { start, end }).collect()
        };
        for (uid, gid, want) in [
            (of(&[(10, 20)]), of(&[(10, 20)]), vec![(10, 20)]),
            (of(&[(10, 20)]), of(&[(15, 30)]), vec![(15, 20)]),
            (of(&[(10, 20), (30, 40)]), of(&[(0, 100)]), vec![(10, 20), (30, 40)]),
            (of(&[(10, 20)]), of(&[(20, 30)]), vec![]),
        ] {
            assert_eq!(pairs(&common(&uid, &gid)), want);
        }
    }
}
