//! Changes to one link: its mark, its settings, its end.
//!
//! A link is addressed by the index chosen for it while it is being made, and from then on by its altname alone, so
//! that a write can only hit ours. A change by altname carries index 0, and is ENODEV when there is no such link.

use nix::errno::Errno;

use super::answer::{Failure, Part, Refusal};
use super::seen::{ifinfo, look, must_look};
use super::socket::Netlink;
use super::uapi::*;
use super::wire::{Batch, Fields};
use super::{Trouble, Who};
use uuid::Uuid;

use crate::model::{Mac, PortId, names};
use crate::plan::{At, Kind, LinkSeen, LinkSettings, Seal, Switch};

/// The link a message is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    /// One being made.
    Index(u32),
    /// One that is ours.
    Altname(&'a str),
}

impl Target<'_> {
    pub(super) fn index(self) -> u32 {
        match self {
            Self::Index(index) => index,
            Self::Altname(_) => 0,
        }
    }

    pub(super) fn name(self, f: &mut Fields<'_>) {
        if let Self::Altname(name) = self {
            f.text(IFLA_ALT_IFNAME, name);
        }
    }
}

impl Batch {
    /// A change of a link; `flags` of those in `change` are set.
    pub(super) fn set(&mut self, part: Part, target: Target<'_>, flags: u32, change: u32, fill: impl FnOnce(&mut Fields<'_>)) {
        self.add(part, RTM_SETLINK, 0, &ifinfo(AF_UNSPEC, target.index(), flags, change), |f| {
            target.name(f);
            fill(f);
        });
    }

    /// Sets a link up or down.
    pub(super) fn switch(&mut self, target: Target<'_>, switch: Switch, fill: impl FnOnce(&mut Fields<'_>)) {
        self.set(Part::Switch, target, flags(switch), IFF_UP, fill);
    }

    /// Gives a link that is being made its altname. One it already has is EEXIST.
    pub(super) fn mark(&mut self, index: u32, altname: &str) {
        let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND;
        self.add(Part::Mark, RTM_NEWLINKPROP, flags, &ifinfo(AF_UNSPEC, index, 0, 0), |f| {
            f.nest(IFLA_PROP_LIST, |f| f.text(IFLA_ALT_IFNAME, altname));
        });
    }

    /// Takes an altname from the link with this index.
    pub(super) fn unmark(&mut self, index: u32, altname: &str) {
        self.add(Part::Mark, RTM_DELLINKPROP, 0, &ifinfo(AF_UNSPEC, index, 0, 0), |f| {
            f.nest(IFLA_PROP_LIST, |f| f.text(IFLA_ALT_IFNAME, altname));
        });
    }

    /// Switches IPv6 address generation off. A message of its own before the link is up, as the kernel applies it after
    /// the flags of the same message (`do_setlink`, net/core/rtnetlink.c).
    pub(super) fn v6_off(&mut self, target: Target<'_>) {
        self.set(Part::V6Off, target, 0, 0, |f| f.nest(IFLA_AF_SPEC, no_address_generation));
    }

    /// The same, and keeps the host's IPv4 from the link.
    pub(super) fn ip_off(&mut self, target: Target<'_>) {
        self.set(Part::Link, target, 0, 0, |f| f.nest(IFLA_AF_SPEC, no_v4));
        self.v6_off(target);
    }

    /// Looks at a link that is being made, for what that does: the kernel processes the link's pending change of carrier
    /// (`linkwatch_sync_dev`). While a link is down that costs nothing; once it is up, no carrier means an RCU grace period
    /// under RTNL (`dev_deactivate`, net/sched/sch_generic.c), at the next look or at the kernel's own leisure.
    pub(super) fn settle(&mut self, index: u32) {
        self.add(Part::Look, RTM_GETLINK, 0, &ifinfo(AF_UNSPEC, index, 0, 0), |f| f.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS));
    }

    /// What a device is to be on the host's side, but for its bridge port's flags and its seal.
    fn host_side(&mut self, target: Target<'_>, index: u32, settings: &LinkSettings, send_as: IpOff) {
        let LinkSettings { ip_off: off, stray, mac, mtu, master, fdb, .. } = settings;
        let shaped = mac.is_some() || mtu.is_some() || master.is_some();
        let within = *off && shaped && send_as == IpOff::Within;
        if shaped {
            self.set(Part::Link, target, 0, 0, |f| {
                shape(f, *mac, *mtu, *master);
                if within {
                    f.nest(IFLA_AF_SPEC, |f| {
                        no_v4(f);
                        no_address_generation(f);
                    });
                }
            });
        }
        // Behind the MTU, with which IPv6 may come back.
        if *off && !within {
            self.ip_off(target);
        }
        stray.iter().for_each(|address| self.unaddress(index, *address));
        fdb.iter().for_each(|mac| self.fdb(index, *mac));
    }

    /// The rest of it.
    fn flags_and_seal(&mut self, target: Target<'_>, settings: &LinkSettings) {
        let flags = settings.learning.is_some() || settings.unicast_flood.is_some() || settings.plain;
        if flags || settings.pass_link_local || settings.forward {
            self.port_flags(target, settings);
        } else if let Some(seal) = &settings.seal {
            self.switch(target, seal.switch, |f| sealed(f, seal));
        }
    }

    /// Deletes a link.
    pub(super) fn delete(&mut self, target: Target<'_>) {
        self.add(Part::Delete, RTM_DELLINK, 0, &ifinfo(AF_UNSPEC, target.index(), 0, 0), |f| target.name(f));
    }

    /// Sets flags of a bridge's port, then seals it. RTM_NEWLINK without NLM_F_CREATE changes what is there, and only it reads
    /// slave data. A device that is not in a bridge it refuses before it comes to the rest (`rtnl_changelink`,
    /// net/core/rtnetlink.c): what did not get into its bridge is not sealed.
    fn port_flags(&mut self, target: Target<'_>, settings: &LinkSettings) {
        let (flags, change) = settings.seal.as_ref().map_or((0, 0), |seal| (flags(seal.switch), IFF_UP));
        self.add(Part::PortFlags, RTM_NEWLINK, 0, &ifinfo(AF_UNSPEC, target.index(), flags, change), |f| {
            target.name(f);
            if let Some(seal) = &settings.seal {
                sealed(f, seal);
            }
            f.nest(IFLA_LINKINFO, |f| {
                f.text(IFLA_INFO_SLAVE_KIND, "bridge");
                f.nest(IFLA_INFO_SLAVE_DATA, |f| {
                    if let Some(learning) = settings.learning {
                        f.u8(IFLA_BRPORT_LEARNING, u8::from(learning));
                    }
                    if let Some(flood) = settings.unicast_flood {
                        f.u8(IFLA_BRPORT_UNICAST_FLOOD, u8::from(flood));
                    }
                    if settings.pass_link_local {
                        f.u16(IFLA_BRPORT_GROUP_FWD_MASK, PASS_LINK_LOCAL);
                    }
                    if settings.forward {
                        f.u8(IFLA_BRPORT_STATE, BR_STATE_FORWARDING);
                    }
                    if settings.plain {
                        IFLA_BRPORT_PLAIN.iter().for_each(|(flag, value)| f.u8(*flag, *value));
                    }
                });
            });
        });
    }
}

