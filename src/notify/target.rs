//! What differs between Nova and the webhook: what each is told of a port, and how it is sent.

use std::fmt::Debug;

use uuid::Uuid;

use crate::clock;
use crate::config::{NovaSettings, WebhookSettings};
use crate::events::{Event, EventKind};
use crate::model::notice::{Fact, Notice, NoticeKey, NovaFact, NovaState, Occasion, PortFact, Recipient, StoredNotice};
use crate::model::{PortId, Status};
use crate::service::PortView;

use super::failure::Failure;
use super::nova::{Nova, Outcomes};
use super::queue::{Queue, Seen, Sending};
use super::webhook::Webhook;

/// A recipient of notices.
pub trait Target: Debug + Sized + Send + 'static {
    /// What it is told of a port.
    type Fact: Fact + Send + Sync + 'static;
    /// How it is configured.
    type Settings: Clone + PartialEq + Debug + Send + Sync + 'static;
    /// Which one it is.
    const RECIPIENT: Recipient;
    /// Its name in sentences.
    const NAME: &'static str;
    /// What to do when it does not let nicd in.
    const REMEDY_REFUSED: &'static str;

    /// The recipient, if it is to be told.
    fn of(settings: &Self::Settings) -> Option<Self>;

    /// For how many seconds something may wait before health shows a problem.
    fn patience(settings: &Self::Settings) -> u32;

    /// The host and port that are spoken to, for health.
    fn place(settings: &Self::Settings) -> String;

    /// What follows for the queue from a port as it is, or from its absence, and from the event that is the cause.
    fn see(queue: &Queue<Self::Fact>, port: PortId, view: Option<&PortView>, cause: &Cause<'_>) -> Vec<Seen<Self::Fact>>;

    /// Sends a batch.
    fn send(&mut self, batch: &[Sending<Self::Fact>]) -> impl Future<Output = Result<Outcomes, Failure>> + Send;

    /// A notice as the store has it.
    fn stored(notice: Notice<Self::Fact>) -> StoredNotice;
}

/// Why a port is looked at.
#[derive(Debug, Clone, Copy)]
pub enum Cause<'a> {
    /// An event about it.
    Event(&'a Event),
    /// All are looked at; the number is the last event's.
    All(u64),
}

impl Cause<'_> {
    /// Whether the port is gone, and the event of its deletion is still to come.
    fn is_before_the_end(&self, view: Option<&PortView>) -> bool {
        view.is_none() && matches!(self, Self::Event(event) if event.kind != EventKind::PortDeleted)
    }

    fn occasion(&self) -> Occasion {
        match self {
            Self::Event(event) => Occasion { at: event.at, seq: event.seq, request_id: event.request_id.clone() },
            Self::All(seq) => Occasion { at: clock::now(), seq: *seq, request_id: None },
        }
    }

    fn seen<F>(&self, about: NoticeKey, fact: F, last: bool) -> Seen<F> {
        Seen { about, fact, last, occasion: self.occasion(), id: Uuid::new_v4(), now: clock::now() }
    }
}

