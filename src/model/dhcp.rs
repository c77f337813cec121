//! Options that a client sets for one port's guest (`extra_dhcp_opts`), by dnsmasq's names and numbers.

mod six;
mod values;

use serde::{Deserialize, Serialize};

use values::Kind;
pub use values::{classless, domains};

/// The most extra options of one port.
pub const EXTRA_OPTIONS: usize = 64;

/// Whether a text is a host's name (RFC 1123, 2.1): labels of letters, digits and hyphens, which begin and end with none of those.
pub fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let inside = label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
        (1..=63).contains(&label.len()) && inside && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(is_label)
}

/// An option for a port's guest. Its value is encoded when it is set, so that no answer fails on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct ExtraOption {
    /// Its name or number, as given.
    pub name: String,
    /// Its value, as given.
    pub value: String,
    /// What it sets.
    pub sets: Sets,
    /// The value as DHCP carries it; empty where the option is not to be said.
    pub octets: Vec<u8>,
}

/// What an extra option sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sets {
    /// DHCPv4's option with this number.
    Option(u8),
    /// DHCPv6's option with this number.
    Option6(u16),
    /// The message's field for the next server (`siaddr`).
    NextServer,
}

/// Which protocol an option is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpVersion {
    /// DHCPv4.
    #[default]
    V4,
    /// DHCPv6.
    V6,
}

/// An option as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    opt_name: String,
    opt_value: String,
    #[serde(default, skip_serializing_if = "is_v4")]
    ip_version: IpVersion,
}

fn is_v4(version: &IpVersion) -> bool {
    *version == IpVersion::V4
}

