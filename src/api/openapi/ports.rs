//! Neutron's ports.

use serde_json::{Value, json};

use super::entry::{Entry, force};
use super::networks::{bulk, made};
use super::schema::{
    Record, Shape, any, any_mac, any_number, any_truth, any_uuid, ip, link, list, named, only, or_null, range, text, words,
};
use super::{lists, samples};
use crate::api::agent::NAME;
use crate::api::dialect::NETWORK;
use crate::api::ports::{DNS_NAME, ENTRIES, OPTION_NAME, OPTION_VALUE, Shown, limits};
use crate::api::resource::Resource;
use crate::api::status::RequestStep::{ChangePort, DropPort, NewPort, Port, Query, Write};
use crate::model::dhcp::EXTRA_OPTIONS;
use crate::service::PortView;

const TAG: &str = "ports";

pub(in crate::api) fn list_all() -> Entry {
    let entry = entry("list_ports", "Ports").does(&[Query]);
    let example = json!({"ports": [samples::port().shown()]});
    lists::listing(entry, PortView::KNOWN).answers(200, "Those that fit.", lists::page("ports", Shown::shape().cut()), example)
}

pub(in crate::api) fn show() -> Entry {
    let entry = entry("show_port", "A port").does(&[Query, Port]);
    lists::fields(entry).answers(200, "The port.", Record::wrapping("port", "The port.", Shown::shape().cut()), example())
}

pub(in crate::api) fn create() -> Entry {
    let network = "3cb9bc59-5699-4588-a4b1-b87f96708bc6";
    let one = json!({"port": {"network_id": network, "name": "front", "fixed_ips": [{"ip_address": "10.0.0.2"}]}});
    let many = json!({"ports": [{"network_id": network}, {"network_id": network, "mac_address": "fa:16:3e:63:75:b2"}]});
    entry("create_ports", "Make a port without a server, or several")
        .about("An attach gives it to a server.")
        .does(&[Write, NewPort])
        .once()
        .body(bulk("port", "ports", "NewPort"), &[("one", one), ("several", many)])
        .answers(201, "As asked: one, or a list.", made("port", "ports", "Port"), json!({"port": samples::unbound().shown()}))
}

pub(in crate::api) fn update() -> Entry {
    entry("update_port", "Change a port")
        .about("A port gets its server by an attach; an empty `device_id` detaches it, and it stays.")
        .does(&[Write, Port, ChangePort])
        .if_match()
        .body(
            Record::wrapping("port", "The port.", named("PortChange")),
            &[
                ("down", json!({"port": {"admin_state_up": false}})),
                ("detach", json!({"port": {"device_id": ""}})),
                ("pair", json!({"port": {"allowed_address_pairs": [{"ip_address": "10.0.0.64/26"}]}})),
                ("limit", json!({"port": {"nicd:limits": {"to_guest": {"rate_kbps": 100_000}}}})),
            ],
        )
        .answers(200, "The port as it is now.", Record::wrapping("port", "The port.", named("Port")), example())
}

pub(in crate::api) fn delete() -> Entry {
    entry("delete_port", "Remove a port, detaching it first")
        .does(&[Write, Query, Port, DropPort])
        .query(force())
        .if_match()
        .answers_nothing(204, "It is gone, or going.")
}

fn entry(id: &'static str, summary: &'static str) -> Entry {
    Entry::new(NETWORK, TAG, id, summary)
}

fn example() -> Value {
    json!({"port": samples::port().shown()})
}

pub(super) fn schemas() -> Vec<(&'static str, Shape)> {
    let new = Record::new()
        .may("id", "Its id, for a control plane that has ids of its own; a fresh one when left out.", any_uuid())
        .must("network_id", "Its network.", any_uuid())
        .may("tenant_id", "The same as `project_id`.", text(NAME))
        .may("project_id", "The project; nicd only stores it.", text(NAME))
        .may("device_id", "Always empty: an attach gives the port to a server.", only(""));
    let change = Record::new().may("device_id", "The one it has, or empty: it is then detached.", text(NAME));
    vec![("Port", Shown::shape().into()), ("NewPort", changeable(new).into()), ("PortChange", changeable(change).into())]
}

