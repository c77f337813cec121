//! Calls and their answers.
//!
//! Each call is answered by its own task, because identifying the caller needs a call back to the bus. The number of tasks is
//! limited.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use zbus::connection::Connection;
use zbus::message::{Flags, Header};
use zbus::{DynamicType, Fd, Message, MessageStream, OwnedObjectPath, Variant};

use crate::access::{Access, Peer, SocketKind};
use crate::model::{Owner, PortId};
use crate::service::PortView;
use crate::telemetry::meters;
use crate::telemetry::meters::OK;

use super::Bus;
use super::cache::{PropertyCache, Shown, Values};
use super::caller::Callers;
use super::error::CallError;
use super::object::{Object, path, segment};
use super::xml::{self, AGENT, INTROSPECTABLE, OBJECT_MANAGER, PEER, PORT, PROPERTIES};

/// The most ports one `ListPorts` answers with.
pub const PAGE: u32 = 1000;

/// The most calls that are answered at the same time.
const LIMIT: usize = 64;

/// The maximum number of descriptors in a message, which dbus-daemon enforces by default (`max_message_unix_fds`); it disconnects
/// a sender that exceeds it.
const DESCRIPTORS: u16 = 16;

/// The shared state of all calls.
pub(super) struct Calls {
    bus: Bus,
    connection: Connection,
    cache: Arc<PropertyCache>,
    callers: Callers,
    /// Allows one answer with all ports at a time.
    long: Semaphore,
}

/// A call's answer, or its error.
type Answer = Result<Message, CallError>;

impl Calls {
    pub(super) fn new(bus: Bus, connection: Connection, cache: Arc<PropertyCache>) -> Arc<Self> {
        Arc::new(Self { bus, connection, cache, callers: Callers::default(), long: Semaphore::new(1) })
    }

    /// Answers until the stream ends.
    pub(super) async fn run(self: Arc<Self>, mut calls: MessageStream) {
        let mut answering = JoinSet::new();
        while let Some(Ok(call)) = calls.next().await {
            while answering.try_join_next().is_some() {}
            if answering.len() < LIMIT {
                let calls = Arc::clone(&self);
                answering.spawn(async move {
                    let answer = calls.carry_out(&call).await;
                    calls.send(&call, answer).await;
                });
            } else {
                self.send(&call, Err(CallError::Crowded(LIMIT))).await;
            }
        }
    }

