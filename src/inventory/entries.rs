//! What the inventory holds: records with how they fare, and the indexes over them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use ipnetwork::IpNetwork;
use serde::Serialize;
use uuid::Uuid;

use crate::model::names;
use crate::model::pools::FreeRanges;
use crate::model::{
    Group, GroupId, GuestMacs, Mac, Network, NetworkId, Phase, PhysicalNetworks, Port, PortId, RuleId, Server, ServerId, Subnet,
    SubnetId, Trunk, TrunkId,
};
use crate::plan::{Deviation, Observed, Overlays};

use super::adverts::Adverts;
use super::claim::{Claim, ClaimGuard};
use super::comparing::OverlayWork;
use super::flapping::{BridgeRepairs, Flapping};
use super::holding::Holding;
use super::leases::{PortLease, Responder};
use super::members::Members;
use super::neighbours::{Conflict, Neighbours};
use super::open::Open;
use super::profiles::Profiles;
use super::publishing::Publishing;
use super::retry::Retry;
use super::telling::Telling;
use super::wakeups::Wakeups;

/// All records, and what the kernel was last seen to hold. Invariants: `macs` and `addresses` hold exactly the MACs and addresses
/// of the ports; every port is in the set of its network, of its server and of its security groups; the free ranges of a subnet are its pools without the
/// addresses of ports on its segment and without the addresses that it reserves.
#[derive(Debug, Default)]
pub struct Inventory {
    pub networks: BTreeMap<NetworkId, NetworkEntry>,
    /// Those that have ports here: few of all that a fleet has.
    pub(super) used: BTreeSet<NetworkId>,
    /// Which networks use an operator's bridge, by its name.
    pub bridges: HashMap<String, BTreeSet<NetworkId>>,
    /// The physical networks, and which networks are on them.
    pub(super) physical: Physical,
    /// The tunnel address of this host, in a fleet.
    pub tunnel: Option<IpAddr>,
    /// The network that has each number of VXLAN.
    pub(super) vxlans: BTreeMap<u32, NetworkId>,
    /// What of VXLAN networks is on other hosts.
    pub overlays: Overlays,
    /// Which networks are on one link.
    pub(super) segments: HashMap<Segment, BTreeSet<NetworkId>>,
    /// The zones of conntrack that networks have.
    pub(super) zones: BTreeSet<u16>,
    /// The sets of security groups that ports are in.
    pub profiles: Profiles,
    /// Other hosts' ports that are in security groups.
    pub members: Members,
    pub subnets: BTreeMap<SubnetId, SubnetEntry>,
    pub groups: BTreeMap<GroupId, GroupEntry>,
    /// Which group a rule is of.
    pub(super) rules: HashMap<RuleId, GroupId>,
    /// By a group, which need not be there: the groups, itself among them, with rules whose remote addresses are those of its ports, and how
    /// many such rules each has.
    pub(super) referrers: HashMap<GroupId, BTreeMap<GroupId, usize>>,
    /// The projects' default groups.
    pub(super) default_groups: HashMap<String, GroupId>,
    pub servers: BTreeMap<ServerId, ServerEntry>,
    /// The servers with a monitor, by its path.
    pub(super) monitors: BTreeMap<PathBuf, BTreeSet<ServerId>>,
    pub ports: BTreeMap<PortId, PortEntry>,
    pub trunks: BTreeMap<TrunkId, Trunk>,
    /// The part of each port that is in a trunk.
    pub(super) trunk_roles: HashMap<PortId, TrunkRole>,
    /// By the MAC of the host's side, which must be unique too: two guest MACs that differ only in the first octet share it.
    pub(super) macs: HashMap<Mac, PortId>,
    /// The guests' MACs alone, for the looks at FDBs.
    pub guests: GuestMacs,
    pub(super) addresses: HashMap<(NetworkId, IpAddr), PortId>,
    /// What this host has claimed in its fleet.
    pub(super) holding: Holding,
    /// Of which ports the fleet is to be told.
    pub publishing: Publishing,
    pub(super) phases: [usize; 6],
    pub have: Observed,
    /// When each link was last looked at, also those in `tombstones`.
    pub(super) looked: HashMap<u32, Instant>,
    /// The links that were removed last, so that an older look does not add one again.
    pub(super) tombstones: VecDeque<u32>,
    /// Links of nicd's that no record wants, by index: reported, and left alone.
    pub orphans: BTreeMap<u32, Leftover>,
    /// The store's id, as in the tags of devices.
    pub store_id: Uuid,
    /// This host's name.
    pub host: String,
    /// When ports are to be tried again.
    pub due: Wakeups,
    /// When events of ports that were held back are due.
    pub untold: Wakeups,
    /// Attached ports whose repairs another program keeps undoing, with what it changes.
    pub contested: BTreeMap<PortId, Flapping>,
    /// Ports that are ERROR.
    pub errors: BTreeSet<PortId>,
    /// Leaving ports whose device the kernel has not released for a long time.
    pub kept: BTreeSet<PortId>,
    /// Networks whose agent-made bridge another program keeps changing.
    pub fought_bridges: BTreeSet<NetworkId>,
    /// Agent-made bridges that could not be closed to the host.
    pub open: Open,
    /// Which ports' DHCP requests are to be heard on which bridge.
    pub responder: Responder,
    /// When ports' guests are told by router advertisements.
    pub adverts: Adverts,
    /// Ports whose guests found their address in use, and whether that is one of IPv6.
    pub declined: BTreeMap<(PortId, bool), IpAddr>,
    /// Ports of which another machine has an address.
    pub conflicts: BTreeMap<PortId, Conflict>,
    /// What may be used on a network beside fixed IPs, and by how many address pairs.
    pub(super) pairs: BTreeMap<(NetworkId, IpNetwork), usize>,
}

