//! The wall's clock set by whatever far, under a running daemon and over its restarts.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::fixture::{Fixture, interfaces, text};
use crate::netns::{in_netns, run};

const YEAR: i64 = 31_556_952;

/// A daemon whose wall's clock is set by the file.
fn fixture() -> (Fixture, File) {
    fs::write("/run/clock.c", include_str!("clock.c")).unwrap();
    run("gcc -shared -fPIC -O1 -o /run/clock.so /run/clock.c -ldl");
    let file = File::options().create(true).truncate(true).read(true).write(true).open("/run/clock").unwrap();
    file.set_len(4096).unwrap();
    let mut daemon = Daemon::prepared("/run/nicd");
    daemon.environment = vec![("LD_PRELOAD", "/run/clock.so".into()), ("CLOCK_AHEAD", "/run/clock".into())];
    daemon.launch();
    (Fixture::of(daemon), file)
}

fn attach(fixture: &mut Fixture, server: &str, network: &str, key: &str) -> Value {
    let body = json!({"interfaceAttachment": {"net_id": network}}).to_string();
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
    fixture.api.call("POST", &interfaces(server), &headers, body.as_bytes()).expect(200)
}

#[test]
fn a_clock_that_is_set_forgets_no_key_and_stops_nothing() {
    in_netns(|| {
        let (mut fixture, clock) = fixture();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let first = attach(&mut fixture, &server, &network, "a key");
        // To 1970, to this year, over ten years, as far as Linux lets it be set, and into the year 9999.
        for years in [-56, 0, 10, 205, 7973] {
            clock.write_all_at(&(years * YEAR).to_ne_bytes(), 0).unwrap();
            assert_eq!(attach(&mut fixture, &server, &network, "a key"), first, "{years}");
            let port = fixture.create_port(json!({ "network_id": network }));
            let created = text(&fixture.port(&port)["created_at"]);
            assert!(created.parse::<jiff::Timestamp>().is_ok(), "{created}");
            fixture.events.wait_for("an event", |event| event["port_id"] == port.as_str());
            if years % 2 == 0 {
                fixture.daemon.term();
                fixture.launch();
                assert_eq!(attach(&mut fixture, &server, &network, "a key"), first, "{years}, started again");
            }
            fixture.api.delete(&format!("/v2.0/ports/{port}")).expect(204);
        }
        assert!(!fixture.daemon.log().contains("panicked"));
    });
}