/// In which message the host's IP is kept from a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IpOff {
    /// In the message with MAC, MTU and bridge, which spares the kernel one, and whoever watches an event. Where there is no
    /// IPv6 that is refused, and may not have been done.
    Within,
    /// In one of its own, whose refusal says nothing of the others.
    Apart,
}

fn no_address_generation(f: &mut Fields<'_>) {
    f.nest(u16::from(AF_INET6), |f| f.u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE));
}

/// The host's IPv4 takes nothing from the link, also while it is in no bridge or the bridge is open: a source on a link without
/// addresses is never valid (`__fib_validate_source`, net/ipv4/fib_frontend.c), and no ARP request is answered.
fn no_v4(f: &mut Fields<'_>) {
    f.nest(u16::from(AF_INET), |f| {
        f.nest(IFLA_INET_CONF, |f| {
            f.u32(IPV4_DEVCONF_FORWARDING, 0);
            f.u32(IPV4_DEVCONF_RP_FILTER, 1);
            f.u32(IPV4_DEVCONF_ARP_IGNORE, ARP_IGNORE_ALL);
        });
    });
}

/// The alias is set before the flags of the same message (`do_setlink`). Unlike names, it is taken with whatever octets its
/// length says.
fn sealed(f: &mut Fields<'_>, seal: &Seal) {
    tagged(f, &seal.alias);
}

/// The alias of a link; an empty one takes it away.
pub(super) fn tagged(f: &mut Fields<'_>, alias: &str) {
    f.put(IFLA_IFALIAS, alias.as_bytes());
}

fn flags(switch: Switch) -> u32 {
    match switch {
        Switch::Up => IFF_UP,
        Switch::Down => 0,
    }
}

