//! Ports.

use super::{Column, Look, View, Width, plain};
use crate::ctl::names::Kind;
use crate::ctl::table::Cell;

/// The columns of ports. The narrow table has the reason too, because operators need it first.
pub static PORT: View = View {
    refers_to: &[("NETWORK", Kind::Network), ("SERVER", Kind::Server), ("GROUPS", Kind::Group)],
    columns: &[
        Column { title: "ID", from: Width::Narrow, cell: |look| look.id("/id") },
        Column { title: "NAME", from: Width::Narrow, cell: |look| look.cell("/name") },
        Column { title: "SERVER", from: Width::Narrow, cell: server },
        Column { title: "NETWORK", from: Width::Narrow, cell: |look| look.reference("/network_id") },
        Column { title: "MAC", from: Width::Narrow, cell: |look| look.cell("/mac_address") },
        Column {
            title: "ADDRESSES",
            from: Width::Narrow,
            cell: |look| look.each("/fixed_ips", |fixed| plain(&fixed["ip_address"])),
        },
        Column { title: "STATUS", from: Width::Narrow, cell: status },
        Column { title: "PHASE", from: Width::Wide, cell: |look| look.cell("/nicd:phase") },
        Column { title: "REASON", from: Width::Narrow, cell: |look| look.cell("/nicd:reason") },
        Column { title: "DEVICE", from: Width::Wide, cell: |look| look.cell("/binding:vif_details/device") },
        Column { title: "BRIDGE", from: Width::Wide, cell: |look| look.cell("/binding:vif_details/bridge") },
        Column { title: "MTU", from: Width::Wide, cell: |look| look.cell("/binding:vif_details/mtu") },
        Column { title: "TYPE", from: Width::Wide, cell: |look| look.cell("/binding:vif_type") },
        Column { title: "TRUNK", from: Width::Full, cell: trunk },
        Column { title: "ADMIN UP", from: Width::Full, cell: |look| look.cell("/admin_state_up") },
        Column { title: "PORT SECURITY", from: Width::Full, cell: |look| look.cell("/port_security_enabled") },
        Column { title: "ALLOWED", from: Width::Full, cell: allowed },
        Column { title: "GROUPS", from: Width::Full, cell: |look| look.references("/security_groups") },
        Column { title: "LIMIT TO GUEST", from: Width::Full, cell: |look| look.cell("/nicd:limits/to_guest") },
        Column { title: "LIMIT FROM GUEST", from: Width::Full, cell: |look| look.cell("/nicd:limits/from_guest") },
        Column { title: "ISOLATED", from: Width::Full, cell: |look| look.cell("/nicd:isolated") },
        Column { title: "DHCP", from: Width::Full, cell: |look| look.cell("/nicd:dhcp") },
        Column { title: "DNS NAME", from: Width::Full, cell: |look| look.cell("/dns_name") },
        Column {
            title: "DHCP OPTIONS",
            from: Width::Full,
            cell: |look| {
                look.each("/extra_dhcp_opts", |option| format!("{}={}", plain(&option["opt_name"]), plain(&option["opt_value"])))
            },
        },
        Column { title: "HOST MAC", from: Width::Full, cell: |look| look.cell("/binding:vif_details/host_mac") },
        Column { title: "QUEUES", from: Width::Full, cell: |look| look.cell("/binding:vif_details/queues") },
        Column { title: "VNET HDR", from: Width::Full, cell: |look| look.cell("/binding:vif_details/vnet_hdr") },
        Column { title: "QDEV ID", from: Width::Full, cell: |look| look.cell("/binding:vif_details/qdev_id") },
        Column { title: "PCI ADDRESS", from: Width::Full, cell: |look| look.cell("/binding:vif_details/pci_address") },
        Column { title: "PROFILE", from: Width::Full, cell: |look| look.cell("/binding:profile") },
    ],
};

/// The server that has the port; a subport is a trunk's.
fn server(look: &Look) -> Cell {
    if is_subport(look) { Cell::new("") } else { look.reference("/device_id") }
}

