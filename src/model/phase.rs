//! The phase machine of a port, and the status that clients see.
//!
//! ```text
//!                Bind                    Built(Ready)
//!   ┌─────────┐ ─────────► ┌──────────┐ ───────────────────────► ┌────────┐
//!   │ unbound │            │ building │                          │ active │
//!   └─────────┘ ◄───────── └──────────┘ ◄──────────────────────  └────────┘
//!        ▲        Undone     │  ▲   │  Built(Waiting)  Repair      │    ▲
//!        │                   │  │   └──────────────► ┌───────┐     │    │
//!        │            Failed │  │ Repair             │ wired │ ◄───┘    │
//!        │                   ▼  │                    └───────┘ Observed(Waiting)
//!        │                 ┌───────┐                   │ │  └──────────┘
//!        │       Gone      │ error │ ◄─────── Failed ──┘ │   Observed(Ready)
//!        ├──────────────── └───────┘                     │
//!        │                     │ Unbind                  │ Unbind
//!        │       Gone          ▼                         ▼
//!        └──────────────── ┌───────────┐ ◄────────────────  (also from active)
//!                          │ detaching │ ── Failed ──► error
//!                          └───────────┘
//! ```

use serde::{Deserialize, Serialize};

/// A port's phase (`nicd:phase`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The port has no server.
    Unbound,
    /// An attach or a repair is running.
    Building,
    /// The device exists; the guest has not connected its side, or the port is administratively down.
    Wired,
    /// Every condition of ACTIVE holds.
    Active,
    /// Traffic is stopped; the kernel has not deleted the device yet.
    Detaching,
    /// The port cannot be built or removed; retried with backoff.
    Error,
}

/// The status that clients see (`status`, `port_state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Not built, or the guest's side is not connected.
    Down,
    /// Being built.
    Build,
    /// Traffic flows.
    Active,
    /// Cannot be built.
    Error,
}

/// What the observed state of a port's device means for the phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Every condition holds.
    Ready,
    /// A condition does not hold that nicd cannot restore, such as the guest's carrier.
    Waiting,
}

/// What changes the phase of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseEvent {
    /// An attach was accepted.
    Bind,
    /// A repair of what is or was built begins.
    Repair,
    /// The attach failed and left nothing.
    Undone,
    /// The plan was carried out.
    Built(Readiness),
    /// The device was observed.
    Observed(Readiness),
    /// The plan could not be carried out, or not be undone.
    Failed,
    /// A detach was accepted, or is tried again.
    Unbind,
    /// The kernel has let the device go.
    Gone,
}

impl Phase {
    /// The phase after `event`; none when that cannot happen in this phase, and then nothing changes.
    pub fn after(self, event: PhaseEvent) -> Option<Phase> {
        use Phase::{Active, Building, Detaching, Error, Unbound, Wired};
        use PhaseEvent::{Bind, Built, Failed, Gone, Observed, Repair, Unbind, Undone};
        use Readiness::{Ready, Waiting};
        match (self, event) {
            (Unbound, Bind) => Some(Building),
            (Unbound, Repair | Undone | Built(_) | Observed(_) | Failed | Unbind | Gone) => None,

            (Building, Built(Ready)) => Some(Active),
            (Building, Built(Waiting)) => Some(Wired),
            (Building, Undone) => Some(Unbound),
            (Building, Failed) => Some(Error),
            (Building, Bind | Repair | Observed(_) | Unbind | Gone) => None,

            (Wired, Observed(Ready)) => Some(Active),
            (Wired, Observed(Waiting)) => Some(Wired),
            (Wired, Repair) => Some(Building),
            (Wired, Failed) => Some(Error),
            (Wired, Unbind) => Some(Detaching),
            (Wired, Bind | Undone | Built(_) | Gone) => None,

            (Active, Observed(Ready)) => Some(Active),
            (Active, Observed(Waiting)) => Some(Wired),
            (Active, Repair) => Some(Building),
            (Active, Failed) => Some(Error),
            (Active, Unbind) => Some(Detaching),
            (Active, Bind | Undone | Built(_) | Gone) => None,

            (Detaching, Gone) => Some(Unbound),
            (Detaching, Failed) => Some(Error),
            (Detaching, Unbind) => Some(Detaching),
            (Detaching, Bind | Repair | Undone | Built(_) | Observed(_)) => None,

            (Error, Repair) => Some(Building),
            (Error, Unbind) => Some(Detaching),
            (Error, Gone) => Some(Unbound),
            (Error, Failed) => Some(Error),
            (Error, Bind | Undone | Built(_) | Observed(_)) => None,
        }
    }

    /// The status that clients see in this phase.
    pub fn status(self) -> Status {
        match self {
            Self::Unbound | Self::Wired | Self::Detaching => Status::Down,
            Self::Building => Status::Build,
            Self::Active => Status::Active,
            Self::Error => Status::Error,
        }
    }

    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unbound => "unbound",
            Self::Building => "building",
            Self::Wired => "wired",
            Self::Active => "active",
            Self::Detaching => "detaching",
            Self::Error => "error",
        }
    }
}

impl Status {
    /// All of them, in the order health lists them.
    pub const ALL: [Self; 4] = [Self::Active, Self::Build, Self::Down, Self::Error];

    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Down => "DOWN",
            Self::Build => "BUILD",
            Self::Active => "ACTIVE",
            Self::Error => "ERROR",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 6] = [Phase::Unbound, Phase::Building, Phase::Wired, Phase::Active, Phase::Detaching, Phase::Error];
    const EVENTS: [PhaseEvent; 10] = [
        PhaseEvent::Bind,
        PhaseEvent::Repair,
        PhaseEvent::Undone,
        PhaseEvent::Built(Readiness::Ready),
        PhaseEvent::Built(Readiness::Waiting),
        PhaseEvent::Observed(Readiness::Ready),
        PhaseEvent::Observed(Readiness::Waiting),
        PhaseEvent::Failed,
        PhaseEvent::Unbind,
        PhaseEvent::Gone,
    ];

    /// One row for each phase, one column for each event, in the order above; `.` stands for "cannot happen".
    const TABLE: [&str; 6] = [
        //    Bind      Repair    Undone   Built+  Built-  Observed+  Observed- Failed Unbind     Gone
        "building  .         .        .       .       .        .       .      .          .",
        ".         .         unbound  active  wired   .        .       error  .          .",
        ".         building  .        .       .       active   wired   error  detaching  .",
        ".         building  .        .       .       active   wired   error  detaching  .",
        ".         .         .        .       .       .        .       error  detaching  unbound",
        ".         building  .        .       .       .        .       error  detaching  unbound",
    ];

    #[test]
    fn every_pair_is_as_in_the_table() {
        for (phase, row) in PHASES.into_iter().zip(TABLE) {
            for (event, cell) in EVENTS.into_iter().zip(row.split_whitespace()) {
                let after = phase.after(event).map_or(".", Phase::as_str);
                assert_eq!(after, cell, "{phase:?} after {event:?}");
            }
        }
    }

    #[test]
    fn the_phase_decides_the_status() {
        let told: Vec<_> = PHASES.into_iter().map(|phase| phase.status().as_str()).collect();
        assert_eq!(told, ["DOWN", "BUILD", "DOWN", "ACTIVE", "DOWN", "ERROR"]);
    }
}
