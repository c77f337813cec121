//! `Idempotency-Key`: the same key from the same caller gives the same answer and does nothing twice.

use std::sync::{Arc, Barrier};
use std::thread;

use serde_json::{Value, json};

use crate::daemon::{Answer, Client};
use crate::fixture::{Fixture, interfaces, text};
use crate::netns::in_netns;
use crate::{NOBODY, post_with};

fn keyed(api: &mut Client, path: &str, key: &str, body: &Value) -> Answer {
    post_with(api, path, &[("Idempotency-Key", key)], body)
}

/// One POST that creates, in each dialect.
fn creates(fixture: &mut Fixture) -> Vec<(String, Value)> {
    let network = fixture.usual_network();
    let server = fixture.vm();
    let other = fixture.network(json!({}));
    let subnet = json!({"network_id": other, "cidr": "198.51.100.0/24"});
    vec![
        ("/v2.0/networks".to_owned(), json!({"network": {"name": "keyed"}})),
        ("/v2.0/subnets".to_owned(), json!({ "subnet": subnet })),
        ("/v2.0/ports".to_owned(), json!({"ports": [{"network_id": network}, {"network_id": network}]})),
        ("/v2.0/ports".to_owned(), json!({"ports": [{ "network_id": network }]})),
        (interfaces(&server), json!({"interfaceAttachment": {"net_id": network}})),
        (format!("/servers/{}/os-virtual-interfacesv2", fixture.vm()), json!({"virtual_interface": {"network_id": network}})),
    ]
}

fn counts(fixture: &mut Fixture) -> Vec<usize> {
    let count = |what: &&str| fixture.api.get(&format!("/v2.0/{what}")).expect(200)[what].as_array().unwrap().len();
    ["networks", "subnets", "ports"].iter().map(count).collect()
}

#[test]
fn the_same_request_is_carried_out_once_and_answered_the_same_also_after_a_restart() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let creates = creates(&mut fixture);
        let first: Vec<Answer> = creates
            .iter()
            .enumerate()
            .map(|(n, (path, body))| keyed(&mut fixture.api, path, &format!("key {n}"), body))
            .collect();
        assert!(first.iter().all(|answer| matches!(answer.status, 200 | 201)), "{first:#?}");
        let made = counts(&mut fixture);
        for restart in [false, true] {
            if restart {
                fixture.daemon.kill();
                fixture.launch();
            }
            for (n, (path, body)) in creates.iter().enumerate() {
                let again = keyed(&mut fixture.api, path, &format!("key {n}"), body);
                assert_eq!((again.status, &again.text), (first[n].status, &first[n].text), "{path}, restarted: {restart}");
                assert_eq!(again.header("content-type"), Some("application/json"));
                assert_ne!(again.header("x-compute-request-id"), first[n].header("x-compute-request-id"));
            }
            assert_eq!(counts(&mut fixture), made);
        }
    });
}

#[test]
fn a_create_that_was_never_answered_is_answered_in_its_own_shape_when_it_is_asked_again() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        for (n, (path, body)) in creates(&mut fixture).into_iter().enumerate() {
            let shape = |answer: &Answer| {
                let json = answer.json();
                let (key, made) = json.as_object().unwrap().iter().next().unwrap();
                (answer.status, key.clone(), made.as_array().map(Vec::len))
            };
            let before = counts(&mut fixture);
            // It dies when the answer is to be kept, at which the thing is made and its client has heard nothing.
            fixture.daemon.term();
            fixture.daemon.set_failpoints(Some("store.remember:2:kill-before"));
            fixture.launch();
            let (key, content) = (format!("lost {n}"), body.to_string());
            let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key.as_str())];
            assert!(fixture.api.try_call("POST", &path, &headers, content.as_bytes()).is_err(), "{path}: it was answered");
            fixture.daemon.kill();
            fixture.daemon.set_failpoints(None);
            fixture.launch();
            let made = counts(&mut fixture);
            assert_ne!(made, before, "{path}: it was made");
            let again = keyed(&mut fixture.api, &path, &key, &body);
            assert_eq!(counts(&mut fixture), made, "{path}: and not once more");
            let expected = match path.rsplit('/').next().unwrap() {
                "os-interface" => (200, "interfaceAttachment".to_owned(), None),
                "os-virtual-interfacesv2" => (200, "virtual_interfaces".to_owned(), Some(1)),
                _ => {
                    let (key, asked) = body.as_object().unwrap().iter().next().unwrap();
                    (201, key.clone(), asked.as_array().map(Vec::len))
                }
            };
            assert_eq!(shape(&again), expected, "{path}: {}", again.text);
            let third = keyed(&mut fixture.api, &path, &key, &body);
            assert_eq!((third.status, third.text), (again.status, again.text), "{path}");
        }
    });
}

