//! Servers.

use super::{Column, Look, View, Width};
use crate::ctl::table::Cell;

/// The columns of servers.
pub static SERVER: View = View {
    refers_to: &[],
    columns: &[
        Column { title: "ID", from: Width::Narrow, cell: |look| look.id("/id") },
        Column { title: "NAME", from: Width::Narrow, cell: |look| look.cell("/name") },
        Column { title: "KIND", from: Width::Narrow, cell: |look| look.cell("/guest/kind") },
        Column { title: "NETNS", from: Width::Narrow, cell: |look| look.cell("/guest/path") },
        Column { title: "QUEUES", from: Width::Wide, cell: |look| look.cell("/guest/queues") },
        Column { title: "OWNER", from: Width::Wide, cell: owner },
        Column { title: "QMP", from: Width::Wide, cell: |look| look.cell("/guest/monitor/qmp") },
        Column { title: "NIC LIMIT", from: Width::Wide, cell: |look| look.cell("/nic_limit") },
        Column { title: "PROJECT", from: Width::Wide, cell: |look| look.cell("/project_id") },
    ],
};

/// As `server add --owner` takes it.
fn owner(look: &Look) -> Cell {
    match (look.text("/guest/owner/uid"), look.text("/guest/owner/gid")) {
        (uid, gid) if gid.is_empty() => Cell::new(&uid),
        (uid, gid) => Cell::new(&format!("{uid}:{gid}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::samples::{labels, printed};
    use super::*;

    #[test]
    fn both_kinds_fit_one_table() {
        let vm = json!({"id": "1", "name": "web", "guest": {"kind": "vm", "queues": 2, "owner": {"uid": 107, "gid": 36},
            "monitor": {"qmp": "/run/web.qmp"}}, "nic_limit": 12});
        let netns = json!({"id": "2", "name": null, "guest": {"kind": "netns", "path": "/run/netns/x"}, "nic_limit": null});
        assert_eq!(
            printed(&SERVER, &[vm, netns], &labels(&[]), Width::Wide),
            "ID  NAME  KIND   NETNS         QUEUES  OWNER   QMP           NIC LIMIT  PROJECT\n\
             1   web   vm     -             2       107:36  /run/web.qmp  12         -\n\
             2   -     netns  /run/netns/x  -       -       -             -          -\n"
        );
    }
}
