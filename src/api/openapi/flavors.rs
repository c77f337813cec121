//! Nova's flavors, of which there is one.

use serde_json::{Value, json};

use super::entry::Entry;
use super::lists;
use super::schema::{Record, Shape, empty_map, fraction, named, null, only, truth};
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
        Record::wrapping("flavor", "The flavor.", named("Flavor")),
        json!({ "flavor": detail() }),
    )
}

pub(in crate::api) fn extra_specs() -> Entry {
    entry("flavor_extra_specs", "A flavor's extra specs: none").does(&[Flavor]).answers(
        200,
        "None.",
        Record::wrapping("extra_specs", "Always empty.", empty_map()),
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
    let record = Record::new().must("id", "The flavor's id.", only(ID)).must("name", "Its name.", only(ID)).must(
        "links",
        "Where it is.",
        links_shape(),
    );
    record.may("description", "Always null. From 2.55.", null())
}

pub(super) fn schemas() -> Vec<(&'static str, Shape)> {
    let whole = brief()
        .must("vcpus", "Always 0.", only(0))
        .must("ram", "Always 0.", only(0))
        .must("disk", "Always 0.", only(0))
        .must("swap", "Always empty.", only(""))
        .must("rxtx_factor", "Always 1.", fraction())
        .must("OS-FLV-EXT-DATA:ephemeral", "Always 0.", only(0))
        .must("OS-FLV-DISABLED:disabled", "Always false.", truth())
        .must("os-flavor-access:is_public", "Always true.", truth())
        .may("extra_specs", "Always empty. From 2.61.", empty_map());
    vec![("Flavor", whole.into())]
}
