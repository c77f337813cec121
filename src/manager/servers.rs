//! Servers: making them known, and forgetting them.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::action::{AfterDetach, NewGuest, NewServer, WithNics};
use crate::model::{Guest, NetnsPin, PortId, Server, ServerId};
use crate::store::{Change, Purpose};

use super::repair::check_pin;
use super::state::State;
use super::{Claimed, Context, Error, Manager, Reply, answered, view};

impl Manager {
    pub(super) async fn put_server(self: Arc<Self>, new: NewServer) -> Result<Reply, Error> {
        let pin = match &new.guest {
            NewGuest::Netns(path) => {
                let pin = self.pin(path.clone()).await?;
                self.refuse_another(new.id, &path.display().to_string(), pin).await?;
                Some(pin)
            }
            NewGuest::Vm { .. } => None,
        };
        let id = new.id;
        // An unknown server is nobody else's to claim: it is put in its place at once and taken out if it cannot be kept.
        let fresh = self
            .claim(|state| match claim_or_wait(state, id) {
                Err(Error::NoSuchServer(_)) => Ok(Claimed::Taken(true)),
                found => found.map(|claimed| match claimed {
                    Claimed::Taken(()) => Claimed::Taken(false),
                    Claimed::Busy(bell) => Claimed::Busy(bell),
                }),
            })
            .await?;
        let record = {
            let mut state = self.lock();
            match self.server_record(&state, new, pin) {
                Ok(record) => {
                    if fresh {
                        state.add_server(record.clone());
                        let _ = claim_or_wait(&mut state, id)?;
                    }
                    record
                }
                Err(error) => {
                    release(&mut state, id);
                    return Err(error);
                }
            }
        };
        let stored = self.commit(vec![Change::PutServer(record.clone())], Purpose::Growing).await;
        let mut state = self.lock();
        release(&mut state, id);
        match stored {
            Ok(()) => {
                if let Some(entry) = state.servers.get_mut(&id) {
                    entry.record = record;
                }
                let view = view::server(state.server(id)?);
                Ok(if fresh { Reply::NewServer(view) } else { Reply::Server(view) })
            }
            Err(error) => {
                if fresh {
                    state.servers.remove(&id);
                }
                Err(error.into())
            }
        }
    }

    async fn pin(&self, path: PathBuf) -> Result<NetnsPin, Error> {
        Ok(answered(self.hands.inspect(path)?).await??)
    }

    fn server_record(&self, state: &State, new: NewServer, pin: Option<NetnsPin>) -> Result<Server, Error> {
        let guest = match new.guest {
            NewGuest::Vm { queues, owner } => Guest::Vm { queues, owner },
            NewGuest::Netns(path) => Guest::Netns { path },
        };
        let now = Timestamp::now();
        let mut created_at = now;
        if let Some(entry) = state.servers.get(&new.id) {
            let (is, asked) = (entry.record.guest.kind(), guest.kind());
            if is != asked && !entry.ports.is_empty() {
                return Err(Error::KindChange { server: new.id, is, asked });
            }
            if let (Some(pin), Guest::Netns { path }) = (pin, &guest) {
                check_pin(state, new.id, pin, &path.display().to_string())?;
            }
            created_at = entry.record.created_at;
        }
        Ok(Server {
            id: new.id,
            name: new.name,
            project_id: new.project_id,
            guest,
            nic_limit: new.nic_limit,
            pin,
            created_at,
            updated_at: now,
        })
    }

    pub(super) async fn delete_server(self: Arc<Self>, id: ServerId, nics: WithNics, context: &Context) -> Result<Reply, Error> {
        let ports: Vec<PortId> = {
            let state = self.lock();
            state.nics(state.server(id)?).map(|port| port.record.id).collect()
        };
        if nics == WithNics::Refuse && !ports.is_empty() {
            return Err(Error::ServerHasNics { server: id, nics: ports.len() });
        }
        for port in ports {
            match Arc::clone(&self).detach(id, port, AfterDetach::AsMade, context).await {
                Ok(_) | Err(Error::NoSuchPort(_) | Error::PortNotOnServer { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.wait_for_devices(id).await?;
        let stored = self.commit(vec![Change::DeleteServer(id)], Purpose::Freeing).await;
        let mut state = self.lock();
        if let Err(error) = stored {
            release(&mut state, id);
            return Err(error.into());
        }
        state.servers.remove(&id);
        Ok(Reply::Done)
    }

    /// A leaving NIC's record still names its server, so the server goes when the last of them has gone. Takes the claim
    /// on the server.
    async fn wait_for_devices(&self, id: ServerId) -> Result<(), Error> {
        self.claim(|state| {
            let entry = state.server(id)?;
            let (nics, first) = (entry.ports.len(), entry.ports.first().copied());
            if state.nics(state.server(id)?).next().is_some() {
                return Err(Error::ServerHasNics { server: id, nics });
            }
            match first.and_then(|port| state.ports.get(&port)) {
                Some(leaving) => Ok(Claimed::Busy(leaving.claim.bell())),
                None => claim_or_wait(state, id),
            }
        })
        .await
    }
}

fn claim_or_wait(state: &mut State, id: ServerId) -> Result<Claimed<()>, Error> {
    let Some(entry) = state.servers.get_mut(&id) else { return Err(Error::NoSuchServer(id)) };
    Ok(match entry.claim.take() {
        Ok(()) => Claimed::Taken(()),
        Err(bell) => Claimed::Busy(bell),
    })
}

fn release(state: &mut State, id: ServerId) {
    if let Some(entry) = state.servers.get_mut(&id) {
        entry.claim.release();
    }
}
