//! Closes agent-made bridges to the host: each has a chain in `table netdev nicd`, named like the bridge's altname, which drops all
//! frames received by the bridge device itself.
//!
//! A bridge delivers a frame to the host's network stack by receiving it again on the bridge device (`br_pass_frame_up`,
//! net/bridge/br_input.c). There the ingress hook of the netdev family runs before VLAN devices, ARP, IP and all other protocols.
//! Frames between ports do not pass the hook. A drop is final, so the order among other programs' chains does not matter.
//! Programs that read raw frames (AF_PACKET) get a frame before the hook and still see it.
//!
//! The chain refers to its device by name. Up to Linux 6.15 the chain is deleted with the device and follows a rename. Later kernels
//! keep the chain, bind it to a new device with the name, and unbind it from a renamed device. nicd treats both alike: a bridge
//! counts as closed when its chain drops and lists the bridge's current name.

use std::ffi::c_int;

use netlink_packet_core::{DecodeError, DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_NONREC};
use nix::errno::Errno;

use super::answer::{Failure, Request};
use super::message::{Batch, Message, Read, Untyped, attributes, check, find, nested, text, text_nla, value};
use super::seen::require;
use super::socket::{Netlink, netfilter};
use super::untyped::*;
use super::{LinkSelector, OpErrorKind};
use crate::failpoints;
use crate::model::{NetworkId, names};
use crate::plan::{Kind, LinkState};

/// The table's name. nicd changes only chains named like networks' altnames, because the table may contain chains of others.
pub(super) const TABLE: &str = "nicd";

/// Where among others the chain is asked.
const PRIORITY: c_int = -500;

/// Length of `struct nfgenmsg`.
pub(super) const NFGENMSG: usize = 4;

/// What an operator can do.
const REMEDY: &str =
    "a kernel with nf_tables and its netdev family is expected, and a table netdev nicd that no other program owns";

/// A socket of nfnetlink's, from the first time that one is needed.
#[derive(Debug, Default)]
pub(super) struct Nft {
    socket: Option<Netlink>,
    /// Once the kernel has taken such a chain it is not asked again whether it would.
    works: bool,
}

/// The table, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Table {
    /// Its chains are not asked (`flags dormant`).
    dormant: bool,
}

/// A chain of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Chain {
    /// Whether all that comes in by its devices is dropped: no rule comes before the policy, and it is asked by the kernel
    /// and not by a network card.
    drops: bool,
    devices: Vec<String>,
}

impl Chain {
    fn closes(&self, device: &str) -> bool {
        self.drops && self.devices.iter().any(|name| name == device)
    }
}

impl Nft {
    /// [`Op::CloseBridge`](crate::plan::Op::CloseBridge).
    pub(super) fn close(&mut self, route: &mut Netlink, network: NetworkId) -> Result<(), Failure> {
        let altname = names::network_altname(network);
        let bridge = require(route, LinkSelector::Altname(&altname))?;
        // Another program may flush the ruleset between the read and the change.
        let mut closed = self.chain_in(&altname, &bridge.name);
        if matches!(&closed, Err(failure) if failure.errno == Some(Errno::ENOENT)) {
            closed = self.chain_in(&altname, &bridge.name);
        }
        let failure = match closed {
            Ok(()) => return Ok(()),
            Err(failure) if matches!(failure.kind, OpErrorKind::TimedOut | OpErrorKind::NoDescriptors) => return Err(failure),
            Err(failure) => failure,
        };
        // The kernel says ENOENT of a device that is gone as of a hook that it does not have.
        require(route, LinkSelector::Altname(&altname))?;
        let said = format!("{}; {REMEDY}", failure.said);
        Err(Failure::new(OpErrorKind::HostNotClosed, Request::Close, said))
    }

