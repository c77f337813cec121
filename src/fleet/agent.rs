//! This host in its fleet: it registers, tells that it is alive, and joins again when etcd was away or is another one.
//!
//! What goes on while it takes part is in the files beside: claims are made ahead ([`claims`](super::claims)), what others define and have
//! is followed ([`follow`](super::follow)), and its own ports are told of ([`publish`](super::publish)).

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::calls::{Asked, Call, WAITING};
use super::etcd::{Compare, Etcd, Keys, Lease, Op, Txn};
use super::keys::Names;
use super::kv::Leases;
use super::lag::Lag;
use super::member::{self, ForgetError, GRACE, HostRecord, Member, MemberError, VERSION};
use super::moving::Whereabouts;
use super::publish::Listed;
use super::published::{Published, Told};
use super::remotes::{RemoteChange, Remotes};
use super::roster::{HostView, LIFE, Sign, hosts};
use crate::clock;
use crate::model::definition::{Definition, DefinitionName};
use crate::model::pools::Range;
use crate::model::{
    Claim, Held, Lent, MemberChange, Need, NetworkId, Port, PortId, PublishedId, Registration, Standby, SubnetId,
};
use crate::telemetry::meters::meters;

/// How often this host tells that it is alive.
const EVERY: Duration = Duration::from_secs(LIFE as u64 / 3);

/// How often it tells so without a lease, which stays.
const LASTING: Duration = Duration::from_secs(60);

/// The first wait after a failure; each next one is twice as long, up to [`LONGEST`].
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest wait after failures.
const LONGEST: Duration = Duration::from_secs(3);

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
    /// How many milliseconds the last write of this host took to come back by its watch, or for how many one that takes longer is waited for;
    /// none before the first.
    pub watch_lag_ms: Option<u64>,
}

