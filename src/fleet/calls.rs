//! Calls: what one host has another one do.
//!
//! A call is a request of a client's as it came, or a step of moving a port ([`moving`](super::moving)). It is in etcd until the host that it is for has carried it out; the transaction that removes
//! it writes the answer. A host that dies meanwhile finds it again, and carries it out once: a call has an idempotency key. A call that makes
//! a port, or hands one over, stays when no answer comes in time: it is carried out when that host is back. One that makes a port can be
//! withdrawn before. Where etcd's answer is lost, the call may be there, and its answer is waited for all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::agent::Fleet;
use super::etcd::{Compare, Event, KeyValue, Keys, Op, Txn};
use super::member::{MemberError, VERSION, json, read_versioned};
use crate::clock;
use crate::model::{Handed, NetworkId, PortId, Prepare, ServerId};

/// How long a host may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many calls may wait here to be carried out. More are left in etcd until the next join.
pub(super) const WAITING: usize = 1024;

/// What a host is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    v: u32,
    /// Its id, which is the port's that it makes.
    pub id: Uuid,
    /// The host that asks.
    pub from: String,
    /// When.
    pub at: Timestamp,
    /// The client who asked that one.
    pub caller: String,
    /// The request's id there.
    pub request_id: Option<Uuid>,
    /// What is asked.
    pub asks: Asks,
    /// The revision that made it.
    #[serde(skip)]
    pub made: i64,
}

/// What is asked of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asks {
    /// A client's request.
    Request {
        /// As it came.
        request: Request,
        /// The port that it makes.
        makes: Option<NewPort>,
    },
    /// To build the silent device of a port that is to move here.
    Prepare(Box<Prepare>),
    /// To have a port from now on.
    Take(Box<Handed>),
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Its path, with its query.
    pub path: String,
    /// Those of its headers that have a meaning for its answer.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

/// The port that a call makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPort {
    /// Its server.
    pub server: ServerId,
    /// Its network, as far as it is named.
    pub network: Option<NetworkId>,
}

/// What came of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    v: u32,
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAnswered {
    /// The host has not answered in time. The call waits, as one that makes a port does, or is withdrawn as far as etcd can be reached.
    Silent,
    /// The host is not one of the fleet any more, or this one is not: nothing was asked.
    NotAsked,
    /// Etcd does not answer.
    Unreachable(MemberError),
}

impl From<MemberError> for NotAnswered {
    fn from(error: MemberError) -> Self {
        Self::Unreachable(error)
    }
}

/// The calls of this host that wait for their answers.
pub(super) type Asked = BTreeMap<Uuid, oneshot::Sender<Answer>>;

impl Call {
    /// One of this host's.
    pub fn new(from: String, caller: String, request_id: Option<Uuid>, asks: Asks) -> Self {
        Self { v: VERSION, id: Uuid::new_v4(), from, at: clock::now(), caller, request_id, asks, made: 0 }
    }

    /// The port that a client's request makes.
    pub fn makes(&self) -> Option<NewPort> {
        match self.asks {
            Asks::Request { makes, .. } => makes,
            Asks::Prepare(_) | Asks::Take(_) => None,
        }
    }
}

impl Answer {
    /// With this status, these headers and this body.
    pub fn new(status: u16, headers: Vec<(String, String)>, body: String) -> Self {
        Self { v: VERSION, status, headers, body }
    }
}

impl Fleet {
    /// Has another host carry out a call.
    ///
    /// # Errors
    /// It does not answer in time, or etcd does not.
    pub async fn call(&self, host: &str, call: &Call) -> Result<Answer, NotAnswered> {
        let registration = self.registered()?;
        let (key, own) = (self.names.call(host, call.id), self.host());
        let answer = self.wait_for(call.id);
        let when = vec![Compare::made(self.names.host(&own), registration.created), Compare::present(self.names.host(host))];
        match self.kv.txn(&Txn::when(when, vec![Op::put(key.clone(), json(call))])).await {
            Ok(put) if !put.succeeded => return Err(NotAnswered::NotAsked),
            // It may be there, or come yet: then it is answered.
            Err(error) if error.may_be_done() => tracing::debug!(%error, host, "whether it is asked is not known"),
            put => _ = put.map_err(MemberError::from)?,
        }
        if let Some(answer) = answer.answer().await {
            return Ok(answer);
        }
        if call.makes().is_none()
            && let Err(error) = self.kv.txn(&Txn::when(Vec::new(), vec![Op::Delete(Keys::One(key))])).await
        {
            tracing::debug!(%error, host, "what it was asked is not withdrawn");
        }
        Err(NotAnswered::Silent)
    }

