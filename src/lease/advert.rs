//! Router advertisements (RFC 4861, 4.2): what a port's guest is told of its links' prefixes, routers, MTU and DNS servers, and what of
//! it no longer holds. Pure, as the rest of this room.
//!
//! A guest takes the sender of an advertisement to be the router. So there is one for each router, and the first has what is of
//! no router: prefixes, MTU and DNS servers.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use ipnetwork::Ipv6Network;

use crate::model::Mac;
use crate::model::dhcp::domains;

/// The longest that a router may be one (RFC 8319), in seconds: while nicd is stopped for some hours, guests keep their route.
pub const ROUTER_LIFETIME: u16 = u16::MAX;

/// How long prefixes, routes and DNS servers hold, in seconds.
pub const LIFETIME: u32 = 86_400;

/// For as long as the guest is there.
pub const FOR_EVER: u32 = u32::MAX;

/// The types of messages.
pub const SOLICITATION: u8 = 133;
/// As above.
pub const ADVERTISEMENT: u8 = 134;

/// What a guest is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advert {
    /// Whether its addresses are given by DHCPv6 (M).
    pub managed: bool,
    /// Whether the rest is (O).
    pub other: bool,
    /// The link's MTU in octets.
    pub mtu: u32,
    /// How long what is of no router holds, in seconds.
    pub lifetime: u32,
    /// What is on the link.
    pub prefixes: Vec<Prefix>,
    /// By whom to send; at least one, of which the first tells what is of no router.
    pub routers: Vec<Router>,
    /// DNS servers (RFC 8106).
    pub resolvers: Vec<Ipv6Addr>,
    /// The domain to search.
    pub domain: Option<String>,
}

/// A range of addresses on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// The range.
    pub net: Ipv6Network,
    /// Whether the guest makes its address itself (A).
    pub auto: bool,
}

/// A router, by its link-local address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    /// The address.
    pub source: Ipv6Addr,
    /// Its MAC, where it is known.
    pub mac: Option<Mac>,
    /// Whether the default route is by it.
    pub is_default: bool,
    /// Where else by it.
    pub routes: Vec<Ipv6Network>,
}

/// A message with its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which router sends it.
    pub source: Ipv6Addr,
    /// Hop limit, flags and the router's lifetime: the second four octets.
    pub head: [u8; 4],
    /// The rest.
    pub rest: Vec<u8>,
}

impl Advert {
    /// Whether guests know by it where to go with what is for elsewhere.
    pub fn has_router(&self) -> bool {
        self.routers.iter().any(|router| router.is_default)
    }

    /// What is said where nothing of it holds any more.
    pub fn nothing(&self) -> Self {
        let none = |router: &Router| Router { is_default: false, routes: Vec::new(), ..router.clone() };
        Self { mtu: self.mtu, routers: self.routers.iter().map(none).collect(), ..Self::default() }
    }

    /// The messages that tell it, and that what was told before and is not said any more no longer holds.
    pub fn messages(&self, before: Option<&Self>) -> Vec<Message> {
        let mut messages: Vec<Message> =
            self.routers.iter().enumerate().flat_map(|(n, router)| self.of_router(router, before, n == 0)).collect();
        // A router that is none any more.
        let left = before.into_iter().flat_map(|before| &before.routers);
        let gone = left.filter(|old| self.routers.iter().all(|router| router.source != old.source));
        messages.extend(gone.flat_map(|old| {
            let none = Router { is_default: false, routes: Vec::new(), ..old.clone() };
            self.of_router(&none, before, false)
        }));
        messages
    }