/// What the fleet needs of the rest of the daemon. What returns an error could not be noted durably.
pub trait Local: Send + Sync + 'static {
    /// How many ports this host has.
    fn ports(&self) -> usize;

    /// Takes in how this host stands, for health and numbers.
    fn tell(&self, status: &Status);

    /// What is noted as this host's, and what its ports have beside.
    fn claims(&self) -> Vec<Held>;

    /// Notes a registration with what came of the claims: what is held, and what another host has.
    fn join(
        self: Arc<Self>,
        registration: Registration,
        held: Vec<Held>,
        lost: Vec<(Held, String)>,
        lent: Vec<Lent>,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Notes a registration.
    fn settle(&self, registration: Registration) -> impl Future<Output = Result<(), String>> + Send;

    /// Notes a claim, and what of it other hosts hold.
    fn hold(&self, held: Held, lent: Vec<Lent>) -> impl Future<Output = Result<(), String>> + Send;

    /// Notes that a claim is given up. False if something of it is in use, and it stays.
    fn let_go(&self, held: &Held) -> impl Future<Output = Result<bool, String>> + Send;

    /// Whether what is needed is claimed by now.
    fn has(&self, need: &Need) -> bool;

    /// What other hosts hold of blocks of this host's.
    fn lent(&self) -> Vec<Lent>;

    /// The host that holds what is needed of a block of this host's.
    fn borrower(&self, need: &Need) -> Option<String>;

    /// Notes that no other host holds this any more.
    fn given_back(self: Arc<Self>, claims: Vec<Claim>) -> impl Future<Output = Result<(), String>> + Send;

    /// The ports that have silent devices here.
    fn standbys(&self) -> Vec<(PortId, Standby)>;

    /// How a port stands that has a silent device here; none of another one.
    fn standby(&self, port: PortId) -> Option<Standby>;

    /// What of its addresses and its MAC a port has to have claimed.
    fn needs_of(&self, port: &Port) -> Vec<Claim>;

    /// What is told of a port once it is on another host.
    fn shown_at(&self, port: &Port, host: &str) -> Published;

    /// Notes that a port is another host's by now, with these addresses and this MAC.
    fn handed(self: Arc<Self>, port: PortId, host: String, ones: Vec<Lent>) -> impl Future<Output = Result<(), String>> + Send;

    /// Takes in where a port is that had a silent device here, in this way.
    fn settle_standby(
        self: Arc<Self>,
        port: PortId,
        standby: Standby,
        at: Whereabouts,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Where addresses of a subnet are given from.
    fn pools(&self, subnet: SubnetId) -> Vec<Range>;

    /// What is to be claimed ahead, but for addresses of these subnets.
    fn short_of(&self, exhausted: &BTreeSet<SubnetId>) -> Vec<Need>;

    /// What is noted as this host's and another host has in etcd.
    fn disputed(&self) -> Vec<Held>;

    /// The claims of addresses of networks without ports here, and of single MACs that no port has.
    fn idle(&self) -> Vec<Held>;

    /// The definitions that are known here, of each network as it is while no work on it is under way.
    fn definitions(&self) -> impl Future<Output = Vec<Definition>> + Send;

    /// Takes in what is defined.
    fn adopt(self: Arc<Self>, definition: Definition) -> impl Future<Output = Result<(), String>> + Send;

    /// Takes in that something is not defined any more. Answers with the definitions of what has to stay, since ports of this host use it.
    fn abandon(self: Arc<Self>, name: DefinitionName) -> impl Future<Output = Result<Vec<Definition>, String>> + Send;

    /// The shared networks that have ports here.
    fn own_networks(&self) -> BTreeSet<NetworkId>;

    /// Notes from now on what changes of this host's servers and ports, or no longer.
    fn note_changes(&self, is_on: bool);

    /// This host's servers, and its ports of shared networks.
    fn published(&self) -> BTreeMap<PublishedId, Told>;

    /// One of them, as it is now; none if it is gone.
    fn published_one(&self, id: PublishedId) -> Option<Told>;

    /// Takes those of which something changed since they were taken last.
    fn take_changed(&self) -> BTreeSet<PublishedId>;

    /// Waits until there is one.
    fn changed(&self) -> impl Future<Output = ()> + Send;

    /// Takes in which ports of other hosts on a network are in security groups.
    fn take_in_members(self: Arc<Self>, network: NetworkId, change: MemberChange);

    /// Forgets those of all networks but these.
    fn keep_members_of(&self, networks: &BTreeSet<NetworkId>);

    /// Takes in what other hosts have of a network.
    fn take_in_remote(self: Arc<Self>, network: NetworkId, change: RemoteChange);
}

/// This host's part in its fleet.
#[derive(Debug)]
pub struct Fleet {
    pub(super) kv: Etcd,
    pub(super) names: Names,
    pub(super) member: Member<Etcd>,
    state: Mutex<State>,
    /// One claims at a time: those who wait may find that it is done.
    pub(super) claiming: tokio::sync::Mutex<()>,
    /// The revision up to which definitions are followed.
    pub(super) followed: watch::Sender<i64>,
    /// What etcd was told of this host's servers and ports.
    pub(super) listed: tokio::sync::Mutex<Listed>,
    /// The revision of the sign of life of the last join.
    pub(super) signed: AtomicI64,
    /// Changes when etcd was told of ports of this host.
    pub(super) told: watch::Sender<()>,
    /// Rung when this host may have its first port on a network, or none any more.
    pub(super) networks_change: Notify,
    /// What was known of other hosts when this one took part last.
    remotes: Mutex<Option<Remotes>>,
    /// How far behind this host sees what is written.
    lag: Mutex<Lag>,
    /// The calls of this host that wait for their answers.
    asked: Mutex<Asked>,
    /// The calls that this host carries out.
    taken: Mutex<BTreeSet<Uuid>>,
    /// The calls that wait to be carried out.
    pub(super) incoming: (mpsc::Sender<Call>, tokio::sync::Mutex<mpsc::Receiver<Call>>),
    /// Rung when this host has to join again.
    joins_again: Notify,
}

#[derive(Debug)]
struct State {
    registration: Option<Registration>,
    status: Status,
    /// Since when it fails.
    failing: Option<Instant>,
}

impl Fleet {
    /// The host with this name in the fleet, with the id of its own store, and its registration if it has noted one.
    pub fn new(
        kv: Etcd,
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
            watch_lag_ms: None,
        };
        let (incoming, calls) = mpsc::channel(WAITING);
        Self {
            kv,
            names,
            member,
            state: Mutex::new(State { registration: noted, status, failing: None }),
            claiming: tokio::sync::Mutex::default(),
            followed: watch::Sender::default(),
            listed: tokio::sync::Mutex::default(),
            signed: AtomicI64::new(0),
            told: watch::Sender::default(),
            networks_change: Notify::new(),
            remotes: Mutex::default(),
            lag: Mutex::default(),
            asked: Mutex::default(),
            taken: Mutex::default(),
            incoming: (incoming, tokio::sync::Mutex::new(calls)),
            joins_again: Notify::new(),
        }
    }

    /// How this host stands.
    pub fn status(&self) -> Status {
        let lag = self.lag().at(std::time::Instant::now());
        let watch_lag_ms = lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX));
        Status { watch_lag_ms, ..self.state().status.clone() }
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
        let was_there = member::forget(&self.kv, &self.names, host).await?;
        Ok(self.forget_published(host).await? || was_there)
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
                ended = self.take_part(&local) => {
                    // Nobody takes them until the next join, which compares all.
                    local.note_changes(false);
                    ended
                }
                () = stop.cancelled() => {
                    let _ = tokio::time::timeout(LEAVE_LIMIT, self.leave(&*local)).await;
                    return Ok(());
                }
            };
            if matches!(ended, MemberError::NameTaken { .. } | MemberError::Newer { .. }) {
                return Err(ended);
            }
            tracing::debug!(error = %ended, "this host joins its fleet again");
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

    /// Joins, and takes part until that fails.
    async fn take_part<L: Local>(&self, local: &Arc<L>) -> MemberError {
        let Err(ended) = self.try_to_take_part(local).await;
        ended
    }

    async fn try_to_take_part<L: Local>(&self, local: &Arc<L>) -> Result<Infallible, MemberError> {
        let known = self.state().registration;
        let registration = self.join(local, known).await?;
        let lease = self.kv.grant(LIFE).await?;
        let (sign, signed) = self.sign(&**local, &registration, Some(lease)).await?;
        self.signed.store(signed, Ordering::Relaxed);
        self.stands(&**local, Ok(registration.seen));
        meters().fleet_joins.inc();
        // In an etcd that has lost something, what is not there was not deleted.
        let is_conclusive = known.is_some_and(|known| known.epoch == registration.epoch && known.is_settled);
        let (ended, ..) = tokio::try_join!(
            self.stay(&**local, lease, sign),
            self.settle(local, registration),
            self.keep_claims(local),
            self.follow(local, is_conclusive),
            self.publish(local, registration, signed),
            self.is_to_join_again(),
        )?;
        Ok(ended)
    }

    /// Joins, and notes what came of it. What a request claims meanwhile it claims before or after: else it would be forgotten here.
    async fn join<L: Local>(&self, local: &Arc<L>, known: Option<Registration>) -> Result<Registration, MemberError> {
        let _turn = self.claiming.lock().await;
        let joined = self.member.join(known, &local.claims(), &local.lent()).await?;
        if joined.was_forgotten {
            tracing::warn!("the fleet had forgotten this host, which is registered anew");
        }
        for (held, host) in &joined.lost {
            tracing::error!(claim = ?held.claim, host, "another host has what ports of this host may have: they are kept down");
        }
        let is_settled = !joined.is_other_epoch && known.is_none_or(|known| known.is_settled);
        let registration = Registration { is_settled, ..joined.registration };
        // A host that did not note it could not tell, after its next start, that it was forgotten or that a backup was put back.
        Arc::clone(local).join(registration, joined.held, joined.lost, joined.lent).await.map_err(MemberError::NotNoted)?;
        self.state().registration = Some(registration);
        Ok(registration)
    }

    /// Tells that this host is alive.
    async fn stay(&self, local: &impl Local, lease: Lease, mut sign: Sign) -> Result<Infallible, MemberError> {
        let mut told = Instant::now();
        loop {
            sleep(EVERY).await;
            if !self.kv.keep_alive(lease).await? {
                return Err(MemberError::Silent);
            }
            if local.ports() != sign.ports || told.elapsed() >= LASTING {
                let registration = self.registered()?;
                (sign, _) = self.sign(local, &registration, None).await?;
                told = Instant::now();
            }
        }
    }

    /// Notes that all hosts have had their time to put their claims again, and joins once more: what is undecided is decided then.
    async fn settle<L: Local>(&self, local: &Arc<L>, registration: Registration) -> Result<Infallible, MemberError> {
        if registration.is_settled {
            return std::future::pending().await;
        }
        sleep(GRACE).await;
        let settled = Registration { is_settled: true, ..registration };
        local.settle(settled).await.map_err(MemberError::NotNoted)?;
        self.state().registration = Some(settled);
        Err(MemberError::Undecided)
    }

    async fn is_to_join_again(&self) -> Result<Infallible, MemberError> {
        self.joins_again.notified().await;
        Err(MemberError::OtherEpoch)
    }

    /// Has this host join again.
    pub fn join_again(&self) {
        self.joins_again.notify_one();
    }

    /// Has this host join again if that is what an error means.
    pub(super) fn note_error(&self, error: &MemberError) {
        if matches!(error, MemberError::Forgotten(_) | MemberError::OtherEpoch | MemberError::Newer { .. }) {
            self.joins_again.notify_one();
        }
    }

    /// Whether there is anybody to ask.
    ///
    /// # Errors
    /// This host is not connected to its fleet.
    pub fn check_connected(&self) -> Result<(), MemberError> {
        self.registered().map(drop)
    }

    /// What this host is registered as.
    ///
    /// # Errors
    /// It is not connected to its fleet.
    pub(super) fn registered(&self) -> Result<Registration, MemberError> {
        let state = self.state();
        match state.registration {
            Some(registration) if state.status.connected => Ok(registration),
            _ => Err(MemberError::NotConnected(state.status.trouble.clone().unwrap_or_default())),
        }
    }

    /// Tells of this host: that it is alive as long as a lease is, or only what is of it.
    async fn sign(
        &self,
        local: &impl Local,
        registration: &Registration,
        lease: Option<Lease>,
    ) -> Result<(Sign, i64), MemberError> {
        let alive = lease.map(|lease| (self.names.alive(&self.host()), lease.id));
        self.tell_of(local, registration, |value| alive.map(|(key, lease)| Op::Put { key, value, lease })).await
    }

    async fn tell_of(
        &self,
        local: &impl Local,
        registration: &Registration,
        beside: impl FnOnce(Vec<u8>) -> Option<Op>,
    ) -> Result<(Sign, i64), MemberError> {
        let sign = Sign { v: VERSION, ports: local.ports(), at: clock::second() };
        let value = serde_json::to_vec(&sign).unwrap_or_default();
        let host = self.host();
        let lasting = Op::Put { key: self.names.last_seen(&host), value: value.clone(), lease: 0 };
        let then = [lasting].into_iter().chain(beside(value)).collect();
        let when = vec![Compare::made(self.names.host(&host), registration.created)];
        let answer = self.kv.txn(&Txn::when(when, then)).await?;
        self.state().status.revision = Some(answer.header.revision);
        if answer.succeeded { Ok((sign, answer.header.revision)) } else { Err(MemberError::Forgotten(host)) }
    }

    /// Tells that this host stops.
    async fn leave(&self, local: &impl Local) {
        let registration = self.state().registration;
        let gone = Op::Delete(Keys::One(self.names.alive(&self.host())));
        if let Some(registration) = registration
            && let Err(error) = self.tell_of(local, &registration, |_| Some(gone)).await
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

    /// What was known of other hosts when this one took part last; nothing in the beginning.
    pub(super) fn kept(&self) -> Remotes {
        let kept = self.remotes.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.unwrap_or_else(|| Remotes::new(self.host()))
    }

    pub(super) fn keep(&self, remotes: Remotes) {
        *self.remotes.lock().unwrap_or_else(PoisonError::into_inner) = Some(remotes);
    }

    pub(super) fn lag(&self) -> MutexGuard<'_, Lag> {
        // As for the state.
        self.lag.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn asked(&self) -> MutexGuard<'_, Asked> {
        // As for the state.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn taken(&self) -> MutexGuard<'_, BTreeSet<Uuid>> {
        // As for the state.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn host(&self) -> String {
        self.state().status.host.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain values, whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