    fn chain_in(&mut self, chain: &str, device: &str) -> Result<(), Failure> {
        let (table, old) = (self.table()?, self.chain(chain)?);
        let dormant = table.is_some_and(|table| table.dormant);
        if !dormant && old.as_ref().is_some_and(|old| old.closes(device)) {
            return Ok(());
        }
        if dormant {
            self.commit(|batch| batch.table(libc::NFT_MSG_NEWTABLE, 0, [be32(NFTA_TABLE_FLAGS, 0)]))?;
        }
        // The new chain is asked before the old one no longer is.
        self.commit(|batch| {
            batch.table(libc::NFT_MSG_NEWTABLE, NLM_F_CREATE, []);
            if old.is_some() {
                batch.chain(libc::NFT_MSG_DELCHAIN, 0, chain, []);
            }
            batch.ingress(chain, device, libc::NF_DROP);
        })
    }

    /// Removes what closed a network's bridge, and the table when nothing else is in it.
    pub(super) fn remove(&mut self, network: NetworkId) -> Result<(), Failure> {
        let chain = names::network_altname(network);
        let not_there = |result: Result<(), Failure>| match result {
            Err(failure) if matches!(failure.errno, Some(Errno::ENOENT | Errno::EBUSY)) => Ok(()),
            other => other,
        };
        if unless_absent(self.table())?.flatten().is_none() {
            return Ok(());
        }
        if self.chain(&chain)?.is_some() {
            not_there(self.commit(|batch| batch.chain(libc::NFT_MSG_DELCHAIN, 0, &chain, [])))?;
        }
        // Refused while something is in it.
        not_there(self.commit(|batch| batch.table(libc::NFT_MSG_DELTABLE, NLM_F_NONREC, [])))
    }

    /// Notes on agent-made bridges whether they are closed. Where the kernel has no such chains, none is.
    pub(super) fn note(&mut self, links: &mut [LinkState]) -> Result<(), Failure> {
        let mut bridges = links.iter_mut().filter(|link| link.kind == Kind::Bridge && link.marks().next().is_some()).peekable();
        if bridges.peek().is_none() {
            return Ok(());
        }
        let Some(Some(Table { dormant: false })) = unless_absent(self.table())? else { return Ok(()) };
        for bridge in bridges {
            let chains = bridge.marks().map(|mark| names::network_altname(NetworkId(mark))).collect::<Vec<_>>();
            for chain in chains {
                bridge.host_closed |= self.chain(&chain)?.is_some_and(|chain| chain.closes(&bridge.name));
            }
        }
        Ok(())
    }

    /// A socket to read the host's rulesets by; none where the kernel has no nf_tables, or keeps them from us.
    pub(super) fn reading(&mut self) -> Result<Option<&mut Netlink>, Failure> {
        // Any answer shows that there is one.
        match unless_absent(self.table())? {
            None => Ok(None),
            Some(_) => self.socket().map(Some),
        }
    }

    /// Whether the kernel supports such a chain: it validates one without adding it.
    pub(super) fn usable(&mut self) -> Result<(), Failure> {
        if !self.works {
            let probe = |batch: &mut Batch| {
                batch.table(libc::NFT_MSG_NEWTABLE, NLM_F_CREATE, []);
                batch.ingress("nicd-probe", "lo", libc::NF_ACCEPT);
            };
            self.socket()?.judge(Request::Close, probe)?;
            self.works = true;
        }
        Ok(())
    }

    fn table(&mut self) -> Result<Option<Table>, Failure> {
        self.ask(|batch| batch.table(libc::NFT_MSG_GETTABLE, 0, []), |body| Ok(Some(Table { dormant: is_dormant(body)? })))
    }

    fn chain(&mut self, name: &str) -> Result<Option<Chain>, Failure> {
        self.ask(|batch| batch.chain(libc::NFT_MSG_GETCHAIN, 0, name, []), |body| Ok(Some(read_chain(body)?)))
    }

