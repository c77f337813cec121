//! The guests' MACs and their ports.
//!
//! An FDB has entries of many other hosts, and a link does not contain its guest's MAC. So the reconciler records the guests' MACs here,
//! and reads query the FDB only for them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Mac, PortId};

/// The MACs of all ports. Clones share the map.
#[derive(Debug, Clone, Default)]
pub struct GuestMacs(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    macs: HashMap<PortId, Mac>,
    ports: HashMap<Mac, Place>,
}

/// The port of a MAC, and the index of the port's device if known.
#[derive(Debug, Clone, Copy)]
struct Place {
    port: PortId,
    device: Option<u32>,
}

impl GuestMacs {
    /// Sets a port's MAC, replacing the former one.
    pub fn insert(&self, port: PortId, mac: Mac) {
        let mut known = self.write();
        known.forget(port);
        known.macs.insert(port, mac);
        known.ports.insert(mac, Place { port, device: None });
    }

    /// Removes a port.
    pub fn remove(&self, port: PortId) {
        self.write().forget(port);
    }

    /// Sets the index of a port's device.
    pub fn place(&self, port: PortId, device: u32) {
        let mut known = self.write();
        let mac = known.macs.get(&port).copied();
        if let Some(place) = mac.and_then(|mac| known.ports.get_mut(&mac)) {
            place.device = Some(device);
        }
    }

    /// The MAC of a port's guest.
    pub fn of(&self, port: PortId) -> Option<Mac> {
        self.read().macs.get(&port).copied()
    }

    /// The port whose guest has this MAC.
    pub fn port(&self, mac: Mac) -> Option<PortId> {
        self.read().ports.get(&mac).map(|place| place.port)
    }

    /// The index of the device of the port whose guest has this MAC, as far as it was seen.
    pub fn device(&self, mac: Mac) -> Option<u32> {
        self.read().ports.get(&mac).and_then(|place| place.device)
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        // Nothing can panic while it is held.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget(&mut self, port: PortId) {
        let mac = self.macs.remove(&port);
        if let Some(mac) = mac.filter(|mac| self.ports.get(mac).is_some_and(|place| place.port == port)) {
            self.ports.remove(&mac);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_port_has_one_mac_and_a_mac_one_port() {
        let (guests, [a, b]) = (GuestMacs::default(), [1, 2].map(|id| PortId(Uuid::from_u128(id))));
        let [first, second] = [1, 2].map(|octet| Mac([2, 0, 0, 0, 0, octet]));
        guests.insert(a, first);
        guests.place(a, 7);
        assert_eq!((guests.of(a), guests.port(first), guests.device(first)), (Some(first), Some(a), Some(7)));
        guests.insert(a, second);
        assert_eq!((guests.port(first), guests.port(second), guests.device(second)), (None, Some(a), None));
        guests.insert(b, first);
        guests.remove(a);
        assert_eq!((guests.of(a), guests.port(second), guests.port(first)), (None, None, Some(b)));
    }
}