    /// What one router says: in several messages where the link does not carry it in one (RFC 4861, 6.2.3).
    fn of_router(&self, router: &Router, before: Option<&Self>, is_first: bool) -> Vec<Message> {
        let flags = u8::from(self.managed) << 7 | u8::from(self.other) << 6;
        let lifetime = if router.is_default { ROUTER_LIFETIME } else { 0 };
        let [high, low] = lifetime.to_be_bytes();
        let mut options = Vec::new();
        if let Some(mac) = router.mac {
            option(&mut options, 1, &mac.0);
        }
        if is_first {
            self.options(&mut options, before);
        }
        let were = before.into_iter().flat_map(|before| &before.routers).find(|old| old.source == router.source);
        let gone = were.into_iter().flat_map(|old| &old.routes).filter(|old| !router.routes.contains(old));
        let routes = router.routes.iter().map(|route| (route, self.lifetime)).chain(gone.map(|route| (route, 0)));
        routes.for_each(|(route, lifetime)| route_information(&mut options, *route, lifetime));
        let mut rests = vec![EMPTY.to_vec()];
        let room = self.room();
        while let [_, units, ..] = options[..] {
            let behind = options.split_off(usize::from(units) * 8);
            match rests.last_mut().filter(|rest| rest.len() + options.len() <= room) {
                Some(rest) => rest.extend(options),
                None => rests.push([&EMPTY[..], &options].concat()),
            }
            options = behind;
        }
        let head = [HOP_LIMIT, flags, high, low];
        rests.into_iter().map(|rest| Message { source: router.source, head, rest }).collect()
    }

    /// How many octets a message has behind its head.
    fn room(&self) -> usize {
        usize::try_from(self.mtu.max(LEAST_MTU)).unwrap_or(usize::MAX) - HEADERS
    }

    /// What is of no router.
    fn options(&self, to: &mut Vec<u8>, before: Option<&Self>) {
        option(to, 5, &[&[0, 0][..], &self.mtu.to_be_bytes()].concat());
        let same = |prefix: &&Prefix| self.prefixes.iter().all(|one| one.net != prefix.net);
        let gone: BTreeSet<&Prefix> = before.into_iter().flat_map(|before| &before.prefixes).filter(same).collect();
        let prefixes = self.prefixes.iter().map(|prefix| (prefix, self.lifetime)).chain(gone.into_iter().map(|old| (old, 0)));
        for (prefix, lifetime) in prefixes {
            let flags = 0x80 | u8::from(prefix.auto) << 6;
            let [valid, preferred] = [lifetime.to_be_bytes(); 2];
            let head = [&[prefix.net.prefix(), flags][..], &valid, &preferred, &[0; 4]].concat();
            option(to, 3, &[&head[..], &prefix.net.network().octets()].concat());
        }
        let gone: Vec<Ipv6Addr> = before
            .into_iter()
            .flat_map(|before| &before.resolvers)
            .filter(|old| !self.resolvers.contains(old))
            .copied()
            .collect();
        // As many as an option has room for, and a message.
        let at_once = RESOLVERS.min((self.room() - EMPTY.len() - 8) / 16);
        for (all, lifetime) in [(&self.resolvers, self.lifetime), (&gone, 0)] {
            for resolvers in all.chunks(at_once) {
                let addresses: Vec<u8> = resolvers.iter().flat_map(|one| one.octets()).collect();
                option(to, 25, &[&[0, 0][..], &lifetime.to_be_bytes(), &addresses].concat());
            }
        }
        let gone = before.and_then(|before| before.domain.as_ref()).filter(|old| self.domain.as_ref() != Some(*old));
        for (domain, lifetime) in [(self.domain.as_ref(), self.lifetime), (gone, 0)] {
            if let Some(names) = domain.and_then(|domain| domains([domain.as_str()].into_iter())) {
                option(to, 31, &[&[0, 0][..], &lifetime.to_be_bytes(), &names].concat());
            }
        }
    }
}

/// Neither how long a neighbour is reachable nor how often it is asked.
const EMPTY: [u8; 8] = [0; 8];

/// The headers of IPv6 and ICMPv6, and a message's head, in octets.
const HEADERS: usize = 40 + 4 + 4;

