//! VXLAN devices (`vxlan_newlink`, `vxlan_fill_info`, drivers/net/vxlan/vxlan_core.c). Such a device is created down, with its altname,
//! its alias and without the host's IP, in one send. It learns nothing: what leads where is in its FDB ([`super::overlay`]).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, Parseable};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoVxlan, VxlanDf};
use rtnetlink::LinkVxlan;

use super::answer::{Failure, Request};
use super::create::{self, Made};
use super::links::Target;
use super::message::{Batch, attributes};
use super::socket::Netlink;
use super::untyped;
use crate::model::LinkName;
use crate::plan::{Kind, VXLAN_PORT, VxlanSeen};

/// The module of VXLAN devices.
pub(super) const MODULE: &str = "vxlan";

/// A VXLAN device to create.
#[derive(Debug, Clone, Copy)]
pub(super) struct VxlanLink<'a> {
    /// Its index.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: &'a LinkName,
    /// Its altname.
    pub(super) altname: &'a str,
    /// Its alias.
    pub(super) alias: &'a str,
    /// Its number.
    pub(super) vni: u32,
    /// The address that it sends from.
    pub(super) local: IpAddr,
    /// Its MTU in bytes.
    pub(super) mtu: u32,
}

impl VxlanLink<'_> {
    /// Creates the device, down and in no bridge. Succeeds if an earlier run created it.
    pub(super) fn create(self, netlink: &mut Netlink) -> Result<(), Failure> {
        let target = Target::Index(self.index);
        let mut batch = Batch::default();
        if create::is_free(netlink, self.index, self.altname, &Kind::Vxlan)? {
            self.message(&mut batch);
            batch.mark(self.index, self.altname);
        }
        batch.ip_off(target);
        batch.set(Request::Link, target, |link| link.mtu(self.mtu).append_extra_attribute(untyped::alias(self.alias)));
        let made = Made { index: self.index, name: self.name, altname: self.altname };
        create::send(netlink, batch, made).map_err(|failure| failure.wanting(MODULE))
    }

    fn message(self, batch: &mut Batch) {
        let link = LinkVxlan::new(self.name.as_str(), self.vni).port(VXLAN_PORT).learning(false).udp_csum(true);
        let link = match self.local {
            IpAddr::V4(local) => link.local(local),
            IpAddr::V6(local) => link.local6(local),
        };
        let link = link.index(self.index).mtu(self.mtu);
        batch.add(Request::Create, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(link.build()));
    }
}

/// Reads the settings of a VXLAN device; none where its number cannot be read.
pub(super) fn read(data: &[u8]) -> Option<VxlanSeen> {
    let mut number = None;
    let mut seen = VxlanSeen { vni: 0, port: 0, local: None, learning: false, altered: false };
    for setting in attributes(data, 0).filter_map(|attribute| InfoVxlan::parse(&attribute).ok()) {
        use InfoVxlan::*;
        match setting {
            Id(vni) => number = Some(vni),
            Port(port) => seen.port = port,
            Local(local) => seen.local = Some(local.into()).filter(|local: &IpAddr| !local.is_unspecified()),
            Local6(local) => seen.local = Some(local.into()).filter(|local: &IpAddr| !local.is_unspecified()),
            Learning(on) => seen.learning = on,
            Group(_) | Group6(_) | Gbp | Gpe | RemCsumNoPartial => seen.altered = true,
            Link(number) | Label(number) | LabelPolicy(number) | Limit(number) => seen.altered |= number != 0,
            Tos(number) | Ttl(number) | TtlInherit(number) => seen.altered |= number != 0,
            UDPCsum(on) => seen.altered |= !on,
            Proxy(on) | Rsc(on) | L2Miss(on) | L3Miss(on) | CollectMetadata(on) | UDPZeroCsumTX(on) | UDPZeroCsumRX(on)
            | RemCsumTX(on) | RemCsumRX(on) | Vnifilter(on) | McRoute(on) => seen.altered |= on,
            Df(df) => seen.altered |= df != VxlanDf::Unset,
            _ => {}
        }
    }
    number.map(|vni| VxlanSeen { vni, ..seen })
}
