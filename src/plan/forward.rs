//! Whether the host's packet filter lets a bridge's frames pass from port to port.
//!
//! Frames between ports come by the forward hooks of the `bridge` family, and with br_netfilter (`bridge-nf-call-iptables`) by those of
//! `ip`, `ip6` and `inet` too, where the bridge is what they come in and go out by. A base chain there whose policy is drop is how
//! Docker leaves a host. What counts is the frame of a new connection between two guests of which nothing is known:
//!
//! - it is dropped where nothing can accept it: no rule applies to it, or what applies leads to a drop;
//! - a rule applies that has no condition but the bridge, its index, the protocol, or that the frame is bridged;
//! - a rule for known connections (`ct state established,related`) accepts nothing that was not accepted before;
//! - a rule with another condition (addresses, ports, sets) may accept: then it is not known whether frames pass.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most rules that are gone through for one chain: chains may lead to others many times over.
const STEPS: usize = 4096;

/// How far chains lead to chains (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;

/// What frames of each protocol meet on their way through a bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Forward {
    /// IPv4.
    pub v4: Way,
    /// IPv6.
    pub v6: Way,
}

impl Forward {
    /// Whether nothing is in the way.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }
}

/// What frames meet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// They pass.
    #[default]
    Open,
    /// They may pass or not: this chain has rules that decide by more than is known.
    Unsure(String),
    /// They are dropped by this chain.
    Closed(String),
}

impl Way {
    /// The chain that drops them.
    pub fn closed(&self) -> Option<&str> {
        match self {
            Self::Closed(chain) => Some(chain),
            _ => None,
        }
    }

    fn worse(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Closed(_), _) | (Self::Unsure(_), Self::Open | Self::Unsure(_)) => self,
            _ => other,
        }
    }
}

/// The protocol of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 alone.
    Ip,
    /// IPv6 alone.
    Ip6,
    /// Both.
    Inet,
    /// Bridges.
    Bridge,
}

impl Family {
    fn sees(self, protocol: Protocol) -> bool {
        match self {
            Self::Ip => protocol == Protocol::V4,
            Self::Ip6 => protocol == Protocol::V6,
            Self::Inet | Self::Bridge => true,
        }
    }

    /// Its name, as `nft` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        }
    }
}

/// A table, by its family and name.
pub type Table = (Family, String);

/// The chains that bridged frames come by, and those that they lead to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those that the hook itself asks.
    pub bases: Vec<Base>,
    /// The rules of all of them. A chain that is missing may do anything.
    pub rules: BTreeMap<(Table, String), Vec<Rule>>,
}

/// A chain that the forward hook asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Its table.
    pub table: Table,
    /// Its name.
    pub name: String,
    /// Whether it drops what no rule decides.
    pub drops: bool,
}

/// A rule: what it does to frames that meet all its conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The conditions.
    pub conditions: Vec<Condition>,
    /// What it does.
    pub verdict: Verdict,
}

/// A condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The device that the frame comes in or goes out by has this name, or one that begins so.
    Device {
        /// The name.
        name: String,
        /// Whether the name may go on.
        begins: bool,
        /// Whether another is asked for.
        not: bool,
    },
    /// The same of the bridge, in the bridge family.
    Bridge {
        /// The name.
        name: String,
        /// Whether the name may go on.
        begins: bool,
        /// Whether another is asked for.
        not: bool,
    },
    /// The device has this index.
    Index {
        /// The index.
        index: u32,
        /// Whether another is asked for.
        not: bool,
    },
    /// The frame is of this protocol.
    Protocol {
        /// Which; none for one that is neither.
        protocol: Option<Protocol>,
        /// Whether another is asked for.
        not: bool,
    },
    /// The frame goes from a bridge's port to another.
    Bridged {
        /// Whether one is asked for that does not.
        not: bool,
    },
    /// It belongs to a connection of which a frame was accepted before.
    Known,
    /// Anything else.
    Other,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing that decides.
    Continue,
    /// Lets pass, as far as this base chain goes.
    Accept,
    /// Drops or rejects.
    Drop,
    /// Goes back to where this chain was called from.
    Return,
    /// Asks another chain, and goes on if that does not decide.
    Jump(String),
    /// Asks another chain instead of what is left of this one.
    Goto(String),
    /// Anything else, as a program's decision, or a verdict map.
    Unknown,
}

