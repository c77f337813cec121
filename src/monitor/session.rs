//! What a machine is asked by its monitor: which NICs of nicd's it has, a free slot, and to take or give back a NIC.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::MonitorError;
use super::wire::{Told, Wire};
use crate::model::{Mac, PortId, names};

/// Where a machine keeps the devices that were given an id.
const DEVICES: &str = "/machine/peripheral";

/// The devices that have one slot each, into which another can be plugged while the machine runs.
const SLOTS: [&str; 3] = ["child<pcie-root-port>", "child<xio3130-downstream>", "child<ioh3420>"];

/// How many of them are looked at for a free one.
const LOOKED_AT: usize = 256;

/// How many slots a PCI bus has.
const PCI_SLOTS: usize = 32;

/// How long a guest may take to let a NIC go that an earlier try left.
const LEFT: Duration = Duration::from_secs(1);

/// The device by which the kernel moves frames of a tap itself (vhost).
const VHOST: &str = "/dev/vhost-net";

/// A connection to a machine.
#[derive(Debug)]
pub struct Session(Wire);

/// Where a NIC can be plugged in: the bus of a free slot; none where the machine's only bus has room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot(Option<String>);

/// A NIC to plug in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nic {
    /// Whose.
    pub port: PortId,
    /// The guest's MAC.
    pub mac: Mac,
    /// The guest's MTU in bytes.
    pub mtu: u32,
}

/// The NICs of nicd's that a machine has, with their PCI addresses as far as the machine has given them one.
pub type PluggedNics = BTreeMap<PortId, Option<String>>;

/// An entry of `qom-list`.
#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

/// A bus of `query-pci`.
#[derive(Debug, Deserialize)]
struct PciBus {
    devices: Vec<PciDevice>,
}

#[derive(Debug, Deserialize)]
struct PciDevice {
    bus: u32,
    slot: u32,
    function: u32,
    #[serde(default)]
    qdev_id: String,
    pci_bridge: Option<PciBridge>,
}

#[derive(Debug, Deserialize)]
struct PciBridge {
    #[serde(default)]
    devices: Vec<PciDevice>,
}

impl Session {
    /// Connects to a machine.
    ///
    /// # Errors
    /// It cannot be reached, refuses us, or serves another client.
    pub async fn open(monitor: &Path) -> Result<Self, MonitorError> {
        Wire::connect(monitor).await.map(Self)
    }

    /// The NICs of nicd's that it has.
    ///
    /// # Errors
    /// It does not answer, or not as it should.
    pub async fn nics(&mut self) -> Result<PluggedNics, MonitorError> {
        let devices = self.list(DEVICES).await?;
        let mut nics: PluggedNics = devices.iter().filter_map(|device| Some((port_of(&device.name)?, None))).collect();
        if nics.is_empty() {
            return Ok(nics);
        }
        let buses: Vec<PciBus> = self.ask("query-pci", json!({})).await?;
        for device in flattened(buses) {
            if let Some(address) = port_of(&device.qdev_id).and_then(|port| nics.get_mut(&port)) {
                *address = Some(format!("0000:{:02x}:{:02x}.{:x}", device.bus, device.slot, device.function));
            }
        }
        Ok(nics)
    }

