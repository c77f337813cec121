//! Moving a port from host to host: what is done where it is active, and what where it moves to. What goes between them is in
//! [`fleet::moving`](crate::fleet::moving).

use std::sync::Arc;

use crate::clock;
use crate::fleet::calls::Asks;
use crate::fleet::etcd::Error as EtcdError;
use crate::fleet::member::MemberError;
use crate::fleet::moving::{HandedOver, Whereabouts};
use crate::inventory::{self, ClaimGuard, Inventory};
use crate::kernel::exec::Timing;
use crate::model::action::{AfterDetach, CallRef, NewGuest, NewServer, WithNics};
use crate::model::idempotency::{CallerId, Key, Made};
use crate::model::{
    Binding, Guest, Handed, Held, Intent, Lent, Phase, PhaseEvent, Port, PortId, Prepare, Server, ServerId, Standby,
};
use crate::plan::Reason;
use crate::store::{Change, Purpose};

use super::attach::{Before, Bound};
use super::calls::read;
use super::detach::departing;
use super::{Call, Context, Error, Known, PortView, Reply, Service, WantedElsewhere, view};

/// What is done where a port is active.
impl Service {
    /// The bindings of a port: the active one, and those of hosts that have silent devices for it.
    ///
    /// # Errors
    /// There is no such port, or etcd does not answer.
    pub async fn bindings(&self, id: PortId) -> Result<Vec<PortView>, Error> {
        let active = match self.port(id).ok().filter(|view| view.port.standby.is_none()) {
            Some(view) => view,
            None => {
                let elsewhere = self.ports_elsewhere(WantedElsewhere::One(id)).await?;
                elsewhere.into_iter().next().ok_or(inventory::Error::NoSuchPort(id))?
            }
        };
        let mut all: Vec<PortView> = Some(active).into_iter().filter(|view| view.binding.is_some()).collect();
        if let Some(fleet) = self.fleet.get() {
            fleet.check_connected()?;
            all.extend(fleet.bindings(id).await?.into_iter().filter_map(read::<PortView>));
        }
        Ok(all)
    }

    /// The call that has another host build a silent device for a port of this one.
    ///
    /// # Errors
    /// There is no such host or port, the host has the port already, or it is one that stays where it is.
    pub async fn call_to_prepare(&self, id: PortId, host: &str, caller: String) -> Result<Call, Error> {
        if host == self.host() {
            return Err(Error::BindingExists { port: id, host: host.to_owned() });
        }
        self.host_named(host).await?;
        let prepare = {
            let state = self.reconciler.lock();
            let server = movable(&state, id)?;
            let (port, server) = (state.port(id)?.record.clone(), state.server(server)?.record.clone());
            Prepare { port, server, active_on: self.host().to_owned() }
        };
        Ok(Call::new(self.host().to_owned(), caller, None, Asks::Prepare(Box::new(prepare))))
    }

