//! What the ops of a test on a host are made of.

use nicd::model::names::FIRST_INDEX;
use nicd::model::{Mac, NetworkId, Owner, PortId, names};
use nicd::plan::{BridgeExtras, LinkSettings, Op, Switch};
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
    let (stray, off) = (Vec::new(), BridgeExtras::default());
    Op::SetBridge { network: network(), mac: None, mtu: None, switch: Some(Switch::Up), ip_off: false, stray, off, alias: None }
}

/// What a port of the bridge with the index `master` gets; 0 for a device in no bridge.
pub fn settings(port: PortId, master: u32) -> LinkSettings {
    let link =
        LinkSettings { mark: true, ip_off: true, mac: Some(mac(port).host_side()), mtu: Some(1500), ..LinkSettings::default() };
    match master {
        0 => link,
        _ => LinkSettings { master: Some(master), fdb: vec![mac(port)], learning: Some(false), ..link },
    }
}
