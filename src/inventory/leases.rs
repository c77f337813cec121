//! Where DHCP requests are to be heard, and what ports' guests asked last. The ports are the leases: nothing is kept beyond that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use jiff::Timestamp;

use crate::model::PortId;
use crate::rate_limit::Budget;

/// Which ports' requests are to be heard, and on which bridges. Invariant: a port is among those of its bridge, and of no other.
#[derive(Debug, Default)]
pub struct Responder {
    ports: HashMap<PortId, u32>,
    bridges: HashMap<u32, BTreeSet<PortId>>,
    /// Bridges that have lost their last such port.
    left: BTreeSet<u32>,
    /// Bridges with such ports that cannot be heard.
    unheard: BTreeMap<u32, Unheard>,
}

/// A bridge that cannot be heard.
#[derive(Debug)]
struct Unheard {
    why: String,
    /// When it is tried again.
    due: Instant,
}

impl Responder {
    /// Notes on which bridge a port's requests are to be heard; none where on none.
    pub fn place(&mut self, port: PortId, bridge: Option<u32>) {
        if self.ports.get(&port).copied() == bridge {
            return;
        }
        if let Some(before) = self.ports.remove(&port)
            && let Some(ports) = self.bridges.get_mut(&before)
        {
            ports.remove(&port);
            if ports.is_empty() {
                self.bridges.remove(&before);
                self.unheard.remove(&before);
                self.left.insert(before);
            }
        }
        if let Some(bridge) = bridge {
            self.ports.insert(port, bridge);
            self.bridges.entry(bridge).or_default().insert(port);
            self.left.remove(&bridge);
        }
    }

    /// Notes that a bridge cannot be heard, and why, until it is tried again; whose ports those are.
    pub fn fails(&mut self, bridge: u32, why: String, due: Instant) -> Vec<PortId> {
        let Some(ports) = self.bridges.get(&bridge) else { return Vec::new() };
        self.unheard.insert(bridge, Unheard { why, due });
        ports.iter().copied().collect()
    }

    /// When a bridge that could not be heard is to be tried again; none where that is now.
    pub fn due(&self, bridge: u32, now: Instant) -> Option<Instant> {
        self.unheard.get(&bridge).map(|unheard| unheard.due).filter(|due| *due > now)
    }

    /// Notes that a bridge is heard; whether it could not be heard before.
    pub fn succeeds(&mut self, bridge: u32) -> bool {
        self.unheard.remove(&bridge).is_some()
    }

    /// The bridges that cannot be heard, and why.
    pub fn unheard(&self) -> impl Iterator<Item = (u32, &str)> {
        self.unheard.iter().map(|(bridge, unheard)| (*bridge, unheard.why.as_str()))
    }

    /// The bridges that have lost their last such port since this was asked last.
    pub fn take_left(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.left)
    }
}

/// What is kept of what a client says of itself, in octets.
pub const SAID: usize = 64;

/// What a port's guest asked last, and how often.
#[derive(Debug, Default)]
pub struct PortLease {
    /// The last exchange over IPv4.
    pub last: Option<Exchange>,
    /// The last one over IPv6.
    pub last6: Option<Exchange>,
    /// How many of its messages were answered.
    pub answered: u64,
    /// How many were not.
    pub ignored: u64,
    /// Whether options were left out of what it was told.
    pub is_cut: bool,
    /// When what it says of its address was last followed, of IPv4 and of IPv6.
    pub followed: [Option<Instant>; 2],
    /// When it was given the address again that it had declined.
    pub given_again: Option<Instant>,
    /// Whether that is waited for to have been probed.
    pub is_probed: bool,
    /// How many of its messages may be answered.
    pub budget: Budget,
}

impl PortLease {
    /// The last exchange about addresses of the family of this one.
    pub fn last_like(&self, address: IpAddr) -> Option<&Exchange> {
        if address.is_ipv4() { self.last.as_ref() } else { self.last6.as_ref() }
    }
}

/// What a guest asked, and was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// What became of the address.
    pub state: LeaseState,
    /// The address.
    pub address: IpAddr,
    /// What the guest said.
    pub message: &'static str,
    /// When.
    pub at: Timestamp,
    /// What it calls itself, in hexadecimal.
    pub client_id: Option<String>,
    /// The name that it says it has.
    pub hostname: Option<String>,
}

/// What became of an address by the last exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// It was offered.
    Offered,
    /// The guest has it.
    Bound,
    /// The guest asked for another one, and was told to begin anew.
    Refused,
    /// The guest has it from elsewhere, and asked for the rest.
    Informed,
    /// The guest gave it up.
    Released,
    /// The guest found it in use.
    Declined,
}

impl LeaseState {
    /// All.
    pub const ALL: [Self; 6] = [Self::Offered, Self::Bound, Self::Refused, Self::Informed, Self::Released, Self::Declined];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Bound => "bound",
            Self::Refused => "refused",
            Self::Informed => "informed",
            Self::Released => "released",
            Self::Declined => "declined",
        }
    }
}

/// What is said to guests whose subnet says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Resolvers.
    pub resolvers: Vec<IpAddr>,
    /// The domain.
    pub domain: Option<String>,
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_bridge_is_heard_from_its_first_port_to_its_last() {
        let [one, other] = [1, 2].map(|n| PortId(Uuid::from_u128(n)));
        let mut responder = Responder::default();
        let mut place = |port, bridge| {
            responder.place(port, bridge);
            responder.take_left().into_iter().collect::<Vec<u32>>()
        };
        let none: Vec<u32> = Vec::new();
        assert_eq!(place(one, Some(7)), none);
        assert_eq!(place(other, Some(7)), none);
        assert_eq!(place(one, Some(7)), none);
        assert_eq!(place(one, None), none);
        assert_eq!(place(other, Some(8)), vec![7], "it moved");
        assert_eq!(place(other, None), vec![8]);
        assert_eq!(place(other, None), none);
        responder.place(one, Some(7));
        responder.place(one, None);
        responder.place(other, Some(7));
        assert!(responder.take_left().is_empty(), "another came");
        let now = Instant::now();
        let later = now + std::time::Duration::from_secs(1);
        assert_eq!(responder.fails(7, "no memory".to_owned(), later), [other]);
        assert_eq!([responder.due(8, now), responder.due(7, now), responder.due(7, later)], [None, Some(later), None]);
        assert_eq!(responder.unheard().collect::<Vec<_>>(), [(7, "no memory")]);
        assert!(responder.succeeds(7) && !responder.succeeds(7) && responder.due(7, now).is_none());
        assert!(responder.fails(8, "no port is there".to_owned(), later).is_empty());
        responder.fails(7, "no memory".to_owned(), later);
        responder.place(other, None);
        assert_eq!(responder.unheard().count(), 0, "no port is there any more");
        responder.place(other, Some(7));
        assert_eq!((responder.ports.len(), responder.bridges.len()), (1, 1));
    }
}
