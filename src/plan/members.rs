//! What a network's ports on other hosts that are in security groups are to the kernel: addresses on the network's bridge.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::{LinkName, Member, MemberId, NetworkId};

/// A port of another host with the number of its set of groups, which no set of this host's ports has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberedMember {
    /// The port.
    pub id: MemberId,
    /// The number.
    pub number: u32,
    /// Its groups and addresses.
    pub member: Member,
}

/// What changes of a network's ports on other hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkMembers {
    /// The network.
    pub network: NetworkId,
    /// Its bridge.
    pub bridge: LinkName,
    /// These are all that there are.
    pub is_all: bool,
    /// The new ones, and those that are others than before.
    pub put: Vec<NumberedMember>,
    /// Those that are gone.
    pub gone: BTreeSet<MemberId>,
}