/// Why an extra option cannot be set. Displays what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No option has this name.
    #[error("'{0}' is no option's name; a name of dnsmasq's such as bootfile-name, or a number from 1 to 254, is expected")]
    Unknown(String),
    /// No option of DHCPv6 has this name.
    #[error(
        "'{0}' is no option's name of DHCPv6; a name of dnsmasq's such as bootfile-url, or a number from 1 to 65535, is expected"
    )]
    Unknown6(String),
    /// The protocol itself decides what it says.
    #[error("'{0}' is said by the protocol itself and cannot be set")]
    Protocol(String),
    /// The value is not of the option's kind.
    #[error("'{value}' is no value of {name}: {expected} is expected")]
    Value {
        /// The option.
        name: String,
        /// The value.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

/// dnsmasq's names for the options that a client may set (src/option.c and src/dhcp-common.c there), with their kinds.
const NAMES: [(&str, u8, Kind); 61] = [
    ("netmask", 1, Kind::Address),
    ("time-offset", 2, Kind::Offset),
    ("router", 3, Kind::Addresses),
    ("dns-server", 6, Kind::Addresses),
    ("log-server", 7, Kind::Addresses),
    ("lpr-server", 9, Kind::Addresses),
    ("hostname", 12, Kind::Text),
    ("boot-file-size", 13, Kind::Number(2)),
    ("domain-name", 15, Kind::Text),
    ("swap-server", 16, Kind::Address),
    ("root-path", 17, Kind::Text),
    ("extension-path", 18, Kind::Text),
    ("ip-forward-enable", 19, Kind::Number(1)),
    ("non-local-source-routing", 20, Kind::Number(1)),
    ("policy-filter", 21, Kind::Pairs),
    ("max-datagram-reassembly", 22, Kind::Number(2)),
    ("default-ttl", 23, Kind::Number(1)),
    ("mtu", 26, Kind::Number(2)),
    ("all-subnets-local", 27, Kind::Number(1)),
    ("broadcast", 28, Kind::Address),
    ("router-discovery", 31, Kind::Number(1)),
    ("router-solicitation", 32, Kind::Address),
    ("static-route", 33, Kind::Pairs),
    ("trailer-encapsulation", 34, Kind::Number(1)),
    ("arp-timeout", 35, Kind::Number(4)),
    ("ethernet-encap", 36, Kind::Number(1)),
    ("tcp-ttl", 37, Kind::Number(1)),
    ("tcp-keepalive", 38, Kind::Number(4)),
    ("nis-domain", 40, Kind::Text),
    ("nis-server", 41, Kind::Addresses),
    ("ntp-server", 42, Kind::Addresses),
    ("vendor-encap", 43, Kind::Any),
    ("netbios-ns", 44, Kind::Addresses),
    ("netbios-dd", 45, Kind::Addresses),
    ("netbios-nodetype", 46, Kind::Number(1)),
    ("netbios-scope", 47, Kind::Text),
    ("x-windows-fs", 48, Kind::Addresses),
    ("x-windows-dm", 49, Kind::Addresses),
    ("lease-time", 51, Kind::Seconds),
    ("T1", 58, Kind::Seconds),
    ("T2", 59, Kind::Seconds),
    ("vendor-class", 60, Kind::Text),
    ("nis+-domain", 64, Kind::Text),
    ("nis+-server", 65, Kind::Addresses),
    ("tftp-server", 66, Kind::Text),
    ("bootfile-name", 67, Kind::Text),
    ("mobile-ip-home", 68, Kind::Addresses),
    ("smtp-server", 69, Kind::Addresses),
    ("pop3-server", 70, Kind::Addresses),
    ("nntp-server", 71, Kind::Addresses),
    ("irc-server", 74, Kind::Addresses),
    ("user-class", 77, Kind::Any),
    ("client-arch", 93, Kind::Number(2)),
    ("posix-timezone", 100, Kind::Text),
    ("tzdb-timezone", 101, Kind::Text),
    ("ipv6-only", 108, Kind::Number(4)),
    ("domain-search", 119, Kind::Domains),
    ("sip-server", 120, Kind::Sip),
    ("classless-static-route", 121, Kind::Routes),
    ("vendor-id-encap", 125, Kind::Any),
    ("tftp-server-address", 150, Kind::Addresses),
];

/// Options that carry the exchange itself: padding, the requested address, overload, type, server, wishes, message, sizes, client,
/// relay, authentication, subnet selection, and the end.
const PROTOCOL: [u8; 15] = [0, 50, 52, 53, 54, 55, 56, 57, 61, 80, 81, 82, 90, 118, 255];

/// dnsmasq's names for them.
const PROTOCOL_NAMES: [&str; 12] = [
    "requested-address",
    "option-overload",
    "message-type",
    "server-identifier",
    "parameter-request",
    "message",
    "max-message-size",
    "client-id",
    "rapid-commit",
    "FQDN",
    "agent-info",
    "subnet-select",
];

/// Options that are not said where their value is empty, as Neutron and dnsmasq have it: the router and the classless routes.
const MAY_BE_EMPTY: [Sets; 2] = [Sets::Option(3), Sets::Option(121)];

/// dnsmasq's name for the next server's address.
const NEXT_SERVER: &str = "server-ip-address";

impl ExtraOption {
    /// Reads an option as a client gives it.
    ///
    /// # Errors
    /// There is no such option, it cannot be set, or the value does not fit.
    pub fn read(name: &str, value: &str) -> Result<Self, OptionError> {
        let (sets, kind) = named(name)?;
        let bad = |expected| OptionError::Value { name: short(name), value: short(value), expected };
        let octets = match value {
            "" if MAY_BE_EMPTY.contains(&sets) => Vec::new(),
            value => kind.octets(value).map_err(bad)?,
        };
        Ok(Self { name: name.to_owned(), value: value.to_owned(), sets, octets })
    }

    /// Reads an option for one of the protocols.
    ///
    /// # Errors
    /// As for [`ExtraOption::read`].
    pub fn read_of(version: IpVersion, name: &str, value: &str) -> Result<Self, OptionError> {
        match version {
            IpVersion::V4 => Self::read(name, value),
            IpVersion::V6 => Self::read6(name, value),
        }
    }

    /// Which protocol it is for.
    pub fn version(&self) -> IpVersion {
        if matches!(self.sets, Sets::Option6(_)) { IpVersion::V6 } else { IpVersion::V4 }
    }
}

impl Sets {
    /// What an option of this name or number sets.
    ///
    /// # Errors
    /// There is no such option, or it cannot be set.
    pub fn of(version: IpVersion, name: &str) -> Result<Self, OptionError> {
        match version {
            IpVersion::V4 => named(name).map(|(sets, _)| sets),
            IpVersion::V6 => six::named(name).map(|(number, _)| Self::Option6(number)),
        }
    }
}

fn named(name: &str) -> Result<(Sets, Kind), OptionError> {
    let protocol = || Err(OptionError::Protocol(short(name)));
    let given = name.strip_prefix("option:").unwrap_or(name);
    if given.eq_ignore_ascii_case(NEXT_SERVER) {
        return Ok((Sets::NextServer, Kind::Address));
    }
    if let Some((_, code, kind)) = NAMES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(given)) {
        return Ok((Sets::Option(*code), *kind));
    }
    if PROTOCOL_NAMES.iter().any(|known| known.eq_ignore_ascii_case(given)) {
        return protocol();
    }
    // A sign or a leading zero is no number of an option.
    match given.parse::<u8>() {
        Ok(code) if code.to_string() != given => Err(OptionError::Unknown(short(name))),
        Ok(code) if PROTOCOL.contains(&code) => protocol(),
        Ok(code) => {
            let kind = NAMES.iter().find(|(_, known, _)| *known == code).map_or(Kind::Any, |(.., kind)| *kind);
            // Microsoft's number for the routes of option 121.
            let kind = if code == 249 { Kind::Routes } else { kind };
            Ok((Sets::Option(code), kind))
        }
        Err(_) => Err(OptionError::Unknown(short(name))),
    }
}

