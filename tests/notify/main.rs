//! Nova and the webhook are told of ports, whatever goes wrong in between: the real daemon and a server that misbehaves as told.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

mod cloud;
#[path = "../common/daemon.rs"]
mod daemon;
#[path = "../common/fixture.rs"]
mod fixture;
#[path = "../common/netns.rs"]
mod netns;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use cloud::{Cloud, Deed, certificates};
use daemon::{Daemon, PATIENCE};
use fixture::{Fixture, interfaces};
use netns::{Guest, in_netns};
use serde_json::{Value, json};

const PLUGGED: &str = "network-vif-plugged";
const UNPLUGGED: &str = "network-vif-unplugged";
const DELETED: &str = "network-vif-deleted";
const CHANGED: &str = "network-changed";

const BY_PASSWORD: &str = "username = \"nicd\"\nproject_name = \"service\"\npassword_file = \"/run/secret\"\nregion = \"one\"\nunreachable_after_s = 1\n";

/// `[nova]` for a cloud, with a user and its password.
fn nova(cloud: &Cloud) -> String {
    format!("[nova]\nsend = true\nauth_url = \"{}\"\n{BY_PASSWORD}", cloud.auth_url())
}

/// `[notify]` for a cloud.
fn webhook(cloud: &Cloud) -> String {
    format!("[notify]\nurl = \"{}\"\nunreachable_after_s = 1\n", cloud.url("hook"))
}

/// A daemon with this configuration.
fn fixture(config: &str) -> Fixture {
    fs::write("/run/secret", "pass word\n").unwrap();
    let mut daemon = Daemon::prepared("/run/nicd");
    fs::write(daemon.config(), config).unwrap();
    daemon.launch();
    Fixture::of(daemon)
}

fn set_admin_state(fixture: &mut Fixture, port: &str, up: bool) {
    fixture.api.put(&format!("/v2.0/ports/{port}"), &json!({"port": {"admin_state_up": up}})).expect(200);
    fixture.wait_status(port, if up { "ACTIVE" } else { "DOWN" });
}

/// The problems of health.
fn problems(fixture: &mut Fixture) -> Vec<Value> {
    fixture.api.get("/nicd/v1/health").expect(200)["problems"].as_array().unwrap().clone()
}

/// Waits until health has a problem, or has none.
fn wait_problem(fixture: &mut Fixture, reason: Option<&str>) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = problems(fixture);
        match reason {
            Some(reason) => {
                if let Some(problem) = found.iter().find(|problem| problem["reason"] == reason) {
                    return problem.clone();
                }
            }
            None if found.is_empty() => return Value::Null,
            None => {}
        }
        // One that comes and goes at once is no event.
        fixture.events.next(Duration::from_millis(50));
        assert!(Instant::now() < deadline, "{reason:?} did not come: {found:?}");
    }
}

/// A metric's value.
fn metric(fixture: &mut Fixture, name: &str) -> f64 {
    let text = fixture.api.get("/metrics").text;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
    line.trim().parse().unwrap()
}

fn wait_metric(fixture: &mut Fixture, name: &str, value: f64) {
    let deadline = Instant::now() + PATIENCE;
    while (metric(fixture, name) - value).abs() > f64::EPSILON {
        assert!(Instant::now() < deadline, "{name} is {} and not {value}", metric(fixture, name));
        fixture.events.next(Duration::from_millis(20));
    }
}

