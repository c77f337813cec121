//! The agent's own operations.

use serde_json::json;

use super::entry::{Entry, force, parameter};
use super::samples;
use super::schema::{Record, Shape, count, either, like, list, map, named, number, one_of_words, only, or_null, text, words};
use crate::api::agent::{Counted, Explanation, Lease, NAME, NIC_LIMIT, PATH, SOCKET_PATH, Shown};
use crate::api::dialect::COMPUTE;
use crate::api::status::RequestStep::{DropServer, Fleet, Health, Host, LastEvent, OwnId, Port, PutServer, Query, Server, Write};
use crate::api::stream;
use crate::model::Status;
use crate::model::server::MAX_QUEUES;

const TAG: &str = "agent";

pub(in crate::api) fn servers() -> Entry {
    let example = json!({"servers": [Shown::of(&samples::vm()), Shown::of(&samples::netns())]});
    let scope = parameter("scope", one_of_words(["host", "fleet"]))
        .description(Some("`fleet`: those of all hosts, which is the default; `host`: this host's alone, which need no etcd."));
    entry("list_guests", "The servers nicd knows").does(&[Query, Fleet]).query(scope).answers(
        200,
        "All of them.",
        Record::wrapping("servers", "The servers.", list(named("Server"))),
        example,
    )
}

pub(in crate::api) fn server() -> Entry {
    entry("show_guest", "A server").does(&[Server]).answers(
        200,
        "The server.",
        one(),
        json!({"server": Shown::of(&samples::vm())}),
    )
}

pub(in crate::api) fn put_server() -> Entry {
    let vm = json!({"server": {"name": "web-1", "guest": {"kind": "vm", "queues": 1, "owner": {"uid": 107}}}});
    let netns = json!({"server": {"name": "web-1", "guest": {"kind": "netns", "path": "/run/netns/web-1"}}});
    let same = json!({"server": {"name": "web-1", "nic_limit": 4, "guest": null}});
    entry("put_guest", "Make a server known, or change what is known of it")
        .about("A `guest` of null is the one that the server has, whose namespace is then not looked up again.")
        .does(&[Write, OwnId, Server, PutServer])
        .body(
            Record::wrapping("server", "The server.", named("NewServer")),
            &[("vm", vm), ("netns", netns), ("same_guest", same)],
        )
        .answers(201, "It was not known before.", one(), json!({"server": Shown::of(&samples::vm())}))
        .answers(200, "It is changed.", one(), json!({"server": Shown::of(&samples::netns())}))
}

pub(in crate::api) fn delete_server() -> Entry {
    let detach = parameter("detach", like("^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|0|1)?$"))
        .description(Some("True detaches its interfaces first."))
        .example(Some("true".into()));
    entry("delete_guest", "Forget a server")
        .does(&[Write, Query, Server, DropServer])
        .query(detach)
        .query(force())
        .answers_nothing(204, "It is forgotten.")
}

pub(in crate::api) fn events() -> Entry {
    let last = parameter("Last-Event-ID", like("^[0-9]*$"))
        .description(Some("Go on after this event; one `lost` when it is no longer kept."))
        .example(Some("4711".into()));
    let scope = parameter("scope", one_of_words(["host", "fleet"])).description(Some(
        "`host`: what happens on this host, which is the default; `fleet`: what happens to the ports of all hosts of the fleet, numbered \
         alike at each.",
    ));
    let event = samples::event();
    entry("follow_events", "What happens, as it happens")
        .about("An endless stream. With `Accept: application/x-ndjson` each line is an event's data with its name added; otherwise server-sent events.")
        .does(&[LastEvent, Query, Fleet])
        .header(last)
        .query(scope)
        .answers_as(
            200,
            "Events until one of both leaves.",
            &[
                ("text/event-stream", words().into(), stream::sse(&event).into()),
                ("application/x-ndjson", words().into(), stream::line(&event).into()),
            ],
        )
}

pub(in crate::api) fn health() -> Entry {
    let example = serde_json::to_value(samples::health()).unwrap_or_default();
    entry("health", "How the daemon fares").does(&[Health]).answers(200, "Also when it is degraded.", named("Health"), example)
}

pub(in crate::api) fn explain() -> Entry {
    let example = Explanation::of(&samples::port(), &samples::facts());
    entry("explain_port", "Why a port has the status it has").does(&[Port]).answers(
        200,
        "The facts in the order in which they decide; the first that is not ok is the cause.",
        named("Explanation"),
        example,
    )
}

