//! `--wait`: follows a port on the event stream until it reaches the state, cannot reach it, or the time limit is over.
//!
//! The stream is opened before the change is requested, and the port is read once after it, so no change is missed. Afterwards only
//! events count; after a `lost` event the port is read again.

use std::time::Duration;

use nicd_client::{Event, EventKind, Events, Phase, Port, PortStatus};
use uuid::Uuid;

use super::client::{Client, ClientError};
use super::progress::Progress;
use super::views::short;

/// The state to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The port carries traffic.
    Active,
    /// The port has left this server: it is deleted, unbound, or attached to another server.
    Released {
        /// The server it leaves.
        from: Uuid,
    },
}

/// A wait that failed.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The time limit was reached; nothing is undone.
    #[error("port {port} is still {state} after {} s; nicd goes on with it, and `nicctl explain {port}` says what is missing", limit.as_secs())]
    TimedOut {
        /// The port.
        port: Uuid,
        /// What it was last.
        state: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The port is in ERROR.
    #[error("port {port} is in {state}; nicd tries again by itself, and `nicctl explain {port}` says more")]
    Failed {
        /// The port.
        port: Uuid,
        /// Its status and reason.
        state: String,
    },
    /// Another client deleted the port.
    #[error("port {port} was deleted by another client while it was waited for")]
    Gone {
        /// The port.
        port: Uuid,
    },
    /// The daemon could not be followed.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// What is known of a port: the part of an event, or of the port itself, that decides.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct State {
    status: PortStatus,
    phase: Phase,
    reason: String,
    /// Whose it is, where that was said.
    server: Option<Uuid>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    NotYet,
    Failed,
}

/// A port that is waited for.
#[derive(Debug)]
pub struct Wait<'a> {
    /// The daemon, to look at the port.
    pub client: &'a Client,
    /// Where a person sees how the port is meanwhile.
    pub progress: &'a Progress,
    /// The stream, opened before the change was asked for.
    pub stream: Events,
    /// The port.
    pub port: Uuid,
    /// The state to wait for.
    pub goal: Goal,
}

