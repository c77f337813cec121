//! Nova's flavors, of which there is one.

use serde_json::{Value, json};

use super::entry::Entry;
use super::lists;
use super::schema::{Record, Shape, empty_map, fraction, named, null, only, or_null, truth};
use crate::api::dialect::COMPUTE;
use crate::api::flavors::{self, ID};
use crate::api::microversion::Microversion;
use crate::api::status::RequestStep::{Flavor, Query, Version};
use crate::api::versions::links_shape;

const TAG: &str = "compute";

/// Where the examples' flavors are.
const FLAVORS: &str = "http://localhost/v2.1/flavors";

pub(in crate::api) fn list_all() -> Entry {
    let example = json!({"flavors": [flavors::brief(FLAVORS, Microversion::MIN)]});
    let entry = lists::paged(entry("list_flavors", "Flavors: the one that every server has").does(&[Query]));
    entry.answers(200, "The one.", lists::page("flavors", brief()), example)
}

pub(in crate::api) fn details() -> Entry {
    let entry = lists::paged(entry("detail_flavors", "Flavors, in detail").does(&[Query]));
    entry.answers(200, "The one.", lists::page("flavors", named("Flavor")), json!({ "flavors": [detail()] }))
}

pub(in crate::api) fn show() -> Entry {
    entry("show_flavor", "A flavor").does(&[Flavor]).answers(
        200,
        "The flavor.",
        Record::wrapping("flavor", named("Flavor")),
        json!({ "flavor": detail() }),
    )
}

pub(in crate::api) fn extra_specs() -> Entry {
    entry("flavor_extra_specs", "A flavor's extra specs: none").does(&[Flavor]).answers(
        200,
        "None.",
        Record::wrapping("extra_specs", empty_map()),
        json!({"extra_specs": {}}),
    )
}

fn entry(id: &'static str, summary: &'static str) -> Entry {
    Entry::new(COMPUTE, TAG, id, summary).does(&[Version])
}

fn detail() -> Value {
    flavors::detail(FLAVORS, Microversion::MIN)
}

fn brief() -> Record {
    let record = Record::new().must("id", only(ID)).must("name", only(ID)).must("links", links_shape());
    record.may("description", or_null(null().description(Some("From 2.55."))))
}

pub(super) fn schemas() -> Vec<(&'static str, Shape)> {
    let whole = brief()
        .must("vcpus", only(0))
        .must("ram", only(0))
        .must("disk", only(0))
        .must("swap", only(""))
        .must("rxtx_factor", fraction())
        .must("OS-FLV-EXT-DATA:ephemeral", only(0))
        .must("OS-FLV-DISABLED:disabled", truth())
        .must("os-flavor-access:is_public", truth())
        .may("extra_specs", empty_map().description(Some("From 2.61.")));
    vec![("Flavor", whole.into())]
}
