//! Carrying jobs out: each part is an attach or a detach as any other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock;
use crate::model::action::{Action, AfterDetach, Attach};
use crate::model::{JobId, NicChange, PartState, PortId, ServerId};
use crate::store::Purpose;

use super::jobs::{OpenPart, attach_of};
use super::{Context, Error, PortFilter, Reply, Service};

/// How long a part waits for the kernel to let a detached device go. One that a guest holds open follows later.
const GONE: Duration = Duration::from_secs(5);

impl Service {
    /// Carries out the jobs that the store has and those that are accepted.
    pub async fn follow_jobs(self: Arc<Self>) {
        loop {
            while self.jobs().wants_runner() {
                self.reconciler.tasks.spawn(Arc::clone(&self).run_jobs());
            }
            self.jobs_waiting.notified().await;
        }
    }

    /// Carries jobs out until none waits.
    async fn run_jobs(self: Arc<Self>) {
        loop {
            let Some(id) = self.jobs().take() else { return };
            while let Some(next) = { self.jobs().begin(id, clock::stamp()) } {
                // At a stop the rest is left to the next start.
                if !self.run_part(id, next).await {
                    return;
                }
            }
        }
    }

    /// Carries one part out; false when the daemon stops before it.
    async fn run_part(self: &Arc<Self>, id: JobId, part: OpenPart) -> bool {
        let OpenPart { index, server, change, request_id } = part;
        let context = Context { request_id, part: Some((id, index)), ..Context::default() };
        let result = match change {
            NicChange::Add(nic) => self.add_nic(attach_of(server, nic), context).await,
            NicChange::Delete(port) => self.delete_nic(server, port, context).await,
        };
        let state = match result {
            // What fails while the daemon stops may fail because it stops; nothing of it is left.
            Err(_) if self.reconciler.stopping.load(Ordering::Relaxed) => return false,
            Err(error) => PartState::Failed { reason: error.reason().to_owned(), message: error.to_string() },
            Ok(port) => PartState::Done(port),
        };
        let change = self.jobs().end((id, index), state, clock::stamp());
        if let Some(change) = change
            && let Err(error) = self.reconciler.commit(vec![change], Purpose::Freeing).await
        {
            tracing::error!(job = %id, %error, "the end of a job's part could not be recorded; a restart tries a refused part again");
        }
        true
    }

    async fn add_nic(self: &Arc<Self>, attach: Attach, context: Context) -> Result<PortId, Error> {
        match self.perform(Action::Attach(attach), context).await? {
            Reply::Port(port) => Ok(port.port.id),
            _ => Err(Error::Busy("an attach answered without its port")),
        }
    }

    /// Detaches a port, and waits a while until the kernel has let its device go.
    async fn delete_nic(self: &Arc<Self>, server: ServerId, port: PortId, context: Context) -> Result<PortId, Error> {
        let mut events = self.events().read_after(None);
        self.perform(Action::Detach(server, port, AfterDetach::AsMade), context).await?;
        let gone = async {
            let filter = PortFilter { id: Some(port), server: Some(server), ..PortFilter::default() };
            while !self.ports(filter).is_empty() && !self.reconciler.stopping.load(Ordering::Relaxed) {
                events.next().await;
            }
        };
        let _ = tokio::time::timeout(GONE, gone).await;
        Ok(port)
    }
}
