//! Veth pairs: one end on the host, the other created directly in a guest's namespace.

use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::answer::{Failure, Request};
use super::create::{self, Made};
use super::links::{Target, shape};
use super::message::Batch;
use super::netns::NetnsHandle;
use super::seen::get;
use super::socket::Netlink;
use super::{LinkSelector, OpErrorKind};
use crate::model::{LinkName, Mac, PortId, names};
use crate::plan::Kind;

/// A pair to create.
#[derive(Debug, Clone, Copy)]
pub(super) struct Veth<'a> {
    pub(super) port: PortId,
    pub(super) index: u32,
    pub(super) name: &'a LinkName,
    pub(super) guest: GuestEnd<'a>,
    pub(super) mac: Mac,
    pub(super) mtu: u32,
}

/// The end that is the guest's NIC. The kernel chooses its index in the guest's namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct GuestEnd<'a> {
    pub(super) name: Option<&'a LinkName>,
    pub(super) mac: Mac,
    pub(super) mtu: u32,
}

impl Veth<'_> {
    /// Executes [`Op::CreateVeth`](crate::plan::Op::CreateVeth); false when the pair exists already.
    pub(super) fn create(self, netlink: &mut Netlink, inside: &mut NetnsHandle) -> Result<bool, Failure> {
        let altname = names::port_altname(self.port);
        if !create::is_free(netlink, self.index, &altname, &Kind::Veth)? {
            return Ok(false);
        }
        let mut batch = Batch::default();
        self.message(&mut batch, inside);
        batch.mark(self.index, &altname);
        // Before another program can set the link up; it gets carrier when the other end is up.
        batch.ip_off(Target::Index(self.index));
        let made = Made { index: self.index, name: self.name, altname: &altname };
        create::send(netlink, batch, made).or_else(|failure| self.explain(netlink, inside, failure))?;
        Ok(true)
    }

    /// The creating message includes MAC and MTU, because each later change would cause an event. It does not set the peer up: the
    /// kernel refuses that before the pair is linked (`veth_newlink`, drivers/net/veth.c).
    fn message(self, batch: &mut Batch, inside: &NetnsHandle) {
        let name = self.guest.name.map_or("eth%d", LinkName::as_str);
        let guest = shape(LinkUnspec::new_with_name(name), self.guest.mac, self.guest.mtu);
        let guest = one_queue(guest.setns_by_fd(inside.fd.as_raw_fd())).build();
        let host = LinkVeth::new(self.name.as_str(), name).index(self.index).set_info_data(InfoData::Veth(InfoVeth::Peer(guest)));
        let host = one_queue(shape(host, self.mac, self.mtu)).build();
        batch.add(Request::Create, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(host));
    }

    /// Tells which end's name is taken, because the kernel reports EEXIST for both.
    fn explain(self, netlink: &mut Netlink, inside: &mut NetnsHandle, failure: Failure) -> Result<(), Failure> {
        let (OpErrorKind::Taken, Request::Create, Some(name)) = (failure.kind, failure.request, self.guest.name) else {
            return Err(failure);
        };
        if get(netlink, LinkSelector::Name(self.name.as_str()))?.is_some()
            || get(netlink, LinkSelector::Index(self.index))?.is_some()
        {
            return Err(failure);
        }
        match get(&mut inside.netlink, LinkSelector::Name(name.as_str()))? {
            Some(_) => Err(failure.meaning(OpErrorKind::GuestNameTaken)),
            None => Err(failure),
        }
    }
}

/// Requests one queue in each direction. Without the request the kernel creates one queue per possible processor, and then removes
/// all but one with an RCU grace period for each end, under RTNL (`veth_init_queues`, drivers/net/veth.c).
fn one_queue<T>(link: LinkMessageBuilder<T>) -> LinkMessageBuilder<T> {
    link.append_extra_attribute(LinkAttribute::NumTxQueues(1)).append_extra_attribute(LinkAttribute::NumRxQueues(1))
}
