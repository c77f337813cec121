//! What Nova and the webhook have been told of each port, and are to be told.
//!
//! A notice is no message but the difference between two facts: the one that its recipient has accepted, and the one that holds
//! now. So changes that wait become one, and a start compares the ports with the notices and finds what was not told.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::{NetworkId, PortId, ServerId};
use super::phase::{Phase, Status};

/// Who is told of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Recipient {
    /// Nova, by `os-server-external-events`.
    Nova,
    /// The operator's webhook.
    Webhook,
}

impl Recipient {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Nova, Self::Webhook];

    /// As the store and metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nova => "nova",
            Self::Webhook => "webhook",
        }
    }
}

/// What a notice is about: a port, for Nova as the NIC of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoticeKey {
    /// The port.
    pub port_id: PortId,
    /// The server; none in notices for the webhook.
    pub server_id: Option<ServerId>,
}

impl NoticeKey {
    /// As the store names it.
    pub fn text(&self) -> String {
        let server = self.server_id.map(|server| server.to_string()).unwrap_or_default();
        format!("{} {server}", self.port_id)
    }
}

/// When something happened to a port, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Occasion {
    /// When.
    pub at: Timestamp,
    /// The number of the event.
    pub seq: u64,
    /// The request that caused it, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// What a recipient has been told of a port, and is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice<F> {
    /// What it is about.
    pub about: NoticeKey,
    /// What the recipient has accepted last; none before the first time.
    pub known: Option<F>,
    /// Whether something was sent of which it is not known if the recipient has it.
    pub unsure: bool,
    /// What holds now.
    pub wanted: F,
    /// Whether nothing can follow, so that the notice ends once its recipient has accepted it.
    pub last: bool,
    /// The id of what is to be told. It stays the same when that is sent again.
    pub id: Uuid,
    /// When something began to wait for the recipient.
    pub since: Timestamp,
    /// The event that is told.
    pub occasion: Occasion,
}

/// A notice as the store has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "recipient", rename_all = "lowercase")]
pub enum StoredNotice {
    /// For Nova.
    Nova(Notice<NovaFact>),
    /// For the webhook.
    Webhook(Notice<PortFact>),
}

impl StoredNotice {
    /// Whom it is for.
    pub fn recipient(&self) -> Recipient {
        match self {
            Self::Nova(_) => Recipient::Nova,
            Self::Webhook(_) => Recipient::Webhook,
        }
    }

    /// What it is about.
    pub fn about(&self) -> NoticeKey {
        match self {
            Self::Nova(notice) => notice.about,
            Self::Webhook(notice) => notice.about,
        }
    }
}

/// What can be told of a port.
pub trait Fact: Clone + PartialEq + std::fmt::Debug {
    /// Whether a recipient that knows `known` need not be told that this holds now.
    fn is_silent_after(&self, known: Option<&Self>) -> bool;

    /// Forgets of `self`, which the recipient knows, what it may not know any more once it has been sent `wanted`. That it may know
    /// another state is [`Notice::unsure`].
    fn doubt(&mut self, wanted: &Self);

    /// What holds, in a word for the log.
    fn word(&self) -> &'static str;
}

/// What Nova is told of a NIC: its last event, and its MAC and addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NovaFact {
    /// The last event about its state.
    pub state: NovaState,
    /// MAC and addresses, for the comparison alone.
    pub nic: String,
}

/// The last event about a NIC's state, as Neutron tells Nova.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NovaState {
    /// None yet.
    Nothing,
    /// `network-vif-plugged`, completed.
    Plugged,
    /// `network-vif-plugged`, failed.
    Failed,
    /// `network-vif-unplugged`.
    Unplugged,
    /// `network-vif-deleted`.
    Deleted,
}

impl NovaState {
    /// The last event once the port has this status. As Neutron has it, only three changes are told: to ACTIVE, from ACTIVE to DOWN,
    /// and to ERROR of a port that was not ACTIVE. A port that is made anew after its deletion is still deleted for Nova until it is
    /// plugged.
    pub fn after(self, status: Status) -> Self {
        match (status, self) {
            (Status::Active, _) => Self::Plugged,
            (Status::Down, Self::Plugged) => Self::Unplugged,
            (Status::Error, Self::Nothing | Self::Unplugged | Self::Deleted) => Self::Failed,
            (Status::Down | Status::Build | Status::Error, state) => state,
        }
    }
}

impl Fact for NovaFact {
    fn is_silent_after(&self, known: Option<&Self>) -> bool {
        known.map_or(self.state == NovaState::Nothing, |known| self == known)
    }

    fn doubt(&mut self, wanted: &Self) {
        if self.nic != wanted.nic {
            self.nic.clear();
        }
    }

    fn word(&self) -> &'static str {
        match self.state {
            NovaState::Nothing => "attached",
            NovaState::Plugged => "plugged",
            NovaState::Failed => "failed",
            NovaState::Unplugged => "unplugged",
            NovaState::Deleted => "deleted",
        }
    }
}

/// What the webhook is told of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortFact {
    /// Its phase; none when it is deleted.
    pub phase: Option<Phase>,
    /// The stable word for the cause, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_id: Option<ServerId>,
    /// Its network.
    pub network_id: Option<NetworkId>,
    /// MAC and addresses, for the comparison alone.
    pub nic: String,
}

impl Fact for PortFact {
    fn is_silent_after(&self, known: Option<&Self>) -> bool {
        known == Some(self)
    }

    fn doubt(&mut self, _: &Self) {}

    fn word(&self) -> &'static str {
        self.phase.map_or("deleted", Phase::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nova_is_told_of_the_changes_that_neutron_tells() {
        use NovaState::{Deleted, Failed, Nothing, Plugged, Unplugged};
        for (before, [active, down, build, error]) in [
            (Nothing, [Plugged, Nothing, Nothing, Failed]),
            (Plugged, [Plugged, Unplugged, Plugged, Plugged]),
            (Failed, [Plugged, Failed, Failed, Failed]),
            (Unplugged, [Plugged, Unplugged, Unplugged, Failed]),
            (Deleted, [Plugged, Deleted, Deleted, Failed]),
        ] {
            let after = [Status::Active, Status::Down, Status::Build, Status::Error].map(|status| before.after(status));
            assert_eq!(after, [active, down, build, error], "after {before:?}");
        }
    }

    #[test]
    fn a_notice_is_read_as_it_was_written() {
        let about = NoticeKey { port_id: PortId(Uuid::from_u128(1)), server_id: Some(ServerId(Uuid::from_u128(2))) };
        let wanted = NovaFact { state: NovaState::Plugged, nic: "fa:16:3e:00:00:01".into() };
        let occasion = Occasion { at: Timestamp::UNIX_EPOCH, seq: 7, request_id: None };
        let (id, since) = (Uuid::from_u128(3), Timestamp::UNIX_EPOCH);
        let notice = StoredNotice::Nova(Notice { about, known: None, unsure: true, wanted, last: false, id, since, occasion });
        let text = serde_json::to_string(&notice).unwrap();
        assert!(text.starts_with(r#"{"recipient":"nova","about":{"port_id":"00000000-"#), "{text}");
        assert_eq!(serde_json::from_str::<StoredNotice>(&text).unwrap(), notice);
    }
}
