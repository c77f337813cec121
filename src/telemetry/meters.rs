//! The metrics of the process, and their text for Prometheus.
//!
//! ```text
//!  kernel, store, events, service, api, dbus ── count ──► Meters ──► text
//!  service ── how things stand now (GaugeValues) ────────────────┘
//! ```
//!
//! Counting takes a few atomic operations and never blocks. Gauges of a current state are not stored here: the caller passes their
//! values when it renders the text, so that they equal those in health. Label values come from fixed lists, never from a path, an
//! id or a client's text, so that clients cannot grow the text. A test compares the families with `docs/metrics.md`.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

use super::family::Family;
use super::gauges::Gauges;

pub use super::gauges::GaugeValues;

/// The Content-Type of the text (Prometheus' text exposition format).
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The result label of a success; an error has its stable word.
pub const OK: &str = "ok";

/// A part of an attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attaching {
    /// From the action to the reservation in memory, including the wait for other operations on the same objects.
    Reserve,
    /// From submitting the intent to the store until it is durable.
    Commit,
    /// The kernel's work, without the wait for the intent.
    Kernel,
    /// From the last step in the kernel to the answer.
    Reply,
}

/// A part of a detach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detaching {
    /// From the action to its durable intent.
    Commit,
    /// Setting the device down.
    Cut,
    /// From queueing the device at the reaper until the kernel has deleted it.
    Delete,
}

/// The process's meters.
#[derive(Debug)]
pub struct Meters {
    registry: Registry,
    attaches: IntCounterVec,
    attach: Histogram,
    attach_step: HistogramVec,
    detaches: IntCounterVec,
    detach_step: HistogramVec,
    repairs: IntCounterVec,
    /// Write requests to the kernel.
    pub kernel_writes: IntCounter,
    /// How often kernel events were lost.
    pub netlink_overruns: IntCounter,
    /// How often another program changed `table bridge nicd`, and nicd put it back.
    pub filter_restores: IntCounter,
    dropped_frames: IntCounterVec,
    /// Complete dumps after lost events.
    pub resyncs: IntCounter,
    /// Notices of the watch that still waited when the reconciler last took some.
    pub notices: IntGauge,
    store_commits: IntCounterVec,
    store_commit: Histogram,
    store_flush: Histogram,
    events: IntCounterVec,
    /// How often a reader got a `lost` event.
    pub events_lost: IntCounter,
    http_requests: IntCounterVec,
    http_request: HistogramVec,
    http_refused: IntCounterVec,
    /// Connections open at the sockets.
    pub connections: IntGauge,
    /// Connections open on TLS.
    pub secure_connections: IntGauge,
    handshakes: IntCounterVec,
    certificate_ends: IntGaugeVec,
    fleet_connected: IntGauge,
    /// How often this host has joined its fleet.
    pub fleet_joins: IntCounter,
    fleet_transactions: IntCounterVec,
    /// How long this host's own writes take to come back by its watch.
    pub fleet_watch_lag: Histogram,
    /// Whether the name on the bus is ours: 1 or 0.
    pub dbus_connected: IntGauge,
    dhcp_received: IntCounterVec,
    dhcp_sent: IntCounterVec,
    dhcp_ignored: IntCounterVec,
    addresses_asked: IntCounterVec,
    /// Frames that tell where a port is.
    pub announcements: IntCounter,
    dbus_calls: IntCounterVec,
    /// Signals sent on the bus.
    pub dbus_signals: IntCounter,
    notifications: IntCounterVec,
    notifications_waiting: IntGaugeVec,
    notifications_oldest: IntGaugeVec,
    /// Lines of the log that could not be written.
    pub log_lost: IntCounter,
    values: Mutex<Gauges>,
}

/// The process's meters.
pub fn meters() -> &'static Meters {
    static METERS: LazyLock<Meters> = LazyLock::new(Meters::new);
    &METERS
}

impl Attaching {
    const ALL: [Self; 4] = [Self::Reserve, Self::Commit, Self::Kernel, Self::Reply];

    /// As the metric's label has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::Commit => "commit",
            Self::Kernel => "kernel",
            Self::Reply => "reply",
        }
    }
}

impl Detaching {
    const ALL: [Self; 3] = [Self::Commit, Self::Cut, Self::Delete];

    fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Cut => "cut",
            Self::Delete => "delete",
        }
    }
}

impl Meters {
    /// An attach has been answered, with [`OK`] or a stable reason.
    pub fn attached(&self, result: &'static str, took: Duration) {
        self.attaches.with_label_values(&[result]).inc();
        if result == OK {
            self.attach.observe(took.as_secs_f64());
        }
    }

