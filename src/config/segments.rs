//! `[physical_networks]` and `[segments]`: what leads to networks of other machines, and the segmentation ids of networks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde::Serialize;

use super::{ConfigError, bad, file};
use crate::model::segment::{IdRange, VLANS, VNIS};
use crate::model::{IdRanges, LinkName, PhysicalNetwork, PhysicalNetworks};

/// `[segments]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SegmentSettings {
    /// The VLANs of networks that name none.
    #[serde(skip_serializing_if = "IdRanges::is_empty")]
    pub vlan: IdRanges,
    /// The numbers of VXLAN networks that name none.
    #[serde(skip_serializing_if = "IdRanges::is_empty")]
    pub vxlan: IdRanges,
}

const EXPECTED: &str = "a link's name such as \"eth1\" is expected, or a table such as { device = \"eth1\", adopt = true, qinq = true } or \
                        { bridge = \"br-x\" }";

/// The longest name of a physical network, in characters.
const NAME: usize = 64;

pub(super) fn physical_as_used(written: BTreeMap<String, toml::Value>) -> Result<PhysicalNetworks, ConfigError> {
    let mut links: BTreeSet<String> = BTreeSet::new();
    let mut networks = PhysicalNetworks::new();
    for (name, value) in written {
        let refuse = |expected: &str| bad("physical_networks", format!("{{ {name:?} = {value} }}"), expected);
        if name.is_empty() || name.chars().count() > NAME || name.contains(char::is_control) {
            return Err(refuse("a name of 1 to 64 characters is expected"));
        }
        let network = physical(&value).map_err(|expected| refuse(&expected))?;
        if !links.insert(network.link().to_string()) {
            return Err(refuse("a link or bridge of its own is expected: another physical network has this one"));
        }
        networks.insert(name, network);
    }
    Ok(networks)
}

fn physical(value: &toml::Value) -> Result<PhysicalNetwork, String> {
    let link = |text: &str| text.parse::<LinkName>().map_err(|error| error.to_string());
    let table = match value {
        toml::Value::String(device) => {
            return Ok(PhysicalNetwork::Device { device: link(device)?, adopt: false, qinq: false });
        }
        toml::Value::Table(table) => table,
        _ => return Err(EXPECTED.to_owned()),
    };
    let text =
        |key: &str| table.get(key).map(|value| value.as_str().ok_or_else(|| EXPECTED.to_owned()).and_then(link)).transpose();
    let truth = |key: &str| match table.get(key) {
        None => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| format!("{key} is true or false; {EXPECTED}")),
    };
    match (text("device")?, text("bridge")?) {
        (Some(device), None) if table.keys().all(|key| ["device", "adopt", "qinq"].contains(&key.as_str())) => {
            Ok(PhysicalNetwork::Device { device, adopt: truth("adopt")?, qinq: truth("qinq")? })
        }
        (None, Some(bridge)) if table.len() == 1 => Ok(PhysicalNetwork::Bridge { bridge }),
        _ => Err(EXPECTED.to_owned()),
    }
}

pub(super) fn segments_as_used(written: file::Segments) -> Result<SegmentSettings, ConfigError> {
    Ok(SegmentSettings {
        vlan: ranges("segments.vlan", written.vlan, &VLANS)?,
        vxlan: ranges("segments.vxlan", written.vxlan, &VNIS)?,
    })
}

fn ranges(key: &'static str, written: Option<toml::Value>, among: &RangeInclusive<u32>) -> Result<IdRanges, ConfigError> {
    let texts: Vec<toml::Value> = match written {
        None => Vec::new(),
        Some(toml::Value::Array(texts)) => texts,
        Some(other) => vec![other],
    };
    let read = |value: &toml::Value| {
        let text = match value {
            toml::Value::Integer(id) => id.to_string(),
            other => other.as_str().unwrap_or_default().to_owned(),
        };
        IdRange::parse(&text, among).map_err(|error| bad(key, value, error.to_string()))
    };
    texts.iter().map(read).collect()
}
