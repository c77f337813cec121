//! Changes to one link: altname, settings, deletion.
//!
//! While a link is being created it is addressed by its chosen index, afterwards only by its altname, so that a write never
//! changes a foreign link. A change by altname has index 0, and fails with ENODEV when no link has the altname.

use std::collections::BTreeSet;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgePortState, In6AddrGenMode, InfoBridgePort, LinkAttribute, Prop,
};
use nix::errno::Errno;
use rtnetlink::{LinkBridgePort, LinkMessageBuilder, LinkUnspec};

use super::answer::{Failure, Request, RequestError};
use super::ifb::Ifbs;
use super::message::Batch;
use super::seen::{PASS_LINK_LOCAL, PLAIN, get, require};
use super::socket::Netlink;
use super::untyped::{self, MAX_ALIAS, by_name, no_v4};
use super::{LinkSelector, OpErrorKind, qdisc};
use uuid::Uuid;

use crate::model::{Mac, PortId, names};
use crate::plan::{Address, At, Kind, LinkChange, LinkState, Switch, TokenBucket};

/// The link a message is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    /// A link that is being created, by index.
    Index(u32),
    /// A link of nicd, by altname.
    Altname(&'a str),
}

/// A message about a link, not about one of a kind.
pub(super) type LinkBuilder = LinkMessageBuilder<LinkUnspec>;

impl Target<'_> {
    /// A message for this link.
    pub(super) fn message(self) -> LinkBuilder {
        self.name(LinkMessageBuilder::default())
    }

    /// Names the link in a message.
    pub(super) fn name<T>(self, link: LinkMessageBuilder<T>) -> LinkMessageBuilder<T> {
        match self {
            Self::Index(index) => link.index(index),
            Self::Altname(name) => by_name(link, name),
        }
    }
}

impl Batch {
    /// A change of a link.
    pub(super) fn set(&mut self, request: Request, target: Target<'_>, fill: impl FnOnce(LinkBuilder) -> LinkBuilder) {
        self.add(request, 0, RouteNetlinkMessage::SetLink(fill(target.message()).build()));
    }

    /// Sets a link up or down.
    pub(super) fn switch(&mut self, target: Target<'_>, switch: Switch) {
        self.set(Request::Switch, target, |link| switched(link, switch));
    }

    /// Gives a link that is being created its altname. EEXIST if the link has it already.
    pub(super) fn mark(&mut self, index: u32, altname: &str) {
        let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND;
        self.add(Request::Mark, flags, RouteNetlinkMessage::NewLinkProp(property(index, altname).build()));
    }

    /// Removes an altname from the link with this index.
    pub(super) fn unmark(&mut self, index: u32, altname: &str) {
        self.add(Request::Mark, 0, RouteNetlinkMessage::DelLinkProp(property(index, altname).build()));
    }

    /// Switches IPv6 address generation off. A message of its own before the link is up, as the kernel applies it after
    /// the flags of the same message (`do_setlink`, net/core/rtnetlink.c).
    pub(super) fn v6_off(&mut self, target: Target<'_>) {
        self.set(Request::V6Off, target, |link| host_ip(link, vec![no_address_generation()]));
    }

    /// The same, and disables the host's IPv4 on the link.
    pub(super) fn ip_off(&mut self, target: Target<'_>) {
        self.set(Request::Link, target, |link| host_ip(link, vec![no_v4()]));
        self.v6_off(target);
    }

    /// What a bridge and the device that leads it to other hosts have in common: attributes, the host's IP switched off, and addresses
    /// taken off, which needs the link's index.
    pub(super) fn set_common(
        &mut self,
        netlink: &mut Netlink,
        altname: &str,
        attributes: &[LinkAttribute],
        host_ip_off: bool,
        addresses: Vec<Address>,
    ) -> Result<(), Failure> {
        let target = Target::Altname(altname);
        if !attributes.is_empty() {
            self.set(Request::Link, target, |message| with_attributes(message, attributes));
        }
        if host_ip_off {
            self.ip_off(target);
        }
        if !addresses.is_empty() {
            let index = require(netlink, LinkSelector::Altname(altname))?.index;
            addresses.into_iter().for_each(|address| self.unaddress(index, address));
        }
        Ok(())
    }