    /// Asks for one object; none when there is none such.
    fn ask<T>(&mut self, fill: impl FnOnce(&mut Batch), read: impl Fn(&[u8]) -> Read<T>) -> Result<Option<T>, Failure> {
        let mut batch = Batch::default();
        fill(&mut batch);
        let socket = self.socket()?;
        let fail = |errno| Failure::system(Request::Look, errno);
        match failpoints::call(("nft", "ask"), || socket.answer(batch, read), fail) {
            Err(failure) if failure.errno == Some(Errno::ENOENT) => Ok(None),
            other => other,
        }
    }

    /// Wholly or not at all.
    fn commit(&mut self, fill: impl FnOnce(&mut Batch)) -> Result<(), Failure> {
        let socket = self.socket()?;
        let fail = |errno| Failure::system(Request::Close, errno);
        failpoints::call(("nft", "commit"), || socket.transact(Request::Close, fill), fail)
    }

    fn socket(&mut self) -> Result<&mut Netlink, Failure> {
        if self.socket.as_ref().is_none_or(Netlink::spent) {
            self.socket = Some(Netlink::over(netfilter().map_err(|error| super::socket::failed(Request::Close, &error))?));
        }
        self.socket.as_mut().ok_or_else(|| Failure::system(Request::Close, Errno::EPROTONOSUPPORT))
    }
}

/// None where the kernel has no nf_tables, or keeps them from us.
fn unless_absent<T>(result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    const ABSENT: [Errno; 6] =
        [Errno::EPROTONOSUPPORT, Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP, Errno::EINVAL, Errno::EPERM, Errno::EACCES];
    match result {
        Err(failure) if failure.errno.is_some_and(|errno| ABSENT.contains(&errno)) => Ok(None),
        other => other.map(Some),
    }
}

/// Of which network's bridge a chain of the table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hint {
    /// Something happened to the chain of this name.
    Chain(String),
    /// The table changed.
    Table,
}

/// What an event of nf_tables says about the table; none for others'.
pub(super) fn hint(message: &Message<'_>) -> Option<Hint> {
    let body = message.payload();
    if family(body) != Some(libc::NFPROTO_NETDEV) {
        return None;
    }
    let told = |kind| behind(body, kind).map(text);
    // A table's name, and of chains and rules the name of their table.
    if told(NFTA_CHAIN_TABLE).as_deref() != Some(TABLE) {
        return None;
    }
    match event(message)? {
        libc::NFT_MSG_NEWTABLE => Some(Hint::Table),
        libc::NFT_MSG_NEWCHAIN | libc::NFT_MSG_DELCHAIN => told(NFTA_CHAIN_NAME).map(Hint::Chain),
        libc::NFT_MSG_NEWRULE | libc::NFT_MSG_DELRULE => told(NFTA_RULE_CHAIN).map(Hint::Chain),
        // Its chains went before it.
        _ => None,
    }
}

/// The number of a message of nf_tables among its kind; none for another subsystem's.
pub(super) fn event(message: &Message<'_>) -> Option<c_int> {
    let kind = c_int::from(message.message_type());
    (kind >> 8 == libc::NFNL_SUBSYS_NFTABLES).then_some(kind & 0xff)
}

/// The family that a message of nf_tables is about.
pub(super) fn family(body: &[u8]) -> Option<c_int> {
    body.first().copied().map(c_int::from)
}

/// Whether a chain of this name is that of a network's bridge.
pub(super) fn altname(chain: &str) -> bool {
    names::parse_altname(chain).is_some()
}

/// Whether a table's chains are not asked.
pub(super) fn is_dormant(body: &[u8]) -> Result<bool, DecodeError> {
    check(body, NFGENMSG)?;
    Ok(behind(body, NFTA_TABLE_FLAGS).and_then(be32_at).unwrap_or_default() & NFT_TABLE_F_DORMANT != 0)
}

