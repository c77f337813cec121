//! The jobs that are kept: NICs that a server is given or loses after the request was answered.
//!
//! A job that was accepted is in the store. That a part is done is committed together with its port's record, so that a death at
//! any time leaves a part wholly done or wholly open: the next start goes on with what is open, and does nothing twice.

use std::collections::{HashMap, VecDeque};

use crate::model::action::{Attach, SecondOnNetwork, WantedNic};
use crate::model::idempotency::ClockStamp;
use crate::model::{Job, JobId, NicChange, PartState, PortId, ServerId};
use crate::store::Change;

use super::Error;

/// So many jobs are carried out at a time.
const AT_ONCE: usize = 8;

/// So many jobs may be accepted and not ended.
const OPEN: usize = 256;

/// So many ended jobs are kept; beyond, those that ended first go first.
const ENDED: usize = 1024;

/// How long an ended job is kept, in milliseconds: a day.
const KEPT: i64 = 24 * 3_600_000;

/// All jobs that are kept.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    all: HashMap<JobId, Job>,
    /// Those that nobody carries out yet.
    waiting: VecDeque<JobId>,
    /// Those that have ended, the first one first.
    ended: VecDeque<JobId>,
    /// How many are being carried out.
    running: usize,
}

/// A part that is to be carried out.
#[derive(Debug)]
pub(super) struct OpenPart {
    /// Its place in its job.
    pub index: usize,
    /// The job's server.
    pub server: ServerId,
    /// What it does.
    pub change: NicChange,
    /// The request that asked for the job.
    pub request_id: Option<String>,
}

impl Jobs {
    /// Takes in what the store kept.
    pub fn recall(mut kept: Vec<Job>) -> Self {
        kept.sort_by_key(|job| (job.ended_at, job.begun_at, job.id));
        let mut jobs = Self::default();
        for job in kept {
            if job.ended_at.is_some() { &mut jobs.ended } else { &mut jobs.waiting }.push_back(job.id);
            jobs.all.insert(job.id, job);
        }
        jobs
    }

    /// One that is kept.
    pub fn get(&self, id: JobId) -> Option<&Job> {
        self.all.get(&id)
    }

    /// Puts a new job in its place; it is not carried out before it is queued.
    pub fn accept(&mut self, job: Job) -> Result<(), Error> {
        if self.all.len() - self.ended.len() >= OPEN {
            return Err(Error::Busy("256 jobs are under way"));
        }
        self.all.insert(job.id, job);
        Ok(())
    }

    /// Drops what is too old or too much, and answers with its ids.
    pub fn expire(&mut self, now: ClockStamp) -> Vec<JobId> {
        let mut old = Vec::new();
        while let Some(job) = self.ended.front().and_then(|id| self.all.get(id)) {
            let age = job.ended_at.map_or(0, |at| now.ago(at, job.ended_since));
            if age <= KEPT && self.ended.len() <= ENDED {
                break;
            }
            let id = job.id;
            self.all.remove(&id);
            self.ended.pop_front();
            old.push(id);
        }
        old
    }

    /// Whether another runner is wanted, which is then counted.
    pub fn wants_runner(&mut self) -> bool {
        let wanted = self.running < AT_ONCE && !self.waiting.is_empty();
        self.running += usize::from(wanted);
        wanted
    }

    /// Drops one that could not be stored.
    pub fn forget(&mut self, id: JobId) {
        self.all.remove(&id);
    }

    /// Has an accepted job carried out.
    pub fn queue(&mut self, id: JobId) {
        self.waiting.push_back(id);
    }

    /// The next job for a runner; none ends the runner.
    pub fn take(&mut self) -> Option<JobId> {
        let next = self.waiting.pop_front();
        self.running -= usize::from(next.is_none());
        next
    }

    /// Begins a job's next open part.
    pub fn begin(&mut self, id: JobId, now: ClockStamp) -> Option<OpenPart> {
        let job = self.all.get_mut(&id)?;
        let index = job.next()?;
        let part = job.parts.get_mut(index)?;
        part.begun_at = Some(now.at);
        Some(OpenPart { index, server: job.server_id, change: part.change.clone(), request_id: job.request_id.clone() })
    }

    /// Ends a part; what is then to be stored, unless the part's port was stored with it.
    pub fn end(&mut self, (id, part): (JobId, usize), state: PartState, now: ClockStamp) -> Option<Change> {
        let job = self.all.get_mut(&id)?;
        let stored = matches!(state, PartState::Done(_));
        job.end(part, state, now);
        if job.ended_at.is_some() {
            self.ended.push_back(id);
        }
        (job.ended_at.is_some() || !stored).then(|| Change::PutJob(Box::new(job.clone())))
    }

