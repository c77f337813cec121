//! The metrics: what they count, their agreement with health, and the server on loopback TCP.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/netns.rs"]
mod netns;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use daemon::{Client, Daemon, PATIENCE};
use fixture::{Fixture, interfaces};
use netns::in_netns;
use serde_json::{Value, json};

const ADDRESS: &str = "127.0.0.1:9632";

/// Each sample with its labels as written.
fn numbers(text: &str) -> BTreeMap<String, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

fn scrape(client: &mut Client) -> BTreeMap<String, f64> {
    let answer = client.get("/metrics");
    assert_eq!(answer.status, 200, "{}", answer.text);
    numbers(&answer.text)
}

/// A request on TCP as bytes; the whole answer.
fn ask(request: &str) -> String {
    let mut stream = TcpStream::connect(ADDRESS).unwrap();
    stream.set_read_timeout(Some(PATIENCE * 3)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn with_tcp() -> Daemon {
    let daemon = Daemon::prepared("/run/nicd");
    std::fs::write(daemon.config(), format!("[metrics]\nlisten = \"{ADDRESS}\"\n")).unwrap();
    daemon
}

#[test]
fn both_sockets_and_both_paths_tell_in_the_text_format() {
    in_netns(|| {
        let fixture = Fixture::start();
        for socket in ["nicd.sock", "nicd-view.sock"] {
            for path in ["/metrics", "/nicd/v1/metrics"] {
                let mut client = Client::new(fixture.daemon.socket().with_file_name(socket));
                let answer = client.get(path);
                assert_eq!(answer.status, 200, "{}", answer.text);
                assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
                assert!(answer.text.contains("# TYPE nicd_build_info gauge\n") && answer.text.ends_with('\n'));
                let head = client.call("HEAD", path, &[], b"");
                assert_eq!((head.status, head.header("content-type")), (200, answer.header("content-type")));
            }
        }
    });
}

#[test]
fn what_happened_is_counted_and_health_says_the_same() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let vm = fixture.vm();
        let port = fixture.attach_to(&server, &network);
        fixture.attach_to(&vm, &network);
        fixture.api.post(&interfaces(&server), &json!({"interfaceAttachment": {"net_id": vm}})).refused(404, "no_such_network");
        fixture.create_port(json!({"network_id": network}));
        let device = fixture.device(&port);
        fixture.events.wait_status(&port, "ACTIVE");
        netns::run(&format!("ip link set {device} nomaster"));
        fixture.events.wait_status(&port, "BUILD");
        fixture.events.wait_status(&port, "ACTIVE");
        let (now, health) = (scrape(&mut fixture.api), fixture.api.get("/nicd/v1/health").expect(200));
        for (sample, value) in [
            ("nicd_attaches_total{result=\"ok\"}", 2.0),
            ("nicd_attaches_total{result=\"no_such_network\"}", 1.0),
            ("nicd_attach_seconds_count", 2.0),
            ("nicd_attach_step_seconds_count{step=\"commit\"}", 2.0),
            ("nicd_attach_step_seconds_count{step=\"kernel\"}", 2.0),
            ("nicd_attach_step_seconds_count{step=\"reply\"}", 2.0),
            ("nicd_repairs_total{cause=\"drift\",result=\"ok\"}", 1.0),
            ("nicd_detaches_total{result=\"ok\"}", 0.0),
            ("nicd_event_readers", 1.0),
            ("nicd_queue_depth{queue=\"worker\"}", 0.0),
            ("nicd_events_total{event=\"port.created\"}", 3.0),
            ("nicd_http_requests_total{code=\"2xx\",dialect=\"nova\"}", 2.0),
            ("nicd_http_requests_total{code=\"4xx\",dialect=\"nova\"}", 1.0),
            ("nicd_netlink_overruns_total", 0.0),
            ("nicd_ports{attached=\"yes\",status=\"DOWN\"}", 1.0),
            ("nicd_ports{attached=\"no\",status=\"DOWN\"}", 1.0),
        ] {
            assert_eq!(now.get(sample), Some(&value), "{sample} in {now:#?}");
        }
        for status in ["ACTIVE", "BUILD", "DOWN", "ERROR"] {
            let of = |attached: &str| now.get(&format!("nicd_ports{{attached=\"{attached}\",status=\"{status}\"}}"));
            let counted = of("yes").unwrap() + of("no").unwrap_or(&0.0);
            assert_eq!(counted, health["ports"][status].as_f64().unwrap(), "{status}");
        }
        assert!(!now.keys().any(|sample| sample.starts_with("nicd_problems")) && health["status"] == "ok");
        fixture.detach(&server, &port);
        let steps = |now: &BTreeMap<String, f64>| {
            ["commit", "cut", "delete"].map(|step| now[&format!("nicd_detach_step_seconds_count{{step=\"{step}\"}}")])
        };
        // The port is gone when the kernel says so, a moment before the delete's own answer.
        let until = Instant::now() + PATIENCE;
        let mut after = scrape(&mut fixture.api);
        while steps(&after) != [1.0; 3] {
            assert!(Instant::now() < until, "{after:#?}");
            after = scrape(&mut fixture.api);
        }
        assert_eq!(after["nicd_detaches_total{result=\"ok\"}"], 1.0);
        assert!(after["nicd_kernel_writes_total"] > now["nicd_kernel_writes_total"]);
        drop(guest);
    });
}

