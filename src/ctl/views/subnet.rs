//! Subnets.

use super::{Column, View, Width, plain};
use crate::ctl::names::Kind;

/// The columns of subnets.
pub static SUBNET: View = View {
    refers_to: &[("NETWORK", Kind::Network)],
    columns: &[
        Column { title: "ID", from: Width::Narrow, cell: |look| look.id("/id") },
        Column { title: "NAME", from: Width::Narrow, cell: |look| look.cell("/name") },
        Column { title: "NETWORK", from: Width::Narrow, cell: |look| look.reference("/network_id") },
        Column { title: "CIDR", from: Width::Narrow, cell: |look| look.cell("/cidr") },
        Column { title: "GATEWAY", from: Width::Narrow, cell: |look| look.cell("/gateway_ip") },
        Column {
            title: "POOLS",
            from: Width::Narrow,
            cell: |look| look.each("/allocation_pools", |pool| format!("{}-{}", plain(&pool["start"]), plain(&pool["end"]))),
        },
        Column { title: "DHCP", from: Width::Wide, cell: |look| look.cell("/enable_dhcp") },
        Column { title: "DNS", from: Width::Wide, cell: |look| look.each("/dns_nameservers", plain) },
        Column {
            title: "ROUTES",
            from: Width::Wide,
            cell: |look| {
                look.each("/host_routes", |route| format!("{} via {}", plain(&route["destination"]), plain(&route["nexthop"])))
            },
        },
        Column { title: "IPV6 MODE", from: Width::Full, cell: |look| look.cell("/ipv6_address_mode") },
        Column { title: "RA MODE", from: Width::Full, cell: |look| look.cell("/ipv6_ra_mode") },
    ],
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::samples::{labels, printed};
    use super::*;

    #[test]
    fn a_subnet_without_a_gateway_has_a_dash() {
        let subnet = json!({
            "id": "11111111-5699", "name": "", "network_id": "n", "cidr": "192.0.2.0/24", "gateway_ip": null,
            "allocation_pools": [{"start": "192.0.2.1", "end": "192.0.2.9"}, {"start": "192.0.2.20", "end": "192.0.2.29"}],
        });
        assert_eq!(
            printed(&SUBNET, &[subnet], &labels(&[("n", "blue")]), Width::Narrow),
            "ID        NAME  NETWORK  CIDR          GATEWAY  POOLS\n\
             11111111  -     blue     192.0.2.0/24  -        192.0.2.1-192.0.2.9, 192.0.2.20-192.0.2.29\n"
        );
    }
}
