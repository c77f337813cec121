//! Nova's and OTC's operations.

use serde_json::json;

use super::entry::{Entry, force, parameter};
use super::schema::{Record, Shape, any_uuid, ip, like, list, named, words};
use super::{lists, samples};
use crate::api::dialect::COMPUTE;
use crate::api::microversion::Microversion;
use crate::api::nova;
use crate::api::status::RequestStep::{Attach, NovaAttach, PortOfServer, Query, Server, Version, Write};

const TAG: &str = "compute";

/// Where the examples' servers are.
const SERVERS: &str = "http://localhost/v2.1/servers";

pub(in crate::api) fn servers() -> Entry {
    let example = json!({"servers": [nova::Brief::of(&samples::vm(), SERVERS)]});
    let entry = found(entry("list_servers", "The servers of this host"));
    entry.answers(200, "Those that fit.", lists::page("servers", nova::Brief::shape()), example)
}

pub(in crate::api) fn details() -> Entry {
    let example = json!({"servers": [nova::Detail::of(&samples::vm(), &nics(), SERVERS, Microversion::MIN)]});
    let entry = found(entry("detail_servers", "The servers of this host, in detail"));
    entry.answers(200, "Those that fit.", lists::page("servers", nova::Detail::shape()), example)
}

/// Adds the parameters that select a server.
fn found(entry: Entry) -> Entry {
    let name = "Only those whose name holds this; `^` and `$` tie it to the name's ends.";
    lists::paged(entry.does(&[Query]).query(parameter("name", words()).description(Some(name))))
}

pub(in crate::api) fn server() -> Entry {
    let example = json!({"server": nova::Detail::of(&samples::vm(), &nics(), SERVERS, Microversion::MIN)});
    entry("show_server", "A server").does(&[Server]).answers(
        200,
        "The server.",
        Record::wrapping("server", "The server.", nova::Detail::shape()),
        example,
    )
}

pub(in crate::api) fn list_interfaces() -> Entry {
    let example = json!({"interfaceAttachments": [nova::attachment(&samples::port(), Microversion::MIN)]});
    entry("list_interfaces", "A server's interfaces").does(&[Server]).answers(
        200,
        "All of them, also those on their way out.",
        Record::wrapping("interfaceAttachments", "The interfaces.", list(named("InterfaceAttachment"))),
        example,
    )
}

pub(in crate::api) fn show_interface() -> Entry {
    entry("show_interface", "An interface of a server").does(&[Server, PortOfServer]).answers(
        200,
        "The interface.",
        Record::wrapping("interfaceAttachment", "The interface.", named("InterfaceAttachment")),
        attached(),
    )
}

pub(in crate::api) fn attach() -> Entry {
    let by_network = json!({"interfaceAttachment": {
        "net_id": "3cb9bc59-5699-4588-a4b1-b87f96708bc6",
        "fixed_ips": [{"ip_address": "10.0.0.2"}],
    }});
    let by_port = json!({"interfaceAttachment": {"port_id": "ce531f90-199f-48c0-816c-13e38010b442"}});
    let receipt = parameter("receipt", like("^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|0|1)?$"))
        .description(Some(
            "True adds `nicd:receipt`: each step in the order in which they began, with when it began and how long it took. Steps run \
             beside the commit. An answer that is given again to a key is the first one, with its receipt or without.",
        ))
        .example(Some("true".into()));
    entry("attach_interface", "Give a server an interface")
        .about(
            "By `net_id` (a port is made, and deleted by the detach), by `port_id`, or with neither when there is one network.",
        )
        .does(&[Write, Query, Server, NovaAttach, Attach])
        .query(receipt)
        .once()
        .may_have_body(
            named("AttachInterface"),
            &[("by_network", by_network), ("by_port", by_port), ("on_the_only_network", json!({}))],
        )
        .answers(
            200,
            "Built and durable; the state is the one at that moment.",
            Record::new().must("interfaceAttachment", "The interface.", named("InterfaceAttachment")).may(
                "nicd:receipt",
                "When each step was carried out, with `?receipt=true`.",
                list(nova::Timed::shape()),
            ),
            attached(),
        )
}

pub(in crate::api) fn detach() -> Entry {
    let keep = parameter("reserve_port", like("^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|0|1)?$"))
        .description(Some("True keeps the port, also one that an attach made."))
        .example(Some("True".into()));
    entry("detach_interface", "Take an interface from a server")
        .does(&[Write, Query, Server, PortOfServer])
        .query(keep)
        .query(force())
        .answers_nothing(202, "Traffic is cut and the intent durable; the port is listed until its device is gone.")
}

fn entry(id: &'static str, summary: &'static str) -> Entry {
    Entry::new(COMPUTE, TAG, id, summary).does(&[Version])
}

fn attached() -> serde_json::Value {
    json!({"interfaceAttachment": nova::attachment(&samples::port(), Microversion::MIN)})
}

fn nics() -> Vec<nova::Nic> {
    vec![(samples::network().network.name, samples::port())]
}

pub(super) fn schemas() -> Vec<(&'static str, Shape)> {
    let asked = Record::new()
        .may("net_id", "The network of a new port. Not with `port_id`.", any_uuid())
        .may("port_id", "An existing port. Not with `net_id`.", any_uuid())
        .may(
            "fixed_ips",
            "The new port's address. Only with `net_id`.",
            list(Record::new().must("ip_address", "The address.", ip())).min_items(Some(1)).max_items(Some(1)),
        )
        .may("tag", "A tag of the interface. From 2.49.", like("^[^,/]*$").min_length(Some(1)).max_length(Some(60)));
    vec![
        ("InterfaceAttachment", nova::attachment_shape().into()),
        ("NewInterfaceAttachment", asked.into()),
        (
            "AttachInterface",
            Record::new()
                .may(
                    "interfaceAttachment",
                    "The interface; a new port on the only network when left out.",
                    named("NewInterfaceAttachment"),
                )
                .into(),
        ),
    ]
}
