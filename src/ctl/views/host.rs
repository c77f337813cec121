//! The hosts of the fleet, and the fleet as a host sees it.

use super::{Column, View, Width};

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

/// The columns of a fleet.
pub static FLEET: View = View {
    refers_to: &[],
    columns: &[
        Column { title: "FLEET", from: Width::Narrow, cell: |look| look.cell("/name") },
        Column { title: "HOST", from: Width::Narrow, cell: |look| look.cell("/host") },
        Column { title: "CONNECTED", from: Width::Narrow, cell: |look| look.cell("/connected") },
        Column { title: "SINCE", from: Width::Narrow, cell: |look| look.cell("/since") },
        Column { title: "REVISION", from: Width::Narrow, cell: |look| look.cell("/revision") },
        Column { title: "TROUBLE", from: Width::Narrow, cell: |look| look.cell("/trouble") },
    ],
};
