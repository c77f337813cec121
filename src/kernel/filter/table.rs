//! The table over netlink: it is made and changed in transactions, and read back.

use std::collections::BTreeMap;

use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, Nla, NlaBuffer};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, HookNumber, InetHookNumber, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage,
    SetAttribute, SetDescription, SetElementAttribute, SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute,
    TableMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use nix::sys::socket::{setsockopt, sockopt};

use super::elements::{self, Does, Element, Set, Sides};
use super::expression::{Expression, NFTA_COUNTER_PACKETS, Unit, counter, limit};
use super::group_rules;
use super::ruleset::{self, Chain};
use crate::failpoints;
use crate::kernel::answer::{Failure, Request};
use crate::kernel::message::{Batch, attributes, find, nested, text, value};
use crate::kernel::nft::{NFGENMSG, behind, is_dormant};
use crate::kernel::socket::{Netlink, failed, netfilter};
use crate::model::Family;
use crate::plan::filter::{Dropped, Reason};

/// The table's name, in the family of bridges.
pub(super) const TABLE: &str = "nicd";

/// The comment of a table that was made after this kernel had been checked with frames. It goes with the kernel's next boot.
const PROVEN: &str = "checked with frames";

/// How many devices there may be.
pub(super) const DEVICES: u32 = 32_768;

/// How many MACs and addresses all of them may have.
const ADDRESSES: u32 = 262_144;

/// The most bytes of one transaction: the elements of 4,000 ports take about 6 MiB.
const ROOM: usize = 256 << 20;

/// So many dropped frames of each device are logged, per second and at once.
const LOGGED: (u64, u32) = (4, 16);

/// So many DHCP requests of each device are heard, per second and at once.
const HEARD: (u64, u32) = (3000, 600);

/// What the kernel has of the table.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// Whether sets, chains and rules are as they are made.
    pub(super) is_whole: bool,
    /// Whether it says that it was made after this kernel had been checked.
    pub(super) is_proven: bool,
    /// Whether the rules of groups are among them.
    pub(super) has_groups: bool,
    /// The devices' elements, by index.
    pub(super) devices: BTreeMap<u32, Vec<Element>>,
    /// The elements that no device has alone.
    pub(super) shared: Vec<Element>,
}

/// A socket to the table.
#[derive(Debug)]
pub(super) struct Table {
    socket: Netlink,
    /// The port number of its socket, which the kernel names in events about changes made through it.
    port_number: u32,
}

impl Table {
    /// Opens a socket in the network namespace of the thread that calls.
    pub(super) fn open() -> Result<Self, Failure> {
        let socket = netfilter().map_err(|error| failed(Request::Filter, &error))?;
        // A larger transaction is refused with EMSGSIZE (`netlink_sendmsg`, net/netlink/af_netlink.c). In a user namespace the kernel
        // allows what net.core.wmem_max says.
        setsockopt(&socket, sockopt::SndBufForce, &ROOM)
            .or_else(|_| setsockopt(&socket, sockopt::SndBuf, &ROOM))
            .map_err(|errno| Failure::system(Request::Filter, errno))?;
        Ok(Self::through(Netlink::over(socket)))
    }

    /// A table in the network namespace of a socket that has nothing to do with the host or its guests.
    pub(super) fn apart(socket: netlink_sys::Socket) -> Self {
        Self::through(Netlink::apart(socket))
    }

    fn through(socket: Netlink) -> Self {
        let mut address = netlink_sys::SocketAddr::new(0, 0);
        let port_number = socket.socket().get_address(&mut address).map_or(0, |()| address.port_number());
        Self { socket, port_number }
    }

