//! The exact rate of what a guest sends: what comes in by its port's device goes through a device of its own (`ifb`,
//! drivers/net/ifb.c) with a token bucket at its root, and comes in by the port's device from there.
//!
//! ```text
//!  guest ─► port's device ── clsact, u32, mirred ─► ifb, tbf ─► the port's device's bridge
//! ```
//!
//! An ifb belongs to one device: its index follows from the device's ([`names::ifb_index`]). It is removed once the kernel has
//! reported the device's deletion. When a limit is lifted it goes at once if nothing waits in it; else the next dump that shows it
//! without frames that are sent to it removes it, as it does one without its device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netlink_packet_core::{DecodeError, DefaultNla, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcHeader, TcMessage, TcOption};
use nix::errno::Errno;
use rtnetlink::LinkUnspec;

use super::answer::{Failure, Request};
use super::create::{self, Made};
use super::links::{Target, first_failure, send_all};
use super::message::{Batch, find, nested, text};
use super::qdisc::{TCA_KIND, TCA_OPTIONS, TCMSG};
use super::socket::Netlink;
use super::{LinkSelector, qdisc, seen, untyped};
use crate::model::PortId;
use crate::model::names::{self, FIRST_INDEX};
use crate::plan::{Kind, LinkState, TokenBucket};

/// The priority of nicd's filter among others there.
const PRIORITY: u32 = 0x6e69;

/// Frames of every protocol (`ETH_P_ALL`).
const ALL: u16 = 3;

/// Where filters of what comes in by a device hang (`TC_H_MIN_INGRESS`).
const INCOMING: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };

/// The handle of `clsact`.
const CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0 };

/// `linux/rtnetlink.h`, `linux/pkt_cls.h`, `linux/tc_act/tc_mirred.h`.
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const TC_ACT_STOLEN: i32 = 4;
const TCA_EGRESS_REDIR: i32 = 1;
const TC_U32_TERMINAL: u8 = 1;

/// Where `struct tc_mirred` has the index of the device that frames go to: behind `tc_gen` and the action.
const MIRRED_INDEX: usize = 24;

/// As fast as there is.
const UNLIMITED: TokenBucket = TokenBucket { rate: 12_500_000_000, burst: TokenBucket::MAX_BURST };

/// The altnames of the ifbs there are, by their devices' indexes. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Ifbs(Arc<Mutex<HashMap<u32, String>>>);

impl Ifbs {
    /// Sets the exact rate of what comes in by a port's device, or lifts it.
    pub(super) fn set(
        &self,
        netlink: &mut Netlink,
        port: PortId,
        device: &LinkState,
        bucket: Option<TokenBucket>,
    ) -> Result<(), Failure> {
        let altname = names::ifb_altname(port);
        // Held all along, so that no sweep takes an ifb that is not used yet for one that is not used any more.
        let mut ifbs = self.lock();
        let Some(bucket) = bucket else {
            if !ifbs.contains_key(&device.index) {
                return Ok(());
            }
            release(netlink, device.index)?;
            // What waits is sent before the ifb goes: then a sweep removes it.
            if qdisc::queued(netlink, names::ifb_index(device.index)).is_ok_and(|frames| frames == 0) {
                ifbs.remove(&device.index);
                remove(netlink, names::ifb_index(device.index), &altname);
            }
            return Ok(());
        };
        let before = target(netlink, device.index)?;
        ifbs.insert(device.index, altname.clone());
        make(netlink, port, &altname, device, bucket)?;
        match before {
            Some(to) if to == names::ifb_index(device.index) => return Ok(()),
            Some(_) => end_redirect(netlink, device.index)?,
            None => {}
        }
        redirect(netlink, device.index).inspect_err(|_| {
            ifbs.remove(&device.index);
            remove(netlink, names::ifb_index(device.index), &altname);
        })
    }

    /// The device that an ifb is of.
    pub(super) fn device_of(&self, ifb: u32) -> Option<u32> {
        let device = names::ifb_index(ifb);
        self.lock().contains_key(&device).then_some(device)
    }

    /// Notes on devices with an ifb how fast their guests may send.
    pub(super) fn note(&self, netlink: &mut Netlink, links: &mut [LinkState]) -> Result<(), Failure> {
        for link in links {
            if self.lock().contains_key(&link.index) {
                link.from_guest = rate(netlink, link.index)?;
            }
        }
        Ok(())
    }

