//! Memory, descriptors and kernel objects are bounded: stuck event readers, unknown ids, and cycles of attach and detach leave the
//! daemon and the kernel at their former size.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "hostile/gauges.rs"]
#[allow(dead_code)]
mod gauges;
#[path = "common/kernel_view.rs"]
mod kernel_view;
#[path = "common/netns.rs"]
mod netns;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use daemon::Daemon;
use fixture::{Fixture, interfaces, server_path, text};
use gauges::Gauge;
use kernel_view::{links, marked};
use netns::{Guest, comes_true, in_netns, json as ip_json};
use serde_json::{Value, json};
use uuid::Uuid;

/// What a run's memory may differ by, in KiB: pages the allocator keeps, and SQLite's cache.
const SLACK_KIB: u64 = 8 << 10;

/// How many, unless the variable says otherwise.
fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// A daemon that logs as in production, so that its log is not what is measured.
fn plain() -> Fixture {
    let mut daemon = Daemon::prepared("/run/nicd");
    daemon.limits(512);
    daemon.launch();
    Fixture::of(daemon)
}

/// How often the daemon has hit a failpoint.
fn hits(failpoint: &str) -> usize {
    std::fs::read_to_string("/run/failpoints").unwrap().lines().filter(|line| line.ends_with(failpoint)).count()
}

#[test]
fn many_networks_at_once_are_one_look_at_the_host() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.environment = vec![("NICD_FAILPOINTS_LOG", "/run/failpoints".into())];
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        fixture::foreign_bridge("br0", 1500);
        fixture.network(json!({"nicd:bridge": "br0"}));
        let before = hits("netlink.dump");
        fixture.network(json!({"nicd:bridge": "br0"}));
        let one = hits("netlink.dump") - before;
        let many: Vec<Value> = (0..64).map(|_| json!({"nicd:bridge": "br0"})).collect();
        let before = hits("netlink.dump");
        fixture.api.post("/v2.0/networks", &json!({ "networks": many })).expect(201);
        let look = hits("netlink.dump") - before;
        assert!(one > 0 && look < 2 * one + 2, "{one} for one, {look} for 64");
    });
}

#[test]
fn many_who_verify_share_a_comparison() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.environment = vec![("NICD_FAILPOINTS_LOG", "/run/failpoints".into())];
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        fixture.usual_network();
        let before = hits("netlink.dump");
        fixture.api.get("/nicd/v1/verify").expect(200);
        let one = hits("netlink.dump") - before;
        let before = hits("netlink.dump");
        std::thread::scope(|scope| {
            for _ in 0..32 {
                let mut api = fixture.daemon.client();
                scope.spawn(move || api.get("/nicd/v1/verify").expect(200));
            }
        });
        let all = hits("netlink.dump") - before;
        assert!(one > 0 && all < 8 * one, "{one} for one, {all} for 32");
    });
}

/// A stream of events that nobody reads yet.
fn subscribe(fixture: &Fixture, last: Option<u64>) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(fixture.daemon.socket()).unwrap();
    let resume = last.map_or_else(String::new, |last| format!("Last-Event-ID: {last}\r\n"));
    write!(stream, "GET /nicd/v1/events HTTP/1.1\r\nHost: nicd\r\nAccept: application/x-ndjson\r\n{resume}\r\n").unwrap();
    stream.set_read_timeout(Some(daemon::PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream);
    // The head comes when the subscription is made.
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
    lines
}

/// The events up to the first that is wanted.
fn read_to(lines: &mut BufReader<UnixStream>, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    while !events.last().is_some_and(&wanted) {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the stream has ended");
        if line.starts_with('{') {
            events.push(serde_json::from_str(&line).unwrap());
        }
    }
    events
}

