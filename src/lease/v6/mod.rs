//! What a port's guest is told by DHCPv6 (RFC 8415): a client's message and what the port is go in, an answer or silence comes out.
//!
//! As pure as DHCPv4 beside it, and the ports are the leases here too: neither the client's DUID nor its number of an association
//! decides anything. The first association for addresses gets all of the port's; nothing is given for others.

pub mod message;
mod options;

use std::net::Ipv6Addr;

use ipnetwork::Ipv6Network;
use uuid::Uuid;

use crate::model::ExtraOption;

pub use message::{Association, Kind, Message, Of, Reply, Unreadable};

/// Where clients send to (`All_DHCP_Relay_Agents_and_Servers`).
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Numbers of options (RFC 8415, 21, and those named).
pub mod code {
    /// The client's DUID.
    pub const CLIENT: u16 = 1;
    /// The server's DUID.
    pub const SERVER: u16 = 2;
    /// An association for addresses.
    pub const IA_NA: u16 = 3;
    /// An association for temporary addresses.
    pub const IA_TA: u16 = 4;
    /// An address of an association.
    pub const ADDRESS: u16 = 5;
    /// What the client wishes to be told.
    pub const WISHES: u16 = 6;
    /// How much better than others the server is.
    pub const PREFERENCE: u16 = 7;
    /// What became of it.
    pub const STATUS: u16 = 13;
    /// That two messages are enough.
    pub const RAPID: u16 = 14;
    /// DNS servers (RFC 3646).
    pub const RESOLVERS: u16 = 23;
    /// Domains to search (RFC 3646).
    pub const SEARCH: u16 = 24;
    /// An association for prefixes.
    pub const IA_PD: u16 = 25;
    /// After which time to ask again for all but addresses.
    pub const REFRESH: u16 = 32;
    /// The host's name (RFC 4704).
    pub const NAME: u16 = 39;
}

/// What became of a request (RFC 8415, 21.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It was done.
    Success = 0,
    /// There is no address to give.
    NoAddresses = 2,
    /// Nothing of it is the client's.
    NoBinding = 3,
    /// An address is not the port's.
    NotOnLink = 4,
    /// Requests go to all servers.
    UseMulticast = 5,
    /// There is no prefix to give.
    NoPrefix = 6,
}

/// What a port's guest is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Who tells it.
    pub server: Uuid,
    /// Its addresses that DHCPv6 gives, possibly none.
    pub addresses: Vec<Ipv6Addr>,
    /// What is on its link.
    pub links: Vec<Ipv6Network>,
    /// The link's MTU in octets.
    pub mtu: u32,
    /// DNS servers.
    pub resolvers: Vec<Ipv6Addr>,
    /// The guest's name.
    pub hostname: Option<String>,
    /// Its domain.
    pub domain: Option<String>,
    /// What a client set for it.
    pub extra: Vec<ExtraOption>,
}

/// An answer with what it means for the port's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The message.
    pub reply: Reply,
    /// What becomes of which address.
    pub event: Option<Event>,
}

/// What becomes of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is offered.
    Offered(Ipv6Addr),
    /// The guest has it.
    Bound(Ipv6Addr),
    /// The guest asked for another one.
    Refused(Ipv6Addr),
    /// The guest asked for the rest.
    Informed,
    /// The guest gives it up.
    Released(Ipv6Addr),
    /// The guest says that it is another's.
    Declined(Ipv6Addr),
}

/// Why a message is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Silence {
    /// It is for another server.
    OtherServer,
    /// It lacks what its kind needs, has what it must not have, or went to one host.
    Incomplete,
    /// It cannot be read.
    Malformed,
    /// No client says such a thing.
    NoRequest,
}

impl Silence {
    /// The stable word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OtherServer => "other_server",
            Self::Incomplete => "incomplete",
            Self::Malformed => "malformed",
            Self::NoRequest => "no_request",
        }
    }
}

/// The server's DUID, of its store's id (RFC 6355).
pub fn duid(server: Uuid) -> Vec<u8> {
    [&[0, 4], &server.as_bytes()[..]].concat()
}

