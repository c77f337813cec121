//! The hosts of the fleet. A nicd without a fleet is the only host of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{Error, HostView, PortView, Service, view};
use crate::clock;
use crate::fleet::agent::{Fleet, Local, Status};
use crate::fleet::member::{ForgetError, MemberError};
use crate::fleet::moving::Whereabouts;
use crate::fleet::published::{Published, Told};
use crate::fleet::remotes::{RemoteChange, RemotePort};
use crate::inventory::usable;
use crate::model::definition::{Definition, DefinitionName};
use crate::model::pools::Range;
use crate::model::{
    Claim, Held, Lent, MemberChange, Need, NetworkId, Port, PortId, PublishedId, Registration, Standby, SubnetId,
};
use crate::plan::{Overlay, Reason, Remote};
use crate::reconcile::Finding;
use crate::store::{Change, Purpose};
use crate::telemetry::meters;

/// How this host stands in its fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FleetView {
    /// Whether it reaches it.
    #[serde(flatten)]
    pub status: Status,
    /// The addresses that it alone may give, by network.
    pub reserved: Vec<Reserved>,
}

/// The addresses of a network that this host alone may give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reserved {
    /// The network.
    pub network_id: NetworkId,
    /// How many.
    pub addresses: usize,
    /// How many of them no port has.
    pub free: u128,
}

impl Service {
    /// Makes this host one of a fleet. Done once, before requests are served.
    pub fn enter_fleet(&self, fleet: Arc<Fleet>) {
        // A second one would be a slip of the daemon's start.
        let _ = self.fleet.set(fleet);
    }

    /// Whether this host is in a fleet.
    pub fn is_in_fleet(&self) -> bool {
        self.fleet.get().is_some()
    }

    /// How this host stands in its fleet; none without one.
    pub fn fleet(&self) -> Option<FleetView> {
        let status = self.fleet.get()?.status();
        let reserved = self.reconciler.lock().reserved();
        let reserved = reserved.into_iter().map(|(network_id, (addresses, free))| Reserved { network_id, addresses, free });
        Some(FleetView { status, reserved: reserved.collect() })
    }

    /// The hosts of the fleet, by name.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn hosts(&self) -> Result<Vec<HostView>, Error> {
        match self.fleet.get() {
            Some(fleet) => Ok(fleet.hosts(None).await?),
            None => Ok(vec![self.only_host()]),
        }
    }

    /// The host of this name.
    ///
    /// # Errors
    /// There is none, or etcd does not answer.
    pub async fn host_named(&self, name: &str) -> Result<HostView, Error> {
        let found = match self.fleet.get() {
            Some(fleet) => fleet.hosts(Some(name)).await?,
            None => vec![self.only_host()],
        };
        found.into_iter().find(|host| host.id == name).ok_or_else(|| Error::NoSuchHost(name.to_owned()))
    }

    /// Takes a host out of the fleet that is not alive, with all that it claims.
    ///
    /// # Errors
    /// There is none, it is alive, or etcd does not answer.
    pub async fn forget_host(&self, name: &str) -> Result<(), Error> {
        match self.fleet.get() {
            _ if self.host() == name => Err(Error::HostAlive(name.to_owned())),
            Some(fleet) if fleet.forget(name).await? => Ok(()),
            _ => Err(Error::NoSuchHost(name.to_owned())),
        }
    }

    fn only_host(&self) -> HostView {
        let now = clock::second();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let uptime = Duration::from_secs(self.reconciler.started.elapsed().as_secs());
        let since = now.saturating_sub(uptime).unwrap_or(now);
        HostView {
            id: self.host().to_owned(),
            alive: true,
            version,
            tunnel: None,
            ports: Local::ports(self),
            since,
            last_seen: now,
        }
    }
}

impl Local for Service {
    fn ports(&self) -> usize {
        self.reconciler.lock().ports.len()
    }

    fn tell(&self, status: &Status) {
        meters().fleet_connected(status.connected);
        let trouble = status.trouble.as_ref().filter(|_| !status.connected);
        self.reconciler.note_fleet(trouble.map(|why| {
            Finding::new(
                format!("fleet '{}' cannot be reached: {why}", status.name),
                "see that etcd runs at fleet.endpoints and takes this host's certificate or password; what is on this host goes on",
            )
        }));
    }

    fn claims(&self) -> Vec<Held> {
        let state = self.reconciler.lock();
        state.claims().into_iter().chain(state.unclaimed()).collect()
    }

