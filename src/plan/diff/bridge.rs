//! The rules about a network's bridge.

use crate::model::Mac;
use crate::plan::desired::{BridgeMade, DesiredBridge};
use crate::plan::observed::{BridgeExtras, Kind, LinkState, Observed};
use crate::plan::op::{Address, Switch};

use super::words::{addresses, closed, up};
use super::{Pair, or_none, pair};

/// How one property of a bridge is compared, told and brought back.
#[derive(Debug)]
pub struct Rule {
    /// The stable word for a difference.
    pub word: &'static str,
    differs: fn(&Bridge<'_>) -> bool,
    words: fn(&Bridge<'_>) -> Pair,
    set: fn(&Bridge<'_>, &mut BridgeSettings),
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
    set: fn(&Bridge<'_>, &mut BridgeSettings),
) -> Rule {
    Rule { word, differs, words, set }
}

/// What is set on an agent-made bridge to bring it back. What is none or false stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::plan) struct BridgeSettings {
    pub mac: Option<Mac>,
    pub mtu: Option<u32>,
    pub switch: Option<Switch>,
    pub alias: Option<String>,
    pub ip_off: bool,
    pub stray: Vec<Address>,
    pub off: BridgeExtras,
    /// It is closed by an op of its own.
    pub close: bool,
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

    /// What is to be set on it.
    pub(in crate::plan) fn settings(&self) -> BridgeSettings {
        let mut settings = BridgeSettings::default();
        self.differences().for_each(|rule| (rule.set)(self, &mut settings));
        settings
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
    rule("kind", |at| at.link.kind != Kind::Bridge, |at| pair(Kind::Bridge.as_str(), at.link.kind.as_str()), |_, _| {}),
    rule(
        "host_closed",
        |at| at.want.made.closes() && !at.link.host_closed,
        |_| pair(closed(true), closed(false)),
        |_, settings| settings.close = true,
    ),
    rule(
        "mac",
        |at| at.made().is_some_and(|(mac, ..)| at.link.mac != Some(mac)),
        |at| pair(or_none(at.made().map(|(mac, ..)| mac)), or_none(at.link.mac)),
        |at, settings| settings.mac = at.made().map(|(mac, ..)| mac),
    ),
    rule(
        "mtu",
        |at| at.made().is_some_and(|(_, mtu, _)| at.link.mtu != mtu),
        |at| pair(or_none(at.made().map(|(_, mtu, _)| mtu)), at.link.mtu),
        |at, settings| settings.mtu = at.made().map(|(_, mtu, _)| mtu),
    ),
    rule(
        "alias",
        |at| at.made().is_some_and(|(.., alias)| at.link.alias.as_deref() != Some(alias)),
        |at| pair(or_none(at.made().map(|(.., alias)| alias)), or_none(at.link.alias.as_deref())),
        |at, settings| settings.alias = at.made().map(|(.., alias)| alias.to_owned()),
    ),
    rule("up", |at| at.ours_and(!at.link.up), |_| pair(up(true), up(false)), |_, settings| settings.switch = Some(Switch::Up)),
    rule(
        "address_generation",
        |at| at.ours_and(at.link.v6_autoconf),
        |_| pair("off", "on"),
        |_, settings| settings.ip_off = true,
    ),
    rule("host_ipv4", |at| at.ours_and(at.link.v4_open), |_| pair("off", "on"), |_, settings| settings.ip_off = true),
    rule(
        "host_address",
        |at| at.ours_and(!at.link.stray.is_empty()),
        |at| pair("none", addresses(at.link)),
        |at, settings| settings.stray = at.link.stray.clone(),
    ),
    rule("stp", |at| at.ours_and(at.link.extras.stp), |_| pair("off", "on"), |_, settings| settings.off.stp = true),
    rule(
        "multicast_snooping",
        |at| at.ours_and(at.link.extras.multicast_snooping),
        |_| pair("off", "on"),
        |_, settings| settings.off.multicast_snooping = true,
    ),
    rule(
        "vlan_filtering",
        |at| at.ours_and(at.link.extras.vlan_filtering),
        |_| pair("off", "on"),
        |_, settings| settings.off.vlan_filtering = true,
    ),
];
