//! Numbers of the Garden API as people read them: with the unit that each name implies.

use std::time::Duration;

/// From here on a limit is none: what stands for it on cgroup version 1 is the highest whole number
/// of pages.
const NO_LIMIT: u64 = 1 << 60;

/// Returns the value that has this dotted name in metrics or capacity, in its unit.
pub(super) fn with_unit(name: &str, number: u64) -> String {
    match name.rsplit_once('.').unwrap_or(("", name)) {
        ("CPUStat", _) | ("", "Age" | "CPUEntitlement") => duration(Duration::from_nanos(number)),
        // Of all its members only the counts of faults and of paging are no sizes.
        ("MemoryStat", leaf) if leaf.trim_start_matches("total_").starts_with("pg") => {
            number.to_string()
        }
        ("MemoryStat", leaf) if leaf.ends_with("_limit") && !has_limit(number) => "-".into(),
        ("MemoryStat", _) => bytes(number),
        (_, leaf) if leaf.to_ascii_lowercase().contains("bytes") => bytes(number),
        _ => number.to_string(),
    }
}

/// Returns the two largest units of a time.
pub(super) fn duration(time: Duration) -> String {
    humantime::format_duration(time).to_string().split(' ').take(2).collect()
}

/// Tells whether it limits anything.
pub(super) fn has_limit(count: u64) -> bool {
    (1..NO_LIMIT).contains(&count)
}

/// Returns a share in percent; a dash where there is no whole.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let share = part as f64 * 100.0 / whole as f64;
    format!("{share:.1}")
}

/// Returns a size in the largest unit that leaves a whole number before the point.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let mut size = count as f64 / 1024.0;
    if size < 1.0 {
        return format!("{count} B");
    }
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_are_short() {
        for (count, want) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")]
        {
            assert_eq!(bytes(count), want);
        }
        assert_eq!((percent(1, 3), percent(1, 0)), ("33.3".into(), "-".into()));
    }

    #[test]
    fn a_name_implies_its_unit() {
        for (name, number, want) in [
            ("Age", 93_500_000_000, "1m33s"),
            ("CPUStat.Usage", 5_250_000, "5ms250us"),
            ("MemoryStat.rss", 2 << 20, "2.0 MiB"),
            ("MemoryStat.total_pgpgin", 2 << 20, "2097152"),
            ("MemoryStat.hierarchical_memory_limit", 0x7fff_ffff_ffff_f000, "-"),
            ("MemoryStat.hierarchical_memory_limit", 1 << 30, "1.0 GiB"),
            ("NetworkStat.RxBytes", 1536, "1.5 KiB"),
            ("memory_in_bytes", 1 << 30, "1.0 GiB"),
            ("PidStat.Current", 2048, "2048"),
        ] {
            assert_eq!(with_unit(name, number), want, "{name}");
        }
    }
}
