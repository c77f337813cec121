//! Values of extra options: how a client writes them, and how DHCP carries them.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

/// What an option's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One or more addresses.
    Addresses,
    /// One address.
    Address,
    /// Pairs of addresses.
    Pairs,
    /// Destinations with their next hops (RFC 3442).
    Routes,
    /// Domain names (RFC 1035, 3.1).
    Domains,
    /// A text.
    Text,
    /// A number of so many octets.
    Number(usize),
    /// A number of four octets that may be below 0.
    Offset,
    /// Seconds: a number, one with a unit such as `45m`, or `infinite`.
    Seconds,
    /// SIP's servers: addresses, or domain names (RFC 3361).
    Sip,
    /// Nothing that nicd knows: addresses, octets in hexadecimal, a number or a text, by what it looks like, as dnsmasq does it.
    Any,
}

/// The most octets of one option's value: it is split into several of 255 (RFC 3396).
const LONGEST: usize = 1024;

const ADDRESSES: &str = "one or more IPv4 addresses, separated by commas,";

impl Kind {
    /// A value as DHCP carries it, or what would be right.
    pub(super) fn octets(self, text: &str) -> Result<Vec<u8>, &'static str> {
        const TEXT: &str = "a text without control characters";
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(TEXT);
        }
        let octets = match self {
            Self::Addresses => addresses(text).ok_or(ADDRESSES)?,
            Self::Address => addresses(text).filter(|octets| octets.len() == 4).ok_or("an IPv4 address")?,
            Self::Pairs => addresses(text)
                .filter(|octets| octets.len().is_multiple_of(8))
                .ok_or("pairs of IPv4 addresses, separated by commas,")?,
            Self::Routes => routes(text).ok_or("destinations and next hops, such as 192.0.2.0/24,198.51.100.1,")?,
            Self::Domains => domains(text.split(',').map(str::trim)).ok_or("one or more domains, separated by commas,")?,
            Self::Text => text.as_bytes().to_vec(),
            Self::Number(length) => number(text, length).ok_or("a number of the option's length")?,
            Self::Offset => offset(text).ok_or("a number of seconds")?,
            Self::Seconds => seconds(text).ok_or("a number of seconds, one with a unit such as 45m, 1h or 7d, or infinite")?,
            Self::Sip => sip(text).ok_or("IPv4 addresses or domains, separated by commas,")?,
            Self::Any => {
                addresses(text).or_else(|| hexadecimal(text)).or_else(|| any_number(text)).unwrap_or_else(|| text.into())
            }
        };
        if octets.len() > LONGEST { Err("a value of at most 1024 octets") } else { Ok(octets) }
    }
}

fn addresses(text: &str) -> Option<Vec<u8>> {
    text.split(',')
        .map(|one| one.trim().parse::<Ipv4Addr>().ok().map(|address| address.octets()))
        .collect::<Option<Vec<_>>>()
        .map(|all| all.concat())
}

fn routes(text: &str) -> Option<Vec<u8>> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let (pairs, rest) = parts.as_chunks::<2>();
    let read = |[to, via]: &[&str; 2]| Some((to.parse::<Ipv4Network>().ok()?, via.parse::<Ipv4Addr>().ok()?));
    rest.is_empty().then(|| pairs.iter().map(read).collect::<Option<Vec<_>>>()).flatten().map(|all| classless(&all))
}

/// Routes as option 121 carries them: of a destination only the octets that its prefix reaches (RFC 3442).
pub fn classless(routes: &[(Ipv4Network, Ipv4Addr)]) -> Vec<u8> {
    let one = |(to, via): &(Ipv4Network, Ipv4Addr)| {
        let reached = usize::from(to.prefix().div_ceil(8));
        [&[to.prefix()], &to.network().octets()[..reached], &via.octets()].concat()
    };
    routes.iter().flat_map(one).collect()
}

/// Domain names as DNS carries them, without compression; none where one is none.
pub fn domains<'a>(names: impl Iterator<Item = &'a str>) -> Option<Vec<u8>> {
    let mut octets = Vec::new();
    for name in names {
        let name = name.strip_suffix('.').unwrap_or(name);
        let began = octets.len();
        for label in name.split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
            octets.push(length);
            octets.extend(label.is_ascii().then_some(label)?.as_bytes());
        }
        octets.push(0);
        if octets.len() - began > 255 {
            return None;
        }
    }
    Some(octets)
}

fn number(text: &str, length: usize) -> Option<Vec<u8>> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    // A sign is no digit.
    let number = u64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'))?;
    let octets = number.to_be_bytes();
    let (above, own) = octets.split_at_checked(8_usize.checked_sub(length)?)?;
    above.iter().all(|octet| *octet == 0).then(|| own.to_vec())
}

fn offset(text: &str) -> Option<Vec<u8>> {
    number(text, 4).or_else(|| Some(text.parse::<i32>().ok()?.to_be_bytes().to_vec()))
}

/// As dnsmasq reads times: with a unit in either case, or without an end.
fn seconds(text: &str) -> Option<Vec<u8>> {
    if text == "infinite" {
        return Some(u32::MAX.to_be_bytes().to_vec());
    }
    let unit: u32 = match text.chars().next_back()?.to_ascii_lowercase() {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return number(text, 4),
    };
    let digits = number(&text[..text.len() - 1], 4)?;
    let all = u32::from_be_bytes(digits.try_into().ok()?).checked_mul(unit)?;
    Some(all.to_be_bytes().to_vec())
}

/// In front of them stands which of the two they are.
fn sip(text: &str) -> Option<Vec<u8>> {
    let named = || Some([&[0][..], &domains(text.split(',').map(str::trim))?].concat());
    addresses(text).map(|addresses| [&[1][..], &addresses].concat()).or_else(named)
}

/// As many octets as the number needs, of 1, 2 and 4.
fn any_number(text: &str) -> Option<Vec<u8>> {
    text.bytes()
        .all(|digit| digit.is_ascii_digit())
        .then(|| [1, 2, 4].into_iter().find_map(|length| number(text, length)))
        .flatten()
}

/// Octets in hexadecimal, separated by colons.
pub(super) fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let octet = |text: &str| (1..=2).contains(&text.len()).then(|| u8::from_str_radix(text, 16).ok()).flatten();
    text.contains(':').then(|| text.split(':').map(octet).collect()).flatten()
}
