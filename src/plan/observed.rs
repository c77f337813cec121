//! What the kernel was last seen to hold.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::filter::DeviceFilter;
use crate::model::names::SegmentKind;
use crate::model::names::{FIRST_INDEX, NAME_CHOICES};
use crate::model::{Mac, NetworkId, PortId, RateLimit, names};

use super::forward::Forward;
use super::overlay::{Entry as OverlayEntry, SeenEntries};

/// One link, as one look showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// Its index in the host's namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its further names, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub altnames: Vec<String>,
    /// Its alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// Its MAC; none where it has none of six octets.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up (`IFF_UP`).
    pub up: bool,
    /// Whether it has carrier (`IFF_LOWER_UP`), which is what the other side's presence shows as.
    pub lower_up: bool,
    /// The bridge or bond it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<u32>,
    /// The link below it (`IFLA_LINK`): what a VLAN or a macvlan is on, or a veth's other end; none in another namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower: Option<u32>,
    /// Its group (`IFLA_GROUP`), 0 unless it was moved.
    #[serde(default)]
    pub group: u32,
    /// Addresses of the host's on it that are not to be there. Looked for on links marked as ours alone: on a device any, on a
    /// bridge what the kernel made by itself, as an operator may give it others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_addresses: Vec<Address>,
    /// The host's own addresses on it, and those that the host knows others by there; none on a device of ours, and no link-local
    /// ones. No guest on the same segment can have one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostAddress>,
    /// The link whose segment this one is on: a macvlan's or ipvlan's parent, a veth's other end, where that is in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<u32>,
    /// Whether the kernel would give it an IPv6 address of its own (`IFLA_INET6_ADDR_GEN_MODE` other than none).
    pub v6_autoconf: bool,
    /// Whether the host's IPv4 would take packets from it or answer ARP on it, were it in no bridge: `rp_filter` is off, or
    /// `arp_ignore` is not 8.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub v4_open: bool,
    /// What it has beyond a bridge as nicd makes one; nothing of it where it is no bridge.
    #[serde(default, skip_serializing_if = "BridgeExtras::is_none")]
    pub extras: BridgeExtras,
    /// Whether the host's stack gets no frame through it. Looked for on bridges marked as ours alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_closed: bool,
    /// Whether it is a bridge through which the host takes router advertisements: it is up, has IPv6, and its `accept_ra`
    /// is in force beside its `forwarding`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub takes_ras: bool,
    /// Whether it hands its frames to the host's packet filter by its own setting, as a bridge (`nf_call_iptables`).
    #[serde(default, skip_serializing_if = "NfCall::is_none")]
    pub nf_call: NfCall,
    /// What frames meet in the host's packet filter on their way through it, as a bridge.
    #[serde(default, skip_serializing_if = "Forward::is_open")]
    pub forward: Forward,
    /// Its settings as a bridge's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge_port: Option<BridgePort>,
    /// What it may send as a port's device.
    #[serde(default, skip_serializing_if = "DeviceFilter::is_unavailable")]
    pub filter: DeviceFilter,
    /// Whether this kernel was shown not to keep to such a filter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unproven: bool,
    /// What untagged frames meet there as a port of a bridge that tells VLANs apart. None where the bridge does not, or where it
    /// was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<PortVlan>,
    /// The entries of its bridge's FDB that are static and lead to it, of those for its guest's MAC. None where they were not
    /// looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fdb: Option<Vec<FdbEntry>>,
    /// The rate that nicd gave what it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_guest: Option<TokenBucket>,
    /// The exact rate of what comes in by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_guest: Option<TokenBucket>,
    /// Its settings as a tap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<TapSeen>,
    /// The tag that its frames have on the link below it, as a VLAN device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<VlanTag>,
    /// Its settings as a VXLAN device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan: Option<VxlanSeen>,
}

/// The UDP port of VXLAN (RFC 7348, 5).
pub const VXLAN_PORT: u16 = 4789;

/// A VXLAN device's settings (`IFLA_INFO_DATA`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VxlanSeen {
    /// Its number (VNI).
    pub vni: u32,
    /// Its UDP port.
    pub port: u16,
    /// The address that it sends from; none where the kernel chooses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// Whether it learns who is behind which tunnel.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learning: bool,
    /// Whether another setting is not as nicd makes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub altered: bool,
}

/// The tag of a VLAN device (`IFLA_VLAN_ID`, `IFLA_VLAN_PROTOCOL`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VlanTag {
    /// The VLAN's id, 1 to 4094.
    pub id: u16,
    /// The tag's EtherType.
    #[serde(default)]
    pub protocol: VlanProtocol,
}

/// The EtherType of a VLAN's tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VlanProtocol {
    /// 802.1Q, 0x8100.
    #[default]
    Dot1q,
    /// 802.1ad, 0x88a8: the outer tag of QinQ.
    Dot1ad,
}

impl fmt::Display for VlanTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            VlanProtocol::Dot1q => write!(f, "VLAN {}", self.id),
            VlanProtocol::Dot1ad => write!(f, "VLAN {} of 802.1ad", self.id),
        }
    }
}

