//! What the server counts of its own work, and how it is told: Prometheus' text format.
//!
//! Numbers that can be counted when somebody asks are not kept here; those that would be lost are.

pub(crate) mod histogram;
pub(crate) mod orphan;
pub(crate) mod scrape;
pub(crate) mod text;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use histogram::Histograms;

/// Something that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds.
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that comes and goes.
#[derive(Debug)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// Counts one more, until what is returned is dropped.
    pub(crate) fn hold(&'static self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self)
    }

    fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One that is there just now.
#[derive(Debug)]
pub(crate) struct Held(&'static Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Creates that wait for one of their steps.
pub(crate) static CREATING: Gauge = Gauge::new();
/// Requests that are being answered.
pub(crate) static REQUESTS_IN_FLIGHT: Gauge = Gauge::new();
/// Processes that the kernel killed for want of memory.
pub(crate) static OOM_KILLS: Counter = Counter::new();
/// Events that listeners were too slow for.
pub(crate) static EVENTS_LOST: Counter = Counter::new();
/// How long creates, destroys and starts of processes took, by what they were and how they ended.
pub(crate) static OPERATIONS: Histograms = Histograms::new();
/// How long the steps of creates took, by step.
pub(crate) static CREATE_STEPS: Histograms = Histograms::new();
/// How long programs took, by program, verb and result.
pub(crate) static TOOLS: Histograms = Histograms::new();
/// How long requests took to answer, by route and status.
pub(crate) static REQUESTS: Histograms = Histograms::new();
