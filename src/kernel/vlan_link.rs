//! VLAN devices. Such a device is created down, with its altname, its alias and without the host's IP, in one send.
//!
//! The kernel sets a VLAN device down with the link below it, and up again with it (`vlan_device_event`, net/8021q/vlan.c), unless it is
//! loosely bound.

use std::collections::BTreeSet;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{self, LinkAttribute, VlanFlags};
use rtnetlink::LinkVlan;
use uuid::Uuid;

use super::answer::{Failure, Request};
use super::create::{self, Made};
use super::links::{self, LinkBuilder, Target, send_all, with_attributes};
use super::message::Batch;
use super::seen::require;
use super::socket::Netlink;
use super::{LinkSelector, untyped};
use crate::model::{LinkName, Mac, NetworkId, names};
use crate::plan::{Kind, VlanChange, VlanProtocol, VlanTag};

/// The module of VLAN devices.
pub(super) const MODULE: &str = "8021q";

/// A VLAN device to create.
#[derive(Debug, Clone, Copy)]
pub(super) struct VlanLink<'a> {
    /// Its index in the host's namespace.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: &'a LinkName,
    /// Its altname.
    pub(super) altname: &'a str,
    /// Its alias; none where that is written once the device is finished.
    pub(super) alias: Option<&'a str>,
    /// The index of the link below it.
    pub(super) parent: u32,
    /// The tag of its frames there.
    pub(super) tag: VlanTag,
    /// Its MAC; none for that of the link below it.
    pub(super) mac: Option<Mac>,
    /// Its MTU in bytes, at most that of the link below it.
    pub(super) mtu: u32,
    /// Whether it stays up or down when the link below it is set down or up (`VLAN_FLAG_LOOSE_BINDING`).
    pub(super) loose: bool,
}

impl VlanLink<'_> {
    /// Creates the device, down and in no bridge. Succeeds if an earlier run created it.
    pub(super) fn create(self, netlink: &mut Netlink) -> Result<(), Failure> {
        let target = Target::Index(self.index);
        let mut batch = Batch::default();
        if create::is_free(netlink, self.index, self.altname, &Kind::Vlan)? {
            self.message(&mut batch);
            batch.mark(self.index, self.altname);
        }
        batch.ip_off(target);
        batch.set(Request::Link, target, |link| {
            let alias = self.alias.map(untyped::alias);
            alias.into_iter().fold(link.mtu(self.mtu), LinkBuilder::append_extra_attribute)
        });
        let made = Made { index: self.index, name: self.name, altname: self.altname };
        create::send(netlink, batch, made).map_err(|failure| failure.wanting(MODULE))
    }

    fn message(self, batch: &mut Batch) {
        let protocol = match self.tag.protocol {
            VlanProtocol::Dot1q => link::VlanProtocol::Ieee8021Q,
            VlanProtocol::Dot1ad => link::VlanProtocol::Ieee8021Ad,
        };
        let loose = if self.loose { VlanFlags::LooseBinding } else { VlanFlags::empty() };
        let link = LinkVlan::new(self.name.as_str(), self.parent, self.tag.id).protocol(protocol);
        let link = link.flags(loose, VlanFlags::LooseBinding);
        let link = self.mac.into_iter().fold(link.index(self.index).mtu(self.mtu), |link, mac| link.address(mac.0.to_vec()));
        batch.add(Request::Create, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(link.build()));
    }
}

/// [`Op::SetVlan`](crate::plan::Op::SetVlan).
pub(super) fn set(netlink: &mut Netlink, network: NetworkId, changes: &BTreeSet<VlanChange>) -> Result<(), Failure> {
    let altname = names::vlan_altname(network);
    let target = Target::Altname(&altname);
    let (mut link, mut host_ip_off, mut addresses, mut switch, mut master) = (Vec::new(), false, Vec::new(), None, None);
    for change in changes {
        match change {
            VlanChange::Mtu(mtu) => link.push(LinkAttribute::Mtu(*mtu)),
            VlanChange::Alias(alias) => link.push(untyped::alias(alias)),
            VlanChange::Master(index) => {
                link.push(LinkAttribute::Controller(*index));
                master = Some(*index);
            }
            VlanChange::HostIpOff => host_ip_off = true,
            VlanChange::RemoveAddress(address) => addresses.push(*address),
            VlanChange::Switch(to) => switch = Some(*to),
        }
    }
    let mut batch = Batch::default();
    if !link.is_empty() {
        batch.set(Request::Link, target, |message| with_attributes(message, &link));
    }
    if host_ip_off {
        batch.ip_off(target);
    }
    if !addresses.is_empty() {
        let index = require(netlink, LinkSelector::Altname(&altname))?.index;
        addresses.into_iter().for_each(|address| batch.unaddress(index, address));
    }
    // The kernel goes on after a refused message, and a device that is in no bridge is not to be up.
    send_all(netlink, batch).map_err(|failure| links::explained(netlink, failure, master))?;
    let mut batch = Batch::default();
    let Some(switch) = switch else { return Ok(()) };
    batch.switch(target, switch);
    send_all(netlink, batch)
}

/// [`Op::RestoreVlanAltname`](crate::plan::Op::RestoreVlanAltname).
pub(super) fn restore_altname(netlink: &mut Netlink, network: NetworkId, index: u32, alias: &str) -> Result<(), Failure> {
    links::restore_altname(netlink, &names::vlan_altname(network), index, alias)
}

/// [`Op::DeleteVlan`](crate::plan::Op::DeleteVlan).
pub(super) fn delete(netlink: &mut Netlink, network: NetworkId, store: Uuid) -> Result<(), Failure> {
    links::delete(netlink, &names::vlan_altname(network), store)
}
