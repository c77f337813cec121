//! One port's way back to its record, in three beats: it is looked whether it differs ([`Reconciler::difference`]), what is to
//! be done is planned, and that is carried out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::inventory::flapping::QUIET;
use crate::inventory::retry::{NAMESPACE_GONE, absence_wait, backoff};
use crate::inventory::{self, Inventory, PortEntry};
use crate::kernel::exec::Timing;
use crate::model::{Phase, PhaseEvent, PortId, Readiness};
use crate::monitor::MonitorError;
use crate::plan::{Facet, PlanError, Reason};
use crate::telemetry::meters;
use crate::telemetry::meters::OK;

use super::build::Failed;
use super::cut_off;
use super::schedule::NAMESPACE_WAIT;
use super::{Context, Error, Reconciler, Why};

/// How soon a cut that failed is tried again.
const CUT_AGAIN: Duration = Duration::from_millis(100);

/// How a port differs from its record.
enum Difference {
    None,
    /// Its device is right, and addresses taken from it are still held.
    Held,
    /// Its device is not as it should be, or what it is could not be brought about.
    Device,
}

/// What a repair that was to begin became.
enum Begun {
    /// It begins.
    Repair,
    /// Another program keeps changing the device's MAC: the port is cut off instead.
    CutOff,
}

impl Reconciler {
    /// Brings a port back that was seen to differ, or whose last try failed.
    pub(crate) async fn repair(self: &Arc<Self>, port: PortId, reason: Reason) {
        let context = Context::default();
        let _claim = match self.claim(|state| state.claim_port(port)).await {
            Ok(claim) => claim,
            Err(Error::Inventory(inventory::Error::NoSuchPort(_))) => return,
            Err(_) => return self.postpone(&mut self.lock(), port, backoff(5)),
        };
        if self.keep_cut_off(port, &context).await {
            return;
        }
        if let Err(error) = self.prove(port).await {
            return self.failed(port, reason, &error, &context);
        }
        let away = self.look_at_machine(port).await;
        match (self.difference(port, &context), away) {
            (Difference::Device, Some(away)) if self.lacks_only_its_nic(port) => self.wait_for_machine(port, &away, &context),
            (Difference::None, _) => {}
            (Difference::Held, _) => self.release_addresses(port).await,
            (Difference::Device, _) => self.repair_claimed(port, reason, &context).await,
        }
        self.set_exposed_down(port).await;
    }

    /// What there is to do; if nothing, what was seen decides the phase.
    fn difference(self: &Arc<Self>, port: PortId, context: &Context) -> Difference {
        let mut state = self.lock();
        let Ok(entry) = state.port(port) else { return Difference::None };
        if entry.record.attached_to().is_none() {
            return Difference::None;
        }
        let held = entry.record.binding.as_ref().is_some_and(|binding| !binding.releasing.is_empty());
        let is_error = entry.phase == Phase::Error;
        if self.is_from_lost_commits(&mut state, port, context) {
            return Difference::None;
        }
        match self.plan_port(&state, port, Reason::Drift) {
            Ok(plan) if plan.steps.is_empty() && !is_error => {
                self.follow_responder(&mut state, port);
                let (readiness, why) = self.readiness(&state, port);
                self.transition(&mut state, port, PhaseEvent::Observed(readiness), why, context);
                self.end_flapping(&mut state, port);
                if held { Difference::Held } else { Difference::None }
            }
            _ => Difference::Device,
        }
    }

    async fn repair_claimed(self: &Arc<Self>, port: PortId, reason: Reason, context: &Context) {
        // A guest whose namespace is away is not tried again and again: one look at the path first.
        let waited_for = self.lock().ports.get(&port).and_then(PortEntry::waited_for);
        if let Some(server) = waited_for
            && !self.pin_again(server).await.unwrap_or(false)
        {
            return self.postpone(&mut self.lock(), port, NAMESPACE_WAIT);
        }
        match self.begin_repair(port, reason, context) {
            Ok(Begun::Repair) => {}
            Ok(Begun::CutOff) => {
                self.keep_cut_off(port, context).await;
                return;
            }
            Err(error) => return self.failed(port, reason, &error, context),
        }
        let built = self.build(port, reason, Vec::new(), Timing::Off).await;
        meters().repaired(reason.as_str(), built.as_ref().map_or_else(|failed| failed.error.reason(), |_| OK));
        match built {
            Ok(_) => {
                let mut state = self.lock();
                self.follow_responder(&mut state, port);
                let (readiness, why) = self.readiness(&state, port);
                self.ended(&mut state, port, readiness, why, context);
                self.count_repair(&mut state, port);
            }
            Err(Failed { error: error @ Error::NamespaceGone { .. }, .. }) => {
                let why = Why { reason: NAMESPACE_GONE, detail: error.to_string() };
                let mut state = self.lock();
                self.ended(&mut state, port, Readiness::Waiting, Some(why), context);
                self.postpone(&mut state, port, NAMESPACE_WAIT);
            }
            Err(Failed { error: Error::Monitor(away), .. }) if away.is_away() => self.wait_for_machine(port, &away, context),
            Err(Failed { error, .. }) => self.failed(port, reason, &error, context),
        }
    }

