//! What is known of the machines around a port, and what they are still to be asked and told.

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;

use crate::model::Mac;

/// What is still to be said of a port's addresses.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// It has addresses about which no machine was asked.
    pub is_unasked: bool,
    /// Machines are being asked.
    pub is_asking: bool,
    /// When others were last asked.
    pub asked: Option<Timestamp>,
    /// Its device was made, and no machine was told where it is.
    pub is_unannounced: bool,
}

/// Another machine has a port's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// The machine's MAC.
    pub holder: Mac,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is in use by another machine on the network, whose MAC is {}", self.address, self.holder)
    }
}
