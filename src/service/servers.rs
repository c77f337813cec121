//! Servers: making them known, and forgetting them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::clock;
use crate::inventory::{self, ClaimGuard, Inventory, PortClaims, Unclaimed};
use crate::kernel::{Found, NetnsError};
use crate::model::action::{AfterDetach, NewGuest, NewServer, WithNics};
use crate::model::{Guest, PortId, Server, ServerId, Standby};
use crate::plan::LinkState;
use crate::reconcile::{CLAIM_WAIT, answered, check_pin};
use crate::store::{Change, Purpose};

use super::detach::departing;
use super::{Context, Error, Reply, Service, view};

impl Service {
    pub(super) async fn put_server(self: Arc<Self>, new: NewServer) -> Result<Reply, Error> {
        let found = match &new.guest {
            NewGuest::Netns(path) => {
                let found = self.pin(path.clone()).await?;
                self.reconciler.refuse_another(new.id, &path.display().to_string(), found.pin).await?;
                Some(found)
            }
            NewGuest::Vm { .. } | NewGuest::AsIs => None,
        };
        let id = new.id;
        // An unknown server is put in its place, claimed, under the lock that found it unknown; it is taken out again when it
        // cannot be kept.
        let (record, fresh, _claim) = self
            .reconciler
            .claim(|state| {
                let known = state.servers.get(&id).map(|entry| entry.claim.take()).transpose()?;
                let record = self.server_record(state, new.clone(), found)?;
                if let Some(claim) = known {
                    return Ok((record, false, claim));
                }
                state.add_server(record.clone());
                Ok((record, true, state.claim_server(id)?))
            })
            .await?;
        let unchanged = !fresh && self.reconciler.lock().servers.get(&id).is_some_and(|entry| entry.record == record);
        let stored = match unchanged {
            true => Ok(()),
            false => self.reconciler.commit(vec![Change::PutServer(record.clone())], Purpose::Growing).await,
        };
        let mut state = self.reconciler.lock();
        match stored {
            Ok(()) => {
                let qmp = record.guest.qmp().cloned();
                if state.replace_server(record).is_some_and(|before| before.guest.qmp() != qmp.as_ref()) {
                    self.reconciler.machine_changed(&mut state, id);
                }
                let view = view::server(state.server(id)?, &self.reconciler.host);
                Ok(if fresh { Reply::NewServer(view) } else { Reply::Server(view) })
            }
            Err(error) => {
                if fresh {
                    state.remove_server(id);
                }
                Err(error.into())
            }
        }
    }

    async fn pin(&self, path: PathBuf) -> Result<Found, Error> {
        if self.reconciler.paths_hang() {
            self.reconciler.wait_for_path(&path).await?;
        }
        let found = answered(self.reconciler.kernel.inspect(path)?).await?;
        if let Err(NetnsError::Hanging(_)) = &found {
            self.reconciler.conditions().hung = Some(Instant::now());
        }
        Ok(found?)
    }

    fn server_record(&self, state: &Inventory, new: NewServer, found: Option<Found>) -> Result<Server, Error> {
        let registered = found.map(|found| (Some(found.pin), found.by_process)).unwrap_or_default();
        let (guest, (pin, by_process)) = match new.guest {
            NewGuest::Vm { queues, owner, monitor } => (Guest::Vm { queues, owner, monitor }, registered),
            NewGuest::Netns(path) => (Guest::Netns { path }, registered),
            NewGuest::AsIs => {
                let known = &state.server(new.id)?.record;
                (known.guest.clone(), (known.pin, known.by_process))
            }
        };
        let now = clock::now();
        let mut record = Server {
            id: new.id,
            name: new.name,
            project_id: new.project_id,
            guest,
            nic_limit: new.nic_limit,
            pin,
            by_process,
            leaving: false,
            created_at: now,
            updated_at: now,
        };
        if let Some(entry) = state.servers.get(&new.id) {
            let (is, asked) = (entry.record.guest.kind(), record.guest.kind());
            if is != asked && !entry.ports.is_empty() {
                return Err(Error::KindChange { server: new.id, is, asked });
            }
            if entry.record.guest.qmp().is_some_and(|qmp| record.guest.qmp() != Some(qmp)) {
                let nics = entry.ports.iter().filter(|port| state.have.device(**port).is_some_and(LinkState::is_held)).count();
                if nics > 0 {
                    return Err(Error::MonitorInUse { server: new.id, nics });
                }
            }
            if let (Some(found), Guest::Netns { path }) = (found, &record.guest) {
                check_pin(state, new.id, found.pin, &path.display().to_string())?;
            }
            record.created_at = entry.record.created_at;
            let same = Server { updated_at: entry.record.updated_at, ..record.clone() };
            if same == entry.record {
                return Ok(same);
            }
        }
        Ok(record)
    }