    /// A part of an attach has been done.
    pub fn attaching(&self, step: Attaching, took: Duration) {
        self.attach_step.with_label_values(&[step.as_str()]).observe(took.as_secs_f64());
    }

    /// A detach, or a port's deletion, has been answered, with [`OK`] or a stable reason.
    pub fn detached(&self, result: &'static str) {
        self.detaches.with_label_values(&[result]).inc();
    }

    /// A part of a detach has been done.
    pub fn detaching(&self, step: Detaching, took: Duration) {
        self.detach_step.with_label_values(&[step.as_str()]).observe(took.as_secs_f64());
    }

    /// A repair of a device has ended; `cause` is the plan's reason.
    pub fn repaired(&self, cause: &'static str, result: &'static str) {
        self.repairs.with_label_values(&[cause, result]).inc();
    }

    /// Guests' frames have been dropped by the filters.
    pub fn frames_dropped(&self, reason: &'static str, frames: u64) {
        self.dropped_frames.with_label_values(&[reason]).inc_by(frames);
    }

    /// A transaction has ended; `took` is the time since its submission.
    pub fn committed(&self, result: &'static str, took: Duration) {
        self.store_commits.with_label_values(&[result]).inc();
        self.store_commit.observe(took.as_secs_f64());
    }

    /// The store has flushed a batch.
    pub fn flushed(&self, took: Duration) {
        self.store_flush.observe(took.as_secs_f64());
    }

    /// An event has been emitted.
    pub fn emitted(&self, event: &'static str) {
        self.events.with_label_values(&[event]).inc();
    }

    /// A request has been answered; `class` is the first digit of its status.
    pub fn requested(&self, dialect: &'static str, class: u16, took: Duration) {
        let class = ["1xx", "2xx", "3xx", "4xx", "5xx"].get(usize::from(class.saturating_sub(1))).copied().unwrap_or("5xx");
        self.http_requests.with_label_values(&[dialect, class]).inc();
        self.http_request.with_label_values(&[dialect]).observe(took.as_secs_f64());
    }

    /// A connection was answered before its request could be read.
    pub fn refused(&self, reason: &'static str) {
        self.http_refused.with_label_values(&[reason]).inc();
    }

    /// A guest's DHCP message has been read, of this type.
    pub fn dhcp_received(&self, kind: &'static str) {
        self.dhcp_received.with_label_values(&[kind]).inc();
    }

    /// A guest has been sent a DHCP message of this type.
    pub fn dhcp_sent(&self, kind: &'static str) {
        self.dhcp_sent.with_label_values(&[kind]).inc();
    }

    /// A DHCP message was not answered, for this reason.
    pub fn dhcp_ignored(&self, reason: &'static str) {
        self.dhcp_ignored.with_label_values(&[reason]).inc();
    }

    /// It was asked whether another machine has a port's addresses.
    pub fn address_asked(&self, result: &'static str) {
        self.addresses_asked.with_label_values(&[result]).inc();
    }

    /// A call on the bus has been answered, with [`OK`] or the last part of the error's name.
    pub fn called(&self, result: &'static str) {
        self.dbus_calls.with_label_values(&[result]).inc();
    }

    /// So many notices for a recipient had this result.
    pub fn notified(&self, target: &'static str, result: &'static str, number: u64) {
        self.notifications.with_label_values(&[target, result]).inc_by(number);
    }

    /// A handshake of TLS has ended: [`OK`], `failed`, `late`, or `replaced` by a newer one.
    pub fn secured(&self, result: &'static str) {
        self.handshakes.with_label_values(&[result]).inc();
    }

    /// When the first certificate of a file of `[listen]` ends, in seconds since 1970.
    pub fn certificate_ends(&self, file: &'static str, at: i64) {
        self.certificate_ends.with_label_values(&[file]).set(at);
    }

    /// Whether this host reaches its fleet.
    pub fn fleet_connected(&self, is_connected: bool) {
        self.fleet_connected.set(is_connected.into());
    }

    /// Counts a transaction of etcd's, by its result.
    pub fn fleet_transaction(&self, result: &'static str) {
        self.fleet_transactions.with_label_values(&[result]).inc();
    }

    /// How many notices wait for a recipient, and since when the oldest does, in seconds since 1970; 0 for none.
    pub fn notices(&self, target: &'static str, waiting: usize, oldest: i64) {
        self.notifications_waiting.with_label_values(&[target]).set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.notifications_oldest.with_label_values(&[target]).set(oldest);
    }

