//! Taking a port from its server: traffic is cut and the intent durable before the answer; the rest follows.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::events::EventKind;
use crate::kernel::handle::Answer;
use crate::kernel::reaper::Removed;
use crate::kernel::{OpError, OpErrorKind};
use crate::model::action::AfterDetach;
use crate::model::{Happening, Intent, Origin, Phase, Port, PortId, ServerId, names};
use crate::plan::{AbsentPort, Reason, Stage, removal};
use crate::store::{Change, Purpose};
use crate::telemetry::meters;
use crate::telemetry::meters::Detaching;

use super::retry::backoff;
use super::state::{PortEntry, State};
use super::{Context, Error, Manager, Reply, Why, answered, port_event, word};

/// A delete that takes so long is told of: hundreds of times what one takes.
const LONG: Duration = Duration::from_secs(5);

/// The stable word for a device that a process holds open.
pub(super) const GUEST_KEEPS_DEVICE: &str = "guest_keeps_device";

/// How soon a device that is held open is looked at again the first time, then a step later each time.
const KEPT_FIRST: Duration = Duration::from_millis(100);

/// The same in the long run.
const KEPT_LAST: Duration = Duration::from_secs(1);

/// How often traffic is tried to be cut of a device that somebody takes the altname from.
const CUTS: usize = 4;

impl Manager {
    pub(super) async fn detach(
        self: Arc<Self>,
        server: ServerId,
        port: PortId,
        after: AfterDetach,
        context: &Context,
    ) -> Result<Reply, Error> {
        let what = |state: &mut State| {
            self.on_server(state, server, port)?;
            Ok(intent_of(state.port(port)?.record.origin, after))
        };
        self.remove(port, what, context).await
    }

    /// Deletes a port, detaching it first.
    pub(super) async fn delete_port(self: Arc<Self>, port: PortId, context: &Context) -> Result<Reply, Error> {
        let what = |state: &mut State| {
            context.expects(state.port(port)?.record.revision_number)?;
            Ok(Intent::Deleting)
        };
        self.remove(port, what, context).await
    }

    /// Lets a port's device go, and the port with it or not, as `what` says once the port is claimed.
    async fn remove(
        self: &Arc<Self>,
        port: PortId,
        what: impl Fn(&mut State) -> Result<Intent, Error>,
        context: &Context,
    ) -> Result<Reply, Error> {
        let result = self.remove_once_claimed(port, what, context).await;
        meters().detached(word(&result));
        result
    }

    async fn remove_once_claimed(
        self: &Arc<Self>,
        port: PortId,
        what: impl Fn(&mut State) -> Result<Intent, Error>,
        context: &Context,
    ) -> Result<Reply, Error> {
        let (intent, _claim) = self.claim(|state| Ok((what(state)?, state.claim_port(port)?))).await?;
        self.remove_claimed(port, intent, context).await
    }

    async fn remove_claimed(self: &Arc<Self>, port: PortId, intent: Intent, context: &Context) -> Result<Reply, Error> {
        let before = self.lock().port(port)?.record.clone();
        let mut record = before.clone();
        record.revision_number += 1;
        let Some(binding) = record.binding.as_mut() else { return self.forget(port, context).await };
        let first = binding.intent == Intent::Attached;
        let forced = context.force && !binding.forced;
        if first || binding.intent == Intent::Detaching {
            binding.intent = intent;
        }
        binding.forced |= context.force;
        if first {
            self.send_off(vec![record], None, context).await?;
            return Ok(Reply::Done);
        }
        if before.binding != record.binding {
            self.commit(vec![Change::PutPort(Box::new(record.clone()))], Purpose::Freeing).await?;
            self.lock().replace_port(record);
        }
        // One that failed, waits for a client to say it again, or for its guest, is tried again.
        if forced || self.lock().port(port)?.phase == Phase::Error {
            self.spawn_reap(port);
        }
        Ok(Reply::Done)
    }

    /// Makes durable that these ports leave, in one commit with what goes `beside` it; cuts their traffic, and has their
    /// devices deleted. The caller has the claims on them.
    pub(super) async fn send_off(
        self: &Arc<Self>,
        leaving: Vec<Port>,
        beside: Option<Change>,
        context: &Context,
    ) -> Result<(), Error> {
        let changes = leaving.iter().cloned().map(|port| Change::PutPort(Box::new(port))).chain(beside);
        let began = Instant::now();
        self.commit(changes.collect(), Purpose::Freeing).await?;
        meters().detaching(Detaching::Commit, began.elapsed());
        let ports: Vec<PortId> = leaving.iter().map(|port| port.id).collect();
        {
            let mut state = self.lock();
            for record in leaving {
                let port = record.id;
                state.replace_port(record);
                self.happen(&mut state, port, Happening::Unbind, None, context);
            }
        }
        for port in ports {
            let began = Instant::now();
            self.cut(port).await;
            meters().detaching(Detaching::Cut, began.elapsed());
            let (manager, context) = (Arc::clone(self), context.clone());
            self.tasks.spawn(async move { manager.reap(port, &context).await });
        }
        Ok(())
    }

