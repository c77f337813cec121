//! What making a bridge and making a veth have in common: the creating message and those that finish the device go in
//! one send, so that the process cannot die between them and leave a device without a mark.
//!
//! The kernel goes on behind a refused message. So that the followers cannot hit a stranger which has our index, the
//! index is looked at first; should one still come between, its altname is taken back, and its IPv6 address generation
//! stays off. A device that is there although its making was refused has the name that was asked for, and goes.

use super::answer::{Failure, Request};
use super::links::{Target, already_marked, first_failure, send_all};
use super::message::Batch;
use super::seen::get;
use super::socket::Netlink;
use super::{LinkSelector, OpErrorKind};
use crate::model::LinkName;
use crate::plan::Kind;

/// Whether nothing has this index yet; not when the very device is already there, from an earlier run.
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

/// The device being made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made<'a> {
    pub(super) index: u32,
    pub(super) name: &'a LinkName,
    pub(super) altname: &'a str,
}

/// Sends what makes and finishes the device with this index, or only finishes it. A half-made device is deleted.
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

/// Takes back what a step did halfway. That the step failed is what its caller is told; what is then left is shown by
/// the next look.
pub(super) fn take_back(netlink: &mut Netlink, fill: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::default();
    fill(&mut batch);
    if let Err(failure) = send_all(netlink, batch) {
        tracing::warn!(said = failure.said, "a half-made device is left");
    }
}
