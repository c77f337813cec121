//! What is wanted and what is there become an ordered list of steps, each with its undo.
//!
//! ```text
//!   Desired ───┐                   ┌──► plan() ──► Plan = [Step { op, undo }] ──► exec
//!              ├──► diff: rules ───┼──► facts: what ACTIVE rests on
//!   Observed ──┘                   ├──► verify: deviations
//!                                  └──► drift: what another program keeps changing
//! ```
//!
//! What is removed is planned by `removal`, also by itself: which steps are done now and which are deferred, and by
//! `merge_deletions` how deferred deletions are done together.
//!
//! Pure and deterministic: no clock, no randomness, no I/O; an ifindex for a new link is part of the want. A plan leaves
//! no choice for later, is compared whole in tests, and planning again after applying gives the empty plan. No op here
//! can touch a link that is not ours ([`LinkState::owner`]), but for the one a step before has just made.

pub mod desired;
pub mod diff;
pub mod facts;
pub mod filter;
pub mod forward;
pub mod groups;
pub mod members;
pub mod observed;
pub mod op;
pub mod overlay;
mod planner;
mod removal;
mod uplink;
pub mod verify;

pub use desired::{
    AbsentPort, BridgeMade, Desired, DesiredBridge, DesiredNic, DesiredOverlay, DesiredPort, DesiredSegment, DesiredUplink,
    Speaks, Unwanted,
};
pub use diff::Facet;
pub use facts::{Fact, facts};
pub use filter::{DeviceFilter, Filter, PortFilter, PortFilters};
pub use observed::{
    Address, BRIDGE_PORTS, BridgeExtras, BridgePort, FdbEntry, HostAddress, HostUse, Kind, LinkState, MachineNic, NEARLY_FULL,
    NfCall, Observed, Owner, PortVlan, ROOM_AGAIN, TapSeen, TokenBucket, Traces, VXLAN_PORT, VlanProtocol, VlanTag, VxlanSeen,
};
pub use op::{
    At, BridgeChange, GuestSettings, IndexFilter, LinkChange, NumberedProfile, Op, Plan, Reason, Route, SegmentChange, Stage,
    Step, Switch,
};
pub use overlay::{Entry, Overlay, Overlays, Remote, SeenEntries, Strange};
pub use planner::{NotOurs, PlanError, plan};
pub use removal::{GROUP_SIZE, merge_deletions, removal};
pub use verify::Deviation;
