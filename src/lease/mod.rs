//! What a port's guest is told by DHCPv4: a client's message and what the port is go in, an answer or silence comes out. DHCPv6 is in
//! [`v6`], router advertisements in [`advert`].
//!
//! ```text
//!  frame ── frame::read ──► Message ──┐
//!                                     ├──► answer() ──► Ok(Answer) ────── frame::write ──► frame
//!  records ──────────────► Told ──────┘           └──► Err(Silence), with why
//! ```
//!
//! Pure: no clock, no randomness, no I/O, and nothing is remembered. The ports are the leases: a port's guest gets its port's
//! addresses and no others, for as long as it asks. So there is nothing to lose in a restart, and a clock that steps changes nothing.
//! Client identifiers do not matter: which port a message came by decides.

pub mod advert;
pub mod frame;
pub mod frame6;
pub mod message;
mod options;
pub mod v6;

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use crate::model::{ExtraOption, Mac};

pub use message::{Kind, Message, Reply, Unreadable};

/// For how long an address is given, in seconds, unless `lease-time` says otherwise: changes of what guests are told reach them at
/// half of it.
pub const LEASE: u32 = 86_400;

/// Numbers of options (RFC 2132, and those named).
pub mod code {
    /// A filler.
    pub const PAD: u8 = 0;
    /// The subnet's mask.
    pub const MASK: u8 = 1;
    /// The next hop of the default route.
    pub const ROUTER: u8 = 3;
    /// DNS servers.
    pub const RESOLVERS: u8 = 6;
    /// The host's name.
    pub const HOSTNAME: u8 = 12;
    /// The host's domain.
    pub const DOMAIN: u8 = 15;
    /// The link's MTU.
    pub const MTU: u8 = 26;
    /// The subnet's broadcast address.
    pub const BROADCAST: u8 = 28;
    /// The address that a client asks for.
    pub const REQUESTED: u8 = 50;
    /// For how long the address is given.
    pub const LEASE: u8 = 51;
    /// Which of BOOTP's fields have options in them.
    pub const OVERLOAD: u8 = 52;
    /// What the message says.
    pub const MESSAGE_TYPE: u8 = 53;
    /// Which server it is.
    pub const SERVER: u8 = 54;
    /// What the client wishes to be told.
    pub const WISHES: u8 = 55;
    /// The largest message that the client takes.
    pub const LARGEST: u8 = 57;
    /// When it is to renew its lease.
    pub const RENEWAL: u8 = 58;
    /// When it is to ask all servers.
    pub const REBINDING: u8 = 59;
    /// The client's identifier.
    pub const CLIENT: u8 = 61;
    /// The boot server's name.
    pub const BOOT_SERVER: u8 = 66;
    /// The boot file's name.
    pub const BOOT_FILE: u8 = 67;
    /// Domains to search (RFC 3397).
    pub const SEARCH: u8 = 119;
    /// Classless routes (RFC 3442).
    pub const ROUTES: u8 = 121;
    /// The end mark.
    pub const END: u8 = 255;
}

/// What a port's guest is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The port's MAC.
    pub mac: Mac,
    /// Its addresses that DHCP gives, at least one; the first unless the guest asks for another.
    pub addresses: Vec<Given>,
    /// The link's MTU in octets.
    pub mtu: u32,
    /// The guest's name.
    pub hostname: Option<String>,
    /// Its domain.
    pub domain: Option<String>,
    /// What a client set for it.
    pub extra: Vec<ExtraOption>,
}

/// An address with what its subnet says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The address.
    pub address: Ipv4Addr,
    /// The subnet's prefix length.
    pub prefix: u8,
    /// Which server gives it.
    pub server: Ipv4Addr,
    /// The next hop of the default route.
    pub router: Option<Ipv4Addr>,
    /// Further routes.
    pub routes: Vec<(Ipv4Network, Ipv4Addr)>,
    /// DNS servers.
    pub resolvers: Vec<Ipv4Addr>,
}

/// An answer with where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The message.
    pub reply: Reply,
    /// The address of the server that sends it.
    pub source: Ipv4Addr,
    /// The address that it is sent to.
    pub target: Ipv4Addr,
    /// The MAC that it is sent to.
    pub to: Mac,
    /// The UDP port that it is sent to: a client's or, where it goes by a relay, a server's.
    pub port: u16,
}

/// Why a message is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Silence {
    /// It gives the address up.
    Released(Ipv4Addr),
    /// It says that the address is another's.
    Declined(Ipv4Addr),
    /// It is for another server.
    OtherServer,
    /// A relay has sent it on that is not the port's guest.
    Relayed,
    /// It asks for another client than the port's guest.
    OtherClient,
    /// It lacks what its kind needs.
    Incomplete,
    /// No client says such a thing.
    NoRequest,
}

impl Silence {
    /// The stable word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released(_) => "released",
            Self::Declined(_) => "declined",
            Self::OtherServer => "other_server",
            Self::Relayed => "relayed",
            Self::OtherClient => "other_client",
            Self::Incomplete => "incomplete",
            Self::NoRequest => "no_request",
        }
    }
}

