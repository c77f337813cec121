//! The end of what leaves: a port's device is deleted, then its record goes or is free again, then a leaving server's.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::events::EventKind;
use crate::inventory::retry::backoff;
use crate::inventory::{self, Inventory, PortEntry};
use crate::kernel::handle::Answer;
use crate::kernel::reaper::Removed;
use crate::kernel::{OpError, OpErrorKind};
use crate::model::{Intent, Origin, Phase, PhaseEvent, PortId, ServerId, names};
use crate::monitor::MonitorError;
use crate::plan::{AbsentPort, LinkState, MachineNic, Reason, Stage, removal};
use crate::store::{Change, Purpose};
use crate::telemetry::meters;
use crate::telemetry::meters::Detaching;

use super::observe::GUEST_KEEPS_DEVICE;
use super::{Context, Error, Reconciler, Why, answered, port_event};

/// A delete that takes so long is told of: hundreds of times what one takes.
const LONG: Duration = Duration::from_secs(5);

/// How often traffic is tried to be cut of a device whose altname another program takes.
const CUTS: usize = 4;

/// How soon a device that is held open is looked at again the first time, then a step later each time.
const KEPT_FIRST: Duration = Duration::from_millis(100);

/// The same in the long run.
const KEPT_LAST: Duration = Duration::from_secs(1);

impl Reconciler {
    /// A port as the planner wants it gone.
    pub(crate) fn absent(&self, state: &Inventory, port: PortId) -> Result<AbsentPort, Error> {
        let PortEntry { record, device, .. } = state.port(port)?;
        let binding = record.binding.as_ref();
        let alias = binding.map(|binding| names::device_tag(self.store_id, binding.commit)).unwrap_or_default();
        let force = binding.is_some_and(|binding| binding.forced);
        let monitor = state.monitor_of(record).cloned();
        Ok(AbsentPort { id: port, alias, mac: Some(record.mac), seen: *device, force, monitor })
    }