    /// The changes of a device on the host's side, without the bridge port's flags and the ownership tag.
    fn host_side(&mut self, target: Target<'_>, index: u32, messages: &Messages<'_>, send_as: IpOff) {
        let shaped = !messages.link.is_empty();
        let within = messages.host_ip_off && shaped && send_as == IpOff::Within;
        if shaped {
            self.set(Request::Link, target, |link| {
                let link = with_attributes(link, &messages.link);
                if within { host_ip(link, vec![no_v4(), no_address_generation()]) } else { link }
            });
        }
        // After the MTU, because setting the MTU may enable IPv6 again.
        if messages.host_ip_off && !within {
            self.ip_off(target);
        }
        messages.addresses.iter().for_each(|address| self.unaddress(index, *address));
        // Before the entries, of which there is one in each VLAN of the port.
        messages.pvid.iter().for_each(|pvid| self.only_vlan(index, *pvid));
        messages.fdb.iter().for_each(|mac| self.fdb(index, *mac));
        messages.to_guest.iter().for_each(|bucket| self.token_bucket(index, *bucket));
    }

    /// The bridge port's flags and the ownership tag.
    fn flags_and_tag(&mut self, target: Target<'_>, messages: &Messages<'_>) {
        if !messages.bridge_port.is_empty() {
            self.port_flags(target, messages);
        } else if let Some(tag) = messages.tag {
            self.set(Request::Switch, target, |link| tagged(link, tag));
        }
    }

    /// Deletes a link.
    pub(super) fn delete(&mut self, target: Target<'_>) {
        self.add(Request::Delete, 0, RouteNetlinkMessage::DelLink(target.message().build()));
    }

    /// Sets the flags of a bridge port, and writes the ownership tag in the same message. Only RTM_NEWLINK without NLM_F_CREATE reads the
    /// port flags of an existing link. The kernel refuses it for a device outside a bridge before it applies the rest
    /// (`rtnl_changelink`, net/core/rtnetlink.c), so such a device gets no tag.
    fn port_flags(&mut self, target: Target<'_>, messages: &Messages<'_>) {
        let mut port = target.name(LinkBridgePort::new(0));
        if let Some(tag) = messages.tag {
            port = tagged(port, tag);
        }
        port = messages.bridge_port.iter().cloned().fold(port, LinkMessageBuilder::<LinkBridgePort>::append_info_data);
        self.add(Request::PortFlags, 0, RouteNetlinkMessage::NewLink(port.build()));
    }
}

/// The changes of a device, by the messages that make them.
#[derive(Debug, Default)]
struct Messages<'a> {
    /// Whether the altname is added.
    altname: bool,
    /// MAC, MTU and bridge. The kernel applies them in that order whatever the order here, so that a foreign bridge never sees a
    /// port of another MTU (`do_setlink`).
    link: Vec<LinkAttribute>,
    /// The bridge it is put into; 0 for none.
    master: Option<u32>,
    /// The VLAN that it is to be untagged in, and in no other.
    pvid: Option<u16>,
    /// Whether the host's IP is kept from it.
    host_ip_off: bool,
    /// Addresses to take off, one message each.
    addresses: Vec<Address>,
    /// FDB entries, one message each.
    fdb: Vec<Mac>,
    /// The rate of what it sends, where that is changed.
    to_guest: Option<Option<TokenBucket>>,
    /// The exact rate of what comes in by it, where that is changed.
    from_guest: Option<Option<TokenBucket>>,
    /// The bridge port's flags.
    bridge_port: Vec<InfoBridgePort>,
    /// The alias and the admin state, in the message of the flags if there is one.
    tag: Option<(&'a str, Switch)>,
}