    /// Makes a port active on another host, which has a silent device for it.
    pub(super) async fn activate(self: Arc<Self>, id: PortId, to: String) -> Result<Reply, Error> {
        if to == self.host() {
            self.active_port(id)?;
            return Err(Error::BindingActive { port: id, host: to });
        }
        let Some(fleet) = self.fleet.get() else { return Err(Error::NoSuchBinding { port: id, host: to }) };
        fleet.check_connected()?;
        let (before, claim) = self
            .reconciler
            .claim(|state| {
                movable(state, id)?;
                Ok((state.port(id)?.record.clone(), state.claim_port(id)?))
            })
            .await?;
        if !fleet.has_binding(id, &to).await? {
            return Err(Error::NoSuchBinding { port: id, host: to });
        }
        // From here on it moves, whatever dies.
        self.put_durable(Port { standby: Some(Standby::HandedTo(to.clone())), ..before.clone() }).await?;
        if let Err(failed) = self.reconciler.build(id, Reason::Drift, Vec::new(), Timing::Off).await {
            self.stay(before, claim).await?;
            return Err(failed.error);
        }
        match fleet.hand_over(&self, &before, &to).await {
            Ok(HandedOver::Done(answer)) => {
                drop(claim);
                self.reconciler.evaluate(&mut self.reconciler.lock(), id, Reason::Drift);
                // It takes the port when it is back, if it is away.
                let answer = answer.answer().await;
                let shown = answer.and_then(|answer| serde_json::from_str(&answer.body).ok()).and_then(read::<PortView>);
                shown.map(|view| Reply::Port(Box::new(view))).ok_or(Error::HostSilent { host: to, port: None })
            }
            Ok(HandedOver::Refused) => {
                self.stay(before, claim).await?;
                Err(Error::NoSuchBinding { port: id, host: to })
            }
            Err(error) => {
                // What etcd may have done is seen at the next join, which begins at once; until then the device stays silent.
                let is_known =
                    !matches!(error, MemberError::Etcd(EtcdError::Unknown(_) | EtcdError::Full(_)) | MemberError::NotNoted(_));
                if is_known {
                    self.stay(before, claim).await?;
                }
                Err(error.into())
            }
        }
    }

    /// A port is not handed over after all.
    async fn stay(&self, port: Port, claim: ClaimGuard) -> Result<(), Error> {
        let id = port.id;
        self.put_durable(Port { standby: None, ..port }).await?;
        drop(claim);
        self.reconciler.evaluate(&mut self.reconciler.lock(), id, Reason::Drift);
        Ok(())
    }

    async fn put_durable(&self, port: Port) -> Result<(), Error> {
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
        let Ok((record, claim)) = claimed else { return Ok(()) };
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
}

/// What is done where a port is to be active.
impl Service {
    /// Builds a silent device for a port that is active on another host.
    pub(super) async fn prepare(self: Arc<Self>, prepare: Prepare, context: &Context) -> Result<Reply, Error> {
        // What it needs may have been defined just now; what is missing after a while is told below.
        self.in_fleet()?.until_followed(|| knows_what_it_needs(&self.reconciler.lock(), &prepare.port)).await;
        let (id, network) = (prepare.port.id, prepare.port.network_id);
        self.reconciler.look_at_existing_bridge(network).await?;
        let server = prepare.server.id;
        let is_copied = !self.reconciler.lock().servers.contains_key(&server);
        if is_copied {
            Arc::clone(&self).put_server(as_there(&prepare.server)).await?;
        }
        let prepared = self.build_silent(&prepare, server, network, context).await;
        if prepared.is_err() && is_copied {
            // Another NIC of it may have come meanwhile.
            let _ = Arc::clone(&self).delete_server(server, WithNics::Refuse, context).await;
        }
        prepared?;
        let mut state = self.reconciler.lock();
        let (readiness, why) = self.reconciler.readiness(&state, id);
        self.reconciler.transition(&mut state, id, PhaseEvent::Built(readiness), why, context);
        let view = view::port(&state, id, &self.reconciler.host)?;
        self.reconciler.evaluate(&mut state, id, Reason::Drift);
        Ok(Reply::Port(Box::new(view)))
    }

    async fn build_silent(
        self: &Arc<Self>,
        prepare: &Prepare,
        server: ServerId,
        network: crate::model::NetworkId,
        context: &Context,
    ) -> Result<(), Error> {
        let id = prepare.port.id;
        let claim = self
            .reconciler
            .claim(|state| {
                state.server(server)?.claim.check_free()?;
                state.network(network)?.claim.check_free()?;
                state.check_groups(&prepare.port.groups)?;
                let record = self.silent(state, prepare, server)?;
                state.add_port(record, Phase::Building);
                if let Some(entry) = state.ports.get_mut(&id) {
                    // Its addresses are in use, by itself.
                    entry.neighbours.is_unasked = false;
                }
                state.claim_port(id)
            })
            .await?;
        match self.reconciler.build(id, Reason::Attach, Vec::new(), Timing::Off).await {
            Ok(_) => Ok(()),
            Err(failed) => {
                let bound = Bound { port: id, before: Before::Nothing, sub_ports: Vec::new(), claims: (claim, Vec::new()) };
                Err(self.roll_back(bound, failed, context).await)
            }
        }
    }