/// An address on a link's segment that is no guest's to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostAddress {
    /// The address.
    pub ip: IpAddr,
    /// Whose it is.
    pub of: HostUse,
}

/// Whose an address is that is no guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostUse {
    /// The host's own.
    Own,
    /// The other end of an address of the host's (`IFA_ADDRESS` beside another `IFA_LOCAL`).
    Peer,
    /// The next hop of a route of the host's.
    NextHop,
}

/// Whose a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// This nicd made it.
    Us,
    /// A nicd with another store made it.
    OtherStore(Uuid),
    /// Another program made it.
    Stranger,
}

/// What is known of a port's device beside its altname.
#[derive(Debug, Clone, Copy)]
pub struct Traces<'a> {
    /// Its alias.
    pub alias: &'a str,
    /// Its guest's MAC.
    pub mac: Option<Mac>,
    /// The index it was last seen with.
    pub index: Option<u32>,
}

/// What kind of link it is (`IFLA_INFO_KIND`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A tap (`tun` in tap mode).
    Tap,
    /// One end of a veth pair.
    Veth,
    /// A bridge.
    Bridge,
    /// A VLAN device.
    Vlan,
    /// A VXLAN device.
    Vxlan,
    /// Anything else.
    Other,
}

impl Kind {
    /// Whether a port's device can be of it.
    pub fn is_device(&self) -> bool {
        matches!(self, Self::Tap | Self::Veth | Self::Vlan)
    }

    /// The word for it, as in its JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Veth => "veth",
            Self::Bridge => "bridge",
            Self::Vlan => "vlan",
            Self::Vxlan => "vxlan",
            Self::Other => "other",
        }
    }
}

impl From<SegmentKind> for Kind {
    fn from(kind: SegmentKind) -> Self {
        match kind {
            SegmentKind::Vlan => Self::Vlan,
            SegmentKind::Vxlan => Self::Vxlan,
        }
    }
}

/// An address with its prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The length of its subnet's prefix.
    pub prefix: u8,
}

/// What a bridge can do beyond forwarding, and an agent-made one does not (`IFLA_INFO_DATA`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgeExtras {
    /// It speaks the spanning tree protocol, or a program does for it.
    pub stp: bool,
    /// It sends multicast where it was asked for alone.
    pub multicast_snooping: bool,
    /// It tells VLANs apart.
    pub vlan_filtering: bool,
}

impl BridgeExtras {
    /// Whether it is a bridge as nicd makes one.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether bridged frames are handed to the chains of IPv4, and to those of IPv6.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NfCall {
    /// `nf_call_iptables`.
    pub v4: bool,
    /// `nf_call_ip6tables`.
    pub v6: bool,
}

impl NfCall {
    /// Whether they are handed to none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A bridge port's settings (`IFLA_INFO_SLAVE_DATA`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgePort {
    /// Whether it forwards (`BR_STATE_FORWARDING`).
    pub forwarding: bool,
    /// Whether a program keeps it from forwarding: its link runs, its bridge is up, and no spanning tree decides.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Whether it learns addresses.
    pub learning: bool,
    /// Whether frames for MACs that have no entry in the FDB are sent to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unicast_flood: bool,
    /// Whether frames that it receives are dropped unless the FDB has an entry for their source that leads to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
    /// Whether the bridge's spanning tree disables it when a BPDU comes from it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bpdu_guard: bool,
    /// Whether another of its flags is not as the kernel makes ports: flooding, isolation and the like.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub altered: bool,
    /// Whether the bridge answers ARP and neighbour discovery for MACs behind it, and sends it none that it has answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suppresses: bool,
    /// Whether it forwards frames to 01:80:c2:00:00:0X as any multicast. Else the bridge gives them to the host's stack as
    /// received by the port itself, past whatever closes the bridge (`br_handle_frame`, net/bridge/br_input.c).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passes_link_local: bool,
}

impl BridgePort {
    /// Whether its flags are those of a port that leads to tunnels, whose ARP and neighbour discovery the bridge answers or not.
    pub fn leads_to_tunnels(&self, suppresses: bool) -> bool {
        let off = self.learning || self.locked || self.bpdu_guard || self.altered;
        self.unicast_flood && self.suppresses == suppresses && self.passes_link_local && !off
    }
}

/// What untagged frames meet at a port of a bridge that tells VLANs apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortVlan {
    /// The VLAN that untagged frames from it are put into; 0 where they are dropped.
    pub pvid: u16,
    /// Whether frames of that VLAN leave by it untagged.
    pub untagged: bool,
    /// Whether that VLAN does not forward at it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blocked: bool,
    /// Whether it is in another VLAN as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub others: bool,
}

impl PortVlan {
    /// Whether untagged frames pass it in both directions.
    pub fn passes(self) -> bool {
        self.pvid != 0 && self.untagged && !self.blocked
    }
}