/// The bridge that frames pass, as the conditions see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its index.
    pub index: u32,
    /// Whether IPv4 frames come by the chains of `ip` and `inet`.
    pub v4: bool,
    /// Whether IPv6 frames come by the chains of `ip6` and `inet`.
    pub v6: bool,
}

impl Filter {
    /// What frames meet on their way through a bridge.
    pub fn forward(&self, passage: Passage<'_>) -> Forward {
        Forward { v4: self.way(passage, Protocol::V4), v6: self.way(passage, Protocol::V6) }
    }

    fn way(&self, passage: Passage<'_>, protocol: Protocol) -> Way {
        let called = match protocol {
            Protocol::V4 => passage.v4,
            Protocol::V6 => passage.v6,
        };
        let asked = |base: &&Base| base.table.0.sees(protocol) && (called || base.table.0 == Family::Bridge);
        let ways = self.bases.iter().filter(asked).map(|base| {
            let mut walk = Walk { filter: self, table: &base.table, passage, protocol, may_accept: false, steps: 0 };
            let end = walk.chain(&base.name, Doubt::default(), 0);
            let chain = || format!("chain {} of table {} {}", base.name, base.table.0.as_str(), base.table.1);
            match (end, base.drops) {
                (End::Accept, _) | (End::Return, false) => Way::Open,
                (End::SomeReturn, false) => Way::Unsure(chain()),
                _ if walk.may_accept => Way::Unsure(chain()),
                _ => Way::Closed(chain()),
            }
        });
        ways.fold(Way::Open, Way::worse)
    }
}

/// How a chain ends for the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Accept,
    Drop,
    /// Nothing is decided.
    Return,
    /// Frames that meet an unknown condition come back undecided; others are dropped.
    SomeReturn,
}

/// Under what a chain is gone through.
#[derive(Debug, Clone, Copy, Default)]
struct Doubt {
    /// Not every frame comes here.
    some: bool,
    /// Only frames of known connections do.
    known: bool,
}

/// Whether a rule applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Applies {
    Never,
    Maybe,
    Always,
}

struct Walk<'a> {
    filter: &'a Filter,
    table: &'a Table,
    passage: Passage<'a>,
    protocol: Protocol,
    /// Something was met that may accept the frame.
    may_accept: bool,
    steps: usize,
}

impl<'a> Walk<'a> {
    fn chain(&mut self, name: &str, doubt: Doubt, depth: usize) -> End {
        let filter: &'a Filter = self.filter;
        let rules = filter.rules.get(&(self.table.clone(), name.to_owned()));
        let Some(rules) = rules.filter(|_| depth <= DEPTH) else {
            self.may_accept |= !doubt.known;
            return End::Return;
        };
        // Some went back from here; all others of what came by a chain that some came back from were dropped.
        let (mut some_return, mut dropped) = (false, false);
        for rule in rules {
            self.steps += 1;
            if self.steps > STEPS {
                self.may_accept = true;
                return End::Return;
            }
            let applies = self.applies(rule);
            if applies == Applies::Never {
                continue;
            }
            let known = doubt.known || rule.conditions.contains(&Condition::Known);
            let some = doubt.some || dropped || known || applies == Applies::Maybe;
            let end = match &rule.verdict {
                Verdict::Continue => continue,
                Verdict::Accept => End::Accept,
                Verdict::Drop => End::Drop,
                Verdict::Return => End::Return,
                Verdict::Unknown => {
                    self.may_accept |= !known;
                    continue;
                }
                Verdict::Jump(chain) | Verdict::Goto(chain) => self.chain(chain, Doubt { some, known }, depth + 1),
            };
            if end == End::Accept && some {
                self.may_accept |= !known;
            }
            // Of what comes here for sure all is decided here; the rest goes on.
            let whole = applies == Applies::Always && !rule.conditions.contains(&Condition::Known);
            let goes_on = matches!(rule.verdict, Verdict::Jump(_));
            match (end, whole) {
                (End::Accept, true) if !dropped => return End::Accept,
                (End::Accept | End::Drop, true) => return if some_return { End::SomeReturn } else { End::Drop },
                (End::Return | End::SomeReturn, true) if !goes_on => return if dropped { End::SomeReturn } else { end },
                (End::SomeReturn, true) => dropped = true,
                (End::Return | End::SomeReturn, false) if !goes_on => some_return |= !known,
                _ => {}
            }
        }
        if dropped { End::SomeReturn } else { End::Return }
    }

