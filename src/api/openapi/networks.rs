//! Neutron's networks.

use serde_json::{Value, json};

use super::entry::Entry;
use super::schema::{
    Record, Shape, any_number, any_truth, any_uuid, either, link, list, named, one_of_words, only_truth, or_null, text, words,
};
use super::{lists, samples};
use crate::api::agent::NAME;
use crate::api::dialect::NETWORK;
use crate::api::fields::BULK;
use crate::api::networks::Shown;
use crate::api::resource::Resource;
use crate::api::status::RequestStep::{ChangeNetwork, DropNetwork, Network, NewNetwork, Query, Write};
use crate::model::network::{MAX_MTU, MIN_MTU};
use crate::model::segment::VNIS;
use crate::service::NetworkView;

const TAG: &str = "networks";

pub(in crate::api) fn list_all() -> Entry {
    let entry = entry("list_networks", "Networks").does(&[Query]);
    let example = json!({"networks": [samples::network().shown()]});
    lists::listing(entry, NetworkView::KNOWN).answers(
        200,
        "Those that fit.",
        lists::page("networks", Shown::shape().cut()),
        example,
    )
}

pub(in crate::api) fn show() -> Entry {
    let entry = entry("show_network", "A network").does(&[Query, Network]);
    lists::fields(entry).answers(
        200,
        "The network.",
        Record::wrapping("network", "The network.", Shown::shape().cut()),
        example(),
    )
}

pub(in crate::api) fn create() -> Entry {
    let one = json!({"network": {"name": "blue", "mtu": 1500}});
    let many = json!({"networks": [{"name": "blue"}, {"name": "green", "provider:network_type": "local"}]});
    entry("create_networks", "Make a network, or several")
        .about(
            "All of them or none. The bridge is made with a network's first port, unless `nicd:bridge` names one that is there.",
        )
        .does(&[Write, NewNetwork])
        .once()
        .body(bulk("network", "networks", "NewNetwork"), &[("one", one), ("several", many)])
        .answers(201, "As asked: one, or a list.", made("network", "networks", "Network"), example())
}

pub(in crate::api) fn update() -> Entry {
    entry("update_network", "Change a network")
        .about("With `mtu` or `nicd:isolated` its ports follow. `port_security_enabled` is for ports made from then on.")
        .does(&[Write, Network, ChangeNetwork])
        .if_match()
        .body(
            Record::wrapping("network", "The network.", named("NetworkChange")),
            &[("name", json!({"network": {"name": "green"}}))],
        )
        .answers(200, "The network as it is now.", Record::wrapping("network", "The network.", named("Network")), example())
}

pub(in crate::api) fn delete() -> Entry {
    entry("delete_network", "Remove a network without ports, with its subnets and the bridge that nicd made")
        .does(&[Write, Network, DropNetwork])
        .if_match()
        .answers_nothing(204, "It is gone.")
}

fn entry(id: &'static str, summary: &'static str) -> Entry {
    Entry::new(NETWORK, TAG, id, summary)
}

fn example() -> Value {
    json!({"network": samples::network().shown()})
}

/// One object in its envelope, or several in theirs.
pub(super) fn bulk(one: &str, many: &str, new: &str) -> Shape {
    let several = list(named(new)).min_items(Some(1)).max_items(Some(BULK));
    either([Record::wrapping(one, "What to make.", named(new)), Record::wrapping(many, "What to make: all or nothing.", several)])
}

/// What was created, in the envelope of the request.
pub(super) fn made(one: &str, many: &str, shown: &str) -> Shape {
    either([Record::wrapping(one, "What was made.", named(shown)), Record::wrapping(many, "What was made.", list(named(shown)))])
}

pub(super) fn schemas() -> Vec<(&'static str, Shape)> {
    let new = Record::new()
        .may("id", "Its id, for a control plane that has ids of its own; a fresh one when left out.", any_uuid())
        .may("tenant_id", "The same as `project_id`.", text(NAME))
        .may("project_id", "The project; nicd only stores it.", text(NAME))
        .may("nicd:bridge", "An existing bridge to use, which nicd does not change; nicd makes one when null or left out.", or_null(link()))
        .may("provider:network_type", "`vlan`: a VLAN of a physical network; `flat`: untagged on one; `vxlan`: tunnels between the hosts of a fleet; `local`: without an uplink; when left out, `flat` with a bridge or a physical network.", one_of_words(["local", "flat", "vlan", "vxlan"]))
        .may("provider:physical_network", "Its physical network, by its name in `[physical_networks]`; with `nicd:bridge` by any name.", or_null(words().max_length(Some(NAME))))
        .may("provider:segmentation_id", "The VLAN of a vlan network, 1 to 4094, or the VXLAN network identifier of a vxlan network; a free one of `[segments]` when null or left out.", or_null(any_number(VNIS)))
        .may("nicd:scope", "`fleet`: all hosts of the fleet have it; `host`: this host alone; when left out, `fleet` in a fleet.", one_of_words(["host", "fleet"]));
    vec![
        ("Network", Shown::shape().into()),
        ("NewNetwork", changeable(new).into()),
        ("NetworkChange", changeable(Record::new()).into()),
    ]
}

/// Attributes that every request may have, and attributes with only one supported value.
fn changeable(record: Record) -> Record {
    record
        .may("name", "Its name, which need not be unique.", text(NAME))
        .may("description", "Free text.", text(NAME))
        .may("mtu", "The MTU of its guests; the bridge's when left out.", any_number(MIN_MTU..=MAX_MTU))
        .may("admin_state_up", "Always true.", only_truth(true))
        .may("shared", "Always false.", only_truth(false))
        .may("router:external", "Always false.", only_truth(false))
        .may("port_security_enabled", "Whether ports that are made from now on are filtered.", any_truth())
        .may(
            "nicd:isolated",
            "Whether its ports are sent only what is for them, ARP, neighbour discovery, router advertisements and DHCP.",
            any_truth(),
        )
}
