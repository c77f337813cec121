//! The rules about a network's bridge.

use std::collections::BTreeSet;

use crate::model::Mac;
use crate::plan::desired::{BridgeMade, DesiredBridge};
use crate::plan::observed::{Kind, LinkState, Observed};
use crate::plan::op::{BridgeChange, Switch};

use super::words::{addresses, closed, up};
use super::{Pair, or_none, pair};

/// How one property of a bridge is compared, told and brought back.
#[derive(Debug)]
pub struct Rule {
    /// The stable word for a difference.
    pub word: &'static str,
    differs: fn(&Bridge<'_>) -> bool,
    words: fn(&Bridge<'_>) -> Pair,
    changes: fn(&Bridge<'_>) -> Vec<BridgeChange>,
}

impl Rule {
    /// What would be right, and what was found.
    pub fn words(&self, bridge: &Bridge<'_>) -> (String, String) {
        (self.words)(bridge)
    }
}

const fn rule(
    word: &'static str,
    differs: fn(&Bridge<'_>) -> bool,
    words: fn(&Bridge<'_>) -> Pair,
    changes: fn(&Bridge<'_>) -> Vec<BridgeChange>,
) -> Rule {
    Rule { word, differs, words, changes }
}

/// A network's bridge beside what it is to be.
#[derive(Debug, Clone, Copy)]
pub struct Bridge<'a> {
    /// What is wanted.
    pub want: &'a DesiredBridge,
    /// The bridge.
    pub link: &'a LinkState,
    /// Whether it has its altname, or is an operator's.
    pub marked: bool,
}

impl<'a> Bridge<'a> {
    /// A network's bridge, also one that lost its altname; none when there is none.
    pub fn find(want: &'a DesiredBridge, have: &'a Observed) -> Option<Self> {
        let (marked, lost) = match &want.made {
            BridgeMade::ByAgent { .. } => (have.own_bridge(want.network), have.unmarked_bridge(want.network)),
            BridgeMade::Existing { name } => (have.named(name.as_str()), None),
        };
        marked.or(lost).map(|link| Self { want, link, marked: marked.is_some() })
    }

    /// The properties that differ. An operator's bridge is only to be one.
    pub fn differences(&self) -> impl Iterator<Item = &'static Rule> + use<'a> {
        let bridge = *self;
        RULES.iter().filter(move |rule| (rule.differs)(&bridge))
    }

    /// What brings back an agent-made bridge; the rule about the host's side has an op of its own.
    pub(in crate::plan) fn changes(&self) -> BTreeSet<BridgeChange> {
        self.differences().flat_map(|rule| (rule.changes)(self)).collect()
    }

    /// Whether it delivers frames to the host's stack, and is not to.
    pub(in crate::plan) fn is_open_to_the_host(&self) -> bool {
        self.want.made.closes() && !self.link.host_closed
    }

    fn made(&self) -> Option<(Mac, u32, &'a str)> {
        match &self.want.made {
            BridgeMade::ByAgent { mac, mtu, alias, .. } => Some((*mac, *mtu, alias)),
            BridgeMade::Existing { .. } => None,
        }
    }

    /// Whether nicd made it and something holds.
    fn ours_and(&self, holds: bool) -> bool {
        self.made().is_some() && holds
    }
}

static RULES: [Rule; 12] = [
    rule("kind", |at| at.link.kind != Kind::Bridge, |at| pair(Kind::Bridge.as_str(), at.link.kind.as_str()), |_| vec![]),
    rule("host_closed", |at| at.is_open_to_the_host(), |_| pair(closed(true), closed(false)), |_| vec![]),
    rule(
        "mac",
        |at| at.made().is_some_and(|(mac, ..)| at.link.mac != Some(mac)),
        |at| pair(or_none(at.made().map(|(mac, ..)| mac)), or_none(at.link.mac)),
        |at| at.made().map(|(mac, ..)| BridgeChange::Mac(mac)).into_iter().collect(),
    ),
    rule(
        "mtu",
        |at| at.made().is_some_and(|(_, mtu, _)| at.link.mtu != mtu),
        |at| pair(or_none(at.made().map(|(_, mtu, _)| mtu)), at.link.mtu),
        |at| at.made().map(|(_, mtu, _)| BridgeChange::Mtu(mtu)).into_iter().collect(),
    ),
    rule(
        "alias",
        |at| at.made().is_some_and(|(.., alias)| at.link.alias.as_deref() != Some(alias)),
        |at| pair(or_none(at.made().map(|(.., alias)| alias)), or_none(at.link.alias.as_deref())),
        |at| at.made().map(|(.., alias)| BridgeChange::Alias(alias.to_owned())).into_iter().collect(),
    ),
    rule("up", |at| at.ours_and(!at.link.up), |_| pair(up(true), up(false)), |_| vec![BridgeChange::Switch(Switch::Up)]),
    rule("address_generation", |at| at.ours_and(at.link.v6_autoconf), |_| pair("off", "on"), |_| vec![BridgeChange::HostIpOff]),
    rule("host_ipv4", |at| at.ours_and(at.link.v4_open), |_| pair("off", "on"), |_| vec![BridgeChange::HostIpOff]),
    rule(
        "host_address",
        |at| at.ours_and(!at.link.foreign_addresses.is_empty()),
        |at| pair("none", addresses(at.link)),
        |at| at.link.foreign_addresses.iter().copied().map(BridgeChange::RemoveAddress).collect(),
    ),
    rule("stp", |at| at.ours_and(at.link.extras.stp), |_| pair("off", "on"), |_| vec![BridgeChange::StpOff]),
    rule(
        "multicast_snooping",
        |at| at.ours_and(at.link.extras.multicast_snooping),
        |_| pair("off", "on"),
        |_| vec![BridgeChange::MulticastSnoopingOff],
    ),
    rule(
        "vlan_filtering",
        |at| at.ours_and(at.link.extras.vlan_filtering),
        |_| pair("off", "on"),
        |_| vec![BridgeChange::VlanFilteringOff],
    ),
];
