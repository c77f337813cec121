//! What is another host's of the fleet: ports and servers that are shown here, and requests that are passed on.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::standby::movable;
use super::view::read;
use super::{Binding, Context, Error, PortView, ServerView, Service};
use crate::fleet::calls::NotAnswered;
use crate::fleet::elsewhere::Wanted;
use crate::inventory;
use crate::model::action::Action;
use crate::model::{GuestTold, Limits, Mac, NetworkId, Origin, Phase, Port, PortId, Prepare, Profile, ServerId};

pub use crate::fleet::calls::{Answer, Asks, Call, NewPort as NewPortOfCall, Request as PassedRequest};

impl Service {
    /// Whether this host has the port or the server with this id. A port that is active on another host is there.
    pub fn has_here(&self, id: Uuid) -> bool {
        let state = self.reconciler.lock();
        state.ports.get(&PortId(id)).is_some_and(|entry| !entry.record.is_elsewhere())
            || state.servers.contains_key(&ServerId(id))
    }

    /// The other host that has it; none if no other one has.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn host_of(&self, id: Uuid) -> Result<Option<String>, Error> {
        let fleet = self.in_fleet()?;
        fleet.check_connected()?;
        Ok(fleet.host_of(id).await?)
    }

    /// The ports of other hosts, among them those that are to be made there. None without a fleet.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn ports_elsewhere(&self, wanted: Wanted) -> Result<Vec<PortView>, Error> {
        let Some(fleet) = self.fleet.get() else { return Ok(Vec::new()) };
        fleet.check_connected()?;
        let views = fleet.ports_elsewhere(&wanted).await?.into_iter().filter_map(read::<PortView>);
        let mut all: Vec<PortView> = views.collect();
        let waiting = fleet.waiting_ports().await?.into_iter().filter_map(|(host, call)| to_be_made(host, &call));
        all.extend(waiting.filter(|view| match &wanted {
            Wanted::All => true,
            Wanted::One(port) => view.port.id == *port,
            Wanted::Network(network) => view.port.network_id == *network,
            Wanted::Server(server) => view.binding.as_ref().is_some_and(|binding| binding.server == *server),
            Wanted::Host(host) => view.host == *host,
        }));
        Ok(all)
    }

    /// The servers of other hosts. None without a fleet.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn servers_elsewhere(&self) -> Result<Vec<ServerView>, Error> {
        let Some(fleet) = self.fleet.get() else { return Ok(Vec::new()) };
        fleet.check_connected()?;
        Ok(fleet.servers_elsewhere().await?.into_iter().filter_map(read).collect())
    }

    /// A call of this host's.
    pub fn new_call(
        &self,
        caller: String,
        request_id: Option<Uuid>,
        request: PassedRequest,
        makes: Option<NewPortOfCall>,
    ) -> Call {
        Call::new(self.host().to_owned(), caller, request_id, Asks::Request { request, makes })
    }

    /// The bindings of a port: the active one, and those of hosts that have silent devices for it.
    ///
    /// # Errors
    /// There is no such port, or etcd does not answer.
    pub async fn bindings(&self, id: PortId) -> Result<Vec<PortView>, Error> {
        let active = match self.active_port(id).ok() {
            Some(view) => view,
            None => {
                let elsewhere = self.ports_elsewhere(Wanted::One(id)).await?;
                elsewhere.into_iter().next().ok_or(inventory::Error::NoSuchPort(id))?
            }
        };
        let mut all: Vec<PortView> = Some(active).into_iter().filter(|view| view.binding.is_some()).collect();
        if let Some(fleet) = self.fleet.get() {
            fleet.check_connected()?;
            let silent = fleet.bindings(id).await?.into_iter().filter_map(read::<PortView>);
            // A host that has it now may not have told so yet.
            let hosts: Vec<String> = all.iter().map(|active| active.host.clone()).collect();
            all.extend(silent.filter(|view| !hosts.contains(&view.host)));
        }
        Ok(all)
    }

    /// The call that has another host build a silent device for a port of this one.
    ///
    /// # Errors
    /// There is no such host or port, the host has the port already, or it is one that stays where it is.
    pub async fn call_to_prepare(&self, id: PortId, host: &str, caller: String) -> Result<Call, Error> {
        movable(&self.reconciler.lock(), id)?;
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

    /// Has another host carry a call out.
    ///
    /// # Errors
    /// It is silent, or etcd does not answer.
    pub async fn call(&self, host: &str, call: &Call) -> Result<Answer, Error> {
        self.in_fleet()?.call(host, call).await.map_err(|error| match error {
            NotAnswered::Silent => Error::HostSilent { host: host.to_owned(), port: call.makes().map(|_| PortId(call.id)) },
            NotAnswered::NotAsked => Error::HostSilent { host: host.to_owned(), port: None },
            NotAnswered::Unreachable(error) => error.into(),
        })
    }

    /// Withdraws the making of a port at another host. False if there is no such.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn withdraw(&self, port: PortId) -> Result<bool, Error> {
        Ok(self.in_fleet()?.withdraw(port).await?)
    }

    /// The next call of another host's. None without a fleet.
    pub async fn next_call(&self) -> Option<Call> {
        self.fleet.get()?.next_call().await
    }

    /// Answers a call. What it has made is taken back if it was withdrawn meanwhile.
    pub async fn answer_call(self: &Arc<Self>, call: &Call, answer: &Answer) {
        let Some(fleet) = self.fleet.get() else { return };
        match fleet.answer(call, answer).await {
            Ok(true) => {}
            Ok(false) => {
                let made = PortId(call.id);
                // A silent device that nobody waits for any more stays, and can be used.
                if call.makes().is_some() && self.port(made).is_ok() {
                    tracing::info!(port = %made, "the client has withdrawn it");
                    let deleted = self.perform(Action::DeletePort(made), Context::default()).await;
                    if let Err(error) = deleted {
                        tracing::warn!(port = %made, %error, "a port that its client has withdrawn stays");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, host = call.from, "a call could not be answered; it is carried out again"),
        }
    }
}

/// The port that a call makes once it is carried out.
fn to_be_made(host: String, call: &Call) -> Option<PortView> {
    let makes = call.makes()?;
    let network_id = makes.network.unwrap_or(NetworkId(Uuid::nil()));
    let at = call.at;
    let port = Port {
        id: PortId(call.id),
        network_id,
        name: String::new(),
        description: String::new(),
        project_id: String::new(),
        mac: Mac([0; 6]),
        fixed_ips: Vec::new(),
        admin_up: true,
        unknown_unicast: false,
        port_security: true,
        address_pairs: Vec::new(),
        groups: BTreeSet::new(),
        limits: Limits::default(),
        isolated: None,
        told: GuestTold::default(),
        device_owner: String::new(),
        profile: Profile::default(),
        origin: Origin::Attach,
        binding: None,
        standby: None,
        created_at: at,
        updated_at: at,
        revision_number: 1,
    };
    let binding = Binding {
        server: makes.server,
        tap: None,
        carrier: None,
        bridge: None,
        device: None,
        mtu: 0,
        guest_device: None,
        nic: None,
    };
    let reason = Some("host_silent".to_owned());
    Some(PortView { port, phase: Phase::Building, reason, binding: Some(binding), trunk: None, host })
}