/// A static entry of a bridge's FDB that leads to one of its ports, and is not the bridge's own (`NUD_NOARP`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FdbEntry {
    /// Whose frames it is for.
    pub mac: Mac,
    /// In which VLAN; 0 on a bridge that does not tell VLANs apart.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vlan: u16,
    /// Whether it stays when a frame from this MAC comes in at another port (`NTF_STICKY`).
    pub sticky: bool,
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}

/// A token bucket: a rate, and how much may come at once after a pause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenBucket {
    /// In bytes per second.
    pub rate: u64,
    /// In bytes.
    pub burst: u32,
}

impl TokenBucket {
    /// The largest burst, which leaves room for the queue in the kernel's 32 bits.
    pub const MAX_BURST: u32 = 1 << 31;

    /// The same with room for a frame of this MTU, and of a VLAN: the kernel drops what is larger than the burst.
    #[must_use]
    pub fn with_room(self, mtu: u32) -> Self {
        Self { burst: self.burst.max(mtu.saturating_add(ETHERNET_HEADER)), ..self }
    }
}

/// Length of an Ethernet header with a tag.
const ETHERNET_HEADER: u32 = 18;

impl From<RateLimit> for TokenBucket {
    fn from(limit: RateLimit) -> Self {
        let burst = u32::try_from(limit.burst_bytes()).unwrap_or(Self::MAX_BURST).min(Self::MAX_BURST);
        Self { rate: limit.bytes_per_second(), burst }
    }
}

impl fmt::Display for TokenBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes/s with bursts of {}", self.rate, self.burst)
    }
}

/// A tap's settings (`IFLA_INFO_DATA`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapSeen {
    /// Whether it outlives its openers.
    pub persist: bool,
    /// Whether it has more than one queue.
    pub multi_queue: bool,
    /// Whether a process holds it open, as far as its carrier and its queues tell: both also while it is down, when nothing is
    /// told of a change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// The user that may open it.
    #[serde(default)]
    pub uid: Option<u32>,
    /// The group that may open it.
    #[serde(default)]
    pub gid: Option<u32>,
}

impl LinkState {
    /// A link of this kind of which nothing else is known: down, without MAC, in no bridge.
    pub fn bare(index: u32, name: impl Into<String>, kind: Kind) -> Self {
        Self {
            index,
            name: name.into(),
            altnames: Vec::new(),
            alias: None,
            kind,
            mac: None,
            mtu: 1500,
            up: false,
            lower_up: false,
            master: None,
            lower: None,
            group: 0,
            foreign_addresses: Vec::new(),
            hosts: Vec::new(),
            beside: None,
            v6_autoconf: false,
            filter: DeviceFilter::Unavailable,
            unproven: false,
            v4_open: false,
            extras: BridgeExtras::default(),
            host_closed: false,
            takes_ras: false,
            nf_call: NfCall::default(),
            forward: Forward::default(),
            bridge_port: None,
            vlan: None,
            fdb: None,
            to_guest: None,
            from_guest: None,
            tap: None,
            tag: None,
            vxlan: None,
        }
    }

    /// Whether it is a tap that a process holds open.
    pub fn is_held(&self) -> bool {
        self.tap.is_some_and(|tap| tap.held)
    }

    /// The static entry that leads to it for this MAC in this VLAN, as far as it was looked for.
    pub fn entry(&self, mac: Mac, vlan: u16) -> Option<FdbEntry> {
        self.fdb.as_ref()?.iter().find(|entry| (entry.mac, entry.vlan) == (mac, vlan)).copied()
    }

    /// In which VLAN of its bridge frames for its guest are: 0 where the bridge does not tell VLANs apart.
    pub fn entry_vlan(&self) -> u16 {
        self.vlan.map_or(0, |vlan| vlan.pvid)
    }

    /// The uuids in its altnames of nicd's form; one, unless another program added some. An altname alone makes no link ours:
    /// [`LinkState::owner`] says whose it is.
    pub fn marks(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.altnames.iter().filter_map(|name| names::parse_altname(name))
    }

    /// The network that it leads to other hosts, by its altname. [`LinkState::owner`] says whose it is.
    pub fn segment(&self) -> Option<(SegmentKind, NetworkId)> {
        self.altnames.iter().find_map(|name| names::parse_segment_altname(name))
    }

    /// Whether it has an altname of nicd's form.
    pub fn is_marked(&self) -> bool {
        self.marks().next().is_some() || self.segment().is_some()
    }

    /// Whose link it is, for the nicd with this store. This is the one rule for what is ours.
    ///
    /// The alias that every device and bridge is given names the store. A link without such an alias is ours only while it is
    /// unfinished, or after another program overwrote the alias: then it has the altname, an index from the range in which nicd
    /// chooses and, as a bridge, a name derived from the altname's id.
    pub fn owner(&self, store: Uuid) -> Owner {
        if self.kind == Kind::Other {
            return Owner::Stranger;
        }
        match self.alias.as_deref().and_then(names::tagged) {
            Some(tagged) if tagged == store => Owner::Us,
            Some(other) => Owner::OtherStore(other),
            None if self.as_made() => Owner::Us,
            None => Owner::Stranger,
        }
    }

    /// Whether the nicd with this store made it.
    pub fn is_of(&self, store: Uuid) -> bool {
        self.owner(store) == Owner::Us
    }

