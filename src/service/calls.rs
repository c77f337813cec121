//! What is another host's of the fleet: ports and servers that are shown here, and requests that are passed on.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::{Binding, Context, Error, PortView, ServerView, Service};
use crate::fleet::calls::NotAnswered;
use crate::fleet::elsewhere::Wanted;
use crate::model::action::Action;
use crate::model::{GuestTold, Limits, Mac, NetworkId, Origin, Phase, Port, PortId, Profile, ServerId};

pub use crate::fleet::calls::{Answer, Asks, Call, NewPort as NewPortOfCall, Request as PassedRequest};

impl Service {
    /// Whether this host has the port or the server with this id. A port that is active on another host is there.
    pub fn has_here(&self, id: Uuid) -> bool {
        let state = self.reconciler.lock();
        state.ports.get(&PortId(id)).is_some_and(|entry| entry.record.standby.is_none())
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
                if let Asks::Prepare(prepare) = &call.asks {
                    // The other host waits no more.
                    let deleted = self.perform(Action::DeleteBinding(prepare.port.id), Context::default()).await;
                    tracing::info!(port = %prepare.port.id, ?deleted, "a binding that was asked for is not wanted any more");
                } else if call.makes().is_some() && self.port(made).is_ok() {
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

pub(super) fn read<T: serde::de::DeserializeOwned>(view: serde_json::Value) -> Option<T> {
    serde_json::from_value(view)
        .inspect_err(|error| tracing::warn!(%error, "what another host shows cannot be read; upgrade this one"))
        .ok()
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