/// `nf_tables_fill_chain_info`, net/netfilter/nf_tables_api.c.
fn read_chain(body: &[u8]) -> Result<Chain, DecodeError> {
    check(body, NFGENMSG)?;
    let hook = behind(body, NFTA_CHAIN_HOOK).unwrap_or_default();
    let number = |kind| behind(body, kind).and_then(be32_at);
    let ingress = find(hook, 0, NFTA_HOOK_HOOKNUM).and_then(be32_at) == Some(libc::NF_NETDEV_INGRESS);
    let filters = behind(body, NFTA_CHAIN_TYPE).map(text).as_deref() == Some("filter");
    let soft = number(NFTA_CHAIN_FLAGS).unwrap_or_default() & NFT_CHAIN_HW_OFFLOAD == 0;
    let bare = number(NFTA_CHAIN_USE).unwrap_or_default() == 0;
    let drops = ingress && filters && soft && bare && number(NFTA_CHAIN_POLICY) == Some(libc::NF_DROP);
    let listed = attributes(find(hook, 0, NFTA_HOOK_DEVS).unwrap_or_default(), 0);
    let listed = listed.filter(|one| one.kind() == NFTA_DEVICE_NAME).map(|one| text(value(&one)));
    let only = find(hook, 0, NFTA_HOOK_DEV).map(text);
    Ok(Chain { drops, devices: listed.chain(only).collect() })
}

/// The value of an attribute of a message of nf_tables.
pub(super) fn behind(body: &[u8], kind: u16) -> Option<&[u8]> {
    find(body, NFGENMSG, kind)
}

/// nf_tables keeps its numbers in the network's order.
pub(super) fn be32_at(value: &[u8]) -> Option<c_int> {
    value.first_chunk().map(|chunk| c_int::from_be_bytes(*chunk))
}

fn be32(kind: u16, value: c_int) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

/// A message of nf_tables about a family.
pub(super) fn message(kind: c_int, family: c_int, attributes: Vec<DefaultNla>) -> Untyped {
    nfnetlink(libc::NFNL_SUBSYS_NFTABLES << 8 | kind, family, 0, attributes)
}

/// Where a transaction begins, or ends: it names its subsystem.
pub(super) fn batch_mark(kind: c_int) -> Untyped {
    nfnetlink(kind, libc::AF_UNSPEC, libc::NFNL_SUBSYS_NFTABLES, Vec::new())
}

/// `struct nfgenmsg` is the family, a version, and a number in the network's order. The kernel's numbers fit.
fn nfnetlink(kind: c_int, family: c_int, resource: c_int, attributes: Vec<DefaultNla>) -> Untyped {
    let [.., family] = family.to_be_bytes();
    let [.., high, low] = resource.to_be_bytes();
    Untyped { kind: u16::try_from(kind).unwrap_or_default(), fixed: vec![family, 0, high, low], attributes }
}

impl Batch {
    fn nft(&mut self, kind: c_int, flags: u16, attributes: Vec<DefaultNla>) {
        let request =
            if matches!(kind, libc::NFT_MSG_GETTABLE | libc::NFT_MSG_GETCHAIN) { Request::Look } else { Request::Close };
        self.add(request, flags, message(kind, libc::NFPROTO_NETDEV, attributes));
    }

    fn table<const N: usize>(&mut self, kind: c_int, flags: u16, attributes: [DefaultNla; N]) {
        let name = [text_nla(NFTA_TABLE_NAME, TABLE)];
        self.nft(kind, flags, name.into_iter().chain(attributes).collect());
    }

    fn chain<const N: usize>(&mut self, kind: c_int, flags: u16, name: &str, attributes: [DefaultNla; N]) {
        let named = [text_nla(NFTA_CHAIN_TABLE, TABLE), text_nla(NFTA_CHAIN_NAME, name)];
        self.nft(kind, flags, named.into_iter().chain(attributes).collect());
    }