    /// Takes in all links: which ifbs there are. Those whose device is not there are removed, and those whose limit was lifted once
    /// nothing waits in them.
    pub(super) fn sweep(&self, netlink: &mut Netlink, links: &[LinkState]) -> Result<(), Failure> {
        let ours = |link: &&LinkState| link.index >= FIRST_INDEX && link.alias.as_deref().is_some_and(names::is_ifb_tag);
        let altname = |link: &LinkState| link.altnames.iter().find(|name| names::is_ifb_altname(name)).cloned();
        let ifbs_found = links.iter().filter(ours).filter_map(|link| Some((names::ifb_index(link.index), altname(link)?)));
        let found: HashMap<u32, String> = ifbs_found.collect();
        let mut ifbs = self.lock();
        // Each is asked for now: a dump may be older than the device or its ifb.
        let known: Vec<u32> = ifbs.keys().copied().filter(|device| !found.contains_key(device)).collect();
        for device in known {
            if target(netlink, device)?.is_none() {
                ifbs.remove(&device);
            }
        }
        for (device, altname) in found {
            let ifb = names::ifb_index(device);
            if target(netlink, device)?.is_some() {
                ifbs.insert(device, altname);
                continue;
            }
            // Another nicd may be making it: then its device is there, and this one does not know it.
            let is_left = match seen::get(netlink, LinkSelector::Index(device))? {
                None => true,
                Some(_) => ifbs.contains_key(&device) && qdisc::queued(netlink, ifb).is_ok_and(|frames| frames == 0),
            };
            if is_left {
                ifbs.remove(&device);
                remove(netlink, ifb, &altname);
            }
        }
        Ok(())
    }