/// All of Ethernet, and all of IPv4 on a link.
const EVERYBODY: Mac = Mac([0xff; 6]);

/// The answer to a message (RFC 2131, 4.3). A guest may relay for itself, as load generators do: then the relay's address is one
/// of its port's, and says of which subnet it asks.
pub fn answer(message: &Message, told: &Told) -> Result<Answer, Silence> {
    let own = |address: Ipv4Addr| told.addresses.iter().find(|given| given.address == address);
    let first = match message.is_relayed() {
        true => Some(own(message.giaddr).ok_or(Silence::Relayed)?),
        false => told.addresses.first(),
    };
    if message.chaddr != told.mac {
        return Err(Silence::OtherClient);
    }
    let Some(first) = first else { return Err(Silence::Incomplete) };
    let requested = message.address(code::REQUESTED);
    let server = message.address(code::SERVER);
    let is_for_another = server.is_some_and(|server| told.addresses.iter().all(|given| given.server != server));
    match message.kind {
        Kind::Discover => offer(message, told, requested.and_then(own).unwrap_or(first)),
        Kind::Request if is_for_another => Err(Silence::OtherServer),
        // SELECTING and INIT-REBOOT name the address in an option, RENEWING and REBINDING in the field (RFC 2131, 4.3.2).
        Kind::Request => match requested.or((!message.ciaddr.is_unspecified()).then_some(message.ciaddr)) {
            None => Err(Silence::Incomplete),
            Some(address) => own(address).map_or_else(|| refuse(message, first), |given| agree(message, told, given)),
        },
        Kind::Inform => inform(message, told, own(message.ciaddr).unwrap_or(first)),
        Kind::Release | Kind::Decline if is_for_another => Err(Silence::OtherServer),
        Kind::Release => match own(message.ciaddr) {
            Some(given) => Err(Silence::Released(given.address)),
            None => Err(Silence::Incomplete),
        },
        Kind::Decline => match requested.and_then(own) {
            Some(given) => Err(Silence::Declined(given.address)),
            None => Err(Silence::Incomplete),
        },
        Kind::Offer | Kind::Ack | Kind::Nak | Kind::Other(_) => Err(Silence::NoRequest),
    }
}

fn offer(message: &Message, told: &Told, given: &Given) -> Result<Answer, Silence> {
    let options = options::of_lease(message, told, given, Kind::Offer);
    send(message, Reply { yiaddr: given.address, ..options::reply(message, told, Kind::Offer, options) }, given)
}

fn agree(message: &Message, told: &Told, given: &Given) -> Result<Answer, Silence> {
    let options = options::of_lease(message, told, given, Kind::Ack);
    let reply = options::reply(message, told, Kind::Ack, options);
    send(message, Reply { yiaddr: given.address, ciaddr: message.ciaddr, ..reply }, given)
}

/// The client has an address already: it is told neither one nor for how long (RFC 2131, 4.3.5).
fn inform(message: &Message, told: &Told, given: &Given) -> Result<Answer, Silence> {
    let options = options::of_subnet(message, told, given, Kind::Ack);
    let reply = options::reply(message, told, Kind::Ack, options);
    send(message, Reply { ciaddr: message.ciaddr, ..reply }, given)
}

/// The client begins anew: what it has is not its port's. It goes to all, as the client may not listen at its address
/// (RFC 2131, 4.1).
fn refuse(message: &Message, first: &Given) -> Result<Answer, Silence> {
    let reply = options::refusal(message, first.server);
    addressed(message, reply, first, (Ipv4Addr::BROADCAST, EVERYBODY))
}

/// To the client's address where it has one, to all where it wishes so, else to the address that it is given, which no ARP would find
/// yet (RFC 2131, 4.1).
fn send(message: &Message, reply: Reply, given: &Given) -> Result<Answer, Silence> {
    let to = match (message.ciaddr.is_unspecified(), message.broadcast || reply.yiaddr.is_unspecified()) {
        (false, _) => (message.ciaddr, message.chaddr),
        (true, true) => (Ipv4Addr::BROADCAST, EVERYBODY),
        (true, false) => (reply.yiaddr, message.chaddr),
    };
    addressed(message, reply, given, to)
}

/// To this address and MAC, or to the relay, which is the port's guest, and its port for servers (RFC 2131, 4.1).
fn addressed(message: &Message, reply: Reply, given: &Given, to: (Ipv4Addr, Mac)) -> Result<Answer, Silence> {
    let ((target, to), port) = match message.is_relayed() {
        true => ((message.giaddr, message.chaddr), frame::SERVER),
        false => (to, frame::CLIENT),
    };
    Ok(Answer { reply, source: given.server, target, to, port })
}

/// A name that a guest gives itself comes into terminals and pages: what no host name has is left out of it.
pub fn plain(name: &[u8]) -> String {
    let is_of_name = |octet: &u8| octet.is_ascii_alphanumeric() || b"-._".contains(octet);
    name.iter().copied().filter(is_of_name).map(char::from).collect()
}

#[cfg(test)]
mod tests;