    fn applies(&self, rule: &Rule) -> Applies {
        rule.conditions.iter().map(|condition| self.meets(condition)).min().unwrap_or(Applies::Always)
    }

    fn meets(&self, condition: &Condition) -> Applies {
        let is = |is: bool, not: bool| if is == not { Applies::Never } else { Applies::Always };
        let called =
            |name: &str, begins: bool| if begins { self.passage.name.starts_with(name) } else { self.passage.name == name };
        match condition {
            // A port's there.
            Condition::Device { .. } | Condition::Index { .. } if self.table.0 == Family::Bridge => Applies::Maybe,
            Condition::Device { name, begins, not } | Condition::Bridge { name, begins, not } => is(called(name, *begins), *not),
            Condition::Index { index, not } => is(*index == self.passage.index, *not),
            Condition::Protocol { protocol, not } => is(*protocol == Some(self.protocol), *not),
            Condition::Bridged { not } => is(true, *not),
            // What it applies to is told by itself.
            Condition::Known => Applies::Always,
            Condition::Other => Applies::Maybe,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BRIDGE: &str = "br0";

    fn rule(conditions: &[Condition], verdict: Verdict) -> Rule {
        Rule { conditions: conditions.to_vec(), verdict }
    }

    fn device(name: &str) -> Condition {
        Condition::Device { name: name.to_owned(), begins: false, not: false }
    }

    fn no_device(name: &str) -> Condition {
        Condition::Device { name: name.to_owned(), begins: false, not: true }
    }

    fn table() -> Table {
        (Family::Ip, "filter".to_owned())
    }

    fn filter(drops: bool, chains: &[(&str, Vec<Rule>)]) -> Filter {
        let rules = chains.iter().map(|(name, rules)| ((table(), (*name).to_owned()), rules.clone())).collect();
        Filter { bases: vec![Base { table: table(), name: "FORWARD".to_owned(), drops }], rules }
    }

    fn way(filter: &Filter) -> &'static str {
        match filter.forward(Passage { name: BRIDGE, index: 7, v4: true, v6: true }).v4 {
            Way::Open => "open",
            Way::Unsure(_) => "unsure",
            Way::Closed(_) => "closed",
        }
    }

    fn of(drops: bool, rules: Vec<Rule>) -> &'static str {
        way(&filter(drops, &[("FORWARD", rules)]))
    }

    #[test]
    fn the_policy_decides_what_no_rule_does() {
        assert_eq!(of(true, vec![]), "closed");
        assert_eq!(of(false, vec![]), "open");
        assert_eq!(of(true, vec![rule(&[], Verdict::Continue)]), "closed");
        assert_eq!(of(false, vec![rule(&[], Verdict::Drop)]), "closed", "a last rule that rejects is a policy");
        assert_eq!(of(false, vec![rule(&[Condition::Other], Verdict::Drop)]), "open", "some are dropped, as meant");
    }