    /// The record of a silent device.
    fn silent(&self, state: &Inventory, prepare: &Prepare, server: ServerId) -> Result<Port, Error> {
        let port = &prepare.port;
        if let Some(there) = state.ports.get(&port.id) {
            return Err(match there.record.standby {
                Some(_) => Error::BindingExists { port: port.id, host: self.host().to_owned() },
                None => Error::IdTaken(port.id.0),
            });
        }
        let network = &state.network(port.network_id)?.record;
        if !network.is_shared() {
            return Err(Error::NotMovable { port: port.id, why: "its network is another host's alone" });
        }
        state.check_room_for(port)?;
        let entry = state.server(server)?;
        let binding = Binding {
            server_id: server,
            ordinal: state.free_ordinal(entry),
            intent: Intent::Attached,
            commit: self.reconciler.store.next_commit(),
            guest_device: None,
            releasing: Vec::new(),
            unproven: false,
            tap: entry.record.guest.tap(),
            forced: false,
            tag: port.binding.as_ref().and_then(|binding| binding.tag.clone()),
            carrier: None,
        };
        let standby = Some(Standby::ActiveOn(prepare.active_on.clone()));
        Ok(Port { binding: Some(binding), standby, ..port.clone() })
    }

    /// Has a port from now on that was handed to this host: puts its device to work, and tells where it is. Once, also where it was not told
    /// that this was done.
    pub(super) async fn take(self: Arc<Self>, handed: Handed, call: &CallRef, context: &Context) -> Result<Reply, Error> {
        let key = Key { caller: CallerId::Client(call.from.as_str().into()), key: format!("call {}", call.id) };
        match self.recollect(&key, "take") {
            Known::New => {}
            Known::Underway(_) => return Err(Error::Busy("the port is being taken")),
            Known::Answered(_) | Known::Made(_) | Known::Mismatch => return Ok(Reply::Done),
        }
        let taken = self.take_once(handed, call.made, &key, context).await;
        match &taken {
            Ok(_) => self.end_key(&key),
            Err(_) => self.forget_key(&key).await,
        }
        taken
    }

