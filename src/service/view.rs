//! What clients are shown: records with what was last seen of them, as values. Which JSON that becomes is the dialects'.

use serde::{Deserialize, Serialize};

use crate::config::ConflictProbe;
use crate::inventory::{self, Inventory, NetworkEntry, PortEntry, ServerEntry, TrunkRole};
use crate::model::names;
use crate::model::{
    Carrier, GroupId, LinkName, Mac, Network, NetworkId, Owner, Phase, Port, PortId, Server, ServerId, SubPort, Subnet, SubnetId,
    Trunk, TrunkId, TrunkStatus,
};

use crate::plan::diff::Segment;
use crate::plan::facts::FactName;
use crate::plan::{Fact, MachineNic, facts};
use crate::telemetry::meters;
use crate::telemetry::meters::GaugeValues;

use super::{Error, Service};

/// A network and its subnets' ids.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkView {
    /// The record.
    pub network: Network,
    /// Its subnets.
    pub subnets: Vec<SubnetId>,
    /// The name of its bridge on this host, when there is one.
    pub device: Option<String>,
    /// The name of the link of this host that leads to its physical network, when there is one.
    pub uplink: Option<String>,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerView {
    /// The record.
    pub server: Server,
    /// Its host's name.
    pub host: String,
}

/// A port and how it fares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortView {
    /// The record.
    pub port: Port,
    /// Where it is on its way.
    pub phase: Phase,
    /// The stable word for why it is not ACTIVE.
    pub reason: Option<String>,
    /// Its place on this host, when it has a server.
    pub binding: Option<Binding>,
    /// Its part in a trunk.
    pub trunk: Option<PortTrunk>,
    /// This host's name.
    pub host: String,
}

/// A port's part in a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortTrunk {
    /// Its NIC carries the frames of these subports, each with its MAC.
    Parent(TrunkId, Vec<(SubPort, Mac)>),
    /// Its frames are carried.
    SubPort(TrunkId),
}

/// A trunk and how it fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkView {
    /// The record.
    pub trunk: Trunk,
    /// How it fares.
    pub status: TrunkStatus,
}

/// A port's place on this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// Its server.
    pub server: ServerId,
    /// Whether its device is a tap.
    pub tap: Option<Tap>,
    /// Whether its device is a VLAN device; a veth if neither.
    pub carrier: Option<Carrier>,
    /// Its bridge's name.
    pub bridge: Option<String>,
    /// Its device, when it has one.
    pub device: Option<DeviceView>,
    /// The MTU for the guest, in bytes.
    pub mtu: u32,
    /// The NIC's name in a namespace.
    pub guest_device: Option<LinkName>,
    /// The NIC in a virtual machine, when nicd has plugged it into that.
    pub nic: Option<NicView>,
}

/// A NIC in a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicView {
    /// Its id there.
    pub qdev_id: String,
    /// Its PCI address, as far as the machine has given it one.
    pub pci_address: Option<String>,
}

/// How a tap is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tap {
    /// With so many queues.
    pub queues: u16,
    /// With virtio-net headers or without.
    pub vnet_hdr: bool,
    /// By whom, beside a holder of CAP_NET_ADMIN: whom it was made for, whatever its server says by now.
    pub owner: Owner,
}

/// A device as last seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Its name.
    pub name: String,
    /// The host side's MAC.
    pub host_mac: Option<Mac>,
}

/// Which ports to list. What is `None` does not matter; the ids are looked up, not searched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortFilter {
    /// This one.
    pub id: Option<PortId>,
    /// Those of this server, but for subports of trunks; or the subports of the trunk with this id.
    pub server: Option<ServerId>,
    /// Those on this network.
    pub network: Option<NetworkId>,
    /// Those in this security group.
    pub group: Option<GroupId>,
}

impl Service {
    /// One network.
    ///
    /// # Errors
    /// There is none with that id.
    pub fn network(&self, id: NetworkId) -> Result<NetworkView, Error> {
        network(&self.reconciler.lock(), id)
    }

    /// All networks, by id.
    pub fn networks(&self) -> Vec<NetworkView> {
        let state = self.reconciler.lock();
        state.networks.values().map(|entry| network_view(&state, entry)).collect()
    }

    /// One subnet.
    ///
    /// # Errors
    /// There is none with that id.
    pub fn subnet(&self, id: SubnetId) -> Result<Subnet, Error> {
        Ok(self.reconciler.lock().subnet(id)?.record.clone())
    }

