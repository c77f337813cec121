//! Stop and reload signals at random times: requests answered with success are durable, refused ones left no trace, unanswered ones
//! are complete or absent, and nothing else is left.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/daemon.rs"]
mod daemon;
#[path = "hostile/dice.rs"]
#[allow(dead_code)]
mod dice;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/kernel_view.rs"]
mod kernel_view;
#[path = "common/netns.rs"]
mod netns;

use std::collections::BTreeSet;
use std::fs;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use daemon::Client;
use dice::Dice;
use fixture::{Fixture, interfaces, server_path, text};
use kernel_view::{has_flag, link, marked, marked_ports};
use netns::in_netns;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Ends of the daemon per run, unless `NICD_SIGNAL_ROUNDS` says otherwise.
const ROUNDS: u64 = 25;

/// How long a stop may take.
const STOP: Duration = Duration::from_secs(5);

/// What one client was told.
#[derive(Debug, Default)]
struct Told {
    attached: BTreeSet<String>,
    detached: BTreeSet<String>,
    /// Of these the detach was never answered.
    perhaps_detached: BTreeSet<String>,
    /// Attaches that were never answered.
    unanswered: usize,
}

/// Attaches and detaches until the daemon answers no more.
fn churn(mut api: Client, path: String, network: String, seed: u64) -> JoinHandle<Told> {
    thread::spawn(move || {
        let (mut dice, mut told) = (Dice::new(seed), Told::default());
        let body = json!({"interfaceAttachment": {"net_id": network}}).to_string();
        loop {
            let typed = [("Content-Type", "application/json")];
            match api.try_call("POST", &path, &typed, body.as_bytes()) {
                Ok(answer) if answer.status == 200 => {
                    told.attached.insert(text(&answer.json()["interfaceAttachment"]["port_id"]));
                }
                Ok(answer) => {
                    answer.refused(503, "stopping");
                    return told;
                }
                Err(_) => {
                    told.unanswered += 1;
                    return told;
                }
            }
            let Some(port) = told.attached.first().cloned().filter(|_| dice.chance(80)) else { continue };
            told.attached.remove(&port);
            match api.try_call("DELETE", &format!("{path}/{port}"), &[], b"") {
                Ok(answer) if answer.status == 202 => told.detached.insert(port),
                Ok(answer) => {
                    answer.refused(503, "stopping");
                    told.attached.insert(port);
                    return told;
                }
                Err(_) => {
                    told.perhaps_detached.insert(port);
                    return told;
                }
            };
        }
    })
}

/// Ends the daemon in the middle of it, and compares what is left with what was told.
fn round(fixture: &mut Fixture, servers: &[String], network: &str, dice: &mut Dice) {
    let before: BTreeSet<String> = fixture.port_ids().into_iter().collect();
    let clients: Vec<_> = servers
        .iter()
        .map(|server| churn(fixture.daemon.client(), interfaces(server), network.to_owned(), dice.next()))
        .collect();
    for _ in 0..dice.below(4) {
        thread::sleep(Duration::from_micros(dice.next() % 30_000));
        fixture.daemon.signal(Signal::SIGHUP);
    }
    thread::sleep(Duration::from_micros(dice.next() % 60_000));
    let signal = dice.of(&[Signal::SIGTERM, Signal::SIGINT]);
    let at = Instant::now();
    fixture.daemon.signal(signal);
    fixture.daemon.ends();
    assert!(at.elapsed() < STOP, "{signal} took {:?}", at.elapsed());
    let told: Vec<Told> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    fixture.launch();
    for port in told.iter().flat_map(|told| &told.detached) {
        fixture.wait_until(port, "gone", |port| port.is_none());
    }
    for port in fixture.port_ids() {
        let done = |port: Option<&Value>| port.is_none_or(|port| port["nicd:phase"] == "wired" || port["nicd:phase"] == "active");
        fixture.wait_until(&port, "built or gone", done);
    }
    let listed: BTreeSet<String> = fixture.port_ids().into_iter().collect();
    let attached: BTreeSet<String> = told.iter().flat_map(|told| &told.attached).chain(&before).cloned().collect();
    let perhaps: BTreeSet<String> = told.iter().flat_map(|told| &told.perhaps_detached).cloned().collect();
    assert!(attached.is_subset(&listed), "answered and absent: {:?}", attached.difference(&listed));
    let others = listed.difference(&attached).filter(|port| !perhaps.contains(*port)).count();
    let unanswered: usize = told.iter().map(|told| told.unanswered).sum();
    assert!(others <= unanswered, "{others} ports that nobody was told of, and {unanswered} attaches without an answer");
    assert_eq!(marked_ports(), listed.into_iter().collect::<Vec<_>>(), "a port is a device, and the reverse");
    for port in fixture.ports() {
        let device = link(port["binding:vif_details"]["device"].as_str().unwrap());
        assert!(has_flag(&device, "UP") && device["master"].is_string() && device["ifalias"].is_string(), "{device}");
    }
}

