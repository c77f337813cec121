//! The values of flags that have an inner shape (a pool, a route, an owner…): parsed once, on the command line, so
//! that a mistake in one is a usage error. Whether a well-formed value is acceptable is the daemon's to say.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

/// A flag's value that is not of the flag's shape. Displays what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{expected} is expected")]
pub struct BadValue {
    expected: &'static str,
}

const fn expected(expected: &'static str) -> BadValue {
    BadValue { expected }
}

/// A subnet's range: an address and a prefix length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    length: u8,
}

impl Cidr {
    /// 4 or 6.
    pub fn version(&self) -> u8 {
        if self.address.is_ipv4() { 4 } else { 6 }
    }
}

impl FromStr for Cidr {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = expected("an address and a prefix length, as 192.0.2.0/24 or 2001:db8::/64,");
        let (address, length) = text.split_once('/').ok_or(bad.clone())?;
        let address: IpAddr = address.parse().map_err(|_| bad.clone())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        match length.parse() {
            Ok(length) if length <= most => Ok(Self { address, length }),
            _ => Err(bad),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A range of addresses to choose from, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    start: IpAddr,
    end: IpAddr,
}

impl Pool {
    /// As an item of Neutron's `allocation_pools`.
    pub fn to_json(&self) -> Value {
        json!({"start": self.start, "end": self.end})
    }
}

impl FromStr for Pool {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = expected("the first and the last address of a range, as 192.0.2.10-192.0.2.99,");
        let (start, end) = text.split_once('-').ok_or(bad.clone())?;
        match (start.parse(), end.parse()) {
            (Ok(start), Ok(end)) => Ok(Self { start, end }),
            _ => Err(bad),
        }
    }
}

/// A range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl FromStr for PortRange {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = expected("a port or a range of them, as 80 or 8000-8099,");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) => Ok(Self { first, last }),
            _ => Err(bad),
        }
    }
}

/// A route for guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    destination: Cidr,
    nexthop: IpAddr,
}

impl Route {
    /// As an item of Neutron's `host_routes`.
    pub fn to_json(&self) -> Value {
        json!({"destination": self.destination.to_string(), "nexthop": self.nexthop})
    }
}

impl FromStr for Route {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = expected("a destination and the next hop, as 198.51.100.0/24,192.0.2.254,");
        let (destination, nexthop) = text.split_once(',').ok_or(bad.clone())?;
        match (destination.parse(), nexthop.parse()) {
            (Ok(destination), Ok(nexthop)) => Ok(Self { destination, nexthop }),
            _ => Err(bad),
        }
    }
}

/// A subport and the VLAN of its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubPort {
    /// What the port is called.
    pub port: String,
    /// The VLAN.
    pub vlan: u16,
}

impl FromStr for SubPort {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = expected("a port and a VLAN from 1 to 4094, as web-0:101,");
        let (port, vlan) = text.rsplit_once(':').filter(|(port, _)| !port.is_empty()).ok_or(bad.clone())?;
        match vlan.parse() {
            Ok(vlan @ 1..=4094) => Ok(Self { port: port.to_owned(), vlan }),
            _ => Err(bad),
        }
    }
}

/// The VLAN of a network, or its number of VXLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentId {
    /// This one.
    Id(u32),
    /// A free one of the configuration.
    Free,
}

impl SegmentId {
    /// The one that is asked for.
    pub fn id(self) -> Option<u32> {
        match self {
            Self::Id(id) => Some(id),
            Self::Free => None,
        }
    }
}

impl FromStr for SegmentId {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text {
            "free" => Ok(Self::Free),
            _ => text.parse().map(Self::Id).map_err(|_| expected("an id, as 101, or free,")),
        }
    }
}

/// A subnet's gateway when it is not left to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// There is none, and its address is not kept free.
    None,
    /// This one.
    At(IpAddr),
}

impl Gateway {
    /// As Neutron's `gateway_ip`.
    pub fn to_json(self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::At(address) => json!(address),
        }
    }
}

impl FromStr for Gateway {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text {
            "none" => Ok(Self::None),
            _ => text.parse().map(Self::At).map_err(|_| expected("an address or 'none'")),
        }
    }
}

/// Who may open a guest's tap: a uid, a gid, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Owner {
    /// As a guest's `owner`; a half that was not given is absent.
    pub fn to_json(self) -> Value {
        let halves = [("uid", self.uid), ("gid", self.gid)];
        halves.into_iter().filter_map(|(key, id)| Some((key.to_owned(), json!(id?)))).collect()
    }
}

impl FromStr for Owner {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = expected("numbers as UID:GID, UID or :GID");
        let half = |text: &str| match text {
            "" => Ok(None),
            _ => text.parse().map(Some).map_err(|_| bad.clone()),
        };
        let (uid, gid) = text.split_once(':').unwrap_or((text, ""));
        let owner = Self { uid: half(uid)?, gid: half(gid)? };
        if owner == (Self { uid: None, gid: None }) { Err(bad) } else { Ok(owner) }
    }
}

