//! Taking a port from its server: traffic is cut and the intent durable before the answer; the rest follows.

use std::sync::Arc;
use std::time::Instant;

use crate::events::EventKind;
use crate::inventory::{self, Inventory};
use crate::model::action::AfterDetach;
use crate::model::{Intent, Origin, Phase, PhaseEvent, Port, PortId, ServerId, Standby};
use crate::reconcile::{Work, port_event};
use crate::store::{Change, Purpose};
use crate::telemetry::meters;
use crate::telemetry::meters::Detaching;

use super::{Context, Error, Reply, Service, word};

impl Service {
    pub(super) async fn detach(
        self: Arc<Self>,
        server: ServerId,
        port: PortId,
        after: AfterDetach,
        context: &Context,
    ) -> Result<Reply, Error> {
        let what = |state: &mut Inventory| {
            self.on_server(state, server, port)?;
            Ok(intent_of(state.port(port)?.record.origin, after))
        };
        self.remove(port, what, context).await
    }

    /// Deletes a port, detaching it first.
    pub(super) async fn delete_port(self: Arc<Self>, port: PortId, context: &Context) -> Result<Reply, Error> {
        let what = |state: &mut Inventory| {
            context.expects(state.port(port)?.record.revision_number)?;
            state.check_in_no_trunk(port)?;
            Ok(Intent::Deleting)
        };
        self.remove(port, what, context).await
    }

    /// Lets a port's device go, and the port with it or not, as `what` says once the port is claimed.
    async fn remove(
        self: &Arc<Self>,
        port: PortId,
        what: impl Fn(&mut Inventory) -> Result<Intent, Error>,
        context: &Context,
    ) -> Result<Reply, Error> {
        let result = self.remove_once_claimed(port, what, context).await;
        meters().detached(word(&result));
        result
    }

    async fn remove_once_claimed(
        self: &Arc<Self>,
        port: PortId,
        what: impl Fn(&mut Inventory) -> Result<Intent, Error>,
        context: &Context,
    ) -> Result<Reply, Error> {
        let (intent, _claims) = self
            .reconciler
            .claim(|state| {
                check_active(state, port)?;
                Ok((what(state)?, state.claim_with_sub_ports(port)?))
            })
            .await?;
        self.remove_claimed(port, intent, context).await
    }

    async fn remove_claimed(self: &Arc<Self>, port: PortId, intent: Intent, context: &Context) -> Result<Reply, Error> {
        let before = self.reconciler.lock().port(port)?.record.clone();
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
            let noted = self.note_part(context, port).into_iter().collect();
            self.begin_detach(vec![record], noted, context).await?;
            return Ok(Reply::Done);
        }
        if before.binding != record.binding {
            self.reconciler.commit(vec![Change::PutPort(Box::new(record.clone()))], Purpose::Freeing).await?;
            self.reconciler.lock().replace_port(record);
        }
        // One that failed, waits for a client to say it again, or for its guest, is tried again.
        if forced || self.reconciler.lock().port(port)?.phase == Phase::Error {
            self.reconciler.start(Work::Reap(port));
        }
        Ok(Reply::Done)
    }

    /// Makes durable that these ports leave, with the subports that their devices carry and in one commit with what goes `beside` it;
    /// cuts their traffic, and has their devices deleted. The caller has the claims on all of them.
    pub(super) async fn begin_detach(
        self: &Arc<Self>,
        mut leaving: Vec<Port>,
        beside: Vec<Change>,
        context: &Context,
    ) -> Result<(), Error> {
        let carried: Vec<Port> = {
            let state = self.reconciler.lock();
            let sub_ports = leaving.iter().flat_map(|port| state.carried(port.id));
            let attached = sub_ports.filter_map(|port| state.ports.get(&port)).filter(|entry| !entry.record.leaving());
            attached.map(|entry| departing(&entry.record, AfterDetach::Keep, context.force)).collect()
        };
        leaving.extend(carried);
        let changes = leaving.iter().cloned().map(|port| Change::PutPort(Box::new(port))).chain(beside);
        let began = Instant::now();
        self.reconciler.commit(changes.collect(), Purpose::Freeing).await?;
        meters().detaching(Detaching::Commit, began.elapsed());
        let ports: Vec<PortId> = leaving.iter().map(|port| port.id).collect();
        {
            let mut state = self.reconciler.lock();
            for record in leaving {
                let port = record.id;
                state.replace_port(record);
                self.reconciler.transition(&mut state, port, PhaseEvent::Unbind, None, context);
            }
        }
        for port in ports {
            let began = Instant::now();
            self.reconciler.cut_leaving(port).await;
            meters().detaching(Detaching::Cut, began.elapsed());
            let (reconciler, context) = (Arc::clone(&self.reconciler), context.clone());
            self.reconciler.tasks.spawn(async move { reconciler.reap(port, &context).await });
        }
        Ok(())
    }

    /// Has the device of a leaving port go although a process holds it open.
    pub(super) async fn force(self: &Arc<Self>, port: PortId, context: &Context) -> Result<(), Error> {
        let still_there = |state: &mut Inventory| {
            let binding = state.port(port)?.record.binding.as_ref();
            let intent = binding.map(|binding| binding.intent).filter(|intent| *intent != Intent::Attached);
            Ok(intent.ok_or(inventory::Error::NoSuchPort(port))?)
        };
        self.remove_once_claimed(port, still_there, context).await.map(drop)
    }

    /// Removes a port that nothing is built for.
    async fn forget(&self, port: PortId, context: &Context) -> Result<Reply, Error> {
        self.reconciler.commit(vec![Change::DeletePort(port)], Purpose::Freeing).await?;
        if let Some(entry) = self.reconciler.lock().remove_port(port) {
            self.reconciler.emit(port_event(EventKind::PortDeleted, &entry.record, Some(entry.phase), None, None), context);
        }
        Ok(Reply::Done)
    }
}

/// Refuses a port that is active on another host, of which this one has the silent device alone.
pub(super) fn check_active(state: &Inventory, port: PortId) -> Result<(), Error> {
    let record = &state.port(port)?.record;
    match &record.standby {
        Some(Standby::ActiveOn(_)) if !record.leaving() => Err(inventory::Error::NoSuchPort(port).into()),
        Some(Standby::HandedTo(_)) => Err(Error::NotMovable { port, why: "it is being moved to another host already" }),
        _ => Ok(()),
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
        // One that is active on another host stays there.
        binding.intent = if port.standby.is_some() { Intent::Deleting } else { intent_of(port.origin, after) };
        binding.forced = force;
    }
    record
}
