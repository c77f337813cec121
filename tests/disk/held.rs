//! Another program that has the store's write lock, or reads it and does not end.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use crate::daemon::Daemon;
use crate::fixture::{Fixture, interfaces};
use crate::netns::{in_netns, run};
use crate::{attach, is, problems};

fn open(fixture: &Fixture) -> Connection {
    Connection::open(fixture.daemon.state().join("nicd.db")).unwrap()
}

#[test]
fn a_write_lock_held_for_a_moment_is_waited_for() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.server_with(json!({"guest": {"kind": "vm"}, "nic_limit": 100}));
        let leaving = fixture.attach_to(&server, &network);
        let other = open(&fixture);
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (began, api) = (Instant::now(), || fixture.daemon.client());
        let (mut detaching, mut reading) = (api(), api());
        thread::scope(|scope| {
            let attaches: Vec<_> = (0..8)
                .map(|_| {
                    let (mut api, server, network) = (api(), &server, &network);
                    scope.spawn(move || attach(&mut api, server, network).status)
                })
                .collect();
            let detach = scope.spawn(|| detaching.delete(&format!("{}/{leaving}", interfaces(&server))).status);
            thread::sleep(Duration::from_millis(300));
            let asked = Instant::now();
            reading.get("/v2.0/ports").expect(200);
            assert!(asked.elapsed() < Duration::from_millis(200), "reads go on: {:?}", asked.elapsed());
            other.execute_batch("COMMIT").unwrap();
            attaches.into_iter().for_each(|attach| assert_eq!(attach.join().unwrap(), 200));
            assert_eq!(detach.join().unwrap(), 202);
        });
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    });
}

#[test]
fn a_write_lock_held_for_long_is_told_and_refused_in_bounded_time() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        // The first on a network makes its bridge, and the others wait for it.
        let first = fixture.attach_to(&server, &network);
        let other = open(&fixture);
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let began = Instant::now();
        thread::scope(|scope| {
            let attaches: Vec<_> = (0..3)
                .map(|n| {
                    let (mut api, server, network) = (fixture.daemon.client(), &server, &network);
                    scope.spawn(move || {
                        thread::sleep(Duration::from_secs(n));
                        let began = Instant::now();
                        let refused = attach(&mut api, server, network);
                        refused.refused(503, "busy");
                        assert!(refused.header("retry-after").is_some());
                        let waited = began.elapsed();
                        assert!(waited > Duration::from_secs(4) && waited < Duration::from_secs(8), "{waited:?}");
                    })
                })
                .collect();
            fixture.events.wait_for("held", |event| is(event, "agent.degraded", "store_held"));
            let mut api = fixture.daemon.client();
            let health = api.get("/nicd/v1/health").expect(200);
            assert_eq!(health["problems"][0]["reason"], "store_held", "{health}");
            assert!(began.elapsed() < Duration::from_secs(5), "told while it waits");
            attaches.into_iter().for_each(|attach| attach.join().unwrap());
        });
        other.execute_batch("COMMIT").unwrap();
        fixture.events.wait_for("let go", |event| is(event, "agent.recovered", "store_held"));
        assert_eq!(fixture.port_ids(), [first]);
        fixture.attach_to(&server, &network);
    });
}

/// The log's length.
fn log(fixture: &Fixture) -> u64 {
    fs::metadata(fixture.daemon.state().join("nicd.db-wal")).map_or(0, |meta| meta.len())
}

/// Somebody who reads and does not end the transaction.
fn reader(state: PathBuf) -> Connection {
    let reader = Connection::open_with_flags(state.join("nicd.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").unwrap();
    reader
}

#[test]
fn a_reader_that_does_not_end_is_told_of_and_detaches_work_to_the_end() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        run(&format!("mount -t tmpfs -o size=24m tmpfs {}", daemon.state().display()));
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        let network = fixture.usual_network();
        let server = fixture.server_with(json!({"guest": {"kind": "vm"}, "nic_limit": 1000}));
        let ports: Vec<String> = (0..40).map(|_| fixture.attach_to(&server, &network)).collect();
        let held = reader(fixture.daemon.state());
        // Changes that go to the log, until it is held and the disk full.
        let change = |fixture: &mut Fixture, n: u32| {
            let path = format!("/v2.0/ports/{}", ports[0]);
            fixture.api.put(&path, &json!({"port": {"description": format!("{n} {}", "x".repeat(200))}}))
        };
        let refused = (0..20_000).map(|n| change(&mut fixture, n)).find(|answer| answer.status != 200);
        refused.expect("the disk is full").refused(507, "store_full");
        fixture.events.wait_for("held", |event| is(event, "agent.degraded", "store_held"));
        assert!(problems(&mut fixture).contains(&"store_held".to_owned()));
        // Also when others fill what is left.
        let mut ballast = fs::File::create(fixture.daemon.state().join("ballast")).unwrap();
        let mut fill = || while ballast.write_all(&[0; 4096]).is_ok() {};
        fill();
        attach(&mut fixture.api, &server, &network).refused(507, "store_full");
        for port in &ports[..30] {
            fixture.detach(&server, port);
            fill();
        }
        // And a start in this state.
        fixture.daemon.kill();
        fixture.launch();
        for port in &ports[30..] {
            fixture.detach(&server, port);
        }
        fs::remove_file(fixture.daemon.state().join("ballast")).unwrap();
        let long = log(&fixture);
        assert!(long > 4 << 20, "{long}");
        drop(held);
        fixture.events.wait_for("let go", |event| is(event, "agent.recovered", "store_held"));
        assert!(log(&fixture) < 1 << 20, "{}", log(&fixture));
        assert!(problems(&mut fixture).iter().all(|problem| problem == "store_full"));
        fixture.attach_to(&server, &network);
        assert!(problems(&mut fixture).is_empty());
    });
}

#[test]
fn the_log_stays_short_by_itself() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let port = fixture.create_port(json!({ "network_id": network }));
        for n in 0..1500 {
            fixture.api.put(&format!("/v2.0/ports/{port}"), &json!({"port": {"name": format!("{n}")}})).expect(200);
        }
        assert!(log(&fixture) < 6 << 20, "{}", log(&fixture));
        assert!(problems(&mut fixture).is_empty());
    });
}
