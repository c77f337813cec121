//! Physical networks: what leads from this host to networks of other machines, and the VLANs on it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use serde::{Serialize, Serializer};

use super::names::LinkName;

/// The ids that a VLAN may have.
pub const VLANS: RangeInclusive<u32> = 1..=4094;

/// The numbers that a VXLAN network may have (VNI).
pub const VNIS: RangeInclusive<u32> = 1..=0x00ff_ffff;

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

/// The segmentation ids that networks are given which name none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdRanges(Vec<RangeInclusive<u32>>);

impl IdRanges {
    /// All ids, in the order in which they are tried.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().cloned().flatten()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<IdRange> for IdRanges {
    fn from_iter<T: IntoIterator<Item = IdRange>>(ranges: T) -> Self {
        Self(ranges.into_iter().map(|range| range.0).collect())
    }
}

impl fmt::Display for IdRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.0.iter().map(|range| format!("{}-{}", range.start(), range.end())).collect();
        f.write_str(&ranges.join(", "))
    }
}

impl Serialize for IdRanges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|range| format!("{}-{}", range.start(), range.end())))
    }
}

/// Segmentation ids from one to another: `100-199`, or `100`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdRange(RangeInclusive<u32>);

/// A text that is no range of segmentation ids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ids from {} to {} such as \"100-199\" or \"100\" are expected, the lower one first", .0.start(), .0.end())]
pub struct BadIdRange(RangeInclusive<u32>);

impl IdRange {
    /// Reads a range of ids that are all among these.
    ///
    /// # Errors
    /// The text is no such range.
    pub fn parse(text: &str, among: &RangeInclusive<u32>) -> Result<Self, BadIdRange> {
        let bad = || BadIdRange(among.clone());
        let id = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten().filter(|id| among.contains(id)).ok_or_else(bad)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (id(first)?, id(last)?);
        if first > last { Err(bad()) } else { Ok(Self(first..=last)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_what_is_none_is_refused() {
        let read = |text: &str, among| IdRange::parse(text, among).map(|range| IdRanges::from_iter([range]));
        let ids = |text: &str| read(text, &VLANS).map(|ranges| ranges.ids().collect::<Vec<_>>());
        assert_eq!(ids("100-102"), Ok(vec![100, 101, 102]));
        assert_eq!(ids("4094"), Ok(vec![4094]));
        for bad in ["", "0", "4095", "1-4095", "0-5", "9-8", "a", "1-", "-1", "1-2-3", "+1", " 1"] {
            assert_eq!(ids(bad), Err(BadIdRange(VLANS)), "{bad}");
        }
        assert_eq!(read("4095-16777215", &VNIS).unwrap().to_string(), "4095-16777215");
        for bad in ["0", "16777216", "1-99999999999"] {
            assert_eq!(read(bad, &VNIS), Err(BadIdRange(VNIS)), "{bad}");
        }
    }
}