#[test]
fn nova_is_told_of_a_ports_life() {
    in_netns(|| {
        let cloud = Cloud::start(false);
        let mut fixture = fixture(&nova(&cloud));
        let network = fixture.network(json!({"name": "blue"}));
        let subnet = fixture.subnet(&network, "192.0.2.0/24");
        let (_guest, server, port) = fixture.active_guest("a", &network);
        cloud.wait_last(&port, PLUGGED);
        assert_eq!(cloud.seen().events, [(server.clone(), port.clone(), PLUGGED.to_owned())]);
        let moved = json!({"port": {"fixed_ips": [{"subnet_id": subnet, "ip_address": "192.0.2.77"}]}});
        fixture.api.put(&format!("/v2.0/ports/{port}"), &moved).expect(200);
        cloud.wait_last(&port, CHANGED);
        set_admin_state(&mut fixture, &port, false);
        cloud.wait_last(&port, UNPLUGGED);
        set_admin_state(&mut fixture, &port, true);
        cloud.wait_last(&port, PLUGGED);
        fixture.detach(&server, &port);
        cloud.wait_last(&port, DELETED);
        // One that was there before is unplugged, and stays; one without a server is nothing to Nova.
        let own = fixture.create_port(json!({"network_id": network, "device_owner": "network:router_interface"}));
        fixture.attach(&server, json!({"port_id": own}));
        fixture.wait_status(&own, "ACTIVE");
        cloud.wait_last(&own, PLUGGED);
        fixture.detach(&server, &own);
        cloud.wait_last(&own, UNPLUGGED);
        fixture.api.delete(&format!("/v2.0/ports/{own}")).expect(204);
        // What follows comes after what is not told.
        let after = fixture.attach_to(&server, &network);
        cloud.wait_last(&after, PLUGGED);
        let seen = cloud.seen();
        assert_eq!(seen.of(&own), [PLUGGED, UNPLUGGED]);
        assert_eq!((seen.logins.len(), seen.tokens.len()), (1, 1), "one token serves all");
        drop(seen);
        wait_metric(&mut fixture, "nicd_notifications_waiting{target=\"nova\"}", 0.0);
        assert_eq!(problems(&mut fixture), Vec::<Value>::new());
        let log = fixture.daemon.log();
        assert!(log.contains("nicd::notify") && !log.contains("pass word") && !log.contains("token-0"), "{log}");
    });
}

#[test]
fn whatever_keystone_and_nova_do_wrong_nova_hears_the_last_state() {
    in_netns(|| {
        let cloud = Cloud::start(false);
        let mut fixture = fixture(&nova(&cloud));
        let network = fixture.usual_network();
        let (_guest, _, port) = fixture.active_guest("a", &network);
        cloud.wait_last(&port, PLUGGED);
        let answer = |status, headers, body: &str| Deed::Answer(status, headers, body.to_owned());
        let unknown = r#"{"itemNotFound": {"code": 404, "message": "No instances found for any event"}}"#;
        let deeds = [
            vec![answer(500, "", ""), answer(502, "", "<html>")],
            vec![answer(503, "Retry-After: 1\r\n", "{}")],
            vec![answer(401, "", "{}")],
            vec![answer(403, "", "{}")],
            vec![Deed::CloseInside, Deed::DoAndClose],
            vec![answer(207, "", "{\"events\": [{]"), answer(207, "", "{\"events\": {}}")],
            vec![answer(207, "", "{\"events\": []}")],
            vec![answer(404, "", unknown)],
            vec![answer(404, "", "no such page")],
            vec![answer(500, "", &"x".repeat(3 << 20))],
            vec![answer(301, "Location: http://127.0.0.1:1/\r\n", "")],
            vec![Deed::Slowly],
        ];
        let mut up = true;
        for deed in deeds {
            let requests = {
                let mut seen = cloud.seen();
                seen.deeds = deed.iter().cloned().collect();
                seen.requests
            };
            up = !up;
            set_admin_state(&mut fixture, &port, up);
            let name = if up { PLUGGED } else { UNPLUGGED };
            drop(cloud.wait(&format!("{name} after {deed:?}"), |seen| {
                seen.last(&port) == Some(name) && seen.deeds.is_empty() && seen.requests > requests
            }));
            wait_metric(&mut fixture, "nicd_notifications_waiting{target=\"nova\"}", 0.0);
        }
        for deed in [
            answer(500, "", ""),
            answer(201, "", "{"),
            answer(201, "X-Subject-Token: t\r\n", "{\"token\": {}}"),
            Deed::CloseInside,
        ] {
            {
                let mut seen = cloud.seen();
                seen.tokens.push("another".to_owned());
                seen.keystone.push_back(deed.clone());
            }
            up = !up;
            set_admin_state(&mut fixture, &port, up);
            let name = if up { PLUGGED } else { UNPLUGGED };
            drop(
                cloud.wait(&format!("{name} after {deed:?}"), |seen| seen.last(&port) == Some(name) && seen.keystone.is_empty()),
            );
        }
        wait_problem(&mut fixture, None);
    });
}

