//! Ports of other hosts that are in security groups.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::ids::{GroupId, NetworkId, PortId};

/// Which port of which host. One that moves is of two for a while.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId {
    /// Its host.
    pub host: String,
    /// The port.
    pub port: PortId,
}

/// A port of another host that is in security groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The groups.
    pub groups: BTreeSet<GroupId>,
    /// The addresses that it may use one by one.
    pub addresses: BTreeSet<IpAddr>,
}

/// A member of a network, as this host notes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedMember {
    /// Its network.
    pub network: NetworkId,
    /// Which port it is.
    pub id: MemberId,
    /// Its groups and addresses.
    pub member: Member,
}

/// What has changed of a network's ports on other hosts that are in security groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// These are all, or, where some may not be told of yet, those beside what is known of other ports.
    All {
        /// The ports.
        members: Vec<(MemberId, Member)>,
        /// Whether there may be others.
        may_lack: bool,
    },
    /// One is new, or another than before; none if it is gone, or in no group any more.
    One(MemberId, Option<Member>),
}
