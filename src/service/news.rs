//! Events of the ports of all hosts of the fleet. Their numbers are etcd's revisions, so that a reader can go on at another host.

use std::collections::HashMap;
use std::sync::Arc;

use super::view::read;
use super::{Error, PortView, Service};
use crate::clock;
use crate::events::{Event, EventKind};
use crate::fleet::agent::Fleet;
use crate::fleet::ports_watch::{News, PortNews, PortsWatch};
use crate::model::{Phase, PortId};

/// A reader of them.
#[derive(Debug)]
pub struct FleetReader {
    fleet: Arc<Fleet>,
    watch: PortsWatch,
    /// The phases that were told of last.
    phases: HashMap<PortId, Phase>,
}

impl Service {
    /// Reads events of all hosts' ports from now on, or after one.
    ///
    /// # Errors
    /// Etcd does not answer, or this host is in no fleet.
    pub async fn fleet_events(&self, after: Option<u64>) -> Result<FleetReader, Error> {
        let fleet = Arc::clone(self.in_fleet()?);
        fleet.check_connected()?;
        let watch = fleet.watch_ports(after).await?;
        Ok(FleetReader { fleet, watch, phases: HashMap::new() })
    }
}

impl FleetReader {
    /// The next events, all with one number.
    pub async fn next(&mut self) -> Vec<Event> {
        match self.fleet.next_news(&mut self.watch).await {
            News::Ports(revision, ports) => ports.into_iter().map(|news| Event { seq: revision, ..self.event(news) }).collect(),
            News::Lost(revision) => vec![Event { seq: revision, ..Event::new(EventKind::Lost, clock::now()) }],
        }
    }

    fn event(&mut self, news: PortNews) -> Event {
        let view = news.view.and_then(read::<PortView>);
        let phase = view.as_ref().map(|view| view.phase);
        let before = match phase {
            Some(phase) => self.phases.insert(news.port, phase),
            None => self.phases.remove(&news.port),
        };
        let kind = match (&view, news.is_new) {
            (None, _) => EventKind::PortDeleted,
            (Some(_), true) => EventKind::PortCreated,
            (Some(_), false) => EventKind::PortStatus,
        };
        Event {
            port_id: Some(news.port),
            server_id: view.as_ref().and_then(|view| view.port.binding.as_ref()).map(|binding| binding.server_id),
            network_id: Some(news.network),
            old: before.map(Phase::status),
            new: phase.map(Phase::status),
            phase,
            reason: view.and_then(|view| view.reason),
            host_id: Some(news.host),
            ..Event::new(kind, clock::now())
        }
    }
}
