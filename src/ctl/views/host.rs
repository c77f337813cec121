//! The hosts of the fleet, and the fleet as a host sees it.

use super::{Cell, Column, Kind, Look, View, Width};

/// The columns of hosts.
pub static HOST: View = View {
    refers_to: &[],
    columns: &[
        Column { title: "HOST", from: Width::Narrow, cell: |look| look.cell("/id") },
        Column { title: "ALIVE", from: Width::Narrow, cell: |look| look.cell("/alive") },
        Column { title: "PORTS", from: Width::Narrow, cell: |look| look.cell("/ports") },
        Column { title: "VERSION", from: Width::Narrow, cell: |look| look.cell("/version") },
        Column { title: "TUNNEL", from: Width::Narrow, cell: |look| look.cell("/tunnel") },
        Column { title: "LAST SEEN", from: Width::Narrow, cell: |look| look.cell("/last_seen") },
        Column { title: "SINCE", from: Width::Full, cell: |look| look.cell("/since") },
    ],
};

/// The columns of a port's bindings.
pub static BINDING: View = View {
    refers_to: &[],
    columns: &[
        Column { title: "HOST", from: Width::Narrow, cell: |look| look.cell("/host") },
        Column { title: "STATUS", from: Width::Narrow, cell: |look| look.cell("/status") },
        Column { title: "TYPE", from: Width::Narrow, cell: |look| look.cell("/vif_type") },
        Column { title: "DEVICE", from: Width::Narrow, cell: |look| look.cell("/vif_details/device") },
        Column { title: "BRIDGE", from: Width::Full, cell: |look| look.cell("/vif_details/bridge") },
    ],
};

/// The columns of a fleet.
pub static FLEET: View = View {
    refers_to: &[("RESERVED", Kind::Network)],
    columns: &[
        Column { title: "FLEET", from: Width::Narrow, cell: |look| look.cell("/name") },
        Column { title: "HOST", from: Width::Narrow, cell: |look| look.cell("/host") },
        Column { title: "CONNECTED", from: Width::Narrow, cell: |look| look.cell("/connected") },
        Column { title: "SINCE", from: Width::Narrow, cell: |look| look.cell("/since") },
        Column { title: "REVISION", from: Width::Narrow, cell: |look| look.cell("/revision") },
        Column { title: "WATCH LAG", from: Width::Narrow, cell: lag },
        Column { title: "RESERVED", from: Width::Narrow, cell: reserved },
        Column { title: "TROUBLE", from: Width::Narrow, cell: |look| look.cell("/trouble") },
    ],
};

/// How far behind the host sees what is written in etcd.
fn lag(look: &Look<'_>) -> Cell {
    Cell::new(&look.object["watch_lag_ms"].as_u64().map(|lag| format!("{lag} ms")).unwrap_or_default())
}

/// The addresses that the host has reserved, a network each.
fn reserved(look: &Look<'_>) -> Cell {
    let networks = look.object["reserved"].as_array().map_or(0, Vec::len);
    let of = |at: usize| {
        let network = look.reference(&format!("/reserved/{at}/network_id"));
        let count = |key: &str| look.object["reserved"][at][key].as_u64().unwrap_or(0);
        format!("{}: {} of {} free", network.text(), count("free"), count("addresses"))
    };
    Cell::new(&(0..networks).map(of).collect::<Vec<_>>().join(", "))
}