    /// A port whose device is right waits for its machine, which is asked again in a while, later the longer it is away.
    fn wait_for_machine(&self, port: PortId, away: &MonitorError, context: &Context) {
        let (mut state, why) = (self.lock(), Some(Why::from(away)));
        match state.port(port).map(|entry| entry.phase) {
            Ok(Phase::Building | Phase::Error) => self.ended(&mut state, port, Readiness::Waiting, why, context),
            _ => self.transition(&mut state, port, PhaseEvent::Observed(Readiness::Waiting), why, context),
        }
        let Some(entry) = state.ports.get_mut(&port) else { return };
        let wait = absence_wait(entry.retry.away.get_or_insert_with(Instant::now).elapsed());
        self.postpone(&mut state, port, wait);
    }

    /// Plans a repair and tells that it begins; not of one that failed the last time, which is told of once it ends otherwise.
    /// What cannot be planned has failed already.
    fn begin_repair(&self, port: PortId, reason: Reason, context: &Context) -> Result<Begun, Error> {
        let mut state = self.lock();
        let (plan, facets) = (self.plan_port(&state, port, reason), self.drift(&state, port));
        Self::count_try(&mut state, port, facets.clone());
        match plan {
            Ok(_) => {}
            // The next one drawn may be free.
            Err(Error::Plan(PlanError::IndexTaken(_))) => return Ok(Begun::Repair),
            Err(error) => return Err(error),
        }
        if facets.contains(&Facet::Mac) && self.count_mac_change(&mut state, port) {
            return Ok(Begun::CutOff);
        }
        if state.port(port).is_ok_and(PortEntry::is_known_to_fail) {
            tracing::debug!(%port, ?reason, ?facets, "a port is tried again");
        } else {
            tracing::info!(%port, ?reason, ?facets, "a port differs from its record and is brought back");
            self.transition(&mut state, port, PhaseEvent::Repair, None, context);
        }
        Ok(Begun::Repair)
    }

    /// A try has ended with a device, or with a namespace that is waited for. One whose beginning was not told of is told of now.
    pub(crate) fn ended(&self, state: &mut Inventory, port: PortId, as_what: Readiness, why: Option<Why>, context: &Context) {
        let Some(entry) = state.ports.get_mut(&port) else { return };
        entry.retry.succeeded();
        if entry.phase != Phase::Building {
            if entry.waited_for().is_some() && why.as_ref().is_some_and(|why| why.reason == NAMESPACE_GONE) {
                return;
            }
            self.transition(state, port, PhaseEvent::Repair, None, context);
        }
        self.transition(state, port, PhaseEvent::Built(as_what), why, context);
    }

    /// A try has failed, and the next one is set.
    pub(crate) fn failed(&self, port: PortId, reason: Reason, error: &Error, context: &Context) {
        let mut state = self.lock();
        let failures = self.try_later(&mut state, port);
        match state.port(port).is_ok_and(|entry| entry.phase == Phase::Error && entry.reason.as_deref() == Some(error.reason())) {
            true => tracing::debug!(%port, ?reason, failures, %error, "a port could not be brought back, as before"),
            false => tracing::warn!(%port, ?reason, %error, "a port could not be brought back"),
        }
        let why = Why { reason: error.reason(), detail: error.to_string() };
        self.transition(&mut state, port, PhaseEvent::Failed, Some(why), context);
    }

    /// Keeps a port cut off, or ends that when its MAC has stood still. The caller has the claim on it. Whether it is cut off.
    async fn keep_cut_off(self: &Arc<Self>, port: PortId, context: &Context) -> bool {
        let differs = {
            let mut state = self.lock();
            if !state.is_cut_off(port) {
                return false;
            }
            if self.end_cut_off(&mut state, port) {
                return false;
            }
            !self.plan_port(&state, port, Reason::Drift).is_ok_and(|plan| plan.steps.is_empty())
        };
        if differs && let Err(failed) = self.build(port, Reason::Drift, Vec::new(), Timing::Off).await {
            tracing::warn!(%port, error = %failed.error, "a port could not be cut off");
            let mut state = self.lock();
            self.transition(&mut state, port, PhaseEvent::Failed, Some(cut_off::why()), context);
            self.postpone(&mut state, port, CUT_AGAIN);
            return true;
        }
        let mut state = self.lock();
        self.transition(&mut state, port, PhaseEvent::Failed, Some(cut_off::why()), context);
        let still = state.ports.get(&port).and_then(|entry| entry.retry.last).map(|last| last.elapsed());
        self.postpone(&mut state, port, QUIET.saturating_sub(still.unwrap_or_default()) + QUIET / 10);
        true
    }

    /// A try has ended.
    pub(super) fn tried(self: &Arc<Self>, port: PortId) {
        let mut state = self.lock();
        let Some(entry) = state.ports.get_mut(&port) else { return };
        entry.retry.running = false;
        if std::mem::take(&mut entry.retry.again) {
            self.cause_ended(&mut state, port);
        }
        // What was seen meanwhile was left to this try, and may have come too late for it.
        self.evaluate(&mut state, port, Reason::Drift);
    }
}
