//! Follows the reconciler's events: reads each event's port again, and signals the properties that differ from the cache.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use zbus::connection::Connection;

use crate::events::{Event, EventKind, Reader};
use crate::model::PortId;
use crate::service::Service;
use crate::telemetry::meters;

use super::cache::{PropertyCache, Shown};
use super::object::{ROOT, path};
use super::xml::{OBJECT_MANAGER, PORT, PROPERTIES};

/// One connection's way along the events.
#[derive(Debug)]
pub(super) struct Follower {
    service: Arc<Service>,
    connection: Connection,
    cache: Arc<PropertyCache>,
    reader: Reader,
}

impl Follower {
    /// Fills the cache with all ports, without signals, because no client knows the name yet.
    pub(super) fn new(service: Arc<Service>, connection: Connection, cache: Arc<PropertyCache>) -> Self {
        let newest = service.events().newest();
        let reader = service.events().read_after(Some(newest));
        for port in service.port_ids() {
            if let Ok(view) = service.port(port) {
                cache.ports().insert(port, Shown::of(&view));
            }
        }
        cache.told(newest);
        Self { service, connection, cache, reader }
    }

    /// Sends signals until the connection fails.
    pub(super) async fn run(&mut self) -> zbus::Error {
        loop {
            let event = self.reader.next().await;
            if let Err(error) = self.tell(&event).await {
                return error;
            }
            self.cache.told(event.seq);
        }
    }

    async fn tell(&self, event: &Event) -> zbus::Result<()> {
        match (event.kind, event.port_id) {
            (EventKind::PortCreated | EventKind::PortStatus | EventKind::PortDeleted, Some(port)) => {
                self.look(port).await?;
                self.status_changed(port, event).await
            }
            (EventKind::Lost, _) => self.look_at_all().await,
            _ => Ok(()),
        }
    }

    async fn look_at_all(&self) -> zbus::Result<()> {
        let there = self.service.port_ids();
        let told: Vec<PortId> = self.cache.ports().keys().copied().collect();
        for port in BTreeSet::from_iter(there.into_iter().chain(told)) {
            self.look(port).await?;
        }
        Ok(())
    }

    /// Signals how a port differs from the cache.
    async fn look(&self, port: PortId) -> zbus::Result<()> {
        let now = self.service.port(port).ok().map(|view| Shown::of(&view));
        let before = match &now {
            Some(now) => self.cache.ports().insert(port, now.clone()),
            None => self.cache.ports().remove(&port),
        };
        match (before, now) {
            (None, Some(now)) => {
                let interfaces = HashMap::from([(PORT, now.all())]);
                self.signal(ROOT, OBJECT_MANAGER, "InterfacesAdded", &(path(port), interfaces)).await
            }
            (Some(_), None) => self.signal(ROOT, OBJECT_MANAGER, "InterfacesRemoved", &(path(port), [PORT].as_slice())).await,
            (Some(before), Some(now)) if before != now => {
                let nothing: &[&str] = &[];
                let changed = (PORT, now.changed_since(&before), nothing);
                self.signal(path(port).as_str(), PROPERTIES, "PropertiesChanged", &changed).await
            }
            _ => Ok(()),
        }
    }

    async fn status_changed(&self, port: PortId, event: &Event) -> zbus::Result<()> {
        let (Some(old), Some(new)) = (event.old, event.new) else { return Ok(()) };
        if old == new {
            return Ok(());
        }
        let body = (old.as_str(), new.as_str(), event.reason.as_deref().unwrap_or_default());
        self.signal(path(port).as_str(), PORT, "StatusChanged", &body).await
    }

    async fn signal<B>(&self, path: &str, interface: &str, name: &str, body: &B) -> zbus::Result<()>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        self.connection.emit_signal(None::<&str>, path, interface, name, body).await?;
        meters().dbus_signals.inc();
        Ok(())
    }
}