    /// Makes the table anew with these devices' elements, in one transaction: where there was one, its rules hold until the new
    /// ones do. With the rules of groups where it is said how many connections a port in them may have.
    pub(super) fn make(&mut self, elements: &[Element], proven: bool, groups: Option<u32>) -> Result<(), Failure> {
        self.socket.transact(Request::Filter, |batch| {
            // A table that is not there cannot be deleted.
            add(batch, NLM_F_CREATE, NfTablesMessage::NewTable(table()));
            add(batch, 0, NfTablesMessage::DeleteTable(table()));
            let mut new = table();
            new.attributes.extend(proven.then(|| TableAttribute::UserData(elements::user_data(PROVEN))));
            add(batch, NLM_F_CREATE, NfTablesMessage::NewTable(new));
            parts(batch, Set::all(), &ruleset::chains(None));
            if let Some(connections) = groups {
                parts(batch, Set::of_groups(), &group_rules::chains(connections));
            }
            change(batch, elements, false);
        })
    }

    /// Adds the rules of groups to the table, with these elements of theirs.
    pub(super) fn make_groups(&mut self, connections: u32, elements: &[Element]) -> Result<(), Failure> {
        self.socket.transact(Request::Filter, |batch| {
            parts(batch, Set::of_groups(), &group_rules::chains(connections));
            change(batch, elements, false);
        })
    }

    /// Takes some elements away and adds others, in one transaction.
    pub(super) fn change(&mut self, gone: &[Element], new: &[Element]) -> Result<(), Failure> {
        self.socket.transact(Request::Filter, |batch| {
            change(batch, gone, true);
            change(batch, new, false);
        })
    }

    /// What the kernel has.
    pub(super) fn read(&mut self, connections: u32) -> Result<Found, Failure> {
        failpoints::call(("filter", "read"), || self.read_all(connections), |errno| Failure::system(Request::Look, errno))
    }

    fn read_all(&mut self, connections: u32) -> Result<Found, Failure> {
        let (is_asked, is_proven) = self.state()?;
        let rules = if is_asked { self.rules()? } else { BTreeMap::new() };
        let has_groups = group_rules::chains(connections).iter().any(|chain| rules.contains_key(chain.name));
        let is_whole = is_asked && are(&ruleset::chains(has_groups.then_some(connections)), rules);
        let mut found = Found { is_whole, is_proven, has_groups, ..Found::default() };
        let of_groups = Set::of_groups().filter(|set| has_groups && is_whole && *set != Set::Connections);
        for set in Set::all().chain(of_groups) {
            for element in self.elements(set)? {
                match element.device() {
                    Some(index) => found.devices.entry(index).or_default().push(element),
                    None => found.shared.push(element),
                }
            }
        }
        Ok(found)
    }

