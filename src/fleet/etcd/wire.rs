//! Requests and answers as JSON: whole numbers of 64 bits are strings, bytes are base64, and what is 0, empty or false is left out.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde_json::{Map, Value, json};

use super::error::Told;
use super::types::{Compare, Done, Event, Header, KeyValue, Keys, Lease, Op, Range, Relation, Status, Target, Txn, TxnAnswer};

fn bytes(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The first key after all that begin with `prefix`. etcd takes a zero byte as the end of all keys.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// The first of the keys, and what they end before.
fn bounds(keys: &Keys) -> (Vec<u8>, Vec<u8>) {
    match keys {
        Keys::One(key) => (key.clone().into_bytes(), Vec::new()),
        Keys::Prefix(prefix) if prefix.is_empty() => (vec![0], vec![0]),
        Keys::Prefix(prefix) => (prefix.clone().into_bytes(), end_of(prefix.as_bytes())),
    }
}

/// An object that names keys.
fn object(keys: &Keys) -> Map<String, Value> {
    let (first, end) = bounds(keys);
    bounded(&first, &end)
}

fn bounded(first: &[u8], end: &[u8]) -> Map<String, Value> {
    let mut object = Map::from_iter([("key".to_owned(), bytes(first).into())]);
    if !end.is_empty() {
        object.insert("range_end".to_owned(), bytes(end).into());
    }
    object
}

/// A read of at most `limit` keys (0 for all) at a revision (0 for the last one), from the first on, or after `after`.
pub(super) fn range(keys: &Keys, after: Option<&[u8]>, limit: u32, revision: i64) -> String {
    let (first, end) = bounds(keys);
    let next = after.map(|last| [last, &[0]].concat());
    let mut object = bounded(next.as_deref().unwrap_or(&first), &end);
    object.insert("limit".to_owned(), limit.to_string().into());
    object.insert("revision".to_owned(), revision.to_string().into());
    Value::Object(object).to_string()
}

pub(super) fn txn(txn: &Txn) -> String {
    let ops = |ops: &[Op]| ops.iter().map(op).collect::<Vec<_>>();
    let compare: Vec<Value> = txn.compare.iter().map(comparison).collect();
    json!({"compare": compare, "success": ops(&txn.success), "failure": ops(&txn.failure)}).to_string()
}

fn comparison(compare: &Compare) -> Value {
    let relation = match compare.is {
        Relation::Equal => "EQUAL",
        Relation::NotEqual => "NOT_EQUAL",
        Relation::Greater => "GREATER",
        Relation::Less => "LESS",
    };
    let (target, name, value) = match &compare.to {
        Target::CreateRevision(revision) => ("CREATE", "create_revision", revision.to_string()),
        Target::ModRevision(revision) => ("MOD", "mod_revision", revision.to_string()),
        Target::Lease(lease) => ("LEASE", "lease", lease.to_string()),
        Target::Value(value) => ("VALUE", "value", bytes(value)),
    };
    let mut object = object(&compare.keys);
    object.insert("result".to_owned(), relation.into());
    object.insert("target".to_owned(), target.into());
    object.insert(name.to_owned(), value.into());
    Value::Object(object)
}

fn op(op: &Op) -> Value {
    match op {
        Op::Put { key, value, lease } => {
            json!({"request_put": {"key": bytes(key.as_bytes()), "value": bytes(value), "lease": lease.to_string()}})
        }
        Op::Delete(keys) => json!({"request_delete_range": object(keys)}),
        Op::Range { keys, limit } => {
            let mut object = object(keys);
            object.insert("limit".to_owned(), limit.to_string().into());
            json!({"request_range": object})
        }
    }
}

pub(super) fn grant(ttl: u32) -> String {
    json!({"TTL": ttl.to_string()}).to_string()
}

pub(super) fn lease(id: i64) -> String {
    json!({"ID": id.to_string()}).to_string()
}

pub(super) fn login(name: &str, password: &str) -> String {
    json!({"name": name, "password": password}).to_string()
}

/// Asks a stream of watches for one of a prefix, from a revision on.
pub(super) fn watch(prefix: &str, from: i64, id: i64) -> String {
    let mut object = object(&Keys::Prefix(prefix.to_owned()));
    object.insert("start_revision".to_owned(), from.to_string().into());
    object.insert("watch_id".to_owned(), id.to_string().into());
    // Without events it is told from time to time how far it has come.
    object.insert("progress_notify".to_owned(), true.into());
    // What is longer than a request may be comes in parts.
    object.insert("fragment".to_owned(), true.into());
    json!({"create_request": object}).to_string()
}

/// Asks a stream to end a watch.
pub(super) fn cancel(id: i64) -> String {
    json!({"cancel_request": {"watch_id": id.to_string()}}).to_string()
}

/// Asks a stream for a sign of life.
pub(super) const PROGRESS: &str = "{\"progress_request\":{}}";

/// A whole number, written as one or as a string.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Int<T>(T);

impl<'de, T: TryFrom<u64> + TryFrom<i64> + std::str::FromStr> Deserialize<'de> for Int<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Expected<T>(std::marker::PhantomData<T>);
        impl<T: TryFrom<u64> + TryFrom<i64> + std::str::FromStr> Visitor<'_> for Expected<T> {
            type Value = Int<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of 64 bits")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Int<T>, E> {
                number.try_into().map(Int).map_err(|_| E::custom("a number is too large"))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Int<T>, E> {
                number.try_into().map(Int).map_err(|_| E::custom("a number is negative"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Int<T>, E> {
                text.parse().map(Int).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Expected(std::marker::PhantomData))
    }
}

/// Bytes, written in base64.
#[derive(Debug, Default)]
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        STANDARD.decode(&*text).map(Self).map_err(|_| de::Error::custom("bytes are not in base64"))
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct HeaderWire {
    cluster_id: Int<u64>,
    member_id: Int<u64>,
    revision: Int<i64>,
}

/// The header of an answer. One of another program has none, and is no answer of an etcd without keys.
fn header(wire: &HeaderWire) -> Result<Header, String> {
    let header = Header { cluster_id: wire.cluster_id.0, member_id: wire.member_id.0, revision: wire.revision.0 };
    if header.cluster_id == 0 || header.revision <= 0 {
        return Err("it does not answer as etcd does: its answer names no cluster and no revision".to_owned());
    }
    Ok(header)
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct KeyValueWire {
    key: Bytes,
    value: Bytes,
    create_revision: Int<i64>,
    mod_revision: Int<i64>,
    version: Int<i64>,
    lease: Int<i64>,
}

fn text(key: Vec<u8>) -> String {
    String::from_utf8(key).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

impl From<KeyValueWire> for KeyValue {
    fn from(wire: KeyValueWire) -> Self {
        Self {
            key: text(wire.key.0),
            value: wire.value.0,
            create_revision: wire.create_revision.0,
            mod_revision: wire.mod_revision.0,
            version: wire.version.0,
            lease: wire.lease.0,
        }
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct RangeWire {
    header: HeaderWire,
    kvs: Vec<KeyValueWire>,
    more: bool,
    count: Int<u64>,
}

/// Keys that were read, and the last of them as it is written.
pub(super) struct Read {
    pub(super) range: Range,
    pub(super) last: Option<Vec<u8>>,
}

fn read(wire: RangeWire, header: Header) -> Result<Read, String> {
    if wire.more && wire.kvs.is_empty() {
        return Err("it answers no keys and says that more follow".to_owned());
    }
    // What says that there are more keys than it has, and not that more follow, is not whole.
    if !wire.more && wire.count.0 != wire.kvs.len() as u64 {
        return Err(format!("it answers {} keys and says that there are {}", wire.kvs.len(), wire.count.0));
    }
    let last = wire.kvs.last().map(|pair| pair.key.0.clone());
    let keys = wire.kvs.into_iter().map(KeyValue::from).collect();
    Ok(Read { range: Range { header, keys, more: wire.more }, last })
}

/// What is no JSON, or not what is expected.
fn from_json<'a, T: serde::Deserialize<'a>>(answer: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(answer).map_err(|error| format!("it does not answer as etcd does: {error}"))
}

pub(super) fn range_answer(answer: &[u8]) -> Result<Read, String> {
    let wire: RangeWire = from_json(answer)?;
    let header = header(&wire.header)?;
    read(wire, header)
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct TxnWire {
    header: HeaderWire,
    succeeded: bool,
    responses: Vec<DoneWire>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct DoneWire {
    response_put: Option<de::IgnoredAny>,
    response_delete_range: Option<DeletedWire>,
    response_range: Option<RangeWire>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct DeletedWire {
    deleted: Int<u64>,
}

/// What a transaction did, whose parts it has to answer one by one.
pub(super) fn txn_answer(txn: &Txn, answer: &[u8]) -> Result<TxnAnswer, String> {
    let wire: TxnWire = from_json(answer)?;
    let header = header(&wire.header)?;
    let asked = if wire.succeeded { &txn.success } else { &txn.failure };
    if asked.len() != wire.responses.len() {
        return Err(format!("it answers {} parts of {}", wire.responses.len(), asked.len()));
    }
    let part = |(op, wire): (&Op, DoneWire)| match (op, wire) {
        (Op::Put { .. }, DoneWire { response_put: Some(_), .. }) => Ok(Done::Put),
        (Op::Delete(_), DoneWire { response_delete_range: Some(wire), .. }) => Ok(Done::Deleted(wire.deleted.0)),
        (Op::Range { .. }, DoneWire { response_range: Some(wire), .. }) => read(wire, header).map(|read| Done::Range(read.range)),
        _ => Err("it answers a part by what is of another".to_owned()),
    };
    let done = asked.iter().zip(wire.responses).map(part).collect::<Result<_, _>>()?;
    Ok(TxnAnswer { header, succeeded: wire.succeeded, done })
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct LeaseWire {
    header: HeaderWire,
    #[serde(rename = "ID")]
    id: Int<i64>,
    #[serde(rename = "TTL")]
    ttl: Int<i64>,
    error: String,
}

pub(super) fn lease_answer(answer: &[u8]) -> Result<Lease, String> {
    let wire: LeaseWire = from_json(answer)?;
    header(&wire.header)?;
    match (wire.id.0, wire.error.is_empty()) {
        (0, true) => Err("it answers a lease without a number".to_owned()),
        (_, false) => Err(format!("no lease: {}", wire.error)),
        (id, true) => Ok(Lease { id, ttl: wire.ttl.0 }),
    }
}

pub(super) fn revoked_answer(answer: &[u8]) -> Result<(), String> {
    let wire: LeaseWire = from_json(answer)?;
    header(&wire.header).map(|_| ())
}

/// What a stream says: a message, or why there is none.
#[derive(Debug, serde::Deserialize)]
struct Streamed<T> {
    result: Option<T>,
    error: Option<ToldWire>,
}

/// The lease, and for how long it now lives; 0 where it is no more.
pub(super) fn kept_answer(answer: &[u8]) -> Result<Lease, String> {
    let wire: Streamed<LeaseWire> = from_json(answer)?;
    match (wire.result, wire.error) {
        (Some(lease), _) => header(&lease.header).map(|_| Lease { id: lease.id.0, ttl: lease.ttl.0 }),
        (None, Some(error)) => Err(error.message),
        (None, None) => Err("it does not answer as etcd does: neither a result nor an error".to_owned()),
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct StatusWire {
    header: HeaderWire,
    version: String,
    #[serde(rename = "dbSize")]
    db_size: Int<i64>,
    #[serde(rename = "dbSizeInUse")]
    db_size_in_use: Int<i64>,
    leader: Int<u64>,
    errors: Vec<String>,
}

pub(super) fn status_answer(answer: &[u8]) -> Result<Status, String> {
    let wire: StatusWire = from_json(answer)?;
    Ok(Status {
        header: header(&wire.header)?,
        version: wire.version,
        db_size: wire.db_size.0,
        db_size_in_use: wire.db_size_in_use.0,
        leader: wire.leader.0,
        errors: wire.errors,
    })
}

pub(super) fn token_answer(answer: &[u8]) -> Result<String, String> {
    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default)]
    struct TokenWire {
        token: String,
    }
    let TokenWire { token } = from_json(answer)?;
    let plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if plain { Ok(token) } else { Err("it answers no token".to_owned()) }
}

/// An error: of a plain answer (`code`), or of a stream (`grpc_code`).
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct ToldWire {
    code: Option<Int<i64>>,
    grpc_code: Option<Int<i64>>,
    message: String,
}

impl ToldWire {
    fn told(self) -> Told {
        let code = self.grpc_code.or(self.code).map_or(-1, |code| code.0);
        Told { code, message: self.message }
    }
}

/// The error in an answer that is no success, if it is etcd's.
pub(super) fn told_answer(answer: &[u8]) -> Option<Told> {
    let wire: ToldWire = serde_json::from_slice(answer).ok()?;
    wire.code.is_some().then(|| wire.told())
}

/// A message of a stream of watches.
#[derive(Debug)]
pub(super) struct WatchMessage {
    pub(super) id: i64,
    /// It may be 0 with a watch that ends.
    pub(super) revision: i64,
    pub(super) created: bool,
    pub(super) canceled: bool,
    pub(super) compact_revision: i64,
    pub(super) reason: String,
    /// More of it follows.
    pub(super) fragment: bool,
    pub(super) events: Vec<Event>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct WatchWire {
    header: HeaderWire,
    watch_id: Int<i64>,
    created: bool,
    canceled: bool,
    compact_revision: Int<i64>,
    cancel_reason: String,
    fragment: bool,
    events: Vec<EventWire>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct EventWire {
    #[serde(rename = "type")]
    kind: Option<String>,
    kv: KeyValueWire,
}

/// A line of a stream of watches: a message, or etcd's error.
pub(super) fn watch_message(line: &[u8]) -> Result<Result<WatchMessage, Told>, String> {
    let wire: Streamed<WatchWire> = from_json(line)?;
    let wire = match (wire.result, wire.error) {
        (Some(message), _) => message,
        (None, Some(error)) => return Ok(Err(error.told())),
        (None, None) => return Err("it does not answer as etcd does: neither a result nor an error".to_owned()),
    };
    if wire.header.cluster_id.0 == 0 {
        return Err("it does not answer as etcd does: its message names no cluster".to_owned());
    }
    let event = |EventWire { kind, kv }: EventWire| match kind.as_deref() {
        _ if kv.key.0.is_empty() || kv.mod_revision.0 <= 0 => Err("an event has no key or no revision".to_owned()),
        None | Some("PUT") => Ok(Event::Put(kv.into())),
        Some("DELETE") => Ok(Event::Delete { key: text(kv.key.0), mod_revision: kv.mod_revision.0 }),
        Some(other) => Err(format!("an event is of the unknown kind {other:?}")),
    };
    Ok(Ok(WatchMessage {
        id: wire.watch_id.0,
        revision: wire.header.revision.0,
        created: wire.created,
        canceled: wire.canceled,
        compact_revision: wire.compact_revision.0,
        reason: wire.cancel_reason,
        fragment: wire.fragment,
        events: wire.events.into_iter().map(event).collect::<Result<_, _>>()?,
    }))
}

#[cfg(test)]
#[path = "wire/tests.rs"]
mod tests;
