//! Moving a port from host to host: what is done where it is active, and what where it moves to. What goes between them is in
//! [`fleet::moving`](crate::fleet::moving).

use std::sync::Arc;

use crate::clock;
use crate::fleet::member::MemberError;
use crate::fleet::moving::HandedOver;
use crate::inventory::Inventory;
use crate::kernel::exec::Timing;
use crate::model::action::{CallRef, NewGuest, NewServer, WithNics};
use crate::model::idempotency::{CallerId, Key, Made};
use crate::model::{Binding, Guest, Handed, Held, Intent, Phase, PhaseEvent, Port, PortId, Prepare, Server, ServerId, Standby};
use crate::plan::Reason;
use crate::store::{Change, Purpose};

use super::attach::{Before, Bound};
use super::standby::movable;
use super::view::read;
use super::{Context, Error, Known, PortView, Reply, Service, view};

/// What is done where a port is active.
impl Service {
    /// Makes a port active on another host, which has a silent device for it.
    pub(super) async fn activate(self: Arc<Self>, id: PortId, to: String) -> Result<Reply, Error> {
        if to == self.host() {
            movable(&self.reconciler.lock(), id)?;
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
        let there = fleet.bindings(id).await?.into_iter().filter_map(read::<PortView>).find(|view| view.host == to);
        let Some(there) = there else { return Err(Error::NoSuchBinding { port: id, host: to }) };
        let server = there.binding.map(|binding| binding.server);
        let built = (there.port.mac, &there.port.fixed_ips, &there.port.groups);
        if server != before.attached_to() || built != (before.mac, &before.fixed_ips, &before.groups) {
            let why = "it has changed since its device there was built: delete that binding, and make it again";
            return Err(Error::NotMovable { port: id, why });
        }
        if !fleet.is_alive(&to).await? {
            return Err(Error::HostSilent { host: to, port: None });
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
                let is_known = match &error {
                    MemberError::Etcd(error) => !error.may_be_done(),
                    MemberError::NotNoted(_) | MemberError::OtherEpoch => false,
                    _ => true,
                };
                if is_known {
                    self.stay(before, claim).await?;
                }
                Err(error.into())
            }
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
        {
            let mut state = self.reconciler.lock();
            let (readiness, why) = self.reconciler.readiness(&state, id);
            self.reconciler.transition(&mut state, id, PhaseEvent::Built(readiness), why, context);
        }
        self.in_fleet()?.until_told(id, false).await;
        let mut state = self.reconciler.lock();
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
        self.check_filter(state, port)?;
        self.room_for(state, server)?;
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
            tracing::warn!(port = %id, made, ?epoch, ?registration, "a port that was handed to this host is not its any more");
            return Ok(Reply::Done);
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
        let back = held.iter().map(|one| Change::DeleteLent(one.claim));
        let changes = held.iter().copied().map(Change::PutClaim).chain(back).chain([put]).chain(remembered);
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
        self.in_fleet()?.until_told(id, true).await;
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