    /// The job as it is to be stored with the port that a part is done to.
    pub fn with_done(&self, (id, part): (JobId, usize), port: PortId, now: ClockStamp) -> Option<Change> {
        let mut job = self.all.get(&id)?.clone();
        job.end(part, PartState::Done(port), now);
        Some(Change::PutJob(Box::new(job)))
    }

    /// The job as it is to be stored when its part's port was taken back.
    pub fn without(&self, (id, _): (JobId, usize)) -> Option<Change> {
        self.all.get(&id).map(|job| Change::PutJob(Box::new(job.clone())))
    }
}

/// The attach of a job's NIC.
pub(super) fn attach_of(server_id: ServerId, nic: WantedNic) -> Attach {
    Attach { server_id, nic, second_on_network: SecondOnNetwork::Allowed, tag: None }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use uuid::Uuid;

    use crate::model::{JobKind, Part};

    use super::*;

    fn at(hours: i64) -> ClockStamp {
        ClockStamp { at: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours), since: None }
    }

    fn job(number: u128) -> Job {
        let id = JobId(Uuid::from_u128(number));
        let change = NicChange::Delete(PortId(Uuid::from_u128(number)));
        let part = Part { id, change, state: PartState::Waiting, begun_at: None, ended_at: None };
        Job {
            id,
            server_id: ServerId(Uuid::nil()),
            kind: JobKind::DeleteNics,
            parts: vec![part],
            request_id: None,
            begun_at: Timestamp::UNIX_EPOCH,
            ended_at: None,
            ended_since: None,
        }
    }

    fn done(jobs: &mut Jobs, number: u128, now: ClockStamp) {
        let job = job(number);
        jobs.accept(job.clone()).unwrap();
        jobs.end((job.id, 0), PartState::Done(PortId(Uuid::nil())), now).unwrap();
    }

    #[test]
    fn as_many_are_open_as_may_be_and_ended_ones_are_not_counted() {
        let mut jobs = Jobs::default();
        done(&mut jobs, 1000, at(0));
        (0..256).for_each(|number| jobs.accept(job(number)).unwrap());
        assert!(matches!(jobs.accept(job(256)), Err(Error::Busy(_))));
        jobs.end((JobId(Uuid::from_u128(0)), 0), PartState::Done(PortId(Uuid::nil())), at(0)).unwrap();
        jobs.accept(job(256)).unwrap();
    }

    #[test]
    fn ended_jobs_are_kept_a_day_and_so_many() {
        let mut jobs = Jobs::default();
        (0..1030).for_each(|number| done(&mut jobs, number, at(0)));
        assert_eq!(jobs.expire(at(24)).len(), 6);
        assert_eq!((jobs.all.len(), jobs.ended.len()), (ENDED, ENDED));
        jobs.accept(job(5000)).unwrap();
        assert_eq!(jobs.expire(at(25)).len(), ENDED);
        assert_eq!(jobs.all.len(), 1, "what is open stays");
    }

    #[test]
    fn a_restart_goes_on_with_what_is_open_in_its_order() {
        let mut ended = job(1);
        ended.end(0, PartState::Done(PortId(Uuid::nil())), at(1));
        let late = Job { begun_at: at(3).at, ..job(2) };
        let mut jobs = Jobs::recall(vec![late, ended, job(3)]);
        assert!(jobs.wants_runner());
        assert_eq!(jobs.take(), Some(JobId(Uuid::from_u128(3))));
        assert_eq!(jobs.take(), Some(JobId(Uuid::from_u128(2))));
        assert_eq!((jobs.take(), jobs.running), (None, 0));
        assert!(!jobs.wants_runner());
    }

    #[test]
    fn what_is_stored_with_a_port_says_done_and_memory_does_not_yet() {
        let mut jobs = Jobs::default();
        jobs.accept(job(1)).unwrap();
        let (id, port) = (JobId(Uuid::from_u128(1)), PortId(Uuid::from_u128(7)));
        assert!(jobs.begin(id, at(0)).is_some_and(|part| part.index == 0));
        let Some(Change::PutJob(stored)) = jobs.with_done((id, 0), port, at(0)) else { panic!() };
        assert_eq!((&stored.parts[0].state, stored.ended_at), (&PartState::Done(port), Some(at(0).at)));
        let Some(Change::PutJob(back)) = jobs.without((id, 0)) else { panic!() };
        assert_eq!((&back.parts[0].state, back.ended_at), (&PartState::Waiting, None));
    }
}
