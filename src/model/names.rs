//! Names of links on the host and in guests: the kernel's rules, and the derivation of nicd's names.
//!
//! A device's name is for display; its identity is the altname (`nicd-<uuid>`), which the kernel keeps unique.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ids::{NetworkId, PortId};

/// The kernel's `IFNAMSIZ - 1`.
pub const MAX_NAME: usize = 15;

/// The lowest index that nicd chooses. The kernel assigns indexes from 1 upwards and does not get this far in practice, so an index
/// from here on shows that its creator chose it.
pub const FIRST_INDEX: u32 = 0x0100_0000;

/// The lowest index that nicd chooses for the VLAN device of a network. It is below [`FIRST_INDEX`]: what comes by a device
/// from there on is dropped unless it has elements in the filters, and the physical network has none.
pub const FIRST_SEGMENT_INDEX: u32 = FIRST_INDEX / 2;

/// The lowest index that nicd chooses for the VXLAN device of a network. The filters know a frame from a tunnel by the range from here to
/// [`FIRST_SEGMENT_INDEX`].
pub const FIRST_TUNNEL_INDEX: u32 = FIRST_SEGMENT_INDEX / 2;

/// How many device names a port's UUID yields before the choice wraps.
pub const NAME_CHOICES: usize = 3;

/// A link's name that the kernel accepts (`dev_valid_name`, net/core/dev.c): 1 to 15 bytes, no `/`, `:` or white
/// space, not `.` or `..`; and no `%`, which the kernel takes for a pattern.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkName(String);

/// A text that cannot name a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{value}' cannot name an interface: 1 to 15 bytes without '/', ':', '%' or white space, and not '.' or '..', are expected"
)]
pub struct BadLinkName {
    /// What was given, cut to 64 characters.
    pub value: String,
}

impl LinkName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LinkName {
    type Err = BadLinkName;

