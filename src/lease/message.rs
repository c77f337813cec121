//! DHCPv4 messages: what a client sends is read, what it is told is written (RFC 2131, RFC 2132, RFC 3396).
//!
//! Reading is lenient in what does not matter: an option that no one reads is not looked into. It needs no more than the octets
//! that are there, does not recurse, and takes each octet once.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use crate::model::Mac;

use super::code;

/// The octets before the options: BOOTP's fields and the magic number.
const FIXED: usize = 240;

#[cfg(test)]
pub(super) const FIXED_LENGTH: usize = FIXED;

/// The number before the options (RFC 2131, 3).
const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// BOOTP's messages have at least so many octets (RFC 1542, 2.1); relays and boot ROMs drop shorter ones.
const SHORTEST: usize = 300;

/// A client's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it says.
    pub kind: Kind,
    /// The client's number of the exchange.
    pub xid: u32,
    /// Whether the client takes answers that are sent to all only.
    pub broadcast: bool,
    /// The flags as they came.
    pub flags: u16,
    /// The address that the client has, or unspecified.
    pub ciaddr: Ipv4Addr,
    /// The relay that sent it on, or unspecified.
    pub giaddr: Ipv4Addr,
    /// The client's MAC.
    pub chaddr: Mac,
    /// Its options by number, each put together (RFC 3396).
    pub options: BTreeMap<u8, Vec<u8>>,
}

/// What a message says (option 53).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A client looks for a server.
    Discover,
    /// A server's offer.
    Offer,
    /// A client takes an offer, or goes on with an address.
    Request,
    /// A client found its address in use.
    Decline,
    /// A server agrees.
    Ack,
    /// A server does not.
    Nak,
    /// A client gives its address up.
    Release,
    /// A client with an address asks for the rest.
    Inform,
    /// Anything else.
    Other(u8),
}

impl Kind {
    /// All that have a name.
    pub const NAMED: [Self; 8] =
        [Self::Discover, Self::Offer, Self::Request, Self::Decline, Self::Ack, Self::Nak, Self::Release, Self::Inform];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discover => "discover",
            Self::Offer => "offer",
            Self::Request => "request",
            Self::Decline => "decline",
            Self::Ack => "ack",
            Self::Nak => "nak",
            Self::Release => "release",
            Self::Inform => "inform",
            Self::Other(_) => "other",
        }
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Self::Discover => 1,
            Self::Offer => 2,
            Self::Request => 3,
            Self::Decline => 4,
            Self::Ack => 5,
            Self::Nak => 6,
            Self::Release => 7,
            Self::Inform => 8,
            Self::Other(number) => number,
        }
    }
}

impl From<u8> for Kind {
    fn from(number: u8) -> Self {
        Self::NAMED.into_iter().find(|kind| kind.number() == number).unwrap_or(Self::Other(number))
    }
}

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It is cut off, or is no DHCP message.
    Malformed,
    /// It is a server's.
    NotRequest,
    /// It is of another hardware than Ethernet.
    Hardware,
}

impl Message {
    /// Reads a client's message.
    ///
    /// # Errors
    /// It is no client's message over Ethernet. An option that is cut off makes it malformed, and so does one that never ends.
    pub fn read(octets: &[u8]) -> Result<Self, Unreadable> {
        let fixed = octets.first_chunk::<FIXED>().ok_or(Unreadable::Malformed)?;
        let [op, htype, hlen, _hops, ..] = *fixed;
        let word = |at: usize| [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
        if fixed[FIXED - 4..] != MAGIC {
            return Err(Unreadable::Malformed);
        }
        if op != 1 {
            return Err(Unreadable::NotRequest);
        }
        if (htype, hlen) != (1, 6) {
            return Err(Unreadable::Hardware);
        }
        let flags = u16::from_be_bytes([fixed[10], fixed[11]]);
        let [a, b, c, d] = word(28);
        let mut options = BTreeMap::new();
        read_options(&octets[FIXED..], &mut options)?;
        // RFC 2132, 9.3: `file` first, then `sname` (RFC 3396, 5).
        let overload = options.remove(&code::OVERLOAD).and_then(|value| value.first().copied()).unwrap_or_default();
        if overload & 1 != 0 {
            read_options(&fixed[108..236], &mut options)?;
        }
        if overload & 2 != 0 {
            read_options(&fixed[44..108], &mut options)?;
        }
        let kind = match options.get(&code::MESSAGE_TYPE).map(Vec::as_slice) {
            Some([number]) => Kind::from(*number),
            _ => return Err(Unreadable::Malformed),
        };
        Ok(Self {
            kind,
            xid: u32::from_be_bytes(word(4)),
            broadcast: flags & 0x8000 != 0,
            flags,
            ciaddr: word(12).into(),
            giaddr: word(24).into(),
            chaddr: Mac([a, b, c, d, fixed[32], fixed[33]]),
            options,
        })
    }

    /// Whether a relay has sent it on.
    pub fn is_relayed(&self) -> bool {
        !self.giaddr.is_unspecified()
    }

    /// An option that is one address.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        <[u8; 4]>::try_from(self.options.get(&code)?.as_slice()).ok().map(Ipv4Addr::from)
    }

