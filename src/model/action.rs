//! The requests of clients as values. Every dialect parses into them, and tests build them directly.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::dhcp::{ExtraOption, Sets};
use super::ids::{GroupId, NetworkId, PortId, RuleId, ServerId, SubnetId, TrunkId};
use super::job::{JobKind, NicChange};
use super::mac::Mac;
use super::moving::{Handed, Prepare};
use super::names::LinkName;
use super::network::{NetworkKind, Scope};
use super::pools::Range;
use super::port::GuestTold;
use super::port::{AddressPair, Limits, Profile};
use super::rule::{GroupChange, NewGroup, NewRule};
use super::server::Owner;
use super::subnet::{HostRoute, NewSubnet};
use super::trunk::{NewSubPort, NewTrunk, TrunkChange};

/// A request that changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Creates networks, all or none. A network's bridge is created with its first port.
    CreateNetworks(Vec<NewNetwork>),
    /// Changes a network.
    UpdateNetwork(NetworkId, NetworkChange),
    /// Deletes a network without ports, and its agent-made bridge.
    DeleteNetwork(NetworkId),
    /// Creates subnets, all or none.
    CreateSubnets(Vec<NewSubnet>),
    /// Changes a subnet.
    UpdateSubnet(SubnetId, SubnetChange),
    /// Deletes a subnet of which no address is allocated.
    DeleteSubnet(SubnetId),
    /// Creates security groups, all or none.
    CreateGroups(Vec<NewGroup>),
    /// Changes a security group.
    UpdateGroup(GroupId, GroupChange),
    /// Deletes a security group without ports, and the rules of others that refer to it.
    DeleteGroup(GroupId),
    /// Creates rules of one security group, all or none.
    CreateRules(Vec<NewRule>),
    /// Deletes a rule.
    DeleteRule(RuleId),
    /// Registers a server, or changes its registration.
    PutServer(NewServer),
    /// Deletes a server's registration.
    DeleteServer(ServerId, WithNics),
    /// Creates ports without a server, all or none.
    CreatePorts(Vec<NewPort>),
    /// Changes a port.
    UpdatePort(PortId, PortChange),
    /// Deletes a port, detaching it first.
    DeletePort(PortId),
    /// Creates trunks, all or none.
    CreateTrunks(Vec<NewTrunk>),
    /// Changes a trunk.
    UpdateTrunk(TrunkId, TrunkChange),
    /// Deletes a trunk; its ports stay.
    DeleteTrunk(TrunkId),
    /// Adds subports to a trunk, all or none, and builds their devices if its parent has a server.
    AddSubPorts(TrunkId, Vec<NewSubPort>),
    /// Takes subports from a trunk, all or none, and deletes their devices.
    RemoveSubPorts(TrunkId, Vec<PortId>),
    /// Attaches a port to a server and builds its device.
    Attach(Attach),
    /// Detaches a port from its server and deletes its device.
    Detach(ServerId, PortId, AfterDetach),
    /// Builds the silent device of a port that is active on another host.
    Prepare(Box<Prepare>),
    /// Makes a port active on another host, which has a silent device for it.
    Activate(PortId, String),
    /// Has a port that another host has handed over, in the transaction with this revision.
    Take(Box<Handed>, CallRef),
    /// Removes the silent device of a port that is active on another host.
    DeleteBinding(PortId),
    /// Accepts a job, which is carried out after the answer.
    StartJob(NewJob),
}

/// The call by which a host was handed a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRef {
    /// The host that hands it over.
    pub from: String,
    /// The call's id.
    pub id: Uuid,
    /// The revision of etcd that made it.
    pub made: i64,
}

/// A job to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// The server whose NICs change.
    pub server_id: ServerId,
    /// What is done.
    pub kind: JobKind,
    /// The NICs, in the order in which they change.
    pub changes: Vec<NicChange>,
}