impl<'a> Messages<'a> {
    fn of(changes: &'a BTreeSet<LinkChange>) -> Self {
        let mut messages = Self::default();
        for change in changes {
            match change {
                LinkChange::Altname => messages.altname = true,
                LinkChange::Mac(mac) => messages.link.push(LinkAttribute::Address(mac.0.to_vec())),
                LinkChange::Mtu(mtu) => messages.link.push(LinkAttribute::Mtu(*mtu)),
                LinkChange::Master(index) => {
                    messages.link.push(LinkAttribute::Controller(*index));
                    messages.master = Some(*index);
                }
                LinkChange::Pvid(pvid) => messages.pvid = Some(*pvid),
                LinkChange::HostIpOff => messages.host_ip_off = true,
                LinkChange::RemoveAddress(address) => messages.addresses.push(*address),
                LinkChange::FdbEntry(mac) => messages.fdb.push(*mac),
                LinkChange::ToGuest(bucket) => messages.to_guest = Some(*bucket),
                LinkChange::FromGuest(bucket) => messages.from_guest = Some(*bucket),
                LinkChange::Learning(on) => messages.bridge_port.push(InfoBridgePort::Learning(*on)),
                LinkChange::UnicastFlood(on) => messages.bridge_port.push(InfoBridgePort::UnicastFlood(*on)),
                LinkChange::BpduGuard(on) => messages.bridge_port.push(InfoBridgePort::Guard(*on)),
                LinkChange::Locked(on) => messages.bridge_port.push(InfoBridgePort::Locked(*on)),
                LinkChange::PassLinkLocal => messages.bridge_port.push(InfoBridgePort::GroupFwdMask(PASS_LINK_LOCAL)),
                LinkChange::Forwarding => messages.bridge_port.push(InfoBridgePort::State(BridgePortState::Forwarding)),
                LinkChange::ResetPortFlags => messages.bridge_port.extend(PLAIN.iter().cloned()),
                LinkChange::Tag { alias, switch } => messages.tag = Some((alias, *switch)),
            }
        }
        messages
    }
}

/// In which message the host's IP is kept from a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IpOff {
    /// In the message with MAC, MTU and bridge, which saves the kernel a message, and each watcher an event. Where there is no
    /// IPv6 that is refused, and may not have been done.
    Within,
    /// In one of its own, whose refusal says nothing of the others.
    Apart,
}

/// What of the host's own IP is to be otherwise on a link.
fn host_ip<T>(link: LinkMessageBuilder<T>, settings: Vec<AfSpecUnspec>) -> LinkMessageBuilder<T> {
    link.append_extra_attribute(LinkAttribute::AfSpecUnspec(settings))
}

fn no_address_generation() -> AfSpecUnspec {
    AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)])
}

/// An altname of the link with this index.
fn property(index: u32, altname: &str) -> LinkBuilder {
    let altname = LinkAttribute::PropList(vec![Prop::AltIfName(altname.to_owned())]);
    LinkUnspec::new_with_index(index).append_extra_attribute(altname)
}

/// The alias is set before the flags of the same message (`do_setlink`).
fn tagged<T>(link: LinkMessageBuilder<T>, (alias, switch): (&str, Switch)) -> LinkMessageBuilder<T> {
    switched(link.append_extra_attribute(untyped::alias(alias)), switch)
}

/// Adds attributes to a message.
pub(super) fn with_attributes<T>(link: LinkMessageBuilder<T>, attributes: &[LinkAttribute]) -> LinkMessageBuilder<T> {
    attributes.iter().cloned().fold(link, LinkMessageBuilder::append_extra_attribute)
}

fn switched<T>(link: LinkMessageBuilder<T>, switch: Switch) -> LinkMessageBuilder<T> {
    match switch {
        Switch::Up => link.up(),
        Switch::Down => link.down(),
    }
}

