//! What hosts of a fleet tell each other of.

use super::ids::{PortId, ServerId};

/// A port or a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Thing {
    /// A port.
    Port(PortId),
    /// A server.
    Server(ServerId),
}