    /// All subnets, by id.
    pub fn subnets(&self) -> Vec<Subnet> {
        self.reconciler.lock().subnets.values().map(|entry| entry.record.clone()).collect()
    }

    /// One server.
    ///
    /// # Errors
    /// There is none with that id.
    pub fn server(&self, id: ServerId) -> Result<ServerView, Error> {
        Ok(server(self.reconciler.lock().server(id)?, &self.reconciler.host))
    }

    /// All servers, by id.
    pub fn servers(&self) -> Vec<ServerView> {
        self.reconciler.lock().servers.values().map(|entry| server(entry, &self.reconciler.host)).collect()
    }

    /// One port.
    ///
    /// # Errors
    /// There is none with that id.
    pub fn port(&self, id: PortId) -> Result<PortView, Error> {
        port(&self.reconciler.lock(), id, &self.reconciler.host)
    }

    /// One port that is active on this host, or attached to nothing.
    ///
    /// # Errors
    /// There is none with that id.
    pub fn active_port(&self, id: PortId) -> Result<PortView, Error> {
        let found = self.port(id)?;
        if found.port.is_elsewhere() { Err(inventory::Error::NoSuchPort(id).into()) } else { Ok(found) }
    }

    /// One port of a server.
    ///
    /// # Errors
    /// There is no such server or port, or the port is not that server's.
    pub fn port_of(&self, server: ServerId, id: PortId) -> Result<PortView, Error> {
        let state = self.reconciler.lock();
        self.on_server(&state, server, id)?;
        port(&state, id, &self.reconciler.host)
    }

    /// One trunk.
    ///
    /// # Errors
    /// There is none with that id.
    pub fn trunk(&self, id: TrunkId) -> Result<TrunkView, Error> {
        trunk(&self.reconciler.lock(), id)
    }

    /// All trunks, by id.
    pub fn trunks(&self) -> Vec<TrunkView> {
        let state = self.reconciler.lock();
        state.trunks.values().map(|trunk| trunk_view(&state, trunk)).collect()
    }

    /// The ports that fit a filter, by id. One that is active on another host is there.
    pub fn ports(&self, filter: PortFilter) -> Vec<PortView> {
        let state = self.reconciler.lock();
        let fits = |entry: &&PortEntry| {
            !entry.record.is_elsewhere()
                && filter.id.is_none_or(|id| entry.record.id == id)
                && filter.group.is_none_or(|id| entry.record.groups.contains(&id))
                && filter.network.is_none_or(|id| entry.record.network_id == id)
                && filter.server.is_none_or(|id| has_device_id(&state, &entry.record, id))
        };
        let view = |entry: &PortEntry| port_view(&state, entry, &self.reconciler.host);
        let of = |ids: &std::collections::BTreeSet<PortId>| {
            ids.iter().filter_map(|id| state.ports.get(id)).filter(fits).map(view).collect()
        };
        match (filter.id, filter.server, filter.group, filter.network) {
            (Some(id), ..) => state.ports.get(&id).filter(|entry| fits(entry)).map(view).into_iter().collect(),
            (None, Some(server), ..) => match (state.servers.get(&server), state.trunks.get(&TrunkId(server.0))) {
                (Some(entry), _) => of(&entry.ports),
                (None, Some(trunk)) => of(&trunk.sub_ports.iter().map(|sub| sub.port_id).collect()),
                (None, None) => Vec::new(),
            },
            (None, None, Some(group), _) => state.groups.get(&group).map_or_else(Vec::new, |entry| of(&entry.ports)),
            (None, None, None, Some(network)) => state.networks.get(&network).map_or_else(Vec::new, |entry| of(&entry.ports)),
            (None, None, None, None) => state.ports.values().filter(fits).map(view).collect(),
        }
    }

    /// The ids of all ports, in their order.
    pub fn port_ids(&self) -> Vec<PortId> {
        self.reconciler.lock().ports.keys().copied().collect()
    }

