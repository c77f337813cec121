//! Trunks.

use super::{Column, Look, View, Width, plain};
use crate::ctl::names::Kind;
use crate::ctl::table::Cell;

/// The columns of trunks.
pub static TRUNK: View = View {
    refers_to: &[("PARENT", Kind::Port), ("SUBPORTS", Kind::Port)],
    columns: &[
        Column { title: "ID", from: Width::Narrow, cell: |look| look.id("/id") },
        Column { title: "NAME", from: Width::Narrow, cell: |look| look.cell("/name") },
        Column { title: "PARENT", from: Width::Narrow, cell: |look| look.reference("/port_id") },
        Column { title: "SUBPORTS", from: Width::Narrow, cell: subports },
        Column { title: "STATUS", from: Width::Narrow, cell: |look| Cell::status(&look.text("/status")) },
        Column { title: "ADMIN UP", from: Width::Full, cell: |look| look.cell("/admin_state_up") },
        Column { title: "CREATED", from: Width::Full, cell: |look| look.cell("/created_at") },
    ],
};

/// Each subport with its VLAN, as they are given.
fn subports(look: &Look) -> Cell {
    look.each("/sub_ports", |sub| format!("{}:{}", look.called(&plain(&sub["port_id"])), plain(&sub["segmentation_id"])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::samples::{labels, printed};
    use super::*;

    #[test]
    fn subports_are_shown_as_they_are_given() {
        let sub = |port: &str, vlan: u16| json!({"port_id": port, "segmentation_type": "vlan", "segmentation_id": vlan});
        let trunk = json!({
            "id": "7b2e4d10-6a55", "name": "router", "port_id": "p", "status": "ACTIVE", "admin_state_up": true,
            "sub_ports": [sub("91c055d2-1e4b", 101), sub("q", 7)],
        });
        assert_eq!(
            printed(&TRUNK, &[trunk], &labels(&[("p", "front"), ("q", "dmz")]), Width::Narrow),
            "ID        NAME    PARENT  SUBPORTS             STATUS\n\
             7b2e4d10  router  front   91c055d2:101, dmz:7  ACTIVE\n"
        );
    }
}