#[test]
fn a_reader_that_does_not_read_is_told_once_that_it_lost_and_goes_on_from_there() {
    in_netns(|| {
        let mut fixture = plain();
        let network = fixture.network(json!({}));
        fixture.subnet(&network, "10.9.0.0/16");
        fixture.create_port(json!({ "network_id": network }));
        let first = fixture.events.wait_for("the first", |event| event["event"] == "port.created")["seq"].as_u64().unwrap();
        let (slow, idle) = (subscribe(&fixture, None), subscribe(&fixture, None));
        // More than are kept, and more than any socket holds.
        for _ in 0..42 {
            fixture.api.post("/v2.0/ports", &json!({"ports": vec![json!({"network_id": network}); 256]})).expect(201);
        }
        let absent = subscribe(&fixture, Some(first));
        let gauge = Gauge::read(fixture.daemon.pid(), 0);
        for (who, mut lines) in [("slow", slow), ("absent", absent)] {
            let mut events = read_to(&mut lines, |event| event["event"] == "lost");
            // What happens from then on is told.
            let last = fixture.create_port(json!({ "network_id": network }));
            events.extend(read_to(&mut lines, |event| event["port_id"] == last.as_str()));
            let lost = events.iter().filter(|event| event["event"] == "lost").count();
            assert_eq!(lost, 1, "{who}: of {}", events.len());
            let numbers: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{who}: numbers go up");
            assert!(events.len() < 10_000, "{who}: {}", events.len());
        }
        drop(idle);
        let after = Gauge::read(fixture.daemon.pid(), 0);
        assert!(after.rss_kib <= gauge.rss_kib + SLACK_KIB, "{gauge:?}, {after:?}");
    });
}

/// Sends requests that all are refused, many at a time.
fn ask(stream: &mut UnixStream, requests: impl Iterator<Item = String>) {
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    let mut requests = requests.peekable();
    while requests.peek().is_some() {
        let batch: Vec<String> = requests.by_ref().take(64).collect();
        stream.write_all(batch.concat().as_bytes()).unwrap();
        for request in batch {
            let (mut line, mut length) = (String::new(), 0);
            answers.read_line(&mut line).unwrap();
            assert!(line.starts_with("HTTP/1.1 4"), "{request}: {line}");
            while line.trim_end() != "" {
                line.clear();
                answers.read_line(&mut line).unwrap();
                length = line.to_ascii_lowercase().strip_prefix("content-length: ").map_or(length, |n| n.trim().parse().unwrap());
            }
            answers.by_ref().take(length).read_to_end(&mut Vec::new()).unwrap();
        }
    }
}

/// One of the ways to ask for what is not there, each time another.
fn nobody(n: u64) -> String {
    let (one, other) = (Uuid::from_u64_pair(n, 0x8000_0000_0000_0001), Uuid::from_u64_pair(n, 0x8000_0000_0000_0002));
    let attach = format!("{{\"interfaceAttachment\": {{\"net_id\": \"{other}\"}}}}");
    let json = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", attach.len());
    match n % 6 {
        0 => format!("GET /v2.0/ports/{one} HTTP/1.1\r\nHost: n\r\n\r\n"),
        1 => format!("DELETE /v2.1/servers/{one}/os-interface/{other} HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\n\r\n"),
        2 => format!("DELETE /nicd/v1/servers/{one}?detach=true HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\n\r\n"),
        3 => format!("DELETE /v2.0/networks/{one} HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\n\r\n"),
        4 => format!("POST /v2.1/servers/{one}/os-interface HTTP/1.1\r\nHost: n\r\n{json}\r\n{attach}"),
        _ => format!("GET /unknown/{one} HTTP/1.1\r\nHost: n\r\nX-{one}: {other}\r\n\r\n"),
    }
}

