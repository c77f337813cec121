//! Tells Nova (`os-server-external-events`) and a webhook of ports.
//!
//! ```text
//!  events ──► courier ── looks at the port ──► queue: what the recipient knows, and what holds ──► store (table notices)
//!                │                                            │
//!                └───────────── batch ◄───────────────────────┘
//!                                 └──► nova (keystone) or webhook ──► http ──► accepted, dropped, again
//! ```
//!
//! It reads events like any reader, on a thread of its own, so that no attach waits for TLS, a name or a server. It keeps no list
//! of events but, of each port, what its recipient has accepted and what holds now ([`crate::model::notice`]). So whatever was not
//! written before the process was killed is found again by comparing: a port that is not what its recipient knows is told of.
//!
//! | file | content |
//! |---|---|
//! | `queue` | what waits; pure |
//! | `target` | what Nova and the webhook are told of a port |
//! | `nova`, `keystone`, `webhook` | their requests, and what their answers mean |
//! | `http`, `failure` | one request; why there is no answer |
//! | `courier` | the loop: events, attempts, the store, health and metrics |

mod courier;
mod failure;
mod http;
mod keystone;
mod nova;
mod queue;
mod target;
mod webhook;

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{NovaSettings, Settings, WebhookSettings};
use crate::model::notice::StoredNotice;
use crate::service::Service;

use nova::Nova;
use webhook::Webhook;

/// What the task needs.
#[derive(Debug)]
pub struct Notifier {
    /// Whose ports are told of.
    pub service: Arc<Service>,
    /// What the store has.
    pub stored: Vec<StoredNotice>,
    /// Whom to tell.
    pub recipients: Recipients,
}

/// The settings of both recipients, which may change.
#[derive(Debug)]
pub struct Recipients {
    nova: watch::Receiver<NovaSettings>,
    webhook: watch::Receiver<WebhookSettings>,
}

/// Changes the settings of both recipients.
#[derive(Debug)]
pub struct RecipientSettings {
    nova: watch::Sender<NovaSettings>,
    webhook: watch::Sender<WebhookSettings>,
}

impl RecipientSettings {
    /// The settings of the start.
    pub fn new(settings: &Settings) -> Self {
        Self { nova: watch::Sender::new(settings.nova.clone()), webhook: watch::Sender::new(settings.notify.clone()) }
    }

    /// What follows them.
    pub fn recipients(&self) -> Recipients {
        Recipients { nova: self.nova.subscribe(), webhook: self.webhook.subscribe() }
    }

    /// Has new settings used, as far as they differ.
    pub fn set(&self, settings: &Settings) {
        change(&self.nova, &settings.nova);
        change(&self.webhook, &settings.notify);
    }
}

fn change<S: Clone + PartialEq>(sender: &watch::Sender<S>, new: &S) {
    sender.send_if_modified(|old| {
        let differs = old != new;
        old.clone_from(new);
        differs
    });
}

impl Notifier {
    /// Tells both recipients, as far as they are configured, until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let Self { service, stored, recipients } = self;
        let (mut for_nova, mut for_webhook) = (Vec::new(), Vec::new());
        for notice in stored {
            match notice {
                StoredNotice::Nova(notice) => for_nova.push(notice),
                StoredNotice::Webhook(notice) => for_webhook.push(notice),
            }
        }
        // What a start finds to be repaired is told once it is known how the repair ended.
        tokio::select! {
            () = service.reconciler().reconciled() => {}
            () = stop.cancelled() => return,
        }
        tokio::join!(
            courier::follow::<Nova>(Arc::clone(&service), for_nova, recipients.nova, stop.clone()),
            courier::follow::<Webhook>(service, for_webhook, recipients.webhook, stop),
        );
    }
}
