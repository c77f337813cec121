//! This host in its fleet: it registers, tells that it is alive, and joins again when etcd was away or is another one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::etcd::{Compare, Keys, Lease, Op, Txn};
use super::keys::Names;
use super::kv::Leases;
use super::member::{self, ForgetError, HostRecord, Member, MemberError, VERSION};
use super::roster::{HostView, LIFE, Sign, hosts};
use crate::clock;
use crate::model::Registration;

/// How often this host tells that it is alive.
const EVERY: Duration = Duration::from_secs(LIFE as u64 / 3);

/// How often it tells so without a lease, which stays.
const LASTING: Duration = Duration::from_secs(60);

/// The first wait after a failure; each next one is twice as long, up to [`LONGEST`].
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest wait after failures.
const LONGEST: Duration = Duration::from_secs(8);

/// How long it may fail before health tells of it: etcd chooses another leader within a second or two.
const TOLD_AFTER: Duration = Duration::from_secs(3);

/// How long a stop waits for etcd.
const LEAVE_LIMIT: Duration = Duration::from_millis(500);

/// How this host stands in its fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The fleet's name.
    pub name: String,
    /// This host's name in it.
    pub host: String,
    /// Whether etcd answers, and this host is registered.
    pub connected: bool,
    /// Since when that is so.
    pub since: Timestamp,
    /// The last revision seen of etcd's data; none before the first answer.
    pub revision: Option<i64>,
    /// What is in the way while it is not connected.
    pub trouble: Option<String>,
}

/// What the fleet needs of the rest of the daemon.
pub trait Local: Send + Sync + 'static {
    /// How many ports this host has.
    fn ports(&self) -> usize;

    /// Notes a registration durably.
    fn note(&self, registration: Registration) -> impl Future<Output = Result<(), String>> + Send;

    /// Takes in how this host stands, for health and numbers.
    fn tell(&self, status: &Status);
}

/// This host's part in its fleet.
#[derive(Debug)]
pub struct Fleet<K> {
    kv: K,
    names: Names,
    member: Member<K>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    registration: Option<Registration>,
    status: Status,
    /// Since when it fails.
    failing: Option<Instant>,
}

impl<K: Leases> Fleet<K> {
    /// The host with this name in the fleet, with the id of its own store, and its registration if it has noted one.
    pub fn new(
        kv: K,
        (name, host): (&str, String),
        store: Uuid,
        tunnel: Option<std::net::IpAddr>,
        noted: Option<Registration>,
    ) -> Self {
        let names = Names::new(name);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let record = HostRecord { v: VERSION, store, version, tunnel, since: clock::second() };
        let member = Member::new(kv.clone(), names.clone(), host.clone(), record);
        let status = Status {
            name: name.to_owned(),
            host,
            connected: false,
            since: clock::second(),
            revision: noted.map(|noted| noted.seen),
            trouble: Some("etcd has not answered yet".to_owned()),
        };
        Self { kv, names, member, state: Mutex::new(State { registration: noted, status, failing: None }) }
    }

    /// How this host stands.
    pub fn status(&self) -> Status {
        self.state().status.clone()
    }

    /// All hosts, or the one of this name.
    ///
    /// # Errors
    /// Etcd does not answer, or a record cannot be read.
    pub async fn hosts(&self, only: Option<&str>) -> Result<Vec<HostView>, MemberError> {
        hosts(&self.kv, &self.names, only).await
    }

    /// Takes a host that is not alive out of the fleet. False if there is no such host.
    ///
    /// # Errors
    /// It is alive, or etcd does not answer.
    pub async fn forget(&self, host: &str) -> Result<bool, ForgetError> {
        member::forget(&self.kv, &self.names, host).await
    }

    /// Keeps this host in the fleet until it is told to stop.
    ///
    /// # Errors
    /// Another host has its name, or a newer nicd has written the fleet's data: it cannot be one of the fleet.
    pub async fn run(self: Arc<Self>, local: Arc<impl Local>, stop: CancellationToken) -> Result<(), MemberError> {
        let mut wait = FIRST_WAIT;
        loop {
            let began = Instant::now();
            let ended = tokio::select! {
                ended = self.take_part(&*local) => ended,
                () = stop.cancelled() => {
                    let _ = tokio::time::timeout(LEAVE_LIMIT, self.leave(&*local)).await;
                    return Ok(());
                }
            };
            if matches!(ended, MemberError::NameTaken { .. } | MemberError::Newer { .. }) {
                return Err(ended);
            }
            let failing = *self.state().failing.get_or_insert_with(Instant::now);
            if failing.elapsed() >= TOLD_AFTER {
                self.stands(&*local, Err(&ended));
            }
            if began.elapsed() > LONGEST {
                wait = FIRST_WAIT;
            }
            tokio::select! {
                () = sleep(wait.mul_f64(0.5 + rand::random::<f64>())) => {}
                () = stop.cancelled() => return Ok(()),
            }
            wait = (wait * 2).min(LONGEST);
        }
    }