#[test]
fn a_problem_in_health_is_a_problem_in_the_numbers() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        netns::run("ip link add stray type veth peer name other");
        netns::run("ip link property add dev stray altname nicd-11111111-2222-4333-8444-555555555555");
        fixture.daemon.tag("stray");
        // Of a link that is down the kernel tells no change of its names (`netdev_state_change`, net/core/dev.c).
        netns::run("ip link set stray up");
        fixture.events.wait_for("degraded", |event| event["event"] == "agent.degraded");
        let health = fixture.api.get("/nicd/v1/health").expect(200);
        let reason = health["problems"][0]["reason"].as_str().unwrap();
        assert_eq!(scrape(&mut fixture.api)[&format!("nicd_problems{{reason=\"{reason}\"}}")], 1.0);
        netns::run("ip link del stray");
        fixture.events.wait_for("recovered", |event| event["event"] == "agent.recovered");
        assert!(!scrape(&mut fixture.api).keys().any(|sample| sample.starts_with("nicd_problems")));
    });
}

#[test]
fn a_port_that_is_error_is_a_problem_and_nobody_says_ok() {
    in_netns(|| {
        netns::run("sysctl -qw net.ipv6.conf.default.accept_ra=0");
        let mut fixture = Fixture::start();
        netns::run("ip link add br-ops type bridge");
        netns::run("ip link set br-ops up");
        let network = fixture.network_on("br-ops");
        let vm = fixture.vm();
        let port = fixture.attach_to(&vm, &network);
        netns::run("ip link del br-ops");
        let is = |event: &Value, kind: &str| event["event"] == kind && event["reason"] == "port_in_error";
        fixture.events.wait_for("degraded", |event| is(event, "agent.degraded"));
        let health = fixture.api.get("/nicd/v1/health").expect(200);
        let problem = &health["problems"][0];
        assert_eq!((&health["status"], &problem["reason"]), (&json!("degraded"), &json!("port_in_error")), "{health}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with(&format!("port {port} is ERROR: no_such_bridge: ")) && detail.contains("br-ops"), "{detail}");
        assert_eq!(scrape(&mut fixture.api)["nicd_problems{reason=\"port_in_error\"}"], 1.0);
        netns::run("ip link add br-ops type bridge");
        netns::run("ip link set br-ops up");
        fixture.events.wait_for("recovered", |event| is(event, "agent.recovered"));
        assert_eq!(fixture.api.get("/nicd/v1/health").expect(200)["status"], "ok");
    });
}

#[test]
fn what_clients_send_does_not_make_it_grow() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let attack = |fixture: &mut Fixture, round: u32| {
            for number in 0..100 {
                fixture.api.get(&format!("/{round}/{number}"));
                fixture.api.get(&format!("/v2.1/p{round}-{number}/servers"));
                fixture.api.delete(&format!("/v2.0/ports/{:08x}-0000-4000-8000-{round:012}", number));
                fixture.api.call("BREW", &format!("/nicd/v1/{round}-{number}"), &[], b"");
            }
            scrape(&mut fixture.api).len()
        };
        let once = attack(&mut fixture, 1);
        assert_eq!(attack(&mut fixture, 2), once);
    });
}

#[test]
fn on_tcp_there_are_the_numbers_and_nothing_else() {
    in_netns(|| {
        let mut daemon = with_tcp();
        daemon.launch();
        let answer = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        let build = concat!("nicd_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
        assert_eq!(numbers(body)[build], 1.0);
        let head = ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        for (request, status) in [
            ("GET /nicd/v1/health", 404),
            ("GET /nicd/v1/metrics", 404),
            ("GET /", 404),
            ("DELETE /v2.0/ports/x", 404),
            ("POST /metrics", 405),
        ] {
            let answer = ask(&format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        }
        assert!(ask("nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
        let listening = netns::run("ss -Hltn");
        assert!(listening.lines().count() == 1 && listening.contains(ADDRESS), "{listening}");
    });
}

/// Who says nothing, who says a part, and who asks and does not read.
#[test]
fn slow_connections_on_tcp_hold_no_scrape_up() {
    in_netns(|| {
        let mut daemon = with_tcp();
        daemon.launch();
        let mut slow = Vec::new();
        for number in 0..nicd::api::metrics::CONNECTIONS * 4 {
            let mut stream = TcpStream::connect(ADDRESS).unwrap();
            let said = ["", "GET /metrics HTTP/1.1\r\nHo", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"][number % 3];
            // One that has lost its place may be closed already.
            let _ = stream.write_all(said.as_bytes());
            slow.push(stream);
        }
        for _ in 0..3 {
            let began = Instant::now();
            assert!(ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
            let took = began.elapsed();
            assert!(took < Duration::from_secs(2), "{took:?}");
        }
        // The sockets have places of their own.
        assert_eq!(daemon.client().get("/metrics").status, 200);
        drop(slow);
    });
}

#[test]
fn an_address_that_is_taken_keeps_the_daemon_from_starting() {
    in_netns(|| {
        let daemon = with_tcp();
        let _taken = std::net::TcpListener::bind(ADDRESS).unwrap();
        let (code, said) = daemon.second(&daemon.socket(), &daemon.state());
        assert_eq!(code, 69, "{said}");
        assert!(said.contains("metrics.listen = 127.0.0.1:9632"), "{said}");
    });
}