#[test]
fn a_bad_event_does_not_hold_up_the_others() {
    in_netns(|| {
        let cloud = Cloud::closed();
        let mut fixture = fixture(&nova(&cloud));
        let network = fixture.usual_network();
        let guests: Vec<(Guest, String, String)> = ["a", "b", "c", "d"].map(|name| fixture.active_guest(name, &network)).into();
        let [unknown, hostless, bad, good] = [0, 1, 2, 3].map(|number| (&guests[number].1, &guests[number].2));
        let codes =
            |codes: &[(&String, u16)]| Deed::Codes(codes.iter().map(|(server, code)| ((*server).clone(), *code)).collect());
        cloud.seen().deeds.extend([codes(&[(unknown.0, 404), (hostless.0, 422), (bad.0, 400)]), codes(&[(hostless.0, 422)])]);
        cloud.open();
        cloud.wait_last(good.1, PLUGGED);
        cloud.wait_last(hostless.1, PLUGGED);
        let ports: BTreeMap<String, usize> = cloud.seen().events.iter().fold(BTreeMap::new(), |mut count, event| {
            *count.entry(event.1.clone()).or_default() += 1;
            count
        });
        assert_eq!(ports, BTreeMap::from([(good.1.clone(), 1), (hostless.1.clone(), 1)]));
        wait_metric(&mut fixture, "nicd_notifications_total{result=\"dropped\",target=\"nova\"}", 2.0);
        assert_eq!(fixture.daemon.log().matches("not accepted, and not sent again").count(), 2);
        // A request that is refused as a whole is sent again in parts.
        cloud.seen().deeds.extend([Deed::Answer(413, "", String::new()), Deed::Answer(413, "", String::new())]);
        for (_, _, port) in &guests {
            fixture.api.put(&format!("/v2.0/ports/{port}"), &json!({"port": {"admin_state_up": false}})).expect(200);
        }
        let of_both = |seen: &cloud::Seen| guests.iter().filter(|guest| seen.last(&guest.2) == Some(UNPLUGGED)).count();
        drop(cloud.wait("all but one", |seen| seen.deeds.is_empty() && of_both(seen) >= 3));
    });
}

#[test]
fn health_says_who_cannot_be_reached_and_who_refuses() {
    in_netns(|| {
        let cloud = Cloud::closed();
        let mut fixture = fixture(&nova(&cloud));
        let network = fixture.usual_network();
        let (_guest, server, port) = fixture.active_guest("a", &network);
        let problem = wait_problem(&mut fixture, Some("nova_unreachable"));
        assert!(problem["detail"].as_str().unwrap().contains("refused"), "{problem}");
        assert!(metric(&mut fixture, "nicd_notifications_oldest_timestamp_seconds{target=\"nova\"}") > 1e9);
        // It changes often meanwhile, and Nova hears what holds in the end.
        for up in [false, true, false] {
            set_admin_state(&mut fixture, &port, up);
        }
        set_admin_state(&mut fixture, &port, true);
        let forbidden = || Deed::Answer(403, "", "{\"forbidden\": {}}".to_owned());
        cloud.seen().deeds.extend(std::iter::repeat_with(forbidden).take(4));
        cloud.open();
        let problem = wait_problem(&mut fixture, Some("nova_refuses"));
        assert!(problem["remedy"].as_str().unwrap().contains("os-server-external-events"), "{problem}");
        wait_problem(&mut fixture, None);
        cloud.wait_last(&port, PLUGGED);
        assert_eq!(cloud.seen().of(&port), [PLUGGED], "of {server}");
        assert!(cloud.seen().tokens.len() >= 3, "each time a new token is asked for");
        // A password that is wrong, and one that is not there.
        fs::write("/run/secret", "wrong\n").unwrap();
        cloud.seen().tokens.push("another".to_owned());
        set_admin_state(&mut fixture, &port, false);
        wait_problem(&mut fixture, Some("nova_refuses"));
        fs::remove_file("/run/secret").unwrap();
        let problem = wait_problem(&mut fixture, Some("nova_unreachable"));
        assert!(problem["detail"].as_str().unwrap().contains("/run/secret"), "{problem}");
        // By an application credential it goes on.
        fs::write("/run/credential", "cred secret\n").unwrap();
        let by_credential = format!(
            "[nova]\nsend = true\nauth_url = \"{}\"\nregion = \"one\"\napplication_credential_id = \"423f19a4\"\n\
             application_credential_secret_file = \"/run/credential\"\n",
            cloud.auth_url()
        );
        fs::write(fixture.daemon.config(), by_credential).unwrap();
        fixture.daemon.reload();
        cloud.wait_last(&port, UNPLUGGED);
        wait_problem(&mut fixture, None);
        assert!(!fixture.daemon.log().contains("cred secret"));
    });
}

