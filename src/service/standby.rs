//! Ports that have silent devices here: they are active on other hosts, or are being handed to them.

use std::sync::Arc;

use crate::fleet::moving::Whereabouts;
use crate::inventory::{self, ClaimGuard, Inventory};
use crate::model::action::AfterDetach;
use crate::model::{Lent, Port, PortId, Server, ServerId, Standby};
use crate::plan::Reason;
use crate::store::{Change, Purpose};

use super::detach::departing;
use super::{Context, Error, Service};

impl Service {
    /// A port is not handed over after all.
    pub(super) async fn stay(&self, port: Port, claim: ClaimGuard) -> Result<(), Error> {
        let id = port.id;
        let noted = self.put_durable(Port { standby: None, ..port }).await;
        if let (Err(_), Some(fleet)) = (&noted, self.fleet.get()) {
            // It is settled then.
            fleet.join_again();
        }
        noted?;
        drop(claim);
        self.reconciler.evaluate(&mut self.reconciler.lock(), id, Reason::Drift);
        Ok(())
    }

    pub(super) async fn put_durable(&self, port: Port) -> Result<(), Error> {
        self.reconciler.commit(vec![Change::PutPort(Box::new(port.clone()))], Purpose::Freeing).await?;
        self.reconciler.lock().replace_port(port);
        Ok(())
    }

    /// Notes that a port is another host's, with what that one holds of this host's claims from now on.
    pub(super) async fn note_handed(&self, id: PortId, host: String, ones: Vec<Lent>) -> Result<(), Error> {
        let (record, changes, lent) = {
            let state = self.reconciler.lock();
            let record = Port { standby: Some(Standby::ActiveOn(host.clone())), ..state.port(id)?.record.clone() };
            // What came back from another host is claimed by itself, and of a block of this host's as well.
            let of_block = |one: &&Lent| one.claim.block().is_some_and(|block| state.has_noted(&block));
            let lent: Vec<Lent> = ones.iter().filter(of_block).cloned().collect();
            let gone = ones.iter().map(|one| one.claim).filter(|one| state.has_noted(one)).map(Change::DeleteClaim);
            let changes: Vec<Change> = gone.chain(lent.iter().cloned().map(Change::PutLent)).collect();
            (record, changes, lent)
        };
        let put = Change::PutPort(Box::new(record.clone()));
        self.reconciler.commit(changes.iter().cloned().chain([put]).collect(), Purpose::Freeing).await?;
        let mut state = self.reconciler.lock();
        state.replace_port(record);
        state.lend(lent);
        for change in changes {
            if let Change::DeleteClaim(claim) = change {
                state.lose(&claim);
            }
        }
        Ok(())
    }

    /// Does what follows from where a port is that had a silent device here.
    pub(super) async fn settle_silent(self: &Arc<Self>, id: PortId, was: &Standby, at: Whereabouts) -> Result<(), Error> {
        let claimed = self.reconciler.claim(|state| Ok((state.port(id)?.record.clone(), state.claim_port(id)?))).await;
        let (record, claim) = match claimed {
            Ok(claimed) => claimed,
            Err(Error::Inventory(inventory::Error::NoSuchPort(_))) => return Ok(()),
            Err(error) => return Err(error),
        };
        if record.standby.as_ref() != Some(was) || record.leaving() {
            return Ok(());
        }
        // Etcd may be older than what this host has noted: that another host has it.
        if at == Whereabouts::Here && !self.reconciler.lock().holds_all_of(&record) {
            return Ok(());
        }
        tracing::info!(port = %id, ?was, ?at, "where a port is that has a silent device here");
        match at {
            Whereabouts::Here => self.stay(record, claim).await,
            Whereabouts::There(host) => {
                let ones = self.reconciler.lock().needs_of(&record);
                let ones = ones.into_iter().map(|claim| Lent { claim, host: host.clone(), made: 0 }).collect();
                self.note_handed(id, host, ones).await
            }
            Whereabouts::Deleted => self.end_standby(record, &Context::default()).await,
        }
    }

    /// Has the silent devices of these ports go, if all of them are active on other hosts: none is a reason to keep what was deleted. False where
    /// one is active here.
    pub(super) async fn end_standbys(self: &Arc<Self>, ports: Vec<PortId>) -> bool {
        let records: Vec<Port> = {
            let state = self.reconciler.lock();
            ports.iter().filter_map(|id| state.ports.get(id)).map(|entry| entry.record.clone()).collect()
        };
        if records.is_empty() || !records.iter().all(Port::is_elsewhere) {
            return false;
        }
        for record in records.into_iter().filter(|record| !record.leaving()) {
            let id = record.id;
            let claimed: Result<_, Error> = self.reconciler.claim(|state| state.claim_port(id)).await;
            if let Err(error) = match claimed {
                Ok(_claim) => self.end_standby(record, &Context::default()).await,
                Err(error) => Err(error),
            } {
                tracing::warn!(port = %id, %error, "a silent device stays of a port whose network or group was deleted");
            }
        }
        true
    }

    /// Has a silent device go, and its server with it that has no other NIC here: it is where its NICs are. The caller has the claim on the
    /// port.
    pub(super) async fn end_standby(self: &Arc<Self>, record: Port, context: &Context) -> Result<(), Error> {
        let (record, server) = {
            let state = self.reconciler.lock();
            let server = record.binding.as_ref().and_then(|binding| state.servers.get(&binding.server_id));
            let last = server.filter(|entry| entry.ports.len() == 1 && !entry.record.leaving);
            let leaving = last.map(|entry| Server { leaving: true, ..entry.record.clone() });
            let record = departing(&record, AfterDetach::AsMade, context.force);
            (record, leaving.zip(last.and_then(|entry| entry.claim.take().ok())))
        };
        let beside = server.iter().map(|(server, _)| Change::PutServer(server.clone())).collect();
        self.begin_detach(vec![record], beside, context).await?;
        if let Some((server, claim)) = server {
            let mut state = self.reconciler.lock();
            let id = server.id;
            if let Some(entry) = state.servers.get_mut(&id) {
                (entry.record, entry.leaving) = (server, Some(claim));
            }
            self.reconciler.end_server_if_empty(&state, id);
        }
        Ok(())
    }
}

/// The server of a port that can move.
pub(super) fn movable(state: &Inventory, id: PortId) -> Result<ServerId, Error> {
    let record = &state.port(id)?.record;
    let refuse = |why| Err(Error::NotMovable { port: id, why });
    if record.standby.is_some() {
        return refuse("it is active on another host, or being moved there");
    }
    if state.check_in_no_trunk(id).is_err() {
        return refuse("it is in a trunk");
    }
    if !state.network(record.network_id)?.record.is_shared() {
        return refuse("its network is this host's alone (nicd:scope host)");
    }
    match record.attached_to() {
        Some(server) => Ok(server),
        None => refuse("it is attached to no server"),
    }
}
