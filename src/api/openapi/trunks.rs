//! Neutron's trunks.

use serde_json::{Value, json};

use super::entry::Entry;
use super::networks::{bulk, made};
use super::schema::{Record, Shape, any_number, any_truth, any_uuid, anything, list, named, one_of_words, or_null, text};
use super::{lists, samples};
use crate::api::agent::NAME;
use crate::api::dialect::NETWORK;
use crate::api::resource::Resource;
use crate::api::status::RequestStep::{DropTrunk, LeaveTrunk, NewTrunk, Query, SubPorts, Trunk, Write};
use crate::api::trunks::{INHERIT, SUB_PORTS, Shown, ShownSubPort, VLAN};
use crate::model::trunk::VLAN_IDS;
use crate::service::TrunkView;

const TAG: &str = "trunks";

pub(in crate::api) fn list_all() -> Entry {
    let entry = entry("list_trunks", "Trunks").does(&[Query]);
    let example = json!({"trunks": [samples::trunk().shown()]});
    lists::listing(entry, TrunkView::KNOWN).answers(200, "Those that fit.", lists::page("trunks", Shown::shape().cut()), example)
}

pub(in crate::api) fn show() -> Entry {
    let entry = entry("show_trunk", "A trunk").does(&[Query, Trunk]);
    lists::fields(entry).answers(200, "The trunk.", Record::wrapping("trunk", "The trunk.", Shown::shape().cut()), example())
}

pub(in crate::api) fn create() -> Entry {
    let parent = "ce531f90-199f-48c0-816c-13e38010b442";
    let plain = json!({"trunk": {"port_id": parent, "name": "router"}});
    let with = json!({"trunk": {"port_id": parent, "sub_ports": [sub_port()]}});
    entry("create_trunks", "Make a trunk, or several")
        .about(
            "The parent's NIC carries its subports' frames, each with the tag of a VLAN, and its own without one. The parent may have a \
             server, now or later; its subports are then given to it as well, and taken from it with the parent.",
        )
        .does(&[Write, NewTrunk, SubPorts])
        .once()
        .body(bulk("trunk", "trunks", "NewTrunk"), &[("empty", plain), ("with_a_subport", with)])
        .answers(201, "As asked: one, or a list.", made("trunk", "trunks", "Trunk"), example())
}

pub(in crate::api) fn update() -> Entry {
    entry("update_trunk", "Change a trunk")
        .does(&[Write, Trunk])
        .if_match()
        .body(
            Record::wrapping("trunk", "The trunk.", named("TrunkChange")),
            &[("down", json!({"trunk": {"admin_state_up": false}}))],
        )
        .answers(200, "The trunk as it is now.", Record::wrapping("trunk", "The trunk.", named("Trunk")), example())
}

pub(in crate::api) fn delete() -> Entry {
    entry("delete_trunk", "Remove a trunk; its ports stay")
        .does(&[Write, Trunk, DropTrunk])
        .if_match()
        .answers_nothing(204, "It is gone.")
}

pub(in crate::api) fn sub_ports() -> Entry {
    entry("list_subports", "A trunk's subports").does(&[Query, Trunk]).answers(
        200,
        "All of them.",
        Record::wrapping("sub_ports", "The subports.", list(ShownSubPort::shape())),
        json!({"sub_ports": [sub_port()]}),
    )
}

pub(in crate::api) fn add() -> Entry {
    let new = list(named("NewSubPort")).max_items(Some(SUB_PORTS));
    entry("add_subports", "Add subports to a trunk, all or none")
        .does(&[Write, Trunk, SubPorts])
        .if_match()
        .body(Record::wrapping("sub_ports", "The ports.", or_null(new)), &[("vlan", json!({"sub_ports": [sub_port()]}))])
        .answers(200, "The trunk as it is now.", named("Trunk"), samples::trunk().shown())
}

pub(in crate::api) fn remove() -> Entry {
    let gone = Record::new()
        .must("port_id", "The port.", any_uuid())
        .may("segmentation_type", "Does not matter.", anything())
        .may("segmentation_id", "Does not matter.", anything());
    entry("remove_subports", "Take subports from a trunk, all or none; the ports stay")
        .does(&[Write, Trunk, LeaveTrunk])
        .if_match()
        .body(
            Record::wrapping("sub_ports", "The ports.", list(gone).max_items(Some(SUB_PORTS))),
            &[("one", json!({"sub_ports": [{"port_id": sub_port()["port_id"]}]}))],
        )
        .answers(200, "The trunk as it is now.", named("Trunk"), samples::trunk().shown())
}

fn entry(id: &'static str, summary: &'static str) -> Entry {
    Entry::new(NETWORK, TAG, id, summary)
}

fn example() -> Value {
    json!({"trunk": samples::trunk().shown()})
}

fn sub_port() -> Value {
    samples::trunk().trunk.sub_ports.first().map_or(Value::Null, ShownSubPort::of)
}

pub(super) fn schemas() -> Vec<(&'static str, Shape)> {
    let new = Record::new()
        .may("id", "Its id, for a control plane that has ids of its own; a fresh one when left out.", any_uuid())
        .must("port_id", "The parent: a port that is in no trunk.", any_uuid())
        .may("tenant_id", "The same as `project_id`.", text(NAME))
        .may("project_id", "The project; nicd only stores it.", text(NAME))
        .may("sub_ports", "Its subports; null: none.", or_null(list(named("NewSubPort")).max_items(Some(SUB_PORTS))));
    let ids = u32::from(*VLAN_IDS.start())..=u32::from(*VLAN_IDS.end());
    let sub_port = Record::new()
        .must("port_id", "A port without a server that is in no trunk.", any_uuid())
        .must(
            "segmentation_type",
            "`vlan`: its frames have the tag of `segmentation_id`; `inherit`: that of its network's VLAN.",
            one_of_words([VLAN, INHERIT]),
        )
        .may("segmentation_id", "The VLAN, which no other subport of the trunk has.", any_number(ids));
    vec![
        ("Trunk", Shown::shape().into()),
        ("NewTrunk", changeable(new).into()),
        ("TrunkChange", changeable(Record::new()).into()),
        ("NewSubPort", sub_port.into()),
    ]
}

/// Attributes that every request may have.
fn changeable(record: Record) -> Record {
    record.may("name", "Its name, which need not be unique.", text(NAME)).may("description", "Free text.", text(NAME)).may(
        "admin_state_up",
        "Whether its subports are to carry traffic; of a trunk that is down no subport can be added or removed.",
        any_truth(),
    )
}
