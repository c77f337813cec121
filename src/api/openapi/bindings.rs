//! Neutron's bindings of a port.

use serde_json::{Value, json};

use super::entry::Entry;
use super::samples;
use super::schema::{Record, Shape, list};
use crate::api::bindings::{Shown, wanted};
use crate::api::dialect::NETWORK;
use crate::api::ports::vif;
use crate::api::status::RequestStep::{DropBinding, Fleet, FleetHost, MovePort, NewBinding, Path, Port, PortBinding, Write};

const TAG: &str = "ports";

pub(in crate::api) fn list_all() -> Entry {
    let shape = Record::wrapping("bindings", "The bindings.", list(Shown::shape()));
    entry("list_bindings", "A port's bindings")
        .about("The active one, and those of hosts of the fleet that have silent devices for it.")
        .does(&[Port, Fleet])
        .answers(200, "The bindings.", shape, json!({"bindings": [sample()]}))
}

pub(in crate::api) fn show() -> Entry {
    entry("show_binding", "A port's binding on a host").does(&[Path, Port, Fleet, PortBinding]).answers(
        200,
        "The binding.",
        one(),
        json!({"binding": sample()}),
    )
}

pub(in crate::api) fn create() -> Entry {
    entry("create_binding", "Build a silent device for a port on another host")
        .about(
            "The device is as it will be, down and in no bridge: it sends no frame, and nothing leads to it. The port's server is made known \
             to that host as it is here, unless it knows it.",
        )
        .does(&[Write, Port, Fleet, FleetHost, NewBinding])
        .once()
        .body(Record::wrapping("binding", "The binding.", wanted()), &[("host", json!({"binding": {"host": "host-b"}}))])
        .answers(201, "The device is there.", one(), json!({"binding": sample()}))
}

pub(in crate::api) fn activate() -> Entry {
    entry("activate_binding", "Make a port active on another host")
        .about(
            "In one step, of which nothing is left half done whatever dies: the device here is silent from then on, and the one there is put \
             into its bridge and announced.",
        )
        .does(&[Write, Path, Port, Fleet, MovePort])
        .answers(200, "The binding, which is active.", one(), json!({"binding": sample()}))
}

pub(in crate::api) fn delete() -> Entry {
    entry("delete_binding", "Remove a silent device of a port")
        .about("And the server's registration on that host with the last of its NICs.")
        .does(&[Write, Path, Port, Fleet, FleetHost, DropBinding])
        .answers_nothing(204, "It is gone, or going.")
}

fn one() -> Shape {
    Record::wrapping("binding", "The binding.", Shown::shape())
}

fn sample() -> Value {
    let port = samples::port();
    Shown::of(&port, vif(&port))
}

fn entry(id: &'static str, summary: &'static str) -> Entry {
    Entry::new(NETWORK, TAG, id, summary)
}
