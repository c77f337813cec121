//! Nova's `POST /os-server-external-events`: which events a notice is, and what Nova's answer says of each.

use std::collections::BTreeMap;

use hyper::header::HeaderName;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock;
use crate::config::NovaSettings;
use crate::model::notice::{Notice, NovaFact, NovaState};

use super::failure::{Failure, FailureKind};
use super::http::{Answer, Http};
use super::keystone::{Token, token};
use super::queue::{Outcome, Sending};

/// The header in which a token is sent.
const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// What became of each notice of a batch; with a sentence, unless it was accepted.
pub type Outcomes = Vec<(Outcome, Option<String>)>;

/// Nova, as nicd speaks to it.
#[derive(Debug)]
pub struct Nova {
    http: Http,
    settings: NovaSettings,
    token: Option<Token>,
}

/// What names one event in a request and its answer: its name, its server and its tag.
type EventKey = (String, String, String);

#[derive(Deserialize)]
struct Answered {
    events: Vec<AnsweredEvent>,
}

#[derive(Deserialize)]
struct AnsweredEvent {
    name: String,
    server_uuid: String,
    #[serde(default)]
    tag: Option<String>,
    code: u16,
}

impl Nova {
    /// Nova by the configuration.
    pub fn new(settings: NovaSettings) -> Self {
        Self { http: Http::new(settings.ca_file.clone()), settings, token: None }
    }

    /// Sends the events of a batch. A token that is not accepted is asked for anew, once.
    ///
    /// # Errors
    /// Nothing was accepted, or it is not known whether anything was.
    pub async fn send(&mut self, batch: &[Sending<NovaFact>]) -> Result<Outcomes, Failure> {
        let events: Vec<Vec<Value>> = batch.iter().map(|sent| events(&sent.notice)).collect();
        if events.iter().all(Vec::is_empty) {
            return Ok(vec![(Outcome::Accepted, None); batch.len()]);
        }
        let body = json!({ "events": events.iter().flatten().collect::<Vec<_>>() }).to_string();
        let first = self.post(body.clone()).await?;
        let answer = match first.status {
            401 | 403 => {
                self.token = None;
                self.post(body).await?
            }
            _ => first,
        };
        read(&answer, &events)
    }

    async fn post(&mut self, body: String) -> Result<Answer, Failure> {
        let token = match self.token.take().filter(|token| token.is_fresh(clock::now())) {
            Some(token) => token,
            None => token(&self.http, &self.settings).await?,
        };
        let url = token.compute.below("os-server-external-events");
        let headers = [(AUTH_TOKEN, token.text.clone())];
        self.token = Some(token);
        Ok(self.http.post(&url, &headers, body).await?)
    }
}

/// The events that a notice is.
fn events(notice: &Notice<NovaFact>) -> Vec<Value> {
    let Some(server) = notice.about.server_id else { return Vec::new() };
    let event = |name: &str, status: &str| {
        let tag = notice.about.port_id.to_string();
        json!({ "name": name, "server_uuid": server.to_string(), "tag": tag, "status": status })
    };
    let known = notice.known.as_ref();
    let state = (notice.unsure || known.is_none_or(|known| known.state != notice.wanted.state))
        .then(|| match notice.wanted.state {
            NovaState::Nothing => None,
            NovaState::Plugged => Some(event("network-vif-plugged", "completed")),
            NovaState::Failed => Some(event("network-vif-plugged", "failed")),
            NovaState::Unplugged => Some(event("network-vif-unplugged", "completed")),
            NovaState::Deleted => Some(event("network-vif-deleted", "completed")),
        })
        .flatten();
    // With its first event Nova reads the NIC's addresses, and with its last one it forgets them.
    let has_addresses = known.filter(|known| known.state != NovaState::Deleted && notice.wanted.state != NovaState::Deleted);
    let changed = has_addresses.is_some_and(|known| known.nic != notice.wanted.nic);
    let changed = changed.then(|| event("network-changed", "completed"));
    state.into_iter().chain(changed).collect()
}

/// What an answer says of each notice.
fn read(answer: &Answer, events: &[Vec<Value>]) -> Result<Outcomes, Failure> {
    match answer.status {
        207 => {
            let answered: Answered = serde_json::from_slice(&answer.body).map_err(|error| {
                let why = format!("Nova's answer cannot be read: {error}: {}", answer.begins());
                Failure { why, kind: FailureKind::Unreachable, retry_after: None }
            })?;
            let codes: BTreeMap<EventKey, u16> = answered
                .events
                .into_iter()
                .map(|event| ((event.name, event.server_uuid, event.tag.unwrap_or_default()), event.code))
                .collect();
            Ok(events.iter().map(|of_notice| outcome(of_notice, &codes)).collect())
        }
        200..300 => Ok(vec![(Outcome::Accepted, None); events.len()]),
        401 | 403 => Err(Failure::refused(format!("Nova answers {} to a new token: {}", answer.status, answer.begins()))),
        // A Nova before its release 34 answers so when it accepts none of the events, and does not say why.
        404 if answer.begins().contains("No instances found") => match events {
            [_] => Ok(vec![(Outcome::NotAccepted, Some("Nova does not know the server, or no host of it".to_owned()))]),
            _ => Err(Failure { kind: FailureKind::Request, ..Failure::answered("Nova", answer) }),
        },
        400 | 413 | 422 => Err(Failure { kind: FailureKind::Request, ..Failure::answered("Nova", answer) }),
        _ => Err(Failure::answered("Nova", answer)),
    }
}