    /// Whether some nicd made it, whichever store that one had.
    pub fn made_by_nicd(&self) -> bool {
        self.owner(Uuid::nil()) != Owner::Stranger
    }

    /// Whether it has nothing left that tells whose it is but an index from the range in which nicd chooses: a device of which
    /// altname and alias were taken off.
    pub fn is_stripped(&self) -> bool {
        let device = self.kind.is_device() && self.index >= FIRST_INDEX;
        device && self.marks().next().is_none() && self.alias.as_deref().and_then(names::tagged).is_none()
    }

    /// Whether it has a mark, and an index from the range in which nicd chooses. A bridge also has its name: others give bridges
    /// indexes as well. A device may have been renamed.
    fn as_made(&self) -> bool {
        let named = |mark: Uuid| match self.kind {
            Kind::Bridge => (0..NAME_CHOICES).any(|choice| names::network_bridge(NetworkId(mark), choice).as_str() == self.name),
            _ => true,
        };
        let leads = self.segment().is_some_and(|(kind, _)| self.kind == kind.into() && self.index >= kind.first_index());
        leads || self.index >= FIRST_INDEX && self.marks().any(named)
    }
}

/// The most ports a bridge has: `BR_MAX_PORTS` less the number 0, which is never given (`find_portno`, net/bridge/br_if.c).
pub const BRIDGE_PORTS: usize = 1023;

/// With so many ports a bridge is nearly full: 90 % of what it can have.
pub const NEARLY_FULL: usize = (BRIDGE_PORTS * 9).div_ceil(10);

/// With so few ports again it is nearly full no longer: 85 % of what it can have.
pub const ROOM_AGAIN: usize = BRIDGE_PORTS * 85 / 100;

/// All links of the host's namespace, kept true by looks; found by index, by any name and by mark in constant time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<LinkState>", into = "Vec<LinkState>")]
pub struct Observed {
    /// The store of the nicd that looks, by which it knows its own links.
    store: Uuid,
    links: BTreeMap<u32, LinkState>,
    /// Names and altnames.
    names: HashMap<String, u32>,
    /// Aliases of links without a mark of ours: one that lost its mark is found again by its alias.
    unmarked: BTreeSet<(String, u32)>,
    /// How many links are in each bridge or bond.
    members: HashMap<u32, usize>,
    /// Those of them that are nearly full.
    crowded: BTreeSet<u32>,
    /// Links with addresses that no guest on their segment can have.
    addressed: BTreeSet<u32>,
    /// Devices that untagged frames do not pass.
    deaf: BTreeSet<u32>,
    /// Bridges whose frames the host's packet filter drops.
    closed: BTreeSet<u32>,
    /// Links by MAC.
    macs: BTreeSet<(Mac, u32)>,
    /// How many links with an MTU are in each bridge: ours, and others'.
    mtus: BTreeMap<(u32, bool, u32), usize>,
    /// VLAN devices, by the link below them and their tag; the kernel keeps those unique.
    vlans: BTreeMap<(u32, VlanTag), u32>,
    /// VXLAN devices, by their number and UDP port.
    vnis: BTreeSet<(u32, u16, u32)>,
    /// The entries that lead to other hosts, as last looked for and changed since, by the VXLAN device.
    entries: HashMap<u32, SeenEntries>,
    /// Bridges whose DHCP requests are heard.
    heard: BTreeSet<u32>,
    /// What machines say of the NICs that are to be plugged into them.
    nics: BTreeMap<PortId, MachineNic>,
}

/// What a machine said of a port's NIC when it was asked last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineNic {
    /// It has it.
    Plugged {
        /// Where, as far as the machine has given it an address.
        pci_address: Option<String>,
    },
    /// It has it not, or could not be asked.
    Missing {
        /// The stable word for why.
        reason: &'static str,
        /// The sentence.
        detail: String,
    },
}

impl Observed {
    /// Notes whether the DHCP requests of a bridge's ports are heard.
    pub fn hear(&mut self, bridge: u32, is_heard: bool) {
        if is_heard {
            self.heard.insert(bridge)
        } else {
            self.heard.remove(&bridge)
        };
    }

    /// Notes what a machine says of a port's NIC; none when nothing is known any more.
    pub fn note_nic(&mut self, port: PortId, said: Option<MachineNic>) {
        match said {
            Some(said) => _ = self.nics.insert(port, said),
            None => _ = self.nics.remove(&port),
        }
    }

    /// What a machine said of a port's NIC when it was asked last; none where none was.
    pub fn nic(&self, port: PortId) -> Option<&MachineNic> {
        self.nics.get(&port)
    }

    /// Whether the DHCP requests of a bridge's ports are heard.
    pub fn is_heard(&self, bridge: u32) -> bool {
        self.heard.contains(&bridge)
    }

    /// The same, seen by the nicd that has this store.
    #[must_use]
    pub fn seen_by(mut self, store: Uuid) -> Self {
        self.store = store;
        self
    }

    /// The store of the nicd that looks.
    pub fn store(&self) -> Uuid {
        self.store
    }

