//! Gauges that show a current state. Their values are set when the metrics text is rendered.

use std::time::Duration;

use prometheus::{Gauge, IntGauge, IntGaugeVec};

use super::family::Family;

/// The gauge values for one rendering.
#[derive(Debug, Clone, Default)]
pub struct GaugeValues {
    /// The uptime of the daemon.
    pub uptime: Duration,
    /// The number of ports by status.
    pub ports: Vec<(&'static str, usize)>,
    /// The reason of each problem health shows.
    pub problems: Vec<&'static str>,
    /// The number of messages by queue.
    pub queues: Vec<(&'static str, usize)>,
    /// The number of event readers.
    pub event_readers: usize,
}

/// The gauges, set for each rendering.
#[derive(Debug)]
pub(super) struct Gauges {
    uptime: Gauge,
    ports: IntGaugeVec,
    problems: IntGaugeVec,
    queues: IntGaugeVec,
    event_readers: IntGauge,
}

impl Gauges {
    pub(super) fn new(family: &Family<'_>) -> Self {
        let build = family.gauges("nicd_build_info", "The program.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            uptime: family.add(Gauge::new("nicd_uptime_seconds", "Since the daemon started.")),
            ports: family.gauges("nicd_ports", "Ports, by status.", &["status"]),
            problems: family.gauges("nicd_problems", "What health shows to be wrong, by reason.", &["reason"]),
            queues: family.gauges("nicd_queue_depth", "What waits in each queue.", &["queue"]),
            event_readers: family.gauge("nicd_event_readers", "Who follows the events."),
        }
    }

    pub(super) fn set(&self, values: &GaugeValues) {
        self.uptime.set(values.uptime.as_secs_f64());
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        for (family, values) in [(&self.ports, &values.ports), (&self.queues, &values.queues)] {
            values.iter().for_each(|(label, number)| family.with_label_values(&[label]).set(count(*number)));
        }
        self.problems.reset();
        values.problems.iter().for_each(|reason| self.problems.with_label_values(&[reason]).inc());
        self.event_readers.set(count(values.event_readers));
    }
}
