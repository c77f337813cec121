//! Physical networks: what leads from this host to networks of other machines, and the VLANs on it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::names::LinkName;

/// The ids that a VLAN may have.
pub const VLANS: RangeInclusive<u32> = 1..=4094;

/// The physical networks of this host, by their names.
pub type PhysicalNetworks = BTreeMap<String, PhysicalNetwork>;

/// What leads to a physical network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PhysicalNetwork {
    /// A link, on which nicd makes VLAN devices.
    Device {
        /// Its name or altname.
        device: LinkName,
        /// Whether nicd may put it into the bridge of a flat network.
        adopt: bool,
        /// Whether VLANs have tags of 802.1ad there, which leave room for guests' own tags.
        qinq: bool,
    },
    /// An operator's bridge, which the uplink is in already.
    Bridge {
        /// Its name or altname.
        bridge: LinkName,
    },
}

impl PhysicalNetwork {
    /// The name of the link or the bridge.
    pub fn link(&self) -> &LinkName {
        match self {
            Self::Device { device, .. } => device,
            Self::Bridge { bridge } => bridge,
        }
    }
}

/// The VLANs that networks are given which name none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VlanRanges(Vec<RangeInclusive<u16>>);

impl VlanRanges {
    /// All ids, in the order in which they are tried.
    pub fn ids(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().cloned().flatten()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<VlanRange> for VlanRanges {
    fn from_iter<T: IntoIterator<Item = VlanRange>>(ranges: T) -> Self {
        Self(ranges.into_iter().map(|range| range.0).collect())
    }
}

impl fmt::Display for VlanRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.0.iter().map(|range| format!("{}-{}", range.start(), range.end())).collect();
        f.write_str(&ranges.join(", "))
    }
}

impl Serialize for VlanRanges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|range| format!("{}-{}", range.start(), range.end())))
    }
}

/// VLAN ids from one to another: `100-199`, or `100`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VlanRange(RangeInclusive<u16>);

/// A text that is no range of VLANs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ids from 1 to 4094 such as \"100-199\" or \"100\" are expected, the lower one first")]
pub struct BadVlanRange;

impl FromStr for VlanRange {
    type Err = BadVlanRange;

    fn from_str(text: &str) -> Result<Self, BadVlanRange> {
        let id = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
            let id = digits.then(|| text.parse().ok()).flatten().filter(|id| VLANS.contains(&u32::from(*id)));
            id.ok_or(BadVlanRange)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (id(first)?, id(last)?);
        if first > last { Err(BadVlanRange) } else { Ok(Self(first..=last)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_what_is_none_is_refused() {
        let read = |text: &str| text.parse::<VlanRange>().map(|range| VlanRanges::from_iter([range]).ids().collect::<Vec<_>>());
        assert_eq!(read("100-102"), Ok(vec![100, 101, 102]));
        assert_eq!(read("4094"), Ok(vec![4094]));
        for bad in ["", "0", "4095", "1-4095", "0-5", "9-8", "a", "1-", "-1", "1-2-3", "+1", " 1"] {
            assert_eq!(read(bad), Err(BadVlanRange), "{bad}");
        }
    }
}