    /// Forgets a server and lets its NICs go: durable in one commit, so that a death leaves all of it or nothing. The
    /// record goes last, as a leaving NIC's names it.
    pub(super) async fn delete_server(self: Arc<Self>, id: ServerId, nics: WithNics, context: &Context) -> Result<Reply, Error> {
        if context.force {
            self.force_leaving(id, context).await?;
        }
        // One that leaves already has its claim until its end.
        let leaving = {
            let state = self.reconciler.lock();
            let entry = state.server(id)?;
            entry.record.leaving.then(|| entry.claim.ended())
        };
        if let Some(ended) = leaving {
            let _ = tokio::time::timeout(CLAIM_WAIT, ended).await;
            return Ok(Reply::Done);
        }
        let (server, ports, sub_ports) = self.reconciler.claim(|state| claim_with_nics(state, id, nics)).await?;
        self.begin_leaving(id, server, &ports, context).await?;
        drop((ports, sub_ports));
        let ended = {
            let state = self.reconciler.lock();
            self.reconciler.end_server_if_empty(&state, id);
            state.servers.get(&id).map(|entry| entry.claim.ended())
        };
        // It is told of at once when the kernel takes longer than a moment: the rest follows by itself.
        if let Some(ended) = ended {
            let _ = tokio::time::timeout(CLAIM_WAIT, ended).await;
        }
        Ok(Reply::Done)
    }

    /// Has the devices of a server's leaving NICs go that processes hold open.
    async fn force_leaving(self: &Arc<Self>, id: ServerId, context: &Context) -> Result<(), Error> {
        let ports: Vec<PortId> = self.reconciler.lock().server(id)?.ports.iter().copied().collect();
        for port in ports {
            match self.force(port, context).await {
                Ok(()) | Err(Error::Inventory(inventory::Error::NoSuchPort(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn begin_leaving(
        self: &Arc<Self>,
        id: ServerId,
        server: ClaimGuard,
        ports: &PortClaims,
        context: &Context,
    ) -> Result<(), Error> {
        let (record, leaving) = {
            let state = self.reconciler.lock();
            let mut record = state.server(id)?.record.clone();
            record.leaving = true;
            let leaving = ports
                .iter()
                .map(|(port, _)| state.port(*port).map(|entry| departing(&entry.record, AfterDetach::AsMade, context.force)));
            (record, leaving.collect::<Result<Vec<_>, _>>()?)
        };
        self.begin_detach(leaving, vec![Change::PutServer(record.clone())], context).await?;
        if let Some(entry) = self.reconciler.lock().servers.get_mut(&id) {
            (entry.record, entry.leaving) = (record, Some(server));
        }
        Ok(())
    }
}

/// Claims a server, every NIC of it that is to stay, and the subports that these carry: all at once, or none and a wait for a claim that another operation has.
fn claim_with_nics(
    state: &Inventory,
    id: ServerId,
    nics: WithNics,
) -> Result<(ClaimGuard, PortClaims, PortClaims), Unclaimed<Error>> {
    let ports: Vec<PortId> = state.nics(state.server(id)?).map(|port| port.record.id).collect();
    if nics == WithNics::Refuse && !ports.is_empty() {
        return Err(Error::ServerHasNics { server: id, nics: ports.len() }.into());
    }
    let handed =
        |id: &&PortId| matches!(state.ports.get(id).and_then(|port| port.record.standby.as_ref()), Some(Standby::HandedTo(_)));
    if let Some(port) = ports.iter().find(handed) {
        return Err(Error::NotMovable { port: *port, why: "it is being moved to another host already" }.into());
    }
    let sub_ports = ports.iter().flat_map(|port| state.carried(*port)).collect::<Vec<_>>();
    let server = state.claim_server(id)?;
    let sub_ports: PortClaims = state.claim_ports(sub_ports)?;
    Ok((server, state.claim_ports(ports)?, sub_ports))
}