pub(in crate::api) fn leases() -> Entry {
    let example = json!({"leases": [Lease::of(&samples::exchange())]});
    entry("port_leases", "What a port's guest asked by DHCP, and was told")
        .about("The last exchange since the guest was attached, or since nicd was started; nothing where there was none.")
        .does(&[Port])
        .answers(200, "The leases.", Record::wrapping("leases", "The last lease of each family.", list(named("Lease"))), example)
}

pub(in crate::api) fn counters() -> Entry {
    let example = Counted::of(samples::port().port.id, &samples::counters());
    entry("port_counters", "What passed a port, and what was dropped")
        .about("As the guest sees it. No number falls while the port is attached; without a device all are 0.")
        .does(&[Port, Host])
        .answers(200, "The counters.", named("Counters"), example)
}

pub(in crate::api) fn document() -> Entry {
    this("openapi")
}

pub(in crate::api) fn document_at_root() -> Entry {
    this("openapi_at_root")
}

fn this(id: &'static str) -> Entry {
    entry(id, "This document").answers(200, "OpenAPI 3.1.", map(super::schema::anything()), json!({"openapi": "3.1.0"}))
}

pub(in crate::api) fn metrics() -> Entry {
    numbers("metrics")
}

pub(in crate::api) fn metrics_at_root() -> Entry {
    numbers("metrics_at_root")
}

fn numbers(id: &'static str) -> Entry {
    let example = "# TYPE nicd_ports gauge\nnicd_ports{attached=\"yes\",status=\"ACTIVE\"} 3\n";
    entry(id, "Numbers for Prometheus").about("In its text exposition format 0.0.4.").answers_as(
        200,
        "All families.",
        &[("text/plain", words().into(), example.into())],
    )
}

pub(super) fn entry(id: &'static str, summary: &'static str) -> Entry {
    Entry::new(COMPUTE, TAG, id, summary)
}

fn one() -> Shape {
    Record::wrapping("server", "The server.", named("Server"))
}

pub(super) fn schemas() -> Vec<(&'static str, Shape)> {
    vec![
        ("Server", Shown::shape().into()),
        ("NewServer", new_server()),
        ("Health", health_shown()),
        ("Explanation", Explanation::shape().into()),
        ("Counters", Counted::shape().into()),
        ("Lease", Lease::shape().into()),
    ]
}

fn new_server() -> Shape {
    // The largest number is the kernel's value for "no uid".
    let id = || number(0..=u32::MAX - 1);
    let vm = Record::new()
        .must("kind", "A virtual machine: its NICs are taps.", only("vm"))
        .may("queues", "The queues of its taps.", number(1..=u32::from(MAX_QUEUES)))
        .may(
            "owner",
            "Who may open its taps; root when null or left out.",
            or_null(Record::new().may("uid", "The user.", id()).may("gid", "The group.", id())),
        )
        .may(
            "monitor",
            "How NICs are plugged into it while it runs; null: they are not.",
            or_null(Record::new().must(
                "qmp",
                "The socket on which QEMU serves QMP.",
                text(SOCKET_PATH).pattern(Some("^/[^\\u0000-\\u001f\\u007f-\\u009f]*$")),
            )),
        );
    let netns = Record::new().must("kind", "A network namespace: its NICs are veths.", only("netns")).must(
        "path",
        "The namespace's file, such as /run/netns/web-1.",
        text(PATH).pattern(Some("^/[^\\u0000-\\u001f\\u007f-\\u009f]*$")),
    );
    Record::new()
        .may("name", "Its name, which need not be unique.", text(NAME))
        .may("project_id", "The project; nicd only stores it.", text(NAME))
        .may("nic_limit", "How many NICs it may have; null: as many as the configuration says.", or_null(number(0..=NIC_LIMIT)))
        .must("guest", "What it is; null: what it was.", or_null(either([vm.into(), netns.into()])))
        .into()
}

fn health_shown() -> Shape {
    let problem = Record::new()
        .must("reason", "A stable word for it.", words())
        .must("detail", "What it is about.", words())
        .must("remedy", "What to do.", words());
    let ports =
        Status::ALL.into_iter().fold(Record::new(), |ports, status| ports.must(status.as_str(), "How many there are.", count()));
    Record::new()
        .must("status", "Whether there are problems.", one_of_words(["ok", "degraded"]))
        .must("version", "The daemon's version.", words())
        .must("uptime_s", "How long it has run, in seconds.", count())
        .must("host", "The host's name.", words())
        .must("ports", "How many ports have each status.", ports)
        .must("unattached", "Of the ports that are DOWN, how many have no server.", count())
        .must("problems", "What a person should look at.", list(problem))
        .into()
}
