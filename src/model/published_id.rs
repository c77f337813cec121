//! By what a host names what it tells its fleet of.

use super::ids::{PortId, ServerId};

/// The id of a port or server that a host tells its fleet of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublishedId {
    /// A port.
    Port(PortId),
    /// A server.
    Server(ServerId),
}
