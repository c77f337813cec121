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
//!        │                   ▼  │                    └───────┘ Looked(Waiting)
//!        │                 ┌───────┐                   │ │  └──────────┘
//!        │       Gone      │ error │ ◄─────── Failed ──┘ │   Looked(Ready)
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

/// What can happen to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// An attach was accepted.
    Bind,
    /// A repair of what is or was built begins.
    Repair,
    /// The attach failed and left nothing.
    Undone,
    /// The plan was carried out.
    Built(Readiness),
    /// The watch looked at the device.
    Looked(Readiness),
    /// The plan could not be carried out, or not be undone.
    Failed,
    /// A detach was accepted, or is tried again.
    Unbind,
    /// The kernel has let the device go.
    Gone,
}

impl Phase {
    /// The phase after `what`; none when that cannot happen in this phase, and then nothing changes.
    pub fn after(self, what: Happening) -> Option<Phase> {
        use Happening::{Bind, Built, Failed, Gone, Looked, Repair, Unbind, Undone};
        use Phase::{Active, Building, Detaching, Error, Unbound, Wired};
        use Readiness::{Ready, Waiting};
        match (self, what) {
            (Unbound, Bind) => Some(Building),
            (Unbound, Repair | Undone | Built(_) | Looked(_) | Failed | Unbind | Gone) => None,

            (Building, Built(Ready)) => Some(Active),
            (Building, Built(Waiting)) => Some(Wired),
            (Building, Undone) => Some(Unbound),
            (Building, Failed) => Some(Error),
            (Building, Bind | Repair | Looked(_) | Unbind | Gone) => None,

            (Wired, Looked(Ready)) => Some(Active),
            (Wired, Looked(Waiting)) => Some(Wired),
            (Wired, Repair) => Some(Building),
            (Wired, Failed) => Some(Error),
            (Wired, Unbind) => Some(Detaching),
            (Wired, Bind | Undone | Built(_) | Gone) => None,

            (Active, Looked(Ready)) => Some(Active),
            (Active, Looked(Waiting)) => Some(Wired),
            (Active, Repair) => Some(Building),
            (Active, Failed) => Some(Error),
            (Active, Unbind) => Some(Detaching),
            (Active, Bind | Undone | Built(_) | Gone) => None,

            (Detaching, Gone) => Some(Unbound),
            (Detaching, Failed) => Some(Error),
            (Detaching, Unbind) => Some(Detaching),
            (Detaching, Bind | Repair | Undone | Built(_) | Looked(_)) => None,

            (Error, Repair) => Some(Building),
            (Error, Unbind) => Some(Detaching),
            (Error, Gone) => Some(Unbound),
            (Error, Failed) => Some(Error),
            (Error, Bind | Undone | Built(_) | Looked(_)) => None,
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
    const HAPPENINGS: [Happening; 10] = [
        Happening::Bind,
        Happening::Repair,
        Happening::Undone,
        Happening::Built(Readiness::Ready),
        Happening::Built(Readiness::Waiting),
        Happening::Looked(Readiness::Ready),
        Happening::Looked(Readiness::Waiting),
        Happening::Failed,
        Happening::Unbind,
        Happening::Gone,
    ];

    /// One row a phase, one column a happening, in the order above; `.` stands for "cannot happen".
    const TABLE: [&str; 6] = [
        //    Bind      Repair    Undone   Built+  Built-  Looked+  Looked- Failed Unbind     Gone
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
            for (what, cell) in HAPPENINGS.into_iter().zip(row.split_whitespace()) {
                let after = phase.after(what).map_or(".", Phase::as_str);
                assert_eq!(after, cell, "{phase:?} after {what:?}");
            }
        }
    }

    #[test]
    fn the_phase_decides_the_status() {
        let told: Vec<_> = PHASES.into_iter().map(|phase| phase.status().as_str()).collect();
        assert_eq!(told, ["DOWN", "BUILD", "DOWN", "ACTIVE", "DOWN", "ERROR"]);
    }
}
