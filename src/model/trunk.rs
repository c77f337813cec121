//! A trunk: a port whose NIC carries further ports' frames, each port's with the tag of a VLAN (Neutron's `trunk`).

use std::ops::RangeInclusive;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{PortId, TrunkId};
use super::phase::Phase;

/// The VLAN ids that there are (IEEE 802.1Q, 9.6).
pub const VLAN_IDS: RangeInclusive<u16> = 1..=4094;

/// The `device_owner` of a port that is a subport, as Neutron has it.
pub const SUBPORT_OWNER: &str = "trunk:subport";

/// A trunk's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trunk {
    /// Its id.
    pub id: TrunkId,
    /// The display name; need not be unique.
    pub name: String,
    /// A description for operators.
    #[serde(default)]
    pub description: String,
    /// The project, stored and returned only.
    #[serde(default)]
    pub project_id: String,
    /// The parent: the port whose NIC carries the others' frames, and its own without a tag.
    pub port_id: PortId,
    /// The desired admin state of all its subports.
    pub admin_up: bool,
    /// Its subports, in the order in which they were added. No two have the same VLAN.
    #[serde(default)]
    pub sub_ports: Vec<SubPort>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The revision number; grows with each change, also of its subports.
    pub revision_number: u64,
}

/// A port whose frames are carried by the parent's NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubPort {
    /// The port.
    pub port_id: PortId,
    /// The VLAN that its frames have the tag of on the parent's NIC.
    pub vlan: u16,
}

/// A trunk to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTrunk {
    /// The id to use; none for a fresh one.
    pub id: Option<TrunkId>,
    /// Its name, possibly empty.
    pub name: String,
    /// A remark.
    pub description: String,
    /// Its project.
    pub project_id: String,
    /// Its parent.
    pub port_id: PortId,
    /// The desired admin state.
    pub admin_up: bool,
    /// Its subports.
    pub sub_ports: Vec<NewSubPort>,
}

/// A subport to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewSubPort {
    /// The port.
    pub port_id: PortId,
    /// Which VLAN its frames are to have the tag of.
    pub segment: SubPortSegment,
}

/// Which VLAN a subport's frames have the tag of (`segmentation_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubPortSegment {
    /// This one.
    Vlan(u16),
    /// That of the port's network.
    Inherit,
}

/// A change of a trunk; `None` keeps the value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrunkChange {
    /// Its name.
    pub name: Option<String>,
    /// A remark.
    pub description: Option<String>,
    /// The desired admin state.
    pub admin_up: Option<bool>,
}

/// How a trunk fares (`status`, Neutron's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrunkStatus {
    /// The parent and every subport are ACTIVE.
    Active,
    /// The trunk is administratively down, or its parent is.
    Down,
    /// One of them is being built.
    Build,
    /// The parent is ACTIVE, and a subport is not.
    Degraded,
    /// The parent cannot be built, or none of the subports.
    Error,
}

impl TrunkStatus {
    /// The words, in their order.
    pub const ALL: [Self; 5] = [Self::Active, Self::Down, Self::Build, Self::Degraded, Self::Error];

    /// The status of a trunk, from the phases of its parent and of its subports.
    pub fn of(admin_up: bool, parent: Phase, sub_ports: &[Phase]) -> Self {
        let all = |phase| !sub_ports.is_empty() && sub_ports.iter().all(|other| *other == phase);
        match parent {
            _ if !admin_up => Self::Down,
            Phase::Unbound | Phase::Detaching => Self::Down,
            Phase::Error => Self::Error,
            _ if all(Phase::Error) => Self::Error,
            Phase::Building => Self::Build,
            _ if sub_ports.contains(&Phase::Building) => Self::Build,
            Phase::Wired => Self::Down,
            Phase::Active if sub_ports.iter().all(|phase| *phase == Phase::Active) => Self::Active,
            Phase::Active => Self::Degraded,
        }
    }

    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Down => "DOWN",
            Self::Build => "BUILD",
            Self::Degraded => "DEGRADED",
            Self::Error => "ERROR",
        }
    }
}

impl Trunk {
    /// Its subport that is this port.
    pub fn sub_port(&self, port: PortId) -> Option<&SubPort> {
        self.sub_ports.iter().find(|sub| sub.port_id == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trunk_is_active_when_all_of_it_is_and_degraded_when_a_part_is_not() {
        use Phase::{Active, Building, Detaching, Error, Unbound, Wired};
        for (parent, subs, status) in [
            (Unbound, vec![Unbound], TrunkStatus::Down),
            (Detaching, vec![Detaching], TrunkStatus::Down),
            (Wired, vec![Wired], TrunkStatus::Down),
            (Building, vec![], TrunkStatus::Build),
            (Active, vec![], TrunkStatus::Active),
            (Active, vec![Active, Active], TrunkStatus::Active),
            (Active, vec![Active, Building], TrunkStatus::Build),
            (Active, vec![Active, Wired], TrunkStatus::Degraded),
            (Active, vec![Active, Error], TrunkStatus::Degraded),
            (Active, vec![Error, Error], TrunkStatus::Error),
            (Error, vec![Wired], TrunkStatus::Error),
        ] {
            assert_eq!(TrunkStatus::of(true, parent, &subs), status, "{parent:?} {subs:?}");
            assert_eq!(TrunkStatus::of(false, parent, &subs), TrunkStatus::Down);
        }
    }
}
