//! A client of etcd (3.4 or newer), over its JSON gateway. What the keys mean is not known here.
//!
//! ```text
//!  Etcd::range, pages, txn, lease_…, status ─► endpoint (a few kept connections) ─► POST /v3/…  (JSON, int64 as text, bytes as base64)
//!  Etcd::watch ─► Watch (a connection of its own) ─► POST /v3/watch, whose answer does not end
//! ```
//!
//! # Which endpoint
//!
//! A request begins at the endpoint that last worked. What only reads, and what has no other effect when it is done twice, is asked at each
//! endpoint in turn. A transaction goes to another endpoint only if nothing of it was sent, or if the member said that it knows no leader,
//! which it says before it takes anything on. Otherwise its outcome is [`Error::Unknown`], and the caller has to read what is there: a
//! transaction is never repeated by this client. The same holds of [`Error::Full`] ([`Error::may_be_done`]).
//!
//! # Bounds
//!
//! A request has [`LIMIT`] at each endpoint, 2 s of them for the connection. At most [`MAX_REQUESTS`] are under way; more wait as long
//! for their turn. An answer has at most 16 MiB, a value [`MAX_VALUE`]. etcd itself takes at most 128 operations and 1.5 MiB in a
//! transaction.
//!
//! # What counts as an answer
//!
//! One that names a cluster and a revision, and is whole: what another program answers is never taken for an etcd without keys. A
//! [`Header`] is with every answer, so that the caller can see that it is another cluster, or that a revision has gone back.
//!
//! # What the gateway cannot do
//!
//! - etcd does not take the common name of a client's certificate for a user there: with users, a name and a password are needed.
//! - The gateway of a member with TLS is a client of the same member, by the member's own certificate. Where client certificates are
//!   required, that certificate must be for clients too (extended key usage `clientAuth`, or none).
//! - A stream of watches takes requests only as described in [`watch`].

mod endpoint;
mod error;
mod pages;
mod types;
pub mod watch;
mod wire;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use hyper::body::Bytes;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use self::endpoint::Endpoint;
use self::error::Failure;
pub use self::error::{Error, Unreached};
pub use self::pages::Pages;
pub use self::types::{Compare, Done, Event, Header, KeyValue, Keys, Lease, Op, Range, Relation, Status, Target, Txn, TxnAnswer};
pub use self::watch::{Batch, Watch, WatchEnd, Watched};
use crate::config::{ConfigError, FleetSettings};
use crate::http;
use crate::telemetry::meters::meters;
use crate::tls::pem;

/// How long a request may take at one endpoint.
pub const LIMIT: Duration = Duration::from_secs(5);

/// How many requests are under way at a time.
pub const MAX_REQUESTS: usize = 16;

/// The longest value, in bytes.
pub const MAX_VALUE: usize = 1 << 20;

/// The client. A clone is the same client.
#[derive(Debug, Clone)]
pub struct Etcd(Arc<Inner>);

struct Inner {
    endpoints: Vec<Endpoint>,
    /// The index of the endpoint that worked last.
    first: AtomicUsize,
    turns: Semaphore,
    login: Option<Login>,
    /// What etcd gave for the user and the password.
    token: Mutex<Option<Arc<str>>>,
}

/// Who nicd is to etcd.
#[derive(Debug)]
struct Login {
    user: String,
    password_file: std::path::PathBuf,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("endpoints", &self.endpoints).field("login", &self.login).finish_non_exhaustive()
    }
}

/// Whether a request may be done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Twice {
    /// It reads, or doing it again changes nothing more.
    May,
    /// It may not.
    MayNot,
}

/// Checks the files that the configuration names. It blocks.
///
/// # Errors
/// One of them cannot be used, or every user can read what is secret.
pub fn check_files(settings: &FleetSettings) -> Result<(), ConfigError> {
    let bad = |key, path: &Path, expected: String| ConfigError::Value { key, value: path.display().to_string(), expected };
    let tls = &settings.tls;
    if let Some(ca) = &tls.ca {
        pem::roots(ca).map_err(|error| bad("fleet.tls.ca", ca, error.why))?;
    }
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        pem::certificates(cert).map_err(|error| bad("fleet.tls.cert", cert, error.why))?;
        pem::is_private(key).and_then(|()| pem::key(key)).map_err(|error| bad("fleet.tls.key", key, error.why))?;
        endpoint::read_config(tls).map_err(|error| bad("fleet.tls.cert", cert, error.why))?;
    }
    if let Some(path) = &settings.password_file {
        pem::is_private(path).and_then(|()| http::secret(path)).map_err(|error| bad("fleet.password_file", path, error.why))?;
    }
    Ok(())
}