    /// Joins, and tells that this host is alive, until that fails.
    async fn take_part(&self, local: &impl Local) -> MemberError {
        let Err(ended) = self.try_to_take_part(local).await;
        ended
    }

    async fn try_to_take_part(&self, local: &impl Local) -> Result<std::convert::Infallible, MemberError> {
        let known = self.state().registration;
        let joined = self.member.join(known, &[]).await?;
        let registration = joined.registration;
        if joined.was_forgotten {
            tracing::warn!("the fleet had forgotten this host, which is registered anew");
        }
        if known.is_none_or(|known| (known.created, known.epoch) != (registration.created, registration.epoch)) {
            // A host that did not note it could not tell, after its next start, that it was forgotten or that a backup was put back.
            local.note(registration).await.map_err(MemberError::NotNoted)?;
        }
        self.state().registration = Some(registration);
        let lease = self.kv.grant(LIFE).await?;
        let mut told = Instant::now();
        let mut sign = self.sign(local, &registration, Some(lease)).await?;
        self.stands(local, Ok(registration.seen));
        loop {
            sleep(EVERY).await;
            if !self.kv.keep_alive(lease).await? {
                return Err(MemberError::Silent);
            }
            if local.ports() != sign.ports || told.elapsed() >= LASTING {
                sign = self.sign(local, &registration, Some(lease)).await?;
                told = Instant::now();
            }
        }
    }

    /// Tells of this host.
    async fn sign(&self, local: &impl Local, registration: &Registration, lease: Option<Lease>) -> Result<Sign, MemberError> {
        let sign = Sign { v: VERSION, ports: local.ports(), at: clock::second() };
        let value = serde_json::to_vec(&sign).unwrap_or_default();
        let host = self.host();
        let lasting = Op::Put { key: self.names.last_seen(&host), value: value.clone(), lease: 0 };
        let leased = lease.map(|lease| Op::Put { key: self.names.alive(&host), value, lease: lease.id });
        let gone = lease.is_none().then(|| Op::Delete(Keys::One(self.names.alive(&host))));
        let then = [lasting].into_iter().chain(leased).chain(gone).collect();
        let when = vec![Compare::made(self.names.host(&host), registration.created)];
        let answer = self.kv.txn(Txn::when(when, then)).await?;
        self.state().status.revision = Some(answer.header.revision);
        if answer.succeeded { Ok(sign) } else { Err(MemberError::Forgotten(host)) }
    }

    /// Tells that this host stops.
    async fn leave(&self, local: &impl Local) {
        let registration = self.state().registration;
        if let Some(registration) = registration
            && let Err(error) = self.sign(local, &registration, None).await
        {
            tracing::debug!(%error, "the fleet was not told of the stop");
        }
    }

    /// Notes how this host stands, and logs a change.
    fn stands(&self, local: &impl Local, now: Result<i64, &MemberError>) {
        let status = {
            let State { status, failing, .. } = &mut *self.state();
            let before = (status.connected, status.trouble.clone());
            let trouble = now.err().map(ToString::to_string);
            match now {
                Ok(revision) => {
                    *failing = None;
                    status.revision = Some(revision);
                    tracing::info!(fleet = status.name, host = status.host, revision, "this host is one of its fleet");
                }
                Err(error) if before.1 != trouble => {
                    tracing::warn!(fleet = status.name, host = status.host, %error, "this host has lost its fleet");
                }
                Err(_) => {}
            }
            if before.0 != now.is_ok() {
                status.since = clock::second();
            }
            (status.connected, status.trouble) = (now.is_ok(), trouble);
            status.clone()
        };
        local.tell(&status);
    }

    fn host(&self) -> String {
        self.state().status.host.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain values, whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
