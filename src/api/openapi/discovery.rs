//! What clients of Neutron ask before they start.

use serde_json::json;

use super::entry::Entry;
use super::lists;
use super::schema::{Record, empty_list, list};
use crate::api::dialect::NETWORK;
use crate::api::status::RequestStep::{Extension, Query, SubnetPool};
use crate::api::{absent, extensions, quotas};

const TAG: &str = "discovery";

fn entry(id: &'static str, summary: &'static str) -> Entry {
    Entry::new(NETWORK, TAG, id, summary)
}

pub(in crate::api) fn extensions() -> Entry {
    entry("network_extensions", "The network API's extensions")
        .about("Exactly those of which the attributes or routes are there.")
        .answers(
            200,
            "All of them.",
            Record::wrapping("extensions", "The extensions.", list(extensions::Shown::shape())),
            json!({"extensions": extensions::all()}),
        )
}

pub(in crate::api) fn extension() -> Entry {
    let example = extensions::all().into_iter().next().unwrap_or_default();
    entry("network_extension", "An extension of the network API").does(&[Extension]).answers(
        200,
        "The extension.",
        Record::wrapping("extension", "The extension.", extensions::Shown::shape()),
        json!({"extension": example}),
    )
}

pub(in crate::api) fn quotas() -> Entry {
    entry("list_quotas", "Projects whose quotas differ from the default").answers(
        200,
        "None.",
        Record::wrapping("quotas", "Always empty.", empty_list()),
        json!({"quotas": []}),
    )
}

pub(in crate::api) fn quota() -> Entry {
    unlimited(entry("show_quota", "How many things a project may have"))
}

pub(in crate::api) fn default_quota() -> Entry {
    unlimited(entry("show_default_quota", "How many things a project may have unless it is said otherwise"))
}

fn unlimited(entry: Entry) -> Entry {
    let shape = Record::wrapping("quota", "The most of each kind.", quotas::shape());
    entry.answers(200, "Any number of each kind.", shape, json!({"quota": quotas::of_project()}))
}

pub(in crate::api) fn pools() -> Entry {
    none(entry("list_subnetpools", "Subnet pools: there are none"), "subnetpools", absent::OF_POOLS)
}

pub(in crate::api) fn pool() -> Entry {
    entry("show_subnetpool", "A subnet pool: there are none").does(&[SubnetPool])
}

pub(in crate::api) fn zones() -> Entry {
    none(entry("list_availability_zones", "Availability zones: there are none"), "availability_zones", absent::OF_ZONES)
}

fn none(entry: Entry, collection: &'static str, known: &[&str]) -> Entry {
    let mut example = serde_json::Map::new();
    example.insert(collection.to_owned(), json!([]));
    let shape = Record::wrapping(collection, "Always empty.", empty_list());
    lists::listing(entry.does(&[Query]), known).answers(200, "None.", shape, example.into())
}
