//! The version documents.

use serde_json::json;

use super::entry::Entry;
use super::schema::{Record, Shape, empty_list, list, one_of_words, time, words};
use crate::api::dialect::{COMPUTE, NETWORK};
use crate::api::versions;

const TAG: &str = "versions";

pub(in crate::api) fn all() -> Entry {
    Entry::new(COMPUTE, TAG, "versions", "The compute API's versions").answers(
        200,
        "All versions.",
        Record::wrapping("versions", list(version())),
        json!({"versions": [versions::v2_of("http://localhost"), versions::v21_of("http://localhost")]}),
    )
}

pub(in crate::api) fn v2() -> Entry {
    let example = json!({"version": versions::whole(versions::v2_of("http://localhost"))});
    let shape = Record::wrapping("version", whole());
    Entry::new(COMPUTE, TAG, "version_2", "The compute API's version 2.0").answers(200, "This version.", shape, example)
}

pub(in crate::api) fn v21() -> Entry {
    let example = json!({"version": versions::whole(versions::v21_of("http://localhost"))});
    let shape = Record::wrapping("version", whole());
    Entry::new(COMPUTE, TAG, "version_21", "The compute API's version 2.1 and its microversions").answers(
        200,
        "This version.",
        shape,
        example,
    )
}

pub(in crate::api) fn network() -> Entry {
    let resource = Record::new().must("name", words()).must("collection", words()).must("links", links());
    let version = Record::new()
        .must("id", words())
        .must("status", one_of_words(["CURRENT"]))
        .must("updated", time())
        .must("links", links());
    Entry::new(NETWORK, TAG, "network_resources", "The network API's resources and its version").answers(
        200,
        "What there is.",
        Record::new().must("resources", list(resource)).must("version", version),
        versions::resources_of("http://localhost"),
    )
}

pub(in crate::api) fn extensions() -> Entry {
    Entry::new(NETWORK, TAG, "network_extensions", "The network API's extensions: none").answers(
        200,
        "An empty list.",
        Record::wrapping("extensions", empty_list()),
        json!({"extensions": []}),
    )
}

fn version() -> Record {
    Record::new()
        .must("id", words())
        .must("status", one_of_words(["CURRENT", "SUPPORTED"]))
        .must("version", words())
        .must("min_version", words())
        .must("updated", time())
        .must("links", links())
}

/// A version in its own document.
fn whole() -> Record {
    version().must("media-types", list(Record::new().must("base", words()).must("type", words())))
}

/// Links as OpenStack gives them.
pub(super) fn links() -> Shape {
    list(Record::new().must("rel", words()).must("href", words()).may("type", words())).into()
}