#[test]
fn what_waits_when_the_daemon_is_killed_arrives_after_its_next_start() {
    in_netns(|| {
        let cloud = Cloud::closed();
        let mut fixture = fixture(&format!("{}{}", nova(&cloud), webhook(&cloud)));
        let network = fixture.usual_network();
        let guests: Vec<(Guest, String, String)> = ["a", "b", "c"].map(|name| fixture.active_guest(name, &network)).into();
        let port = |number: usize| guests[number].2.clone();
        fixture.detach(&guests[1].1, &port(1));
        set_admin_state(&mut fixture, &port(2), false);
        fixture.daemon.kill();
        // One that has arrived without an answer is told again.
        cloud.seen().deeds.push_back(Deed::DoAndClose);
        cloud.open();
        fixture.launch();
        cloud.wait_last(&port(0), PLUGGED);
        cloud.wait_last(&port(1), DELETED);
        let last = |seen: &cloud::Seen, port: &str| {
            let event = seen.hook.iter().rev().find(|event| event["port_id"] == port);
            event.map(|event| event["new"].as_str().unwrap_or("gone").to_owned())
        };
        for (number, status) in ["ACTIVE", "gone", "DOWN"].into_iter().enumerate() {
            drop(cloud.wait(&format!("{status} of the webhook"), |seen| last(seen, &port(number)).as_deref() == Some(status)));
        }
        wait_metric(&mut fixture, "nicd_notifications_waiting{target=\"nova\"}", 0.0);
        // Nova was never told that this one was up; that it is down is told all the same if a request about it was under way at the kill.
        let told: Vec<String> = cloud.seen().of(&port(2)).into_iter().map(str::to_owned).collect();
        assert!(told.is_empty() || told == [UNPLUGGED], "{told:?}");
        // Killed while a request is under way, of which nobody knows whether it arrived.
        cloud.seen().deeds.extend([Deed::Hang, Deed::Hang]);
        set_admin_state(&mut fixture, &port(0), false);
        drop(cloud.wait("both", |seen| seen.deeds.is_empty()));
        set_admin_state(&mut fixture, &port(0), true);
        fixture.daemon.kill();
        fixture.launch();
        drop(
            cloud.wait("that it is plugged again", |seen| seen.of(&port(0)).iter().filter(|name| **name == PLUGGED).count() >= 2),
        );
        wait_metric(&mut fixture, "nicd_notifications_waiting{target=\"nova\"}", 0.0);
        // A start on which nothing has changed tells nothing.
        let requests = cloud.seen().requests;
        fixture.daemon.term();
        fixture.launch();
        set_admin_state(&mut fixture, &port(2), true);
        cloud.wait_last(&port(2), PLUGGED);
        let seen = cloud.seen();
        assert_eq!(seen.events.iter().rev().take_while(|event| event.1 == port(2)).count(), 1);
        assert!(seen.requests > requests);
    });
}

