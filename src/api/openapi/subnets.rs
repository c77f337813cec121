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
    lists::fields(entry).answers(200, "The subnet.", Record::wrapping("subnet", Shown::shape().cut()), example())
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
        .body(Record::wrapping("subnet", named("SubnetChange")), &[("resolver", resolver)])
        .answers(200, "The subnet as it is now.", Record::wrapping("subnet", named("Subnet")), example())
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
        .may("id", any_uuid())
        .must("network_id", any_uuid())
        .must("cidr", like("^[0-9a-fA-F:.]+/[0-9.]+$").description(Some("An IPv4 or IPv6 range such as 192.168.1.0/24.")))
        .may("ip_version", any_number(4..=6))
        .may("tenant_id", text(NAME))
        .may("project_id", text(NAME));
    vec![
        ("Subnet", Shown::shape().into()),
        ("NewSubnet", changeable(new).into()),
        ("SubnetChange", changeable(Record::new()).into()),
    ]
}

/// Attributes that every request may have, and attributes with only one supported value.
fn changeable(record: Record) -> Record {
    let route = Record::new().must("destination", like("^[0-9a-fA-F:.]+(/[0-9.]+)?$")).must("nexthop", ip());
    record
        .may("name", text(NAME))
        .may("description", text(NAME))
        .may("gateway_ip", or_null(ip()))
        .may("allocation_pools", list(Record::new().must("start", ip()).must("end", ip())).max_items(Some(ENTRIES)))
        .may("dns_nameservers", or_null(list(ip()).max_items(Some(ENTRIES))))
        .may("host_routes", or_null(list(route).max_items(Some(ENTRIES))))
        .may("enable_dhcp", any_truth())
        .may("ipv6_address_mode", mode())
        .may("ipv6_ra_mode", mode())
}
