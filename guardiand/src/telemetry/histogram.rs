//! How long things took: for each set of labels a count, a sum, and a count for each bound.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::container::lock;

/// Upper bounds in milliseconds; a create takes some tens, a stuck program minutes.
pub(crate) const BOUNDS_MS: [u32; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 30_000];

/// The values of labels, in the order of their names.
type Labels = Vec<String>;

/// One histogram.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Histogram {
    /// How often.
    pub(crate) count: u64,
    /// Seconds altogether.
    pub(crate) sum: f64,
    /// How often within each of [`BOUNDS_MS`].
    pub(crate) within: [u64; BOUNDS_MS.len()],
}

/// Histograms of one name.
#[derive(Debug)]
pub(crate) struct Histograms(Mutex<BTreeMap<Labels, Histogram>>);

impl Histograms {
    /// Returns none yet.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Adds one thing that took so long. Labels come from fixed lists, or there would be no end of
    /// them.
    pub(crate) fn took(&self, labels: &[&str], time: Duration) {
        let mut all = lock(&self.0);
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let histogram: &mut Histogram = all.entry(labels).or_default();
        histogram.count += 1;
        histogram.sum += time.as_secs_f64();
        for (within, bound) in histogram.within.iter_mut().zip(BOUNDS_MS) {
            *within += u64::from(time <= Duration::from_millis(bound.into()));
        }
    }

    /// Adds one operation that began then, and ended well or not.
    pub(crate) fn ended(&self, name: &str, start: Instant, is_done: bool) {
        self.took(&[name, if is_done { "done" } else { "failed" }], start.elapsed());
    }

    /// Returns all of them.
    pub(crate) fn all(&self) -> BTreeMap<Labels, Histogram> {
        lock(&self.0).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_for_every_bound_above_it() {
        let histograms = Histograms::new();
        histograms.took(&["x"], Duration::from_millis(10));
        histograms.took(&["x"], Duration::from_secs(60));
        let all = histograms.all();
        let histogram = &all[&vec!["x".to_owned()]];
        assert_eq!(histogram.count, 2);
        assert_eq!(histogram.within, [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert!((histogram.sum - 60.01).abs() < 1e-9);
    }
}