    /// A free slot: of a PCI Express machine a port that nothing is plugged into, of one with a single PCI bus that bus.
    ///
    /// # Errors
    /// There is none, or it does not answer.
    pub async fn free_slot(&mut self) -> Result<Slot, MonitorError> {
        let devices = self.list(DEVICES).await?;
        let ports = devices.iter().filter(|device| SLOTS.contains(&device.kind.as_str()));
        let names: BTreeSet<&str> = ports.map(|port| port.name.as_str()).take(LOOKED_AT).collect();
        for name in &names {
            // Its bus has the same name.
            let path = format!("{DEVICES}/{name}");
            let plugged = self.list(&format!("{path}/{name}")).await?;
            let is_free = !plugged.iter().any(|entry| entry.name.starts_with("child["));
            if is_free && self.takes_plugging(&path).await? {
                return Ok(Slot(Some((*name).to_owned())));
            }
        }
        if names.is_empty() && self.list("/machine").await?.iter().any(|entry| entry.name == "i440fx") {
            let buses: Vec<PciBus> = self.ask("query-pci", json!({})).await?;
            let used = buses.first().map(|bus| bus.devices.iter().map(|device| device.slot).collect::<BTreeSet<_>>().len());
            if used.is_some_and(|used| used < PCI_SLOTS) {
                return Ok(Slot(None));
            }
        }
        let said = match names.len() {
            0 => "it has no pcie-root-port with an id".to_owned(),
            many => format!("all of its {many} PCI Express ports are in use, or take no device while it runs"),
        };
        Err(MonitorError::NoFreeSlot {
            path: self.0.path().to_owned(),
            said: format!("{said}; start it with one for each NIC to come"),
        })
    }