    /// Whether this nicd made a link.
    pub fn ours(&self, link: &LinkState) -> bool {
        link.owner(self.store) == Owner::Us
    }

    /// Takes in what a look showed, in place of what was known of that index.
    pub fn insert(&mut self, link: LinkState) {
        let entries = self.entries.remove(&link.index);
        self.remove(link.index);
        self.entries.extend(entries.map(|entries| (link.index, entries)));
        for name in link.altnames.iter().chain([&link.name]) {
            self.names.insert(name.clone(), link.index);
        }
        if let Some(alias) = link.alias.as_ref().filter(|_| link.marks().next().is_none()) {
            self.unmarked.insert((alias.clone(), link.index));
        }
        if let Some(mac) = link.mac {
            self.macs.insert((mac, link.index));
        }
        if let Some(master) = link.master {
            *self.mtus.entry((master, link.made_by_nicd(), link.mtu)).or_default() += 1;
            let members = self.members.entry(master).or_default();
            *members += 1;
            if *members >= NEARLY_FULL {
                self.crowded.insert(master);
            }
        }
        if let Some(place) = link.lower.zip(link.tag) {
            self.vlans.insert(place, link.index);
        }
        if let Some(vxlan) = link.vxlan {
            self.vnis.insert((vxlan.vni, vxlan.port, link.index));
        }
        if !link.hosts.is_empty() {
            self.addressed.insert(link.index);
        }
        if [&link.forward.v4, &link.forward.v6].iter().any(|way| way.closed().is_some()) {
            self.closed.insert(link.index);
        }
        if link.vlan.is_some_and(|vlan| !vlan.passes()) {
            self.deaf.insert(link.index);
        }
        self.links.insert(link.index, link);
    }

