//! Which existing bridges a network may use (`links.allowed_bridges`).

use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::model::{LinkName, names};

/// Which existing bridges a network may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AllowedBridges {
    /// All bridges except those that carry a default route of the host. The default.
    #[default]
    AllButUplink,
    /// Bridges that match one of these patterns; none when the list is empty.
    Listed(Vec<BridgePattern>),
}

/// What the setting says of one bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeRule {
    /// It may be used.
    Allowed,
    /// It may not.
    Refused,
    /// It may be used unless a default route of the host leaves by it.
    UnlessUplink,
}

impl AllowedBridges {
    /// Whether a network may use `bridge`.
    pub fn rule(&self, bridge: &LinkName) -> BridgeRule {
        match self {
            Self::AllButUplink => BridgeRule::UnlessUplink,
            Self::Listed(patterns) if patterns.iter().any(|pattern| pattern.matches(bridge)) => BridgeRule::Allowed,
            Self::Listed(_) => BridgeRule::Refused,
        }
    }

    /// Whether the key is to be left out of a printed file.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::AllButUplink
    }
}

impl Serialize for AllowedBridges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AllButUplink => serializer.serialize_none(),
            Self::Listed(patterns) => serializer.collect_seq(patterns.iter().map(|pattern| &pattern.0)),
        }
    }
}

/// A bridge's name in which each `*` stands for any number of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgePattern(String);

impl BridgePattern {
    /// Whether `bridge` has such a name.
    pub fn matches(&self, bridge: &LinkName) -> bool {
        let name = bridge.as_str();
        let Some((head, tail)) = self.0.split_once('*') else { return name == self.0 };
        let Some(mut rest) = name.strip_prefix(head) else { return false };
        // Greedy from the left is right for `*` alone: an earlier match leaves more for what follows.
        let mut parts = tail.split('*').collect::<Vec<_>>();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

impl FromStr for BridgePattern {
    type Err = names::BadLinkName;

    /// A pattern is valid if removing each `*`, or replacing it by a letter, gives a valid link name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let literal = text.replace('*', "");
        if !text.contains('*') || !literal.is_empty() {
            let probe = if text.contains('*') && literal.len() < names::MAX_NAME { literal + "x" } else { literal };
            probe.parse::<LinkName>().map_err(|_| names::BadLinkName { value: text.chars().take(64).collect() })?;
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> LinkName {
        text.parse().unwrap()
    }

    #[test]
    fn stars_stand_for_any_number_of_characters() {
        for (pattern, yes, no) in [
            ("br0", &["br0"][..], &["br00", "br", "xbr0"][..]),
            ("br*", &["br", "br0", "br-int"], &["xbr", "b"]),
            ("*", &["a", "br0"], &[]),
            ("*-int", &["br-int", "-int"], &["br-ext", "-int0"]),
            ("b*r*0", &["br0", "b1r20", "bbrr00"], &["br1", "rb0"]),
            ("ab*ba", &["abba", "abxba"], &["aba"]),
        ] {
            let pattern: BridgePattern = pattern.parse().unwrap();
            assert!(yes.iter().all(|text| pattern.matches(&name(text))), "{pattern:?}");
            assert!(!no.iter().any(|text| pattern.matches(&name(text))), "{pattern:?}");
        }
    }

    #[test]
    fn what_no_bridge_can_be_called_is_refused() {
        for bad in ["", "a/b*", "a b", "0123456789abcdef", "0123456789abcdef*", "eth%d"] {
            assert!(bad.parse::<BridgePattern>().is_err(), "{bad}");
        }
        for good in ["*", "**", "br-*", "0123456789abcd*", "0123456789abcde*"] {
            assert!(good.parse::<BridgePattern>().is_ok(), "{good}");
        }
    }

    #[test]
    fn the_default_leaves_out_the_uplink_only() {
        assert_eq!(AllowedBridges::default().rule(&name("br0")), BridgeRule::UnlessUplink);
        let listed = AllowedBridges::Listed(vec!["br*".parse().unwrap()]);
        assert_eq!(listed.rule(&name("br0")), BridgeRule::Allowed);
        assert_eq!(listed.rule(&name("virbr0")), BridgeRule::Refused);
        assert_eq!(AllowedBridges::Listed(Vec::new()).rule(&name("br0")), BridgeRule::Refused);
    }
}
