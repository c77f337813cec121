//! What is wrong with the agent itself: health lists it, and events tell when it begins and when it ends.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use crate::clock;
use crate::events::{Event, EventKind};
use crate::inventory::Inventory;
use crate::model::Status;
use crate::model::notice::Recipient;

use super::conditions::{Conditions, Finding, RecipientTrouble};
use super::problems::Listed;
use super::{Context, Reconciler, crowded, problems};

/// How the daemon fares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Health {
    /// `ok`, or `degraded` when there are problems.
    pub status: &'static str,
    /// The program's version.
    pub version: &'static str,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// This host's name.
    pub host: String,
    /// How many ports have each status.
    pub ports: BTreeMap<&'static str, usize>,
    /// Of the ports that are DOWN, how many have no server.
    pub unattached: usize,
    /// What is wrong.
    pub problems: Vec<Listed>,
    /// How many problems of each reason there are; those that are many are not all listed.
    #[serde(skip)]
    pub counts: Vec<(&'static str, usize)>,
}

impl Reconciler {
    /// How the daemon fares.
    pub fn health(&self) -> Health {
        let state = self.lock();
        let mut conditions = self.conditions();
        crowded::note(&state, &mut conditions.nearly_full);
        let problems::List { problems, counts } = problems::list(&state, &conditions);
        Health {
            status: if problems.is_empty() { "ok" } else { "degraded" },
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: Instant::now().saturating_duration_since(self.started).as_secs(),
            host: self.host.clone(),
            ports: state.counts().into_iter().map(|(status, count): (Status, usize)| (status.as_str(), count)).collect(),
            unattached: state.unattached(),
            problems,
            counts,
        }
    }

    /// Tells of each trouble that is new, and of each that has ended; of one that comes and goes a few times a second, and its
    /// last state always.
    pub(super) fn publish_health(&self, state: &Inventory) {
        let news = {
            let mut conditions = self.conditions();
            crowded::note(state, &mut conditions.nearly_full);
            let now = problems::troubles(state, &conditions);
            let news = conditions.told.news(&now, Instant::now());
            if conditions.told.due.is_some() {
                self.retries.notify_one();
            }
            news
        };
        for ((reason, port_id), begun) in news {
            let kind = if begun { EventKind::AgentDegraded } else { EventKind::AgentRecovered };
            let record = port_id.and_then(|id| state.ports.get(&id)).map(|entry| &entry.record);
            let server_id = record.and_then(|record| record.binding.as_ref()).map(|binding| binding.server_id);
            let network_id = record.map(|record| record.network_id);
            let reason = Some(reason.to_owned());
            self.emit(Event { reason, port_id, server_id, network_id, ..Event::new(kind, clock::now()) }, &Context::default());
        }
    }

    /// Has the loop tell of them, where what changes them is seen by another thread.
    pub(super) fn tell_soon(&self) {
        self.conditions().told.due = Some(Instant::now());
        self.retries.notify_one();
    }

    /// Notes why the configuration could not be read again, or that it could, for health and events.
    pub fn note_config(&self, trouble: Option<String>) {
        self.note(|conditions| &mut conditions.config_trouble, trouble);
    }

    /// Notes that no client gets to a socket, or that all are reached again, for health and events.
    pub fn note_sockets(&self, trouble: Option<Finding>) {
        self.note(|conditions| &mut conditions.socket_trouble, trouble);
    }

    /// Notes which certificates of `[listen]` have ended or end soon, for health and events.
    pub fn note_certificates(&self, findings: Vec<Finding>) {
        self.note(|conditions| &mut conditions.certificates, findings);
    }

    /// Notes why the fleet is not reached, or that it is, for health and events.
    pub fn note_fleet(&self, trouble: Option<Finding>) {
        self.note(|conditions| &mut conditions.fleet_trouble, trouble);
    }

    /// Notes that the bus is away that was there, or that it is there again, for health and events.
    pub fn note_bus(&self, trouble: Option<Finding>) {
        self.note(|conditions| &mut conditions.bus_trouble, trouble);
    }

    /// Notes why a recipient of notices is not told of ports, or that it is, for health and events.
    pub fn note_recipient(&self, recipient: Recipient, trouble: Option<RecipientTrouble>) {
        match recipient {
            Recipient::Nova => self.note(|conditions| &mut conditions.nova_trouble, trouble),
            Recipient::Webhook => self.note(|conditions| &mut conditions.webhook_trouble, trouble),
        }
    }

    fn note<T: PartialEq>(&self, place: impl FnOnce(&mut Conditions) -> &mut T, trouble: T) {
        let state = self.lock();
        let news = {
            let mut conditions = self.conditions();
            let place = place(&mut conditions);
            let news = *place != trouble;
            *place = trouble;
            news
        };
        if news {
            self.publish_health(&state);
        }
    }
}