/// Gives a link that is being created its MAC and MTU.
pub(super) fn shape<T>(link: LinkMessageBuilder<T>, mac: Mac, mtu: u32) -> LinkMessageBuilder<T> {
    link.address(mac.0.to_vec()).mtu(mtu)
}

/// Sends one message or several of which none may fail.
pub(super) fn send_all(netlink: &mut Netlink, batch: Batch) -> Result<(), Failure> {
    first_failure(netlink.send(batch)?)
}

/// What the kernel says of address generation on a link without IPv6.
fn no_v6(errno: Errno) -> bool {
    matches!(errno, Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP)
}

/// Without IPv6 on a link there is no address generation to switch off: the kernel has none, or not below MTU 1280.
pub(super) fn first_failure(refusals: Vec<RequestError>) -> Result<(), Failure> {
    let no_v6 = |refusal: &RequestError| refusal.request == Request::V6Off && no_v6(refusal.errno);
    // What went with something else, or by another's hand.
    let went = |refusal: &RequestError| {
        refusal.request == Request::Stale && matches!(refusal.errno, Errno::ESRCH | Errno::EADDRNOTAVAIL | Errno::ENOENT)
            // What is at the root has another handle (`tc_get_qdisc`, net/sched/sch_api.c).
            || refusal.request == Request::NoRateLimit && matches!(refusal.errno, Errno::EINVAL | Errno::ENOENT)
    };
    match refusals.into_iter().find(|refusal| !no_v6(refusal) && !went(refusal)) {
        None => Ok(()),
        Some(refusal) => Err(refusal.into()),
    }
}

/// [`Op::Configure`](crate::plan::Op::Configure).
pub(super) fn configure(
    netlink: &mut Netlink,
    ifbs: &Ifbs,
    port: PortId,
    at: At,
    changes: &BTreeSet<LinkChange>,
) -> Result<(), Failure> {
    let messages = Messages::of(changes);
    messages.tag.map_or(Ok(()), |(alias, _)| valid_alias(alias))?;
    let altname = names::port_altname(port);
    let done = match at {
        At::Index(index) => make(netlink, index, &altname, &messages),
        At::Altname => change_all(netlink, &altname, &messages),
    };
    done.map_err(|failure| explained(netlink, failure, messages.master).wanting(qdisc::MODULE))?;
    match messages.from_guest {
        Some(bucket) => {
            let device = require(netlink, LinkSelector::Altname(&altname))?;
            ifbs.set(netlink, port, &device, bucket)
        }
        None => Ok(()),
    }
}

/// All of a device that dies with this process, in one send: one that is tagged although a message was refused dies as well.
fn make(netlink: &mut Netlink, index: u32, altname: &str, messages: &Messages<'_>) -> Result<(), Failure> {
    let mut send = |send_as| {
        let (mut batch, target) = (Batch::default(), Target::Index(index));
        if messages.altname {
            batch.mark(index, altname);
        }
        batch.host_side(target, index, messages, send_as);
        batch.settle(index);
        batch.flags_and_tag(target, messages);
        netlink.send(batch)
    };
    let mut refusals = send(IpOff::Within)?;
    if messages.host_ip_off && refusals.iter().any(|refusal| refusal.request == Request::Link && no_v6(refusal.errno)) {
        refusals = send(IpOff::Apart)?;
    }
    already_marked(netlink, &mut refusals, index, altname)?;
    first_failure(refusals)
}