    /// The options that the client asks for, in its order; none where it does not say.
    pub fn wishes(&self) -> Option<&[u8]> {
        self.options.get(&code::WISHES).map(Vec::as_slice)
    }

    /// The largest message that the client takes, with the headers of IP and UDP, in octets (RFC 2132, 9.10).
    pub fn largest(&self) -> usize {
        let said = self.options.get(&code::LARGEST).and_then(|value| <[u8; 2]>::try_from(value.as_slice()).ok());
        usize::from(said.map_or(0, u16::from_be_bytes)).max(576)
    }
}

/// Reads options up to the end mark, or to the end: who leaves the mark out is understood. What is cut off is not.
fn read_options(mut octets: &[u8], options: &mut BTreeMap<u8, Vec<u8>>) -> Result<(), Unreadable> {
    loop {
        octets = match octets {
            [] | [code::END, ..] => return Ok(()),
            [code::PAD, rest @ ..] => rest,
            [code, length, rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(*length)).ok_or(Unreadable::Malformed)?;
                options.entry(*code).or_default().extend_from_slice(value);
                rest
            }
            [_] => return Err(Unreadable::Malformed),
        };
    }
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What it says.
    pub kind: Kind,
    /// The client's number of the exchange.
    pub xid: u32,
    /// The client's flags.
    pub flags: u16,
    /// The address that the client has, or unspecified.
    pub ciaddr: Ipv4Addr,
    /// The address that it is given, or unspecified.
    pub yiaddr: Ipv4Addr,
    /// Where the next server is, or unspecified.
    pub siaddr: Ipv4Addr,
    /// The relay that it goes by, or unspecified.
    pub giaddr: Ipv4Addr,
    /// The client's MAC.
    pub chaddr: Mac,
    /// The name of its boot file, for clients that read BOOTP's field alone.
    pub file: Vec<u8>,
    /// Its options: the message type first, what matters least last.
    pub options: Vec<(u8, Vec<u8>)>,
    /// The most octets that it may have.
    pub room: usize,
}

/// Places for options, and how much of each is used.
struct Places {
    room: [usize; 3],
    octets: [Vec<u8>; 3],
}

impl Places {
    /// Puts an option into the first place that has room for all of it, else into several; whether there is room.
    fn put(&mut self, code: u8, value: &[u8]) -> bool {
        let parts = (0..3)
            .find_map(|at| self.parts(at..=at, value))
            // They are put together in the order of the places (RFC 3396, 5).
            .or_else(|| self.parts(0..=2, value));
        for (at, part) in parts.iter().flatten() {
            self.octets[*at].extend([code, u8::try_from(part.len()).unwrap_or(255)]);
            self.octets[*at].extend_from_slice(part);
        }
        parts.is_some()
    }

    /// The parts of a value, each with its place; none where these places have no room for all of it. A long option is several with
    /// its number, one behind the other (RFC 3396).
    fn parts<'a>(&self, places: RangeInclusive<usize>, mut value: &'a [u8]) -> Option<Vec<(usize, &'a [u8])>> {
        let mut parts = Vec::new();
        for at in places {
            let mut room = self.room[at].saturating_sub(self.octets[at].len());
            while room > 2 || room == 2 && value.is_empty() {
                let (part, rest) = value.split_at(value.len().min(255).min(room - 2));
                parts.push((at, part));
                if rest.is_empty() {
                    return Some(parts);
                }
                (value, room) = (rest, room - 2 - part.len());
            }
        }
        None
    }
}

impl Reply {
    /// The message's octets. Options that do not fit behind the others go into BOOTP's unused fields (RFC 2132, 9.3); what does not
    /// fit there either is left out. The numbers of those come with it.
    pub fn write(&self) -> (Vec<u8>, Vec<u8>) {
        // A name that is longer than the field is in its option alone: half of it would be another file's.
        let file = if self.file.len() > 127 { &[] } else { &self.file[..] };
        // Each place keeps room for its end mark, the first one for what says that the others are used as well.
        let room = self.room.saturating_sub(FIXED + 4);
        let mut places = Places { room: [room, if file.is_empty() { 127 } else { 0 }, 63], octets: Default::default() };
        let left_out = self.options.iter().filter(|(code, value)| !places.put(*code, value)).map(|(code, _)| *code).collect();
        let [mut options, mut in_file, mut in_sname] = places.octets;
        let overload = u8::from(!in_file.is_empty()) | u8::from(!in_sname.is_empty()) << 1;
        if overload != 0 {
            options.extend([code::OVERLOAD, 1, overload]);
        }
        for used in [&mut options, &mut in_file, &mut in_sname] {
            if !used.is_empty() {
                used.push(code::END);
            }
        }
        if in_file.is_empty() {
            in_file = file.to_vec();
        }
        in_file.resize(128, 0);
        in_sname.resize(64, 0);
        let mut octets = vec![2, 1, 6, 0];
        octets.extend(self.xid.to_be_bytes());
        octets.extend([0, 0]);
        octets.extend(self.flags.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            octets.extend(address.octets());
        }
        octets.extend(self.chaddr.0);
        octets.extend([0; 10]);
        octets.extend(in_sname);
        octets.extend(in_file);
        octets.extend(MAGIC);
        octets.extend(options);
        octets.resize(octets.len().max(SHORTEST), code::PAD);
        (octets, left_out)
    }
}
