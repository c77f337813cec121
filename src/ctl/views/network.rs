//! Networks.

use super::{Column, View, Width};
use crate::ctl::names::Kind;

/// The columns of networks.
pub static NETWORK: View = View {
    refers_to: &[("SUBNETS", Kind::Subnet)],
    columns: &[
        Column { title: "ID", from: Width::Narrow, cell: |look| look.id("/id") },
        Column { title: "NAME", from: Width::Narrow, cell: |look| look.cell("/name") },
        Column { title: "TYPE", from: Width::Narrow, cell: |look| look.cell("/provider:network_type") },
        Column { title: "MTU", from: Width::Narrow, cell: |look| look.cell("/mtu") },
        Column { title: "SUBNETS", from: Width::Narrow, cell: subnets },
        Column { title: "BRIDGE", from: Width::Wide, cell: bridge },
        Column { title: "PHYSICAL", from: Width::Wide, cell: |look| look.cell("/provider:physical_network") },
        Column { title: "SEGMENT", from: Width::Wide, cell: |look| look.cell("/provider:segmentation_id") },
        Column { title: "UPLINK", from: Width::Wide, cell: |look| look.cell("/nicd:uplink") },
        Column { title: "PORT SECURITY", from: Width::Full, cell: |look| look.cell("/port_security_enabled") },
        Column { title: "ISOLATED", from: Width::Full, cell: |look| look.cell("/nicd:isolated") },
        Column { title: "SCOPE", from: Width::Full, cell: |look| look.cell("/nicd:scope") },
        Column { title: "PROJECT", from: Width::Full, cell: |look| look.cell("/project_id") },
    ],
};

/// The bridge there is, or the one that the network is to have.
fn bridge(look: &super::Look) -> crate::ctl::table::Cell {
    let there = look.cell("/nicd:device");
    if there.text().is_empty() { look.cell("/nicd:bridge") } else { there }
}

/// Ranges say more than ids; a subnet made since they were fetched has only its id.
fn subnets(look: &super::Look) -> crate::ctl::table::Cell {
    look.each("/subnets", |id| {
        let id = super::plain(id);
        look.labels.get(&id).unwrap_or(super::short(&id)).to_owned()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::samples::{labels, printed};
    use super::*;

    #[test]
    fn ranges_stand_for_subnets() {
        let network = json!({
            "id": "3cb9bc59-5699-4588-a4b1-b87f96708bc6", "name": "blue", "mtu": 1500, "provider:network_type": "local",
            "subnets": ["11111111-5699-4588-a4b1-b87f96708bc6", "22222222-5699-4588-a4b1-b87f96708bc6"], "nicd:bridge": "br0",
        });
        let labels = labels(&[("11111111-5699-4588-a4b1-b87f96708bc6", "192.0.2.0/24")]);
        assert_eq!(
            printed(&NETWORK, &[network], &labels, Width::Narrow),
            "ID        NAME  TYPE   MTU   SUBNETS\n\
             3cb9bc59  blue  local  1500  192.0.2.0/24, 22222222\n"
        );
    }
}
