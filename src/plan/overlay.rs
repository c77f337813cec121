//! What of a VXLAN network is on other hosts, and the entries of the kernel's tables that lead there.
//!
//! | entry | table | is for |
//! |---|---|---|
//! | [`Entry::Flood`] | the VXLAN device's FDB, MAC 00:00:00:00:00:00 | each host that is sent a copy of what is for all, or for a MAC that nobody is known to have |
//! | [`Entry::Forward`] | the VXLAN device's FDB | the host of a port, by the port's MAC |
//! | [`Entry::Bridge`] | the bridge's FDB | a port's MAC is behind the VXLAN device: what is for it is sent to no local guest |
//! | [`Entry::Neighbour`] | the neighbours of the bridge | a port's address: the bridge answers ARP and neighbour discovery for it |

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};

use crate::model::{Mac, NetworkId};

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A host with ports of the network, by its tunnel address.
    Flood(IpAddr),
    /// The host of the port with this MAC.
    Forward {
        /// The port's MAC.
        mac: Mac,
        /// The tunnel address of its host.
        to: IpAddr,
    },
    /// The port with this MAC is on another host.
    Bridge(Mac),
    /// The port with this MAC has this address.
    Neighbour {
        /// The address.
        ip: IpAddr,
        /// The port's MAC.
        mac: Mac,
    },
    /// One that nicd does not make.
    Strange(Strange),
}

/// An entry that nicd does not make, with what the kernel needs to be told to delete it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strange {
    /// Of the VXLAN device's FDB.
    Tunnel {
        /// Its MAC.
        mac: Mac,
        /// The other end of the tunnel; none for all that the MAC has.
        to: Option<IpAddr>,
        /// The UDP port there, if it is not the device's.
        port: Option<u16>,
        /// The number there, if it is not the device's.
        vni: Option<u32>,
        /// The link that it is bound to.
        via: Option<u32>,
    },
    /// Of the bridge's FDB.
    Bridge {
        /// Its MAC.
        mac: Mac,
        /// Its VLAN; 0 for none.
        vlan: u16,
    },
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flood(host) => write!(f, "copies to {host}"),
            Self::Forward { mac, to } => write!(f, "{mac} at {to}"),
            Self::Bridge(mac) => write!(f, "{mac} behind the tunnels"),
            Self::Neighbour { ip, mac } => write!(f, "{ip} is {mac}"),
            Self::Strange(Strange::Tunnel { mac, to: Some(to), .. }) => write!(f, "{mac} at {to}, not as nicd makes it"),
            Self::Strange(Strange::Tunnel { mac, .. } | Strange::Bridge { mac, .. }) => write!(f, "{mac}, not as nicd makes it"),
        }
    }
}

/// The entries of a network, as a look showed them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenEntries {
    /// The index of its VXLAN device.
    pub device: u32,
    /// The entries.
    pub entries: BTreeSet<Entry>,
    /// Whether the host has IPv6, without which it can have no neighbours of it.
    pub has_v6: bool,
}

impl SeenEntries {
    /// Whether an entry can be among them.
    pub fn can_have(&self, entry: &Entry) -> bool {
        self.has_v6 || !matches!(entry, Entry::Neighbour { ip: IpAddr::V6(_), .. })
    }
}

/// What two entries cannot both have: a new one replaces the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Flood(IpAddr),
    Forward(Mac),
    Bridge(Mac),
    Neighbour(IpAddr),
}

impl Entry {
    fn key(&self) -> Option<Key> {
        match self {
            Self::Flood(ip) => Some(Key::Flood(*ip)),
            Self::Forward { mac, .. } => Some(Key::Forward(*mac)),
            Self::Bridge(mac) => Some(Key::Bridge(*mac)),
            Self::Neighbour { ip, .. } => Some(Key::Neighbour(*ip)),
            Self::Strange(Strange::Tunnel { mac, .. }) if *mac != Mac::NOBODY => Some(Key::Forward(*mac)),
            Self::Strange(Strange::Bridge { mac, vlan: 0 }) => Some(Key::Bridge(*mac)),
            Self::Strange(_) => None,
        }
    }
}

/// Those of `remove` that setting `put` does not replace.
pub fn not_replaced<'a>(put: &BTreeSet<Entry>, remove: &'a BTreeSet<Entry>) -> Vec<&'a Entry> {
    let replaced: BTreeSet<Key> = put.iter().filter_map(Entry::key).collect();
    remove.iter().filter(|entry| entry.key().is_none_or(|key| !replaced.contains(&key))).collect()
}

