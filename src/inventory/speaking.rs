//! Whose addresses are asked about on a bridge before a port has them, and told of once its device is there.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::model::{Mac, NetworkId, Port, PortId};
use crate::plan::LinkState;

use super::Inventory;

/// Where a port speaks, and as whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speaker {
    /// Its MAC.
    pub mac: Mac,
    /// Its bridge's index.
    pub bridge: u32,
    /// The bridge's MAC.
    pub bridge_mac: Mac,
    /// Whether the filters keep from it what is said about itself.
    pub is_guarded: bool,
}

impl Inventory {
    /// Where a port's addresses are spoken of; none while it is in no bridge, and on one that tells VLANs apart, where the bridge is not
    /// in every VLAN of its ports.
    pub fn speaker(&self, port: PortId) -> Option<Speaker> {
        let record = &self.ports.get(&port)?.record;
        let bridge = self.bridge_of(port)?;
        if record.attached_to().is_none() || bridge.extras.vlan_filtering {
            return None;
        }
        Some(Speaker { mac: record.mac, bridge: bridge.index, bridge_mac: bridge.mac?, is_guarded: record.port_security })
    }

    /// The MACs of a port's server: any of its NICs may answer for any of its addresses, as Linux does (`arp_ignore`).
    pub fn macs_of_server(&self, port: PortId) -> Vec<Mac> {
        let binding = self.ports.get(&port).and_then(|entry| entry.record.binding.as_ref());
        let server = binding.and_then(|binding| self.servers.get(&binding.server_id));
        let nics = server.into_iter().flat_map(|server| &server.ports).filter_map(|nic| self.ports.get(nic));
        nics.map(|nic| nic.record.mac).collect()
    }

    /// Whether a port's device is in a bridge, where others can be asked about its addresses.
    pub fn is_in_bridge(&self, port: PortId) -> bool {
        self.bridge_of(port).is_some()
    }

    /// Whether a port's bridge tells VLANs apart.
    pub fn has_vlans_apart(&self, port: PortId) -> bool {
        self.bridge_of(port).is_some_and(|bridge| bridge.extras.vlan_filtering)
    }

    fn bridge_of(&self, port: PortId) -> Option<&LinkState> {
        self.have.link(self.have.device(port)?.master?)
    }

    /// A port's addresses that no other port of its network may use as well.
    pub fn unshared(&self, port: &Port) -> Vec<IpAddr> {
        let addresses = port.fixed_ips.iter().map(|ip| ip.ip_address);
        addresses.filter(|address| !self.is_shared(port, *address)).collect()
    }

    /// Whether another port of the network has the address among its pairs.
    fn is_shared(&self, port: &Port, address: IpAddr) -> bool {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let around = (1..=longest).filter_map(|prefix| network_of(address, prefix));
        around.into_iter().any(|block| {
            let all = self.pairs.get(&(port.network_id, block)).copied().unwrap_or_default();
            all > port.address_pairs.iter().filter(|pair| pair.ip == block).count()
        })
    }

    pub(super) fn count_pairs(&mut self, port: &Port) {
        for pair in &port.address_pairs {
            *self.pairs.entry((port.network_id, pair.ip)).or_default() += 1;
        }
    }

    pub(super) fn discount_pairs(&mut self, port: &Port) {
        for pair in &port.address_pairs {
            let key: (NetworkId, IpNetwork) = (port.network_id, pair.ip);
            if let Some(count) = self.pairs.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.pairs.remove(&key);
                }
            }
        }
    }

    /// Notes that a port has other addresses than it had, or has a server that it had not: they are handed out anew.
    pub(super) fn note_addresses(&mut self, before: &Port, after: &Port) {
        let comes = after.attached_to().is_some() && before.attached_to().is_none();
        let goes = after.attached_to().is_none();
        if goes || comes || before.fixed_ips != after.fixed_ips {
            self.conflicts.remove(&after.id);
        }
        let gains = after.attached_to().is_some() && after.fixed_ips.iter().any(|ip| !before.fixed_ips.contains(ip));
        if let Some(entry) = self.ports.get_mut(&after.id) {
            entry.neighbours.is_unasked = !goes && (entry.neighbours.is_unasked || comes || gains);
        }
    }
}

/// The block with this prefix that an address is in, without host bits.
fn network_of(address: IpAddr, prefix: u8) -> Option<IpNetwork> {
    let block = IpNetwork::new(address, prefix).ok()?;
    IpNetwork::new(block.network(), prefix).ok()
}