/// The MAC, MTU and bridge of a link. The kernel applies them in that order whatever the order here, so that a foreign
/// bridge never sees a port of another MTU (`do_setlink`).
pub(super) fn shape(f: &mut Fields<'_>, mac: Option<Mac>, mtu: Option<u32>, master: Option<u32>) {
    if let Some(mac) = mac {
        f.put(IFLA_ADDRESS, &mac.0);
    }
    if let Some(mtu) = mtu {
        f.u32(IFLA_MTU, mtu);
    }
    if let Some(master) = master {
        f.u32(IFLA_MASTER, master);
    }
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
pub(super) fn first_failure(refusals: Vec<Refusal>) -> Result<(), Failure> {
    let no_v6 = |refusal: &Refusal| refusal.part == Part::V6Off && no_v6(refusal.errno);
    // What went with something else, or by another's hand.
    let went = |refusal: &Refusal| refusal.part == Part::Stale && matches!(refusal.errno, Errno::ESRCH | Errno::EADDRNOTAVAIL);
    match refusals.into_iter().find(|refusal| !no_v6(refusal) && !went(refusal)) {
        None => Ok(()),
        Some(refusal) => Err(refusal.into()),
    }
}

/// [`Op::Configure`](crate::plan::Op::Configure).
pub(super) fn configure(netlink: &mut Netlink, port: PortId, at: At, settings: &LinkSettings) -> Result<(), Failure> {
    settings.seal.as_ref().map_or(Ok(()), sealable)?;
    let altname = names::port_altname(port);
    let done = match at {
        At::Index(index) => make(netlink, index, &altname, settings),
        At::Altname => change_all(netlink, &altname, settings),
    };
    done.map_err(|failure| explained(netlink, failure, settings.master))
}

/// All of a device that dies with this process, in one send: what is sealed behind a refusal goes with it.
fn make(netlink: &mut Netlink, index: u32, altname: &str, settings: &LinkSettings) -> Result<(), Failure> {
    let mut send = |send_as| {
        let (mut batch, target) = (Batch::default(), Target::Index(index));
        if settings.mark {
            batch.mark(index, altname);
        }
        batch.host_side(target, index, settings, send_as);
        batch.settle(index);
        batch.flags_and_seal(target, settings);
        netlink.send(batch)
    };
    let mut refusals = send(IpOff::Within)?;
    if settings.ip_off && refusals.iter().any(|refusal| refusal.part == Part::Link && no_v6(refusal.errno)) {
        refusals = send(IpOff::Apart)?;
    }
    already_marked(netlink, &mut refusals, index, altname)?;
    first_failure(refusals)
}

/// Changes of a device that outlives this process. The kernel goes on behind a refused message, so it is sealed by a send of
/// its own: a device found sealed has everything.
fn change_all(netlink: &mut Netlink, altname: &str, settings: &LinkSettings) -> Result<(), Failure> {
    let target = Target::Altname(altname);
    // The FDB and addresses know links by index alone. The look also settles a link that is to be set up.
    let index = match settings.fdb.is_empty() && settings.stray.is_empty() {
        true => 0,
        false => must_look(netlink, Who::Altname(altname))?.index,
    };
    let mut batch = Batch::default();
    batch.host_side(target, index, settings, IpOff::Apart);
    if settings.seal.is_some() {
        send_all(netlink, std::mem::take(&mut batch))?;
    }
    batch.flags_and_seal(target, settings);
    send_all(netlink, batch)
}

/// Drops the refusal of an altname that the link with this index already has.
pub(super) fn already_marked(
    netlink: &mut Netlink,
    refusals: &mut Vec<Refusal>,
    index: u32,
    altname: &str,
) -> Result<(), Failure> {
    let taken = |refusal: &Refusal| refusal.part == Part::Mark && refusal.errno == Errno::EEXIST;
    if refusals.iter().any(taken) && look(netlink, Who::Altname(altname))?.is_some_and(|link| link.index == index) {
        refusals.retain(|refusal| !taken(refusal));
    }
    Ok(())
}

/// The kernel says EINVAL or EOPNOTSUPP of a master that is not there or takes no ports (`do_set_master`).
fn explained(netlink: &mut Netlink, failure: Failure, master: Option<u32>) -> Failure {
    let about_master = failure.part == Part::Link && failure.trouble == Trouble::Other;
    let Some(master) = master.filter(|master| *master != 0 && about_master) else { return failure };
    match look(netlink, Who::Index(master)) {
        Ok(Some(link)) if link.kind == Kind::Bridge => failure,
        Ok(_) => failure.meaning(Trouble::NoBridge),
        Err(another) => another,
    }
}

/// Whether the kernel would take this for an alias.
fn sealable(Seal { alias, .. }: &Seal) -> Result<(), Failure> {
    if alias.len() > MAX_ALIAS || alias.contains('\0') {
        let said = format!("an alias has at most {MAX_ALIAS} octets, none of them NUL");
        return Err(Failure::new(Trouble::Other, Part::Switch, said));
    }
    Ok(())
}

/// [`Op::MarkAgain`](crate::plan::Op::MarkAgain). Nothing but the index reaches a link without its mark, so it is looked at
/// before, and again by the mark it was given: an index that became another link's in between loses it again. The altname
/// comes before an alias that is gone as well, so that a link is never found by an alias that is not its own.
pub(super) fn mark_again(netlink: &mut Netlink, altname: &str, index: u32, alias: &str) -> Result<(), Failure> {
    let sealed = |link: &LinkSeen| link.alias.as_deref() == Some(alias);
    let untagged = |link: &LinkSeen| link.alias.as_deref().and_then(names::tagged).is_none();
    let known = |link: &LinkSeen| link.index == index && (sealed(link) || link.is_stripped());
    let marked = |link: &LinkSeen| link.index == index && (sealed(link) || untagged(link));
    let another = || Failure::new(Trouble::Gone, Part::Mark, format!("the link with index {index} is not the one of '{alias}'"));
    if !known(&must_look(netlink, Who::Index(index))?) {
        return Err(another());
    }
    let mut batch = Batch::default();
    batch.mark(index, altname);
    let mut refusals = netlink.send(batch)?;
    already_marked(netlink, &mut refusals, index, altname)?;
    first_failure(refusals)?;
    let mut batch = Batch::default();
    match look(netlink, Who::Altname(altname))?.filter(marked) {
        Some(link) if sealed(&link) => return Ok(()),
        Some(_) => batch.set(Part::Mark, Target::Altname(altname), 0, 0, |f| f.put(IFLA_IFALIAS, alias.as_bytes())),
        None => {
            batch.unmark(index, altname);
            return send_all(netlink, batch).and(Err(another()));
        }
    }
    send_all(netlink, batch)
}

/// [`Op::SetLink`](crate::plan::Op::SetLink).
pub(super) fn switch(netlink: &mut Netlink, port: PortId, switch: Switch) -> Result<(), Failure> {
    change(netlink, port, |batch, target| batch.switch(target, switch, |_| {}))
}

/// [`Op::Unbind`](crate::plan::Op::Unbind).
pub(super) fn unbind(netlink: &mut Netlink, port: PortId) -> Result<(), Failure> {
    change(netlink, port, |batch, target| batch.set(Part::Unbind, target, 0, 0, |f| f.u32(IFLA_MASTER, 0)))
}

/// [`Op::SetGroup`](crate::plan::Op::SetGroup).
pub(super) fn set_group(netlink: &mut Netlink, port: PortId, group: u32) -> Result<(), Failure> {
    not_everything(group)?;
    change(netlink, port, |batch, target| batch.set(Part::Group, target, 0, 0, |f| f.u32(IFLA_GROUP, group)))
}

/// [`Op::DeleteGroup`](crate::plan::Op::DeleteGroup): an empty group is ENODEV; one with a link that cannot be deleted
/// is EOPNOTSUPP, and then nothing is.
pub(super) fn delete_group(netlink: &mut Netlink, group: u32) -> Result<(), Failure> {
    not_everything(group)?;
    let mut batch = Batch::default();
    batch.add(Part::Delete, RTM_DELLINK, 0, &ifinfo(AF_UNSPEC, 0, 0, 0), |f| f.u32(IFLA_GROUP, group));
    gone(send_all(netlink, batch))
}

/// [`Op::DeleteLink`](crate::plan::Op::DeleteLink), and a bridge's end. A link that has the altname, and that the nicd with this
/// store did not make, is left: for it there is nothing to delete.
pub(super) fn delete(netlink: &mut Netlink, altname: &str, store: Uuid) -> Result<(), Failure> {
    match look(netlink, Who::Altname(altname))? {
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
        Err(Failure { trouble: Trouble::Gone, .. }) => Ok(()),
        other => other,
    }
}

/// Group 0 is where every link is that nobody moved.
fn not_everything(group: u32) -> Result<(), Failure> {
    match group {
        0 => Err(Failure::new(Trouble::Other, Part::Group, "group 0 holds the host's own links")),
        _ => Ok(()),
    }
}
