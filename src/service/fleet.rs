//! The hosts of the fleet. A nicd without a fleet is the only host of its own.

use std::sync::Arc;
use std::time::Duration;

use super::{Error, HostView, Service};
use crate::clock;
use crate::fleet::agent::{Fleet, Local, Status};
use crate::fleet::etcd::Etcd;
use crate::fleet::member::{ForgetError, MemberError};
use crate::model::Registration;
use crate::reconcile::Finding;
use crate::store::{Change, Purpose};
use crate::telemetry::meters;

impl Service {
    /// Makes this host one of a fleet. Done once, before requests are served.
    pub fn join(&self, fleet: Arc<Fleet<Etcd>>) {
        // A second one would be a slip of the daemon's start.
        let _ = self.fleet.set(fleet);
    }

    /// How this host stands in its fleet; none without one.
    pub fn fleet(&self) -> Option<Status> {
        self.fleet.get().map(|fleet| fleet.status())
    }

    /// The hosts of the fleet, by name.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn hosts(&self) -> Result<Vec<HostView>, Error> {
        match self.fleet.get() {
            Some(fleet) => Ok(fleet.hosts(None).await?),
            None => Ok(vec![self.only_host()]),
        }
    }

    /// The host of this name.
    ///
    /// # Errors
    /// There is none, or etcd does not answer.
    pub async fn host_named(&self, name: &str) -> Result<HostView, Error> {
        let found = match self.fleet.get() {
            Some(fleet) => fleet.hosts(Some(name)).await?,
            None => vec![self.only_host()],
        };
        found.into_iter().find(|host| host.id == name).ok_or_else(|| Error::NoSuchHost(name.to_owned()))
    }

    /// Takes a host out of the fleet that is not alive, with all that it claims.
    ///
    /// # Errors
    /// There is none, it is alive, or etcd does not answer.
    pub async fn forget_host(&self, name: &str) -> Result<(), Error> {
        match self.fleet.get() {
            _ if self.host() == name => Err(Error::HostAlive(name.to_owned())),
            Some(fleet) if fleet.forget(name).await? => Ok(()),
            _ => Err(Error::NoSuchHost(name.to_owned())),
        }
    }

    fn only_host(&self) -> HostView {
        let now = clock::second();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let uptime = Duration::from_secs(self.reconciler.started.elapsed().as_secs());
        let since = now.saturating_sub(uptime).unwrap_or(now);
        HostView {
            id: self.host().to_owned(),
            alive: true,
            version,
            tunnel: None,
            ports: Local::ports(self),
            since,
            last_seen: now,
        }
    }
}

impl Local for Service {
    fn ports(&self) -> usize {
        self.reconciler.lock().ports.len()
    }

    async fn note(&self, registration: Registration) -> Result<(), String> {
        let noted = self.reconciler.commit(vec![Change::NoteRegistration(registration)], Purpose::Growing).await;
        noted.map_err(|error| format!("the registration cannot be noted: {error}"))
    }

    fn tell(&self, status: &Status) {
        meters().fleet_connected(status.connected);
        let trouble = status.trouble.as_ref().filter(|_| !status.connected);
        self.reconciler.note_fleet(trouble.map(|why| {
            Finding::new(
                format!("fleet '{}' cannot be reached: {why}", status.name),
                "see that etcd runs at fleet.endpoints and takes this host's certificate or password; what is on this host goes on",
            )
        }));
    }
}

impl From<MemberError> for Error {
    fn from(error: MemberError) -> Self {
        Self::FleetUnreachable(error.to_string())
    }
}

impl From<ForgetError> for Error {
    fn from(error: ForgetError) -> Self {
        match error {
            ForgetError::Alive(host) => Self::HostAlive(host),
            ForgetError::Etcd(error) => Self::FleetUnreachable(error.to_string()),
        }
    }
}