/// What became of one notice: it is sent again if one of its events may still be accepted.
fn outcome(events: &[Value], codes: &BTreeMap<EventKey, u16>) -> (Outcome, Option<String>) {
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let (mut worst, mut why) = (Outcome::Accepted, None);
    for event in events {
        let key = (text(event, "name"), text(event, "server_uuid"), text(event, "tag"));
        let (found, said) = match codes.get(&key) {
            Some(200..300) => continue,
            Some(404) => (Outcome::Dropped, "Nova does not know the server".to_owned()),
            Some(422) => (Outcome::NotAccepted, "Nova knows no host of the server yet".to_owned()),
            Some(code @ 400..500) => (Outcome::Dropped, format!("Nova answers {code} for {}", key.0)),
            Some(code) => (Outcome::NotAccepted, format!("Nova answers {code} for {}", key.0)),
            None => (Outcome::NotAccepted, format!("Nova's answer says nothing of {}", key.0)),
        };
        if worst != Outcome::NotAccepted {
            (worst, why) = (found, Some(said));
        }
    }
    (worst, why)
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;
    use hyper::header::HeaderMap;
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::model::notice::{NoticeKey, Occasion};
    use crate::model::{PortId, ServerId};

    fn fact(state: NovaState, nic: &str) -> NovaFact {
        NovaFact { state, nic: nic.to_owned() }
    }

    fn notice(known: Option<NovaFact>, unsure: bool, wanted: NovaFact) -> Notice<NovaFact> {
        let about = NoticeKey { port_id: PortId(Uuid::from_u128(1)), server_id: Some(ServerId(Uuid::from_u128(2))) };
        let occasion = Occasion { at: Timestamp::UNIX_EPOCH, seq: 1, request_id: None };
        Notice { about, known, unsure, wanted, last: false, id: Uuid::nil(), since: Timestamp::UNIX_EPOCH, occasion }
    }

    fn names(notice: &Notice<NovaFact>) -> Vec<String> {
        events(notice)
            .iter()
            .map(|event| format!("{} {}", event["name"].as_str().unwrap(), event["status"].as_str().unwrap()))
            .collect()
    }

    #[test]
    fn a_notice_is_the_events_that_neutron_would_send() {
        use NovaState::{Deleted, Failed, Nothing, Plugged, Unplugged};
        let (plugged, changed) = ("network-vif-plugged completed", "network-changed completed");
        for (known, unsure, wanted, expected) in [
            (None, false, fact(Plugged, "a"), vec![plugged]),
            (None, false, fact(Failed, "a"), vec!["network-vif-plugged failed"]),
            (Some(fact(Plugged, "a")), false, fact(Unplugged, "a"), vec!["network-vif-unplugged completed"]),
            (Some(fact(Plugged, "a")), false, fact(Plugged, "b"), vec![changed]),
            (Some(fact(Nothing, "a")), false, fact(Plugged, "b"), vec![plugged, changed]),
            (Some(fact(Plugged, "a")), true, fact(Plugged, "a"), vec![plugged]),
            (Some(fact(Plugged, "")), true, fact(Plugged, "a"), vec![plugged, changed]),
            (Some(fact(Plugged, "a")), true, fact(Deleted, "b"), vec!["network-vif-deleted completed"]),
            (Some(fact(Deleted, "a")), false, fact(Deleted, "b"), vec![]),
        ] {
            assert_eq!(names(&notice(known.clone(), unsure, wanted.clone())), expected, "{known:?} {unsure} {wanted:?}");
        }
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, headers: HeaderMap::new(), body: Bytes::from(body.to_owned()) }
    }

    #[test]
    fn an_answer_is_read_for_each_event() {
        let sent: Vec<Vec<Value>> =
            ["a", "b", "c", "d"].map(|tag| vec![json!({"name": "network-vif-plugged", "server_uuid": "s", "tag": tag})]).into();
        let said = json!({"events": [
            {"name": "network-vif-plugged", "server_uuid": "s", "tag": "c", "status": "failed", "code": 422},
            {"name": "network-vif-plugged", "server_uuid": "s", "tag": "b", "status": "failed", "code": 404},
            {"name": "network-vif-plugged", "server_uuid": "s", "tag": "a", "status": "completed", "code": 200},
        ]});
        let outcomes: Vec<Outcome> = read(&answer(207, &said.to_string()), &sent).unwrap().iter().map(|one| one.0).collect();
        assert_eq!(outcomes, [Outcome::Accepted, Outcome::Dropped, Outcome::NotAccepted, Outcome::NotAccepted]);
        for (status, body, kind) in [
            (207, "{", FailureKind::Unreachable),
            (207, "{\"events\": 3}", FailureKind::Unreachable),
            (500, "", FailureKind::Unreachable),
            (503, "", FailureKind::Unreachable),
            (404, "no such page", FailureKind::Unreachable),
            (404, "{\"itemNotFound\": {\"message\": \"No instances found for any event\"}}", FailureKind::Request),
            (400, "", FailureKind::Request),
            (413, "", FailureKind::Request),
            (401, "", FailureKind::Refused),
            (403, "", FailureKind::Refused),
            (301, "", FailureKind::Unreachable),
        ] {
            assert_eq!(read(&answer(status, body), &sent).unwrap_err().kind, kind, "{status} {body}");
        }
        assert!(read(&answer(200, "not JSON"), &sent).unwrap().iter().all(|one| one.0 == Outcome::Accepted));
    }
}