    /// Carries out what of a detach is not deferred: traffic is cut. What cannot be cut so is about to be deleted, which cuts as
    /// well.
    pub(crate) async fn cut_leaving(self: &Arc<Self>, port: PortId) {
        for _ in 0..CUTS {
            let plan = {
                let state = self.lock();
                // A port whose record is gone has no device.
                let Ok(absent) = self.absent(&state, port) else { return };
                removal(Reason::Detach, &[absent], &[], &state.have).only(Stage::Now)
            };
            if plan.steps.is_empty() {
                return;
            }
            let error = match self.carry_out(plan).await {
                Ok(done) => return self.finished(port, done),
                // It has lost its altname since it was looked at.
                Err(Error::Kernel(OpError { kind: OpErrorKind::Gone, .. })) => match self.look_at_everything().await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            return tracing::warn!(%port, %error, "a leaving port's traffic is not cut before its device is deleted");
        }
    }

    /// Has the device deleted, then lets go of what it held. Tried again later when the kernel refuses, or a process holds it.
    /// One at a time.
    pub(crate) async fn reap(self: Arc<Self>, port: PortId, context: &Context) {
        let (mut absent, looks) = {
            let mut state = self.lock();
            let Ok(absent) = self.absent(&state, port) else { return };
            let Some(entry) = state.ports.get_mut(&port).filter(|entry| !entry.reaping && entry.record.leaving()) else { return };
            entry.reaping = true;
            (absent, entry.looks)
        };
        let (began, forced) = (Instant::now(), absent.force);
        if let Some(monitor) = absent.monitor.take() {
            // A start, and an attach that could not be taken back, come here with a device that was not cut.
            self.cut_leaving(port).await;
            if let Err(why) = self.unplug_leaving(port, &monitor, looks > 0, forced).await {
                return self.keep(port, forced, &format!("; it is plugged into a machine: {why}"), context);
            }
        }
        let deleted = match self.kernel.delete(absent, self.store_id) {
            Ok(answer) => self.deleted(port, answer).await,
            Err(refused) => Err(refused.into()),
        };
        let error = match deleted {
            Ok(Ok(Removed::Gone)) => {
                meters().detaching(Detaching::Delete, began.elapsed());
                self.forget_device(port);
                return self.gone(port, context).await;
            }
            Ok(Ok(Removed::Kept)) => return self.keep(port, forced, "", context),
            Ok(Err(error)) => Error::Kernel(error),
            Err(error) => error,
        };
        let unmarked = matches!(&error, Error::Kernel(OpError { kind: OpErrorKind::Unmarked, .. }));
        let event = if unmarked { PhaseEvent::Unbind } else { PhaseEvent::Failed };
        let mut state = self.lock();
        reaped(&mut state, port);
        let failures = match unmarked {
            true => {
                self.postpone(&mut state, port, KEPT_LAST);
                1
            }
            false => self.try_later(&mut state, port),
        };
        match state.port(port).is_ok_and(|entry| entry.reason.as_deref() == Some(error.reason())) {
            true => tracing::debug!(%port, failures, %error, "a device could not be deleted, as before"),
            false => tracing::warn!(%port, %error, "a device could not be deleted"),
        }
        let why = Why { reason: error.reason(), detail: error.to_string() };
        self.transition(&mut state, port, event, Some(why), context);
    }

    /// Unplugs a leaving port's NIC from its machine, where that may have it. An error is why the device is to stay: the machine holds it
    /// open, and would read from it without end.
    async fn unplug_leaving(
        self: &Arc<Self>,
        port: PortId,
        monitor: &Path,
        asked: bool,
        forced: bool,
    ) -> Result<(), MonitorError> {
        let is_held = |state: &Inventory| state.have.device(port).is_some_and(LinkState::is_held);
        {
            let state = self.lock();
            if !is_held(&state) && !matches!(state.have.nic(port), Some(MachineNic::Plugged { .. })) {
                return Ok(());
            }
        }
        let Err(error) = self.unplug(port, monitor, asked, forced).await else { return Ok(()) };
        // That a device is closed while it is down makes no event.
        self.look_at_device(port).await;
        if !forced && is_held(&self.lock()) {
            return Err(error);
        }
        tracing::info!(%port, %error, "a NIC was not unplugged from its machine");
        Ok(())
    }

    /// Keeps a device that a process holds open, and looks again: that one is closed while it is down makes no event.
    fn keep(self: &Arc<Self>, port: PortId, forced: bool, more: &str, context: &Context) {
        let mut state = self.lock();
        reaped(&mut state, port);
        let name = state.have.device(port).map_or("its device", |link| link.name.as_str()).to_owned();
        let why = Why {
            reason: GUEST_KEEPS_DEVICE,
            detail: format!(
                "a process holds {name} open; it goes when that closes it, and at once with ?force=true, which makes some VMMs \
                 read from it without end{more}"
            ),
        };
        self.transition(&mut state, port, PhaseEvent::Unbind, Some(why), context);
        let Some(entry) = state.ports.get_mut(&port) else { return };
        entry.looks = entry.looks.saturating_add(1);
        let now_forced = entry.record.binding.as_ref().is_some_and(|binding| binding.forced);
        let wait = if now_forced && !forced { Duration::ZERO } else { KEPT_FIRST.saturating_mul(entry.looks).min(KEPT_LAST) };
        let server = entry.record.binding.as_ref().map(|binding| binding.server_id);
        // Who waits for the server's end waits no longer.
        if let Some(server) = server.and_then(|server| state.servers.get(&server)) {
            server.claim.wake();
        }
        self.postpone(&mut state, port, wait);
    }

    /// Waits for a delete's end, for as long as the kernel needs; health tells of one that it does not bring to one.
    async fn deleted(&self, port: PortId, answer: Answer<Result<Removed, OpError>>) -> Result<Result<Removed, OpError>, Error> {
        let mut answer = pin!(answered(answer));
        if let Ok(deleted) = tokio::time::timeout(LONG, &mut answer).await {
            return deleted;
        }
        tracing::warn!(%port, "the kernel does not let a device go");
        let note = |is: fn(&mut BTreeSet<PortId>, PortId) -> bool| {
            let mut state = self.lock();
            is(&mut state.kept, port);
            self.publish_health(&state);
        };
        note(|kept, port| kept.insert(port));
        let deleted = answer.await;
        note(|kept, port| kept.remove(&port));
        deleted
    }

    /// Forgets a device whose delete was answered: the watch's notice may come after the port's next attach is planned.
    fn forget_device(&self, port: PortId) {
        let mut state = self.lock();
        state.have.note_nic(port, None);
        let known = state.ports.get_mut(&port).and_then(|entry| entry.device.take());
        let known = state.have.device(port).map(|device| device.index).or(known);
        if let Some(index) = known {
            state.gone(index, Instant::now());
        }
    }

    /// The kernel has let a leaving port's device go: its record goes, or its server. The second caller finds nothing
    /// to do.
    pub(crate) async fn gone(self: &Arc<Self>, port: PortId, context: &Context) {
        let claim = match self.claim(|state| state.claim_port(port)).await {
            Ok(claim) => claim,
            Err(Error::Inventory(inventory::Error::NoSuchPort(_))) => return,
            Err(error) => {
                tracing::warn!(%port, %error, "a port whose device has gone is still being worked on");
                let mut state = self.lock();
                reaped(&mut state, port);
                return self.postpone(&mut state, port, backoff(5));
            }
        };
        let record = {
            let mut state = self.lock();
            match state.ports.get_mut(&port) {
                Some(entry) if entry.record.leaving() && matches!(entry.phase, Phase::Detaching | Phase::Error) => {
                    entry.record.clone()
                }
                _ => return reaped(&mut state, port),
            }
        };
        let deleting = record.binding.as_ref().is_some_and(|binding| binding.intent == Intent::Deleting);
        let server = record.binding.as_ref().map(|binding| binding.server_id);
        let mut unbound = record;
        unbound.binding = None;
        // What is kept is the client's from now on.
        unbound.origin = Origin::Client;
        let change = if deleting { Change::DeletePort(port) } else { Change::PutPort(Box::new(unbound.clone())) };
        if let Err(error) = self.commit(vec![change], Purpose::Freeing).await {
            drop(claim);
            let mut state = self.lock();
            reaped(&mut state, port);
            // Health tells of a store that refuses.
            match self.try_later(&mut state, port) {
                1 => tracing::error!(%port, %error, "that a port is gone could not be recorded"),
                failures => tracing::debug!(%port, failures, %error, "that a port is gone could not be recorded, as before"),
            }
            return;
        }
        let mut state = self.lock();
        self.follow_responder(&mut state, port);
        if deleting {
            // One that is active on another host is not deleted with its device here.
            if let Some(entry) = state.remove_port(port).filter(|entry| entry.record.standby.is_none()) {
                self.emit(port_event(EventKind::PortDeleted, &entry.record, Some(entry.phase), None, None), context);
            }
        } else {
            self.transition(&mut state, port, PhaseEvent::Gone, None, context);
            state.replace_port(unbound);
            state.ports.get_mut(&port).into_iter().for_each(|entry| entry.retry.succeeded());
        }
        if let Some(server) = server {
            self.end_server_if_empty(&state, server);
        }
        reaped(&mut state, port);
        if let Some(entry) = state.ports.get_mut(&port) {
            entry.looks = 0;
        }
    }

    /// The claim on a server that was leaving when the daemon died is taken up again.
    pub(super) fn resume_leaving(self: &Arc<Self>, state: &mut Inventory) {
        state.servers.values_mut().filter(|entry| entry.record.leaving).for_each(|entry| entry.leaving = entry.claim.take().ok());
        state.servers.keys().for_each(|id| self.end_server_if_empty(state, *id));
    }

    /// Forgets a leaving server when the last of its NICs has gone.
    pub(crate) fn end_server_if_empty(self: &Arc<Self>, state: &Inventory, id: ServerId) {
        if state.servers.get(&id).is_some_and(|entry| entry.record.leaving && entry.ports.is_empty()) {
            let reconciler = Arc::clone(self);
            self.tasks.spawn(async move { reconciler.end_server(id).await });
        }
    }

    async fn end_server(self: Arc<Self>, id: ServerId) {
        while let Err(error) = self.commit(vec![Change::DeleteServer(id)], Purpose::Freeing).await {
            tracing::debug!(server = %id, %error, "that a server is gone could not be recorded yet");
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            tokio::time::sleep(backoff(3)).await;
        }
        self.lock().remove_server(id);
    }
}

/// Its device's delete has ended.
fn reaped(state: &mut Inventory, port: PortId) {
    if let Some(entry) = state.ports.get_mut(&port) {
        entry.reaping = false;
    }
}
