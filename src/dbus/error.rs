//! Errors of calls with their D-Bus names: a standard name if there is one, otherwise one of nicd's.

use zbus::Message;
use zbus::message::Header;

use crate::service::NotOpened;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The caller may not do that, or who it is cannot be found out.
    #[error("{0}")]
    AccessDenied(String),
    /// Nothing is at that path.
    #[error("there is no object {0}")]
    UnknownObject(String),
    /// The object has no such method.
    #[error("{path} has no method {member}")]
    UnknownMethod {
        /// The object.
        path: String,
        /// The method, with its interface where one was given.
        member: String,
    },
    /// The object has no such interface.
    #[error("there is no interface {0} here")]
    UnknownInterface(String),
    /// The interface has no such property.
    #[error("there is no property {0}")]
    UnknownProperty(String),
    /// Every property is for reading.
    #[error("property {0} is for reading; ports are changed on the socket")]
    ReadOnly(String),
    /// The arguments are of other types.
    #[error("arguments of types '{given}' were given; '{expected}' is expected")]
    InvalidArgs {
        /// Their types.
        given: String,
        /// What they should be.
        expected: &'static str,
    },
    /// A tap's queues are more than a message can carry.
    #[error("the tap has {queues} queues, and a message carries {limit} descriptors at most; open the tap by its name")]
    TooManyQueues {
        /// How many.
        queues: u16,
        /// What is possible.
        limit: u16,
    },
    /// So many calls are being answered that this one is not.
    #[error("{0} calls are being answered already; try again")]
    Crowded(usize),
    /// No descriptors are to be had.
    #[error(transparent)]
    NotOpened(#[from] NotOpened),
    /// A message could not be made or sent.
    #[error(transparent)]
    Bus(#[from] zbus::Error),
}

impl CallError {
    /// The error's name.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::AccessDenied(_) => "org.freedesktop.DBus.Error.AccessDenied",
            Self::UnknownObject(_) | Self::NotOpened(NotOpened::NoSuchPort(_)) => "org.freedesktop.DBus.Error.UnknownObject",
            Self::UnknownMethod { .. } => "org.freedesktop.DBus.Error.UnknownMethod",
            Self::UnknownInterface(_) => "org.freedesktop.DBus.Error.UnknownInterface",
            Self::UnknownProperty(_) => "org.freedesktop.DBus.Error.UnknownProperty",
            Self::ReadOnly(_) => "org.freedesktop.DBus.Error.PropertyReadOnly",
            Self::InvalidArgs { .. } => "org.freedesktop.DBus.Error.InvalidArgs",
            Self::Crowded(_) => "org.freedesktop.DBus.Error.LimitsExceeded",
            Self::Bus(_) => "org.freedesktop.DBus.Error.Failed",
            Self::TooManyQueues { .. } => "org.nicd.Agent1.Error.TooManyQueues",
            Self::NotOpened(NotOpened::NoTap(_)) => "org.nicd.Agent1.Error.NoTap",
            Self::NotOpened(NotOpened::NotBuilt { .. }) => "org.nicd.Agent1.Error.NotBuilt",
            Self::NotOpened(NotOpened::Busy(_)) => "org.nicd.Agent1.Error.Busy",
            Self::NotOpened(NotOpened::Later(_)) => "org.nicd.Agent1.Error.Later",
            Self::NotOpened(NotOpened::Kernel(_)) => "org.nicd.Agent1.Error.Kernel",
        }
    }

    /// The last part of the name, for what is counted.
    pub(super) fn word(&self) -> &'static str {
        self.name().rsplit('.').next().unwrap_or_default()
    }

    /// As the answer to a call.
    pub(super) fn message(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&self.to_string())
    }
}
