//! What the ops of a test on a host are made of.

use std::collections::BTreeSet;

use nicd::model::names::FIRST_INDEX;
use nicd::model::{Mac, NetworkId, Owner, PortId, names};
use nicd::plan::{BridgeChange, LinkChange, Op, Switch};
use uuid::Uuid;

/// The index of the bridge under test.
pub const BRIDGE: u32 = FIRST_INDEX + 70_000;
/// The index of the first device under test.
pub const DEVICE: u32 = FIRST_INDEX + 80_000;
/// The store of the nicd under test.
pub const STORE: Uuid = Uuid::from_u128(1);
/// The MAC of the bridge under test.
pub const BRIDGE_MAC: Mac = Mac([0xfa, 0x16, 0x3e, 0xff, 0, 1]);

pub fn port(number: u128) -> PortId {
    PortId(Uuid::from_u128((number << 84) + 0x5151))
}

pub fn network() -> NetworkId {
    NetworkId(Uuid::from_u128(0x3cb9_bc59_5699_4588_a4b1_b87f_9670_8bc6))
}

pub fn mac(port: PortId) -> Mac {
    let octets = port.0.as_bytes();
    Mac([0xfa, 0x16, 0x3e, octets[3], octets[4], octets[5]])
}

pub fn create_tap(port: PortId, index: u32) -> Op {
    Op::CreateTap { port, index, name: names::port_device(port, 0), queues: 1, vnet_hdr: true, owner: Owner::default() }
}

pub fn delete_group(group: u32, ports: &[PortId]) -> Op {
    Op::DeleteGroup { group, ports: ports.to_vec(), forced: Vec::new(), store: STORE }
}

pub fn create_bridge(mtu: u32) -> Op {
    let name = names::network_bridge(network(), 0);
    Op::CreateBridge { network: network(), index: BRIDGE, name, mac: BRIDGE_MAC, mtu, alias: names::bridge_tag(STORE, network()) }
}

/// Sets the bridge up.
pub fn up() -> Op {
    Op::SetBridge { network: network(), changes: [BridgeChange::Switch(Switch::Up)].into() }
}

/// What a port of the bridge with the index `master` gets; 0 for a device in no bridge.
pub fn changes(port: PortId, master: u32) -> BTreeSet<LinkChange> {
    let mac = LinkChange::Mac(mac(port).host_side());
    let link = BTreeSet::from([LinkChange::Altname, mac, LinkChange::Mtu(1500), LinkChange::HostIpOff]);
    match master {
        0 => link,
        _ => link.into_iter().chain(joined(port, master)).collect(),
    }
}

/// What makes a device a port of the bridge with the index `master`.
pub fn joined(port: PortId, master: u32) -> [LinkChange; 3] {
    [LinkChange::Master(master), LinkChange::FdbEntry(mac(port)), LinkChange::Learning(false)]
}
