//! Ethernet addresses of guests and bridges.

use std::fmt;
use std::str::FromStr;

use macaddr::MacAddr6;
use serde::{Deserialize, Serialize};

/// A 48-bit MAC (IEEE 802). Written in lower case with colons; read in either case, with colons, hyphens or Cisco dots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// The first three octets of generated MACs (`links.mac_prefix`), OpenStack's by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacPrefix([u8; 3]);

/// Why a MAC cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// The text is no MAC at all.
    #[error("'{0}' is not a MAC address: six octets such as fa:16:3e:01:02:03 are expected")]
    Malformed(String),
    /// The text is no three-octet prefix.
    #[error("'{0}' is not a MAC prefix: three octets such as fa:16:3e are expected")]
    MalformedPrefix(String),
    /// The group bit is set: a frame cannot come from a multicast address (IEEE 802.3 §3.2.3).
    #[error("{0} is a multicast MAC; a NIC's own address has an even first octet, such as fa:16:3e:01:02:03")]
    Multicast(Mac),
    /// The first octet is `fe`, which host-side devices have, so that a bridge never takes their MAC.
    #[error("{0} starts with fe, which is kept for the host's side of a NIC; use another first octet, such as fa")]
    HostRange(Mac),
    /// 00:00:00:00:00:00, which the kernel refuses.
    #[error("00:00:00:00:00:00 is not an address; use one such as fa:16:3e:01:02:03")]
    Zero,
}

impl MacPrefix {
    /// Its octets.
    pub fn octets(self) -> [u8; 3] {
        self.0
    }
}

impl Mac {
    /// The MAC that a VXLAN device has the entries of, which say whom it sends what is for all.
    pub const NOBODY: Self = Self([0; 6]);

    /// Combines the prefix with three random octets from the caller.
    pub fn generated(prefix: MacPrefix, tail: [u8; 3]) -> Self {
        let [a, b, c] = prefix.0;
        let [d, e, f] = tail;
        Self([a, b, c, d, e, f])
    }

    /// The MAC of the host-side device of the NIC with this MAC: the same with first octet `fe`.
    pub fn host_side(self) -> Self {
        let mut octets = self.0;
        octets[0] = 0xfe;
        Self(octets)
    }

    /// Accepts only MACs that a guest's NIC may have.
    ///
    /// # Errors
    /// Multicast, all zero, or in the host's own range.
    pub fn for_guest(self) -> Result<Self, MacError> {
        match self.0 {
            [0, 0, 0, 0, 0, 0] => Err(MacError::Zero),
            [0xfe, ..] => Err(MacError::HostRange(self)),
            [first, ..] if first & 1 == 1 => Err(MacError::Multicast(self)),
            _ => Ok(self),
        }
    }

    /// The modified EUI-64 interface identifier (RFC 4291, appendix A) behind `fe80::/64`.
    pub fn link_local(self) -> std::net::Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
    }
}

impl Default for MacPrefix {
    fn default() -> Self {
        Self([0xfa, 0x16, 0x3e])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        text.parse::<MacAddr6>()
            .map(|mac| Self(mac.into_array()))
            .map_err(|_| MacError::Malformed(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl FromStr for MacPrefix {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let bad = || MacError::MalformedPrefix(text.chars().take(64).collect());
        let mac: Mac = format!("{text}:00:00:01").parse().map_err(|_| bad())?;
        let Mac([a, b, c, ..]) = mac.for_guest()?;
        Ok(Self([a, b, c]))
    }
}

impl TryFrom<String> for MacPrefix {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<MacPrefix> for String {
    fn from(MacPrefix([a, b, c]): MacPrefix) -> String {
        format!("{a:02x}:{b:02x}:{c:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_one_address() {
        let mac: Mac = "fa:16:3e:63:75:b2".parse().unwrap();
        for same in ["FA:16:3E:63:75:B2", "fa-16-3e-63-75-b2"] {
            assert_eq!(same.parse::<Mac>().unwrap(), mac);
        }
        assert_eq!(mac.to_string(), "fa:16:3e:63:75:b2");
    }

    #[test]
    fn guests_get_no_multicast_no_fe_no_zero() {
        let parse = |text: &str| text.parse::<Mac>().unwrap().for_guest();
        assert!(parse("fa:16:3e:00:00:01").is_ok());
        assert!(matches!(parse("01:00:5e:00:00:01"), Err(MacError::Multicast(_))));
        assert!(matches!(parse("ff:ff:ff:ff:ff:ff"), Err(MacError::Multicast(_))));
        assert!(matches!(parse("FE:16:3e:00:00:01"), Err(MacError::HostRange(_))));
        assert_eq!(parse("00:00:00:00:00:00"), Err(MacError::Zero));
        for bad in ["", "fa:16:3e:63:75", "fa:16:3e:63:75:b2:00", "fa:16:3e:63:75:zz", "fa163e6375b2\0"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn host_side_differs_in_the_first_octet_only() {
        let mac = Mac([0xfa, 1, 2, 3, 4, 5]);
        assert_eq!(mac.host_side(), Mac([0xfe, 1, 2, 3, 4, 5]));
    }

    #[test]
    fn link_local_is_eui64() {
        let mac: Mac = "fa:16:3e:63:75:b2".parse().unwrap();
        assert_eq!(mac.link_local().to_string(), "fe80::f816:3eff:fe63:75b2");
    }

    #[test]
    fn a_prefix_is_three_usable_octets() {
        assert_eq!(String::from("02:aa:0b".parse::<MacPrefix>().unwrap()), "02:aa:0b");
        for bad in ["", "fa:16", "fa:16:3e:00", "01:00:5e", "fe:00:00", "zz:00:00"] {
            assert!(bad.parse::<MacPrefix>().is_err(), "{bad}");
        }
    }
}
