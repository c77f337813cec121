//! The ports' properties as last signalled on the bus.
//!
//! Answers contain only signalled values. So a client that follows the signals never reads a value without its signal.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use zbus::Variant;

use crate::model::PortId;
use crate::service::PortView;

/// How long a call waits for the signals of earlier events.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The properties of a port and their types, in the order in which they are shown.
pub(super) const PROPERTIES: [(&str, &str); 9] = [
    ("Id", "s"),
    ("ServerId", "s"),
    ("NetworkId", "s"),
    ("Device", "s"),
    ("Mac", "s"),
    ("FixedIps", "as"),
    ("Status", "s"),
    ("Phase", "s"),
    ("Reason", "s"),
];

/// A port's properties. What a port does not have is an empty string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    id: String,
    server: String,
    network: String,
    device: String,
    mac: String,
    fixed_ips: Vec<String>,
    pub status: &'static str,
    phase: &'static str,
    reason: String,
}

/// Properties by name.
pub(super) type Values<'a> = HashMap<&'static str, Variant<'a>>;

impl Shown {
    pub(super) fn of(view: &PortView) -> Self {
        let binding = view.binding.as_ref();
        let device = binding.and_then(|binding| binding.device.as_ref());
        Self {
            id: view.port.id.to_string(),
            server: binding.map(|binding| binding.server.to_string()).unwrap_or_default(),
            network: view.port.network_id.to_string(),
            device: device.map(|device| device.name.clone()).unwrap_or_default(),
            mac: view.port.mac.to_string(),
            fixed_ips: view.port.fixed_ips.iter().map(|ip| ip.ip_address.to_string()).collect(),
            status: view.phase.status().as_str(),
            phase: view.phase.as_str(),
            reason: view.reason.clone().unwrap_or_default(),
        }
    }

    /// One property; none when there is none of that name.
    pub(super) fn get(&self, name: &str) -> Option<Variant<'_>> {
        Some(match name {
            "Id" => self.id.as_str().into(),
            "ServerId" => self.server.as_str().into(),
            "NetworkId" => self.network.as_str().into(),
            "Device" => self.device.as_str().into(),
            "Mac" => self.mac.as_str().into(),
            "FixedIps" => self.fixed_ips.iter().map(String::as_str).collect::<Vec<&str>>().into(),
            "Status" => self.status.into(),
            "Phase" => self.phase.into(),
            "Reason" => self.reason.as_str().into(),
            _ => return None,
        })
    }

    /// All of them.
    pub(super) fn all(&self) -> Values<'_> {
        PROPERTIES.into_iter().filter_map(|(name, _)| Some((name, self.get(name)?))).collect()
    }

    /// The properties that differ from those signalled before.
    pub(super) fn changed_since(&self, before: &Self) -> Values<'_> {
        let mut all = self.all();
        all.retain(|name, value| before.get(name).as_ref() != Some(value));
        all
    }
}

/// All ports as signalled, and the number of the last signalled event.
#[derive(Debug, Default)]
pub(super) struct PropertyCache {
    ports: Mutex<BTreeMap<PortId, Shown>>,
    told: watch::Sender<u64>,
}

impl PropertyCache {
    /// The ports as signalled. Do not hold the guard across an await.
    pub(super) fn ports(&self) -> MutexGuard<'_, BTreeMap<PortId, Shown>> {
        // Each change is one insertion or removal, whole in itself.
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A port as signalled.
    pub(super) fn port(&self, port: PortId) -> Option<Shown> {
        self.ports().get(&port).cloned()
    }

    /// Records that all events up to this one were signalled.
    pub(super) fn told(&self, event: u64) {
        self.told.send_replace(event);
    }

    /// Waits until all events up to this one were signalled, so that a client with an answer from the HTTP socket reads the same
    /// state here. The wait is short: on a bus that accepts no signals the call gets the state as signalled so far.
    pub(super) async fn caught_up(&self, event: u64) {
        let mut told = self.told.subscribe();
        let _ = timeout(CATCH_UP, told.wait_for(|told| *told >= event)).await;
    }
}
