//! Neutron's subnets.

use serde_json::{Value, json};

use super::entry::Entry;
use super::networks::{bulk, made};
use super::schema::{Record, Shape, any_number, any_truth, any_uuid, ip, like, list, mode, named, or_null, text};
use super::{lists, samples};
use crate::api::agent::NAME;
use crate::api::dialect::NETWORK;
use crate::api::resource::Resource;
use crate::api::status::RequestStep::{ChangeSubnet, DropSubnet, NewSubnet, Query, Subnet, Write};
use crate::api::subnets::{ENTRIES, Shown};
use crate::model;

const TAG: &str = "subnets";

pub(in crate::api) fn list_all() -> Entry {
    let entry = entry("list_subnets", "Subnets").does(&[Query]);
    let example = json!({"subnets": [samples::subnet().shown()]});
    lists::listing(entry, model::Subnet::KNOWN).answers(
        200,
        "Those that fit.",
        lists::page("subnets", Shown::shape().cut()),
        example,
    )
}

pub(in crate::api) fn show() -> Entry {
    let entry = entry("show_subnet", "A subnet").does(&[Query, Subnet]);
    lists::fields(entry).answers(200, "The subnet.", Record::wrapping("subnet", "The subnet.", Shown::shape().cut()), example())
}

pub(in crate::api) fn create() -> Entry {
    let network = "3cb9bc59-5699-4588-a4b1-b87f96708bc6";
    let pools = json!([{"start": "10.0.0.2", "end": "10.0.0.254"}]);
    let one = json!({"subnet": {"network_id": network, "cidr": "10.0.0.0/24", "allocation_pools": pools}});
    let many = json!({"subnets": [{"network_id": network, "cidr": "fd00:a::/64", "gateway_ip": null}]});
    entry("create_subnets", "Make a subnet, or several")
        .does(&[Write, NewSubnet])
        .once()
        .body(bulk("subnet", "subnets", "NewSubnet"), &[("one", one), ("several", many)])
        .answers(201, "As asked: one, or a list.", made("subnet", "subnets", "Subnet"), example())
}

pub(in crate::api) fn update() -> Entry {
    let resolver = json!({"subnet": {"dns_nameservers": ["10.0.0.53"]}});
    entry("update_subnet", "Change a subnet")
        .does(&[Write, Subnet, ChangeSubnet])
        .if_match()
        .body(Record::wrapping("subnet", "The subnet.", named("SubnetChange")), &[("resolver", resolver)])
        .answers(200, "The subnet as it is now.", Record::wrapping("subnet", "The subnet.", named("Subnet")), example())
}

pub(in crate::api) fn delete() -> Entry {
    entry("delete_subnet", "Remove a subnet of which no port has an address")
        .does(&[Write, Subnet, DropSubnet])
        .if_match()
        .answers_nothing(204, "It is gone.")
}

fn entry(id: &'static str, summary: &'static str) -> Entry {
    Entry::new(NETWORK, TAG, id, summary)
}

fn example() -> Value {
    json!({"subnet": samples::subnet().shown()})
}

pub(super) fn schemas() -> Vec<(&'static str, Shape)> {
    let new = Record::new()
        .may("id", "Its id, for a control plane that has ids of its own; a fresh one when left out.", any_uuid())
        .must("network_id", "Its network.", any_uuid())
        .must("cidr", "Its range, such as 192.168.1.0/24.", like("^[0-9a-fA-F:.]+/[0-9.]+$"))
        .may("ip_version", "The family of its range.", any_number(4..=6))
        .may("tenant_id", "The same as `project_id`.", text(NAME))
        .may("project_id", "The project; nicd only stores it.", text(NAME));
    vec![
        ("Subnet", Shown::shape().into()),
        ("NewSubnet", changeable(new).into()),
        ("SubnetChange", changeable(Record::new()).into()),
    ]
}

/// Attributes that every request may have, and attributes with only one supported value.
fn changeable(record: Record) -> Record {
    let route = Record::new()
        .must("destination", "The range that the route leads to.", like("^[0-9a-fA-F:.]+(/[0-9.]+)?$"))
        .must("nexthop", "The router.", ip());
    record
        .may("name", "Its name, which need not be unique.", text(NAME))
        .may("description", "Free text.", text(NAME))
        .may("gateway_ip", "The guests' router; null: none; the first address when left out of a new subnet.", or_null(ip()))
        .may(
            "allocation_pools",
            "The ranges from which addresses are chosen; all but the gateway when left out of a new subnet.",
            list(Record::new().must("start", "The first address.", ip()).must("end", "The last address.", ip()))
                .max_items(Some(ENTRIES)),
        )
        .may(
            "dns_nameservers",
            "The name servers that guests are told; null: none.",
            or_null(list(ip()).max_items(Some(ENTRIES))),
        )
        .may("host_routes", "The routes that guests are told; null: none.", or_null(list(route).max_items(Some(ENTRIES))))
        .may("enable_dhcp", "Whether nicd answers the guests' DHCP; for IPv6 as the modes say.", any_truth())
        .may("ipv6_address_mode", "How guests get their IPv6 address; null: it is not said.", mode())
        .may(
            "ipv6_ra_mode",
            "What nicd's router advertisements say; null beside an `ipv6_address_mode`: it sends none; with both null and \
             `enable_dhcp` it sends them as with `dhcpv6-stateful`.",
            mode(),
        )
}
