//! What closes agent-made bridges to the host: for each a chain of `table netdev nicd`, called as the bridge's altname,
//! which drops all that comes in by the bridge itself.
//!
//! A bridge delivers to the host's stack by receiving the frame once more, as the bridge (`br_pass_frame_up`,
//! net/bridge/br_input.c). The ingress hook of the netdev family is asked there before VLAN devices, ARP, IP and whatever
//! else a protocol is; frames between ports never come by. No verdict elsewhere takes a drop back, so the order among
//! chains of others is nothing. Programs that read raw frames (AF_PACKET, every protocol) stand before the hook and see all.
//!
//! The chain holds its device by name. Up to Linux 6.15 it goes with the device and follows a rename; later it stays, takes
//! up a device that comes by that name, and lets go of one that is called otherwise from now on. Both look alike from here:
//! a bridge is closed when its chain drops and lists the name that the bridge has.

use nix::errno::Errno;

use super::answer::{Failure, Part};
use super::seen::must_look;
use super::socket::{Netlink, netfilter};
use super::uapi::*;
use super::wire::{self, Batch, Fields};
use super::{Trouble, Who};
use crate::model::{NetworkId, names};
use crate::plan::{Kind, LinkSeen};
use crate::points;

/// The table, of which nothing but chains called as networks' altnames is touched: it may hold others' too.
pub(super) const TABLE: &str = "nicd";

/// Where among others the chain is asked.
const PRIORITY: i32 = -500;

/// Length of `struct nfgenmsg`.
const NFGENMSG: usize = 4;