/// Changes of a device that outlives this process. The kernel goes on after a refused message, so the tag has a send of its own: a
/// device that has its tag has everything.
fn change_all(netlink: &mut Netlink, altname: &str, messages: &Messages<'_>) -> Result<(), Failure> {
    let target = Target::Altname(altname);
    // VLANs, the FDB, addresses and qdiscs know links by index alone. The look also settles a link that is to be set up.
    let by_altname = messages.fdb.is_empty() && messages.addresses.is_empty() && messages.to_guest.is_none();
    let index = match by_altname && messages.pvid.is_none() {
        true => 0,
        false => require(netlink, LinkSelector::Altname(altname))?.index,
    };
    let mut batch = Batch::default();
    let mut send = |batch| {
        let mut refusals = netlink.send(batch)?;
        already_limited(netlink, &mut refusals, index, messages)?;
        first_failure(refusals)
    };
    batch.host_side(target, index, messages, IpOff::Apart);
    if messages.tag.is_some() {
        send(std::mem::take(&mut batch))?;
    }
    batch.flags_and_tag(target, messages);
    send(batch)
}

/// Drops the refusal of a rate that the link with this index already has.
fn already_limited(
    netlink: &mut Netlink,
    refusals: &mut Vec<RequestError>,
    index: u32,
    messages: &Messages<'_>,
) -> Result<(), Failure> {
    let is_limit = |refusal: &RequestError| matches!(refusal.request, Request::RateLimit | Request::NoRateLimit);
    if let Some(bucket) = messages.to_guest
        && refusals.iter().any(is_limit)
        && qdisc::get(netlink, index)? == bucket
    {
        refusals.retain(|refusal| !is_limit(refusal));
    }
    Ok(())
}

/// Drops the refusal of an altname that the link with this index already has.
pub(super) fn already_marked(
    netlink: &mut Netlink,
    refusals: &mut Vec<RequestError>,
    index: u32,
    altname: &str,
) -> Result<(), Failure> {
    let taken = |refusal: &RequestError| refusal.request == Request::Mark && refusal.errno == Errno::EEXIST;
    if refusals.iter().any(taken) && get(netlink, LinkSelector::Altname(altname))?.is_some_and(|link| link.index == index) {
        refusals.retain(|refusal| !taken(refusal));
    }
    Ok(())
}

/// The kernel says EINVAL or EOPNOTSUPP of a master that is not there or takes no ports (`do_set_master`).
pub(super) fn explained(netlink: &mut Netlink, failure: Failure, master: Option<u32>) -> Failure {
    let about_master = failure.request == Request::Link && failure.kind == OpErrorKind::Other;
    let Some(master) = master.filter(|master| *master != 0 && about_master) else { return failure };
    match get(netlink, LinkSelector::Index(master)) {
        Ok(Some(link)) if link.kind == Kind::Bridge => failure,
        Ok(_) => failure.meaning(OpErrorKind::NoBridge),
        Err(another) => another,
    }
}

/// Whether the kernel would take this for an alias.
fn valid_alias(alias: &str) -> Result<(), Failure> {
    if alias.len() > MAX_ALIAS || alias.contains('\0') {
        let said = format!("an alias has at most {MAX_ALIAS} octets, none of them NUL");
        return Err(Failure::new(OpErrorKind::Other, Request::Switch, said));
    }
    Ok(())
}

/// [`Op::RestoreAltname`](crate::plan::Op::RestoreAltname). Nothing but the index reaches a link without its mark, so it is looked at
/// before, and again by the mark it was given: an index that became another link's in between loses it again. The altname
/// comes before an alias that is gone as well, so that a link is never found by an alias that is not its own.
pub(super) fn restore_altname(netlink: &mut Netlink, altname: &str, index: u32, alias: &str) -> Result<(), Failure> {
    let has_alias = |link: &LinkState| link.alias.as_deref() == Some(alias);
    let untagged = |link: &LinkState| link.alias.as_deref().and_then(names::tagged).is_none();
    let known = |link: &LinkState| link.index == index && (has_alias(link) || link.is_stripped());
    let marked = |link: &LinkState| link.index == index && (has_alias(link) || untagged(link));
    let another =
        || Failure::new(OpErrorKind::Gone, Request::Mark, format!("the link with index {index} is not the one of '{alias}'"));
    if !known(&require(netlink, LinkSelector::Index(index))?) {
        return Err(another());
    }
    let mut batch = Batch::default();
    batch.mark(index, altname);
    let mut refusals = netlink.send(batch)?;
    already_marked(netlink, &mut refusals, index, altname)?;
    first_failure(refusals)?;
    let mut batch = Batch::default();
    match get(netlink, LinkSelector::Altname(altname))?.filter(marked) {
        Some(link) if has_alias(&link) => return Ok(()),
        Some(_) => batch.set(Request::Mark, Target::Altname(altname), |link| link.append_extra_attribute(untyped::alias(alias))),
        None => {
            batch.unmark(index, altname);
            return send_all(netlink, batch).and(Err(another()));
        }
    }
    send_all(netlink, batch)
}

