//! OTC's own operations.

use serde_json::json;

use super::entry::Entry;
use super::samples;
use super::schema::{Record, Shape, any_truth, any_uuid, ip, like, list, named, null, only_truth, or_null};
use crate::api::dialect::OTC;
use crate::api::otc;
use crate::api::ports::ENTRIES;
use crate::api::status::RequestStep::{Attach, InGroups, Job, NovaAttach, PortOfServer, Server, Write};

const TAG: &str = "jobs";

pub(in crate::api) fn add() -> Entry {
    let group = Record::new().must("id", "The group's id.", any_uuid());
    let nic = Record::new()
        .may("subnet_id", "The network of a new port, as OTC calls it. Not with `port_id`.", any_uuid())
        .may("port_id", "An existing port. Not with `subnet_id`.", any_uuid())
        .may("ip_address", "The new port's address; one of each family that the network has when left out.", ip())
        .may("ipv6_enable", "Whether the NIC gets an IPv6 address; it does where its network has an IPv6 subnet.", any_truth())
        .may(
            "security_groups",
            "The new port's security groups; null: none; its project's `default` group, where the configuration asks for one, when left \
             out. Not with `port_id`.",
            or_null(list(group).max_items(Some(ENTRIES))),
        )
        .may("ipv6_bandwidth", "Only null.", null())
        .may("efi_enable", "Only false.", only_truth(false));
    let body = json!({"nics": [
        {"subnet_id": "3cb9bc59-5699-4588-a4b1-b87f96708bc6", "ip_address": "10.0.0.2",
            "security_groups": [{"id": "85cc3048-abc3-43cc-89b3-377341426ac5"}]},
        {"port_id": "ce531f90-199f-48c0-816c-13e38010b442"},
    ]});
    job_entry("add_nics", "Give a server NICs by a job")
        .about("The NICs are attached one after the other once the job is accepted; a job that was accepted survives a restart.")
        .does(&[NovaAttach, Attach, InGroups])
        .body(nics(nic), &[("two_nics", body)])
}

pub(in crate::api) fn delete() -> Entry {
    let nic = Record::new().must("id", "The port's id.", any_uuid());
    job_entry("delete_nics", "Take NICs from a server by a job")
        .about("The NICs are detached one after the other once the job is accepted; a job that was accepted survives a restart.")
        .does(&[PortOfServer])
        .body(nics(nic), &[("one_nic", json!({"nics": [{"id": "ce531f90-199f-48c0-816c-13e38010b442"}]}))])
}

pub(in crate::api) fn list_interfaces() -> Entry {
    Entry::new(OTC, TAG, "list_nics", "A server's NICs, and how many it may have more").does(&[Server]).answers(
        200,
        "All of them, also those on their way out.",
        Record::new().must("attachableQuantity", "What the server may have more.", otc::Quantity::shape()).must(
            "interfaceAttachments",
            "The NICs.",
            list(otc::interface_shape()),
        ),
        otc::listing(&[samples::port()], 11),
    )
}

pub(in crate::api) fn job() -> Entry {
    Entry::new(OTC, TAG, "show_job", "A job")
        .about("An ended job is kept for a day; of more than 1024, the oldest are dropped earlier.")
        .does(&[Job])
        .answers(200, "The job.", named("Job"), otc::Shown::of(&samples::job()))
}

/// A request that a job is the answer to.
fn job_entry(id: &'static str, summary: &'static str) -> Entry {
    let answer = Record::wrapping("job_id", "The job's id.", like("^[0-9a-f]{32}$"));
    let accepted = otc::accepted(samples::job().id);
    Entry::new(OTC, TAG, id, summary).does(&[Write, Server]).once().answers(
        200,
        "The job is accepted and durable.",
        answer,
        accepted,
    )
}

fn nics(nic: Record) -> Shape {
    Record::wrapping("nics", "The NICs.", list(nic).min_items(Some(1)).max_items(Some(64)))
}

pub(super) fn schemas() -> Vec<(&'static str, Shape)> {
    vec![("Job", otc::Shown::shape().into())]
}
