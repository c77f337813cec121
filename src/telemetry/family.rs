//! Creates metric families and registers them.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Histogram buckets in seconds: from one netlink request (10 µs) and one flush (100 µs) to the longest time limit (30 s).
const BUCKETS: &[f64] =
    &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Creates metric families and registers them.
pub(super) struct Family<'a>(pub &'a Registry);

impl Family<'_> {
    /// Names and labels are constants of this module. A test creates all families, which shows that they are valid and unique.
    pub(super) fn add<M: Collector + Clone + 'static>(&self, made: prometheus::Result<M>) -> M {
        let made = made.expect("a valid name and valid labels");
        self.0.register(Box::new(made.clone())).expect("a name given once");
        made
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn times(&self, name: &str, help: &str) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec())))
    }

    pub(super) fn times_by(&self, name: &str, help: &str, label: &str) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()), &[label]))
    }
}