    /// The elements of some sets that these devices have.
    pub(super) fn of_devices(&mut self, indexes: &[u32], sets: &[Set]) -> Result<Vec<Element>, Failure> {
        let of = |index: &u32| sets.iter().map(|set| elements::of_device(*index, *set, Does::Nothing)).collect::<Vec<_>>();
        let asked: Vec<Element> = indexes.iter().flat_map(of).collect();
        let ask = |batch: &mut Batch, element: &Element| {
            let message = of_set(element.set, vec![elements::attributes(element, true)]);
            batch.add(Request::Look, 0, self::message(NfTablesMessage::GetSetElement(message)));
        };
        let read = |body: &[u8]| {
            let list = find(body, NFGENMSG, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
            Ok(attributes(list, 0).next().map(|one| value(&one).to_vec()))
        };
        let answers = self.socket.ask_all(&asked, ask, read)?;
        let element = |(asked, answer): (&Element, Result<Option<Vec<u8>>, Failure>)| {
            Ok(answer?.and_then(|element| elements::read(asked.set, &element)))
        };
        asked.iter().zip(answers).filter_map(|answered| element(answered).transpose()).collect()
    }

    /// Whether an answer was lost on its socket.
    pub(super) fn is_spent(&self) -> bool {
        self.socket.spent()
    }

    /// See the field.
    pub(super) fn port_number(&self) -> u32 {
        self.port_number
    }

    /// Whether the table is there and its chains are asked (not `flags dormant`), and whether it says that it was proven.
    fn state(&mut self) -> Result<(bool, bool), Failure> {
        let mut batch = Batch::default();
        batch.add(Request::Look, 0, message(NfTablesMessage::GetTable(table())));
        let read = |body: &[u8]| {
            let proven = behind(body, NFTA_TABLE_USERDATA) == Some(&elements::user_data(PROVEN)[..]);
            Ok(Some((!is_dormant(body)?, proven)))
        };
        Ok(self.socket.answer(batch, read)?.unwrap_or_default())
    }

    /// How many frames were dropped since the table was made, by reason.
    pub(super) fn all_dropped(&mut self) -> Result<Dropped, Failure> {
        let rules = self.rules()?;
        let counted = |chain: &str| rules.get(chain)?.iter().flatten().find_map(|one| counted(one));
        let mut dropped =
            Dropped(Reason::ALL.into_iter().filter_map(|reason| Some((reason, counted(reason.chain())?))).collect());
        let to_guests = counted(group_rules::DROP_TO).unwrap_or_default();
        dropped.0.entry(Reason::Group).and_modify(|group| *group += to_guests);
        Ok(dropped)
    }

    /// The expressions of each chain's rules, as the kernel gives them. The crate's types would write a text for each attribute, in
    /// case that it is wrong: half the processor time of a debug build's start, a twentieth of a release's with 1,000 ports.
    fn rules(&mut self) -> Result<BTreeMap<String, Vec<FoundRule>>, Failure> {
        let ask = || {
            let mut batch = Batch::default();
            let named = RuleMessage { attributes: vec![RuleAttribute::Table(TABLE.to_owned())] };
            batch.add(Request::Look, NLM_F_DUMP, message(NfTablesMessage::GetRule(named)));
            batch
        };
        let read = |body: &[u8]| {
            let chain = behind(body, NFTA_RULE_CHAIN).map(text).unwrap_or_default();
            let expressions = behind(body, NFTA_RULE_EXPRESSIONS).unwrap_or_default();
            Ok(Some((chain, attributes(expressions, 0).map(|one| value(&one).to_vec()).collect())))
        };
        let mut rules: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (chain, expressions) in self.socket.dump_whole(ask, read)? {
            rules.entry(chain).or_default().push(expressions);
        }
        Ok(rules)
    }

    fn elements(&mut self, set: Set) -> Result<Vec<Element>, Failure> {
        let ask = || {
            let mut batch = Batch::default();
            batch.add(Request::Look, NLM_F_DUMP, message(NfTablesMessage::GetSetElement(of_set(set, Vec::new()))));
            batch
        };
        let read = |body: &[u8]| {
            let list = find(body, NFGENMSG, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
            Ok(Some(attributes(list, 0).filter_map(|one| elements::read(set, value(&one))).collect::<Vec<_>>()))
        };
        Ok(self.socket.dump_whole(ask, read)?.concat())
    }
}

/// The expressions of a rule, as the kernel gives them.
type FoundRule = Vec<Vec<u8>>;

/// Whether chains and rules are as they are made.
fn are(chains: &[Chain], mut found: BTreeMap<String, Vec<FoundRule>>) -> bool {
    let are_there = chains.iter().all(|chain| {
        let found = found.remove(chain.name).unwrap_or_default();
        let is_there = |(wanted, found): (&ruleset::Rule, &FoundRule)| {
            let octets = wanted.iter().map(octets).collect::<Vec<_>>();
            octets.len() == found.len() && octets.iter().zip(found).all(|(wanted, found)| is_expression(wanted, found))
        };
        chain.rules.len() == found.len() && chain.rules.iter().zip(&found).all(is_there)
    });
    are_there && found.is_empty()
}

/// An expression as nicd sends it.
fn octets(expression: &Expression) -> Vec<u8> {
    let mut octets = vec![0; expression.value_len()];
    expression.emit_value(&mut octets);
    octets
}

/// Whether the kernel has an expression as it was sent, apart from what a counter has counted.
fn is_expression(sent: &[u8], found: &[u8]) -> bool {
    if is_counter(sent) { is_counter(found) } else { is_same(sent, found) }
}

/// Whether attributes are those that were sent. The kernel also gives those that are 0, in another order, and marks none as nested.
fn is_same(sent: &[u8], found: &[u8]) -> bool {
    let found: BTreeMap<u16, &[u8]> = attributes(found, 0).map(|one| (one.kind(), value(&one))).collect();
    let sent: BTreeMap<u16, _> = attributes(sent, 0).map(|one| (one.kind(), one)).collect();
    let is_zero = |value: &[u8]| value.iter().all(|octet| *octet == 0);
    let is_found = |(kind, one): (&u16, &NlaBuffer<&[u8]>)| match found.get(kind) {
        Some(found) if one.nested_flag() => is_same(value(one), found),
        Some(found) => value(one) == *found,
        None => is_zero(value(one)),
    };
    sent.iter().all(is_found) && found.iter().all(|(kind, value)| sent.contains_key(kind) || is_zero(value))
}

fn is_counter(expression: &[u8]) -> bool {
    find(expression, 0, NFTA_EXPR_NAME).map(text).as_deref() == Some("counter")
}

/// How many frames a rule's counter has counted.
fn counted(expression: &[u8]) -> Option<u64> {
    let data = Some(expression).filter(|expression| is_counter(expression)).and_then(|found| find(found, 0, NFTA_EXPR_DATA))?;
    Some(find(data, 0, NFTA_COUNTER_PACKETS)?.first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets)))
}

