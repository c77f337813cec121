//! The fleet's operations.

use serde_json::json;

use super::agent::entry;
use super::entry::Entry;
use super::samples;
use super::schema::{Record, Shape, count, ip, list, named, or_null, time, truth, uuid, words};
use crate::api::status::RequestStep::{Fleet, FleetHost, ForgetHost, Path, Write};

pub(in crate::api) fn all() -> Entry {
    let example = json!({ "hosts": [samples::host()] });
    entry("list_hosts", "The hosts of the fleet")
        .about("As etcd has them at one revision. Without a fleet a nicd is the only host.")
        .does(&[Fleet])
        .answers(200, "All of them, by name.", Record::wrapping("hosts", "The hosts.", list(named("Host"))), example)
}

pub(in crate::api) fn show() -> Entry {
    let example = json!({ "host": samples::host() });
    entry("show_host", "A host of the fleet").does(&[Path, Fleet, FleetHost]).answers(
        200,
        "The host.",
        Record::wrapping("host", "The host.", named("Host")),
        example,
    )
}

pub(in crate::api) fn forget() -> Entry {
    entry("forget_host", "Take a host out of the fleet")
        .about(
            "With all that it claims, which others may have then. For a host that does not come back: one that does finds that it was \
             forgotten. Its nicd has to be off for good before.",
        )
        .does(&[Write, Path, Fleet, FleetHost, ForgetHost])
        .answers_nothing(204, "It is forgotten.")
}

pub(in crate::api) fn fleet() -> Entry {
    let example = json!({ "fleet": samples::fleet() });
    entry("show_fleet", "How this host stands in its fleet").answers(
        200,
        "Its fleet; null where it is of none.",
        Record::wrapping("fleet", "The fleet.", or_null(named("Fleet"))),
        example,
    )
}

pub(super) fn schemas() -> Vec<(&'static str, Shape)> {
    let host = Record::new()
        .must("id", "Its name (`fleet.host`).", words())
        .must("alive", "Whether it was heard of in the last 15 s.", truth())
        .must("version", "The version of its nicd.", words())
        .must("tunnel", "The address of its end of tunnels; null without one.", or_null(ip()))
        .must("ports", "How many ports it has, or had when it was last heard of.", count())
        .must("since", "Since when it is one of the fleet.", time())
        .must("last_seen", "When it was last heard of, to the minute.", time());
    let fleet = Record::new()
        .must("name", "The fleet's name (`fleet.name`).", words())
        .must("host", "This host's name in it.", words())
        .must("connected", "Whether etcd answers and this host is registered.", truth())
        .must("since", "Since when that is so.", time())
        .must("revision", "The revision of etcd's data that was last seen; null before the first.", or_null(count()))
        .must("trouble", "What is in the way while it is not connected; null while it is.", or_null(words()))
        .must(
            "watch_lag_ms",
            "How many milliseconds the last write of this host took to come back by its watch; more while one is overdue; null before the first.",
            or_null(count()),
        )
        .must("reserved", "The addresses that this host alone may give to ports, by network.", list(named("Reserved")));
    let reserved = Record::new().must("network_id", "The network.", uuid()).must("addresses", "How many.", count()).must(
        "free",
        "How many of them no port has.",
        count(),
    );
    vec![("Host", host.into()), ("Fleet", fleet.into()), ("Reserved", reserved.into())]
}
