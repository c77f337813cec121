//! Options for DHCPv6 (`ip_version` 6): dnsmasq's names and numbers of them, and their values.

use std::net::Ipv6Addr;

use super::values::{domains, hexadecimal};
use super::{ExtraOption, OptionError, Sets, short};

/// What an option's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One or more addresses.
    Addresses,
    /// Domain names (RFC 8415, 10).
    Domains,
    /// Time servers: addresses and names, each as an option of its own (RFC 5908).
    TimeServers,
    /// A text.
    Text,
    /// Texts, each with its length before it (RFC 5970, 3.2).
    Texts,
    /// A number of four octets.
    Number,
    /// Nothing that nicd knows: addresses, octets in hexadecimal, or a text, by what it looks like.
    Any,
}

/// dnsmasq's names for the options that a client may set (`opttab6` in src/dhcp-common.c there), with their kinds.
const NAMES: [(&str, u16, Kind); 16] = [
    ("sip-server-domain", 21, Kind::Domains),
    ("sip-server", 22, Kind::Addresses),
    ("dns-server", 23, Kind::Addresses),
    ("domain-search", 24, Kind::Domains),
    ("nis-server", 27, Kind::Addresses),
    ("nis+-server", 28, Kind::Addresses),
    ("nis-domain", 29, Kind::Domains),
    ("nis+-domain", 30, Kind::Domains),
    ("sntp-server", 31, Kind::Addresses),
    ("information-refresh-time", 32, Kind::Number),
    ("posix-timezone", 41, Kind::Text),
    ("tzdb-timezone", 42, Kind::Text),
    ("ntp-server", 56, Kind::TimeServers),
    ("bootfile-url", 59, Kind::Text),
    ("bootfile-param", 60, Kind::Texts),
    ("captive-portal", 103, Kind::Text),
];

/// Options that carry the exchange itself, by dnsmasq's names where it has some (RFC 8415, 21).
const PROTOCOL: [(&str, u16); 23] = [
    ("client-id", 1),
    ("server-id", 2),
    ("ia-na", 3),
    ("ia-ta", 4),
    ("iaaddr", 5),
    ("oro", 6),
    ("preference", 7),
    ("elapsed-time", 8),
    ("relay-msg", 9),
    ("auth", 11),
    ("unicast", 12),
    ("status-code", 13),
    ("rapid-commit", 14),
    ("user-class", 15),
    ("vendor-class", 16),
    ("interface-id", 18),
    ("reconfigure-message", 19),
    ("reconfigure-accept", 20),
    ("ia-pd", 25),
    ("iaprefix", 26),
    ("FQDN", 39),
    ("sol-max-rt", 82),
    ("inf-max-rt", 83),
];

impl ExtraOption {
    /// Reads an option for DHCPv6 as a client gives it.
    ///
    /// # Errors
    /// There is no such option, it cannot be set, or the value does not fit.
    pub fn read6(name: &str, value: &str) -> Result<Self, OptionError> {
        let (number, kind) = named(name)?;
        let bad = |expected| OptionError::Value { name: short(name), value: short(value), expected };
        let octets = kind.octets(value).map_err(bad)?;
        Ok(Self { name: name.to_owned(), value: value.to_owned(), sets: Sets::Option6(number), octets })
    }
}

pub(super) fn named(name: &str) -> Result<(u16, Kind), OptionError> {
    let given = name.strip_prefix("option6:").unwrap_or(name);
    if let Some((_, code, kind)) = NAMES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(given)) {
        return Ok((*code, *kind));
    }
    let number = given.parse::<u16>().ok().filter(|code| *code > 0 && code.to_string() == given);
    if PROTOCOL.iter().any(|(known, code)| known.eq_ignore_ascii_case(given) || Some(*code) == number) {
        return Err(OptionError::Protocol(short(name)));
    }
    match number {
        Some(code) => Ok((code, NAMES.iter().find(|(_, known, _)| *known == code).map_or(Kind::Any, |(.., kind)| *kind))),
        None => Err(OptionError::Unknown6(short(name))),
    }
}