/// A port on another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// The tunnel address of its host.
    pub host: IpAddr,
    /// Its addresses, for which ARP and neighbour discovery are answered here.
    pub addresses: BTreeSet<IpAddr>,
}

impl Remote {
    /// Whether a port may have this MAC.
    pub fn is_sound(mac: Mac) -> bool {
        mac.for_guest().is_ok() && mac != Mac::NOBODY
    }
}

/// What of one network is on other hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    peers: BTreeSet<IpAddr>,
    remotes: BTreeMap<Mac, Remote>,
    /// Who has an address, for which ARP and neighbour discovery are answered.
    holders: BTreeSet<(IpAddr, Mac)>,
    /// The ports of each host.
    of_host: BTreeSet<(IpAddr, Mac)>,
}

impl Overlay {
    /// The network with ports on these hosts, by their tunnel addresses, and these ports.
    pub fn new(peers: BTreeSet<IpAddr>, remotes: impl IntoIterator<Item = (Mac, Remote)>) -> Self {
        let mut overlay = Self { peers, ..Self::default() };
        for (mac, remote) in remotes {
            overlay.put_remote(mac, remote);
        }
        overlay
    }

    /// Keeps only these hosts, with ports that have such a MAC.
    pub fn retain(&mut self, keeps_host: impl Fn(IpAddr) -> bool, keeps_port: impl Fn(Mac) -> bool) {
        let hosts = self.peers.iter().copied().chain(self.of_host.iter().map(|(host, _)| *host));
        let others: BTreeSet<IpAddr> = hosts.filter(|host| !keeps_host(*host)).collect();
        others.into_iter().for_each(|host| drop(self.remove_peer(host)));
        let ports: Vec<Mac> = self.remotes.keys().copied().filter(|mac| !keeps_port(*mac)).collect();
        ports.into_iter().for_each(|mac| drop(self.remove_remote(mac)));
    }

    /// The hosts that have ports of the network, by their tunnel addresses.
    pub fn peers(&self) -> &BTreeSet<IpAddr> {
        &self.peers
    }

    /// Whether a host has ports of the network. Returns the entries that this is about.
    pub fn put_peer(&mut self, host: IpAddr) -> BTreeSet<Entry> {
        self.peers.insert(host);
        BTreeSet::from([Entry::Flood(host)])
    }

    /// Sends a host no copies of what is for all. Returns the entries that this is about.
    pub fn lose_peer(&mut self, host: IpAddr) -> BTreeSet<Entry> {
        self.peers.remove(&host);
        BTreeSet::from([Entry::Flood(host)])
    }

    /// Forgets a host and all ports on it. Returns the entries that this is about.
    pub fn remove_peer(&mut self, host: IpAddr) -> BTreeSet<Entry> {
        self.peers.remove(&host);
        let ports: Vec<Mac> = of(&self.of_host, host).collect();
        let mut about = BTreeSet::from([Entry::Flood(host)]);
        ports.into_iter().for_each(|mac| about.extend(self.remove_remote(mac)));
        about
    }

    /// Takes in a port on another host, in the place of what was known of its MAC. Returns the entries that this is about.
    pub fn put_remote(&mut self, mac: Mac, remote: Remote) -> BTreeSet<Entry> {
        let mut about = self.remove_remote(mac);
        let mut remote = remote;
        remote.addresses.retain(|ip| !ip.is_multicast() && !ip.is_unspecified());
        for ip in &remote.addresses {
            // Of two ports with one address, as while it moves, the first by MAC counts.
            about.extend(self.neighbour(*ip));
            self.holders.insert((*ip, mac));
            about.extend(self.neighbour(*ip));
        }
        self.of_host.insert((remote.host, mac));
        about.extend([Entry::Forward { mac, to: remote.host }, Entry::Bridge(mac)]);
        self.remotes.insert(mac, remote);
        about
    }

    /// Forgets a port on another host. Returns the entries that this is about.
    pub fn remove_remote(&mut self, mac: Mac) -> BTreeSet<Entry> {
        let Some(remote) = self.remotes.remove(&mac) else { return BTreeSet::new() };
        let mut about = BTreeSet::from([Entry::Forward { mac, to: remote.host }, Entry::Bridge(mac)]);
        for ip in &remote.addresses {
            about.extend(self.neighbour(*ip));
            self.holders.remove(&(*ip, mac));
            about.extend(self.neighbour(*ip));
        }
        self.of_host.remove(&(remote.host, mac));
        about
    }

