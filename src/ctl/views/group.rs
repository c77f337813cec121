//! Security groups and their rules.

use super::{Column, Look, View, Width, plain};
use crate::ctl::names::Kind;
use crate::ctl::table::Cell;

/// The columns of security groups.
pub static GROUP: View = View {
    refers_to: &[],
    columns: &[
        Column { title: "ID", from: Width::Narrow, cell: |look| look.id("/id") },
        Column { title: "NAME", from: Width::Narrow, cell: |look| look.cell("/name") },
        Column { title: "RULES", from: Width::Narrow, cell: rules },
        Column { title: "DESCRIPTION", from: Width::Narrow, cell: |look| look.cell("/description") },
        Column { title: "PROJECT", from: Width::Wide, cell: |look| look.cell("/project_id") },
    ],
};

/// The columns of rules.
pub static RULE: View = View {
    refers_to: &[("GROUP", Kind::Group), ("REMOTE", Kind::Group)],
    columns: &[
        Column { title: "ID", from: Width::Narrow, cell: |look| look.id("/id") },
        Column { title: "GROUP", from: Width::Narrow, cell: |look| look.reference("/security_group_id") },
        Column { title: "DIRECTION", from: Width::Narrow, cell: |look| look.cell("/direction") },
        Column { title: "ETHERTYPE", from: Width::Narrow, cell: |look| look.cell("/ethertype") },
        Column { title: "PROTOCOL", from: Width::Narrow, cell: protocol },
        Column { title: "PORTS", from: Width::Narrow, cell: ports },
        Column { title: "REMOTE", from: Width::Narrow, cell: remote },
        Column { title: "DESCRIPTION", from: Width::Wide, cell: |look| look.cell("/description") },
    ],
};

/// How many rules there are; shown alone, a group has them below.
fn rules(look: &Look) -> Cell {
    let rules = look.object["security_group_rules"].as_array().map_or(0, Vec::len);
    Cell::new(&rules.to_string())
}

fn protocol(look: &Look) -> Cell {
    match plain(&look.object["protocol"]).as_str() {
        "" => Cell::new("any"),
        protocol => Cell::new(protocol),
    }
}

/// Ports, or ICMP's type and code.
fn ports(look: &Look) -> Cell {
    let icmp = matches!(look.object["protocol"].as_str(), Some("icmp" | "ipv6-icmp" | "1" | "58"));
    let text = match (look.object["port_range_min"].as_u64(), look.object["port_range_max"].as_u64()) {
        (Some(kind), None) => format!("type {kind}"),
        (Some(kind), Some(code)) if icmp => format!("type {kind}, code {code}"),
        (Some(first), Some(last)) if first == last => first.to_string(),
        (Some(first), Some(last)) => format!("{first}-{last}"),
        (None, _) => return look.cell("/port_range_min"),
    };
    Cell::new(&text)
}

fn remote(look: &Look) -> Cell {
    match look.object["remote_group_id"].is_null() {
        true => look.cell("/remote_ip_prefix"),
        false => look.reference("/remote_group_id"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::samples::{labels, printed};
    use super::*;

    #[test]
    fn a_rule_is_shown_in_words() {
        let rule = |protocol: Value, ports: [Value; 2], prefix: Value, group: Value| {
            json!({"id": "11111111-5699", "security_group_id": "w", "direction": "ingress", "ethertype": "IPv4", "protocol": protocol,
                "port_range_min": ports[0], "port_range_max": ports[1], "remote_ip_prefix": prefix, "remote_group_id": group})
        };
        let rules = [
            rule(Value::Null, [Value::Null, Value::Null], Value::Null, Value::Null),
            rule(json!("tcp"), [json!(80), json!(80)], json!("192.0.2.0/24"), Value::Null),
            rule(json!("udp"), [json!(5000), json!(5999)], Value::Null, json!("d")),
            rule(json!("icmp"), [json!(8), Value::Null], Value::Null, Value::Null),
            rule(json!("1"), [json!(3), json!(3)], Value::Null, Value::Null),
        ];
        assert_eq!(
            printed(&RULE, &rules, &labels(&[("w", "web"), ("d", "db")]), Width::Narrow),
            "ID        GROUP  DIRECTION  ETHERTYPE  PROTOCOL  PORTS           REMOTE\n\
             11111111  web    ingress    IPv4       any       -               -\n\
             11111111  web    ingress    IPv4       tcp       80              192.0.2.0/24\n\
             11111111  web    ingress    IPv4       udp       5000-5999       db\n\
             11111111  web    ingress    IPv4       icmp      type 8          -\n\
             11111111  web    ingress    IPv4       1         type 3, code 3  -\n"
        );
    }
}
