//! Why a machine could not be asked, or did not do what it was asked.

use std::path::PathBuf;
use std::time::Duration;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MonitorError {
    /// There is no socket, no process listens, or the connection ended.
    #[error("the monitor {} cannot be reached ({said}); the machine may not run, or run with another monitor", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        said: String,
    },
    /// The socket's permissions keep us out.
    #[error(
        "the monitor {} refuses uid {uid} ({said}); that user needs write permission on the socket, and search permission on its folders",
        path.display()
    )]
    Denied {
        /// The socket.
        path: PathBuf,
        /// The daemon's user.
        uid: u32,
        /// What the system says.
        said: String,
    },
    /// It accepts, and does not greet: another client has it, or the machine hangs.
    #[error(
        "the monitor {} did not greet in {} s; it serves one client at a time: libvirt or another program has it, or the machine hangs",
        path.display(), limit.as_secs()
    )]
    Busy {
        /// The socket.
        path: PathBuf,
        /// For how long it was waited.
        limit: Duration,
    },
    /// nicd's own operations on it have not ended.
    #[error("the machine at {} is worked on by nicd itself for more than {} s; it answers slowly", path.display(), limit.as_secs())]
    Crowded {
        /// The socket.
        path: PathBuf,
        /// For how long it was waited.
        limit: Duration,
    },
    /// It greeted, and does not answer.
    #[error("the monitor {} did not answer {command} in {} s; the machine hangs", path.display(), limit.as_secs())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// What it was asked.
        command: &'static str,
        /// For how long it was waited.
        limit: Duration,
    },
    /// What listens there speaks something else.
    #[error("what listens at {} does not speak QMP: {said}", path.display())]
    NotQmp {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        said: String,
    },
    /// The machine refuses a command.
    #[error("the machine at {} refused {command}: {said}", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What it was asked.
        command: &'static str,
        /// Its class of the error.
        class: String,
        /// Its words.
        said: String,
    },
    /// There is no place for another NIC.
    #[error("the machine at {} has no free slot for a NIC: {said}", path.display())]
    NoFreeSlot {
        /// The socket.
        path: PathBuf,
        /// What there is.
        said: String,
    },
    /// The guest does not let a NIC go.
    #[error("the guest of the machine at {} keeps its NIC {id}: it has not answered the request to unplug it", path.display())]
    Kept {
        /// The socket.
        path: PathBuf,
        /// The NIC.
        id: String,
    },
}

impl MonitorError {
    /// The stable word that tests and scripts match on (`reason`).
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::NotQmp { .. } => "monitor_unreachable",
            Self::Denied { .. } => "monitor_denied",
            Self::Busy { .. } | Self::Crowded { .. } => "monitor_busy",
            Self::Refused { .. } => "monitor_refused",
            Self::NoFreeSlot { .. } => "no_free_slot",
            Self::Kept { .. } => "guest_keeps_device",
        }
    }

    /// Whether the machine could not be asked at all, so that nothing is known of it: it is asked again soon.
    pub fn is_away(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::NoFreeSlot { .. } | Self::Kept { .. })
    }

    /// Whether the machine says that what it was asked about does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { class, .. } if class == "DeviceNotFound")
    }
}
