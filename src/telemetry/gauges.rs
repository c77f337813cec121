//! Gauges that show a current state. Their values are set when the metrics text is rendered.

use std::time::Duration;

use prometheus::{Gauge, IntGauge, IntGaugeVec};

use super::family::Family;

/// The status of ports without a server.
const DOWN: &str = "DOWN";

/// The gauge values for one rendering.
#[derive(Debug, Clone, Default)]
pub struct GaugeValues {
    /// The uptime of the daemon.
    pub uptime: Duration,
    /// The number of ports by status.
    pub ports: Vec<(&'static str, usize)>,
    /// Of the ports that are DOWN, those without a server.
    pub unattached: usize,
    /// The number of problems by reason.
    pub problems: Vec<(&'static str, usize)>,
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
            ports: family.gauges("nicd_ports", "Ports, by status, and whether they have a server.", &["status", "attached"]),
            problems: family.gauges("nicd_problems", "What health shows to be wrong, by reason.", &["reason"]),
            queues: family.gauges("nicd_queue_depth", "What waits in each queue.", &["queue"]),
            event_readers: family.gauge("nicd_event_readers", "Who follows the events."),
        }
    }

    pub(super) fn set(&self, values: &GaugeValues) {
        self.uptime.set(values.uptime.as_secs_f64());
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.problems.reset();
        for (family, values) in [(&self.problems, &values.problems), (&self.queues, &values.queues)] {
            values.iter().for_each(|(label, number)| family.with_label_values(&[label]).set(count(*number)));
        }
        for (status, number) in &values.ports {
            let unattached = if *status == DOWN { values.unattached } else { 0 };
            self.ports.with_label_values(&[status, "yes"]).set(count(number.saturating_sub(unattached)));
        }
        self.ports.with_label_values(&[DOWN, "no"]).set(count(values.unattached));
        self.event_readers.set(count(values.event_readers));
    }
}