    /// Whether a port takes devices while the machine runs. Before QEMU 5 each does.
    async fn takes_plugging(&mut self, port: &str) -> Result<bool, MonitorError> {
        match self.0.execute("qom-get", json!({"path": port, "property": "hotplug"}), None).await {
            Ok(Value::Bool(takes)) => Ok(takes),
            Ok(_) | Err(MonitorError::Refused { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Takes away what an earlier try for this port left: descriptors that were handed over, a backend, a NIC without one.
    ///
    /// # Errors
    /// It does not answer, or the guest keeps the NIC.
    pub async fn clear(&mut self, port: PortId, queues: u16, has_nic: bool) -> Result<(), MonitorError> {
        match has_nic {
            true => self.unplug(port, queues, LEFT).await,
            false => self.release(port, queues).await,
        }
    }

    /// Plugs a NIC in, with a descriptor of its tap for each pair of queues. The machine alone has them afterwards.
    ///
    /// # Errors
    /// It refuses, or does not answer; what was begun is taken back by [`Session::withdraw`].
    pub async fn plug(&mut self, nic: &Nic, slot: &Slot, queues: Vec<OwnedFd>) -> Result<(), MonitorError> {
        // The device was made since the slot was found.
        self.0.begin();
        let count = u16::try_from(queues.len()).unwrap_or(u16::MAX);
        let id = names::machine_nic(nic.port);
        let mut backend = json!({"type": "tap", "id": id});
        backend["fds"] = self.hand_over("q", nic.port, queues).await?.into();
        // Asked for vhost without a device that opens, QEMU 7.2 aborts.
        if let Ok(Some(vhost)) = tokio::task::spawn_blocking(move || vhost(count)).await {
            backend["vhost"] = true.into();
            backend["vhostfds"] = self.hand_over("v", nic.port, vhost).await?.into();
        }
        self.0.execute("netdev_add", backend, None).await?;
        let mut device = json!({
            "driver": "virtio-net-pci", "id": id, "netdev": id, "mac": nic.mac.to_string(), "host_mtu": nic.mtu, "romfile": "",
        });
        if count > 1 {
            device["mq"] = true.into();
            device["vectors"] = (2 * u32::from(count) + 2).into();
        }
        if let Slot(Some(bus)) = slot {
            device["bus"] = bus.as_str().into();
        }
        self.0.execute("device_add", device, None).await.map(drop)
    }

    /// Hands descriptors over, one by one, and answers the list of their names.
    async fn hand_over(&mut self, what: &str, port: PortId, descriptors: Vec<OwnedFd>) -> Result<String, MonitorError> {
        let count = u16::try_from(descriptors.len()).unwrap_or(u16::MAX);
        let given: Vec<String> = names_of(what, port, count).collect();
        for (fdname, descriptor) in given.iter().zip(descriptors) {
            self.0.execute("getfd", json!({ "fdname": fdname }), Some(descriptor)).await?;
        }
        Ok(given.join(":"))
    }

    /// Takes a NIC out: its guest sees the link go down and is asked to let it go, then its backend closes the tap.
    ///
    /// # Errors
    /// The guest does not let it go in time, or the machine does not answer.
    pub async fn unplug(&mut self, port: PortId, queues: u16, limit: Duration) -> Result<(), MonitorError> {
        let id = names::machine_nic(port);
        self.0.watch(&id);
        let kept = MonitorError::Kept { path: self.0.path().to_owned(), id: id.clone() };
        if self.ask_to_leave(&id).await? {
            match self.0.told_until(Instant::now() + limit).await? {
                Some(Told::Deleted) => {}
                Some(Told::Refused) => return Err(kept),
                None if self.list(DEVICES).await?.iter().any(|device| device.name == id) => return Err(kept),
                None => {}
            }
        }
        self.release(port, queues).await
    }

    /// Takes a NIC out without waiting for its guest, which is left with a NIC without a link until it lets that go.
    ///
    /// # Errors
    /// The machine does not answer.
    pub async fn withdraw(&mut self, port: PortId, queues: u16) -> Result<(), MonitorError> {
        self.0.begin();
        self.ask_to_leave(&names::machine_nic(port)).await?;
        self.release(port, queues).await
    }

    /// Sets a NIC's link down and asks its guest to let it go; whether there is such a NIC.
    async fn ask_to_leave(&mut self, id: &str) -> Result<bool, MonitorError> {
        match self.0.execute("set_link", json!({"name": id, "up": false}), None).await {
            Ok(_) | Err(MonitorError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        match self.0.execute("device_del", json!({ "id": id }), None).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            // It was asked before, and has not answered.
            Err(MonitorError::Refused { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Has the machine close a tap: that of a backend, and descriptors that none was made of.
    async fn release(&mut self, port: PortId, queues: u16) -> Result<(), MonitorError> {
        match self.0.execute("netdev_del", json!({"id": names::machine_nic(port)}), None).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        for fdname in names_of("q", port, queues).chain(names_of("v", port, queues)) {
            match self.0.execute("closefd", json!({ "fdname": fdname }), None).await {
                Ok(_) | Err(MonitorError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn list(&mut self, path: &str) -> Result<Vec<Entry>, MonitorError> {
        self.ask("qom-list", json!({ "path": path })).await
    }

    async fn ask<T: DeserializeOwned>(&mut self, command: &'static str, arguments: Value) -> Result<T, MonitorError> {
        let answer = self.0.execute(command, arguments, None).await?;
        let not_qmp = |error: serde_json::Error| MonitorError::NotQmp {
            path: self.0.path().to_owned(),
            said: format!("{command}: {error}"),
        };
        serde_json::from_value(answer).map_err(not_qmp)
    }
}

/// The port whose NIC has this id in a machine.
fn port_of(id: &str) -> Option<PortId> {
    let port = PortId(id.strip_prefix("nicd-")?.parse().ok()?);
    (names::machine_nic(port) == id).then_some(port)
}

/// The names under which a port's descriptors are handed over.
fn names_of(what: &str, port: PortId, count: u16) -> impl Iterator<Item = String> {
    let id = names::machine_nic(port);
    (0..count).map(move |queue| format!("{id}-{what}{queue}"))
}

/// All devices of all buses.
fn flattened(buses: Vec<PciBus>) -> Vec<PciDevice> {
    let mut left: Vec<PciDevice> = buses.into_iter().flat_map(|bus| bus.devices).collect();
    let mut all = Vec::new();
    while let Some(mut device) = left.pop() {
        left.extend(device.pci_bridge.take().into_iter().flat_map(|bridge| bridge.devices));
        all.push(device);
    }
    all
}

/// A descriptor of the vhost device for each queue; none where it is not there or may not be opened.
fn vhost(queues: u16) -> Option<Vec<OwnedFd>> {
    (0..queues).map(|_| OpenOptions::new().read(true).write(true).open(VHOST).ok().map(OwnedFd::from)).collect()
}