#[test]
fn ids_of_nothing_leave_nothing() {
    in_netns(|| {
        let fixture = plain();
        let count = number("NICD_BOUNDS_IDS", 30_000);
        // One connection for all, so that none is just being closed when descriptors are counted.
        let mut stream = UnixStream::connect(fixture.daemon.socket()).unwrap();
        stream.set_read_timeout(Some(daemon::PATIENCE)).unwrap();
        ask(&mut stream, (0..count / 3).map(nobody));
        let before = Gauge::read(fixture.daemon.pid(), count / 3);
        ask(&mut stream, (count / 3..count).map(nobody));
        let after = Gauge::read(fixture.daemon.pid(), count);
        println!("{before:?}, {after:?}");
        assert!(after.rss_kib <= before.rss_kib + SLACK_KIB, "{before:?}, {after:?}");
        assert_eq!((after.descriptors, after.threads), (before.descriptors, before.threads));
    });
}

/// Everything the kernel keeps for guests, but for what is numbered upwards.
fn kernel_objects(guest: &Guest) -> Vec<Value> {
    let named = |links: Vec<Value>| links.into_iter().map(|link| json!([link["ifname"], link["mtu"], link["address"]])).collect();
    let inside: Vec<Value> = guest.ip_json("link").as_array().unwrap().clone();
    let (host, inside): (Vec<Value>, Vec<Value>) = (named(links()), named(inside));
    let fdb = ip_json("bridge -j fdb show");
    vec![host.into(), inside.into(), guest.ip_json("addr"), guest.ip_json("route"), json!(fdb.as_array().map(Vec::len))]
}

#[test]
fn cycles_of_attach_and_detach_leave_everything_where_it_was() {
    in_netns(|| {
        const AT_ONCE: usize = 8;
        let mut fixture = plain();
        let network = fixture.usual_network();
        let (guest, in_namespace) = fixture.guest("a");
        let vm = fixture.vm();
        for (server, guest) in [(&vm, json!({"kind": "vm"})), (&in_namespace, json!({"kind": "netns", "path": guest.path}))] {
            let roomy = json!({"server": {"guest": guest, "nic_limit": 64}});
            fixture.api.put(&server_path(server), &roomy).expect(200);
        }
        // One stays, so that the bridge does.
        fixture.attach_to(&vm, &network);
        let cycle = |fixture: &mut Fixture| {
            let servers = [&vm, &in_namespace];
            let attached: Vec<(&String, String)> = (0..AT_ONCE)
                .map(|n| {
                    let server = servers[n % servers.len()];
                    (server, fixture.attach_to(server, &network))
                })
                .collect();
            for (server, port) in &attached {
                fixture.api.delete(&format!("{}/{port}", interfaces(server))).expect(202);
            }
            let mut left: BTreeSet<&String> = attached.iter().map(|(_, port)| port).collect();
            while !left.is_empty() {
                let gone = fixture.events.wait_for("a deletion", |event| event["event"] == "port.deleted");
                left.remove(&text(&gone["port_id"]));
            }
            fixture.events.seen.clear();
        };
        let cycles = number("NICD_BOUNDS_CYCLES", 400).div_ceil(AT_ONCE as u64);
        (0..cycles / 2).for_each(|_| cycle(&mut fixture));
        let look = |fixture: &Fixture| (Gauge::read(fixture.daemon.pid(), 0), kernel_objects(&guest));
        let (before, objects) = look(&fixture);
        (0..cycles).for_each(|_| cycle(&mut fixture));
        let (after, objects_after) = look(&fixture);
        println!("{} cycles: {before:?}, {after:?}", cycles * AT_ONCE as u64);
        assert!(after.rss_kib <= before.rss_kib + SLACK_KIB, "{before:?}, {after:?}");
        assert_eq!(after.threads, before.threads);
        // The last device's descriptors may be closed after its deletion was told, before and now.
        let no_more = || look(&fixture).0.descriptors <= before.descriptors;
        comes_true(daemon::PATIENCE, no_more, || format!("{before:?}, {after:?}"));
        assert_eq!(objects_after, objects);
        assert_eq!((fixture.ports().len(), marked().len()), (1, 2), "a device and the bridge");
    });
}