/// What every link carries of IPv6 (RFC 8200, 5), in octets.
const LEAST_MTU: u32 = 1280;

/// How many addresses an option has room for.
const RESOLVERS: usize = 127;

/// For how many hops guests' packets are good.
const HOP_LIMIT: u8 = 64;

/// Puts an option behind the others, filled up with zeros: lengths count eight octets.
fn option(to: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let units = (value.len() + 2).div_ceil(8);
    let Ok(length) = u8::try_from(units) else { return };
    to.extend([kind, length]);
    to.extend(value);
    to.resize(to.len() + units * 8 - value.len() - 2, 0);
}

/// A route by the sender (RFC 4191, 2.3): of its prefix only as much as it needs.
fn route_information(to: &mut Vec<u8>, route: Ipv6Network, lifetime: u32) {
    let octets = match route.prefix() {
        0 => 0,
        1..=64 => 8,
        _ => 16,
    };
    let head = [&[route.prefix(), 0][..], &lifetime.to_be_bytes()].concat();
    option(to, 24, &[&head[..], &route.network().octets()[..octets]].concat());
}

/// Whether a message is a router solicitation (RFC 4861, 6.1.1), from behind its first eight octets on.
pub fn is_solicitation(code: u8, source: Ipv6Addr, mut options: &[u8]) -> bool {
    if code != 0 {
        return false;
    }
    while let [kind, units, ..] = options {
        // Who has no address yet says nothing of its MAC. An option without a length never ends.
        let length = usize::from(*units) * 8;
        if length == 0 || *kind == 1 && source.is_unspecified() {
            return false;
        }
        match options.get(length..) {
            Some(rest) => options = rest,
            None => return false,
        }
    }
    options.is_empty()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn advert() -> Advert {
        Advert {
            managed: false,
            other: true,
            mtu: 1400,
            lifetime: LIFETIME,
            prefixes: vec![Prefix { net: "fd00:a::/64".parse().unwrap(), auto: true }],
            routers: vec![Router {
                source: "fe80::1".parse().unwrap(),
                mac: Some(Mac([2, 0, 0, 0, 0, 1])),
                is_default: true,
                routes: vec!["fd09::/48".parse().unwrap()],
            }],
            resolvers: vec!["fd00:a::53".parse().unwrap()],
            domain: Some("x.example".to_owned()),
        }
    }

    #[test]
    fn octets_are_as_the_rfcs_say() {
        let [message] = &advert().messages(None)[..] else { panic!("one router") };
        assert_eq!((message.source, message.head), ("fe80::1".parse().unwrap(), [64, 0x40, 0xff, 0xff]));
        let expected = [
            &[0; 8][..],
            &[1, 1, 2, 0, 0, 0, 0, 1],
            &[5, 1, 0, 0, 0, 0, 5, 0x78],
            &[3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 1, 0x51, 0x80, 0, 0, 0, 0, 0xfd, 0, 0, 10, 0, 0, 0, 0],
            &[0; 8],
            &[25, 3, 0, 0, 0, 1, 0x51, 0x80, 0xfd, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53],
            &[31, 3, 0, 0, 0, 1, 0x51, 0x80, 1, b'x', 7, b'e', b'x', b'a', b'm', b'p', b'l', b'e', 0, 0, 0, 0, 0, 0],
            &[24, 2, 48, 0, 0, 1, 0x51, 0x80, 0xfd, 9, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(message.rest, expected.concat());
    }

    #[test]
    fn what_was_told_and_holds_no_longer_is_taken_back_once() {
        let before = advert();
        let router = Router { source: "fe80::2".parse().unwrap(), mac: None, is_default: true, routes: Vec::new() };
        let after = Advert {
            prefixes: vec![Prefix { net: "fd00:b::/64".parse().unwrap(), auto: false }],
            routers: vec![router],
            resolvers: Vec::new(),
            domain: None,
            ..before.clone()
        };
        let [new, old] = &after.messages(Some(&before))[..] else { panic!("two routers") };
        assert_eq!((new.source, &new.head[2..]), ("fe80::2".parse().unwrap(), &[0xff, 0xff][..]));
        assert_eq!((old.source, &old.head[2..]), ("fe80::1".parse().unwrap(), &[0, 0][..]));
        let kinds = |mut rest: &[u8]| {
            let mut kinds = Vec::new();
            rest = &rest[8..];
            while let [kind, units, ..] = rest {
                let option = &rest[..usize::from(*units) * 8];
                kinds.push((*kind, option[4..8].iter().all(|octet| *octet == 0)));
                rest = &rest[option.len()..];
            }
            kinds
        };
        assert_eq!(kinds(&new.rest), [(5, false), (3, false), (3, true), (25, true), (31, true)]);
        assert_eq!(kinds(&old.rest), [(1, false), (24, true)]);
        assert_eq!(after.messages(Some(&after)).len(), 1);
        assert_eq!(kinds(&after.messages(Some(&after))[0].rest), [(5, false), (3, false)]);
        let [none] = &before.nothing().messages(Some(&before))[..] else { panic!("one router") };
        assert_eq!((none.source, &none.head[1..]), ("fe80::1".parse().unwrap(), &[0, 0, 0][..]));
        assert_eq!(kinds(&none.rest), [(1, false), (5, false), (3, true), (25, true), (31, true), (24, true)]);
    }

    #[test]
    fn what_a_link_does_not_carry_at_once_is_told_in_several_messages() {
        let address = |n: u32| Ipv6Addr::from_bits(u128::from(n));
        let routes = (0..300).map(|n| Ipv6Network::new(address(n), 128).unwrap()).collect();
        for mtu in [1280, 9000] {
            let mut large = Advert { mtu, resolvers: (0..300).map(address).collect(), ..advert() };
            large.routers[0].routes = Vec::clone(&routes);
            let (mut count, mut told) = (BTreeMap::new(), Vec::new());
            for message in large.messages(None) {
                assert_eq!((message.source, message.head), ("fe80::1".parse().unwrap(), [64, 0x40, 0xff, 0xff]));
                assert!(message.rest.len() + HEADERS <= usize::try_from(mtu).unwrap(), "{}", message.rest.len());
                let mut rest = &message.rest[8..];
                while let [kind, units, ..] = rest {
                    let option = &rest[..usize::from(*units) * 8];
                    *count.entry(*kind).or_insert(0) += 1;
                    if *kind == 25 {
                        told.extend(option[8..].chunks(16).map(|ip| Ipv6Addr::from(*ip.first_chunk::<16>().unwrap())));
                    }
                    rest = &rest[option.len()..];
                }
            }
            assert_eq!((told, count[&24], count[&3]), (large.resolvers, 300, 1), "{mtu}");
        }
    }

    #[test]
    fn solicitations_are_known() {
        let (own, none) = ("fe80::1".parse().unwrap(), Ipv6Addr::UNSPECIFIED);
        let mac = [1, 1, 2, 0, 0, 0, 0, 1];
        for (code, source, options, is_one) in [
            (0, own, &[][..], true),
            (0, own, &mac, true),
            (0, none, &[], true),
            (0, none, &mac, false),
            (1, own, &[], false),
            (0, own, &[1, 0, 2, 0, 0, 0, 0, 1], false),
            (0, own, &[1], false),
            (0, own, &[1, 2, 0, 0, 0, 0, 0, 0], false),
            (0, own, &[255, 1, 2, 0, 0, 0, 0, 1], true),
        ] {
            assert_eq!(is_solicitation(code, source, options), is_one, "{code} {source} {options:?}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read(octets in prop::collection::vec(any::<u8>(), 0..2048)) {
            is_solicitation(0, Ipv6Addr::UNSPECIFIED, &octets);
        }
    }
}