    /// Every fact that a port's status depends on, in the order in which they decide.
    ///
    /// # Errors
    /// There is no port with that id.
    pub fn explain(&self, id: PortId) -> Result<(PortView, Vec<Fact>), Error> {
        let state = self.reconciler.lock();
        let view = port(&state, id, &self.reconciler.host)?;
        let entry = state.port(id)?;
        let fact = |fact, ok, detail: &str| Fact { fact, ok, detail: detail.to_owned() };
        let why = entry.detail.as_deref().unwrap_or("no reason was kept");
        let mut told = Vec::new();
        if entry.phase == Phase::Error {
            told.push(fact(FactName::Possible, false, why));
        }
        let Some(server) = entry.record.attached_to() else {
            let leaving = match (entry.record.leaving(), &entry.detail) {
                (true, Some(why)) => format!("the port is being detached: {why}"),
                (true, None) => "the port is being detached".to_owned(),
                (false, _) => "the port is attached to no server".to_owned(),
            };
            told.push(fact(FactName::Bound, false, &leaving));
            return Ok((view, told));
        };
        told.push(fact(FactName::Bound, true, &format!("attached to server {server}")));
        if entry.reason.as_deref() == Some(FactName::Namespace.reason()) {
            told.push(fact(FactName::Namespace, false, why));
        }
        let network = &state.network(entry.record.network_id)?.record;
        if let Some(want) = state.desired_port(&entry.record, self.reconciler.store_id) {
            told.extend(facts(&want, &state.desired_bridge(network), &state.have));
            if let Some(at) = told.iter().position(|fact| fact.fact == FactName::Vlan) {
                let detail = self.addresses(&state, entry);
                told.insert(at, fact(FactName::Addresses, !entry.record.is_unproven(), &detail));
            }
            if let Some(built) = told.iter_mut().find(|fact| fact.fact == FactName::Built && !entry.refused.is_empty()) {
                built.detail = format!("{}; the guest's kernel refused {}", built.detail, entry.refused.join("; "));
            }
            if let Some(admin) = told.iter_mut().find(|fact| fact.fact == FactName::Admin && entry.record.is_unproven()) {
                admin.detail = format!("the port is kept down: {why}");
            }
            if let Some(responder) = told.iter_mut().find(|fact| fact.fact == FactName::Responder) {
                let (answered, ignored) = (entry.dhcp.answered, entry.dhcp.ignored);
                responder.detail = format!("{}; {answered} were answered, {ignored} ignored", responder.detail);
            }
        }
        Ok((view, told))
    }

    /// A port's addresses, and what is known of other machines that have them.
    fn addresses(&self, state: &Inventory, entry: &PortEntry) -> String {
        let addresses: Vec<String> = entry.record.fixed_ips.iter().map(|ip| ip.ip_address.to_string()).collect();
        let addresses = if addresses.is_empty() { "no addresses".to_owned() } else { addresses.join(", ") };
        let asked = match (state.conflicts.get(&entry.record.id), self.reconciler.policy().conflict_probe) {
            (Some(conflict), _) => conflict.to_string(),
            (None, ConflictProbe::Off) => "other machines are not asked whether they have them (links.conflict_probe)".to_owned(),
            (None, _) if entry.neighbours.is_asking || entry.record.is_unproven() => {
                "other machines are asked whether they have them".to_owned()
            }
            (None, _) => match entry.neighbours.asked {
                Some(at) => format!("no other machine answered for them at {at:.0}"),
                None => "other machines were not asked whether they have them since nicd started".to_owned(),
            },
        };
        format!("{addresses}: {asked}")
    }

    /// Everything that is counted, and how things stand, as Prometheus' text. What health says is what stands here.
    pub fn metrics(&self) -> String {
        let health = self.health();
        let queues = self.reconciler.kernel.waiting().into_iter().chain([("store", self.reconciler.store.waiting())]).collect();
        meters().text(&GaugeValues {
            uptime: self.reconciler.started.elapsed(),
            ports: health.ports.into_iter().collect(),
            unattached: health.unattached,
            problems: health.counts,
            queues,
            event_readers: self.reconciler.events().readers(),
        })
    }

    /// This host's name (`binding:host_id`).
    pub fn host(&self) -> &str {
        &self.reconciler.host
    }

    /// How often the store was flushed.
    pub fn flushes(&self) -> u64 {
        self.reconciler.store.flushes()
    }

    /// The server of an attached port, when it is this one's.
    pub(super) fn on_server(&self, state: &Inventory, server: ServerId, port: PortId) -> Result<(), Error> {
        state.server(server)?;
        let entry = state.port(port)?;
        match &entry.record.binding {
            Some(binding) if binding.server_id == server && binding.carrier.is_none() => Ok(()),
            _ => Err(Error::PortNotOnServer { server, port }),
        }
    }
}

