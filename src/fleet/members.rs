//! Which ports of other hosts are in security groups, as their hosts tell of them: of the networks that this host has ports on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Deserialize;

use super::etcd::{Event, KeyValue};
use super::member::{MemberError, read_versioned};
use crate::model::{GroupId, Member};

/// What of a port's value says which groups it is in.
#[derive(Deserialize)]
struct InGroups {
    #[serde(default)]
    groups: BTreeSet<GroupId>,
    #[serde(default)]
    usable: BTreeSet<IpAddr>,
    #[serde(default)]
    is_kept_down: bool,
}

/// A port in groups; none if it is in none, or can send nothing.
pub(super) fn read(found: &KeyValue) -> Result<Option<Member>, MemberError> {
    let InGroups { groups, usable, is_kept_down } = read_versioned(found)?;
    let is_member = !is_kept_down && !groups.is_empty() && !usable.is_empty();
    Ok(is_member.then_some(Member { groups, addresses: usable }))
}

/// What an event says of a port.
pub(super) fn told(event: &Event) -> Result<Option<Member>, MemberError> {
    match event {
        Event::Put(found) => read(found),
        Event::Delete { .. } => Ok(None),
    }
}
