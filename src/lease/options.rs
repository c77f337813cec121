//! The options of answers, in the order of what matters to a client.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use crate::model::dhcp::{Sets, classless, domains};

use super::message::{Kind, Message, Reply};
use super::{Given, LEASE, Told, code};

type Options = Vec<(u8, Vec<u8>)>;

/// The shortest lease, in seconds: a client with a shorter one would ask without end.
const SHORTEST: u32 = 10;

/// What a client is told that gets an address, or keeps one.
pub(super) fn of_lease(message: &Message, told: &Told, given: &Given, kind: Kind) -> Options {
    let set = |number| told.extra.iter().find(|option| option.sets == Sets::Option(number));
    let seconds = |number| set(number).and_then(|option| option.octets.first_chunk()).map(|octets| u32::from_be_bytes(*octets));
    let lease = seconds(code::LEASE).unwrap_or(LEASE).max(SHORTEST);
    // At 0 seconds a client would renew without end.
    let times = [code::RENEWAL, code::REBINDING].map(|number| seconds(number).filter(|seconds| *seconds > 0));
    // RFC 2131, 4.4.5. A lease without an end has no half.
    let usual = |seconds| Some(seconds).filter(|_| lease != u32::MAX);
    let renewal = times[0].or(usual(lease / 2)).map(|renewal| renewal.min(lease));
    let rebinding = times[1].or(usual(lease - lease / 8)).map(|rebinding| rebinding.min(lease).max(renewal.unwrap_or_default()));
    let times = [(code::LEASE, Some(lease)), (code::RENEWAL, renewal), (code::REBINDING, rebinding)];
    let mut options = head(kind, given.server);
    options.extend(times.into_iter().filter_map(|(number, seconds)| Some((number, seconds?.to_be_bytes().to_vec()))));
    options.extend(body(message, told, given));
    options
}

/// What a client is told that has an address already.
pub(super) fn of_subnet(message: &Message, told: &Told, given: &Given, kind: Kind) -> Options {
    let mut options = head(kind, given.server);
    options.extend(body(message, told, given));
    options
}

fn head(kind: Kind, server: Ipv4Addr) -> Options {
    vec![(code::MESSAGE_TYPE, vec![kind.number()]), (code::SERVER, server.octets().to_vec())]
}

/// What the subnet, the network and the port say. What a client set for the port takes the place of what would be said. First comes
/// what every guest needs and what was set, then what the client wishes, in its order.
fn body(message: &Message, told: &Told, given: &Given) -> Options {
    const NEEDED: [u8; 4] = [code::MASK, code::ROUTES, code::ROUTER, code::RESOLVERS];
    const TIMES: [u8; 3] = [code::LEASE, code::RENEWAL, code::REBINDING];
    let mut all = computed(told, given);
    let mut set: Vec<u8> = Vec::new();
    for option in &told.extra {
        if let Sets::Option(number) = option.sets
            && !TIMES.contains(&number)
        {
            match option.octets.is_empty() {
                true => all.remove(&number),
                false => all.insert(number, option.octets.clone()),
            };
            set.push(number);
        }
    }
    let wishes = message.wishes().map_or_else(|| all.keys().copied().collect(), <[u8]>::to_vec);
    let order = NEEDED.into_iter().chain(set).chain(wishes).collect::<Vec<u8>>();
    order.into_iter().filter_map(|number| all.remove_entry(&number)).collect()
}

