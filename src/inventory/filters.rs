//! What a port may send, as its record says.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::{Network, NetworkKind, Port};
use crate::plan::filter::{Filter, Guard, Limit, Served};

/// The filter of a port: with port security its own MAC, its fixed IPs, and what its allowed address pairs add.
/// `served` says which of its requests are for the responder.
pub fn filter(port: &Port, network: &Network, served: Option<Served>) -> Filter {
    let guard = guard(port);
    let limit = port.limits.from_guest.filter(|limit| !limit.exact);
    let burst = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    let limit = limit.map(|limit| Limit { rate: limit.bytes_per_second(), burst: burst(limit.burst_bytes()) });
    Filter {
        guard,
        limit,
        isolated: port.isolated.unwrap_or(network.isolated),
        trunk: false,
        tunnelled: (network.kind == NetworkKind::Vxlan).then_some(port.mac),
        served,
        groups: None,
    }
}

/// Who a port may speak as: with port security its own MAC and addresses, and what its allowed address pairs add.
fn guard(port: &Port) -> Option<Guard> {
    port.port_security.then(|| {
        let mut guard = Guard::default();
        guard.allow_mac(port.mac);
        port.fixed_ips.iter().for_each(|ip| guard.allow(port.mac, ip.ip_address.into()));
        for pair in &port.address_pairs {
            let mac = pair.mac.unwrap_or(port.mac);
            guard.allow_mac(mac);
            guard.allow(mac, pair.ip);
        }
        guard
    })
}

/// The addresses that a port counts for in its security groups: those that it may use one by one. None while it is not attached.
pub fn usable(port: &Port) -> BTreeSet<IpAddr> {
    let guard = port.attached_to().filter(|_| !port.groups.is_empty()).and_then(|_| guard(port));
    let sources = guard.iter().flat_map(|guard| &guard.addresses).filter(|source| source.is_host());
    sources.map(|source| source.address.ip()).collect()
}

/// Whether a port may use another MAC than its own. The bridge has an entry for its own MAC alone, and the same MAC may be used by
/// several ports in turn (VRRP), so frames for the others have to be flooded to it.
pub fn has_other_macs(port: &Port) -> bool {
    port.port_security && port.address_pairs.iter().any(|pair| pair.mac.is_some_and(|mac| mac != port.mac))
}
