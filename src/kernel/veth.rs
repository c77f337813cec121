//! Veth pairs: one end here, the other in a guest's namespace from its first moment.

use std::os::fd::AsRawFd;

use super::answer::{Failure, Part};
use super::create::{self, Made};
use super::links::{self, Target, shape};
use super::netns::Inside;
use super::seen::{ifinfo, look};
use super::socket::Netlink;
use super::uapi::*;
use super::wire::{Batch, Fields};
use super::{Trouble, Who};
use crate::model::{LinkName, Mac, PortId, names};
use crate::plan::{At, Kind, LinkSettings};

/// A pair to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Veth<'a> {
    pub(super) port: PortId,
    pub(super) index: u32,
    pub(super) name: &'a LinkName,
    pub(super) guest: GuestEnd<'a>,
    pub(super) settings: &'a LinkSettings,
}

/// The end that is the guest's NIC.
#[derive(Debug, Clone, Copy)]
pub(super) struct GuestEnd<'a> {
    pub(super) index: u32,
    pub(super) name: Option<&'a LinkName>,
    pub(super) mac: Mac,
    pub(super) mtu: u32,
}

impl Veth<'_> {
    /// [`Op::CreateVeth`](crate::plan::Op::CreateVeth).
    pub(super) fn create(self, netlink: &mut Netlink, inside: &mut Inside) -> Result<(), Failure> {
        if self.index == self.guest.index {
            let said = "a veth's ends need two indexes: the kernel takes one whose peer's is the same for a device without peer";
            return Err(Failure::new(Trouble::Other, Part::Create, said));
        }
        let altname = names::port_altname(self.port);
        let mut batch = Batch::default();
        let fresh = create::is_free(netlink, self.index, &altname, &Kind::Veth)?;
        if fresh {
            self.message(&mut batch, inside);
            batch.mark(self.index, &altname);
        }
        batch.v6_off(Target::Index(self.index));
        let made = Made { index: self.index, name: self.name, altname: &altname };
        create::send(netlink, batch, made).or_else(|failure| self.explain(netlink, inside, failure))?;
        self.finish(netlink, fresh)
    }

    /// The rest of the host's end, once the index is known to be its own: behind a refused creation these would hit whoever
    /// has it. The bridge comes with what belongs to it, so that a device found in its bridge is one that has it all.
    fn finish(self, netlink: &mut Netlink, fresh: bool) -> Result<(), Failure> {
        let mut rest = LinkSettings { mark: false, v6_off: false, ..self.settings.clone() };
        if fresh {
            (rest.mac, rest.mtu) = (None, None);
        }
        links::configure(netlink, self.port, At::Index(self.index), &rest).inspect_err(|_| {
            if fresh {
                create::take_back(netlink, |batch| batch.delete(Target::Index(self.index)));
            }
        })
    }

    /// With MAC and MTU: given later, each would be an event of its own. The other end is not set up here: the kernel
    /// refuses that of a peer not yet linked (`veth_newlink`, drivers/net/veth.c).
    fn message(self, batch: &mut Batch, inside: &Inside) {
        let guest = |f: &mut Fields<'_>| {
            f.bare(&ifinfo(AF_UNSPEC, self.guest.index, 0, 0));
            f.text(IFLA_IFNAME, self.guest.name.map_or("eth%d", LinkName::as_str));
            f.put(IFLA_ADDRESS, &self.guest.mac.0);
            f.u32(IFLA_MTU, self.guest.mtu);
            f.put(IFLA_NET_NS_FD, &inside.fd.as_raw_fd().to_ne_bytes());
        };
        batch.add(Part::Create, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &ifinfo(AF_UNSPEC, self.index, 0, 0), |f| {
            f.text(IFLA_IFNAME, self.name.as_str());
            shape(f, self.settings.mac, self.settings.mtu, None);
            f.nest(IFLA_LINKINFO, |f| {
                f.text(IFLA_INFO_KIND, "veth");
                f.nest(IFLA_INFO_DATA, |f| f.nest(VETH_INFO_PEER, guest));
            });
        });
    }

    /// The kernel says EEXIST of either end's name.
    fn explain(self, netlink: &mut Netlink, inside: &mut Inside, failure: Failure) -> Result<(), Failure> {
        let (Trouble::Taken, Part::Create, Some(name)) = (failure.trouble, failure.part, self.guest.name) else {
            return Err(failure);
        };
        if look(netlink, Who::Name(self.name.as_str()))?.is_some() || look(netlink, Who::Index(self.index))?.is_some() {
            return Err(failure);
        }
        match look(&mut inside.netlink, Who::Name(name.as_str()))? {
            Some(_) => Err(failure.meaning(Trouble::GuestNameTaken)),
            None => Err(failure),
        }
    }
}