fn short(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

impl TryFrom<Written> for ExtraOption {
    type Error = OptionError;

    fn try_from(written: Written) -> Result<Self, OptionError> {
        Self::read_of(written.ip_version, &written.opt_name, &written.opt_value)
    }
}

impl From<ExtraOption> for Written {
    fn from(option: ExtraOption) -> Self {
        Self { ip_version: option.version(), opt_name: option.name, opt_value: option.value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> (Sets, Vec<u8>) {
        let option = ExtraOption::read(name, value).unwrap();
        (option.sets, option.octets)
    }

    #[test]
    fn names_and_numbers_are_dnsmasqs() {
        assert_eq!(read("bootfile-name", "pxelinux.0"), (Sets::Option(67), b"pxelinux.0".to_vec()));
        assert_eq!(read("67", "pxelinux.0"), read("option:bootfile-name", "pxelinux.0"));
        assert_eq!(read("server-ip-address", "192.0.2.9"), (Sets::NextServer, vec![192, 0, 2, 9]));
        assert_eq!(read("ntp-server", "192.0.2.1, 192.0.2.2"), (Sets::Option(42), vec![192, 0, 2, 1, 192, 0, 2, 2]));
        assert_eq!(read("mtu", "1400"), (Sets::Option(26), vec![5, 120]));
        assert_eq!(read("lease-time", "60"), (Sets::Option(51), vec![0, 0, 0, 60]));
        for (text, seconds) in [("1h", 3600), ("45m", 2700), ("2D", 172_800), ("1w", 604_800), ("9s", 9), ("0x10", 16)] {
            assert_eq!(read("lease-time", text).1, u32::to_be_bytes(seconds), "{text}");
        }
        assert_eq!(read("T1", "infinite").1, [255; 4]);
        assert_eq!(read("sip-server", "192.0.2.1,192.0.2.2").1, [1, 192, 0, 2, 1, 192, 0, 2, 2]);
        assert_eq!(read("120", "sip.example").1, b"\x00\x03sip\x07example\x00");
        assert_eq!([read("router", ""), read("121", "")], [(Sets::Option(3), vec![]), (Sets::Option(121), vec![])]);
        assert_eq!(read("time-offset", "-3600"), (Sets::Option(2), vec![0xff, 0xff, 0xf1, 0xf0]));
        assert_eq!(
            read("121", "192.0.2.0/25,198.51.100.1,0.0.0.0/0,198.51.100.2").1,
            [25, 192, 0, 2, 0, 198, 51, 100, 1, 0, 198, 51, 100, 2]
        );
        assert_eq!(read("domain-search", "a.example,b").1, b"\x01a\x07example\x00\x01b\x00");
        assert_eq!(read("224", "192.0.2.1").1, [192, 0, 2, 1]);
        assert_eq!(read("224", "1:2:ff").1, [1, 2, 255]);
        assert_eq!(read("224", "300").1, [1, 44]);
        assert_eq!(read("224", "x y").1, b"x y");
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        for (name, value) in [
            ("", "x"),
            ("nothing", "x"),
            ("0", "x"),
            ("255", "x"),
            ("256", "x"),
            ("+3", "192.0.2.1"),
            ("03", "192.0.2.1"),
            ("53", "5"),
            ("message-type", "5"),
            ("router", "router"),
            ("router", "192.0.2.1,"),
            ("netmask", "255.255.255.0,255.0.0.0"),
            ("mtu", "65536"),
            ("mtu", "-5"),
            ("lease-time", "-5"),
            ("lease-time", "+5"),
            ("lease-time", "h"),
            ("lease-time", "1.5h"),
            ("lease-time", "10000w"),
            ("lease-time", "5\u{e9}"),
            ("sip-server", "a..b"),
            ("dns-server", ""),
            ("mtu", ""),
            ("121", "192.0.2.0/24"),
            ("121", "192.0.2.0/33,192.0.2.1"),
            ("domain-search", "a..b"),
            // CVE-2021-40085: with a line's end in a value a tenant wrote dnsmasq's configuration.
            ("hostname", "x\ndhcp-option=3,192.0.2.66"),
            ("hostname", "x\0"),
        ] {
            assert!(ExtraOption::read(name, value).is_err(), "{name} {value:?}");
        }
        assert!(ExtraOption::read("hostname", &"x".repeat(1024)).is_ok());
        assert!(ExtraOption::read("hostname", &"x".repeat(1025)).is_err());
    }

    #[test]
    fn it_is_stored_as_it_was_given() {
        let option = ExtraOption::read("router", "192.0.2.1").unwrap();
        let stored = serde_json::to_string(&option).unwrap();
        assert_eq!(stored, r#"{"opt_name":"router","opt_value":"192.0.2.1"}"#);
        assert_eq!(serde_json::from_str::<ExtraOption>(&stored).unwrap(), option);
    }
}
