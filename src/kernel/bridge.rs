//! Agent-made bridges. Such a bridge sends no frames and has no address: STP and multicast snooping are off, and IPv6 generates no
//! address. It is created down, closed to the host (`nft`), and then set up.

use std::collections::BTreeSet;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{BridgeStpState, InfoBridge, InfoKind, LinkAttribute};
use rtnetlink::{LinkBridge, LinkMessageBuilder};
use uuid::Uuid;

use super::answer::{Failure, Request};
use super::create::{self, Made};
use super::links::{self, Target, send_all, shape};
use super::message::Batch;
use super::nft::Nft;
use super::socket::Netlink;
use super::untyped;

use crate::model::{LinkName, Mac, NetworkId, names};
use crate::plan::{BridgeChange, Kind};

/// A bridge to create.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bridge<'a> {
    pub(super) network: NetworkId,
    pub(super) index: u32,
    pub(super) name: &'a LinkName,
    pub(super) mac: Mac,
    pub(super) mtu: u32,
    pub(super) alias: &'a str,
}

impl Bridge<'_> {
    /// [`Op::CreateBridge`](crate::plan::Op::CreateBridge).
    pub(super) fn create(self, netlink: &mut Netlink) -> Result<(), Failure> {
        let altname = names::network_altname(self.network);
        let target = Target::Index(self.index);
        let fresh = create::is_free(netlink, self.index, &altname, &Kind::Bridge)?;
        let mut batch = Batch::default();
        if fresh {
            self.message(&mut batch);
            batch.mark(self.index, &altname);
        }
        batch.ip_off(target);
        batch.set(Request::Link, target, |link| {
            shape(link, self.mac, self.mtu).append_extra_attribute(untyped::alias(self.alias))
        });
        create::send(netlink, batch, Made { index: self.index, name: self.name, altname: &altname })
    }

    /// Creates the bridge with another MTU than the desired one. Only a *change* of the MTU counts as set explicitly; otherwise every
    /// port changes it (`br_change_mtu`, `br_mtu_auto_adjust`, net/bridge).
    fn message(self, batch: &mut Batch) {
        let provisional = if self.mtu < 65_535 { self.mtu + 1 } else { self.mtu - 1 };
        let bridge = shape(LinkMessageBuilder::<LinkBridge>::new(self.name.as_str()), self.mac, provisional)
            .index(self.index)
            .forward_delay(0)
            .stp_state(BridgeStpState::Disabled)
            .mcast_snooping(false);
        batch.add(Request::Create, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(bridge.build()));
    }
}

/// [`Op::SetBridge`](crate::plan::Op::SetBridge). Address generation comes behind the MTU, with which IPv6 may come back. Only
/// RTM_NEWLINK reads a bridge's settings; without NLM_F_CREATE it changes an existing bridge. Features that the kernel lacks are
/// never observed as on, so they are not in the message.
pub(super) fn set(netlink: &mut Netlink, network: NetworkId, changes: &BTreeSet<BridgeChange>) -> Result<(), Failure> {
    let altname = names::network_altname(network);
    let target = Target::Altname(&altname);
    let (mut link, mut host_ip_off, mut addresses, mut bridge, mut switch) = (Vec::new(), false, Vec::new(), Vec::new(), None);
    for change in changes {
        match change {
            BridgeChange::Mac(mac) => link.push(LinkAttribute::Address(mac.0.to_vec())),
            BridgeChange::Mtu(mtu) => link.push(LinkAttribute::Mtu(*mtu)),
            BridgeChange::Alias(alias) => link.push(untyped::alias(alias)),
            BridgeChange::HostIpOff => host_ip_off = true,
            BridgeChange::RemoveAddress(address) => addresses.push(*address),
            BridgeChange::StpOff => bridge.push(InfoBridge::StpState(BridgeStpState::Disabled)),
            BridgeChange::VlanFilteringOff => bridge.push(InfoBridge::VlanFiltering(false)),
            BridgeChange::MulticastSnoopingOff => bridge.push(InfoBridge::MulticastSnooping(false)),
            BridgeChange::Switch(to) => switch = Some(*to),
        }
    }
    let mut batch = Batch::default();
    batch.set_common(netlink, &altname, &link, host_ip_off, addresses)?;
    if !bridge.is_empty() {
        let message = target.name(LinkMessageBuilder::<LinkBridge>::new_with_info_kind(InfoKind::Bridge));
        let message = bridge.into_iter().fold(message, LinkMessageBuilder::<LinkBridge>::append_info_data);
        batch.add(Request::Link, 0, RouteNetlinkMessage::NewLink(message.build()));
    }
    if let Some(switch) = switch {
        batch.switch(target, switch);
    }
    send_all(netlink, batch)
}

/// [`Op::RestoreBridgeAltname`](crate::plan::Op::RestoreBridgeAltname).
pub(super) fn restore_altname(netlink: &mut Netlink, network: NetworkId, index: u32, alias: &str) -> Result<(), Failure> {
    links::restore_altname(netlink, &names::network_altname(network), index, alias)
}

/// [`Op::DeleteBridge`](crate::plan::Op::DeleteBridge).
pub(super) fn delete(netlink: &mut Netlink, nft: &mut Nft, network: NetworkId, store: Uuid) -> Result<(), Failure> {
    links::delete(netlink, &names::network_altname(network), store)?;
    // A chain that cannot be deleted does not keep the bridge.
    if let Err(failure) = nft.remove(network) {
        tracing::warn!(%network, said = failure.said, "what closed a bridge to the host is left");
    }
    Ok(())
}
