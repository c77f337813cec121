//! How the host's packet filter treats bridged frames: the nf_tables chains on the forward hooks with the chains they jump to, and
//! whether br_netfilter passes bridged frames to the IP chains (`br_nf_forward_ip`, net/bridge/br_netfilter_hooks.c).
//!
//! This state is read once and cached; reads of bridges use the cache. It is read again after an event about a ruleset, at each
//! complete dump, and when a setting of br_netfilter has changed, which causes no event. Tables of `iptables-legacy` are not
//! read, because reading one creates it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::c_int;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netlink_packet_core::{DecodeError, NLM_F_DUMP};

use super::answer::{Failure, Request};
use super::message::{self, Batch, Message, attributes, check, find, text, text_nla, value};
use super::nft::{self, NFGENMSG, Nft, be32_at, behind};
use super::socket::Netlink;
use super::untyped::*;
use crate::plan::forward::{Base, Condition, Family, Filter, Forward, Passage, Protocol, Rule, Table, Verdict};
use crate::plan::{Kind, LinkState, NfCall};

/// The maximum number of chains and of rules that are read; further ones count as unknown.
const CHAINS: usize = 64;

/// See [`CHAINS`].
const RULES: usize = 4096;

/// br_netfilter's settings of this network namespace; not there where it is not loaded.
const SETTINGS: [&str; 2] = ["/proc/sys/net/bridge/bridge-nf-call-iptables", "/proc/sys/net/bridge/bridge-nf-call-ip6tables"];

/// What was read; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Forwarding(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// None before the first look.
    read: Option<Arc<Read>>,
    /// It could not be read the last time, and what was known before stands.
    failed: bool,
    /// What was noted on bridges, by their index.
    noted: BTreeMap<u32, (String, NfCall, Forward)>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    settings: Settings,
    filter: Filter,
}

/// Whether br_netfilter is there, and what it hands to the chains of IPv4 and IPv6 from every bridge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Settings(Option<NfCall>);

impl Settings {
    fn read() -> Self {
        let set = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim() != "0");
        let [v4, v6] = SETTINGS.map(set);
        Self(v4.zip(v6).map(|(v4, v6)| NfCall { v4, v6 }))
    }
}

impl Read {
    fn forward(&self, index: u32, name: &str, call: NfCall) -> Forward {
        let all = self.settings.0;
        let (v4, v6) = (all.is_some_and(|all| all.v4 || call.v4), all.is_some_and(|all| all.v6 || call.v6));
        self.filter.forward(Passage { name, index, v4, v6 })
    }
}

impl Forwarding {
    /// Notes on bridges what frames meet on their way through them.
    pub(super) fn note(&self, nft: &mut Nft, links: &mut [LinkState]) {
        if !links.iter().any(|link| link.kind == Kind::Bridge) {
            return;
        }
        let read = self.known().read.clone();
        let read = match read {
            Some(read) => read,
            None => self.replace(nft),
        };
        let mut known = self.known();
        for link in links.iter_mut().filter(|link| link.kind == Kind::Bridge) {
            link.forward = read.forward(link.index, &link.name, link.nf_call);
            known.noted.insert(link.index, (link.name.clone(), link.nf_call, link.forward.clone()));
        }
    }

    /// The same after a complete look: on what is read anew, and of bridges that are gone nothing is kept.
    pub(super) fn note_all(&self, nft: &mut Nft, links: &mut [LinkState]) {
        self.replace(nft);
        self.known().noted.clear();
        self.note(nft, links);
    }

    /// Reads anew; the bridges of which something else is to be noted from now on.
    pub(super) fn refresh(&self, nft: &mut Nft) -> Vec<u32> {
        let read = self.replace(nft);
        let known = self.known();
        let other = |(index, (name, call, noted)): (&u32, &(String, NfCall, Forward))| {
            (read.forward(*index, name, *call) != *noted).then_some(*index)
        };
        known.noted.iter().filter_map(other).collect()
    }

    /// Whether the state has to be read again without an event: a setting of br_netfilter has changed, or the last read failed. Reads two
    /// small files.
    pub(super) fn is_stale(&self) -> bool {
        let (failed, known) = {
            let known = self.known();
            (known.failed, known.read.as_ref().map(|read| read.settings))
        };
        failed || known.is_some_and(|known| known != Settings::read())
    }