impl Kind {
    /// A value as DHCPv6 carries it, or what would be right.
    fn octets(self, text: &str) -> Result<Vec<u8>, &'static str> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err("a text without control characters");
        }
        let all = || text.split(',').map(str::trim);
        match self {
            Self::Addresses => addresses(text).ok_or("one or more IPv6 addresses, separated by commas,"),
            Self::Domains => domains(all()).ok_or("one or more domains, separated by commas,"),
            Self::TimeServers => {
                all().map(time_server).collect::<Option<Vec<_>>>().map(|all| all.concat()).ok_or("IPv6 addresses or domains")
            }
            Self::Text => Ok(text.as_bytes().to_vec()),
            Self::Texts => {
                let one = |text: &str| {
                    u16::try_from(text.len()).ok().map(|length| [&length.to_be_bytes()[..], text.as_bytes()].concat())
                };
                all().map(one).collect::<Option<Vec<_>>>().map(|all| all.concat()).ok_or("texts, separated by commas,")
            }
            Self::Number => text.parse::<u32>().map(|number| number.to_be_bytes().to_vec()).map_err(|_| "a number of 32 bits"),
            Self::Any => Ok(addresses(text).or_else(|| hexadecimal(text)).unwrap_or_else(|| text.into())),
        }
    }
}

/// dnsmasq writes them in brackets.
fn address(text: &str) -> Option<[u8; 16]> {
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    inside.parse::<Ipv6Addr>().ok().map(|address| address.octets())
}

fn addresses(text: &str) -> Option<Vec<u8>> {
    text.split(',').map(|one| address(one.trim())).collect::<Option<Vec<_>>>().map(|all| all.concat())
}

fn time_server(text: &str) -> Option<Vec<u8>> {
    match address(text) {
        Some(address) => Some([&[0, 1, 0, 16], &address[..]].concat()),
        None => {
            let name = domains([text].into_iter())?;
            Some([&[0, 3][..], &u16::try_from(name.len()).ok()?.to_be_bytes(), &name].concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_dnsmasqs() {
        let read = |name: &str, value: &str| {
            let option = ExtraOption::read6(name, value).unwrap();
            (option.sets, option.octets)
        };
        let address = |last: u8| [&[0xfd][..], &[0; 14], &[last]].concat();
        assert_eq!(read("dns-server", "[fd00::1], fd00::2"), (Sets::Option6(23), [address(1), address(2)].concat()));
        assert_eq!(read("23", "fd00::1"), read("option6:dns-server", "fd00::1"));
        assert_eq!(read("bootfile-url", "http://x/y").1, b"http://x/y");
        assert_eq!(read("bootfile-param", "a,bc").1, b"\x00\x01a\x00\x02bc");
        assert_eq!(read("domain-search", "a.b").1, b"\x01a\x01b\x00");
        assert_eq!(
            read("ntp-server", "fd00::1,t.x").1,
            [&[0, 1, 0, 16][..], &address(1), b"\x00\x03\x00\x05\x01t\x01x\x00"].concat()
        );
        assert_eq!(read("information-refresh-time", "600").1, [0, 0, 2, 0x58]);
        assert_eq!(read("1000", "1:2:ff"), (Sets::Option6(1000), vec![1, 2, 255]));
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        for (name, value) in [
            ("", "x"),
            ("router", "fd00::1"),
            ("0", "x"),
            ("3", "x"),
            ("ia-na", "x"),
            ("65536", "x"),
            ("023", "fd00::1"),
            ("dns-server", "192.0.2.1"),
            ("dns-server", "fd00::1,"),
            ("domain-search", "a..b"),
            ("bootfile-url", "x\ny"),
            ("bootfile-url", ""),
        ] {
            assert!(ExtraOption::read6(name, value).is_err(), "{name} {value}");
        }
    }
}