    async fn send(&self, call: &Message, answer: Answer) {
        meters().called(answer.as_ref().map_or_else(CallError::word, |_| OK));
        if let Err(error) = &answer {
            tracing::debug!(%error, "call on the bus refused");
        }
        let header = call.header();
        if header.primary().flags().contains(Flags::NO_REPLY_EXPECTED) {
            return;
        }
        let message = answer.or_else(|error| error.message(&header));
        let sent = match message {
            Ok(message) => self.connection.send(&message).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "an answer could not be sent on the bus");
        }
    }

    async fn carry_out(&self, call: &Message) -> Answer {
        let header = call.header();
        let path = header.path().map(ToString::to_string).unwrap_or_default();
        let member = header.member().map(ToString::to_string).unwrap_or_default();
        let asked = header.interface().map(ToString::to_string);
        let of = |interface: &str| asked.as_deref().is_none_or(|asked| asked == interface);
        if member == "Ping" && of(PEER) {
            return answer(&header, &());
        }
        let peer = self.callers.who(&self.connection, header.sender()).await?;
        if member == "OpenTap" && of(PORT) {
            return self.open_tap(&header, &path, &peer).await;
        }
        self.may_read(&peer)?;
        self.cache.caught_up(self.bus.service.events().newest()).await;
        let object = self.object(&path)?;
        match (object, member.as_str()) {
            (_, "Introspect") if of(INTROSPECTABLE) => self.introspect(&header, object).await,
            (Object::Agent, "ListPorts") if of(AGENT) => self.list(&header, call),
            (Object::Agent, "GetManagedObjects") if of(OBJECT_MANAGER) => self.get_managed_objects(&header).await,
            (Object::Agent | Object::Port(_), "Get") if of(PROPERTIES) => self.get(&header, call, object),
            (Object::Agent | Object::Port(_), "GetAll") if of(PROPERTIES) => self.get_all(&header, call, object),
            (Object::Agent | Object::Port(_), "Set") if of(PROPERTIES) => {
                let body = call.body();
                let (_, name, _): (&str, &str, Variant<'_>) = arguments(&body, "ssv")?;
                Err(CallError::ReadOnly(name.to_owned()))
            }
            _ => {
                let member = asked.map_or_else(|| member.clone(), |interface| format!("{interface}.{member}"));
                Err(CallError::UnknownMethod { path, member })
            }
        }
    }

    fn may_read(&self, peer: &Peer) -> Result<(), CallError> {
        match Access::of(peer, SocketKind::View, &self.bus.admitted) {
            Access::Full | Access::ReadOnly => Ok(()),
            Access::Denied => {
                let uid = peer.uid;
                Err(CallError::AccessDenied(format!("uid {uid} may not read here; root and members of nicd's groups may")))
            }
        }
    }

    /// What is at a path, if it is there.
    fn object(&self, path: &str) -> Result<Object, CallError> {
        let there = |object: &Object| match object {
            Object::Port(port) => self.cache.ports().contains_key(port),
            Object::Above(_) | Object::Agent | Object::Ports => true,
        };
        Object::at(path).filter(there).ok_or_else(|| CallError::UnknownObject(path.to_owned()))
    }

    fn port(&self, port: PortId) -> Result<Shown, CallError> {
        self.cache.port(port).ok_or_else(|| CallError::UnknownObject(path(port).to_string()))
    }

    async fn introspect(&self, header: &Header<'_>, object: Object) -> Answer {
        match object {
            Object::Above(child) => answer(header, &xml::node("", [child.to_owned()])),
            Object::Agent => answer(header, &xml::node(&xml::agent(), ["port".to_owned()])),
            Object::Port(_) => answer(header, &xml::node(&xml::port(), [])),
            Object::Ports => {
                let _one = self.long.acquire().await;
                let ports: Vec<PortId> = self.cache.ports().keys().copied().collect();
                answer(header, &xml::node("", ports.into_iter().map(segment)))
            }
        }
    }

    /// `ListPorts`: a page of paths, ids and statuses, in the order of the ids.
    fn list(&self, header: &Header<'_>, call: &Message) -> Answer {
        let (offset, limit): (u32, u32) = arguments(&call.body(), "uu")?;
        // 0 means the maximum.
        let limit = if limit == 0 { PAGE } else { limit.min(PAGE) };
        let number = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let page: Vec<(OwnedObjectPath, String, &str)> = {
            let ports = self.cache.ports();
            let page = ports.iter().skip(number(offset)).take(number(limit));
            page.map(|(port, shown)| (path(*port), port.to_string(), shown.status)).collect()
        };
        answer(header, &page)
    }

    /// Answers `GetManagedObjects`.
    async fn get_managed_objects(&self, header: &Header<'_>) -> Answer {
        let _one = self.long.acquire().await;
        let ports = self.cache.ports().clone();
        let objects: HashMap<OwnedObjectPath, HashMap<&str, Values<'_>>> =
            ports.iter().map(|(port, shown)| (path(*port), HashMap::from([(PORT, shown.all())]))).collect();
        answer(header, &objects)
    }

    fn get(&self, header: &Header<'_>, call: &Message, object: Object) -> Answer {
        let body = call.body();
        let (interface, name): (&str, &str) = arguments(&body, "ss")?;
        let unknown = || CallError::UnknownProperty(name.to_owned());
        match (object, interface) {
            (Object::Agent, AGENT) => answer(header, &self.agent().remove(name).ok_or_else(unknown)?),
            (Object::Port(port), PORT) => answer(header, &self.port(port)?.get(name).ok_or_else(unknown)?),
            _ => Err(CallError::UnknownInterface(interface.to_owned())),
        }
    }

    fn get_all(&self, header: &Header<'_>, call: &Message, object: Object) -> Answer {
        let body = call.body();
        let interface: &str = arguments(&body, "s")?;
        match (object, interface) {
            (Object::Agent, AGENT) => answer(header, &self.agent()),
            (Object::Port(port), PORT) => answer(header, &self.port(port)?.all()),
            // These have none.
            (_, INTROSPECTABLE | PROPERTIES | PEER) | (Object::Agent, OBJECT_MANAGER) => answer(header, &Values::new()),
            _ => Err(CallError::UnknownInterface(interface.to_owned())),
        }
    }

    fn agent(&self) -> Values<'static> {
        let ports = u32::try_from(self.cache.ports().len()).unwrap_or(u32::MAX);
        HashMap::from([("Version", env!("CARGO_PKG_VERSION").into()), ("PortCount", ports.into())])
    }

    /// `OpenTap`. The answer holds the descriptors, and with it they are closed here.
    async fn open_tap(&self, header: &Header<'_>, path: &str, peer: &Peer) -> Answer {
        let port = match Object::at(path) {
            Some(Object::Port(port)) => self.bus.service.port(port).ok(),
            _ => None,
        };
        if !self.may_open(peer, port.as_ref()) {
            let uid = peer.uid;
            let who = "root, members of nicd's group and the uid that the tap was made for may";
            return Err(CallError::AccessDenied(format!("uid {uid} may not open this tap; {who}")));
        }
        let Some(port) = port else { return Err(CallError::UnknownObject(path.to_owned())) };
        let queues = port.binding.and_then(|binding| binding.tap).map_or(1, |tap| tap.queues);
        if queues > DESCRIPTORS {
            return Err(CallError::TooManyQueues { queues, limit: DESCRIPTORS });
        }
        let opened: Vec<OwnedFd> = self.bus.service.open_tap(port.port.id).await?;
        answer(header, &opened.into_iter().map(Fd::from).collect::<Vec<Fd<'_>>>())
    }

    /// Admits root, the group, and the tap's owner; the owner needs the gid too if one was given.
    fn may_open(&self, peer: &Peer, port: Option<&PortView>) -> bool {
        if Access::of(peer, SocketKind::Main, &self.bus.admitted) == Access::Full {
            return true;
        }
        let tap = port.and_then(|port| port.binding.as_ref()).and_then(|binding| binding.tap);
        match tap.map(|tap| tap.owner) {
            Some(Owner { uid: Some(uid), gid }) => uid == peer.uid && gid.is_none_or(|gid| peer.is_in(Some(gid))),
            _ => false,
        }
    }
}

fn answer<B: serde::Serialize + DynamicType>(call: &Header<'_>, body: &B) -> Answer {
    Ok(Message::method_return(call).build(body)?)
}

/// A call's arguments, which must be of the types expected.
fn arguments<'b, B>(body: &'b zbus::message::Body, expected: &'static str) -> Result<B, CallError>
where
    B: serde::Deserialize<'b> + zbus::Type,
{
    let refuse = |_| CallError::InvalidArgs { given: body.signature().to_string_no_parens(), expected };
    body.deserialize().map_err(refuse)
}
