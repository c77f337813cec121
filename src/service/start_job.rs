//! Accepting a job, which is checked as a whole and durable before the answer; and showing it.

use std::sync::Arc;

use uuid::Uuid;

use crate::clock;
use crate::model::action::NewJob;
use crate::model::idempotency::Made;
use crate::model::{Job, JobId, JobKind, NicChange, Part, PartState, ServerId};
use crate::store::{Change, Purpose};

use super::jobs::attach_of;
use super::{Context, Error, Reply, Service};

impl Service {
    /// A job that is kept.
    ///
    /// # Errors
    /// There is none with that id, or it ended more than a day ago.
    pub fn job(&self, id: JobId) -> Result<Job, Error> {
        self.expire_jobs();
        self.jobs().get(id).cloned().ok_or(Error::NoSuchJob(id))
    }

    /// How many NICs a server may have more.
    ///
    /// # Errors
    /// There is no such server.
    pub fn free_nics(&self, server: ServerId) -> Result<u32, Error> {
        let state = self.reconciler.lock();
        let entry = state.server(server)?;
        let limit = entry.record.nic_limit.unwrap_or(self.reconciler.policy().nics_per_server);
        Ok(limit.saturating_sub(u32::try_from(state.nics(entry).count()).unwrap_or(u32::MAX)))
    }

    pub(super) async fn start_job(self: Arc<Self>, new: NewJob, context: &Context) -> Result<Reply, Error> {
        self.check_job(&new)?;
        let fresh = || JobId(Uuid::new_v4());
        let part = |change| Part { id: fresh(), change, state: PartState::Waiting, begun_at: None, ended_at: None };
        let job = Job {
            id: fresh(),
            server_id: new.server_id,
            kind: new.kind,
            parts: new.changes.into_iter().map(part).collect(),
            request_id: context.request_id.clone(),
            begun_at: clock::now(),
            ended_at: None,
            ended_since: None,
        };
        self.expire_jobs();
        self.jobs().accept(job.clone())?;
        let changes = std::iter::once(Change::PutJob(Box::new(job.clone()))).chain(self.note(context, vec![Made::Job(job.id)]));
        if let Err(error) = self.reconciler.commit(changes.collect(), Purpose::Growing).await {
            self.jobs().forget(job.id);
            return Err(error.into());
        }
        self.jobs().queue(job.id);
        self.jobs_waiting.notify_one();
        Ok(Reply::Job(Box::new(job)))
    }

    /// Refuses a job of which a part could not be done as things stand.
    fn check_job(&self, new: &NewJob) -> Result<(), Error> {
        let state = self.reconciler.lock();
        let server = state.server(new.server_id)?;
        for change in &new.changes {
            match change {
                NicChange::Add(nic) => {
                    let network = state.network_of(nic, &server.record.project_id)?;
                    let attach = attach_of(new.server_id, nic.clone());
                    self.bound(&state, &attach, (network, None), || self.reconciler.store.last_commit() + 1)?;
                }
                NicChange::Delete(port) => self.on_server(&state, new.server_id, *port)?,
            }
        }
        let limit = server.record.nic_limit.unwrap_or(self.reconciler.policy().nics_per_server);
        let after = state.nics(server).count() + new.changes.len();
        match new.kind == JobKind::DeleteNics || u32::try_from(after).is_ok_and(|after| after <= limit) {
            true => Ok(()),
            false => Err(Error::TooManyNics { server: new.server_id, limit }),
        }
    }

    /// Drops jobs that ended too long ago.
    fn expire_jobs(&self) {
        let old = self.jobs().expire(clock::stamp());
        if !old.is_empty() {
            self.reconciler.store.note(old.into_iter().map(Change::DeleteJob).collect());
        }
    }
}
