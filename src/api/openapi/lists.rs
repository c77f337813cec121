//! The parameters and answers that all of Neutron's lists share.

use utoipa::openapi::path::ParameterBuilder;

use super::entry::{Entry, parameter};
use super::schema::{Record, Shape, count, like, list, one_of_words, words};
use crate::api::listing::Kind;

/// A list's parameters: filters by each known attribute, and how to sort, cut and page.
pub(super) fn listing(entry: Entry, known: &[&str]) -> Entry {
    let filters = known.iter().map(|name| {
        let values = match Kind::of(name) {
            Kind::Truth => list(like("^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|0|1)$")),
            Kind::Number => list(count()),
            Kind::Addresses => list(like("^(ip_address|subnet_id)=")),
            Kind::Text => list(words()),
        };
        parameter(name, values).description(Some("Only those that have one of these values; `a=x&a=y` for either."))
    });
    let entry = filters.fold(fields(entry), Entry::query);
    let keys = list(one_of_words(known.iter().copied()));
    let directions = list(one_of_words(["asc", "desc"]));
    let entry = entry.query(said("sort_key", keys, "Sort by these, the first first.")).query(said(
        "sort_dir",
        directions,
        "The direction of each sort_key.",
    ));
    paged(entry).query(said("page_reverse", words(), "`True` for what comes before the marker.").example(Some("True".into())))
}

/// Which page of a list.
pub(super) fn paged(entry: Entry) -> Entry {
    entry.query(said("limit", count(), "At most so many; 0 for all.").example(Some(100.into()))).query(said(
        "marker",
        words(),
        "Only what comes after the entry with this id.",
    ))
}

/// `fields`, which also a single object takes.
pub(super) fn fields(entry: Entry) -> Entry {
    entry.query(said("fields", list(words()), "Only these attributes of each object."))
}

/// A page of a list.
pub(super) fn page(collection: &str, of: impl Into<Shape>) -> Shape {
    let link = Record::new().must("rel", "What the link leads to.", one_of_words(["next", "previous"])).must(
        "href",
        "The address.",
        words(),
    );
    let (what, links) = (format!("The {collection} of this page."), format!("{collection}_links"));
    Record::new()
        .must(collection, &what, list(of))
        .may(&links, "The pages beside this one, where there are any.", list(link))
        .into()
}

fn said(name: &str, shape: impl Into<Shape>, what: &str) -> ParameterBuilder {
    parameter(name, shape).description(Some(what))
}