/// Attributes that every request may have, and attributes with only one supported value.
fn changeable(record: Record) -> Record {
    record
        .may("name", "Its name, which need not be unique.", text(NAME))
        .may("description", "Free text.", text(NAME))
        .may("admin_state_up", "Whether it is to carry traffic.", any_truth())
        .may(
            "device_owner",
            "What has it, as Neutron's clients expect it: of an attached port `compute:nova` unless set.",
            text(NAME),
        )
        .may("mac_address", "The guest's MAC; chosen by nicd when left out of a new port.", any_mac())
        .may(
            "fixed_ips",
            "Its addresses; one of each family when left out of a new port.",
            list(wanted_ip()).max_items(Some(ENTRIES)),
        )
        .may(
            "binding:profile",
            "What its NIC is built with; null: the defaults.",
            or_null(
                Record::new()
                    .may(
                        "interface_name",
                        "The NIC's name in the guest's namespace; the kernel's choice when null or left out.",
                        or_null(link()),
                    )
                    .may("vnet_hdr", "Whether a VMM opens the tap with IFF_VNET_HDR.", any_truth()),
            ),
        )
        .may("binding:host_id", "This host, empty or null.", or_null(words()))
        .may("port_security_enabled", "Whether what its guest sends is filtered.", any_truth())
        .may(
            "security_groups",
            "The security groups that it is in; null: none; its project's `default` group, where the configuration asks for one, when \
             left out of a new port.",
            or_null(list(any_uuid()).max_items(Some(ENTRIES))),
        )
        .may(
            "allowed_address_pairs",
            "What its guest may send from beside its own MAC and addresses; null: nothing.",
            or_null(list(pair()).max_items(Some(ENTRIES))),
        )
        .may("nicd:limits", "Its rate limits; null: none.", or_null(limits()))
        .may("nicd:unknown_unicast", "Whether frames for MACs that nobody has reach it.", any_truth())
        .may("nicd:isolated", "As the network's, for this port; null: as its network says.", or_null(any_truth()))
        .may("nicd:dhcp", "Whether its guest's DHCP is answered.", any_truth())
        .may("dns_name", "The host name that its guest is told.", text(DNS_NAME))
        .may(
            "extra_dhcp_opts",
            "DHCP options for its guest; null: none.",
            or_null(list(extra_option()).max_items(Some(EXTRA_OPTIONS))),
        )
        .may("binding:vnic_type", "Always normal.", only("normal"))
}

/// An option for the guest; null takes one back that was set.
fn extra_option() -> Record {
    Record::new()
        .must("opt_name", "The option: its number or Neutron's name.", text(OPTION_NAME))
        .must("opt_value", "The value, as text; null takes back one that was set.", or_null(text(OPTION_VALUE)))
        .may("ip_version", "The family of DHCP. 4 when left out.", any_number(4..=6))
}

/// A subnet, an address, or both.
fn wanted_ip() -> Shape {
    let by_subnet = Record::new().must("subnet_id", "The subnet to choose from.", any_uuid()).may(
        "ip_address",
        "The address; chosen by nicd when left out.",
        ip(),
    );
    let by_address =
        Record::new().must("ip_address", "The address.", ip()).may("subnet_id", "The subnet to choose from.", any_uuid());
    any([by_subnet.into(), by_address.into()])
}

/// An address or a range, from the port's MAC or another.
fn pair() -> Record {
    Record::new().must("ip_address", "An address or a range.", any([ip(), range().into()])).may(
        "mac_address",
        "The MAC; the port's own when null or left out.",
        or_null(any_mac()),
    )
}