/// Addresses that a guest may send from, and the MAC it sends them from if that is not its port's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedAddress {
    ip: String,
    mac: Option<String>,
}

impl AllowedAddress {
    /// As an item of Neutron's `allowed_address_pairs`.
    pub fn to_json(&self) -> Value {
        let mac = self.mac.iter().map(|mac| ("mac_address".to_owned(), json!(mac)));
        std::iter::once(("ip_address".to_owned(), json!(self.ip))).chain(mac).collect()
    }
}

impl FromStr for AllowedAddress {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = expected("ip-address=IP or ip-address=CIDR, and possibly ,mac-address=MAC,");
        let (mut ip, mut mac) = (None, None);
        for part in text.split(',') {
            let (value, of) = match part.split_once('=') {
                Some(("ip-address", of)) => (&mut ip, of),
                Some(("mac-address", of)) => (&mut mac, of),
                _ => return Err(bad),
            };
            if of.is_empty() || value.replace(of.to_owned()).is_some() {
                return Err(bad);
            }
        }
        ip.map(|ip| Self { ip, mac }).ok_or(bad)
    }
}

/// The rate of one direction, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate(Option<(u32, Option<u32>)>, Burst);

/// How a burst is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Burst {
    AsUsual,
    Exact,
}

impl Rate {
    /// As a direction of `nicd:limits`.
    pub fn to_json(&self) -> Value {
        let mut limit = match self.0 {
            None => return Value::Null,
            Some((rate, None)) => json!({ "rate_kbps": rate }),
            Some((rate, Some(burst))) => json!({"rate_kbps": rate, "burst_kb": burst}),
        };
        if self.1 == Burst::Exact {
            limit["exact"] = true.into();
        }
        limit
    }
}

impl FromStr for Rate {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        if text == "none" {
            return Ok(Self(None, Burst::AsUsual));
        }
        let (text, held) = text.strip_suffix(":exact").map_or((text, Burst::AsUsual), |text| (text, Burst::Exact));
        let (rate, burst) = text.split_once(':').map_or((text, None), |(rate, burst)| (rate, Some(burst)));
        match (rate.parse(), burst.map(str::parse).transpose()) {
            (Ok(rate), Ok(burst)) => Ok(Self(Some((rate, burst)), held)),
            _ => Err(expected("a rate in kbit/s, possibly with a burst in kbit and 'exact', as 100000:12500:exact, or 'none'")),
        }
    }
}

/// Whether a port is isolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Isolation {
    /// It is
    True,
    /// It is not
    False,
    /// As its network
    Network,
}

impl Isolation {
    /// As `nicd:isolated` of a port.
    pub fn to_json(self) -> Value {
        match self {
            Self::True => Value::Bool(true),
            Self::False => Value::Bool(false),
            Self::Network => Value::Null,
        }
    }
}

/// A DHCP option: `OPTION=VALUE`; without a value it is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpOption {
    name: String,
    value: Option<String>,
}

impl DhcpOption {
    /// As an entry of `extra_dhcp_opts`.
    pub fn to_json(&self) -> Value {
        match self.name.strip_prefix("option6:") {
            Some(name) => json!({"opt_name": name, "opt_value": self.value, "ip_version": 6}),
            None => json!({"opt_name": self.name, "opt_value": self.value}),
        }
    }
}

impl FromStr for DhcpOption {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: (!value.is_empty()).then(|| value.to_owned()) })
            }
            _ => Err(expected("OPTION=VALUE, such as bootfile-name=pxelinux.0,")),
        }
    }
}

/// How long `--wait` waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitTime(pub Duration);

impl WaitTime {
    const MOST: u64 = 86_400;
}

impl FromStr for WaitTime {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.parse() {
            Ok(seconds @ 1..=Self::MOST) => Ok(Self(Duration::from_secs(seconds))),
            _ => Err(expected("a whole number of seconds from 1 to 86400")),
        }
    }
}

/// How often `top` looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub Duration);