impl Wait<'_> {
    /// Waits, at most `limit`.
    pub async fn run(mut self, limit: Duration) -> Result<(), WaitError> {
        let mut last = State::default();
        match tokio::time::timeout(limit, self.follow(&mut last)).await {
            Ok(ended) => ended,
            Err(_) => Err(WaitError::TimedOut { port: self.port, state: last.describe(), limit }),
        }
    }

    async fn follow(&mut self, last: &mut State) -> Result<(), WaitError> {
        let mut news = self.look().await?;
        loop {
            let Some(state) = news else { return self.goal.without_port(self.port) };
            *last = state;
            match self.goal.evaluate(last) {
                Verdict::Reached => return Ok(()),
                Verdict::Failed => return Err(WaitError::Failed { port: self.port, state: last.describe() }),
                Verdict::NotYet => {
                    self.progress.say(&format!(
                        "waiting until port {} {}: it is {}",
                        short(&self.port.to_string()),
                        self.goal.wanted(),
                        last.describe()
                    ));
                    news = self.next().await?;
                }
            }
        }
    }

    /// The port's next state; none once it is deleted.
    async fn next(&mut self) -> Result<Option<State>, ClientError> {
        loop {
            let event = self.stream.next().await?;
            match event.kind {
                EventKind::Lost => return self.look().await,
                _ if event.port_id != Some(self.port) => {}
                EventKind::PortDeleted => return Ok(None),
                EventKind::PortCreated | EventKind::PortStatus => return Ok(Some(State::told(event))),
                // One of the daemon's problems, which may name the port but not its state.
                _ => {}
            }
        }
    }

    async fn look(&self) -> Result<Option<State>, ClientError> {
        match self.client.port(self.port).await {
            Ok(port) => Ok(Some(State::seen(port))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Goal {
    fn wanted(self) -> &'static str {
        match self {
            Self::Active => "is ACTIVE",
            Self::Released { .. } => "is detached",
        }
    }

    fn evaluate(self, state: &State) -> Verdict {
        match self {
            _ if state.status == PortStatus::Error => Verdict::Failed,
            Self::Active if state.status == PortStatus::Active => Verdict::Reached,
            Self::Released { .. } if state.phase == Phase::Unbound => Verdict::Reached,
            // A port without a server is not released yet: it may lose its server before its device is gone.
            Self::Released { from } if state.server.is_some_and(|now| now != from) => Verdict::Reached,
            Self::Active | Self::Released { .. } => Verdict::NotYet,
        }
    }

    fn without_port(self, port: Uuid) -> Result<(), WaitError> {
        match self {
            Self::Active => Err(WaitError::Gone { port }),
            Self::Released { .. } => Ok(()),
        }
    }
}

impl State {
    fn seen(port: Port) -> Self {
        let server = port.server();
        Self { status: port.status, phase: port.phase, reason: port.reason.unwrap_or_default(), server }
    }

    fn told(event: Event) -> Self {
        Self {
            status: event.new.unwrap_or_default(),
            phase: event.phase.unwrap_or_default(),
            reason: event.reason.unwrap_or_default(),
            server: event.server_id,
        }
    }

    /// The status, with phase and reason where they say more.
    fn describe(&self) -> String {
        let (status, phase) = (self.status.as_str(), self.phase.as_str());
        let status = if status.is_empty() { "unknown" } else { status };
        let mut more = vec![];
        if !phase.is_empty() && !phase.eq_ignore_ascii_case(status) {
            more.push(phase);
        }
        if !self.reason.is_empty() {
            more.push(self.reason.as_str());
        }
        if more.is_empty() { status.to_owned() } else { format!("{status} ({})", more.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(status: &str, phase: &str, server: Option<Uuid>) -> State {
        State { status: status.to_owned().into(), phase: phase.to_owned().into(), server, ..State::default() }
    }

    #[test]
    fn verdicts() {
        let (ours, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let released = Goal::Released { from: ours };
        for (goal, status, phase, server, verdict) in [
            (Goal::Active, "ACTIVE", "active", Some(ours), Verdict::Reached),
            (Goal::Active, "BUILD", "building", Some(ours), Verdict::NotYet),
            (Goal::Active, "DOWN", "wired", None, Verdict::NotYet),
            (Goal::Active, "ERROR", "error", Some(ours), Verdict::Failed),
            (released, "DOWN", "detaching", Some(ours), Verdict::NotYet),
            (released, "DOWN", "detaching", None, Verdict::NotYet),
            (released, "DOWN", "unbound", None, Verdict::Reached),
            (released, "BUILD", "building", Some(other), Verdict::Reached),
            (released, "ERROR", "error", Some(ours), Verdict::Failed),
        ] {
            assert_eq!(goal.evaluate(&state(status, phase, server)), verdict, "{goal:?} {status} {phase}");
        }
    }

    #[test]
    fn an_empty_owner_is_not_another_owner() {
        let port = serde_json::json!({"id": Uuid::nil(), "network_id": Uuid::nil(), "mac_address": "fa:16:3e:4c:2c:30",
            "status": "DOWN", "nicd:phase": "detaching", "device_id": ""});
        let state = State::seen(serde_json::from_value(port).unwrap());
        assert_eq!(state.phase, Phase::Detaching);
        assert_eq!(Goal::Released { from: Uuid::nil() }.evaluate(&state), Verdict::NotYet);
    }

    #[test]
    fn states_are_described_without_saying_a_thing_twice() {
        let with = |status: &str, phase: &str, reason: &str| State { reason: reason.to_owned(), ..state(status, phase, None) };
        assert_eq!(with("ACTIVE", "active", "").describe(), "ACTIVE");
        assert_eq!(with("DOWN", "wired", "no_carrier").describe(), "DOWN (wired, no_carrier)");
        assert_eq!(with("ERROR", "error", "bridge_full").describe(), "ERROR (bridge_full)");
        assert_eq!(State::default().describe(), "unknown");
    }
}