/// `linux/netfilter/nf_tables.h`.
const NFTA_TABLE_USERDATA: u16 = 6;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;

fn message(message: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Bridge, 0, 0), message)
}

fn add(batch: &mut Batch, flags: u16, change: NfTablesMessage) {
    batch.add(Request::Filter, flags, message(change));
}

fn table() -> TableMessage {
    TableMessage { attributes: vec![TableAttribute::Name(TABLE.to_owned())] }
}

/// Adds sets, chains and rules to the table.
fn parts(batch: &mut Batch, sets: impl Iterator<Item = Set>, chains: &[Chain]) {
    for set in sets {
        add(batch, NLM_F_CREATE, NfTablesMessage::NewSet(new_set(set)));
    }
    for chain in chains {
        add(batch, NLM_F_CREATE, NfTablesMessage::NewChain(new_chain(chain)));
    }
    for chain in chains {
        for rule in &chain.rules {
            add(batch, NLM_F_CREATE | NLM_F_APPEND, NfTablesMessage::NewRule(new_rule(chain.name, rule)));
        }
    }
}

/// The number of a set in a transaction.
fn id(set: Set) -> u32 {
    (1..).zip(Set::all().chain(Set::of_groups())).find(|(_, one)| *one == set).map_or(0, |(id, _)| id)
}