impl FromStr for Interval {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.parse() {
            Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Self(Duration::from_secs_f64(seconds))),
            _ => Err(expected("a number of seconds from 0.1 to 3600")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_know_their_version() {
        assert_eq!("192.0.2.0/24".parse::<Cidr>().unwrap().version(), 4);
        assert_eq!("2001:db8::/64".parse::<Cidr>().unwrap().version(), 6);
        assert_eq!("192.0.2.0/24".parse::<Cidr>().unwrap().to_string(), "192.0.2.0/24");
        for bad in ["", "192.0.2.0", "192.0.2.0/", "192.0.2.0/33", "::/129", "/24", "x/24", "192.0.2/24", "::/-1"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn pools_are_two_addresses() {
        let pool: Pool = "192.0.2.10-192.0.2.99".parse().unwrap();
        assert_eq!(pool.to_json(), json!({"start": "192.0.2.10", "end": "192.0.2.99"}));
        assert!("2001:db8::1-2001:db8::ff".parse::<Pool>().is_ok());
        for bad in ["", "192.0.2.10", "192.0.2.10-", "-192.0.2.10", "192.0.2.10-20", "a-b"] {
            assert!(bad.parse::<Pool>().is_err(), "{bad}");
        }
    }

    #[test]
    fn routes_are_a_range_and_an_address() {
        let route: Route = "198.51.100.0/24,192.0.2.254".parse().unwrap();
        assert_eq!(route.to_json(), json!({"destination": "198.51.100.0/24", "nexthop": "192.0.2.254"}));
        for bad in ["", "198.51.100.0/24", "198.51.100.0,192.0.2.254", "198.51.100.0/24,", "198.51.100.0/24 192.0.2.254"] {
            assert!(bad.parse::<Route>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_gateway_may_be_refused() {
        assert_eq!("none".parse::<Gateway>().unwrap().to_json(), Value::Null);
        assert_eq!("192.0.2.1".parse::<Gateway>().unwrap().to_json(), json!("192.0.2.1"));
        assert!("None".parse::<Gateway>().is_err());
    }

    #[test]
    fn an_owner_has_at_least_one_half() {
        assert_eq!("107:64055".parse::<Owner>().unwrap().to_json(), json!({"uid": 107, "gid": 64055}));
        assert_eq!("107".parse::<Owner>().unwrap().to_json(), json!({"uid": 107}));
        assert_eq!(":36".parse::<Owner>().unwrap().to_json(), json!({"gid": 36}));
        for bad in ["", ":", "root", "1:2:3", "-1", "4294967296"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_allowed_address_is_written_as_openstack_writes_it() {
        let pair: AllowedAddress = "mac-address=00:00:5e:00:01:07,ip-address=fd00::/64".parse().unwrap();
        assert_eq!(pair.to_json(), json!({"ip_address": "fd00::/64", "mac_address": "00:00:5e:00:01:07"}));
        assert_eq!("ip-address=192.0.2.9".parse::<AllowedAddress>().unwrap().to_json(), json!({"ip_address": "192.0.2.9"}));
        for bad in ["", "192.0.2.9", "ip-address=", "mac-address=00:00:5e:00:01:07", "ip-address=a,ip-address=b", "ip-address=a,"]
        {
            assert!(bad.parse::<AllowedAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_may_have_a_burst() {
        let json = |text: &str| text.parse::<Rate>().map(|rate| rate.to_json());
        assert_eq!(json("64"), Ok(json!({"rate_kbps": 64})));
        assert_eq!(json("64:8"), Ok(json!({"rate_kbps": 64, "burst_kb": 8})));
        assert_eq!(json("64:8:exact"), Ok(json!({"rate_kbps": 64, "burst_kb": 8, "exact": true})));
        assert_eq!(json("64:exact"), Ok(json!({"rate_kbps": 64, "exact": true})));
        assert_eq!(json("none"), Ok(Value::Null));
        for bad in ["", "1M", "exact", ":exact", "none:exact", "64:", ":8", "64:8:1", "-1", "none:8", "64,8"] {
            assert!(json(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_option_without_a_value_is_taken_back() {
        let json = |text: &str| text.parse::<DhcpOption>().map(|option| option.to_json());
        assert_eq!(json("67=pxelinux.0"), Ok(json!({"opt_name": "67", "opt_value": "pxelinux.0"})));
        assert_eq!(json("121=0.0.0.0/0,192.0.2.1"), Ok(json!({"opt_name": "121", "opt_value": "0.0.0.0/0,192.0.2.1"})));
        assert_eq!(json("router="), Ok(json!({"opt_name": "router", "opt_value": null})));
        assert!(json("router").is_err() && json("=x").is_err());
    }

    #[test]
    fn an_interval_is_neither_nothing_nor_endless() {
        assert_eq!("0.5".parse(), Ok(Interval(Duration::from_millis(500))));
        for bad in ["", "0", "-1", "NaN", "inf", "3601", "1s"] {
            assert!(bad.parse::<Interval>().is_err(), "{bad}");
        }
    }

    #[test]
    fn waiting_is_in_whole_seconds() {
        assert_eq!("30".parse(), Ok(WaitTime(Duration::from_secs(30))));
        for bad in ["", "0", "-1", "1.5", "30s", "86401"] {
            assert!(bad.parse::<WaitTime>().is_err(), "{bad}");
        }
    }
}