/// What a kind of message must have and must not have (RFC 8415, 16).
struct Rules {
    /// Whether the client says who it is.
    client: bool,
    /// Whether it names a server, where that is not left to it.
    server: Option<bool>,
    /// What becomes of one that was sent to one host.
    to_one: ToOne,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ToOne {
    Dropped,
    /// It is told to send to all.
    Told,
}

fn rules(kind: Kind) -> Option<Rules> {
    let (client, server, to_one) = match kind {
        Kind::Solicit | Kind::Confirm | Kind::Rebind => (true, Some(false), ToOne::Dropped),
        Kind::Request | Kind::Renew | Kind::Release | Kind::Decline => (true, Some(true), ToOne::Told),
        Kind::Information => (false, None, ToOne::Dropped),
        Kind::Advertise | Kind::Reply | Kind::Other(_) => return None,
    };
    Some(Rules { client, server, to_one })
}

/// The answer to a message that was sent to this address.
pub fn answer(message: &Message<'_>, target: Ipv6Addr, told: &Told) -> Result<Answer, Silence> {
    let rules = rules(message.kind).ok_or(Silence::NoRequest)?;
    let server = message.option(code::SERVER);
    let names_client = message.option(code::CLIENT).is_some();
    if (rules.client || names_client) && message.client().is_none() {
        return Err(Silence::Incomplete);
    }
    if rules.server.is_some_and(|must| must != server.is_some()) {
        return Err(Silence::Incomplete);
    }
    if server.is_some_and(|server| server != duid(told.server)) {
        return Err(Silence::OtherServer);
    }
    let asked = message.associations().map_err(|_| Silence::Malformed)?;
    match (target == ALL_SERVERS, rules.to_one) {
        (true, _) => {}
        (false, ToOne::Dropped) => return Err(Silence::Incomplete),
        (false, ToOne::Told) => return Ok(plain(message, told, Status::UseMulticast, None)),
    }
    let own = |address: &Ipv6Addr| told.addresses.contains(address);
    let named = || asked.iter().flat_map(|one| &one.addresses).copied();
    match message.kind {
        Kind::Solicit => Ok(solicited(message, told, &asked)),
        Kind::Request | Kind::Renew | Kind::Rebind => {
            let given = asked.iter().find(|one| one.of == Of::Addresses).filter(|one| !is_off_link(message, told, one));
            let given = given.and_then(|_| told.addresses.first().copied());
            let event = given.map(Event::Bound).or_else(|| named().next().map(Event::Refused));
            Ok(configured(message, told, &asked, Kind::Reply, event))
        }
        Kind::Confirm => match (named().next(), named().find(|address| !own(address))) {
            (None, _) => Err(Silence::Incomplete),
            (Some(first), None) => Ok(plain(message, told, Status::Success, Some(Event::Bound(first)))),
            (Some(_), Some(other)) => Ok(plain(message, told, Status::NotOnLink, Some(Event::Refused(other)))),
        },
        Kind::Release => Ok(given_back(message, told, &asked, named().find(own).map(Event::Released))),
        Kind::Decline => Ok(given_back(message, told, &asked, named().find(own).map(Event::Declined))),
        // RFC 8415, 16.12.
        Kind::Information if !asked.is_empty() => Err(Silence::Incomplete),
        Kind::Information => Ok(configured(message, told, &[], Kind::Reply, Some(Event::Informed))),
        Kind::Advertise | Kind::Reply | Kind::Other(_) => Err(Silence::NoRequest),
    }
}

/// Two messages are enough where the client says so and there is an address to give (RFC 8415, 18.3.1).
fn solicited(message: &Message<'_>, told: &Told, asked: &[Association]) -> Answer {
    let given = asked.iter().find(|one| one.of == Of::Addresses).and_then(|_| told.addresses.first().copied());
    match given {
        Some(given) if message.option(code::RAPID).is_some() => {
            let mut answer = configured(message, told, asked, Kind::Reply, Some(Event::Bound(given)));
            let behind = options::head_length(&answer.reply.options);
            answer.reply.options.insert(behind, (code::RAPID, Vec::new()));
            answer
        }
        _ => {
            let mut answer = configured(message, told, asked, Kind::Advertise, given.map(Event::Offered));
            // There is no other server: the client need not wait for one.
            let behind = options::head_length(&answer.reply.options);
            answer.reply.options.insert(behind, (code::PREFERENCE, vec![255]));
            answer
        }
    }
}

/// An answer with addresses and the rest.
fn configured(message: &Message<'_>, told: &Told, asked: &[Association], kind: Kind, event: Option<Event>) -> Answer {
    let mut options = options::head(message, told);
    let first = asked.iter().position(|one| one.of == Of::Addresses);
    for (n, one) in asked.iter().enumerate() {
        let given = if first == Some(n) { &told.addresses[..] } else { &[] };
        let answer = match is_off_link(message, told, one) {
            true => options::refused(one, Status::NotOnLink),
            false => options::association(one, given, message.kind),
        };
        options.push((one.of.code(), answer));
    }
    options.extend(options::of_subnet(message, told));
    Answer { reply: reply(message, told, kind, options), event }
}

/// Whether a client that begins asks for an address that is none of its link's (RFC 8415, 18.3.2): it was elsewhere before.
fn is_off_link(message: &Message<'_>, told: &Told, asked: &Association) -> bool {
    let is_on = |address: &Ipv6Addr| told.links.iter().any(|link| link.contains(*address));
    message.kind == Kind::Request && asked.of == Of::Addresses && !asked.addresses.iter().all(is_on)
}

/// An answer with a status alone.
fn plain(message: &Message<'_>, told: &Told, status: Status, event: Option<Event>) -> Answer {
    let mut options = options::head(message, told);
    options.push((code::STATUS, options::status(status)));
    Answer { reply: reply(message, told, Kind::Reply, options), event }
}

/// An answer to who gives addresses up; of what was not the client's it is told so (RFC 8415, 18.3.7 and 18.3.8).
fn given_back(message: &Message<'_>, told: &Told, asked: &[Association], event: Option<Event>) -> Answer {
    let mut answer = plain(message, told, Status::Success, event);
    let others = asked.iter().filter(|one| !one.addresses.iter().any(|address| told.addresses.contains(address)));
    answer.reply.options.extend(others.map(|one| (one.of.code(), options::refused(one, Status::NoBinding))));
    answer
}

fn reply(message: &Message<'_>, told: &Told, kind: Kind, options: Vec<(u16, Vec<u8>)>) -> Reply {
    /// IPv6's and UDP's headers.
    const HEADERS: usize = 48;
    // What is larger than the link's packets is fragmented, which a boot ROM does not put together.
    let room = usize::try_from(told.mtu).unwrap_or(usize::MAX).max(1280) - HEADERS;
    Reply { kind, xid: message.xid, options, room }
}

#[cfg(test)]
mod tests;