    /// All metrics as text.
    pub fn text(&self, values: &GaugeValues) -> String {
        // Renderings are serialized, because each sets the gauges first.
        let gauges = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        gauges.set(values);
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "the metrics could not be written as text");
        }
        text
    }

    fn new() -> Self {
        let registry = Registry::new();
        let family = Family(&registry);
        let meters = Self {
            attaches: family.counters("nicd_attaches_total", "Attaches answered, by result.", &["result"]),
            attach: family.times("nicd_attach_seconds", "Attaches that succeeded, from action to answer."),
            attach_step: family.times_by("nicd_attach_step_seconds", "Parts of attaches.", "step"),
            detaches: family.counters("nicd_detaches_total", "Detaches and deletions of ports answered, by result.", &["result"]),
            detach_step: family.times_by("nicd_detach_step_seconds", "Parts of detaches.", "step"),
            repairs: family.counters("nicd_repairs_total", "Devices brought back to their record.", &["cause", "result"]),
            kernel_writes: family.counter("nicd_kernel_writes_total", "Changes asked of the kernel."),
            netlink_overruns: family.counter("nicd_netlink_overruns_total", "Times that events of the kernel were lost."),
            filter_restores: family.counter("nicd_filter_restores_total", "Times that another program changed the filters."),
            dropped_frames: family.counters(
                "nicd_dropped_frames_total",
                "Frames of guests that the filters dropped.",
                &["reason"],
            ),
            resyncs: family.counter("nicd_resyncs_total", "Complete dumps taken in place of lost events."),
            notices: family.gauge("nicd_notices_waiting", "What the watch saw and the service has not taken in yet."),
            store_commits: family.counters("nicd_store_commits_total", "Transactions, by result.", &["result"]),
            store_commit: family.times("nicd_store_commit_seconds", "Transactions, from handing in to durable."),
            store_flush: family.times("nicd_store_flush_seconds", "Writes of all that waited, with their fdatasync."),
            events: family.counters("nicd_events_total", "Events emitted, by kind.", &["event"]),
            events_lost: family.counter("nicd_events_lost_total", "Times that a reader of events had lost some."),
            http_requests: family.counters("nicd_http_requests_total", "Requests answered.", &["dialect", "code"]),
            http_request: family.times_by("nicd_http_request_seconds", "Requests, from first byte to answer.", "dialect"),
            http_refused: family.counters("nicd_http_refused_total", "Connections answered before a request.", &["reason"]),
            connections: family.gauge("nicd_http_connections", "Connections open at the sockets."),
            secure_connections: family.gauge("nicd_tls_connections", "Connections open on TLS."),
            handshakes: family.counters("nicd_tls_handshakes_total", "Handshakes of TLS, by result.", &["result"]),
            certificate_ends: family.gauges(
                "nicd_tls_certificate_expiry_timestamp_seconds",
                "When the first certificate of a file ends; 0 without one.",
                &["file"],
            ),
            fleet_connected: family
                .gauge("nicd_fleet_connected", "Whether this host is registered in its fleet, and etcd answers."),
            fleet_joins: family.counter("nicd_fleet_joins_total", "How often this host has joined its fleet."),
            fleet_transactions: family.counters(
                "nicd_fleet_transactions_total",
                "Transactions of etcd's, by result.",
                &["result"],
            ),
            fleet_watch_lag: family.times(
                "nicd_fleet_watch_lag_seconds",
                "Writes of this host in etcd, from when they are sent until its own watch brings them.",
            ),
            dbus_connected: family.gauge("nicd_dbus_connected", "Whether the name on the bus is ours."),
            dhcp_received: family.counters("nicd_dhcp_received_total", "Guests' DHCP messages, by type.", &["type"]),
            dhcp_sent: family.counters("nicd_dhcp_sent_total", "DHCP messages sent to guests, by type.", &["type"]),
            dhcp_ignored: family.counters("nicd_dhcp_ignored_total", "DHCP messages that were not answered.", &["reason"]),
            addresses_asked: family.counters(
                "nicd_address_probes_total",
                "Times that it was asked whether another machine has a port's addresses.",
                &["result"],
            ),
            announcements: family.counter("nicd_announcements_total", "Frames sent to tell where a port is."),
            dbus_calls: family.counters("nicd_dbus_calls_total", "Calls on the bus answered, by result.", &["result"]),
            dbus_signals: family.counter("nicd_dbus_signals_total", "Signals sent on the bus."),
            notifications: family.counters(
                "nicd_notifications_total",
                "What Nova and the webhook were told, by what became of it.",
                &["target", "result"],
            ),
            notifications_waiting: family.gauges(
                "nicd_notifications_waiting",
                "What waits to be told, by recipient.",
                &["target"],
            ),
            notifications_oldest: family.gauges(
                "nicd_notifications_oldest_timestamp_seconds",
                "Since when the oldest of what waits does, by recipient; 0 when nothing waits.",
                &["target"],
            ),
            log_lost: family.counter("nicd_log_lost_total", "Lines of the log that could not be written."),
            values: Mutex::new(Gauges::new(&family)),
            registry: registry.clone(),
        };
        meters.begin();
        meters
    }

    /// Creates the known label values at zero, because a rate needs a first value.
    fn begin(&self) {
        for results in [&self.attaches, &self.detaches, &self.store_commits, &self.dbus_calls] {
            results.with_label_values(&[OK]);
        }
        for kind in ["discover", "request", "decline", "release", "inform", "solicit", "request6", "renew", "router_solicitation"]
        {
            self.dhcp_received.with_label_values(&[kind]);
        }
        for kind in ["offer", "ack", "nak", "advertise", "reply", "router_advertisement", "router_solicitation"] {
            self.dhcp_sent.with_label_values(&[kind]);
        }
        for reason in ["malformed", "no_port"] {
            self.dhcp_ignored.with_label_values(&[reason]);
        }
        for result in ["free", "in_use", "not_asked"] {
            self.addresses_asked.with_label_values(&[result]);
        }
        for target in ["nova", "webhook"] {
            for result in ["accepted", "retried", "dropped", "lost"] {
                self.notifications.with_label_values(&[target, result]);
            }
            self.notices(target, 0, 0);
        }
        for result in ["done", "guarded", "failed"] {
            self.fleet_transactions.with_label_values(&[result]);
        }
        for result in [OK, "failed", "late", "replaced"] {
            self.handshakes.with_label_values(&[result]);
        }
        for file in ["cert", "client_ca"] {
            self.certificate_ends(file, 0);
        }
        for step in Attaching::ALL {
            self.attach_step.with_label_values(&[step.as_str()]);
        }
        for step in Detaching::ALL {
            self.detach_step.with_label_values(&[step.as_str()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_what_was_counted_and_how_things_stand() {
        let meters = Meters::new();
        meters.attached(OK, Duration::from_millis(1));
        meters.attached("bridge_full", Duration::from_millis(1));
        meters.requested("nova", 4, Duration::ZERO);
        let mut values = GaugeValues {
            ports: vec![("ACTIVE", 2), ("DOWN", 4)],
            unattached: 3,
            problems: vec![("store_full", 2)],
            ..GaugeValues::default()
        };
        let text = meters.text(&values);
        for line in [
            "nicd_attaches_total{result=\"ok\"} 1",
            "nicd_attaches_total{result=\"bridge_full\"} 1",
            "nicd_attach_seconds_count 1",
            "nicd_http_requests_total{code=\"4xx\",dialect=\"nova\"} 1",
            "nicd_ports{attached=\"yes\",status=\"ACTIVE\"} 2",
            "nicd_ports{attached=\"yes\",status=\"DOWN\"} 1",
            "nicd_ports{attached=\"no\",status=\"DOWN\"} 3",
            "nicd_problems{reason=\"store_full\"} 2",
            "nicd_detach_step_seconds_count{step=\"cut\"} 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in {text}");
        }
        values.problems.clear();
        assert!(!meters.text(&values).contains("store_full"), "what is over is gone");
    }

    #[test]
    fn every_family_is_documented_and_every_documented_family_is_there() {
        let meters = Meters::new();
        meters.repaired("drift", OK);
        meters.requested("nova", 2, Duration::ZERO);
        meters.refused("malformed_request");
        meters.emitted("port.created");
        meters.frames_dropped("mac", 1);
        let (ports, queues) = (vec![("ACTIVE", 1)], vec![("worker", 0)]);
        let text = meters.text(&GaugeValues { problems: vec![("x", 1)], ports, queues, ..GaugeValues::default() });
        let doc = include_str!("../../docs/metrics.md");
        let listed: Vec<&str> = doc.lines().filter_map(|line| line.strip_prefix("| `nicd_")?.split('`').next()).collect();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE nicd_")) {
            let name = line.split(' ').next().unwrap();
            assert!(listed.contains(&name), "nicd_{name} is not in docs/metrics.md");
        }
        for name in listed {
            assert!(text.contains(&format!("# TYPE nicd_{name} ")), "nicd_{name} is not there");
        }
    }
}