impl Target for Nova {
    type Fact = NovaFact;
    type Settings = NovaSettings;
    const RECIPIENT: Recipient = Recipient::Nova;
    const NAME: &'static str = "Nova";
    const REMEDY_REFUSED: &'static str = "check the user or the application credential in [nova], its role (Nova's policy \
         os_compute_api:os-server-external-events:create) and the file with its secret; nicd tries again by itself";

    fn of(settings: &NovaSettings) -> Option<Self> {
        settings.send.then(|| Self::new(settings.clone()))
    }

    fn patience(settings: &NovaSettings) -> u32 {
        settings.unreachable_after_s
    }

    fn place(settings: &NovaSettings) -> String {
        let url = settings.endpoint.as_ref().or(settings.auth_url.as_ref());
        url.map(|url| url.authority.clone()).unwrap_or_default()
    }

    fn see(queue: &Queue<NovaFact>, port: PortId, view: Option<&PortView>, cause: &Cause<'_>) -> Vec<Seen<NovaFact>> {
        if cause.is_before_the_end(view) {
            return Vec::new();
        }
        let attached = view.and_then(|view| Some((view, view.binding.as_ref()?.server)));
        let about = attached.map(|(_, server)| NoticeKey { port_id: port, server_id: Some(server) });
        let mut seen = Vec::new();
        // The servers that it was attached to.
        for key in queue.of_port(port).into_iter().filter(|key| Some(*key) != about) {
            let Some(wanted) = queue.wanted(key) else { continue };
            // One that was detached before it was deleted has left Nova's server already.
            let is_deleted = match cause {
                Cause::Event(event) => view.is_none() && event.server_id == key.server_id,
                Cause::All(_) => view.is_none(),
            };
            let state = if is_deleted { NovaState::Deleted } else { wanted.state.after(Status::Down) };
            seen.push(cause.seen(key, NovaFact { state, ..wanted.clone() }, true));
        }
        if let Some(((view, server), about)) = attached.zip(about) {
            let status = match cause {
                Cause::Event(event) if event.server_id == Some(server) => event.new,
                _ => None,
            };
            let before = queue.wanted(about).map_or(NovaState::Nothing, |fact| fact.state);
            let state = before.after(status.unwrap_or_else(|| view.phase.status()));
            seen.push(cause.seen(about, NovaFact { state, nic: nic(view) }, false));
        }
        // One that came and went between two looks.
        if let (None, Cause::Event(Event { kind: EventKind::PortDeleted, server_id: Some(server), .. })) = (view, cause) {
            let about = NoticeKey { port_id: port, server_id: Some(*server) };
            if queue.wanted(about).is_none() {
                seen.push(cause.seen(about, NovaFact { state: NovaState::Deleted, nic: String::new() }, true));
            }
        }
        seen
    }

    async fn send(&mut self, batch: &[Sending<NovaFact>]) -> Result<Outcomes, Failure> {
        Nova::send(self, batch).await
    }

    fn stored(notice: Notice<NovaFact>) -> StoredNotice {
        StoredNotice::Nova(notice)
    }
}

impl Target for Webhook {
    type Fact = PortFact;
    type Settings = WebhookSettings;
    const RECIPIENT: Recipient = Recipient::Webhook;
    const NAME: &'static str = "the webhook";
    const REMEDY_REFUSED: &'static str = "check the token in notify.token_file; nicd tries again by itself";

    fn of(settings: &WebhookSettings) -> Option<Self> {
        settings.url.is_some().then(|| Self::new(settings.clone()))
    }

    fn patience(settings: &WebhookSettings) -> u32 {
        settings.unreachable_after_s
    }

    fn place(settings: &WebhookSettings) -> String {
        settings.url.as_ref().map(|url| url.authority.clone()).unwrap_or_default()
    }

    fn see(queue: &Queue<PortFact>, port: PortId, view: Option<&PortView>, cause: &Cause<'_>) -> Vec<Seen<PortFact>> {
        if cause.is_before_the_end(view) {
            return Vec::new();
        }
        let about = NoticeKey { port_id: port, server_id: None };
        let of_event = match cause {
            Cause::Event(event) => Some(*event),
            Cause::All(_) => None,
        };
        let fact = match view {
            Some(view) => PortFact {
                phase: of_event.and_then(|event| event.phase).or(Some(view.phase)),
                reason: of_event.map_or_else(|| view.reason.clone(), |event| event.reason.clone()),
                server_id: of_event.map_or_else(|| view.binding.as_ref().map(|binding| binding.server), |event| event.server_id),
                network_id: Some(view.port.network_id),
                nic: nic(view),
            },
            None => {
                let before = queue.wanted(about);
                PortFact {
                    phase: None,
                    reason: None,
                    server_id: of_event.and_then(|event| event.server_id).or(before.and_then(|fact| fact.server_id)),
                    network_id: of_event.and_then(|event| event.network_id).or(before.and_then(|fact| fact.network_id)),
                    nic: String::new(),
                }
            }
        };
        vec![cause.seen(about, fact, view.is_none())]
    }

    async fn send(&mut self, batch: &[Sending<PortFact>]) -> Result<Outcomes, Failure> {
        Webhook::send(self, batch).await
    }

    fn stored(notice: Notice<PortFact>) -> StoredNotice {
        StoredNotice::Webhook(notice)
    }
}

/// MAC and addresses.
fn nic(view: &PortView) -> String {
    let mut ips: Vec<_> = view.port.fixed_ips.iter().map(|ip| ip.ip_address).collect();
    ips.sort_unstable();
    ips.iter().fold(view.port.mac.to_string(), |text, ip| format!("{text} {ip}"))
}