/// The claims on several ports.
pub type PortClaims = Vec<(PortId, ClaimGuard)>;

/// A network, its ports and subnets, and the claim of the operation that makes its bridge.
#[derive(Debug)]
pub struct NetworkEntry {
    pub record: Network,
    pub subnets: BTreeSet<SubnetId>,
    pub ports: BTreeSet<PortId>,
    pub claim: Claim,
    pub repairs: BridgeRepairs,
    /// Of a VXLAN network, the entries that are to be compared.
    pub overlay: OverlayWork,
    pub segment: Segment,
    /// When its existing bridge was last looked at for a request.
    pub looked: Option<Instant>,
}

#[derive(Debug)]
pub struct SubnetEntry {
    pub record: Subnet,
    pub(super) free: FreeRanges,
    pub(super) users: usize,
}

/// A security group, and who needs it.
#[derive(Debug)]
pub struct GroupEntry {
    pub record: Group,
    /// The ports that are in it.
    pub ports: BTreeSet<PortId>,
    pub claim: Claim,
}

#[derive(Debug)]
pub struct ServerEntry {
    pub record: Server,
    pub ports: BTreeSet<PortId>,
    pub claim: Claim,
    /// A server that leaves keeps its own claim to its end.
    pub leaving: Option<ClaimGuard>,
}

/// A port's record and how it fares.
#[derive(Debug)]
pub struct PortEntry {
    pub record: Port,
    pub phase: Phase,
    /// The stable word for why it is not ACTIVE.
    pub reason: Option<String>,
    /// The reason as a sentence.
    pub detail: Option<String>,
    pub claim: Claim,
    pub retry: Retry,
    pub telling: Telling,
    /// Routes that its guest's kernel refused when it was last configured.
    pub refused: Vec<String>,
    /// Its device is being deleted. A delete goes by the altname, so a second one might hit the port's next device.
    pub reaping: bool,
    /// The index of its device, from the last look that showed one with its altname until that link is gone.
    pub device: Option<u32>,
    /// How often its device was found held open since it is on its way out.
    pub looks: u32,
    /// What its guest asked last, and was told.
    pub dhcp: PortLease,
    /// What is still to be said of its addresses on its bridge.
    pub neighbours: Neighbours,
}

/// A port's part in a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrunkRole {
    /// Its NIC carries the subports' frames.
    Parent(TrunkId),
    /// Its frames are carried.
    SubPort(TrunkId),
}

/// The physical networks as configured, with the networks on them.
#[derive(Debug, Default)]
pub struct Physical {
    pub(super) configured: PhysicalNetworks,
    /// The network that has a VLAN of a physical network, or with 0 its untagged frames.
    pub(super) taken: BTreeMap<(String, u16), NetworkId>,
    /// The networks on each physical network.
    pub(super) on: HashMap<String, BTreeSet<NetworkId>>,
}

/// One link, and everything that is on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// A bridge that is made for one network.
    Own(NetworkId),
    /// A VLAN of an operator's bridge, by the bridge's index; 0 for the one that the operator gives ports.
    Bridge(u32, u16),
    /// The same of one that was not seen yet, by the name that a network knows it by.
    Unseen(String, u16),
}

/// One link that is left over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// Its name.
    pub object: String,
    /// `tap`, `veth`, `bridge`, `vlan` or `vxlan`.
    pub kind: &'static str,
    /// The stable word for why it is here: `device_without_record` or `mark_lost`.
    pub reason: &'static str,
    /// Its altname, unless it lost it.
    pub altname: Option<String>,
    /// Its alias: the ids of the store and of the commit.
    pub alias: Option<String>,
    /// Its index, by which two looks are known to show the same link.
    #[serde(skip)]
    pub index: u32,
    /// The id in its altname, or the one it is given to be addressed by.
    #[serde(skip)]
    pub id: Uuid,
}

impl Leftover {
    /// Whether it leads a network to other hosts, and is no port's device.
    pub fn is_segments(&self) -> bool {
        let altname = self.altname.as_deref().and_then(names::parse_segment_altname);
        altname.or(self.alias.as_deref().and_then(names::tagged_segment)).is_some()
    }

    /// The leftover as a deviation.
    pub fn deviation(&self) -> Deviation {
        let have = match (&self.altname, &self.alias) {
            (Some(altname), _) => format!("a {} with the altname {altname}", self.kind),
            (None, alias) => format!("a {} with the alias {}", self.kind, alias.as_deref().unwrap_or_default()),
        };
        Deviation::new("leftover", self.object.clone(), "a record, or no such link", have)
    }
}