    /// Reads all of it. Where that fails, as under a ruleset that keeps changing, the chains stay as they are known: nothing else that
    /// a look shows hangs on them.
    fn replace(&self, nft: &mut Nft) -> Arc<Read> {
        let settings = Settings::read();
        let filter = filter(nft, settings.0.is_some());
        let mut known = self.known();
        known.failed = filter.is_err();
        let filter = filter.unwrap_or_else(|failure| {
            tracing::debug!(said = failure.said, "the host's packet filter could not be read");
            known.read.as_ref().map(|read| read.filter.clone()).unwrap_or_default()
        });
        let read = Arc::new(Read { settings, filter });
        known.read = Some(Arc::clone(&read));
        read
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an event of nf_tables is about chains that bridged frames may come by.
pub(super) fn concerns(message: &Message<'_>) -> bool {
    let kinds = libc::NFT_MSG_NEWTABLE..=libc::NFT_MSG_DELRULE;
    nft::event(message).is_some_and(|kind| kinds.contains(&kind)) && family(message.payload()).is_some()
}

fn family(body: &[u8]) -> Option<Family> {
    match nft::family(body)? {
        libc::NFPROTO_INET => Some(Family::Inet),
        libc::NFPROTO_IPV4 => Some(Family::Ip),
        libc::NFPROTO_IPV6 => Some(Family::Ip6),
        libc::NFPROTO_BRIDGE => Some(Family::Bridge),
        _ => None,
    }
}

/// A chain, as a dump has it.
struct ReadChain {
    table: Table,
    name: String,
    /// Whether it is asked by the forward hook, and then whether it drops what no rule decides.
    base: Option<bool>,
    /// Whether it may have rules.
    used: bool,
}

/// The chains on the forward hooks, of bridges alone or of IP as well, and those that they lead to.
fn filter(nft: &mut Nft, ip: bool) -> Result<Filter, Failure> {
    let wanted = |family: Family| ip || family == Family::Bridge;
    let Some(socket) = nft.reading()? else { return Ok(Filter::default()) };
    let chains = dump(socket, libc::NFT_MSG_GETCHAIN, None, read_chain)?;
    let chains: Vec<ReadChain> = chains.into_iter().filter(|chain| wanted(chain.table.0)).collect();
    if chains.iter().all(|chain| chain.base.is_none()) {
        return Ok(Filter::default());
    }
    let dormant: BTreeSet<Table> = dump(socket, libc::NFT_MSG_GETTABLE, None, dormant)?.into_iter().collect();
    let asked = chains.iter().filter(|chain| !dormant.contains(&chain.table));
    let bases: Vec<Base> = asked
        .filter_map(|chain| Some(Base { table: chain.table.clone(), name: chain.name.clone(), drops: chain.base? }))
        .collect();
    let used: BTreeMap<(&Table, &str), bool> =
        chains.iter().map(|chain| ((&chain.table, chain.name.as_str()), chain.used)).collect();
    let mut rules: BTreeMap<(Table, String), Vec<Rule>> = BTreeMap::new();
    let mut left = RULES;
    let mut next: VecDeque<(Table, String)> = bases.iter().map(|base| (base.table.clone(), base.name.clone())).collect();
    while let Some(chain) = next.pop_front() {
        if rules.contains_key(&chain) || rules.len() == CHAINS {
            continue;
        }
        let found = match used.get(&(&chain.0, chain.1.as_str())) {
            Some(false) => Vec::new(),
            Some(true) => dump(socket, libc::NFT_MSG_GETRULE, Some(&chain), |body| Ok(Some(read_rule(body)?)))?,
            // It came in between; the event about that leads here again.
            None => continue,
        };
        let Some(fewer) = left.checked_sub(found.len()) else { continue };
        left = fewer;
        let leads = found.iter().filter_map(|rule| match &rule.verdict {
            Verdict::Jump(to) | Verdict::Goto(to) => Some((chain.0.clone(), to.clone())),
            _ => None,
        });
        next.extend(leads);
        rules.insert(chain, found);
    }
    Ok(Filter { bases, rules })
}

/// A dump of chains or tables of all families, or of a chain's rules.
fn dump<T>(
    socket: &mut Netlink,
    kind: c_int,
    of: Option<&(Table, String)>,
    read: impl Fn(&[u8]) -> message::Read<T>,
) -> Result<Vec<T>, Failure> {
    let number = of.map_or(libc::AF_UNSPEC, |((family, _), _)| match family {
        Family::Ip => libc::NFPROTO_IPV4,
        Family::Ip6 => libc::NFPROTO_IPV6,
        Family::Inet => libc::NFPROTO_INET,
        Family::Bridge => libc::NFPROTO_BRIDGE,
    });
    let of = of.map(|((_, table), chain)| [text_nla(NFTA_RULE_TABLE, table), text_nla(NFTA_RULE_CHAIN, chain)]);
    let ask = || {
        let mut batch = Batch::default();
        batch.add(Request::Look, NLM_F_DUMP, nft::message(kind, number, of.iter().flatten().cloned().collect()));
        batch
    };
    socket.dump(ask, read)
}

/// A table whose chains are not asked; none for others.
fn dormant(body: &[u8]) -> message::Read<Table> {
    let dormant = nft::is_dormant(body)?;
    let table = family(body).zip(behind(body, NFTA_TABLE_NAME).map(text));
    Ok(table.filter(|_| dormant))
}

/// A chain; none of another family's.
fn read_chain(body: &[u8]) -> message::Read<ReadChain> {
    check(body, NFGENMSG)?;
    let number = |kind| behind(body, kind).and_then(be32_at);
    let hook = behind(body, NFTA_CHAIN_HOOK).and_then(|hook| find(hook, 0, NFTA_HOOK_HOOKNUM)).and_then(be32_at);
    let filters = behind(body, NFTA_CHAIN_TYPE).map(text).as_deref() == Some("filter");
    let base = (hook == Some(libc::NF_INET_FORWARD) && filters).then(|| number(NFTA_CHAIN_POLICY) == Some(libc::NF_DROP));
    let table = family(body).zip(behind(body, NFTA_CHAIN_TABLE).map(text));
    let used = number(NFTA_CHAIN_USE).is_none_or(|used| used != 0);
    Ok(table.zip(behind(body, NFTA_CHAIN_NAME).map(text)).map(|(table, name)| ReadChain { table, name, base, used }))
}

/// What a register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Device,
    Bridge,
    Index,
    /// The family's number.
    Protocol,
    /// What follows the Ethernet header, in the network's order.
    EtherType,
    /// The state of a connection, of which these bits are left.
    State(u32),
}

/// `nf_tables_fill_rule_info`, net/netfilter/nf_tables_api.c.
fn read_rule(body: &[u8]) -> Result<Rule, DecodeError> {
    check(body, NFGENMSG)?;
    let mut rule = Rule { conditions: Vec::new(), verdict: Verdict::Continue };
    let mut registers: BTreeMap<c_int, Loaded> = BTreeMap::new();
    let list = behind(body, NFTA_RULE_EXPRESSIONS).unwrap_or_default();
    for element in attributes(list, 0).filter(|element| element.kind() == NFTA_LIST_ELEM) {
        let element = value(&element);
        let name = find(element, 0, NFTA_EXPR_NAME).map(text).unwrap_or_default();
        let data = find(element, 0, NFTA_EXPR_DATA).unwrap_or_default();
        let number = |kind| find(data, 0, kind).and_then(be32_at);
        let mut load = |register: Option<c_int>, loaded: Option<Loaded>| {
            let Some(register) = register else { return };
            match loaded {
                Some(loaded) => _ = registers.insert(register, loaded),
                None => _ = registers.remove(&register),
            }
        };
        match name.as_str() {
            "meta" => load(number(NFTA_META_DREG), number(NFTA_META_KEY).and_then(meta)),
            "ct" => {
                load(number(NFTA_CT_DREG), (number(NFTA_CT_KEY) == Some(libc::NFT_CT_STATE)).then_some(Loaded::State(u32::MAX)))
            }
            "bitwise" => {
                let from = number(NFTA_BITWISE_SREG).and_then(|register| registers.get(&register).copied());
                let mask = find(data, 0, NFTA_BITWISE_MASK).and_then(|mask| find(mask, 0, NFTA_DATA_VALUE));
                let masked = match (from, mask.and_then(|mask| u32_at(mask, 0))) {
                    (Some(Loaded::State(bits)), Some(mask)) => Some(Loaded::State(bits & mask)),
                    _ => None,
                };
                let to = number(NFTA_BITWISE_DREG);
                match masked {
                    Some(masked) => _ = to.map(|to| registers.insert(to, masked)),
                    None => _ = to.map(|to| registers.remove(&to)),
                }
            }
            "cmp" => {
                let loaded = number(NFTA_CMP_SREG).and_then(|register| registers.get(&register).copied());
                let value = find(data, 0, NFTA_CMP_DATA).and_then(|data| find(data, 0, NFTA_DATA_VALUE));
                rule.conditions.push(compared(loaded, number(NFTA_CMP_OP), value.unwrap_or_default()));
            }
            "immediate" if number(NFTA_IMMEDIATE_DREG) == Some(libc::NFT_REG_VERDICT) => {
                let data = find(data, 0, NFTA_IMMEDIATE_DATA).unwrap_or_default();
                rule.verdict = verdict(find(data, 0, NFTA_DATA_VERDICT).unwrap_or_default());
            }
            "match" => rule.conditions.extend(matched(data)),
            "target" => rule.verdict = target(data),
            "reject" => rule.verdict = Verdict::Drop,
            "queue" => rule.verdict = Verdict::Unknown,
            "lookup" if number(NFTA_LOOKUP_DREG) == Some(libc::NFT_REG_VERDICT) => rule.verdict = Verdict::Unknown,
            "counter" | "log" | "immediate" | "notrack" | "last" => {}
            // What it loads, if anything, is not known.
            _ => {
                registers.clear();
                rule.conditions.push(Condition::Other);
            }
        }
    }
    Ok(rule)
}

fn meta(key: c_int) -> Option<Loaded> {
    match key {
        libc::NFT_META_IIFNAME | libc::NFT_META_OIFNAME => Some(Loaded::Device),
        libc::NFT_META_BRI_IIFNAME | libc::NFT_META_BRI_OIFNAME => Some(Loaded::Bridge),
        libc::NFT_META_IIF | libc::NFT_META_OIF => Some(Loaded::Index),
        libc::NFT_META_NFPROTO => Some(Loaded::Protocol),
        libc::NFT_META_PROTOCOL => Some(Loaded::EtherType),
        _ => None,
    }
}

fn compared(loaded: Option<Loaded>, op: Option<c_int>, value: &[u8]) -> Condition {
    let not = match op {
        Some(libc::NFT_CMP_EQ) => false,
        Some(libc::NFT_CMP_NEQ) => true,
        _ => return Condition::Other,
    };
    // A whole name has its end in it.
    let begins = !value.contains(&0);
    let protocol = |v4: bool, v6: bool| match (v4, v6) {
        (true, _) => Some(Protocol::V4),
        (_, true) => Some(Protocol::V6),
        _ => None,
    };
    match loaded {
        Some(Loaded::Device) => Condition::Device { name: text(value), begins, not },
        Some(Loaded::Bridge) => Condition::Bridge { name: text(value), begins, not },
        Some(Loaded::Index) => match u32_at(value, 0) {
            Some(index) => Condition::Index { index, not },
            None => Condition::Other,
        },
        Some(Loaded::Protocol) => {
            let family = nft::family(value);
            Condition::Protocol {
                protocol: protocol(family == Some(libc::NFPROTO_IPV4), family == Some(libc::NFPROTO_IPV6)),
                not,
            }
        }
        Some(Loaded::EtherType) => {
            Condition::Protocol { protocol: protocol(value.starts_with(&[8, 0]), value.starts_with(&[0x86, 0xdd])), not }
        }
        // `ct state established,related`: one of these bits is set.
        Some(Loaded::State(bits)) if not && value.iter().all(|octet| *octet == 0) => known(bits),
        Some(Loaded::State(_)) | None => Condition::Other,
    }
}

/// Only frames of known connections have one of these states.
fn known(bits: u32) -> Condition {
    if bits & !(NF_CT_STATE_ESTABLISHED | NF_CT_STATE_RELATED) == 0 { Condition::Known } else { Condition::Other }
}

fn verdict(data: &[u8]) -> Verdict {
    let chain = || find(data, 0, NFTA_VERDICT_CHAIN).map(text).unwrap_or_default();
    match find(data, 0, NFTA_VERDICT_CODE).and_then(be32_at) {
        Some(libc::NF_DROP) => Verdict::Drop,
        Some(libc::NF_ACCEPT) => Verdict::Accept,
        Some(libc::NFT_CONTINUE | libc::NFT_BREAK) => Verdict::Continue,
        Some(libc::NFT_JUMP) => Verdict::Jump(chain()),
        Some(libc::NFT_GOTO) => Verdict::Goto(chain()),
        Some(libc::NFT_RETURN) => Verdict::Return,
        _ => Verdict::Unknown,
    }
}

/// A match of xtables' inside a rule of nf_tables, as `iptables-nft` writes them. None for one that is always met.
fn matched(data: &[u8]) -> Option<Condition> {
    let info = find(data, 0, NFTA_MATCH_INFO).unwrap_or_default();
    let revision = find(data, 0, NFTA_MATCH_REV).and_then(be32_at);
    match find(data, 0, NFTA_MATCH_NAME).map(text).as_deref() {
        Some("comment") => None,
        Some("physdev") => Some(physdev(info)),
        Some("conntrack") if revision.is_some_and(|revision| revision >= 2) => Some(conntrack(info)),
        // `struct xt_state_info`.
        Some("state") => Some(u32_at(info, 0).map_or(Condition::Other, known)),
        _ => Some(Condition::Other),
    }
}

/// `struct xt_physdev_info`: two names with their masks, what is inverted, what is asked.
fn physdev(info: &[u8]) -> Condition {
    const NAMES: usize = 64;
    const OP_IN: u8 = 1;
    const OP_OUT: u8 = 2;
    match (info.get(NAMES).copied(), info.get(NAMES + 1).copied()) {
        (Some(0), Some(asked)) if asked & (OP_IN | OP_OUT) == 0 => Condition::Bridged { not: false },
        (Some(inverted), Some(asked)) if asked & (OP_IN | OP_OUT) == 0 && inverted == asked => Condition::Bridged { not: true },
        _ => Condition::Other,
    }
}

/// `struct xt_conntrack_mtinfo2` and later: known connections where nothing but their state is asked for.
fn conntrack(info: &[u8]) -> Condition {
    const MATCH_FLAGS: usize = 146;
    const INVERT_FLAGS: usize = 148;
    const STATE_MASK: usize = 150;
    const STATE: u16 = 1;
    let (asked, inverted, mask) = (u16_at(info, MATCH_FLAGS), u16_at(info, INVERT_FLAGS), u16_at(info, STATE_MASK));
    match (asked, inverted, mask) {
        (Some(asked), Some(inverted), Some(mask)) if asked & STATE != 0 && inverted & STATE == 0 => known(u32::from(mask)),
        _ => Condition::Other,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

/// A target of xtables' inside a rule of nf_tables.
fn target(data: &[u8]) -> Verdict {
    const GO_ON: [&str; 14] = [
        "LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "CT", "NOTRACK", "CHECKSUM", "TRACE", "DSCP", "TOS", "CLASSIFY", "SET",
        "AUDIT",
    ];
    match find(data, 0, NFTA_MATCH_NAME).map(text).as_deref() {
        Some("REJECT") => Verdict::Drop,
        Some(name) if GO_ON.contains(&name) => Verdict::Continue,
        _ => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkBuffer;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_chains_and_rules_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (read_chain(&bytes).is_ok(), dormant(&bytes), read_rule(&bytes));
            let _ = (physdev(&bytes), conntrack(&bytes), verdict(&bytes), target(&bytes), matched(&bytes));
        }
    }

    #[test]
    fn events_of_chains_that_bridged_frames_come_by_are_told_from_others() {
        let event = |kind, family| {
            let event = message::tests::sent(nft::message(kind, family, Vec::new()));
            concerns(&NetlinkBuffer::new(&event[..]))
        };
        for family in [libc::NFPROTO_INET, libc::NFPROTO_IPV4, libc::NFPROTO_IPV6, libc::NFPROTO_BRIDGE] {
            assert!(
                [libc::NFT_MSG_NEWTABLE, libc::NFT_MSG_NEWCHAIN, libc::NFT_MSG_DELRULE]
                    .into_iter()
                    .all(|kind| event(kind, family))
            );
        }
        assert!(!event(libc::NFT_MSG_NEWCHAIN, libc::NFPROTO_NETDEV) && !event(libc::NFT_MSG_DELRULE + 1, libc::NFPROTO_INET));
    }

    #[test]
    fn physdev_asks_for_bridged_frames_or_for_ports() {
        let info = |inverted, asked| physdev(&[&[0; 64][..], &[inverted, asked]].concat());
        let bridged = 4;
        assert_eq!(info(0, bridged), Condition::Bridged { not: false });
        assert_eq!(info(bridged, bridged), Condition::Bridged { not: true });
        assert_eq!(info(0, 1), Condition::Other);
    }
}