fn computed(told: &Told, given: &Given) -> BTreeMap<u8, Vec<u8>> {
    let octets = |addresses: &[Ipv4Addr]| addresses.iter().flat_map(|address| address.octets()).collect::<Vec<u8>>();
    let router = router(told, given);
    let mut all = BTreeMap::new();
    if let Ok(subnet) = Ipv4Network::new(given.address, given.prefix) {
        all.insert(code::MASK, subnet.mask().octets().to_vec());
        if given.prefix < 31 {
            all.insert(code::BROADCAST, subnet.broadcast().octets().to_vec());
        }
    }
    if let Some(router) = router {
        all.insert(code::ROUTER, router.octets().to_vec());
    }
    if !given.resolvers.is_empty() {
        all.insert(code::RESOLVERS, octets(&given.resolvers));
    }
    // A client that takes these does not look at the router: the default route is among them (RFC 3442).
    let default = router.and_then(|router| Some((Ipv4Network::new(Ipv4Addr::UNSPECIFIED, 0).ok()?, router)));
    let has_default = given.routes.iter().any(|(to, _)| to.prefix() == 0);
    let beyond: Vec<_> = given.routes.iter().copied().chain(default.filter(|_| !has_default)).collect();
    // A next hop outside the subnet is on the link all the same: router 0.0.0.0 says so (RFC 3442).
    let outside = |via: &Ipv4Addr| !Ipv4Network::new(given.address, given.prefix).is_ok_and(|subnet| subnet.contains(*via));
    let hops: BTreeSet<Ipv4Addr> = beyond.iter().map(|(_, via)| *via).filter(outside).collect();
    let on_link = hops.into_iter().map(|hop| (Ipv4Network::from(hop), Ipv4Addr::UNSPECIFIED));
    let routes: Vec<_> = on_link.chain(beyond).collect();
    if !routes.is_empty() {
        all.insert(code::ROUTES, classless(&routes));
    }
    if let Ok(mtu) = u16::try_from(told.mtu) {
        all.insert(code::MTU, mtu.to_be_bytes().to_vec());
    }
    if let Some(name) = &told.hostname {
        all.insert(code::HOSTNAME, name.clone().into_bytes());
    }
    if let Some(domain) = &told.domain {
        all.insert(code::DOMAIN, domain.clone().into_bytes());
        if let Some(search) = domains([domain.as_str()].into_iter()) {
            all.insert(code::SEARCH, search);
        }
    }
    all
}

/// The next hop of the default route: the first router that was set, none where that is empty, or the gateway.
fn router(told: &Told, given: &Given) -> Option<Ipv4Addr> {
    match told.extra.iter().find(|option| option.sets == Sets::Option(code::ROUTER)) {
        Some(set) => set.octets.first_chunk::<4>().map(|first| Ipv4Addr::from(*first)),
        None => given.router,
    }
}

/// A message with these options.
pub(super) fn reply(message: &Message, told: &Told, kind: Kind, options: Options) -> Reply {
    let set = |sets| told.extra.iter().find(|option| option.sets == sets).map(|option| option.octets.as_slice());
    let next = set(Sets::NextServer).and_then(<[u8]>::first_chunk::<4>);
    // What is larger than the link's packets is fragmented, which a boot ROM does not put together.
    let room = message.largest().min(usize::try_from(told.mtu).unwrap_or(usize::MAX).max(576)) - HEADERS;
    Reply {
        siaddr: next.map_or(Ipv4Addr::UNSPECIFIED, |octets| Ipv4Addr::from(*octets)),
        file: set(Sets::Option(code::BOOT_FILE)).unwrap_or_default().to_vec(),
        room,
        ..bare(message, kind, options)
    }
}

/// IP's and UDP's headers, which are part of the largest message (RFC 2132, 9.10).
const HEADERS: usize = 28;

/// A refusal (RFC 2131, table 3).
pub(super) fn refusal(message: &Message, server: Ipv4Addr) -> Reply {
    Reply { flags: message.flags | 0x8000, ..bare(message, Kind::Nak, head(Kind::Nak, server)) }
}

fn bare(message: &Message, kind: Kind, options: Options) -> Reply {
    // RFC 6842: what the client calls itself comes back, in front of what may not fit. It decides nothing.
    let client = message.options.get(&code::CLIENT).filter(|id| id.len() <= 255).map(|id| (code::CLIENT, id.clone()));
    let mut options = options;
    let behind_head = options.len().min(2);
    options.splice(behind_head..behind_head, client);
    Reply {
        kind,
        xid: message.xid,
        flags: message.flags,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        yiaddr: Ipv4Addr::UNSPECIFIED,
        siaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: message.giaddr,
        chaddr: message.chaddr,
        file: Vec::new(),
        options,
        room: 576 - HEADERS,
    }
}