    #[test]
    fn rules_that_accept_what_is_bridged_open_it() {
        let port = |not| Condition::Bridged { not };
        for open in [vec![], vec![port(false)], vec![device(BRIDGE)], vec![no_device("eth0")], vec![port(false), device(BRIDGE)]]
        {
            assert_eq!(of(true, vec![rule(&open, Verdict::Accept)]), "open", "{open:?}");
        }
        let index = |index, not| Condition::Index { index, not };
        let begins = Condition::Device { name: "br".to_owned(), begins: true, not: false };
        for open in [index(7, false), index(8, true), begins] {
            assert_eq!(of(true, vec![rule(&[open], Verdict::Accept)]), "open");
        }
        for closed in [port(true), device("br"), device("br00"), no_device(BRIDGE), index(8, false), Condition::Known] {
            assert_eq!(of(true, vec![rule(std::slice::from_ref(&closed), Verdict::Accept)]), "closed", "{closed:?}");
        }
        assert_eq!(of(true, vec![rule(&[Condition::Other], Verdict::Accept)]), "unsure");
        assert_eq!(of(true, vec![rule(&[], Verdict::Unknown)]), "unsure");
        assert_eq!(of(true, vec![rule(&[], Verdict::Drop), rule(&[], Verdict::Accept)]), "closed");
        assert_eq!(of(true, vec![rule(&[Condition::Other], Verdict::Drop), rule(&[], Verdict::Accept)]), "open");
    }

    #[test]
    fn what_docker_leaves_is_closed_until_a_rule_of_the_operators_is_there() {
        let docker = |users: Vec<Rule>| {
            let jump = |chain: &str| rule(&[], Verdict::Jump(chain.to_owned()));
            let forward = vec![
                jump("DOCKER-USER"),
                jump("DOCKER-ISOLATION"),
                rule(&[device("docker0"), Condition::Known], Verdict::Accept),
                rule(&[device("docker0")], Verdict::Jump("DOCKER".to_owned())),
                rule(&[device("docker0"), no_device("docker0")], Verdict::Accept),
                rule(&[device("docker0"), device("docker0")], Verdict::Accept),
            ];
            let isolation =
                vec![rule(&[device("docker0"), no_device("docker0")], Verdict::Jump("X".to_owned())), rule(&[], Verdict::Return)];
            let docker = vec![rule(&[no_device("docker0"), Condition::Other], Verdict::Accept)];
            let chains = [("FORWARD", forward), ("DOCKER-USER", users), ("DOCKER-ISOLATION", isolation), ("DOCKER", docker)];
            way(&filter(true, &chains))
        };
        assert_eq!(docker(vec![rule(&[], Verdict::Return)]), "closed");
        assert_eq!(docker(vec![]), "closed");
        assert_eq!(docker(vec![rule(&[Condition::Bridged { not: false }], Verdict::Accept)]), "open");
        assert_eq!(docker(vec![rule(&[device(BRIDGE)], Verdict::Accept)]), "open");
        assert_eq!(docker(vec![rule(&[Condition::Other], Verdict::Accept)]), "unsure");
    }

