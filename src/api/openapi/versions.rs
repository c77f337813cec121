//! The version documents.

use serde_json::json;

use super::entry::Entry;
use super::schema::{Record, list, words};
use crate::api::dialect::{COMPUTE, NETWORK};
use crate::api::versions;

const TAG: &str = "versions";

pub(in crate::api) fn all() -> Entry {
    Entry::new(COMPUTE, TAG, "versions", "The compute API's versions").answers(
        200,
        "All versions.",
        Record::wrapping("versions", "The versions.", list(versions::Version::shape())),
        json!({"versions": [versions::v2_of("http://localhost"), versions::v21_of("http://localhost")]}),
    )
}

pub(in crate::api) fn v2() -> Entry {
    let example = json!({"version": versions::whole(versions::v2_of("http://localhost"))});
    let shape = Record::wrapping("version", "The version.", whole());
    Entry::new(COMPUTE, TAG, "version_2", "The compute API's version 2.0").answers(200, "This version.", shape, example)
}

pub(in crate::api) fn v21() -> Entry {
    let example = json!({"version": versions::whole(versions::v21_of("http://localhost"))});
    let shape = Record::wrapping("version", "The version.", whole());
    Entry::new(COMPUTE, TAG, "version_21", "The compute API's version 2.1 and its microversions").answers(
        200,
        "This version.",
        shape,
        example,
    )
}

pub(in crate::api) fn network() -> Entry {
    Entry::new(NETWORK, TAG, "network_resources", "The network API's resources and its version").answers(
        200,
        "What there is.",
        Record::new().must("resources", "The kinds of things.", list(versions::Resource::shape())).must(
            "version",
            "The version.",
            versions::NetworkVersion::shape(),
        ),
        versions::resources_of("http://localhost"),
    )
}

/// A version in its own document.
fn whole() -> Record {
    versions::Version::shape().must(
        "media-types",
        "The media types of its bodies.",
        list(Record::new().must("base", "The format.", words()).must("type", "The media type.", words())),
    )
}
