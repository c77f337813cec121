//! The loop's pulse: a sign of life from the loop itself, the end of the start, and a look at what the host lacks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use crate::kernel::MissingRequirement;
use crate::model::Status;

use super::{Reconciler, answered};

/// How long a start waits for ports to be brought back; below what systemd gives a start (`TimeoutStartSec=`, 90 s).
const FIRST_PASS: Duration = Duration::from_secs(30);

/// Ticks in the reconciler's loop, and tells the service manager. A loop that is stuck, or that waits for a lock that is, tells
/// nothing: that is how a watchdog notices.
pub struct Heartbeat {
    ticks: Interval,
    tell: Box<dyn FnMut(&str) + Send>,
    /// A look at what the host lacks, which a stuck thread may keep: one at a time.
    look: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heartbeat").field("every", &self.ticks.period()).finish()
    }
}

impl Heartbeat {
    /// Tells `tell` every so often how the agent fares, in a few words. To be made inside the event loop.
    pub fn new(every: Duration, tell: impl FnMut(&str) + Send + 'static) -> Self {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, tell: Box::new(tell), look: None }
    }

    /// Waits for the next beat. Cancel-safe.
    pub(super) async fn next(&mut self) {
        self.ticks.tick().await;
    }

    pub(super) fn beat(&mut self, reconciler: &Arc<Reconciler>) {
        (self.tell)(&reconciler.summary());
        if self.look.as_ref().is_none_or(JoinHandle::is_finished) {
            let reconciler = Arc::clone(reconciler);
            // Not in the tracker: a stop need not wait for a look.
            self.look = Some(tokio::spawn(async move { reconciler.check_requirements().await }));
        }
    }
}

impl Reconciler {
    /// How the agent fares, in a line: how many ports there are and in which status, and what is wrong.
    pub fn summary(&self) -> String {
        let health = self.health();
        let of = |status: Status| health.ports.get(status.as_str()).copied().unwrap_or_default();
        let total: usize = health.ports.values().sum();
        let mut line = format!("{total} {}: {} active", if total == 1 { "port" } else { "ports" }, of(Status::Active));
        for (status, word) in [(Status::Build, "in build"), (Status::Down, "down"), (Status::Error, "in error")] {
            match of(status) {
                0 => {}
                some => line.push_str(&format!(", {some} {word}")),
            }
        }
        if self.starting() {
            line.push_str("; starting");
        }
        match health.problems.as_slice() {
            [] => {}
            [first] => line.push_str(&format!("; degraded: {}", first.reason)),
            [first, rest @ ..] => line.push_str(&format!("; degraded: {} and {} more", first.reason, rest.len())),
        }
        line
    }

    /// Waits until every port that differed at the start has been tried once, whatever came of it; but not for one whose
    /// try takes very long.
    pub async fn reconciled(&self) {
        self.first_pass.close();
        if timeout(FIRST_PASS, self.first_pass.wait()).await.is_err() {
            tracing::warn!(ports = self.first_pass.len(), "ports are still being brought back");
        }
        self.reconciled.store(true, Ordering::Relaxed);
    }

    /// Whether ports that differed at the start still wait for their first try.
    pub fn starting(&self) -> bool {
        !self.reconciled.load(Ordering::Relaxed)
    }

    /// Why the kernel filters nothing, as it was last seen; none where it filters.
    pub fn filters_refused(&self) -> Option<String> {
        self.conditions().lacks.iter().find_map(|lack| match lack {
            MissingRequirement::Filters { said } => Some(said.clone()),
            _ => None,
        })
    }

    /// Looks what the host lacks, for health and its events.
    pub async fn check_requirements(self: &Arc<Self>) {
        let Ok(asked) = self.kernel.missing_requirements() else { return };
        if let Ok(mut lacks) = answered(asked).await {
            let mut state = self.lock();
            // What is tolerated is no lack, nor is what nothing needs any more.
            lacks.retain(|lack| match lack {
                MissingRequirement::HostClosing { .. } => !state.open.tolerated,
                MissingRequirement::Module { module: "8021q", .. } => state.needs_vlan_devices(),
                MissingRequirement::Module { module: "vxlan", .. } => state.on_tunnels().next().is_some(),
                _ => true,
            });
            let count = lacks.len();
            let before = std::mem::replace(&mut self.conditions().lacks, lacks);
            if count < before.len() {
                self.causes_ended(&mut state);
            }
            self.publish_health(&state);
        }
        self.look_at_operators_bridges().await;
    }
}
