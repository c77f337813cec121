//! Changes of a device that leads a network to other hosts, VLAN or VXLAN.

use std::collections::BTreeSet;

use netlink_packet_core::Nla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoBridgePort, InfoKind, InfoVxlan, LinkAttribute};
use rtnetlink::{LinkBridgePort, LinkMessageBuilder, LinkVxlan};
use uuid::Uuid;

use super::answer::{Failure, Request};
use super::links::{self, Target, send_all};
use super::message::Batch;
use super::seen::{PASS_LINK_LOCAL, PLAIN};
use super::socket::Netlink;
use super::untyped;
use crate::model::NetworkId;
use crate::model::names::{self, SegmentKind};
use crate::plan::SegmentChange;

/// [`Op::SetSegment`](crate::plan::Op::SetSegment).
pub(super) fn set(
    netlink: &mut Netlink,
    (kind, network): (SegmentKind, NetworkId),
    changes: &BTreeSet<SegmentChange>,
) -> Result<(), Failure> {
    let altname = names::segment_altname(kind, network);
    let target = Target::Altname(&altname);
    let (mut link, mut host_ip_off, mut addresses, mut switch, mut master) = (Vec::new(), false, Vec::new(), None, None);
    let (mut learning_off, mut flags) = (false, None);
    for change in changes {
        match change {
            SegmentChange::Mtu(mtu) => link.push(LinkAttribute::Mtu(*mtu)),
            SegmentChange::Alias(alias) => link.push(untyped::alias(alias)),
            SegmentChange::LearningOff => learning_off = true,
            SegmentChange::Master(index) => {
                link.push(LinkAttribute::Controller(*index));
                master = Some(*index);
            }
            SegmentChange::HostIpOff => host_ip_off = true,
            SegmentChange::RemoveAddress(address) => addresses.push(*address),
            SegmentChange::TunnelPortFlags { suppress } => flags = Some(*suppress),
            SegmentChange::Switch(to) => switch = Some(*to),
        }
    }
    let mut batch = Batch::default();
    if learning_off {
        let device = target
            .name(LinkMessageBuilder::<LinkVxlan>::new_with_info_kind(InfoKind::Vxlan))
            .append_info_data(InfoVxlan::Learning(false));
        batch.add(Request::Link, 0, RouteNetlinkMessage::NewLink(device.build()));
    }
    batch.set_common(netlink, &altname, &link, host_ip_off, addresses)?;
    // The kernel goes on after a refused message, and a device that is in no bridge is not to be up.
    send_all(netlink, batch).map_err(|failure| links::explained(netlink, failure, master))?;
    let mut batch = Batch::default();
    if let Some(suppress) = flags {
        let port = tunnel_port_flags(suppress)
            .fold(target.name(LinkBridgePort::new(0)), LinkMessageBuilder::<LinkBridgePort>::append_info_data);
        batch.add(Request::PortFlags, 0, RouteNetlinkMessage::NewLink(port.build()));
    }
    if let Some(switch) = switch {
        batch.switch(target, switch);
    }
    send_all(netlink, batch)
}

/// The flags of a bridge's port that leads to tunnels, whose ARP and neighbour discovery the bridge answers or not.
fn tunnel_port_flags(suppress: bool) -> impl Iterator<Item = InfoBridgePort> {
    let own = [
        InfoBridgePort::Learning(false),
        InfoBridgePort::UnicastFlood(true),
        InfoBridgePort::NeighSupress(suppress),
        InfoBridgePort::Locked(false),
        InfoBridgePort::Guard(false),
        InfoBridgePort::GroupFwdMask(PASS_LINK_LOCAL),
    ];
    let others = PLAIN.iter().filter(|plain| plain.kind() != InfoBridgePort::NeighSupress(true).kind()).cloned();
    others.chain(own)
}

/// [`Op::RestoreSegmentAltname`](crate::plan::Op::RestoreSegmentAltname).
pub(super) fn restore_altname(
    netlink: &mut Netlink,
    (kind, network): (SegmentKind, NetworkId),
    index: u32,
    alias: &str,
) -> Result<(), Failure> {
    links::restore_altname(netlink, &names::segment_altname(kind, network), index, alias)
}

/// [`Op::DeleteSegment`](crate::plan::Op::DeleteSegment).
pub(super) fn delete(netlink: &mut Netlink, (kind, network): (SegmentKind, NetworkId), store: Uuid) -> Result<(), Failure> {
    links::delete(netlink, &names::segment_altname(kind, network), store)
}
