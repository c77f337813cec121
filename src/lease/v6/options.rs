//! The options of answers, in the order of what matters to a client.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use crate::model::dhcp::{Sets, domains};

use super::message::{Association, Kind, Message, Of, put};
use super::{Status, Told, code, duid};
use crate::lease::LEASE;

type Options = Vec<(u16, Vec<u8>)>;

/// Who asks, where it says so, and who answers.
pub(super) fn head(message: &Message<'_>, told: &Told) -> Options {
    let client = message.client().map(|client| (code::CLIENT, client.to_vec()));
    client.into_iter().chain([(code::SERVER, duid(told.server))]).collect()
}

/// How many of an answer's options are its head.
pub(super) fn head_length(options: &[(u16, Vec<u8>)]) -> usize {
    options.iter().take_while(|(number, _)| matches!(*number, code::CLIENT | code::SERVER)).count()
}

/// A status without words.
pub(super) fn status(status: Status) -> Vec<u8> {
    (status as u16).to_be_bytes().to_vec()
}

/// An association of which nothing is the client's, or nothing is to be had.
pub(super) fn refused(asked: &Association, why: Status) -> Vec<u8> {
    let mut octets = begun(asked, 0, 0);
    put(&mut octets, code::STATUS, &status(why));
    octets
}

/// An association as it is answered: what is given, and that what else the client names it has no longer.
pub(super) fn association(asked: &Association, given: &[Ipv6Addr], kind: Kind) -> Vec<u8> {
    let goes_on = matches!(kind, Kind::Renew | Kind::Rebind);
    let gone: Vec<&Ipv6Addr> = asked.addresses.iter().filter(|address| !given.contains(address)).collect();
    if given.is_empty() && !(goes_on && asked.of == Of::Addresses && !gone.is_empty()) {
        return refused(
            asked,
            match (asked.of, goes_on) {
                (_, true) => Status::NoBinding,
                (Of::Prefixes, false) => Status::NoPrefix,
                (_, false) => Status::NoAddresses,
            },
        );
    }
    // As DHCPv4's (RFC 8415, 21.4 has 0.5 and 0.8 for an example).
    let mut octets = begun(asked, LEASE / 2, LEASE - LEASE / 8);
    for address in given {
        put(&mut octets, code::ADDRESS, &lasting(*address, LEASE));
    }
    for address in gone.into_iter().filter(|_| goes_on) {
        put(&mut octets, code::ADDRESS, &lasting(*address, 0));
    }
    octets
}

fn begun(asked: &Association, renewal: u32, rebinding: u32) -> Vec<u8> {
    let times = [renewal.to_be_bytes(), rebinding.to_be_bytes()].concat();
    [&asked.id[..], &times[..asked.of.fixed() - 4]].concat()
}

fn lasting(address: Ipv6Addr, seconds: u32) -> Vec<u8> {
    [&address.octets()[..], &seconds.to_be_bytes(), &seconds.to_be_bytes()].concat()
}

/// What the subnets and the port say, as far as the client wishes it, in its order; what was set for the port comes first, and always.
pub(super) fn of_subnet(message: &Message<'_>, told: &Told) -> Options {
    let mut all = computed(message, told);
    let set: Vec<u16> = told.extra.iter().filter_map(|option| number(option.sets)).collect();
    for option in &told.extra {
        if let Some(number) = number(option.sets) {
            all.insert(number, option.octets.clone());
        }
    }
    let wishes = message.wishes().unwrap_or_else(|| all.keys().copied().collect());
    let named = message.option(code::NAME).map(|_| code::NAME);
    let order: Vec<u16> = set.into_iter().chain(wishes).chain(named).collect();
    order.into_iter().filter_map(|number| all.remove_entry(&number)).collect()
}

fn number(sets: Sets) -> Option<u16> {
    match sets {
        Sets::Option6(number) => Some(number),
        Sets::Option(_) | Sets::NextServer => None,
    }
}

fn computed(message: &Message<'_>, told: &Told) -> BTreeMap<u16, Vec<u8>> {
    let mut all = BTreeMap::new();
    if !told.resolvers.is_empty() {
        all.insert(code::RESOLVERS, told.resolvers.iter().flat_map(|one| one.octets()).collect());
    }
    if let Some(search) = told.domain.as_ref().and_then(|domain| domains([domain.as_str()].into_iter())) {
        all.insert(code::SEARCH, search);
    }
    if let Some(name) = told.hostname.as_ref().and_then(|name| name_option(message, name, told.domain.as_deref())) {
        all.insert(code::NAME, name);
    }
    if message.kind == Kind::Information {
        all.insert(code::REFRESH, (LEASE / 2).to_be_bytes().to_vec());
    }
    all
}

/// The guest's name (RFC 4704, 4): no server updates DNS for it (N), also where the client asked for that (O). Without a domain it is a part
/// of a name.
fn name_option(message: &Message<'_>, name: &str, domain: Option<&str>) -> Option<Vec<u8>> {
    const SERVER_UPDATES: u8 = 1;
    const OVERRIDES: u8 = 2;
    const NO_UPDATES: u8 = 4;
    let asked = message.option(code::NAME).and_then(<[u8]>::first).is_some_and(|flags| flags & SERVER_UPDATES != 0);
    let whole = domain.filter(|_| !name.contains('.')).map(|domain| format!("{name}.{domain}"));
    let mut octets = domains([whole.as_deref().unwrap_or(name)].into_iter())?;
    if whole.is_none() && !name.contains('.') {
        octets.pop();
    }
    Some([&[NO_UPDATES | if asked { OVERRIDES } else { 0 }][..], &octets].concat())
}