    /// Forgets a link that is gone, and gives back what was known of it.
    pub fn remove(&mut self, index: u32) -> Option<LinkState> {
        let link = self.links.remove(&index)?;
        self.addressed.remove(&index);
        self.entries.remove(&index);
        if let Some(vxlan) = link.vxlan {
            self.vnis.remove(&(vxlan.vni, vxlan.port, index));
        }
        self.deaf.remove(&index);
        self.closed.remove(&index);
        if let Some(alias) = &link.alias {
            self.unmarked.remove(&(alias.clone(), index));
        }
        for name in link.altnames.iter().chain([&link.name]) {
            if self.names.get(name) == Some(&index) {
                self.names.remove(name);
            }
        }
        if let Some(place) = link.lower.zip(link.tag).filter(|place| self.vlans.get(place) == Some(&index)) {
            self.vlans.remove(&place);
        }
        if let Some(mac) = link.mac {
            self.macs.remove(&(mac, index));
        }
        if let Some(master) = link.master {
            self.leave(master);
            if let Entry::Occupied(mut count) = self.mtus.entry((master, link.made_by_nicd(), link.mtu)) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
        Some(link)
    }

    fn leave(&mut self, master: u32) {
        let left = self.members(master).saturating_sub(1);
        if left < NEARLY_FULL {
            self.crowded.remove(&master);
        }
        match left {
            0 => self.members.remove(&master),
            left => self.members.insert(master, left),
        };
    }

    /// How many links are in a bridge.
    pub fn members(&self, bridge: u32) -> usize {
        self.members.get(&bridge).copied().unwrap_or_default()
    }

    /// The lowest and the highest MTU of the links in a bridge that nicd made (`ours`), or that others made.
    fn mtus(&self, bridge: u32, ours: bool) -> Option<(u32, u32)> {
        let mut all = self.mtus.range((bridge, ours, 0)..=(bridge, ours, u32::MAX)).map(|((_, _, mtu), _)| *mtu);
        let lowest = all.next()?;
        Some((lowest, all.next_back().unwrap_or(lowest)))
    }

    /// The MTU of an existing bridge, for a port that needs `wanted`.
    ///
    /// A bridge whose MTU was never set follows the smallest port (`br_mtu_auto_adjust`, net/bridge/br_if.c). Where that is a
    /// device of ours, below what the port's network asks for, another program has changed that device. It is set back,
    /// and the bridge follows; so the bridge counts with what the rest of its ports have.
    pub fn bridge_mtu(&self, bridge: &LinkState, wanted: u32) -> u32 {
        let Some((lowest, highest)) = self.mtus(bridge.index, true) else { return bridge.mtu };
        let others = self.mtus(bridge.index, false).map(|(lowest, _)| lowest);
        let dragged = bridge.mtu < wanted && lowest == bridge.mtu && others.is_none_or(|others| others > bridge.mtu);
        if !dragged {
            return bridge.mtu;
        }
        let right = Some(highest).filter(|highest| *highest > bridge.mtu);
        right.into_iter().chain(others).min().unwrap_or(wanted)
    }

    /// A link of the host's that has this MAC on a bridge's segment: the bridge, a link in it, one below or above such a link.
    pub fn with_mac_on(&self, mac: Mac, bridge: u32) -> Option<&LinkState> {
        let with = self.macs.range((mac, 0)..=(mac, u32::MAX)).filter_map(|(_, index)| self.links.get(index));
        with.into_iter().find(|link| self.on_segment(link.index, bridge))
    }

    /// Whether a link's frames are on a bridge's segment: walking to what it is in and to what is below it leads to the bridge.
    fn on_segment(&self, link: u32, bridge: u32) -> bool {
        let (mut seen, mut next) = (BTreeSet::new(), vec![link]);
        while let Some(index) = next.pop() {
            if index == bridge {
                return true;
            }
            if let Some(link) = self.links.get(&index).filter(|_| seen.insert(index)) {
                next.extend(link.master.into_iter().chain(link.lower));
            }
        }
        false
    }

    /// The bridges that are nearly full, by index.
    pub fn crowded(&self) -> impl Iterator<Item = &LinkState> {
        self.crowded.iter().filter_map(|index| self.links.get(index))
    }

    /// The bridges whose frames the host's packet filter drops.
    pub fn filtered(&self) -> impl Iterator<Item = &LinkState> {
        self.closed.iter().filter_map(|index| self.links.get(index))
    }

    /// The devices that untagged frames do not pass, each with its bridge, which tells VLANs apart.
    pub fn deaf(&self) -> impl Iterator<Item = (&LinkState, &LinkState)> {
        let devices = self.deaf.iter().filter_map(|index| self.links.get(index)).filter(|link| self.is_device(link));
        devices.filter_map(|link| Some((link, self.links.get(&link.master?).filter(|bridge| bridge.extras.vlan_filtering)?)))
    }

    /// The addresses that no guest can have, with the bridge on whose segment they are and the link that shows them.
    pub fn hosts(&self) -> impl Iterator<Item = (u32, &LinkState, HostAddress)> {
        let links = self.addressed.iter().filter_map(|index| self.links.get(index));
        links.flat_map(move |link| {
            let bridge = self.segment_of(link);
            link.hosts.iter().filter_map(move |host| Some((bridge?, link, *host)))
        })
    }

    /// The same on one bridge's segment. Costs a look at each link of the host that has addresses, and they are few.
    pub fn hosts_on(&self, bridge: u32) -> impl Iterator<Item = (&LinkState, HostAddress)> {
        self.hosts().filter(move |(on, ..)| *on == bridge).map(|(_, link, host)| (link, host))
    }

    /// The bridge on whose segment a link is: itself, the one it is a port of, or the one that the link beside it is on.
    fn segment_of(&self, link: &LinkState) -> Option<u32> {
        let bridge = |link: &LinkState| if link.kind == Kind::Bridge { Some(link.index) } else { link.master };
        bridge(link).or_else(|| bridge(self.links.get(&link.beside?)?))
    }

    /// The link with this index.
    pub fn link(&self, index: u32) -> Option<&LinkState> {
        self.links.get(&index)
    }

    /// The link with this name or altname.
    pub fn named(&self, name: &str) -> Option<&LinkState> {
        self.names.get(name).and_then(|index| self.links.get(index))
    }

    /// A port's device: the link with its altname, if that is ours.
    pub fn device(&self, port: PortId) -> Option<&LinkState> {
        self.named(&names::port_altname(port)).filter(|link| self.is_device(link))
    }

    /// The link that has a port's altname and is not its device.
    pub fn in_place_of_device(&self, port: PortId) -> Option<&LinkState> {
        self.named(&names::port_altname(port)).filter(|link| !self.is_device(link))
    }

    /// A network's agent-made bridge: the link with its altname, if that is ours.
    pub fn own_bridge(&self, network: NetworkId) -> Option<&LinkState> {
        self.named(&names::network_altname(network)).filter(|link| self.is_own_bridge(link))
    }

    /// The link that has a network's altname and is not its bridge.
    pub fn in_place_of_bridge(&self, network: NetworkId) -> Option<&LinkState> {
        self.named(&names::network_altname(network)).filter(|link| !self.is_own_bridge(link))
    }

    /// A network's agent-made bridge that lost its altname: the one that still has its alias.
    pub fn unmarked_bridge(&self, network: NetworkId) -> Option<&LinkState> {
        self.unmarked(&names::bridge_tag(self.store, network)).filter(|link| link.kind == Kind::Bridge)
    }

    /// The device that leads a network to other hosts: the link with its altname, if that is ours.
    pub fn own_segment(&self, kind: SegmentKind, network: NetworkId) -> Option<&LinkState> {
        self.named(&names::segment_altname(kind, network)).filter(|link| self.is_own_segment(kind, link))
    }

    /// The link that has the altname of such a device, and is not it.
    pub fn in_place_of_segment(&self, kind: SegmentKind, network: NetworkId) -> Option<&LinkState> {
        self.named(&names::segment_altname(kind, network)).filter(|link| !self.is_own_segment(kind, link))
    }

    /// Such a device that lost its altname: the one that still has its alias.
    pub fn unmarked_segment(&self, kind: SegmentKind, network: NetworkId) -> Option<&LinkState> {
        let lost = self.unmarked(&names::segment_tag(kind, self.store, network));
        lost.filter(|link| link.kind == kind.into() && link.segment().is_none())
    }

    /// The VXLAN devices with this number and UDP port.
    pub fn vxlans(&self, vni: u32, port: u16) -> impl Iterator<Item = &LinkState> {
        let with = self.vnis.range((vni, port, 0)..=(vni, port, u32::MAX));
        with.filter_map(|(.., index)| self.links.get(index))
    }

    /// The link that has an address of the host's.
    pub fn with_address(&self, ip: IpAddr) -> Option<&LinkState> {
        let has = |link: &&LinkState| link.hosts.iter().any(|host| host.ip == ip && host.of == HostUse::Own);
        self.addressed.iter().filter_map(|index| self.links.get(index)).find(has)
    }

    /// The entries of a network that lead to other hosts, as far as they were looked for.
    pub fn entries(&self, network: NetworkId) -> Option<&SeenEntries> {
        self.entries.get(&self.own_segment(SegmentKind::Vxlan, network)?.index)
    }

    /// Notes the entries that were found of a VXLAN device.
    pub fn note_entries(&mut self, seen: SeenEntries) {
        if self.links.contains_key(&seen.device) {
            self.entries.insert(seen.device, seen);
        }
    }

    /// Notes the entries that were set and removed since.
    pub fn change_entries(&mut self, device: u32, put: &BTreeSet<OverlayEntry>, removed: &BTreeSet<OverlayEntry>) {
        if let Some(seen) = self.entries.get_mut(&device) {
            removed.iter().for_each(|entry| _ = seen.entries.remove(entry));
            seen.entries.extend(put.iter().cloned());
        }
    }

    /// The VLAN device on a link with this tag.
    pub fn vlan_on(&self, link: u32, tag: VlanTag) -> Option<&LinkState> {
        self.vlans.get(&(link, tag)).and_then(|index| self.links.get(index))
    }

    fn is_own_segment(&self, kind: SegmentKind, link: &LinkState) -> bool {
        link.kind == kind.into() && self.ours(link)
    }

    /// Whether a link is a port's device, of those kinds, that this nicd made.
    pub fn is_device(&self, link: &LinkState) -> bool {
        link.kind.is_device() && self.ours(link)
    }

    fn is_own_bridge(&self, link: &LinkState) -> bool {
        link.kind == Kind::Bridge && self.ours(link)
    }

    /// The one link without a mark that has this alias; none when several have.
    pub fn unmarked(&self, alias: &str) -> Option<&LinkState> {
        let mut with = self.unmarked.range((alias.to_owned(), 0)..=(alias.to_owned(), u32::MAX));
        let (_, index) = with.next()?;
        with.next().is_none().then(|| self.links.get(index))?
    }

    /// A port's device that lost its altname: the link with the index that it was last seen with, unless that is marked as
    /// another's by now; else the one link that has its alias; else the one without alias that has its MAC, which nicd keeps from
    /// others.
    pub fn lost_device(&self, traces: &Traces<'_>) -> Option<&LinkState> {
        let stripped = |index: &u32| self.links.get(index).filter(|link| link.is_stripped());
        let with_alias = |link: &&LinkState| link.alias.as_deref() == Some(traces.alias) && link.marks().next().is_none();
        let last = traces.index.and_then(|index| stripped(&index).or_else(|| self.links.get(&index).filter(with_alias)));
        last.or_else(|| self.unmarked(traces.alias)).or_else(|| {
            let mac = traces.mac?.host_side();
            let mut with = self.macs.range((mac, 0)..=(mac, u32::MAX)).filter_map(|(_, index)| stripped(index));
            let link = with.next()?;
            with.next().is_none().then_some(link)
        })
    }

    /// All links, by index.
    pub fn iter(&self) -> impl Iterator<Item = &LinkState> {
        self.links.values()
    }
}

impl From<Vec<LinkState>> for Observed {
    fn from(links: Vec<LinkState>) -> Self {
        let mut have = Self::default();
        for link in links {
            have.insert(link);
        }
        have
    }
}

impl From<Observed> for Vec<LinkState> {
    fn from(have: Observed) -> Self {
        have.links.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, master: Option<u32>) -> LinkState {
        LinkState { up: true, lower_up: true, master, ..LinkState::bare(index, format!("link{index}"), Kind::Other) }
    }