    fn neighbour(&self, ip: IpAddr) -> Option<Entry> {
        of(&self.holders, ip).next().map(|mac| Entry::Neighbour { ip, mac })
    }

    /// Whether an entry is one of the network's.
    pub fn wants(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Flood(host) => self.peers.contains(host),
            Entry::Forward { mac, to } => self.remotes.get(mac).is_some_and(|remote| remote.host == *to),
            Entry::Bridge(mac) => self.remotes.contains_key(mac),
            Entry::Neighbour { ip, .. } => self.neighbour(*ip).as_ref() == Some(entry),
            Entry::Strange(_) => false,
        }
    }

    /// All its entries.
    pub fn entries(&self) -> BTreeSet<Entry> {
        let flood = self.peers.iter().map(|host| Entry::Flood(*host));
        let ports = self.remotes.iter();
        let ports = ports.flat_map(|(mac, remote)| [Entry::Forward { mac: *mac, to: remote.host }, Entry::Bridge(*mac)]);
        flood.chain(ports).chain(self.holders.iter().filter_map(|(ip, _)| self.neighbour(*ip))).collect()
    }

    /// The hosts that get a copy of what is for all.
    pub fn flood(&self) -> BTreeSet<Entry> {
        self.peers.iter().map(|host| Entry::Flood(*host)).collect()
    }
}

/// The MACs that an index has at an address, in order.
fn of(index: &BTreeSet<(IpAddr, Mac)>, at: IpAddr) -> impl Iterator<Item = Mac> + '_ {
    index.range((at, Mac([0; 6]))..=(at, Mac([0xff; 6]))).map(|(_, mac)| *mac)
}

/// What of all networks is on other hosts. Clones share it: the inventory writes it, and the watch tells by it an entry that another
/// program changed from nicd's own changes.
#[derive(Debug, Clone, Default)]
pub struct Overlays(Arc<RwLock<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    networks: HashMap<NetworkId, Overlay>,
    /// The network of a VXLAN device, and of its bridge, by their indexes.
    links: HashMap<u32, NetworkId>,
}

impl Overlays {
    /// Notes the links of a network: its VXLAN device and its bridge.
    pub fn place(&self, network: NetworkId, link: u32) {
        self.write().links.insert(link, network);
    }

    /// Forgets a link.
    pub fn displace(&self, link: u32) {
        self.write().links.remove(&link);
    }

    /// Puts another overlay in the place of a network's; none where it has none.
    pub fn set(&self, network: NetworkId, overlay: Option<Overlay>) {
        match overlay {
            Some(overlay) => self.write().networks.insert(network, overlay),
            None => self.write().networks.remove(&network),
        };
    }

    /// Whether it is known what of a network is on other hosts.
    pub fn has(&self, network: NetworkId) -> bool {
        self.read().networks.contains_key(&network)
    }

    /// Changes a network's overlay, where it has one.
    pub fn change<T>(&self, network: NetworkId, change: impl FnOnce(&mut Overlay) -> T) -> Option<T> {
        self.write().networks.get_mut(&network).map(change)
    }

    /// Reads a network's overlay, where it has one.
    pub fn with<T>(&self, network: NetworkId, read: impl FnOnce(&Overlay) -> T) -> Option<T> {
        self.read().networks.get(&network).map(read)
    }

    /// Whether a link is a network's VXLAN device, or its bridge.
    pub fn knows(&self, link: u32) -> bool {
        self.read().links.contains_key(&link)
    }

    /// The network of a link of which it was told that an entry is there now, or is not, where nicd does not want that.
    pub fn disturbed(&self, link: u32, entry: &Entry, is_there: bool) -> Option<NetworkId> {
        let shared = self.read();
        let network = *shared.links.get(&link)?;
        let is_wanted = shared.networks.get(&network)?.wants(entry);
        (is_wanted != is_there).then_some(network)
    }

