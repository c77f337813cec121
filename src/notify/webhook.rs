//! The operator's webhook: the events of `GET nicd/v1/events`, by POST, several in one request.

use hyper::header::{AUTHORIZATION, HeaderName};
use serde_json::{Value, json};

use crate::config::WebhookSettings;
use crate::events::{Event, EventKind};
use crate::model::Phase;
use crate::model::notice::{Notice, PortFact};

use super::failure::{Failure, FailureKind};
use super::http::{Http, secret};
use super::nova::Outcomes;
use super::queue::{Outcome, Sending};

/// The webhook, as nicd speaks to it.
#[derive(Debug)]
pub struct Webhook {
    http: Http,
    settings: WebhookSettings,
}

impl Webhook {
    /// The webhook by the configuration.
    pub fn new(settings: WebhookSettings) -> Self {
        Self { http: Http::new(settings.ca_file.clone()), settings }
    }

    /// Sends a batch of events, which are accepted together.
    ///
    /// # Errors
    /// They were not accepted, or it is not known whether they were.
    pub async fn send(&mut self, batch: &[Sending<PortFact>]) -> Result<Outcomes, Failure> {
        let url = self.settings.url.as_ref().ok_or_else(|| Failure::misused("notify.url is not set"))?;
        let headers: Vec<(HeaderName, String)> = match &self.settings.token_file {
            Some(file) => vec![(AUTHORIZATION, format!("Bearer {}", secret(file).await?))],
            None => Vec::new(),
        };
        let events: Vec<Value> = batch.iter().map(|sent| event(&sent.notice)).collect();
        let answer = self.http.post(url, &headers, json!({ "events": events }).to_string()).await?;
        match answer.status {
            200..300 => Ok(vec![(Outcome::Accepted, None); batch.len()]),
            400 | 413 | 422 => Err(Failure { kind: FailureKind::Request, ..Failure::answered("the webhook", &answer) }),
            401 | 403 => Err(Failure::refused(format!("the webhook answers {}: {}", answer.status, answer.begins()))),
            _ => Err(Failure::answered("the webhook", &answer)),
        }
    }
}

/// The event that a notice is: from what the webhook knows to what holds now.
fn event(notice: &Notice<PortFact>) -> Value {
    let (known, wanted) = (notice.known.as_ref(), &notice.wanted);
    let kind = match (known, wanted.phase) {
        (_, None) => EventKind::PortDeleted,
        (None, Some(_)) => EventKind::PortCreated,
        (Some(_), Some(_)) => EventKind::PortStatus,
    };
    let event = Event {
        seq: notice.occasion.seq,
        port_id: Some(notice.about.port_id),
        server_id: wanted.server_id,
        network_id: wanted.network_id,
        old: known.and_then(|known| known.phase).map(Phase::status),
        new: wanted.phase.map(Phase::status),
        phase: wanted.phase,
        reason: wanted.reason.clone(),
        request_id: notice.occasion.request_id.clone(),
        ..Event::new(kind, notice.occasion.at)
    };
    let mut data = serde_json::to_value(event).unwrap_or_default();
    if let Value::Object(fields) = &mut data {
        fields.insert("event".to_owned(), kind.as_str().into());
        fields.insert("id".to_owned(), notice.id.to_string().into());
    }
    data
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::model::PortId;
    use crate::model::notice::{NoticeKey, Occasion};

    #[test]
    fn an_event_goes_from_what_the_webhook_knows_to_what_holds() {
        let fact = |phase| PortFact { phase, reason: None, server_id: None, network_id: None, nic: String::new() };
        let about = NoticeKey { port_id: PortId(Uuid::from_u128(1)), server_id: None };
        let (id, since) = (Uuid::from_u128(9), Timestamp::UNIX_EPOCH);
        let occasion = Occasion { at: since, seq: 7, request_id: None };
        let (wired, active) = (fact(Some(Phase::Wired)), fact(Some(Phase::Active)));
        for (known, wanted, kind, old, new) in [
            (None, active.clone(), "port.created", Value::Null, "ACTIVE".into()),
            (Some(wired), active.clone(), "port.status", "DOWN".into(), "ACTIVE".into()),
            (Some(active), fact(None), "port.deleted", "ACTIVE".into(), Value::Null),
        ] {
            let occasion = occasion.clone();
            let told = event(&Notice { about, known, unsure: false, wanted, last: false, id, since, occasion });
            assert_eq!((&told["event"], &told["old"], &told["new"]), (&kind.into(), &old, &new));
            assert_eq!((&told["seq"], &told["id"]), (&7.into(), &id.to_string().into()));
        }
    }
}
