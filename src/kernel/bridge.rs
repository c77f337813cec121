//! Agent-made bridges. Such a bridge sends no frames and has no address: STP and multicast snooping are off, and IPv6 generates no
//! address. It is created down, closed to the host (`nft`), and then set up.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{BridgeStpState, InfoKind};
use rtnetlink::{LinkBridge, LinkMessageBuilder};
use uuid::Uuid;

use super::LinkSelector;
use super::answer::{Failure, Request};
use super::create::{self, Made};
use super::links::{self, Target, send_all, shape};
use super::message::Batch;
use super::nft::Nft;
use super::seen::require;
use super::socket::Netlink;
use super::untyped;

use crate::model::{LinkName, Mac, NetworkId, names};
use crate::plan::{Address, BridgeExtras, Kind, Switch};

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
        batch.set(Request::Link, target, |link| untyped::alias(shape(link, Some(self.mac), Some(self.mtu), None), self.alias));
        create::send(netlink, batch, Made { index: self.index, name: self.name, altname: &altname })
    }

    /// Creates the bridge with another MTU than the desired one. Only a *change* of the MTU counts as set explicitly; otherwise every
    /// port changes it (`br_change_mtu`, `br_mtu_auto_adjust`, net/bridge).
    fn message(self, batch: &mut Batch) {
        let provisional = if self.mtu < 65_535 { self.mtu + 1 } else { self.mtu - 1 };
        let bridge = shape(LinkMessageBuilder::<LinkBridge>::new(self.name.as_str()), Some(self.mac), Some(provisional), None)
            .index(self.index)
            .forward_delay(0)
            .stp_state(BridgeStpState::Disabled)
            .mcast_snooping(false);
        batch.add(Request::Create, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(bridge.build()));
    }
}

/// A change of a bridge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change<'a> {
    pub(super) network: NetworkId,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: Option<u32>,
    pub(super) switch: Option<Switch>,
    pub(super) ip_off: bool,
    pub(super) stray: &'a [Address],
    pub(super) off: BridgeExtras,
    pub(super) alias: Option<&'a str>,
}

impl Change<'_> {
    /// [`Op::SetBridge`](crate::plan::Op::SetBridge). Address generation comes behind the MTU, with which IPv6 may come back.
    pub(super) fn make(self, netlink: &mut Netlink) -> Result<(), Failure> {
        let altname = names::network_altname(self.network);
        let target = Target::Altname(&altname);
        let mut batch = Batch::default();
        if self.mac.is_some() || self.mtu.is_some() || self.alias.is_some() {
            batch.set(Request::Link, target, |link| {
                let link = shape(link, self.mac, self.mtu, None);
                self.alias.into_iter().fold(link, untyped::alias)
            });
        }
        if self.ip_off {
            batch.ip_off(target);
        }
        if !self.stray.is_empty() {
            let index = require(netlink, LinkSelector::Altname(&altname))?.index;
            self.stray.iter().for_each(|address| batch.unaddress(index, *address));
        }
        if !self.off.is_none() {
            batch.switch_off(target, self.off);
        }
        if let Some(switch) = self.switch {
            batch.switch(target, switch);
        }
        send_all(netlink, batch)
    }
}

impl Batch {
    /// Switches off features that another program switched on. Only RTM_NEWLINK reads a bridge's settings; without NLM_F_CREATE it
    /// changes an existing bridge. Features that the kernel lacks are never observed as on, so they are not in the message.
    fn switch_off(&mut self, target: Target<'_>, off: BridgeExtras) {
        let mut bridge = target.name(LinkMessageBuilder::<LinkBridge>::new_with_info_kind(InfoKind::Bridge));
        if off.stp {
            bridge = bridge.stp_state(BridgeStpState::Disabled);
        }
        if off.vlan_filtering {
            bridge = bridge.vlan_filtering(false);
        }
        if off.multicast_snooping {
            bridge = bridge.mcast_snooping(false);
        }
        self.add(Request::Link, 0, RouteNetlinkMessage::NewLink(bridge.build()));
    }
}

/// [`Op::MarkBridgeAgain`](crate::plan::Op::MarkBridgeAgain).
pub(super) fn mark_again(netlink: &mut Netlink, network: NetworkId, index: u32, alias: &str) -> Result<(), Failure> {
    links::mark_again(netlink, &names::network_altname(network), index, alias)
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