pub(super) fn network(state: &Inventory, id: NetworkId) -> Result<NetworkView, Error> {
    Ok(network_view(state, state.network(id)?))
}

fn network_view(state: &Inventory, entry: &NetworkEntry) -> NetworkView {
    let device = match &entry.record.bridge {
        Some(bridge) => state.have.named(bridge.as_str()).map(|link| link.name.clone()),
        None => state.have.own_bridge(entry.record.id).map(|link| link.name.clone()),
    };
    let bridge = state.desired_bridge(&entry.record);
    let uplink = Segment::find(&bridge, &state.have).and_then(|way| way.uplink).map(|link| link.name.clone());
    NetworkView { network: entry.record.clone(), subnets: entry.subnets.iter().copied().collect(), device, uplink }
}

pub(super) fn server(entry: &ServerEntry, host: &str) -> ServerView {
    ServerView { server: entry.record.clone(), host: host.to_owned() }
}

pub(super) fn port(state: &Inventory, id: PortId, host: &str) -> Result<PortView, Error> {
    Ok(port_view(state, state.port(id)?, host))
}

/// Whether a port is a NIC of this server, or a subport of the trunk with this id.
fn has_device_id(state: &Inventory, port: &Port, id: ServerId) -> bool {
    match (state.trunk_role(port.id), &port.binding) {
        (Some(TrunkRole::SubPort(trunk)), _) => trunk.0 == id.0,
        (_, Some(binding)) => binding.server_id == id && binding.carrier.is_none(),
        (_, None) => false,
    }
}

fn port_trunk(state: &Inventory, port: PortId) -> Option<PortTrunk> {
    let mac = |sub: &SubPort| Some((*sub, state.ports.get(&sub.port_id)?.record.mac));
    match state.trunk_role(port)? {
        TrunkRole::Parent(id) => Some(PortTrunk::Parent(id, state.sub_ports(port).iter().filter_map(mac).collect())),
        TrunkRole::SubPort(id) => Some(PortTrunk::SubPort(id)),
    }
}

pub(super) fn trunk(state: &Inventory, id: TrunkId) -> Result<TrunkView, Error> {
    Ok(trunk_view(state, state.trunk(id)?))
}

fn trunk_view(state: &Inventory, trunk: &Trunk) -> TrunkView {
    let phase = |port: PortId| state.ports.get(&port).map_or(Phase::Unbound, |entry| entry.phase);
    let sub_ports: Vec<Phase> = trunk.sub_ports.iter().map(|sub| phase(sub.port_id)).collect();
    TrunkView { trunk: trunk.clone(), status: TrunkStatus::of(trunk.admin_up, phase(trunk.port_id), &sub_ports) }
}

fn port_view(state: &Inventory, entry: &PortEntry, host: &str) -> PortView {
    let record = &entry.record;
    let binding = record.binding.as_ref().and_then(|binding| {
        let network = &state.networks.get(&record.network_id)?.record;
        let device = state.have.device(record.id);
        let bridge = match device.and_then(|link| link.master) {
            Some(index) => state.have.link(index).map(|link| link.name.clone()),
            None => network.bridge.as_ref().map(ToString::to_string),
        };
        let tap = binding.tap.map(|tap| Tap { queues: tap.queues, vnet_hdr: record.profile.vnet_hdr, owner: tap.owner });
        let nic = match state.have.nic(record.id) {
            Some(MachineNic::Plugged { pci_address }) => {
                Some(NicView { qdev_id: names::machine_nic(record.id), pci_address: pci_address.clone() })
            }
            _ => None,
        };
        Some(Binding {
            nic,
            server: binding.server_id,
            tap,
            carrier: binding.carrier,
            bridge,
            device: device.map(|link| DeviceView { name: link.name.clone(), host_mac: link.mac }),
            mtu: network.mtu,
            guest_device: binding.guest_device.clone(),
        })
    });
    let (phase, reason) = (entry.phase, entry.reason.clone());
    PortView { port: record.clone(), phase, reason, binding, trunk: port_trunk(state, record.id), host: host.to_owned() }
}

/// What another host shows; none where this one does not know that form.
pub(super) fn read<T: serde::de::DeserializeOwned>(view: serde_json::Value) -> Option<T> {
    serde_json::from_value(view)
        .inspect_err(|error| tracing::warn!(%error, "what another host shows cannot be read; upgrade this one"))
        .ok()
}