impl Etcd {
    /// A client of these endpoints. It connects with its first request, and needs an event loop of tokio from then on.
    pub fn new(settings: &FleetSettings) -> Self {
        let endpoints = settings.endpoints.iter().map(|url| Endpoint::new(url.clone(), settings.tls.clone())).collect();
        let login = settings.user.clone().zip(settings.password_file.clone());
        Self(Arc::new(Inner {
            endpoints,
            first: AtomicUsize::new(0),
            turns: Semaphore::new(MAX_REQUESTS),
            login: login.map(|(user, password_file)| Login { user, password_file }),
            token: Mutex::default(),
        }))
    }

    /// Reads keys: as they are now, or as they were at a revision; at most `limit` of them (0 for all).
    ///
    /// # Errors
    /// It cannot be read. An answer of more than 16 MiB is one reason; [`Etcd::pages`] has none such.
    pub async fn range(&self, keys: &Keys, revision: Option<i64>, limit: u32) -> Result<Range, Error> {
        let body = wire::range(keys, None, limit, revision.unwrap_or_default());
        Ok(self.ask("/v3/kv/range", body, Twice::May, wire::range_answer).await?.range)
    }

    /// All keys with a prefix, as they are at one revision, read in pages.
    pub fn pages(&self, prefix: impl Into<String>) -> Pages {
        Pages::new(self.clone(), prefix.into())
    }

    /// Does a transaction.
    ///
    /// # Errors
    /// It was not done, or whether it was is not known ([`Error::Unknown`]).
    pub async fn txn(&self, txn: &Txn) -> Result<TxnAnswer, Error> {
        let too_long = |op: &&Op| matches!(op, Op::Put { value, .. } if value.len() > MAX_VALUE);
        if let Some(Op::Put { key, value, .. }) = txn.success.iter().chain(&txn.failure).find(too_long) {
            return Err(Error::Refused(format!(
                "the value of {key} has {} bytes, and at most {MAX_VALUE} are expected",
                value.len()
            )));
        }
        let answer = self.ask("/v3/kv/txn", wire::txn(txn), Twice::MayNot, |answer| wire::txn_answer(txn, answer)).await;
        meters().fleet_transaction(match &answer {
            Ok(answer) if answer.succeeded => "done",
            Ok(_) => "guarded",
            Err(_) => "failed",
        });
        answer
    }

    /// Makes a lease. If the answer of an endpoint is lost, another one is asked: what was made meanwhile ends by itself.
    ///
    /// # Errors
    /// There is none.
    pub async fn lease_grant(&self, ttl: u32) -> Result<Lease, Error> {
        self.ask("/v3/lease/grant", wire::grant(ttl), Twice::May, wire::lease_answer).await
    }

    /// Has a lease begin anew; none if it is no more.
    ///
    /// # Errors
    /// It is not known whether it still is.
    pub async fn lease_keep_alive(&self, id: i64) -> Result<Option<Lease>, Error> {
        let kept = self.ask("/v3/lease/keepalive", wire::lease(id), Twice::May, wire::kept_answer).await?;
        Ok(Some(kept).filter(|lease| lease.ttl > 0))
    }

    /// Ends a lease, and its keys with it. One that is no more is ended.
    ///
    /// # Errors
    /// Whether it is ended is not known.
    pub async fn lease_revoke(&self, id: i64) -> Result<(), Error> {
        match self.ask("/v3/lease/revoke", wire::lease(id), Twice::May, wire::revoked_answer).await {
            Err(Error::Refused(why)) if why.contains("lease not found") => Ok(()),
            done => done,
        }
    }

    /// What each endpoint says of itself, in the order of the configuration, or why it says nothing.
    pub async fn status(&self) -> Vec<(String, Result<Status, Error>)> {
        let each = self.0.endpoints.iter().map(|endpoint| async move {
            let answered = match self.turn().await {
                Ok(_turn) => self.at(endpoint, "/v3/maintenance/status", Bytes::from_static(b"{}")).await,
                Err(error) => Err(Failure::Final(error)),
            };
            let read = answered.and_then(|answer| wire::status_answer(&answer).map_err(Failure::Lost));
            (endpoint.name(), read.map_err(|failure| conclusive(endpoint, failure)))
        });
        join_all(each).await
    }

    /// Watches prefixes, each from a revision on.
    ///
    /// # Errors
    /// No endpoint lets them be watched. That a revision is compacted is said by the watch itself.
    pub async fn watch(&self, prefixes: &[Watched]) -> Result<Watch, Error> {
        Watch::open(self, prefixes).await
    }