#[test]
fn told_to_stop_at_any_moment_it_stops_in_time_and_nothing_is_left() {
    in_netns(|| {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
        let seed = number("NICD_SIGNAL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
        println!("NICD_SIGNAL_SEED={seed}");
        let mut dice = Dice::new(seed);
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({}));
        fixture.subnet(&network, "10.9.0.0/16");
        let (_guest, in_namespace) = fixture.guest("a");
        let servers = [fixture.vm(), fixture.vm(), in_namespace];
        for (server, guest) in servers.iter().zip([json!({"kind": "vm"}), json!({"kind": "vm"}), json!(null)]) {
            let guest = if guest.is_null() { json!({"kind": "netns", "path": "/run/netns/a"}) } else { guest };
            let roomy = json!({"server": {"guest": guest, "nic_limit": 1024}});
            fixture.api.put(&server_path(server), &roomy).expect(200);
        }
        for _ in 0..number("NICD_SIGNAL_ROUNDS").unwrap_or(ROUNDS) {
            round(&mut fixture, &servers, &network, &mut dice);
        }
        for server in &servers {
            fixture.api.delete(&format!("{}?detach=true", server_path(server))).expect(204);
        }
        fixture.api.delete(&format!("/v2.0/networks/{network}")).expect(204);
        assert!(marked().is_empty() && fixture.ports().is_empty());
    });
}

#[test]
fn idle_clients_and_readers_of_events_do_not_hold_up_a_stop() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        fixture.api.get("/nicd/v1/health").expect(200);
        // A request of which the half has come, and readers that read nothing.
        let mut half = std::os::unix::net::UnixStream::connect(fixture.daemon.socket()).unwrap();
        std::io::Write::write_all(&mut half, b"POST /v2.0/ports HTTP/1.1\r\nContent-Length: 9\r\n\r\n{").unwrap();
        let _readers: Vec<_> = (0..8).map(|_| fixture.daemon.follow(None)).collect();
        let at = Instant::now();
        fixture.daemon.term();
        assert!(at.elapsed() < STOP, "{:?}", at.elapsed());
    });
}

/// Writes the config and has it read.
fn configure(fixture: &Fixture, text: &str) {
    fs::write(fixture.daemon.config(), text).unwrap();
    fixture.daemon.reload();
}

#[test]
fn a_reload_changes_what_can_change_and_names_what_cannot() {
    in_netns(|| {
        let mut daemon = daemon::Daemon::prepared("/run/nicd");
        fs::write(daemon.config(), "[limits]\nnics_per_server = 1\n[log]\nlevel = \"warn\"\n").unwrap();
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        let network = fixture.usual_network();
        let server = fixture.vm();
        let first = fixture.attach_to(&server, &network);
        let body = json!({"interfaceAttachment": {"net_id": network}});
        fixture.api.post(&interfaces(&server), &body).refused(403, "too_many_nics");
        assert!(!fixture.daemon.log().contains("INFO"), "{}", fixture.daemon.log());
        fixture::foreign_bridge("theirs", 1500);
        let on_bridge = json!({"network": {"nicd:bridge": "theirs"}});
        let told = text(&fixture.port(&first)["mac_address"]);
        configure(
            &fixture,
            "[limits]\nnics_per_server = 2\n[log]\nlevel = \"debug\"\nformat = \"json\"\n\
             [links]\nmac_prefix = \"02:00:5e\"\nmtu = 1400\nallowed_bridges = []\n[socket]\nmax_connections = 77\n",
        );
        let second = fixture.attach_to(&server, &network);
        assert!(text(&fixture.port(&second)["mac_address"]).starts_with("02:00:5e:"));
        fixture.api.post(&interfaces(&server), &body).refused(403, "too_many_nics");
        fixture.api.post("/v2.0/networks", &on_bridge).refused(403, "bridge_not_allowed");
        let later = fixture.network(json!({}));
        assert_eq!(fixture.api.get(&format!("/v2.0/networks/{later}")).expect(200)["network"]["mtu"], 1400);
        // What is made stays as it was made.
        assert_eq!(fixture.api.get(&format!("/v2.0/networks/{network}")).expect(200)["network"]["mtu"], 1500);
        assert_eq!(fixture.port(&first)["mac_address"], told.as_str());
        let log = fixture.daemon.log();
        assert!(log.contains("DEBUG"), "{log}");
        assert!(log.contains("socket.max_connections, log.format"), "what waits is named: {log}");
    });
}

#[test]
fn a_config_that_is_not_right_changes_nothing_and_health_says_so_until_one_is() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let problem = |fixture: &mut Fixture| {
            let health = fixture.api.get("/nicd/v1/health").expect(200);
            let problems = health["problems"].as_array().unwrap().clone();
            problems.into_iter().find(|problem| problem["reason"] == "config_invalid")
        };
        assert_eq!(problem(&mut fixture), None);
        for (wrong, says) in [
            ("[links]\nmtu = 1400\nnonsense = 1\n", "nonsense"),
            ("[links\n", "line 1"),
            ("[links]\nmtu = 1\n", "links.mtu"),
            ("[limits]\nrequests = 5\n", "limits.requests"),
        ] {
            configure(&fixture, wrong);
            let told = problem(&mut fixture).unwrap_or_else(|| panic!("{wrong}: health says nothing"));
            assert!(text(&told["detail"]).contains(says), "{told}");
            assert!(fixture.daemon.log().contains(says));
            let network = fixture.network(json!({}));
            assert_eq!(fixture.api.get(&format!("/v2.0/networks/{network}")).expect(200)["network"]["mtu"], 1500, "{wrong}");
        }
        fixture.events.wait_for("degraded", |event| event["event"] == "agent.degraded");
        fs::remove_file(fixture.daemon.config()).unwrap();
        fixture.daemon.reload();
        assert!(problem(&mut fixture).is_some(), "a file that was named is not to be missing");
        configure(&fixture, "[links]\nmtu = 1400\n");
        assert_eq!(problem(&mut fixture), None);
        let network = fixture.network(json!({}));
        assert_eq!(fixture.api.get(&format!("/v2.0/networks/{network}")).expect(200)["network"]["mtu"], 1400);
    });
}