    fn from_str(text: &str) -> Result<Self, BadLinkName> {
        let refused = |c: char| c == '/' || c == ':' || c == '%' || c == '\0' || c.is_whitespace() || c.is_control();
        if text.is_empty() || text.len() > MAX_NAME || text == "." || text == ".." || text.contains(refused) {
            return Err(BadLinkName { value: text.chars().take(64).collect() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for LinkName {
    type Error = BadLinkName;

    fn try_from(text: String) -> Result<Self, BadLinkName> {
        text.parse()
    }
}

impl From<LinkName> for String {
    fn from(name: LinkName) -> String {
        name.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The altname of a port's device.
pub fn port_altname(port: PortId) -> String {
    format!("nicd-{port}")
}

/// The id of a port's NIC in a virtual machine, and of its backend there.
pub fn machine_nic(port: PortId) -> String {
    port_altname(port)
}

/// The altname of the device that holds a port's guest to an exact rate (`ifb`).
pub fn ifb_altname(port: PortId) -> String {
    format!("nicd-ifb-{port}")
}

/// Whether an altname is such a device's.
pub fn is_ifb_altname(altname: &str) -> bool {
    altname.strip_prefix("nicd-ifb-").is_some_and(|port| uuid::Uuid::try_parse(port).is_ok())
}

/// The alias of that device, by which no other one is taken for it: the store's id.
pub fn ifb_tag(store: uuid::Uuid) -> String {
    format!("nicd {store} ifb")
}

/// Whether an alias is such a device's.
pub fn is_ifb_tag(alias: &str) -> bool {
    let store = alias.strip_prefix("nicd ").and_then(|rest| rest.strip_suffix(" ifb"));
    store.is_some_and(|store| uuid::Uuid::try_parse(store).is_ok())
}

/// The name of that device.
pub fn port_ifb(port: PortId) -> LinkName {
    let digits = port.0.simple().to_string();
    LinkName(format!("nifb{}", &digits[..11]))
}

/// The index of the ifb of a device with this index, and the other way round. Indexes are counted upwards from the lower half of
/// nicd's range, so the upper half is free.
pub fn ifb_index(device: u32) -> u32 {
    device ^ 0x4000_0000
}

/// The altname of a network's agent-made bridge.
pub fn network_altname(network: NetworkId) -> String {
    format!("nicd-{network}")
}

/// What kind of device leads a network to other hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentKind {
    /// A VLAN device, to its physical network.
    Vlan,
    /// A VXLAN device, to the other hosts of the fleet.
    Vxlan,
}

impl SegmentKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Vlan, Self::Vxlan];

    /// The lowest index that nicd chooses for such a device.
    pub fn first_index(self) -> u32 {
        match self {
            Self::Vlan => FIRST_SEGMENT_INDEX,
            Self::Vxlan => FIRST_TUNNEL_INDEX,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Vlan => "vlan",
            Self::Vxlan => "vxlan",
        }
    }

    /// What the names of such devices begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Vlan => "nvl",
            Self::Vxlan => "nvx",
        }
    }
}

/// The altname of the device that leads a network to other hosts.
pub fn segment_altname(kind: SegmentKind, network: NetworkId) -> String {
    format!("nicd-{}-{network}", kind.word())
}

/// The kind and the network in such an altname.
pub fn parse_segment_altname(altname: &str) -> Option<(SegmentKind, NetworkId)> {
    of_segment(altname.strip_prefix("nicd-")?, '-')
}

/// The alias of that device: the ids of the store and the network.
pub fn segment_tag(kind: SegmentKind, store: uuid::Uuid, network: NetworkId) -> String {
    format!("nicd {store} {} {network}", kind.word())
}

/// The kind and the network in such an alias.
pub fn tagged_segment(alias: &str) -> Option<(SegmentKind, NetworkId)> {
    let (_, of) = alias.strip_prefix("nicd ")?.split_once(' ')?;
    of_segment(of, ' ')
}

/// A kind's word and a network's id, with this between them.
fn of_segment(text: &str, between: char) -> Option<(SegmentKind, NetworkId)> {
    let (word, id) = text.split_once(between)?;
    let kind = SegmentKind::ALL.into_iter().find(|kind| kind.word() == word)?;
    let id = Some(id).filter(|id| id.len() == 36).and_then(|id| uuid::Uuid::try_parse(id).ok())?;
    Some((kind, NetworkId(id)))
}

/// The name of that device: three letters and twelve digits of the network's UUID. On a clash the next twelve.
pub fn segment_device(kind: SegmentKind, network: NetworkId, choice: usize) -> LinkName {
    LinkName(format!("{}{}", kind.prefix(), twelve(network, choice)))
}

/// The UUID in an altname of nicd. The store knows whether it is a port's or a network's.
pub fn parse_altname(altname: &str) -> Option<uuid::Uuid> {
    let text = altname.strip_prefix("nicd-")?;
    (text.len() == 36).then(|| uuid::Uuid::try_parse(text).ok())?
}

/// The ownership tag of a finished device, written as its alias: the store's id, and the number of the commit that recorded the
/// attach.
pub fn device_tag(store: uuid::Uuid, commit: u64) -> String {
    format!("nicd {store} {commit}")
}

/// Higher than any number of commits; half of the range stays free for new ones.
const COMMITS: u64 = 1 << 62;

/// The commit number in a tag of this store's.
pub fn commit_in_tag(alias: &str, store: uuid::Uuid) -> Option<u64> {
    let (by, commit) = alias.strip_prefix("nicd ")?.split_once(' ')?;
    let commit = (uuid::Uuid::try_parse(by).ok()? == store).then(|| commit.parse().ok())?;
    // No store reaches this number, so another program wrote it.
    commit.filter(|commit| *commit < COMMITS)
}

/// The alias of a network's agent-made bridge: the ids of the store and the network.
pub fn bridge_tag(store: uuid::Uuid, network: NetworkId) -> String {
    format!("nicd {store} {network}")
}

/// The store named in an alias that some nicd wrote, on a device, on a bridge or on a device that leads a network to other hosts.
pub fn tagged(alias: &str) -> Option<uuid::Uuid> {
    let (store, of) = alias.strip_prefix("nicd ")?.split_once(' ')?;
    let known = of.parse::<u64>().is_ok() || uuid::Uuid::try_parse(of).is_ok() || of_segment(of, ' ').is_some();
    known.then(|| uuid::Uuid::try_parse(store).ok())?
}

/// The network in the alias of an agent-made bridge.
pub fn tagged_network(alias: &str) -> Option<NetworkId> {
    let (_, network) = alias.strip_prefix("nicd ")?.split_once(' ')?;
    uuid::Uuid::try_parse(network).ok().map(NetworkId)
}

/// The `choice`-th name for a port's device: `nicd` and eleven hexadecimal digits of its UUID, further on for each
/// choice, around at the end.
pub fn port_device(port: PortId, choice: usize) -> LinkName {
    let digits = port.0.simple().to_string();
    let window: String = digits.chars().cycle().skip(11 * (choice % NAME_CHOICES)).take(11).collect();
    LinkName(format!("nicd{window}"))
}

/// What the names of agent-made bridges begin with.
pub const BRIDGES: &str = "nbr";

/// The name of a network's agent-made bridge: `nbr` and twelve digits of its UUID. On a clash the next twelve.
pub fn network_bridge(network: NetworkId, choice: usize) -> LinkName {
    LinkName(format!("{BRIDGES}{}", twelve(network, choice)))
}

fn twelve(network: NetworkId, choice: usize) -> String {
    let digits = network.0.simple().to_string();
    digits.chars().cycle().skip(12 * (choice % NAME_CHOICES)).take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> PortId {
        "ce531f90-199f-48c0-816c-13e38010b442".parse().unwrap()
    }

    #[test]
    fn device_names_walk_through_the_uuid() {
        assert_eq!(port_device(port(), 0).as_str(), "nicdce531f90199");
        assert_eq!(port_device(port(), 1).as_str(), "nicdf48c0816c13");
        assert_eq!(port_device(port(), 2).as_str(), "nicde38010b442c");
        assert!((0..9).all(|choice| port_device(port(), choice).as_str().len() == MAX_NAME));
    }

    #[test]
    fn bridge_names_fit() {
        let network: NetworkId = "3cb9bc59-5699-4588-a4b1-b87f96708bc6".parse().unwrap();
        assert_eq!(network_bridge(network, 0).as_str(), "nbr3cb9bc595699");
        assert_eq!(network_bridge(network, 1).as_str(), "nbr4588a4b1b87f");
        assert_eq!(segment_device(SegmentKind::Vlan, network, 0).as_str(), "nvl3cb9bc595699");
        assert_eq!(segment_device(SegmentKind::Vxlan, network, 1).as_str(), "nvx4588a4b1b87f");
    }

    #[test]
    fn devices_of_segments_are_told_from_ports_and_bridges() {
        let (store, network) = (uuid::Uuid::from_u128(1), NetworkId(uuid::Uuid::from_u128(3)));
        for kind in SegmentKind::ALL {
            let (altname, tag) = (segment_altname(kind, network), segment_tag(kind, store, network));
            assert_eq!((parse_segment_altname(&altname), parse_altname(&altname)), (Some((kind, network)), None));
            assert_eq!((tagged(&tag), tagged_segment(&tag), tagged_network(&tag)), (Some(store), Some((kind, network)), None));
        }
        assert_eq!(parse_segment_altname(&network_altname(network)), None);
        assert_eq!(tagged_segment(&bridge_tag(store, network)), None);
    }

    #[test]
    fn altnames_are_recognised_and_nothing_else_is() {
        assert_eq!(parse_altname(&port_altname(port())), Some(port().0));
        for foreign in ["nicd-", "nicd-1", "eth0", "nicdce531f90199", "nicd-ce531f90199f48c0816c13e38010b442"] {
            assert_eq!(parse_altname(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn seals_are_one_stores() {
        let (ours, others) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
        assert_eq!(commit_in_tag(&device_tag(ours, 7), ours), Some(7));
        assert_eq!(commit_in_tag(&device_tag(others, 7), ours), None);
        for foreign in ["", "nicd", "nicd 1 2", "nicd x y z"] {
            assert_eq!(commit_in_tag(foreign, ours), None, "{foreign}");
        }
    }

    #[test]
    fn tags_name_their_store() {
        let store = uuid::Uuid::from_u128(1);
        let network = NetworkId(uuid::Uuid::from_u128(3));
        assert_eq!(tagged(&device_tag(store, 7)), Some(store));
        assert_eq!(tagged(&bridge_tag(store, network)), Some(store));
        assert_eq!(commit_in_tag(&bridge_tag(store, network), store), None);
        assert_eq!(tagged_network(&bridge_tag(store, network)), Some(network));
        assert_eq!(tagged_network(&device_tag(store, 7)), None);
        for foreign in ["", "nicd", "nicd x 7", "nicd 1 2", "web server", "nicd 00000000-0000-0000-0000-000000000001 uplink"] {
            assert_eq!(tagged(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn names_the_kernel_refuses_are_refused() {
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "eth%d", "a\tb", "0123456789abcdef", "a\0", "é\u{85}"] {
            assert!(bad.parse::<LinkName>().is_err(), "{bad:?}");
        }
        for good in ["a", "eth0", "0123456789abcde", "br-int", "-x"] {
            assert!(good.parse::<LinkName>().is_ok(), "{good}");
        }
    }
}
