//! What is defined for all hosts of a fleet.

use serde::{Deserialize, Serialize};

use super::group::Group;
use super::ids::{GroupId, NetworkId, SubnetId};
use super::network::Network;
use super::subnet::Subnet;

/// What is defined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Definition {
    /// A network. Its zone is each host's own.
    Network(Network),
    /// A subnet.
    Subnet(Subnet),
    /// A security group with its rules.
    Group(Box<Group>),
}

/// Which definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DefinitionName {
    /// A network's.
    Network(NetworkId),
    /// That of a network's subnet.
    Subnet(NetworkId, SubnetId),
    /// A security group's.
    Group(GroupId),
}

/// A change of what is defined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redefinition {
    /// It is new.
    New(Definition),
    /// It has changed.
    Changed(Definition),
    /// It is not defined any more; a network's subnets are not either.
    Gone(DefinitionName),
    /// It stays as it is, and the other changes need that it is defined.
    Needed(DefinitionName),
}

impl Definition {
    /// Which it is.
    pub fn name(&self) -> DefinitionName {
        match self {
            Self::Network(network) => DefinitionName::Network(network.id),
            Self::Subnet(subnet) => DefinitionName::Subnet(subnet.network_id, subnet.id),
            Self::Group(group) => DefinitionName::Group(group.id),
        }
    }
}
