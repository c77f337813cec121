//! What goes from host to host when a port moves.

use serde::{Deserialize, Serialize};

use super::claim::{Claim, Epoch};
use super::port::Port;
use super::server::Server;

/// What a host needs to build the silent device of a port that is active on another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// The port, as it is where it is active.
    pub port: Port,
    /// Its server there.
    pub server: Server,
    /// The host where it is active.
    pub active_on: String,
}

/// A port that is handed to a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// The port, as it was.
    pub port: Port,
    /// What the host holds of it from then on.
    pub claims: Vec<Claim>,
    /// The epoch in which.
    pub epoch: Epoch,
}