    #[test]
    fn members_are_counted_as_they_come_move_and_go() {
        let mut have = Observed::default();
        for index in 1..=3 {
            have.insert(link(index, None));
        }
        let members = |have: &Observed| [1, 2, 3].map(|bridge| have.members(bridge));
        for (seen, expected) in [
            (link(4, Some(1)), [1, 0, 0]),
            (link(4, Some(1)), [1, 0, 0]),
            (link(5, Some(1)), [2, 0, 0]),
            (link(4, Some(2)), [1, 1, 0]),
            (link(5, None), [0, 1, 0]),
        ] {
            have.insert(seen);
            assert_eq!(members(&have), expected);
        }
        have.remove(4);
        assert_eq!((members(&have), have.members.len()), ([0, 0, 0], 0), "nothing is kept of what is no more");
    }

    #[test]
    fn the_hosts_addresses_are_those_on_the_bridges_segment() {
        let host = |last: u8, of| HostAddress { ip: [10, 9, 0, last].into(), of };
        let bridge = LinkState {
            hosts: vec![host(2, HostUse::Own), host(254, HostUse::NextHop)],
            ..LinkState::bare(1, "br0", Kind::Bridge)
        };
        let uplink = LinkState { hosts: vec![host(3, HostUse::Own)], ..link(2, Some(1)) };
        let macvlan = LinkState { hosts: vec![host(4, HostUse::Own)], beside: Some(1), ..link(3, None) };
        let leg = LinkState { master: Some(1), beside: Some(5), ..LinkState::bare(4, "leg", Kind::Veth) };
        let foot = LinkState { hosts: vec![host(5, HostUse::Own)], beside: Some(4), ..LinkState::bare(5, "foot", Kind::Veth) };
        let other = LinkState { hosts: vec![host(6, HostUse::Own)], ..link(6, None) };
        let mut have = Observed::from(vec![bridge, uplink, macvlan, leg, foot, other]);
        let on = |have: &Observed| have.hosts_on(1).map(|(_, host)| host.ip.to_string()).collect::<Vec<_>>();
        assert_eq!(on(&have), ["10.9.0.2", "10.9.0.254", "10.9.0.3", "10.9.0.4", "10.9.0.5"]);
        have.remove(3);
        have.insert(link(1, None));
        assert_eq!(on(&have), ["10.9.0.3", "10.9.0.5"], "what is no longer told is no longer known");
    }