/// What an operator can do.
const REMEDY: &str = "a kernel with nf_tables and its netdev family is expected, and a table netdev nicd that nobody else owns";

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
        let bridge = must_look(route, Who::Altname(&altname))?;
        // Somebody may flush the ruleset between the look and the change.
        let mut closed = self.chain_in(&altname, &bridge.name);
        if matches!(&closed, Err(failure) if failure.errno == Some(Errno::ENOENT)) {
            closed = self.chain_in(&altname, &bridge.name);
        }
        let failure = match closed {
            Ok(()) => return Ok(()),
            Err(failure) if matches!(failure.trouble, Trouble::TimedOut | Trouble::NoDescriptors) => return Err(failure),
            Err(failure) => failure,
        };
        // The kernel says ENOENT of a device that is gone as of a hook that it does not have.
        must_look(route, Who::Altname(&altname))?;
        let said = format!("{}; {REMEDY}", failure.said);
        Err(Failure::new(Trouble::HostNotClosed, Part::Close, said))
    }

    fn chain_in(&mut self, chain: &str, device: &str) -> Result<(), Failure> {
        let (table, old) = (self.table()?, self.chain(chain)?);
        let dormant = table.is_some_and(|table| table.dormant);
        if !dormant && old.as_ref().is_some_and(|old| old.closes(device)) {
            return Ok(());
        }
        if dormant {
            self.commit(|batch| batch.table(NFT_MSG_NEWTABLE, 0, |f| be32(f, NFTA_TABLE_FLAGS, 0)))?;
        }
        // The new chain is asked before the old one no longer is.
        self.commit(|batch| {
            batch.table(NFT_MSG_NEWTABLE, NLM_F_CREATE, |_| {});
            if old.is_some() {
                batch.chain(NFT_MSG_DELCHAIN, 0, chain, |_| {});
            }
            batch.ingress(chain, device, NF_DROP);
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
            not_there(self.commit(|batch| batch.chain(NFT_MSG_DELCHAIN, 0, &chain, |_| {})))?;
        }
        // Refused while something is in it.
        not_there(self.commit(|batch| batch.table(NFT_MSG_DELTABLE, NLM_F_NONREC, |_| {})))
    }

    /// Notes on agent-made bridges whether they are closed. Where the kernel has no such chains, none is.
    pub(super) fn note(&mut self, links: &mut [LinkSeen]) -> Result<(), Failure> {
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

    /// Whether the kernel would take such a chain: it judges one, and is not told to keep it.
    pub(super) fn usable(&mut self) -> Result<(), Failure> {
        if !self.works {
            let probe = |batch: &mut Batch| {
                batch.table(NFT_MSG_NEWTABLE, NLM_F_CREATE, |_| {});
                batch.ingress("nicd-probe", "lo", NF_ACCEPT);
            };
            self.socket()?.judge(Part::Close, probe)?;
            self.works = true;
        }
        Ok(())
    }

    fn table(&mut self) -> Result<Option<Table>, Failure> {
        let read = |body: &[u8]| {
            let flags = behind(body, NFTA_TABLE_FLAGS).and_then(be32_at).unwrap_or_default();
            Some(Table { dormant: flags & NFT_TABLE_F_DORMANT != 0 })
        };
        self.ask(|batch| batch.table(NFT_MSG_GETTABLE, 0, |_| {}), read)
    }

    fn chain(&mut self, name: &str) -> Result<Option<Chain>, Failure> {
        self.ask(|batch| batch.chain(NFT_MSG_GETCHAIN, 0, name, |_| {}), |body| Some(read_chain(body)))
    }

    /// Asks for one object; none when there is none such.
    fn ask<T>(&mut self, fill: impl FnOnce(&mut Batch), read: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>, Failure> {
        let mut batch = Batch::default();
        fill(&mut batch);
        let socket = self.socket()?;
        let fail = |errno| Failure::system(Part::Look, errno);
        match points::call(("nft", "ask"), || socket.answer(batch, read), fail) {
            Err(failure) if failure.errno == Some(Errno::ENOENT) => Ok(None),
            other => other,
        }
    }

    /// Wholly or not at all.
    fn commit(&mut self, fill: impl FnOnce(&mut Batch)) -> Result<(), Failure> {
        let socket = self.socket()?;
        let fail = |errno| Failure::system(Part::Close, errno);
        points::call(("nft", "commit"), || socket.transact(Part::Close, fill), fail)
    }

    fn socket(&mut self) -> Result<&mut Netlink, Failure> {
        if self.socket.as_ref().is_none_or(Netlink::spent) {
            self.socket = Some(Netlink::over(netfilter().map_err(|error| super::socket::failed(Part::Close, &error))?));
        }
        self.socket.as_mut().ok_or_else(|| Failure::system(Part::Close, Errno::EPROTONOSUPPORT))
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
pub(super) fn hint(message: &wire::Message<'_>) -> Option<Hint> {
    let (subsystem, kind) = (message.kind >> 8, message.kind & 0xff);
    if subsystem != NFNL_SUBSYS_NFTABLES || wire::u8_at(message.body, 0) != Some(NFPROTO_NETDEV) {
        return None;
    }
    let text = |kind| behind(message.body, kind).map(wire::text);
    // A table's name, and of chains and rules the name of their table.
    if text(NFTA_CHAIN_TABLE).as_deref() != Some(TABLE) {
        return None;
    }
    match kind {
        NFT_MSG_NEWTABLE => Some(Hint::Table),
        NFT_MSG_NEWCHAIN | NFT_MSG_DELCHAIN => text(NFTA_CHAIN_NAME).map(Hint::Chain),
        NFT_MSG_NEWRULE | NFT_MSG_DELRULE => text(NFTA_RULE_CHAIN).map(Hint::Chain),
        // Its chains went before it.
        _ => None,
    }
}

/// Whether a chain of this name is that of a network's bridge.
pub(super) fn altname(chain: &str) -> bool {
    names::marked(chain).is_some()
}

/// `nf_tables_fill_chain_info`, net/netfilter/nf_tables_api.c.
fn read_chain(body: &[u8]) -> Chain {
    let hook = behind(body, NFTA_CHAIN_HOOK).unwrap_or_default();
    let number = |kind| behind(body, kind).and_then(be32_at);
    let ingress = wire::field(hook, NFTA_HOOK_HOOKNUM).and_then(be32_at) == Some(NF_NETDEV_INGRESS);
    let filters = behind(body, NFTA_CHAIN_TYPE).map(wire::text).as_deref() == Some("filter");
    let soft = number(NFTA_CHAIN_FLAGS).unwrap_or_default() & NFT_CHAIN_HW_OFFLOAD == 0;
    let bare = number(NFTA_CHAIN_USE).unwrap_or_default() == 0;
    let drops = ingress && filters && soft && bare && number(NFTA_CHAIN_POLICY) == Some(NF_DROP);
    let listed = wire::fields(wire::field(hook, NFTA_HOOK_DEVS).unwrap_or_default());
    let listed = listed.filter(|(kind, _)| *kind == NFTA_DEVICE_NAME).map(|(_, name)| wire::text(name));
    let only = wire::field(hook, NFTA_HOOK_DEV).map(wire::text);
    Chain { drops, devices: listed.chain(only).collect() }
}

pub(super) fn behind(body: &[u8], kind: u16) -> Option<&[u8]> {
    body.get(NFGENMSG..).and_then(|attributes| wire::field(attributes, kind))
}

/// nf_tables keeps its numbers in the network's order.
pub(super) fn be32_at(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

fn be32(f: &mut Fields<'_>, kind: u16, value: u32) {
    f.put(kind, &value.to_be_bytes());
}

impl Batch {
    fn nft(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Fields<'_>)) {
        let part = if matches!(kind, NFT_MSG_GETTABLE | NFT_MSG_GETCHAIN) { Part::Look } else { Part::Close };
        self.add(part, NFNL_SUBSYS_NFTABLES << 8 | kind, flags, &[NFPROTO_NETDEV, 0, 0, 0], fill);
    }

    fn table(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Fields<'_>)) {
        self.nft(kind, flags, |f| {
            f.text(NFTA_TABLE_NAME, TABLE);
            fill(f);
        });
    }

    fn chain(&mut self, kind: u16, flags: u16, name: &str, fill: impl FnOnce(&mut Fields<'_>)) {
        self.nft(kind, flags, |f| {
            f.text(NFTA_CHAIN_TABLE, TABLE);
            f.text(NFTA_CHAIN_NAME, name);
            fill(f);
        });
    }

    /// A chain that is asked of all that comes in by a device.
    fn ingress(&mut self, name: &str, device: &str, policy: u32) {
        self.chain(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL, name, |f| {
            f.nest(NFTA_CHAIN_HOOK, |f| {
                be32(f, NFTA_HOOK_HOOKNUM, NF_NETDEV_INGRESS);
                f.put(NFTA_HOOK_PRIORITY, &PRIORITY.to_be_bytes());
                f.text(NFTA_HOOK_DEV, device);
            });
            be32(f, NFTA_CHAIN_POLICY, policy);
            f.text(NFTA_CHAIN_TYPE, "filter");
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(fill: impl FnOnce(&mut Batch)) -> (u16, Vec<u8>) {
        let mut batch = Batch::default();
        fill(&mut batch);
        let bytes = batch.finish(0, false).unwrap().to_vec();
        let message = wire::messages(&bytes).next().unwrap();
        (message.kind, message.body.to_vec())
    }

    proptest! {
        #[test]
        fn arbitrary_chains_and_events_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in any::<u16>()) {
            let _ = read_chain(&bytes);
            let _ = hint(&wire::Message { kind, flags: 0, seq: 0, body: &bytes });
        }
    }

    #[test]
    fn a_chain_closes_the_device_it_drops_for_and_no_other() {
        let chain = |policy| read_chain(&body(|batch| batch.ingress("nicd-x", "nbr0", policy)).1);
        assert!(chain(NF_DROP).closes("nbr0"));
        assert!(!chain(NF_DROP).closes("nbr1"), "another device's");
        assert!(!chain(NF_ACCEPT).closes("nbr0"), "it lets through");
    }

    #[test]
    fn a_chain_with_a_rule_or_on_a_card_closes_nothing() {
        let with = |kind: u16, value: u32| {
            let fill = |f: &mut Fields<'_>| {
                f.nest(NFTA_CHAIN_HOOK, |f| {
                    be32(f, NFTA_HOOK_HOOKNUM, NF_NETDEV_INGRESS);
                    f.nest(NFTA_HOOK_DEVS, |f| f.text(NFTA_DEVICE_NAME, "nbr0"));
                });
                be32(f, NFTA_CHAIN_POLICY, NF_DROP);
                f.text(NFTA_CHAIN_TYPE, "filter");
                be32(f, kind, value);
            };
            read_chain(&body(|batch| batch.chain(NFT_MSG_NEWCHAIN, 0, "nicd-x", fill)).1).closes("nbr0")
        };
        assert!(with(NFTA_CHAIN_USE, 0) && with(NFTA_CHAIN_FLAGS, 1));
        assert!(!with(NFTA_CHAIN_USE, 1) && !with(NFTA_CHAIN_FLAGS, NFT_CHAIN_HW_OFFLOAD));
    }

    #[test]
    fn events_of_the_own_table_are_hints_and_others_are_none() {
        let told = |(kind, body): (u16, Vec<u8>)| hint(&wire::Message { kind, flags: 0, seq: 0, body: &body });
        let chain = |kind| told(body(|batch| batch.chain(kind, 0, "nicd-x", |_| {})));
        assert_eq!(chain(NFT_MSG_DELCHAIN), Some(Hint::Chain("nicd-x".into())));
        assert_eq!(told(body(|batch| batch.table(NFT_MSG_NEWTABLE, 0, |_| {}))), Some(Hint::Table));
        assert_eq!(told(body(|batch| batch.table(NFT_MSG_DELTABLE, 0, |_| {}))), None);
        let other = body(|batch| batch.nft(NFT_MSG_DELCHAIN, 0, |f| f.text(NFTA_CHAIN_TABLE, "others")));
        assert_eq!(told(other), None);
    }
}