    fn read(&self) -> RwLockReadGuard<'_, Shared> {
        // Nothing can panic while it is held.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shared> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(last: u8) -> Mac {
        Mac([0xfa, 0x16, 0x3e, 0, 0, last])
    }

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn host(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn remote(at: u8, addresses: &[u8]) -> Remote {
        Remote { host: host(at), addresses: addresses.iter().map(|last| ip(*last)).collect() }
    }

    #[test]
    fn a_change_is_about_its_own_entries_alone() {
        let mut overlay = Overlay::new(BTreeSet::from([host(1)]), [(mac(9), remote(1, &[9]))]);
        let about = overlay.put_remote(mac(1), remote(1, &[1]));
        let of = |mac, to, ip| BTreeSet::from([Entry::Forward { mac, to }, Entry::Bridge(mac), Entry::Neighbour { ip, mac }]);
        assert_eq!(about, of(mac(1), host(1), ip(1)));
        assert!(about.iter().all(|entry| overlay.wants(entry)));
        // It moves to another host: entries of before are removed, those of after added.
        let moved = overlay.put_remote(mac(1), remote(2, &[1]));
        assert_eq!(moved, &of(mac(1), host(1), ip(1)) | &of(mac(1), host(2), ip(1)));
        let wanted: Vec<&Entry> = moved.iter().filter(|entry| overlay.wants(entry)).collect();
        assert_eq!(wanted, of(mac(1), host(2), ip(1)).iter().collect::<Vec<_>>());
        assert_eq!(overlay.remove_remote(mac(1)), of(mac(1), host(2), ip(1)));
        assert_eq!(overlay.remove_remote(mac(1)), BTreeSet::new());
        assert_eq!(overlay.entries().len(), 4);
    }

    #[test]
    fn a_host_that_leaves_takes_its_ports_along() {
        let ports = [(mac(1), remote(1, &[1])), (mac(2), remote(2, &[2])), (mac(3), remote(1, &[]))];
        let mut overlay = Overlay::new(BTreeSet::from([host(1), host(2)]), ports);
        let about = overlay.remove_peer(host(1));
        assert_eq!(about.len(), 1 + 3 + 2);
        assert!(!about.iter().any(|entry| overlay.wants(entry)));
        let left = Overlay::new(BTreeSet::from([host(2)]), [(mac(2), remote(2, &[2]))]);
        assert_eq!((&overlay, overlay.entries().len()), (&left, 4));
    }

    #[test]
    fn an_address_of_two_ports_is_one_ports_and_passes_to_the_other() {
        let mut overlay = Overlay::default();
        overlay.put_remote(mac(2), remote(1, &[7]));
        let about = overlay.put_remote(mac(1), remote(2, &[7]));
        let [first, second] = [1, 2].map(|last| Entry::Neighbour { ip: ip(7), mac: mac(last) });
        assert!(about.contains(&first) && about.contains(&second));
        assert_eq!((overlay.wants(&first), overlay.wants(&second)), (true, false));
        let about = overlay.remove_remote(mac(1));
        assert!(about.contains(&first) && about.contains(&second));
        assert_eq!((overlay.wants(&first), overlay.wants(&second)), (false, true));
    }

    #[test]
    fn what_is_set_in_its_place_is_not_removed() {
        let put = BTreeSet::from([Entry::Forward { mac: mac(1), to: host(2) }]);
        let strange = Entry::Strange(Strange::Tunnel { mac: mac(1), to: Some(host(3)), port: Some(1), vni: None, via: None });
        let remove = BTreeSet::from([Entry::Forward { mac: mac(1), to: host(1) }, Entry::Bridge(mac(1)), strange]);
        assert_eq!(not_replaced(&put, &remove), [&Entry::Bridge(mac(1))]);
    }

    #[test]
    fn only_what_another_program_did_disturbs() {
        let (overlays, network) = (Overlays::default(), NetworkId(uuid::Uuid::from_u128(1)));
        overlays.place(network, 7);
        overlays.set(network, Some(Overlay::new(BTreeSet::new(), [(mac(1), remote(1, &[]))])));
        let [ours, other] = [1, 2].map(|last| Entry::Forward { mac: mac(1), to: host(last) });
        let told = |entry, is_there| overlays.disturbed(7, entry, is_there).is_some();
        assert_eq!([told(&ours, true), told(&ours, false), told(&other, true), told(&other, false)], [false, true, true, false]);
        assert_eq!(overlays.disturbed(8, &ours, false), None);
        overlays.set(network, None);
        assert_eq!(overlays.disturbed(7, &ours, false), None, "nothing is known of it");
    }
}