    /// Waits for the answer to a call, from before it is made on.
    pub(super) fn wait_for(&self, call: Uuid) -> Waits<'_> {
        let (sender, answer) = oneshot::channel();
        self.asked().insert(call, sender);
        Waits { fleet: self, call, answer: Some(answer), until: Instant::now() + PATIENCE }
    }

    /// The calls that wait to be carried out and make ports, with the hosts that they are for.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn waiting_ports(&self) -> Result<Vec<(String, Call)>, MemberError> {
        let prefix = self.names.all_calls();
        let (_, found) = self.kv.pages(prefix.clone()).all().await?;
        let mut waiting = Vec::new();
        for entry in &found {
            let host = entry.key.strip_prefix(&prefix).and_then(|path| path.split('/').next()).unwrap_or_default();
            let call: Call = read_versioned(entry)?;
            if call.makes().is_some() {
                waiting.push((host.to_owned(), call));
            }
        }
        Ok(waiting)
    }

    /// Withdraws the call that makes a port. False if there is none, or if it was carried out meanwhile.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn withdraw(&self, port: PortId) -> Result<bool, MemberError> {
        let waiting = self.waiting_ports().await?;
        let Some((host, _)) = waiting.iter().find(|(_, call)| call.id == port.0) else { return Ok(false) };
        let key = self.names.call(host, port.0);
        let answer = self.kv.txn(&Txn::when(vec![Compare::present(key.clone())], vec![Op::Delete(Keys::One(key))])).await?;
        Ok(answer.succeeded)
    }

    /// Ends a call that was carried out. False if it was withdrawn meanwhile: what it has made is to be taken back.
    ///
    /// # Errors
    /// Etcd does not answer: the call is found again at the next join.
    pub async fn answer(&self, call: &Call, answer: &Answer) -> Result<bool, MemberError> {
        let key = self.names.call(&self.host(), call.id);
        let then = vec![Op::Delete(Keys::One(key.clone())), Op::put(self.names.answer(&call.from, call.id), json(answer))];
        let ended = self.kv.txn(&Txn::when(vec![Compare::present(key)], then)).await;
        self.taken().remove(&call.id);
        Ok(ended?.succeeded)
    }

    /// The next call to carry out.
    pub async fn next_call(&self) -> Option<Call> {
        self.incoming.1.lock().await.recv().await
    }

    /// Takes in a call for this host, unless it is being carried out.
    pub(super) fn take_call(&self, found: &KeyValue) -> Result<(), MemberError> {
        let mut call: Call = read_versioned(found)?;
        call.made = found.mod_revision;
        let id = call.id;
        if self.taken().insert(id) && self.incoming.0.try_send(call).is_err() {
            // It stays in etcd.
            self.taken().remove(&id);
        }
        Ok(())
    }

    /// Takes in an answer, which nobody else needs.
    pub(super) async fn take_answer(&self, event: &Event) -> Result<(), MemberError> {
        let Event::Put(found) = event else { return Ok(()) };
        let call = self.names.last(&found.key).parse().ok().and_then(|call| self.asked().remove(&call));
        if let Some(waiter) = call {
            // The client may have gone.
            let _ = waiter.send(read_versioned(found)?);
        }
        self.kv.txn(&Txn::when(Vec::new(), vec![Op::Delete(Keys::One(found.key.clone()))])).await?;
        Ok(())
    }
}

/// Waits for the answer to a call. Whatever comes of it, nobody waits any more at the end.
#[derive(Debug)]
pub struct Waits<'a> {
    fleet: &'a Fleet,
    call: Uuid,
    answer: Option<oneshot::Receiver<Answer>>,
    until: Instant,
}

impl Waits<'_> {
    /// The answer; none where there was none in time.
    pub async fn answer(mut self) -> Option<Answer> {
        timeout_at(self.until, self.answer.take()?).await.ok()?.ok()
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.fleet.asked().remove(&self.call);
    }
}