    /// Sends a request to the endpoints in turn until one answers.
    async fn ask<T>(
        &self,
        path: &str,
        body: String,
        twice: Twice,
        read: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, Error> {
        let _turn = self.turn().await?;
        let body = Bytes::from(body);
        let mut unreached = Vec::new();
        for (index, endpoint) in self.in_turn() {
            let answered = self.at(endpoint, path, body.clone()).await;
            let failure = match answered.and_then(|answer| read(&answer).map_err(Failure::Lost)) {
                Ok(answer) => {
                    self.works(index);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let (why, sent) = match failure {
                Failure::Final(error) => {
                    self.works(index);
                    return Err(error);
                }
                Failure::NotSent(why) => (why, false),
                Failure::TooLong(why) if twice == Twice::May => {
                    self.works(index);
                    return Err(Error::TooLong(why));
                }
                Failure::Lost(why) | Failure::TooLong(why) => (why, true),
                Failure::Told(told) => (told.message, true),
            };
            self.fails(index);
            let why = endpoint.unreached(why);
            if sent && twice == Twice::MayNot {
                return Err(Error::Unknown(why));
            }
            unreached.push(why);
        }
        Err(Error::Unreachable(unreached))
    }

    /// Sends a request to one endpoint, with a token if nicd is a user there.
    async fn at(&self, endpoint: &Endpoint, path: &str, body: Bytes) -> Result<Bytes, Failure> {
        let deadline = Instant::now() + LIMIT;
        let token = self.token(endpoint, deadline).await?;
        match endpoint.post(path, token.as_deref(), body.clone(), deadline).await {
            Err(Failure::Told(told)) if self.0.login.is_some() && told.wants_a_token() => {
                self.forget(token.as_deref());
                let token = self.token(endpoint, deadline).await?;
                endpoint.post(path, token.as_deref(), body, deadline).await
            }
            answered => answered,
        }
        .map_err(Failure::understood)
    }

    /// The token that the requests have. There is none without a user.
    async fn token(&self, endpoint: &Endpoint, deadline: Instant) -> Result<Option<Arc<str>>, Failure> {
        let Some(Login { user, password_file }) = &self.0.login else { return Ok(None) };
        if let Some(token) = self.tokens().clone() {
            return Ok(Some(token));
        }
        let file = password_file.clone();
        let read = tokio::task::spawn_blocking(move || pem::is_private(&file).and_then(|()| http::secret(&file))).await;
        let denied = |why: String| Failure::Final(Error::Denied(why));
        let password = read.map_err(|error| denied(error.to_string()))?.map_err(|error| denied(error.to_string()))?;
        let login = Bytes::from(wire::login(user, &password));
        let answer = match endpoint.post("/v3/auth/authenticate", None, login, deadline).await {
            Ok(answer) => answer,
            // What the token is for was not sent.
            Err(failure) => {
                return Err(match failure.understood() {
                    Failure::Lost(why) | Failure::TooLong(why) => Failure::NotSent(why),
                    other => other,
                });
            }
        };
        let token: Arc<str> = wire::token_answer(&answer).map_err(Failure::NotSent)?.into();
        *self.tokens() = Some(Arc::clone(&token));
        Ok(Some(token))
    }

    /// Forgets a token, unless there is another one meanwhile.
    fn forget(&self, token: Option<&str>) {
        let mut kept = self.tokens();
        if kept.as_deref() == token {
            *kept = None;
        }
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, Option<Arc<str>>> {
        self.0.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a request's turn.
    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        match timeout(LIMIT, self.0.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Error::Busy(format!(
                "{MAX_REQUESTS} requests to etcd are under way, and none ended in {} s",
                LIMIT.as_secs()
            ))),
        }
    }

    /// The endpoints, beginning with the one that last worked.
    fn in_turn(&self) -> impl Iterator<Item = (usize, &Endpoint)> {
        let (all, first) = (&self.0.endpoints, self.0.first.load(Ordering::Relaxed));
        (0..all.len()).map(move |n| (first + n) % all.len()).map(|index| (index, &all[index]))
    }

    fn works(&self, index: usize) {
        self.0.first.store(index, Ordering::Relaxed);
    }

    /// The next request begins at the next endpoint.
    fn fails(&self, index: usize) {
        let next = (index + 1) % self.0.endpoints.len();
        let _ = self.0.first.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// What a failure at the only endpoint that could answer means.
fn conclusive(endpoint: &Endpoint, failure: Failure) -> Error {
    match failure {
        Failure::Final(error) => error,
        Failure::NotSent(why) | Failure::Lost(why) | Failure::TooLong(why) => Error::Unreachable(vec![endpoint.unreached(why)]),
        Failure::Told(told) => Error::Unreachable(vec![endpoint.unreached(told.message)]),
    }
}
