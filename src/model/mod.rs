//! The words: what networks, subnets, servers and ports are, which values they may have, and how a port's phase moves.
//!
//! Data and rules alone: no clock, no randomness, no I/O; times and drawn values are passed in. Records are serde types,
//! written to the store as they stand here. Nothing here knows HTTP, netlink or SQL.

pub mod action;
pub mod claim;
pub mod definition;
pub mod dhcp;
pub mod drops;
pub mod group;
pub mod guests;
pub mod guidance;
pub mod idempotency;
pub mod ids;
pub mod job;
pub mod mac;
pub mod member;
pub mod moving;
pub mod names;
pub mod network;
pub mod notice;
pub mod phase;
pub mod pools;
pub mod port;
pub mod published_id;
pub mod rule;
pub mod segment;
pub mod server;
pub mod subnet;
pub mod trunk;

pub use claim::{Claim, Epoch, Held, Lent, Need, Registration};
pub use dhcp::{ExtraOption, IpVersion};
pub use drops::DropReason;
pub use group::{Allows, Direction, Family, Group, Remote, Rule};
pub use guests::GuestMacs;
pub use guidance::{Guidance, Mode};
pub use ids::{GroupId, JobId, NetworkId, PortId, RuleId, ServerId, SubnetId, TrunkId};
pub use job::{Job, JobKind, JobStatus, NicChange, Part, PartState};
pub use mac::{Mac, MacPrefix};
pub use member::{Member, MemberChange, MemberId, NotedMember};
pub use moving::{Handed, Prepare};
pub use names::LinkName;
pub use network::{Network, NetworkKind, Scope};
pub use phase::{Phase, PhaseEvent, Readiness, Status};
pub use port::{AddressPair, Binding, Carrier, FixedIp, GuestTold, Intent, Limits, Origin, Port, Profile, RateLimit, Standby};
pub use published_id::PublishedId;
pub use segment::{IdRanges, PhysicalNetwork, PhysicalNetworks};
pub use server::{Guest, Monitor, NetnsPin, Owner, Server, TapMake};
pub use subnet::{HostRoute, Subnet};
pub use trunk::{SubPort, Trunk, TrunkStatus};
