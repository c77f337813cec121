//! A job: NICs that a server is given, or that are taken from it, after the request for them was answered (OTC's
//! `cloudservers/{id}/nics`). Its parts are carried out one after the other, each once.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::action::WantedNic;
use super::idempotency::{ClockStamp, SinceBoot};
use super::ids::{JobId, PortId, ServerId};

/// A job's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The server whose NICs change.
    pub server_id: ServerId,
    /// What its parts do.
    pub kind: JobKind,
    /// Its parts, in the order in which they are carried out.
    pub parts: Vec<Part>,
    /// The id of the request that asked for it, as in the log and in events.
    #[serde(default)]
    pub request_id: Option<String>,
    /// When it was accepted.
    pub begun_at: Timestamp,
    /// When its last part ended, by the wall clock.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// The same by the monotonic clock.
    #[serde(default)]
    pub ended_since: Option<SinceBoot>,
}

/// What a job does to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// It adds NICs.
    AddNics,
    /// It deletes NICs.
    DeleteNics,
}

/// One NIC of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its id.
    pub id: JobId,
    /// What it does.
    pub change: NicChange,
    /// How far it is.
    #[serde(default)]
    pub state: PartState,
    /// When it was begun.
    #[serde(default)]
    pub begun_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
}

/// One change of a server's NICs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NicChange {
    /// A NIC is attached.
    Add(WantedNic),
    /// A port is detached, and deleted if an attach made it.
    Delete(PortId),
}

/// How far a part is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartState {
    /// Nothing of it is done.
    #[default]
    Waiting,
    /// It is done, to this port.
    Done(PortId),
    /// It was refused, and nothing of it was done.
    Failed {
        /// The stable word.
        reason: String,
        /// The sentence.
        message: String,
    },
}

/// How far a job or a part is, as OTC says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStatus {
    /// It was not begun.
    Init,
    /// It is being carried out.
    Running,
    /// It is done.
    Success,
    /// At least one part was refused.
    Fail,
}

impl JobStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Init, Self::Running, Self::Success, Self::Fail];

    /// OTC's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Running => "RUNNING",
            Self::Success => "SUCCESS",
            Self::Fail => "FAIL",
        }
    }
}

impl Part {
    /// How far it is.
    pub fn status(&self) -> JobStatus {
        match (&self.state, self.begun_at) {
            (PartState::Done(_), _) => JobStatus::Success,
            (PartState::Failed { .. }, _) => JobStatus::Fail,
            (PartState::Waiting, Some(_)) => JobStatus::Running,
            (PartState::Waiting, None) => JobStatus::Init,
        }
    }

    /// The port it is about, as far as it is known.
    pub fn port(&self) -> Option<PortId> {
        match (&self.state, &self.change) {
            (PartState::Done(port), _) | (_, NicChange::Add(WantedNic::Port(port)) | NicChange::Delete(port)) => Some(*port),
            (_, NicChange::Add(_)) => None,
        }
    }
}

impl Job {
    /// How far it is.
    pub fn status(&self) -> JobStatus {
        let statuses = || self.parts.iter().map(Part::status);
        let ended = statuses().all(|status| matches!(status, JobStatus::Success | JobStatus::Fail));
        match ended {
            true if statuses().any(|status| status == JobStatus::Fail) => JobStatus::Fail,
            true => JobStatus::Success,
            false if statuses().all(|status| status == JobStatus::Init) => JobStatus::Init,
            false => JobStatus::Running,
        }
    }

    /// The first part that is to be carried out.
    pub fn next(&self) -> Option<usize> {
        self.parts.iter().position(|part| part.state == PartState::Waiting)
    }

    /// Ends a part, and the job with its last one.
    pub fn end(&mut self, part: usize, state: PartState, now: ClockStamp) {
        if let Some(part) = self.parts.get_mut(part) {
            (part.state, part.ended_at) = (state, Some(now.at));
        }
        if self.next().is_none() {
            (self.ended_at, self.ended_since) = (Some(now.at), now.since);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn part(number: u128) -> Part {
        Part {
            id: JobId(Uuid::from_u128(number)),
            change: NicChange::Delete(PortId(Uuid::from_u128(number))),
            state: PartState::Waiting,
            begun_at: None,
            ended_at: None,
        }
    }

    #[test]
    fn a_job_fails_only_once_all_of_its_parts_have_ended() {
        let now = ClockStamp { at: Timestamp::UNIX_EPOCH, since: None };
        let mut job = Job {
            id: JobId(Uuid::nil()),
            server_id: ServerId(Uuid::nil()),
            kind: JobKind::DeleteNics,
            parts: vec![part(1), part(2)],
            request_id: None,
            begun_at: now.at,
            ended_at: None,
            ended_since: None,
        };
        assert_eq!((job.status(), job.next()), (JobStatus::Init, Some(0)));
        job.parts[0].begun_at = Some(now.at);
        assert_eq!(job.status(), JobStatus::Running);
        job.end(0, PartState::Failed { reason: "busy".into(), message: String::new() }, now);
        assert_eq!((job.status(), job.next(), job.ended_at), (JobStatus::Running, Some(1), None));
        job.end(1, PartState::Done(PortId(Uuid::from_u128(2))), now);
        assert_eq!((job.status(), job.next(), job.ended_at), (JobStatus::Fail, None, Some(now.at)));
        let again: Job = serde_json::from_str(&serde_json::to_string(&job).unwrap()).unwrap();
        assert_eq!(again, job);
    }
}