    /// A chain that is asked of all that comes in by a device.
    fn ingress(&mut self, name: &str, device: &str, policy: c_int) {
        let hook = [
            be32(NFTA_HOOK_HOOKNUM, libc::NF_NETDEV_INGRESS),
            be32(NFTA_HOOK_PRIORITY, PRIORITY),
            text_nla(NFTA_HOOK_DEV, device),
        ];
        let chain = [nested(NFTA_CHAIN_HOOK, &hook), be32(NFTA_CHAIN_POLICY, policy), text_nla(NFTA_CHAIN_TYPE, "filter")];
        self.chain(libc::NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL, name, chain);
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkBuffer;
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::message;

    /// The one message that `fill` adds.
    fn sent(fill: impl FnOnce(&mut Batch)) -> Vec<u8> {
        let mut batch = Batch::default();
        fill(&mut batch);
        batch.finish(0).unwrap().to_vec()
    }

    fn chain(fill: impl FnOnce(&mut Batch)) -> Chain {
        read_chain(NetlinkBuffer::new(&sent(fill)[..]).payload()).unwrap()
    }

    fn told(fill: impl FnOnce(&mut Batch)) -> Option<Hint> {
        hint(&NetlinkBuffer::new(&sent(fill)[..]))
    }

    proptest! {
        #[test]
        fn arbitrary_chains_and_events_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in any::<u16>()) {
            let _ = read_chain(&bytes);
            let event = message::tests::sent(Untyped { kind, fixed: bytes, attributes: Vec::new() });
            let _ = hint(&NetlinkBuffer::new(&event[..]));
        }
    }

    #[test]
    fn a_chain_closes_the_device_it_drops_for_and_no_other() {
        let chain = |policy| chain(|batch| batch.ingress("nicd-x", "nbr0", policy));
        assert!(chain(libc::NF_DROP).closes("nbr0"));
        assert!(!chain(libc::NF_DROP).closes("nbr1"), "another device's");
        assert!(!chain(libc::NF_ACCEPT).closes("nbr0"), "it lets through");
    }

    #[test]
    fn a_chain_with_a_rule_or_on_a_card_closes_nothing() {
        let with = |kind: u16, value: c_int| {
            let devices = nested(NFTA_HOOK_DEVS, &[text_nla(NFTA_DEVICE_NAME, "nbr0")]);
            let hook = nested(NFTA_CHAIN_HOOK, &[be32(NFTA_HOOK_HOOKNUM, libc::NF_NETDEV_INGRESS), devices]);
            let policy = be32(NFTA_CHAIN_POLICY, libc::NF_DROP);
            let attributes = [hook, policy, text_nla(NFTA_CHAIN_TYPE, "filter"), be32(kind, value)];
            chain(|batch| batch.chain(libc::NFT_MSG_NEWCHAIN, 0, "nicd-x", attributes)).closes("nbr0")
        };
        assert!(with(NFTA_CHAIN_USE, 0) && with(NFTA_CHAIN_FLAGS, 1));
        assert!(!with(NFTA_CHAIN_USE, 1) && !with(NFTA_CHAIN_FLAGS, NFT_CHAIN_HW_OFFLOAD));
    }

    #[test]
    fn events_of_the_own_table_are_hints_and_others_are_none() {
        let chain = |kind| told(|batch| batch.chain(kind, 0, "nicd-x", []));
        assert_eq!(chain(libc::NFT_MSG_DELCHAIN), Some(Hint::Chain("nicd-x".into())));
        assert_eq!(told(|batch| batch.table(libc::NFT_MSG_NEWTABLE, 0, [])), Some(Hint::Table));
        assert_eq!(told(|batch| batch.table(libc::NFT_MSG_DELTABLE, 0, [])), None);
        assert_eq!(told(|batch| batch.nft(libc::NFT_MSG_DELCHAIN, 0, vec![text_nla(NFTA_CHAIN_TABLE, "others")])), None);
    }
}