/// [`Op::SetLink`](crate::plan::Op::SetLink).
pub(super) fn switch(netlink: &mut Netlink, port: PortId, switch: Switch) -> Result<(), Failure> {
    change(netlink, port, |batch, target| batch.switch(target, switch))
}

/// [`Op::Unbind`](crate::plan::Op::Unbind).
pub(super) fn unbind(netlink: &mut Netlink, port: PortId) -> Result<(), Failure> {
    change(netlink, port, |batch, target| batch.set(Request::Unbind, target, LinkBuilder::nocontroller))
}

/// [`Op::SetGroup`](crate::plan::Op::SetGroup).
pub(super) fn set_group(netlink: &mut Netlink, port: PortId, group: u32) -> Result<(), Failure> {
    not_everything(group)?;
    change(netlink, port, |batch, target| batch.set(Request::Group, target, |link| link.link_group(group)))
}

/// [`Op::DeleteGroup`](crate::plan::Op::DeleteGroup): an empty group is ENODEV; one with a link that cannot be deleted
/// is EOPNOTSUPP, and then nothing is.
pub(super) fn delete_group(netlink: &mut Netlink, group: u32) -> Result<(), Failure> {
    not_everything(group)?;
    let mut batch = Batch::default();
    batch.add(Request::Delete, 0, RouteNetlinkMessage::DelLink(LinkBuilder::default().link_group(group).build()));
    gone(send_all(netlink, batch))
}

/// [`Op::DeleteLink`](crate::plan::Op::DeleteLink), and a bridge's end. A link that has the altname, and that the nicd with this
/// store did not make, is left: for it there is nothing to delete.
pub(super) fn delete(netlink: &mut Netlink, altname: &str, store: Uuid) -> Result<(), Failure> {
    match get(netlink, LinkSelector::Altname(altname))? {
        None => return Ok(()),
        Some(link) if !link.is_of(store) => {
            tracing::warn!(link = link.name, altname, %store, "a link that the nicd with this store did not make is not deleted");
            return Ok(());
        }
        Some(_) => {}
    }
    let mut batch = Batch::default();
    batch.delete(Target::Altname(altname));
    gone(send_all(netlink, batch))
}

/// One change of a port's device.
fn change(netlink: &mut Netlink, port: PortId, fill: impl FnOnce(&mut Batch, Target<'_>)) -> Result<(), Failure> {
    let altname = names::port_altname(port);
    let mut batch = Batch::default();
    fill(&mut batch, Target::Altname(&altname));
    send_all(netlink, batch)
}

/// What is not there need not be deleted.
fn gone(result: Result<(), Failure>) -> Result<(), Failure> {
    match result {
        Err(Failure { kind: OpErrorKind::Gone, .. }) => Ok(()),
        other => other,
    }
}

/// Group 0 is the default group of links.
fn not_everything(group: u32) -> Result<(), Failure> {
    match group {
        0 => Err(Failure::new(OpErrorKind::Other, Request::Group, "group 0 holds the host's own links")),
        _ => Ok(()),
    }
}