    #[test]
    fn a_bridge_dragged_down_by_one_of_ours_counts_with_what_the_rest_have() {
        let port = |index: u32, mtu| LinkState {
            mtu,
            alias: Some(names::device_tag(Uuid::nil(), index.into())),
            kind: Kind::Tap,
            ..link(index, Some(1))
        };
        let other = |index, mtu| LinkState { mtu, ..link(index, Some(1)) };
        let seen = |mtu, ports: &[LinkState], wanted| {
            let bridge = LinkState { mtu, kind: Kind::Bridge, ..link(1, None) };
            let mut have = Observed::default();
            [std::slice::from_ref(&bridge), ports].concat().into_iter().for_each(|link| have.insert(link));
            have.bridge_mtu(&bridge, wanted)
        };
        assert_eq!(seen(1500, &[port(2, 1500), port(3, 1500)], 1500), 1500);
        assert_eq!(seen(1400, &[port(2, 1400), port(3, 1500)], 1500), 1500, "one of ours drags");
        assert_eq!(seen(1400, &[port(2, 1400)], 1500), 1500, "the only one drags");
        assert_eq!(seen(1400, &[port(2, 1400), port(3, 9000), other(4, 9000)], 1500), 9000, "what the rest have");
        assert_eq!(seen(1400, &[port(2, 1400), port(3, 9000), other(4, 4000)], 1500), 4000, "the smallest of others'");
        assert_eq!(seen(1400, &[port(2, 1400), other(4, 1400)], 1500), 1400, "another's is as small");
        assert_eq!(seen(1400, &[port(2, 1500)], 1500), 1400, "an operator has set it");
        assert_eq!(seen(1400, &[], 1500), 1400);
        assert_eq!(seen(1400, &[port(2, 1400), port(3, 1500)], 1300), 1400, "it is enough");
    }

    #[test]
    fn macs_are_found_on_the_segment_and_nowhere_else() {
        let mac = |n| Mac([2, 0, 0, 0, 0, n]);
        let with = |n, at: LinkState| LinkState { mac: Some(mac(n)), ..at };
        let below = |index, lower| LinkState { lower: Some(lower), ..link(index, None) };
        let mut have = Observed::default();
        for link in [
            with(1, link(1, None)),
            with(2, link(2, Some(1))),
            with(3, link(3, Some(4))),
            with(4, link(4, Some(1))),
            with(5, below(5, 1)),
            with(6, below(6, 7)),
            with(7, link(7, Some(1))),
            with(8, link(8, None)),
            with(9, link(9, Some(8))),
        ] {
            have.insert(link);
        }
        let found = |n| have.with_mac_on(mac(n), 1).map(|link| link.index);
        assert_eq!(
            (1..=9).map(found).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6, 7].map(Some).into_iter().chain([None, None]).collect::<Vec<_>>()
        );
        have.remove(2);
        assert_eq!(have.with_mac_on(mac(2), 1), None);
    }

    #[test]
    fn a_bridge_is_crowded_from_nine_tenths_on() {
        let mut have = Observed::default();
        have.insert(link(1, None));
        let crowded = |have: &Observed| have.crowded().map(|bridge| bridge.index).collect::<Vec<_>>();
        for index in 2..922 {
            have.insert(link(index, Some(1)));
        }
        assert_eq!((have.members(1), crowded(&have)), (920, vec![]));
        have.insert(link(922, Some(1)));
        assert_eq!(crowded(&have), [1]);
        have.insert(link(922, None));
        assert!(crowded(&have).is_empty());
    }
}