    /// Has the device of a leaving port go although a process holds it open.
    pub(super) async fn force(self: &Arc<Self>, port: PortId, context: &Context) -> Result<(), Error> {
        let still_there = |state: &mut State| {
            let binding = state.port(port)?.record.binding.as_ref();
            let intent = binding.map(|binding| binding.intent).filter(|intent| *intent != Intent::Attached);
            intent.ok_or(Error::NoSuchPort(port))
        };
        self.remove_once_claimed(port, still_there, context).await.map(drop)
    }

    /// Removes a port that nothing is built for.
    async fn forget(&self, port: PortId, context: &Context) -> Result<Reply, Error> {
        self.commit(vec![Change::DeletePort(port)], Purpose::Freeing).await?;
        if let Some(entry) = self.lock().remove_port(port) {
            self.emit(port_event(EventKind::PortDeleted, &entry.record, Some(entry.phase), None, None), context);
        }
        Ok(Reply::Done)
    }

    /// Carries out what of a detach is not deferred: traffic is cut. What cannot be cut so is about to be deleted, which cuts as
    /// well.
    async fn cut(self: &Arc<Self>, port: PortId) {
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

    /// A port as the planner wants it gone.
    pub(super) fn absent(&self, state: &State, port: PortId) -> Result<AbsentPort, Error> {
        let PortEntry { record, device, .. } = state.port(port)?;
        let binding = record.binding.as_ref();
        let alias = binding.map(|binding| names::seal(self.store_id, binding.commit)).unwrap_or_default();
        let force = binding.is_some_and(|binding| binding.forced);
        Ok(AbsentPort { id: port, alias, mac: Some(record.mac), seen: *device, force })
    }

    /// Has the device deleted, then lets go of what it held. Tried again later when the kernel refuses, or a process holds it.
    /// One at a time.
    pub(super) async fn reap(self: Arc<Self>, port: PortId, context: &Context) {
        let absent = {
            let mut state = self.lock();
            let Ok(absent) = self.absent(&state, port) else { return };
            let Some(entry) = state.ports.get_mut(&port).filter(|entry| !entry.reaping && entry.record.leaving()) else { return };
            entry.reaping = true;
            absent
        };
        let (began, forced) = (Instant::now(), absent.force);
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
            Ok(Ok(Removed::Kept)) => return self.keep(port, forced, context),
            Ok(Err(error)) => Error::Kernel(error),
            Err(error) => error,
        };
        let unmarked = matches!(&error, Error::Kernel(OpError { kind: OpErrorKind::Unmarked, .. }));
        let what = if unmarked { Happening::Unbind } else { Happening::Failed };
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
        self.happen(&mut state, port, what, Some(why), context);
    }

    /// Keeps a device that a process holds open, and looks again: that one is closed while it is down makes no event.
    fn keep(self: &Arc<Self>, port: PortId, forced: bool, context: &Context) {
        let mut state = self.lock();
        reaped(&mut state, port);
        let name = state.have.device(port).map_or("its device", |link| link.name.as_str()).to_owned();
        let why = Why {
            reason: GUEST_KEEPS_DEVICE,
            detail: format!(
                "a process holds {name} open; it goes when that closes it, and at once with ?force=true, which makes some VMMs \
                 read from it without end"
            ),
        };
        self.happen(&mut state, port, Happening::Unbind, Some(why), context);
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
            self.tell_health(&mut state);
        };
        note(|kept, port| kept.insert(port));
        let deleted = answer.await;
        note(|kept, port| kept.remove(&port));
        deleted
    }

    /// Forgets a device whose delete was answered: the watch's notice may come after the port's next attach is planned.
    fn forget_device(&self, port: PortId) {
        let mut state = self.lock();
        let known = state.ports.get_mut(&port).and_then(|entry| entry.device.take());
        let known = state.have.device(port).map(|device| device.index).or(known);
        if let Some(index) = known {
            state.gone(index, Instant::now());
        }
    }

    /// The kernel has let a leaving port's device go: its record goes, or its server. Whoever comes second finds nothing
    /// to do.
    pub(super) async fn gone(self: &Arc<Self>, port: PortId, context: &Context) {
        let claim = match self.claim(|state| state.claim_port(port)).await {
            Ok(claim) => claim,
            Err(Error::NoSuchPort(_)) => return,
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
        if deleting {
            if let Some(entry) = state.remove_port(port) {
                self.emit(port_event(EventKind::PortDeleted, &entry.record, Some(entry.phase), None, None), context);
            }
        } else {
            self.happen(&mut state, port, Happening::Gone, None, context);
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
}

fn intent_of(origin: Origin, after: AfterDetach) -> Intent {
    match (origin, after) {
        (Origin::Attach, AfterDetach::AsMade) => Intent::Deleting,
        (Origin::Client, _) | (Origin::Attach, AfterDetach::Keep) => Intent::Detaching,
    }
}

/// An attached port's record as it is to be once the port leaves.
pub(super) fn departing(port: &Port, after: AfterDetach, force: bool) -> Port {
    let mut record = port.clone();
    record.revision_number += 1;
    if let Some(binding) = record.binding.as_mut() {
        binding.intent = intent_of(port.origin, after);
        binding.forced = force;
    }
    record
}

/// Its device's delete has ended.
fn reaped(state: &mut State, port: PortId) {
    if let Some(entry) = state.ports.get_mut(&port) {
        entry.reaping = false;
    }
}
