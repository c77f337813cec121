//! DHCPv6 messages: what a client sends is read, what it is told is written (RFC 8415, 8 and 21).
//!
//! Options are slices of the frame, each looked into once where it matters, and no deeper than the addresses of an association:
//! nothing recurses.

use std::net::Ipv6Addr;

use super::code;

/// The octets before the options: the type and the exchange's number.
const FIXED: usize = 4;

/// What an association begins with: its number, and but for temporary addresses two times.
const ASSOCIATION: usize = 12;

/// A DUID's lengths in octets, with its type (RFC 8415, 11.1).
const DUID: std::ops::RangeInclusive<usize> = 3..=130;

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A client looks for servers.
    Solicit,
    /// A server offers.
    Advertise,
    /// A client takes an offer.
    Request,
    /// A client that may have moved asks whether its addresses fit.
    Confirm,
    /// A client goes on with its addresses, and asks the server that gave them.
    Renew,
    /// The same, and it asks all.
    Rebind,
    /// A server answers.
    Reply,
    /// A client gives addresses up.
    Release,
    /// A client found addresses in use.
    Decline,
    /// A client asks for all but addresses.
    Information,
    /// Anything else.
    Other(u8),
}

impl Kind {
    /// All that have a name.
    pub const NAMED: [Self; 10] = [
        Self::Solicit,
        Self::Advertise,
        Self::Request,
        Self::Confirm,
        Self::Renew,
        Self::Rebind,
        Self::Reply,
        Self::Release,
        Self::Decline,
        Self::Information,
    ];

    /// The word for it, which no message of DHCPv4 has.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Solicit => "solicit",
            Self::Advertise => "advertise",
            Self::Request => "request6",
            Self::Confirm => "confirm",
            Self::Renew => "renew",
            Self::Rebind => "rebind",
            Self::Reply => "reply",
            Self::Release => "release6",
            Self::Decline => "decline6",
            Self::Information => "information_request",
            Self::Other(_) => "other6",
        }
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Self::Solicit => 1,
            Self::Advertise => 2,
            Self::Request => 3,
            Self::Confirm => 4,
            Self::Renew => 5,
            Self::Rebind => 6,
            Self::Reply => 7,
            Self::Release => 8,
            Self::Decline => 9,
            Self::Information => 11,
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
    /// It is cut off, or an option of it is.
    Malformed,
    /// A relay has sent it on, or was to.
    Relayed,
}

/// A client's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it says.
    pub kind: Kind,
    /// The client's number of the exchange.
    pub xid: [u8; 3],
    /// Its options in their order.
    pub options: Vec<(u16, &'a [u8])>,
}

/// What kind of addresses an association is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Addresses (`IA_NA`).
    Addresses,
    /// Temporary ones (`IA_TA`).
    Temporary,
    /// Prefixes (`IA_PD`).
    Prefixes,
}

impl Of {
    pub(super) fn code(self) -> u16 {
        match self {
            Self::Addresses => code::IA_NA,
            Self::Temporary => code::IA_TA,
            Self::Prefixes => code::IA_PD,
        }
    }

    /// The octets before its options.
    pub(super) fn fixed(self) -> usize {
        if self == Self::Temporary { FIXED } else { ASSOCIATION }
    }
}

/// An association of a client's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Association {
    /// What it is for.
    pub of: Of,
    /// The client's number of it.
    pub id: [u8; 4],
    /// The addresses that the client names.
    pub addresses: Vec<Ipv6Addr>,
}

impl<'a> Message<'a> {
    /// Reads a client's message.
    ///
    /// # Errors
    /// It is cut off, or a relay's.
    pub fn read(octets: &'a [u8]) -> Result<Self, Unreadable> {
        let ([kind, a, b, c], rest) = octets.split_first_chunk::<FIXED>().ok_or(Unreadable::Malformed)?;
        // RELAY-FORW and RELAY-REPL.
        if matches!(kind, 12 | 13) {
            return Err(Unreadable::Relayed);
        }
        Ok(Self { kind: Kind::from(*kind), xid: [*a, *b, *c], options: read_options(rest)? })
    }