    /// Removes the ifbs of devices that were deleted.
    pub(super) fn forget(&self, netlink: &mut Netlink, devices: impl IntoIterator<Item = u32>) {
        for device in devices {
            let gone = self.lock().remove(&device);
            gone.iter().for_each(|altname| remove(netlink, names::ifb_index(device), altname));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, String>> {
        // Whole after each statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes an ifb that still has this altname: the altname alone may be of the one of the port's next device by now.
fn remove(netlink: &mut Netlink, ifb: u32, altname: &str) {
    let found = seen::get(netlink, LinkSelector::Index(ifb));
    if !found.is_ok_and(|found| found.is_some_and(|link| link.altnames.iter().any(|name| name == altname))) {
        return;
    }
    let mut batch = Batch::default();
    batch.delete(Target::Index(ifb));
    match send_all(netlink, batch) {
        Err(failure) if failure.errno != Some(Errno::ENODEV) => {
            tracing::warn!(altname, said = failure.said, "the ifb of a device that is gone is still there");
        }
        _ => {}
    }
}

/// Makes the ifb of a device, or sets its rate.
fn make(netlink: &mut Netlink, port: PortId, altname: &str, device: &LinkState, bucket: TokenBucket) -> Result<(), Failure> {
    let (index, name) = (names::ifb_index(device.index), names::port_ifb(port));
    // An earlier device of the port's had another one.
    if let Some(earlier) = seen::get(netlink, LinkSelector::Altname(altname))?.filter(|link| link.index != index) {
        remove(netlink, earlier.index, altname);
    }
    let mut batch = Batch::default();
    let target = Target::Index(index);
    let is_new = create::is_free(netlink, index, altname, &Kind::Other)?;
    if is_new {
        let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]);
        let link = LinkUnspec::new_with_index(index).name(name.to_string()).append_extra_attribute(kind);
        batch.add(Request::Create, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(link.build()));
        batch.mark(index, altname);
    }
    batch.ip_off(target);
    if let Some(store) = device.alias.as_deref().and_then(names::tagged) {
        batch.set(Request::Link, target, |link| link.append_extra_attribute(untyped::alias(&names::ifb_tag(store))));
    }
    if is_new || qdisc::get(netlink, index)? != Some(bucket) {
        batch.token_bucket(index, Some(bucket));
    }
    batch.switch(target, crate::plan::Switch::Up);
    create::send(netlink, batch, Made { index, name: &name, altname }).map_err(|failure| {
        let module = if failure.request == Request::RateLimit { "sch_tbf" } else { "ifb" };
        failure.wanting(module)
    })
}

/// Sends what comes in by a device to its ifb.
fn redirect(netlink: &mut Netlink, device: u32) -> Result<(), Failure> {
    let mut batch = Batch::default();
    let header = TcHeader { index: device.cast_signed(), handle: CLSACT, parent: TcHandle::CLSACT, ..TcHeader::default() };
    let clsact = TcMessage::from_parts(header, vec![TcAttribute::Kind("clsact".to_owned())]);
    batch.add(Request::Redirect, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewQueueDiscipline(clsact));
    let mut refusals = netlink.send(batch)?;
    // Another program may have made one.
    refusals.retain(|refusal| refusal.errno != Errno::EEXIST);
    first_failure(refusals).map_err(|failure| failure.wanting("sch_ingress"))?;
    let mut batch = Batch::default();
    let options = vec![DefaultNla::new(TCA_U32_SEL, everything()), nested(TCA_U32_ACT, &[action(names::ifb_index(device))])];
    let attributes = vec![kind(), TcAttribute::Options(options.into_iter().map(TcOption::Other).collect())];
    let filter = TcMessage::from_parts(filters_of(device), attributes);
    batch.add(Request::Redirect, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewTrafficFilter(filter));
    send_all(netlink, batch).map_err(|failure| failure.wanting("cls_u32 or act_mirred"))
}

/// Lets what comes in by a device go on at once, and what waits in its ifb as well.
fn release(netlink: &mut Netlink, device: u32) -> Result<(), Failure> {
    end_redirect(netlink, device)?;
    let mut batch = Batch::default();
    batch.token_bucket(names::ifb_index(device), Some(UNLIMITED));
    // Where it is refused, what waits is sent at the old rate.
    netlink.send(batch).map(drop)
}

/// Lets what comes in by a device from now on go on at once.
fn end_redirect(netlink: &mut Netlink, device: u32) -> Result<(), Failure> {
    let mut batch = Batch::default();
    let filter = TcMessage::from_parts(filters_of(device), vec![kind()]);
    batch.add(Request::Redirect, 0, RouteNetlinkMessage::DelTrafficFilter(filter));
    let mut refusals = netlink.send(batch)?;
    // There is none, or no device for it.
    refusals.retain(|refusal| !matches!(refusal.errno, Errno::ENOENT | Errno::EINVAL | Errno::ENODEV));
    first_failure(refusals)
}

fn kind() -> TcAttribute {
    TcAttribute::Kind("u32".to_owned())
}

fn filters_of(device: u32) -> TcHeader {
    let info = PRIORITY << 16 | u32::from(ALL.to_be());
    TcHeader { index: device.cast_signed(), parent: INCOMING, info, ..TcHeader::default() }
}

/// `struct tc_u32_sel` with one key, of which no bit is compared.
fn everything() -> Vec<u8> {
    let mut selector = vec![0; 16 + 16];
    (selector[0], selector[2]) = (TC_U32_TERMINAL, 1);
    selector
}

fn action(to: u32) -> DefaultNla {
    let mut parameters = vec![0; MIRRED_INDEX + 4];
    parameters[8..12].copy_from_slice(&TC_ACT_STOLEN.to_ne_bytes());
    parameters[MIRRED_INDEX - 4..MIRRED_INDEX].copy_from_slice(&TCA_EGRESS_REDIR.to_ne_bytes());
    parameters[MIRRED_INDEX..].copy_from_slice(&to.to_ne_bytes());
    let options = nested(TCA_ACT_OPTIONS, &[DefaultNla::new(TCA_MIRRED_PARMS, parameters)]);
    nested(1, &[DefaultNla::new(TCA_ACT_KIND, b"mirred\0".to_vec()), options])
}

/// The device that nicd's filter sends to what comes in by a device.
fn target(netlink: &mut Netlink, device: u32) -> Result<Option<u32>, Failure> {
    let ask = || {
        let mut batch = Batch::default();
        let filters = TcMessage::from_parts(filters_of(device), Vec::new());
        batch.add(Request::Look, NLM_F_DUMP, RouteNetlinkMessage::GetTrafficFilter(filters));
        batch
    };
    match netlink.dump(ask, read) {
        Ok(targets) => Ok(targets.into_iter().next()),
        Err(failure) if matches!(failure.errno, Some(Errno::EINVAL | Errno::ENODEV | Errno::ENOENT)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn read(body: &[u8]) -> Result<Option<u32>, DecodeError> {
    let header = TcHeader::parse(body)?;
    let is_ours = header.info >> 16 == PRIORITY && find(body, TCMSG, TCA_KIND).is_some_and(|kind| text(kind) == "u32");
    let options = || find(find(find(body, TCMSG, TCA_OPTIONS)?, 0, TCA_U32_ACT)?, 0, 1);
    let parameters = || find(find(options()?, 0, TCA_ACT_OPTIONS)?, 0, TCA_MIRRED_PARMS);
    let index = parameters().filter(|_| is_ours).and_then(|parameters| parameters.get(MIRRED_INDEX..)?.first_chunk().copied());
    Ok(index.map(u32::from_ne_bytes))
}

/// The rate of what comes in by a device; one of 0 where its ifb is not as nicd makes it.
fn rate(netlink: &mut Netlink, device: u32) -> Result<Option<TokenBucket>, Failure> {
    let index = names::ifb_index(device);
    match target(netlink, device)? {
        None => Ok(None),
        Some(to) if to == index => {
            let up = seen::get(netlink, LinkSelector::Index(index))?.is_some_and(|link| link.up);
            let bucket = if up { qdisc::get(netlink, index)? } else { None };
            Ok(Some(bucket.unwrap_or_default()))
        }
        Some(_) => Ok(Some(TokenBucket::default())),
    }
}