/// A network to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNetwork {
    /// The id to use; none for a fresh one.
    pub id: Option<NetworkId>,
    /// Its name, possibly empty.
    pub name: String,
    /// A remark.
    pub description: String,
    /// Its project.
    pub project_id: String,
    /// The guests' MTU in bytes; none for the bridge's.
    pub mtu: Option<u32>,
    /// An existing bridge; none for one made by the agent.
    pub bridge: Option<LinkName>,
    /// What its bridge leads to.
    pub kind: NetworkKind,
    /// `provider:physical_network`.
    pub physical_network: Option<String>,
    /// The VLAN of a VLAN network; none for a free one.
    pub segmentation_id: Option<u32>,
    /// Whether its new ports have port security unless they say otherwise.
    pub port_security: bool,
    /// Whether its ports are isolated that do not say otherwise.
    pub isolated: bool,
    /// For which hosts it is; none for the fleet's where this host is in one.
    pub scope: Option<Scope>,
}

/// A change of a network; `None` keeps the value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkChange {
    /// Its name.
    pub name: Option<String>,
    /// A remark.
    pub description: Option<String>,
    /// The guests' MTU in bytes.
    pub mtu: Option<u32>,
    /// Whether its new ports have port security unless they say otherwise.
    pub port_security: Option<bool>,
    /// Whether its ports are isolated that do not say otherwise.
    pub isolated: Option<bool>,
}

/// A change of a subnet; `None` keeps the value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubnetChange {
    /// Its name.
    pub name: Option<String>,
    /// A remark.
    pub description: Option<String>,
    /// For guests built from now on.
    pub dns_nameservers: Option<Vec<IpAddr>>,
    /// For guests built from now on.
    pub host_routes: Option<Vec<HostRoute>>,
    /// The next hop of guests built from now on; `Some(None)` for none.
    pub gateway_ip: Option<Option<IpAddr>>,
    /// Where addresses are given from, from now on.
    pub allocation_pools: Option<Vec<Range>>,
    /// Whether guests are told their addresses by DHCP.
    pub enable_dhcp: Option<bool>,
}

/// A server to register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewServer {
    /// Its id.
    pub id: ServerId,
    /// Its name, possibly empty.
    pub name: String,
    /// Its project.
    pub project_id: String,
    /// What kind of guest it is.
    pub guest: NewGuest,
    /// How many NICs it may have; none for the config's.
    pub nic_limit: Option<u32>,
}

/// A guest as the client describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewGuest {
    /// A virtual machine.
    Vm {
        /// Queues of each tap.
        queues: u16,
        /// Who may open the taps.
        owner: Owner,
        /// The monitor by which NICs are plugged into it.
        monitor: Option<super::Monitor>,
    },
    /// A namespace mounted at a path.
    Netns(PathBuf),
    /// The one that the server has; a namespace is not looked up again.
    AsIs,
}

/// What to do with the NICs of a server that is to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithNics {
    /// Refuse.
    Refuse,
    /// Detach them first.
    Detach,
}

/// A port to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPort {
    /// The id to use; none for a fresh one.
    pub id: Option<PortId>,
    /// Its network.
    pub network_id: NetworkId,
    /// Its name, possibly empty.
    pub name: String,
    /// A remark.
    pub description: String,
    /// Its project.
    pub project_id: String,
    /// Its MAC; none for a generated one.
    pub mac: Option<Mac>,
    /// Its addresses; none for one of each family the network has.
    pub fixed_ips: Option<Vec<WantedIp>>,
    /// The desired admin state.
    pub admin_up: bool,
    /// Whether the bridge floods frames with an unknown destination MAC to the port.
    pub unknown_unicast: bool,
    /// Whether the filters hold its guest to the port's addresses; none for what its network says.
    pub port_security: Option<bool>,
    /// What its guest may send from beside its own MAC and addresses.
    pub address_pairs: Vec<AddressPair>,
    /// The security groups that it is in; none for its project's default group, where the configuration asks for one.
    pub groups: Option<BTreeSet<GroupId>>,
    /// The rates of its traffic.
    pub limits: Limits,
    /// Whether it is isolated; none for what its network says.
    pub isolated: Option<bool>,
    /// What its guest is told.
    pub told: GuestTold,
    /// Who it is for.
    pub device_owner: String,
    /// The settings of its device.
    pub profile: Profile,
}