fn new_set(set: Set) -> SetMessage {
    let padded = match set.parts() {
        [one] => *one,
        parts => parts.iter().map(|part| part.next_multiple_of(4)).sum(),
    };
    let size = if set.parts().len() == 1 { DEVICES } else { ADDRESSES };
    let mut flags = SetFlags::empty();
    let mut description = vec![SetDescription::Size(size)];
    if set.has_intervals() {
        flags |= SetFlags::Interval | SetFlags::Concat;
        description = vec![SetDescription::Concat(set.parts().iter().map(|part| field(*part)).collect())];
    }
    flags.set(SetFlags::Eval, set.is_made_by_frames());
    flags.set(SetFlags::Map, set.value().is_some());
    let mut attributes = vec![
        SetAttribute::Table(TABLE.to_owned()),
        SetAttribute::Name(set.name().to_owned()),
        SetAttribute::Flags(flags),
        SetAttribute::KeyType(key_type(set)),
        SetAttribute::KeyLen(padded),
        SetAttribute::Id(id(set)),
        SetAttribute::Description(description),
    ];
    if set.parts() == [4] {
        attributes.push(SetAttribute::UserData(HOST_ORDER.to_vec()));
    }
    if let Some(length) = set.value() {
        attributes.extend([SetAttribute::DataType(value_type(set)), SetAttribute::DataLen(length)]);
    }
    let expression = match set {
        Set::Logged => Some(limit(LOGGED.0, LOGGED.1, Unit::Packets, false)),
        Set::Requests => Some(limit(HEARD.0, HEARD.1, Unit::Packets, false)),
        Set::Limits => Some(limit(1, 0, Unit::Bytes, true)),
        Set::Dropped(_) => Some(counter(0, 0)),
        _ => None,
    };
    if let Some(ListAttribute::Element(expression)) = expression {
        attributes.push(SetAttribute::Other(elements::expression_of_set(&expression)));
    }
    SetMessage { attributes }
}

/// Tells programs that list the table that a set's keys are in the host's byte order: type `NFTNL_UDATA_SET_KEYBYTEORDER`, length,
/// and `BYTEORDER_HOST_ENDIAN` (libnftnl; nftables).
const HOST_ORDER: [u8; 6] = {
    let [a, b, c, d] = 1u32.to_ne_bytes();
    [0, 4, a, b, c, d]
};

/// One part of a concatenation: its length (`nft_set_desc_concat_parse`, net/netfilter/nf_tables_api.c).
fn field(length: u32) -> DefaultNla {
    nested(1, &[DefaultNla::new(1, length.to_be_bytes().to_vec())])
}

/// By this programs that list the table know how to show a key: of each part a type's number, 6 bits each
/// (`enum datatypes` of nftables).
fn key_type(set: Set) -> u32 {
    const INDEX: u32 = 20;
    const ETHER: u32 = 9;
    const IP4: u32 = 7;
    const IP6: u32 = 8;
    const MARK: u32 = 19;
    const PROTOCOL: u32 = 12;
    const SERVICE: u32 = 13;
    const NAME: u32 = 41;
    const CLASS: u32 = 23;
    let parts: &[u32] = match set {
        Set::Zones => &[NAME],
        Set::Hosts => &[NAME, ETHER],
        Set::Holders4 => &[NAME, IP4],
        Set::Holders6 => &[NAME, IP6],
        Set::Allowed(_, Family::V4, Sides::Nets) => &[MARK, IP4],
        Set::Allowed(_, Family::V6, Sides::Nets) => &[MARK, IP6],
        Set::Allowed(_, Family::V4, Sides::CarriedNets) => &[MARK, PROTOCOL, SERVICE, IP4],
        Set::Allowed(_, Family::V6, Sides::CarriedNets) => &[MARK, PROTOCOL, SERVICE, IP6],
        Set::Allowed(_, _, Sides::Profiles) => &[MARK, CLASS],
        Set::Allowed(_, _, Sides::CarriedProfiles) => &[MARK, CLASS, PROTOCOL, SERVICE],
        Set::Tunnelled => &[ETHER],
        Set::Served | Set::Served6 | Set::Solicited | Set::Macs => &[INDEX, ETHER],
        Set::Hosts4 | Set::Nets4 => &[INDEX, ETHER, IP4],
        Set::Hosts6 | Set::Nets6 => &[INDEX, ETHER, IP6],
        _ => &[INDEX],
    };
    parts.iter().fold(0, |all, part| all << 6 | part)
}

/// The same of what a map has for a key.
fn value_type(set: Set) -> u32 {
    const INTEGER: u32 = 4;
    const MARK: u32 = 19;
    const CLASS: u32 = 23;
    match set {
        Set::Zones => INTEGER,
        Set::Holders4 | Set::Holders6 => CLASS,
        _ => MARK,
    }
}