#[test]
fn a_webhook_gets_events_at_least_once_and_in_order() {
    in_netns(|| {
        let cloud = Cloud::start(false);
        fs::write("/run/token", "hook token\n").unwrap();
        let mut fixture = fixture(&format!("{}token_file = \"/run/token\"\n", webhook(&cloud)));
        let network = fixture.usual_network();
        let (_guest, server, port) = fixture.active_guest("a", &network);
        let last = |seen: &cloud::Seen| seen.hook.iter().rev().find(|event| event["port_id"] == port.as_str()).cloned();
        let is = |seen: &cloud::Seen, new: &str| last(seen).is_some_and(|event| event["new"] == new);
        drop(cloud.wait("ACTIVE", |seen| is(seen, "ACTIVE")));
        for deed in [Deed::Answer(500, "", "{}".to_owned()), Deed::DoAndClose, Deed::CloseInside] {
            let before = {
                let mut seen = cloud.seen();
                seen.deeds.push_back(deed.clone());
                seen.hook_seen.len()
            };
            let up = is(&cloud.seen(), "DOWN");
            set_admin_state(&mut fixture, &port, up);
            let new = if up { "ACTIVE" } else { "DOWN" };
            let seen = cloud.wait(&format!("{new} after {deed:?}"), |seen| {
                is(seen, new) && seen.deeds.is_empty() && seen.hook_seen.len() >= before + 2
            });
            let ids: Vec<&Value> =
                seen.hook_seen[before..].iter().filter(|event| event["new"] == new).map(|event| &event["id"]).collect();
            assert!(ids.len() >= 2 && ids.iter().all(|id| *id == ids[0]), "the same event has the same id: {ids:?}");
        }
        fixture.detach(&server, &port);
        let seen = cloud.wait("the deletion", |seen| last(seen).is_some_and(|event| event["event"] == "port.deleted"));
        let mut told: Vec<Value> = seen.hook.iter().filter(|event| event["port_id"] == port.as_str()).cloned().collect();
        told.dedup_by_key(|event| event["id"].clone());
        assert_eq!(told[0]["event"], "port.created");
        assert!(
            told.windows(2).all(|two| two[0]["new"] == two[1]["old"] && two[0]["seq"].as_u64() < two[1]["seq"].as_u64()),
            "{told:#?}"
        );
        let fields: Vec<&str> = told[0].as_object().unwrap().keys().map(String::as_str).collect();
        let expected =
            ["at", "event", "id", "network_id", "new", "old", "phase", "port_id", "reason", "request_id", "seq", "server_id"];
        assert_eq!(fields, expected);
        assert_eq!(seen.authorization.as_deref(), Some("Bearer hook token"));
        drop(seen);
        assert!(!fixture.daemon.log().contains("hook token"));
    });
}

#[test]
fn a_certificate_is_checked_against_the_named_ones_alone() {
    in_netns(|| {
        let cloud = Cloud::start(true);
        let with = |ca: &str| format!("{}ca_file = \"{}\"\n", nova(&cloud), certificates().join(ca).display());
        let mut fixture = fixture(&with("other-ca.pem"));
        let network = fixture.usual_network();
        let (_guest, _, port) = fixture.active_guest("a", &network);
        let problem = wait_problem(&mut fixture, Some("nova_unreachable"));
        assert!(problem["detail"].as_str().unwrap().contains("certificate"), "{problem}");
        for (config, said) in
            [(nova(&cloud), "certificate"), (with("server.key"), "no certificate in PEM"), (with("none.pem"), "none.pem")]
        {
            fs::write(fixture.daemon.config(), config).unwrap();
            fixture.daemon.reload();
            let deadline = Instant::now() + PATIENCE;
            while !problems(&mut fixture).iter().any(|problem| problem["detail"].as_str().unwrap().contains(said)) {
                assert!(Instant::now() < deadline, "{said}: {:?}", problems(&mut fixture));
                fixture.events.next(Duration::from_millis(20));
            }
        }
        assert_eq!(cloud.seen().logins, Vec::<Value>::new(), "no secret was sent");
        fs::write(fixture.daemon.config(), with("ca.pem")).unwrap();
        fixture.daemon.reload();
        cloud.wait_last(&port, PLUGGED);
        wait_problem(&mut fixture, None);
    });
}

#[test]
fn attaches_go_on_while_nova_hangs_and_a_stop_does_not_wait_for_it() {
    in_netns(|| {
        let cloud = Cloud::start(false);
        cloud.seen().deeds.extend(std::iter::repeat_n(Deed::Hang, 100));
        let mut fixture = fixture(&format!("{}{}", nova(&cloud), webhook(&cloud)));
        let network = fixture.usual_network();
        let (_guest, server, _) = fixture.active_guest("a", &network);
        drop(cloud.wait("a request that hangs", |seen| seen.requests >= 1));
        wait_problem(&mut fixture, Some("webhook_unreachable"));
        for _ in 0..10 {
            let began = Instant::now();
            let port = fixture.attach_to(&server, &network);
            fixture.api.delete(&format!("{}/{port}", interfaces(&server))).expect(202);
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        }
        let began = Instant::now();
        fixture.daemon.term();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    });
}