    async fn take_once(self: &Arc<Self>, handed: Handed, made: i64, key: &Key, context: &Context) -> Result<Reply, Error> {
        let Handed { port, claims, epoch } = handed;
        let (id, network) = (port.id, port.network_id);
        // One of before a backup of etcd was put back is carried out already, or the port has moved on since. What this host had when it joined,
        // and does not have any more, it has given back.
        let registration = self.in_fleet()?.registration()?;
        let is_noted = {
            let state = self.reconciler.lock();
            claims.iter().all(|one| state.has_noted(one))
        };
        if registration.epoch != epoch || !is_noted && made <= registration.seen {
            return Err(inventory::Error::NoSuchPort(id).into());
        }
        let claims = if is_noted { Vec::new() } else { claims };
        let held: Vec<Held> = claims.into_iter().map(|claim| Held { claim, made, epoch }).collect();
        let (record, claim) = self
            .reconciler
            .claim(|state| {
                if !state.ports.contains_key(&id) {
                    state.check_room_for(&port)?;
                    // Without a device it has no server; it is attached anew.
                    state.add_port(Port { binding: None, ..port.clone() }, Phase::Unbound);
                }
                let claim = state.claim_port(id)?;
                let mut binding = state.port(id)?.record.binding.clone();
                // It is not deleted with a device that was to go.
                for binding in binding.iter_mut().filter(|binding| binding.intent == Intent::Deleting) {
                    binding.intent = Intent::Detaching;
                }
                let revision_number = port.revision_number + 1;
                Ok((Port { binding, standby: None, revision_number, updated_at: clock::now(), ..port.clone() }, claim))
            })
            .await?;
        let remembered = self.cache().made(key, vec![Made::Port(id)]).map(|one| Change::Remember(Box::new(one)));
        let put = Change::PutPort(Box::new(record.clone()));
        let changes = held.iter().copied().map(Change::PutClaim).chain([put]).chain(remembered);
        self.reconciler.commit(changes.collect(), Purpose::Growing).await?;
        let (mac, is_attached) = (record.mac, record.attached_to().is_some());
        {
            let mut state = self.reconciler.lock();
            state.replace_port(record);
            for one in held {
                state.hold(one);
            }
            if let Some(entry) = state.ports.get_mut(&id) {
                entry.neighbours.is_unannounced = is_attached;
            }
        }
        self.reconciler.remove_remote(network, mac);
        drop(claim);
        if is_attached {
            self.reconciler.repair(id, Reason::Drift).await;
        }
        let mut state = self.reconciler.lock();
        self.reconciler.evaluate(&mut state, id, Reason::Drift);
        tracing::info!(port = %id, request_id = context.request_id.as_deref(), "a port has moved to this host");
        Ok(Reply::Port(Box::new(view::port(&state, id, &self.reconciler.host)?)))
    }

    /// Removes the silent device of a port on this host.
    pub(super) async fn delete_binding(self: Arc<Self>, id: PortId, context: &Context) -> Result<Reply, Error> {
        let (record, _claim) = self
            .reconciler
            .claim(|state| {
                let record = state.port(id)?.record.clone();
                match record.standby {
                    Some(Standby::ActiveOn(_)) => Ok((record, state.claim_port(id)?)),
                    Some(Standby::HandedTo(_)) | None => {
                        Err(Error::BindingActive { port: id, host: self.host().to_owned() }.into())
                    }
                }
            })
            .await?;
        if !record.leaving() {
            self.end_standby(record, context).await?;
        }
        Ok(Reply::Done)
    }

    /// Has a silent device go, and its server with it that has no other NIC here: it is where its NICs are. The caller has the claim on the
    /// port.
    async fn end_standby(self: &Arc<Self>, record: Port, context: &Context) -> Result<(), Error> {
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
fn movable(state: &Inventory, id: PortId) -> Result<ServerId, Error> {
    let record = &state.port(id)?.record;
    let refuse = |why| Err(Error::NotMovable { port: id, why });
    if record.standby.is_some() {
        return refuse("it is active on another host, or being moved there");
    }
    state.check_in_no_trunk(id)?;
    if !state.network(record.network_id)?.record.is_shared() {
        return refuse("its network is this host's alone (nicd:scope host)");
    }
    match record.attached_to() {
        Some(server) => Ok(server),
        None => refuse("it is attached to no server"),
    }
}

/// Whether the network, the subnets and the security groups of another host's port are known here.
fn knows_what_it_needs(state: &Inventory, port: &Port) -> bool {
    let has_subnets = port.fixed_ips.iter().all(|ip| state.subnet(ip.subnet_id).is_ok());
    state.network(port.network_id).is_ok() && has_subnets && port.groups.iter().all(|group| state.group(*group).is_ok())
}

/// A server as another host has it.
fn as_there(server: &Server) -> NewServer {
    let guest = match &server.guest {
        Guest::Vm { queues, owner, monitor } => NewGuest::Vm { queues: *queues, owner: *owner, monitor: monitor.clone() },
        Guest::Netns { path } => NewGuest::Netns(path.clone()),
    };
    NewServer {
        id: server.id,
        name: server.name.clone(),
        project_id: server.project_id.clone(),
        guest,
        nic_limit: server.nic_limit,
    }
}
