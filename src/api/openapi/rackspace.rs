//! Rackspace's operations.

use serde_json::{Value, json};

use super::entry::{Entry, force};
use super::samples;
use super::schema::{Record, Shape, any_uuid, list, named};
use crate::api::dialect::RACKSPACE;
use crate::api::rackspace;
use crate::api::status::RequestStep::{Attach, Network, OnePerNetwork, PortOfServer, Query, Server, Write};

const TAG: &str = "virtual interfaces";

pub(in crate::api) fn list_interfaces() -> Entry {
    entry("list_virtual_interfaces", "A server's interfaces").answers(200, "All of them.", interfaces(), example())
}

pub(in crate::api) fn create() -> Entry {
    let body = json!({"virtual_interface": {"network_id": "3cb9bc59-5699-4588-a4b1-b87f96708bc6"}});
    let asked = Record::new().must("network_id", "The network.", any_uuid());
    entry("create_virtual_interface", "Give a server an interface on a network")
        .about("At most one per server and network.")
        .does(&[Write, Attach, OnePerNetwork])
        .once()
        .body(Record::wrapping("virtual_interface", "The interface.", asked), &[("on_a_network", body)])
        .answers(200, "The new one, in a list.", interfaces(), example())
}

pub(in crate::api) fn delete() -> Entry {
    entry("delete_virtual_interface", "Take an interface from a server")
        .does(&[Write, Query, PortOfServer])
        .query(force())
        .answers_nothing(200, "Traffic is cut and the intent durable.")
}

pub(in crate::api) fn list_networks() -> Entry {
    let example = json!({"networks": [shown_network()]});
    Entry::new(RACKSPACE, TAG, "list_rackspace_networks", "Networks, by which clients name one").answers(
        200,
        "All of them.",
        Record::wrapping("networks", "The networks.", list(named("RackspaceNetwork"))),
        example,
    )
}

pub(in crate::api) fn show_network() -> Entry {
    Entry::new(RACKSPACE, TAG, "show_rackspace_network", "A network").does(&[Network]).answers(
        200,
        "The network.",
        Record::wrapping("network", "The network.", named("RackspaceNetwork")),
        json!({"network": shown_network()}),
    )
}

fn shown_network() -> Value {
    rackspace::ranged(&samples::network(), &[samples::subnet()])
}

fn entry(id: &'static str, summary: &'static str) -> Entry {
    Entry::new(RACKSPACE, TAG, id, summary).does(&[Server])
}

fn interfaces() -> Shape {
    Record::wrapping("virtual_interfaces", "The interfaces.", list(named("VirtualInterface")))
}

fn example() -> Value {
    json!({"virtual_interfaces": [rackspace::Labelled::of(&samples::port(), "blue")]})
}

pub(super) fn schemas() -> Vec<(&'static str, Shape)> {
    let (interface, network) = (rackspace::Labelled::shape(), rackspace::ranged_shape());
    vec![("VirtualInterface", interface.into()), ("RackspaceNetwork", network.into())]
}