    /// The first option with a number.
    pub fn option(&self, code: u16) -> Option<&'a [u8]> {
        self.options.iter().find(|(number, _)| *number == code).map(|(_, value)| *value)
    }

    /// What the client calls itself; none where it is no DUID.
    pub fn client(&self) -> Option<&'a [u8]> {
        self.option(code::CLIENT).filter(|duid| DUID.contains(&duid.len()))
    }

    /// The options that the client asks for, in its order; none where it does not say.
    pub fn wishes(&self) -> Option<Vec<u16>> {
        let (wishes, _) = self.option(code::WISHES)?.as_chunks::<2>();
        Some(wishes.iter().copied().map(u16::from_be_bytes).collect())
    }

    /// Its associations in their order.
    ///
    /// # Errors
    /// One is cut off.
    pub fn associations(&self) -> Result<Vec<Association>, Unreadable> {
        let of = |number| [Of::Addresses, Of::Temporary, Of::Prefixes].into_iter().find(|of| of.code() == number);
        let read = |(number, value): &(u16, &'a [u8])| {
            let of = of(*number)?;
            Some(read_association(of, value))
        };
        self.options.iter().filter_map(read).collect()
    }
}

fn read_association(of: Of, value: &[u8]) -> Result<Association, Unreadable> {
    let (fixed, rest) = value.split_at_checked(of.fixed()).ok_or(Unreadable::Malformed)?;
    let id = fixed.first_chunk::<4>().copied().ok_or(Unreadable::Malformed)?;
    let named = read_options(rest)?.into_iter().filter(|(number, _)| *number == code::ADDRESS);
    // Behind the address are two times.
    let address = |(_, value): (u16, &[u8])| {
        let whole = value.first_chunk::<24>().and_then(|whole| whole.first_chunk::<16>());
        whole.map(|octets| Ipv6Addr::from(*octets)).ok_or(Unreadable::Malformed)
    };
    Ok(Association { of, id, addresses: named.map(address).collect::<Result<_, _>>()? })
}

/// Reads options up to the end.
fn read_options(mut octets: &[u8]) -> Result<Vec<(u16, &[u8])>, Unreadable> {
    let mut options = Vec::new();
    while !octets.is_empty() {
        let ([a, b, c, d], rest) = octets.split_first_chunk::<4>().ok_or(Unreadable::Malformed)?;
        let length = usize::from(u16::from_be_bytes([*c, *d]));
        let (value, rest) = rest.split_at_checked(length).ok_or(Unreadable::Malformed)?;
        options.push((u16::from_be_bytes([*a, *b]), value));
        octets = rest;
    }
    Ok(options)
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What it says.
    pub kind: Kind,
    /// The client's number of the exchange.
    pub xid: [u8; 3],
    /// Its options: what matters least last.
    pub options: Vec<(u16, Vec<u8>)>,
    /// The most octets that it may have.
    pub room: usize,
}

impl Reply {
    /// The message's octets, and how many options were left out of it that did not fit.
    pub fn write(&self) -> (Vec<u8>, usize) {
        let [a, b, c] = self.xid;
        let mut octets = vec![self.kind.number(), a, b, c];
        let mut left_out = 0;
        for (number, value) in &self.options {
            if octets.len() + 4 + value.len() <= self.room {
                put(&mut octets, *number, value);
            } else {
                left_out += 1;
            }
        }
        (octets, left_out)
    }
}

/// Puts an option behind the others; one that is longer than its length can say is left out.
pub(super) fn put(octets: &mut Vec<u8>, number: u16, value: &[u8]) {
    if let Ok(length) = u16::try_from(value.len()) {
        octets.extend(number.to_be_bytes());
        octets.extend(length.to_be_bytes());
        octets.extend(value);
    }
}