#[test]
fn a_key_stands_for_one_request_and_another_under_it_is_a_mismatch() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let port = |name: &str| json!({"port": {"network_id": network, "name": name}});
        keyed(&mut fixture.api, "/v2.0/ports", "k", &port("a")).expect(201);
        let error = keyed(&mut fixture.api, "/v2.0/ports", "k", &port("b")).refused(409, "idempotency_mismatch");
        assert_eq!(error["type"], "Conflict");
        keyed(&mut fixture.api, "/v2.0/networks", "k", &json!({"network": {}})).refused(409, "idempotency_mismatch");
        // In Nova's words where Nova is spoken.
        let server = fixture.vm();
        let nova = keyed(&mut fixture.api, &interfaces(&server), "k", &json!({}));
        crate::told(&nova, 409, "conflictingRequest", "idempotency_mismatch", "'k'");
        assert_eq!(fixture.ports().len(), 1);
        keyed(&mut fixture.api, "/v2.0/ports", "another", &port("b")).expect(201);
        for bad in ["", &"x".repeat(65), "é"] {
            keyed(&mut fixture.api, "/v2.0/ports", bad, &port("c")).refused(400, "bad_idempotency_key");
        }
        keyed(&mut fixture.api, "/v2.0/ports", &"x".repeat(64), &port("c")).expect(201);
    });
}

#[test]
fn a_refusal_is_remembered_and_what_may_go_better_next_time_is_not() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let server = fixture.vm();
        let body = json!({"interfaceAttachment": {}});
        let first = keyed(&mut fixture.api, &interfaces(&server), "k", &body);
        first.refused(400, "no_network");
        fixture.usual_network();
        let again = keyed(&mut fixture.api, &interfaces(&server), "k", &body);
        assert_eq!((again.status, again.text), (first.status, first.text));
        keyed(&mut fixture.api, &interfaces(&server), "fresh", &body).expect(200);
        // What this host cannot do yet is a 5xx.
        let later = json!({"network": {"provider:network_type": "vxlan"}});
        keyed(&mut fixture.api, "/v2.0/networks", "later", &later).refused(501, "fleet_only");
        keyed(&mut fixture.api, "/v2.0/networks", "later", &json!({"network": {}})).expect(201);
        let large = json!({"network": {"name": "x".repeat(70_000)}});
        keyed(&mut fixture.api, "/v2.0/networks", "large", &large).refused(413, "body_too_large");
        keyed(&mut fixture.api, "/v2.0/networks", "large", &json!({"network": {}})).expect(201);
        keyed(&mut fixture.api, "/v2.0/ports", "gone", &json!({"port": {"network_id": NOBODY}})).refused(404, "no_such_network");
    });
}

#[test]
fn duplicates_in_flight_wait_for_the_first_and_share_its_answer() {
    in_netns(|| {
        const AT_ONCE: usize = 16;
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let path = interfaces(&fixture.vm());
        let body = json!({"interfaceAttachment": {"net_id": network}});
        let barrier = Arc::new(Barrier::new(AT_ONCE));
        let one = || {
            let (mut api, path, body, barrier) = (fixture.daemon.client(), path.clone(), body.clone(), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                keyed(&mut api, &path, "at once", &body)
            })
        };
        let threads: Vec<_> = (0..AT_ONCE).map(|_| one()).collect();
        let answers: Vec<Answer> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        for answer in &answers {
            answer.expect(200);
            assert_eq!(answer.text, answers[0].text);
        }
        assert_eq!(fixture.port_ids(), [text(&answers[0].json()["interfaceAttachment"]["port_id"])]);
    });
}

#[test]
fn a_key_means_nothing_on_what_is_no_create() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let json_type = ("Content-Type", "application/json");
        let key = ("Idempotency-Key", "k");
        let path = format!("/v2.0/networks/{network}");
        for name in ["a", "b"] {
            let body = json!({"network": {"name": name}}).to_string();
            let changed = fixture.api.call("PUT", &path, &[json_type, key], body.as_bytes()).expect(200);
            assert_eq!(changed["network"]["name"], name);
        }
        fixture.api.call("GET", &path, &[key], b"").expect(200);
        keyed(&mut fixture.api, "/v2.0/networks", "k", &json!({"network": {}})).expect(201);
    });
}