/// An address asked for; at least one of the two is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedIp {
    /// From this subnet.
    pub subnet_id: Option<SubnetId>,
    /// This one.
    pub ip_address: Option<IpAddr>,
}

/// A change of one of a port's extra options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionChange {
    /// It is set.
    Set(ExtraOption),
    /// What sets this is taken back.
    Unset(Sets),
}

/// A change of a port; `None` keeps the value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortChange {
    /// Its name.
    pub name: Option<String>,
    /// A remark.
    pub description: Option<String>,
    /// The desired admin state.
    pub admin_up: Option<bool>,
    /// Whether the bridge floods frames with an unknown destination MAC to the port.
    pub unknown_unicast: Option<bool>,
    /// Whether the filters hold its guest to the port's addresses.
    pub port_security: Option<bool>,
    /// What its guest may send from beside its own MAC and addresses.
    pub address_pairs: Option<Vec<AddressPair>>,
    /// The security groups that it is in.
    pub groups: Option<BTreeSet<GroupId>>,
    /// The rates of its traffic.
    pub limits: Option<Limits>,
    /// Whether it is isolated; `Some(None)` for what its network says.
    pub isolated: Option<Option<bool>>,
    /// Whether its guest's DHCP requests are answered.
    pub dhcp: Option<bool>,
    /// Its guest's name.
    pub dns_name: Option<String>,
    /// Options that are set, and those that are taken back.
    pub extra_options: Vec<OptionChange>,
    /// Who it is for.
    pub device_owner: Option<String>,
    /// Its MAC; only while it is unbound.
    pub mac: Option<Mac>,
    /// Its addresses.
    pub fixed_ips: Option<Vec<WantedIp>>,
    /// The settings of its device; only while the port is unbound or being detached.
    pub profile: Option<Profile>,
    /// Whether to detach the port, which is kept. No effect on an unbound port.
    pub detach: bool,
}

/// What to do with a port after its device was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterDetach {
    /// Delete it if an attach created it, otherwise unbind it.
    AsMade,
    /// Unbind it (`reserve_port`).
    Keep,
}

/// A request to plan without executing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DryRun {
    /// An attach.
    Attach(Attach),
    /// The removal of a port's device.
    Detach(PortId),
}

/// An attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// To which server.
    pub server_id: ServerId,
    /// What.
    pub nic: WantedNic,
    /// Whether the server may have another NIC on the same network.
    pub second_on_network: SecondOnNetwork,
    /// The device's tag, kept and given back.
    pub tag: Option<String>,
}

/// What to attach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WantedNic {
    /// An existing port.
    Port(PortId),
    /// A new port on a network.
    OnNetwork(NetworkId, NewNic),
    /// A new port on the only network there is.
    OnTheOnlyNetwork,
}

/// What the new port of an attach is to have. What is `None` is chosen as for any new port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewNic {
    /// Its address.
    pub address: Option<IpAddr>,
    /// Its security groups.
    pub groups: Option<BTreeSet<GroupId>>,
}

impl WantedNic {
    /// The groups that a new port is asked to be in; none where its project's own are meant, or where no port is made.
    pub fn groups(&self) -> Option<&BTreeSet<GroupId>> {
        match self {
            Self::OnNetwork(_, new) => new.groups.as_ref(),
            Self::Port(_) | Self::OnTheOnlyNetwork => None,
        }
    }
}

/// A rule that differs between the dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondOnNetwork {
    /// Nova's: as many as wanted.
    Allowed,
    /// Rackspace's: at most one per server and network.
    Refused,
}
