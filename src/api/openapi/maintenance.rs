//! The agent's maintenance operations.

use serde_json::json;

use super::agent::entry;
use super::entry::Entry;
use super::samples;
use super::schema::{
    Record, Shape, any_uuid, anything, count, either, like, list, map, named, one_of_words, only, or_null, truth, words,
};
use crate::api::status::RequestStep::{Attach, Host, NovaAttach, Port, Server, Write};

pub(in crate::api) fn plan() -> Entry {
    let attach = json!({"server_id": samples::server_id(), "interfaceAttachment": {"net_id": samples::network_id()}});
    let detach = json!({"detach": samples::port().port.id.to_string()});
    entry("plan", "What an attach or a detach would do")
        .about(
            "The steps in their order, each with what would undo it. A deferred step follows the answer, and is merged with the \
             deletions of other devices. Nothing is changed, reserved or told of.",
        )
        .does(&[Write, Server, Port, NovaAttach, Attach])
        .body(named("DryRun"), &[("attach", attach), ("detach", detach)])
        .answers(200, "The plan.", Record::wrapping("plan", "The plan.", named("Plan")), json!({"plan": samples::plan()}))
}

pub(in crate::api) fn verify() -> Entry {
    let example = serde_json::to_value(samples::verified()).unwrap_or_default();
    entry("verify", "What differs between the records and the kernel")
        .about("On a fresh dump and a fresh reading of the store. Ports with an operation in progress are left out, and counted.")
        .does(&[Host])
        .answers(200, "Every deviation, and how much was compared.", named("Verified"), example)
}

pub(in crate::api) fn gc() -> Entry {
    let example = serde_json::to_value(samples::collected()).unwrap_or_default();
    entry("collect_leftovers", "List or remove what is left over")
        .about(
            "Links that nicd made and no record wants. Links of others never appear; what a nicd with another store made \
             appears when `store` names that store: it is the first id in the links' aliases. Unless they are removed, `plan` has \
             the steps that would remove them.",
        )
        .does(&[Write, Host])
        .may_have_body(
            Record::new().may("apply", "Whether they are removed; false when left out.", truth()).may("store", "The id of the store whose leftovers are meant; this daemon's when left out.", any_uuid()),
            &[
                ("list", json!({"apply": false})),
                ("remove", json!({"apply": true})),
                ("of_another_store", json!({"apply": true, "store": samples::network_id()})),
            ],
        )
        .answers(200, "What there is, and what was removed.", named("Collected"), example)
}

pub(super) fn schemas() -> Vec<(&'static str, Shape)> {
    vec![
        ("DryRun", dry_run()),
        ("Plan", plan_shown()),
        ("Verified", verified()),
        ("Leftover", leftover()),
        ("Collected", collected()),
    ]
}

fn dry_run() -> Shape {
    let attach = Record::new().must("server_id", "The server.", any_uuid()).must(
        "interfaceAttachment",
        "The interface that it would get.",
        named("NewInterfaceAttachment"),
    );
    let detach = Record::new().must("detach", "The port that would be detached.", any_uuid());
    either([attach.into(), detach.into()])
}

fn plan_shown() -> Shape {
    let op = || map(anything());
    let step = Record::new()
        .must("op", "The operation, by its name, with what it is applied to.", op())
        .must("undo", "The operation that undoes it; null: nothing has to be undone.", or_null(op()))
        .may("stage", "A deferred step follows the answer.", only("deferred"));
    Record::new().must("reason", "Why the plan was made.", only("dry_run")).must("steps", "In their order.", list(step)).into()
}

fn verified() -> Shape {
    let deviation = Record::new()
        .must("kind", "A stable word for the deviation.", like("^[a-z_]+$"))
        .must("object", "What deviates.", words())
        .must("want", "What the record says.", words())
        .must("have", "What the kernel has.", words());
    Record::new()
        .must("deviations", "What differs.", list(deviation))
        .must("checked", "How many of each kind of thing were compared.", map(count()))
        .into()
}

fn collected() -> Shape {
    let leftovers = || list(named("Leftover"));
    Record::new()
        .must("leftovers", "Devices of nicd's that no record wants.", leftovers())
        .must("removed", "Those that were removed.", leftovers())
        .may("plan", "What would remove them, unless they were removed.", named("Plan"))
        .into()
}

fn leftover() -> Shape {
    Record::new()
        .must("object", "The device.", words())
        .must("kind", "What kind of device it is.", one_of_words(["tap", "veth", "bridge"]))
        .must("reason", "Why it is left over.", one_of_words(["device_without_record", "mark_lost"]))
        .must("altname", "Its altname, which names its port or network; null: none.", or_null(words()))
        .must("alias", "Its alias, which names its store; null: none.", or_null(words()))
        .into()
}