/// The trunk that the port is the parent or a subport of.
fn trunk(look: &Look) -> Cell {
    look.cell(if is_subport(look) { "/device_id" } else { "/trunk_details/trunk_id" })
}

fn is_subport(look: &Look) -> bool {
    look.text("/device_owner") == "trunk:subport"
}

fn status(look: &Look) -> Cell {
    Cell::status(&look.text("/status"))
}

/// Each pair's addresses, and whose they are.
fn allowed(look: &Look) -> Cell {
    look.each("/allowed_address_pairs", |pair| format!("{} from {}", plain(&pair["ip_address"]), plain(&pair["mac_address"])))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::samples::{labels, printed};
    use super::*;
    use crate::ctl::table::Colour;

    const SERVER: &str = "99999999-1699-4588-a4b1-b87f96708bc6";
    const NETWORK: &str = "3cb9bc59-5699-4588-a4b1-b87f96708bc6";

    fn port() -> Value {
        json!({
            "id": "ce531f90-199f-48c0-816c-13e38010b442", "name": "", "device_id": SERVER, "network_id": NETWORK,
            "mac_address": "fa:16:3e:4c:2c:30", "status": "DOWN", "admin_state_up": true,
            "fixed_ips": [{"ip_address": "192.0.2.7", "subnet_id": "s"}, {"ip_address": "2001:db8::7", "subnet_id": "t"}],
            "allowed_address_pairs": [{"ip_address": "192.0.2.64/26", "mac_address": "fa:16:3e:4c:2c:30"}],
            "nicd:limits": {"to_guest": {"rate_kbps": 64}},
            "binding:vif_type": "tap", "nicd:phase": "wired", "nicd:reason": "no_carrier",
            "binding:vif_details": {"device": "nicdce531f90199", "bridge": "nbr3cb9bc595699", "mtu": 1500, "queues": 2},
        })
    }

    #[test]
    fn the_narrow_table_has_names() {
        assert_eq!(
            printed(&PORT, &[port()], &labels(&[(SERVER, "web"), (NETWORK, "blue")]), Width::Narrow),
            "ID        NAME  SERVER  NETWORK  MAC                ADDRESSES               STATUS  REASON\n\
             ce531f90  -     web     blue     fa:16:3e:4c:2c:30  192.0.2.7, 2001:db8::7  DOWN    no_carrier\n"
        );
    }

    #[test]
    fn the_wide_table_has_ids_and_devices() {
        let text = printed(&PORT, &[port()], &labels(&[(SERVER, "web")]), Width::Wide);
        let row = text.lines().nth(1).unwrap_or_default();
        for part in ["ce531f90-199f-48c0-816c-13e38010b442", SERVER, NETWORK, "wired", "nicdce531f90199", "nbr3cb9bc595699"] {
            assert!(row.contains(part), "{part} in {row}");
        }
    }

    #[test]
    fn a_port_shown_alone_has_all_of_it() {
        let text =
            View::detail(&PORT.chosen(&[], Width::Full).unwrap(), &port(), &labels(&[(SERVER, "web")])).render(Colour::None);
        assert!(text.contains(&format!("server            {SERVER} (web)\n")), "{text}");
        assert!(text.contains("device            nicdce531f90199\n"), "{text}");
        assert!(text.contains("queues            2\n"), "{text}");
        assert!(text.contains("allowed           192.0.2.64/26 from fa:16:3e:4c:2c:30\n"), "{text}");
        assert!(text.contains("limit to guest    rate_kbps=64\n"), "{text}");
    }

    #[test]
    fn a_port_on_its_own_has_dashes() {
        let free = json!({"id": "ce531f90-199f", "device_id": "", "fixed_ips": [], "status": "DOWN", "binding:vif_details": {}});
        assert_eq!(
            printed(&PORT, &[free], &labels(&[]), Width::Narrow),
            "ID        NAME  SERVER  NETWORK  MAC  ADDRESSES  STATUS  REASON\n\
             ce531f90  -     -       -        -    -          DOWN    -\n"
        );
    }
}