    async fn join(
        self: Arc<Self>,
        registration: Registration,
        held: Vec<Held>,
        lost: Vec<(Held, String)>,
        lent: Vec<Lent>,
    ) -> Result<(), String> {
        let (before, lent_before) = {
            let state = self.reconciler.lock();
            (state.claims(), state.lent())
        };
        let back = lent_before.iter().filter(|one| lent.iter().all(|other| other.claim != one.claim));
        let back: Vec<Change> = back.map(|one| Change::DeleteLent(one.claim)).collect();
        let newly: Vec<Change> = lent.iter().filter(|one| !lent_before.contains(one)).cloned().map(Change::PutLent).collect();
        let now: BTreeSet<Claim> = held.iter().chain(lost.iter().map(|(held, _)| held)).map(|held| held.claim).collect();
        let gone = before.iter().filter(|one| !now.contains(&one.claim)).map(|one| Change::DeleteClaim(one.claim));
        let new = held.iter().chain(lost.iter().map(|(held, _)| held)).filter(|one| !before.contains(one));
        let changes =
            [Change::NoteRegistration(registration)].into_iter().chain(gone).chain(new.map(|one| Change::PutClaim(*one)));
        self.note_of_fleet(changes.chain(back).chain(newly).collect(), Purpose::Growing).await?;
        let mut state = self.reconciler.lock();
        for port in state.set_claims(held, lost, lent) {
            self.reconciler.evaluate(&mut state, port, Reason::Drift);
        }
        Ok(())
    }

    async fn settle(&self, registration: Registration) -> Result<(), String> {
        self.note_of_fleet(vec![Change::NoteRegistration(registration)], Purpose::Growing).await
    }

    async fn hold(&self, held: Held, lent: Vec<Lent>) -> Result<(), String> {
        let changes = lent.iter().cloned().map(Change::PutLent).chain([Change::PutClaim(held), Change::DeleteLent(held.claim)]);
        self.note_of_fleet(changes.collect(), Purpose::Growing).await?;
        let mut state = self.reconciler.lock();
        state.lend(lent);
        for port in state.hold(held) {
            self.reconciler.evaluate(&mut state, port, Reason::Drift);
        }
        Ok(())
    }

    fn lent(&self) -> Vec<Lent> {
        let state = self.reconciler.lock();
        // Of a port that is being handed over it may be the other host's.
        let handed = state.ports.values().filter_map(|entry| match &entry.record.standby {
            Some(Standby::HandedTo(host)) => Some((&entry.record, host)),
            _ => None,
        });
        let ones = handed
            .flat_map(|(port, host)| state.needs_of(port).into_iter().map(|claim| Lent { claim, host: host.clone(), made: 0 }));
        state.lent().into_iter().chain(ones).collect()
    }

    fn borrower(&self, need: &Need) -> Option<String> {
        self.reconciler.lock().borrower(need).map(str::to_owned)
    }

    async fn given_back(self: Arc<Self>, claims: Vec<Claim>) -> Result<(), String> {
        self.note_of_fleet(claims.iter().copied().map(Change::DeleteLent).collect(), Purpose::Freeing).await?;
        let mut state = self.reconciler.lock();
        claims.iter().for_each(|claim| state.end_lending(claim));
        Ok(())
    }

    fn standbys(&self) -> Vec<(PortId, Standby)> {
        let state = self.reconciler.lock();
        let ports = state.ports.values().map(|entry| &entry.record);
        ports.filter_map(|port| Some((port.id, port.standby.clone()?))).collect()
    }

    fn standby(&self, port: PortId) -> Option<Standby> {
        self.reconciler.lock().ports.get(&port)?.record.standby.clone()
    }

    fn needs_of(&self, port: &Port) -> Vec<Claim> {
        self.reconciler.lock().needs_of(port)
    }

    fn shown_at(&self, port: &Port, host: &str) -> Published {
        let state = self.reconciler.lock();
        let shown = view::port(&state, port.id, host).map(|view| PortView { port: port.clone(), ..view });
        Published::new(port, usable(port), false, shown.ok().and_then(|view| serde_json::to_value(view).ok()).unwrap_or_default())
    }

    async fn handed(self: Arc<Self>, port: PortId, host: String, ones: Vec<Lent>) -> Result<(), String> {
        self.note_handed(port, host, ones).await.map_err(|error| error.to_string())
    }

    async fn settle_standby(self: Arc<Self>, port: PortId, standby: Standby, at: Whereabouts) -> Result<(), String> {
        self.settle_silent(port, &standby, at).await.map_err(|error| error.to_string())
    }

    async fn let_go(&self, held: &Held) -> Result<bool, String> {
        if !self.reconciler.lock().let_go(&held.claim) {
            return Ok(false);
        }
        self.note_of_fleet(vec![Change::DeleteClaim(held.claim)], Purpose::Freeing).await?;
        Ok(true)
    }

    fn has(&self, need: &Need) -> bool {
        self.reconciler.lock().has_claimed(need)
    }

    fn pools(&self, subnet: SubnetId) -> Vec<Range> {
        self.reconciler.lock().subnet(subnet).map(|entry| entry.record.allocation_pools.clone()).unwrap_or_default()
    }