    #[test]
    fn chains_are_followed_and_come_back() {
        let to = |conditions: &[Condition], verdict: fn(String) -> Verdict| rule(conditions, verdict("other".to_owned()));
        let both = |first: Rule, other: Vec<Rule>, then: Vec<Rule>| {
            way(&filter(true, &[("FORWARD", [vec![first], then].concat()), ("other", other)]))
        };
        let (accept, drop) = (|| rule(&[], Verdict::Accept), || rule(&[], Verdict::Drop));
        let returns = || rule(&[Condition::Other], Verdict::Return);
        assert_eq!(both(to(&[], Verdict::Jump), vec![accept()], vec![drop()]), "open");
        assert_eq!(both(to(&[], Verdict::Jump), vec![drop()], vec![accept()]), "closed");
        assert_eq!(both(to(&[], Verdict::Jump), vec![], vec![accept()]), "open");
        assert_eq!(both(to(&[], Verdict::Goto), vec![], vec![accept()]), "closed", "it does not come back");
        assert_eq!(both(to(&[], Verdict::Jump), vec![returns(), drop()], vec![accept()]), "unsure");
        assert_eq!(both(to(&[], Verdict::Jump), vec![returns(), drop()], vec![]), "closed");
        assert_eq!(both(to(&[Condition::Known], Verdict::Jump), vec![accept()], vec![]), "closed");
        assert_eq!(both(to(&[Condition::Other], Verdict::Jump), vec![accept()], vec![]), "unsure");
        assert_eq!(both(to(&[Condition::Other], Verdict::Jump), vec![drop()], vec![accept()]), "open");
        let missing = filter(true, &[("FORWARD", vec![to(&[], Verdict::Jump)])]);
        assert_eq!(way(&missing), "unsure", "a chain that was not read may do anything");
        let circle = filter(true, &[("FORWARD", vec![to(&[], Verdict::Jump)]), ("other", vec![to(&[], Verdict::Jump); 3])]);
        assert_eq!(way(&circle), "unsure", "and it ends");
    }

    #[test]
    fn families_see_what_comes_by_them() {
        let ways = |family, v4, v6| {
            let table = (family, "t".to_owned());
            let rules = BTreeMap::from([((table.clone(), "c".to_owned()), vec![])]);
            let filter = Filter { bases: vec![Base { table, name: "c".to_owned(), drops: true }], rules };
            let forward = filter.forward(Passage { name: BRIDGE, index: 7, v4, v6 });
            (forward.v4.closed().is_some(), forward.v6.closed().is_some())
        };
        assert_eq!(ways(Family::Ip, true, true), (true, false));
        assert_eq!(ways(Family::Ip6, true, true), (false, true));
        assert_eq!(ways(Family::Inet, true, true), (true, true));
        assert_eq!(ways(Family::Inet, true, false), (true, false));
        assert_eq!(ways(Family::Inet, false, false), (false, false));
        assert_eq!(ways(Family::Bridge, false, false), (true, true), "which needs no br_netfilter");
    }

    fn verdicts() -> impl Strategy<Value = Verdict> {
        let chain = prop_oneof![Just("FORWARD"), Just("a"), Just("b"), Just("c")].prop_map(str::to_owned);
        prop_oneof![
            Just(Verdict::Continue),
            Just(Verdict::Accept),
            Just(Verdict::Drop),
            Just(Verdict::Return),
            Just(Verdict::Unknown),
            chain.clone().prop_map(Verdict::Jump),
            chain.prop_map(Verdict::Goto),
        ]
    }

    fn conditions() -> impl Strategy<Value = Vec<Condition>> {
        let one = prop_oneof![
            Just(Condition::Known),
            Just(Condition::Other),
            Just(device(BRIDGE)),
            Just(device("eth0")),
            Just(Condition::Bridged { not: true }),
        ];
        proptest::collection::vec(one, 0..3)
    }

    fn chains() -> impl Strategy<Value = Vec<Vec<Rule>>> {
        let rule = (conditions(), verdicts()).prop_map(|(conditions, verdict)| Rule { conditions, verdict });
        proptest::collection::vec(proptest::collection::vec(rule, 0..5), 3)
    }

    proptest! {
        #[test]
        fn whatever_leads_where_it_ends_and_an_accept_at_the_front_opens(drops in any::<bool>(), chains in chains()) {
            let named: Vec<(&str, Vec<Rule>)> = ["FORWARD", "a", "b"].into_iter().zip(chains).collect();
            let _ = way(&filter(drops, &named));
            let mut opened = named;
            opened[0].1.insert(0, rule(&[device(BRIDGE)], Verdict::Accept));
            prop_assert_eq!(way(&filter(drops, &opened)), "open");
            opened[0].1.insert(0, rule(&[device(BRIDGE)], Verdict::Drop));
            prop_assert_eq!(way(&filter(drops, &opened)), "closed");
        }
    }
}
