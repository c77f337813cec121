//! A server: a guest on this host, and where its NICs go.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::ServerId;

/// NICs a server may have unless its `nic_limit` or the config says otherwise, as ECS has it.
pub const DEFAULT_NIC_LIMIT: u32 = 12;

/// The most queues a tap can have (`MAX_TAP_QUEUES`, drivers/net/tun.c).
pub const MAX_QUEUES: u16 = 256;

/// A server as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its id.
    pub id: ServerId,
    /// The display name; need not be unique.
    pub name: String,
    /// The project, stored and returned only.
    #[serde(default)]
    pub project_id: String,
    /// What kind of guest it is.
    pub guest: Guest,
    /// How many NICs it may have; none for the config's.
    #[serde(default)]
    pub nic_limit: Option<u32>,
    /// Which namespace the path named when it was last pinned; none for a vm.
    #[serde(default)]
    pub pin: Option<NetnsPin>,
    /// Whether the path named a process. Such a path is never pinned again, because another process may reuse the pid.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_process: bool,
    /// Whether to delete the server when its last NIC is deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What kind of guest a server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Guest {
    /// A virtual machine: its NICs are taps.
    Vm {
        /// Queues of each tap, 1 to 256.
        queues: u16,
        /// The user that may open the taps without CAP_NET_ADMIN.
        #[serde(default)]
        owner: Owner,
        /// The monitor by which NICs are plugged into it while it runs; none where its VMM opens their taps.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        monitor: Option<Monitor>,
    },
    /// A network namespace: its NICs are veths.
    Netns {
        /// Where the namespace is mounted.
        path: PathBuf,
    },
}

/// The monitor of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// The socket on which QEMU serves QMP.
    pub qmp: PathBuf,
}

/// The settings of a server's taps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TapMake {
    /// Queues, 1 to 256.
    pub queues: u16,
    /// The user that may open the tap without CAP_NET_ADMIN.
    pub owner: Owner,
    /// Whether nicd plugs the NIC into the machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plugged: bool,
}

/// The user and group that may open a tap. If both are set, the opener needs both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

impl Owner {
    /// The owner to set on a tap. Without an owner it is uid 0, because the kernel lets every user open a tap without an owner.
    #[must_use]
    pub fn of_tap(self) -> Self {
        match self {
            Self { uid: None, gid: None } => Self { uid: Some(0), gid: None },
            named => named,
        }
    }
}

/// The unique identity of a network namespace. The kernel reuses inodes at once, but cookies never within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetnsPin {
    /// The boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: uuid::Uuid,
    /// The namespace (`SO_NETNS_COOKIE`).
    pub cookie: u64,
}

impl Guest {
    /// The settings of its taps; none for a namespace, which has veths.
    pub fn tap(&self) -> Option<TapMake> {
        match self {
            Self::Vm { queues, owner, monitor } => Some(TapMake { queues: *queues, owner: *owner, plugged: monitor.is_some() }),
            Self::Netns { .. } => None,
        }
    }

    /// The socket of its monitor; none where it has none.
    pub fn qmp(&self) -> Option<&PathBuf> {
        match self {
            Self::Vm { monitor, .. } => monitor.as_ref().map(|monitor| &monitor.qmp),
            Self::Netns { .. } => None,
        }
    }

    /// The word of the API: `vm` or `netns`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Vm { .. } => "vm",
            Self::Netns { .. } => "netns",
        }
    }
}