fn new_chain(chain: &Chain) -> ChainMessage {
    let mut attributes = vec![ChainAttribute::Table(TABLE.to_owned()), ChainAttribute::Name(chain.name.to_owned())];
    if let Some((hook, priority)) = chain.hook {
        let number = HookNumber::Inet(InetHookNumber::from(hook));
        let priority = u32::from_ne_bytes(priority.to_ne_bytes());
        attributes.extend([
            ChainAttribute::Hook(vec![Hook::Number(number), Hook::Priority(priority)]),
            ChainAttribute::Policy(1),
            ChainAttribute::Type("filter".to_owned()),
        ]);
    }
    ChainMessage { attributes }
}

fn new_rule(chain: &str, rule: &[Expression]) -> RuleMessage {
    let attributes = vec![
        RuleAttribute::Table(TABLE.to_owned()),
        RuleAttribute::Chain(chain.to_owned()),
        RuleAttribute::Expressions(rule.to_vec()),
    ];
    RuleMessage { attributes }
}

/// A message about elements of a set, or all of it.
fn of_set(set: Set, elements: Vec<ListAttribute<SetElementAttribute>>) -> SetElementMessage {
    let mut attributes = vec![SetElementList::Table(TABLE.to_owned()), SetElementList::Set(set.name().to_owned())];
    if !elements.is_empty() {
        attributes.push(SetElementList::Elements(elements));
    }
    SetElementMessage { attributes }
}

/// Elements of one set go in one message, as far as they fit.
fn change(batch: &mut Batch, elements: &[Element], delete: bool) {
    const TOGETHER: usize = 256;
    let mut by_set: BTreeMap<Set, Vec<&Element>> = BTreeMap::new();
    elements.iter().for_each(|element| by_set.entry(element.set).or_default().push(element));
    for (set, elements) in by_set {
        for some in elements.chunks(TOGETHER) {
            let list = some.iter().map(|element| elements::attributes(element, delete)).collect();
            let message = of_set(set, list);
            match delete {
                true => add(batch, 0, NfTablesMessage::DeleteSetElement(message)),
                false => add(batch, NLM_F_CREATE, NfTablesMessage::NewSetElement(message)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;

    fn sent(attributes: &[DefaultNla]) -> Vec<u8> {
        let mut octets = vec![0; attributes.buffer_len()];
        attributes.emit(&mut octets);
        octets
    }

    fn word(kind: u16, word: u32) -> DefaultNla {
        DefaultNla::new(kind, word.to_be_bytes().to_vec())
    }

    #[test]
    fn an_expression_is_the_same_in_any_order_with_zeros_and_without_marks_of_nesting() {
        let ours = sent(&[word(1, 8), nested(2, &[word(1, 7)])]);
        let inner = sent(&[word(1, 7), word(9, 0)]);
        assert!(is_same(&ours, &sent(&[DefaultNla::new(2, inner), word(3, 0), word(1, 8)])));
        assert!(!is_same(&ours, &sent(&[word(1, 8), DefaultNla::new(2, sent(&[word(1, 6)]))])), "another value");
        assert!(!is_same(&ours, &sent(&[word(1, 8)])), "one is missing");
        assert!(!is_same(&ours, &sent(&[word(1, 8), nested(2, &[word(1, 7)]), word(3, 1)])), "one is more");
    }

    #[test]
    fn each_rule_is_another_than_all_others() {
        let chains = ruleset::chains(Some(1));
        let rules: Vec<FoundRule> =
            chains.iter().flat_map(|chain| &chain.rules).map(|rule| rule.iter().map(octets).collect()).collect();
        let same = |a: &[Vec<u8>], b: &[Vec<u8>]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_expression(a, b));
        for rule in &rules {
            let alike = rules.iter().filter(|other| same(rule, other)).count();
            assert_eq!(alike, rules.iter().filter(|other| *other == rule).count(), "{rule:?}");
        }
    }
}
