//! What of VXLAN networks is on other hosts, and which of their entries are to be compared with the kernel's.
//!
//! Until it was told what of a network is on other hosts, its entries are left as they are: a host that restarts without its fleet keeps them.
//!
//! A change is about its own entries alone, so that a port that comes to another host costs the same whatever ports there are.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::names::SegmentKind;
use crate::model::{Mac, NetworkId, NetworkKind};
use crate::plan::{DesiredOverlay, Entry, LinkState, Overlay, Remote, Unwanted};

use super::comparing::Pending;
use super::entries::Inventory;

impl Inventory {
    /// Takes another address for the tunnels of this host; none where it has none, as without a fleet.
    pub fn set_tunnel(&mut self, address: Option<IpAddr>) {
        self.tunnel = address;
    }

    /// All VXLAN networks.
    pub fn on_tunnels(&self) -> impl Iterator<Item = NetworkId> + '_ {
        self.vxlans.values().copied()
    }

    /// Puts what is on other hosts in the place of all that was known of a network.
    pub fn set_overlay(&mut self, network: NetworkId, mut overlay: Overlay) {
        if !self.networks.contains_key(&network) {
            return;
        }
        overlay.retain(|host| self.is_other_host(host), Remote::is_sound);
        self.overlays.set(network, Some(overlay));
        self.compare_all_entries(network);
    }

    /// Takes in that a host, by its tunnel address, has ports of a network: it is sent a copy of what is for all. As every change, it is of
    /// what was set before as a whole ([`Inventory::set_overlay`]); else it is nothing.
    pub fn put_peer(&mut self, network: NetworkId, host: IpAddr) {
        if self.is_other_host(host) {
            self.change_overlay(network, |overlay| overlay.put_peer(host));
        }
    }

    /// Takes in that a host with ports of a network is lost: it is sent no copy of what is for all.
    pub fn lose_peer(&mut self, network: NetworkId, host: IpAddr) {
        self.change_overlay(network, |overlay| overlay.lose_peer(host));
    }

    /// Takes in that a host has no ports of a network any more. The ports that it had go along.
    pub fn remove_peer(&mut self, network: NetworkId, host: IpAddr) {
        self.change_overlay(network, |overlay| overlay.remove_peer(host));
    }

    /// Takes in a port that is on another host, in the place of what was known of its MAC. One that has come to this host is on no other any
    /// more.
    pub fn put_remote(&mut self, network: NetworkId, mac: Mac, remote: Remote) {
        if self.is_other_host(remote.host) && Remote::is_sound(mac) {
            self.change_overlay(network, |overlay| overlay.put_remote(mac, remote));
        } else {
            self.remove_remote(network, mac);
        }
    }

    /// Whether a port that is active on this host has a MAC on a network.
    pub fn is_own_mac(&self, network: NetworkId, mac: Mac) -> bool {
        let port = self.macs.get(&mac.host_side()).and_then(|port| self.ports.get(port)).map(|entry| &entry.record);
        port.is_some_and(|port| (port.network_id, port.mac) == (network, mac) && port.standby.is_none())
    }

    /// Takes in that the port with this MAC is on no other host any more.
    pub fn remove_remote(&mut self, network: NetworkId, mac: Mac) {
        self.change_overlay(network, |overlay| overlay.remove_remote(mac));
    }

    /// Whether tunnels of this host can lead to an address: it is another host's, of the same family.
    fn is_other_host(&self, host: IpAddr) -> bool {
        let is_one = !host.is_multicast() && !host.is_unspecified();
        is_one && self.tunnel.is_some_and(|own| own != host && own.is_ipv4() == host.is_ipv4())
    }

    fn change_overlay(&mut self, network: NetworkId, change: impl FnOnce(&mut Overlay) -> BTreeSet<Entry>) {
        let about = self.overlays.change(network, change);
        if let Some((entry, about)) = self.networks.get_mut(&network).zip(about) {
            entry.overlay.pending.add(about);
        }
    }

    /// Has all entries of a network looked at and compared.
    pub fn compare_all_entries(&mut self, network: NetworkId) {
        if let Some(entry) = self.networks.get_mut(&network) {
            entry.overlay.pending = Pending::All;
        }
    }

    /// Whether entries of a network are to be compared: it has a VXLAN device, it is known what is on other hosts, and entries wait.
    pub fn has_entries_to_compare(&self, network: NetworkId) -> bool {
        let waits = self.networks.get(&network).is_some_and(|entry| !entry.overlay.pending.is_empty());
        waits && self.overlays.has(network) && self.have.own_segment(SegmentKind::Vxlan, network).is_some()
    }

    /// Takes the entries of a network that are to be compared.
    pub fn take_pending(&mut self, network: NetworkId) -> Pending {
        let entry = self.networks.get_mut(&network);
        entry.map(|entry| std::mem::take(&mut entry.overlay.pending)).unwrap_or_default()
    }

    /// The hosts that a new VXLAN device sends copies to. Its other entries come after.
    pub fn first_overlay(&self, network: NetworkId) -> Option<DesiredOverlay> {
        let entries = self.overlays.with(network, Overlay::flood)?;
        Some(DesiredOverlay { network, entries, unwanted: Unwanted::These(BTreeSet::new()) })
    }

    /// Notes of which network a link is that was seen, so that what another program does to its entries is told.
    pub(super) fn place_overlay(&self, link: &LinkState) {
        let of_bridge = || link.marks().map(NetworkId).find(|id| self.is_vxlan(*id));
        let of_device = link.segment().filter(|(kind, _)| *kind == SegmentKind::Vxlan).map(|(_, network)| network);
        if let Some(network) = of_device.or_else(of_bridge).filter(|_| self.have.ours(link)) {
            self.overlays.place(network, link.index);
        }
    }

    fn is_vxlan(&self, network: NetworkId) -> bool {
        self.networks.get(&network).is_some_and(|entry| entry.record.kind == NetworkKind::Vxlan)
    }
}
