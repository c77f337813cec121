//! Common code to create bridges and veths: the creating message and those that finish the device are in one send, so that a kill
//! of the process cannot leave a device without an altname.
//!
//! The kernel continues after a failed message, so the later messages could change a foreign link with the chosen index. Therefore
//! the index is checked first. If a foreign link still takes the index in between, its altname is removed again, but its IPv6
//! address generation stays off. If a device exists although its creation failed, it has the requested name and is deleted.

use super::answer::{Failure, Request};
use super::links::{Target, already_marked, first_failure, send_all};
use super::message::Batch;
use super::seen::get;
use super::socket::Netlink;
use super::{LinkSelector, OpErrorKind};
use crate::model::LinkName;
use crate::plan::Kind;

/// Whether the index is free. False when the device already exists from an earlier run.
pub(super) fn is_free(netlink: &mut Netlink, index: u32, altname: &str, kind: &Kind) -> Result<bool, Failure> {
    match get(netlink, LinkSelector::Index(index))? {
        None => Ok(true),
        Some(link) if link.kind == *kind && link.altnames.iter().any(|name| name == altname) => Ok(false),
        Some(link) => Err(Failure::new(
            OpErrorKind::Taken,
            Request::Create,
            format!("the index {index} is already taken, by {}", link.name),
        )),
    }
}

/// The device to create.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made<'a> {
    pub(super) index: u32,
    pub(super) name: &'a LinkName,
    pub(super) altname: &'a str,
}

/// Sends the messages that create and finish a device, or only those that finish it. Deletes a device that was only partly created.
pub(super) fn send(netlink: &mut Netlink, batch: Batch, made: Made<'_>) -> Result<(), Failure> {
    let Made { index, name, altname } = made;
    let creates = batch.requests().any(|request| request == Request::Create);
    let mut refusals = netlink.send(batch)?;
    let refused = |request| refusals.iter().any(|refusal| refusal.request == request);
    if refused(Request::Create) {
        if !refused(Request::Mark) {
            let ours = get(netlink, LinkSelector::Index(index))?.is_some_and(|link| link.name == name.as_str());
            take_back(netlink, |batch| match ours {
                true => batch.delete(Target::Index(index)),
                false => batch.unmark(index, altname),
            });
        }
        return first_failure(refusals);
    }
    already_marked(netlink, &mut refusals, index, altname)?;
    first_failure(refusals).inspect_err(|_| {
        if creates {
            take_back(netlink, |batch| batch.delete(Target::Index(index)));
        }
    })
}

/// Removes a partly created device. Its own failure is ignored: the caller reports the failed step, and the next read shows any
/// leftover.
pub(super) fn take_back(netlink: &mut Netlink, fill: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::default();
    fill(&mut batch);
    if let Err(failure) = send_all(netlink, batch) {
        tracing::warn!(said = failure.said, "a half-made device is left");
    }
}