    fn short_of(&self, exhausted: &BTreeSet<SubnetId>) -> Vec<Need> {
        let prefix = self.reconciler.policy().mac_prefix;
        self.reconciler.lock().short_of(prefix, |subnet| exhausted.contains(&subnet))
    }

    fn disputed(&self) -> Vec<Held> {
        self.reconciler.lock().disputed_claims()
    }

    fn idle(&self) -> Vec<Held> {
        self.reconciler.lock().idle_claims()
    }

    async fn definitions(&self) -> Vec<Definition> {
        self.known_definitions().await
    }

    async fn adopt(self: Arc<Self>, definition: Definition) -> Result<(), String> {
        self.follow_definition(definition).await
    }

    async fn abandon(self: Arc<Self>, name: DefinitionName) -> Result<Vec<Definition>, String> {
        self.unfollow_definition(name).await
    }

    fn own_networks(&self) -> BTreeSet<NetworkId> {
        let state = self.reconciler.lock();
        let own = state.used_networks().filter(|entry| entry.record.is_shared());
        own.map(|entry| entry.record.id).collect()
    }

    fn note_changes(&self, is_on: bool) {
        self.reconciler.lock().publish(is_on);
    }

    fn published(&self) -> BTreeMap<PublishedId, Told> {
        let all: Vec<PublishedId> = self.reconciler.lock().published_ids().collect();
        all.into_iter().filter_map(|id| Some((id, self.published_one(id)?))).collect()
    }

    fn published_one(&self, id: PublishedId) -> Option<Told> {
        let state = self.reconciler.lock();
        match id {
            PublishedId::Port(port) => {
                let network = state.port(port).ok()?.record.network_id;
                state.network(network).ok().filter(|entry| entry.record.is_shared())?;
                let view = view::port(&state, port, self.host()).ok()?;
                let shown = serde_json::to_value(&view).unwrap_or_default();
                // What is being handed over is told of by who does that.
                if let Some(Standby::ActiveOn(_)) = view.port.standby {
                    return Some(Told::Standby(shown));
                }
                Some(Told::Port(Box::new(Published::new(
                    &view.port,
                    usable(&view.port),
                    state.other_host_of(port).is_some(),
                    shown,
                ))))
            }
            PublishedId::Server(server) => {
                let view = view::server(state.server(server).ok()?, self.host());
                Some(Told::Server(serde_json::to_value(&view).unwrap_or_default()))
            }
        }
    }

    fn take_changed(&self) -> BTreeSet<PublishedId> {
        self.reconciler.lock().take_changed()
    }

    async fn changed(&self) {
        let rung = Arc::clone(&self.reconciler.lock().publishing.rung);
        rung.notified().await;
    }

    fn take_in_members(self: Arc<Self>, network: NetworkId, change: MemberChange) {
        self.reconciler.take_in_members(network, change);
    }

    fn keep_members_of(&self, networks: &BTreeSet<NetworkId>) {
        self.reconciler.keep_members_of(networks);
    }

    fn take_in_remote(self: Arc<Self>, network: NetworkId, change: RemoteChange) {
        let remote = |port: RemotePort| (port.mac, Remote { host: port.tunnel, addresses: port.addresses.into_iter().collect() });
        tracing::debug!(%network, ?change, "what other hosts have of it");
        match change {
            RemoteChange::All(peers, ports) => {
                // What is on this host is on no other, whatever is told of another one.
                let overlay = {
                    let state = self.reconciler.lock();
                    let others = ports.into_iter().filter(|port| !state.is_own_mac(network, port.mac));
                    Overlay::new(peers, others.map(remote))
                };
                self.reconciler.set_overlay(network, overlay);
            }
            RemoteChange::Peer(host) => self.reconciler.put_peer(network, host),
            RemoteChange::Lost(host) => self.reconciler.lose_peer(network, host),
            RemoteChange::NoPeer(host) => self.reconciler.remove_peer(network, host),
            RemoteChange::Port(port) => {
                if !self.reconciler.lock().is_own_mac(network, port.mac) {
                    let (mac, remote) = remote(port);
                    self.reconciler.put_remote(network, mac, remote);
                }
            }
            RemoteChange::NoPort(mac) => self.reconciler.remove_remote(network, mac),
        }
    }
}

impl Service {
    async fn note_of_fleet(&self, changes: Vec<Change>, purpose: Purpose) -> Result<(), String> {
        let noted = self.reconciler.commit(changes, purpose).await;
        noted.map_err(|error| format!("what this host has of its fleet cannot be noted: {error}"))
    }
}

impl From<MemberError> for Error {
    fn from(error: MemberError) -> Self {
        Self::FleetUnreachable(error.to_string())
    }
}

impl From<ForgetError> for Error {
    fn from(error: ForgetError) -> Self {
        match error {
            ForgetError::Alive(host) => Self::HostAlive(host),
            ForgetError::Etcd(error) => Self::FleetUnreachable(error.to_string()),
        }
    }
}
