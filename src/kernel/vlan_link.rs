//! VLAN devices. Such a device is created down, with its altname, its alias and without the host's IP, in one send.
//!
//! The kernel sets a VLAN device down with the link below it, and up again with it (`vlan_device_event`, net/8021q/vlan.c), unless it is
//! loosely bound.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{self, VlanFlags};
use rtnetlink::LinkVlan;

use super::answer::{Failure, Request};
use super::create::{self, Made};
use super::links::{LinkBuilder, Target};
use super::message::Batch;
use super::socket::Netlink;
use super::untyped;
use crate::model::{LinkName, Mac};
use crate::plan::{Kind, VlanProtocol, VlanTag};

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
