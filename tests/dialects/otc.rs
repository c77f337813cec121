//! OTC's own calls: its envelope and codes, NICs added and deleted by jobs, and jobs over a death of the daemon.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::{Answer, Daemon, PATIENCE};
use crate::fixture::{Fixture, text};
use crate::kernel_view::marked_ports;
use crate::netns::in_netns;
use crate::{NOBODY, post_with};

fn nics(server: &str) -> String {
    format!("/v1/demo/cloudservers/{server}/nics")
}

fn listed(fixture: &mut Fixture, server: &str) -> Value {
    fixture.api.get(&format!("/v1/demo/cloudservers/{server}/os-interface")).expect(200)
}

/// Asks for a job; answers its id.
fn start(fixture: &mut Fixture, path: &str, nics: &Value) -> String {
    text(&fixture.api.post(path, &json!({ "nics": nics })).expect(200)["job_id"])
}

fn job(fixture: &mut Fixture, id: &str) -> Value {
    fixture.api.get(&format!("/v1/demo/jobs/{id}")).expect(200)
}

/// Asks for a job's status until it has ended, as its clients do.
fn ended(fixture: &mut Fixture, id: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = job(fixture, id);
        if shown["status"] == "SUCCESS" || shown["status"] == "FAIL" {
            return shown;
        }
        assert!(Instant::now() < deadline, "{shown}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The ports of a job's parts.
fn ports(job: &Value) -> Vec<String> {
    job["entities"]["sub_jobs"].as_array().unwrap().iter().map(|part| text(&part["entities"]["nic_id"])).collect()
}

/// Asserts one of OTC's refusals whole.
fn refused(answer: &Answer, status: u16, code: &str, reason: &str, words: &str) {
    let what = format!("{}: {}", answer.call, answer.text);
    let body = answer.json();
    let error = &body["error"];
    assert_eq!(body.as_object().unwrap().len(), 1, "{what}");
    assert_eq!((answer.status, &error["code"], &error["reason"]), (status, &json!(code), &json!(reason)), "{what}");
    assert!(error["message"].as_str().unwrap().contains(words), "'{words}' is not said: {what}");
    assert_eq!(error["details"], json!([{"code": code, "message": error["message"]}]), "{what}");
}

#[test]
fn nics_are_added_listed_and_deleted_by_jobs() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.server_with(json!({"guest": {"kind": "vm", "queues": 2}, "nic_limit": 3}));
        let own = fixture.create_port(json!({"network_id": network}));
        let asked = json!([{"subnet_id": network, "ip_address": "192.0.2.9"}, {"port_id": own}]);
        let id = start(&mut fixture, &nics(&server), &asked);
        let done = ended(&mut fixture, &id);
        assert_eq!((&done["status"], &done["job_type"], &done["job_id"]), (&json!("SUCCESS"), &json!("addNics"), &json!(id)));
        assert_eq!((&done["error_code"], &done["fail_reason"]), (&Value::Null, &Value::Null));
        assert_eq!((&done["entities"]["sub_jobs_total"], &done["entities"]["server_id"]), (&json!(2), &json!(server)));
        let made = ports(&done);
        assert_eq!(made[1], own);
        let shown = listed(&mut fixture, &server);
        assert_eq!(shown["attachableQuantity"], json!({"free_nic": 1, "free_efi_nic": 0}));
        let interfaces = shown["interfaceAttachments"].as_array().unwrap();
        assert_eq!(interfaces.len(), 2);
        let new = interfaces.iter().find(|one| one["port_id"] == made[0].as_str()).unwrap();
        assert_eq!(new["fixed_ips"][0]["ip_address"], "192.0.2.9");
        let beside = ["delete_on_termination", "driver_mode", "min_rate", "multiqueue_num", "pci_address"];
        let told = beside.map(|name| new[name].clone());
        assert_eq!(told, [json!(true), Value::Null, Value::Null, json!(2), Value::Null]);
        let kept = interfaces.iter().find(|one| one["port_id"] == own.as_str()).unwrap();
        assert_eq!(kept["delete_on_termination"], false);
        // A deleted NIC is not listed any more once its job has succeeded.
        let id = start(&mut fixture, &format!("{}/delete", nics(&server)), &json!([{"id": made[0]}, {"id": own}]));
        let gone = ended(&mut fixture, &id);
        assert_eq!((&gone["status"], &gone["job_type"], ports(&gone)), (&json!("SUCCESS"), &json!("deleteNics"), made));
        assert_eq!(listed(&mut fixture, &server)["interfaceAttachments"], json!([]));
        assert_eq!(fixture.port_ids(), [own], "the port that was there before is kept");
    });
}

#[test]
fn a_request_that_is_refused_starts_no_job() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (bare, small) = (fixture.network(json!({})), fixture.network(json!({})));
        fixture.subnet(&small, "198.51.100.0/30");
        let server = fixture.server_with(json!({"guest": {"kind": "vm"}, "nic_limit": 2}));
        let (other, held) = (fixture.vm(), fixture.create_port(json!({"network_id": small})));
        fixture.attach(&other, json!({ "port_id": held }));
        let (add, delete) = (nics(&server), format!("{}/delete", nics(&server)));
        let on = |network: &str| json!([{ "subnet_id": network }]);
        let at = |address: &str| json!([{"subnet_id": network, "ip_address": address}]);
        let three = json!([{"subnet_id": network}, {"subnet_id": network}, {"subnet_id": network}]);
        let unfiltered = fixture.network(json!({"port_security_enabled": false}));
        fixture.subnet(&unfiltered, "203.0.113.0/28");
        let group = fixture.api.post("/v2.0/security-groups", &json!({"security_group": {}})).expect(201);
        let group = text(&group["security_group"]["id"]);
        let grouped = |network: &str, id: &str| json!([{"subnet_id": network, "security_groups": [{ "id": id }]}]);
        let without = json!([{"subnet_id": small, "ipv6_enable": true}]);
        for (path, nics, status, code, reason, words) in [
            (&add, json!([]), 400, "Ecs.0005", "invalid_value", "too short"),
            (&add, json!([{}]), 400, "Ecs.0005", "invalid_value", "neither subnet_id nor port_id"),
            (&add, json!([{"subnet_id": "blue"}]), 400, "Ecs.0005", "invalid_value", "blue"),
            (&add, without, 400, "Ecs.0005", "invalid_value", "no IPv6 subnet"),
            (&add, grouped(&network, NOBODY), 400, "Ecs.0014", "no_such_group", NOBODY),
            (&add, grouped(&network, "web"), 400, "Ecs.0005", "invalid_value", "web"),
            (&add, grouped(&unfiltered, &group), 400, "Ecs.0014", "port_security_off", "Port security"),
            (&add, json!([{"port_id": held, "security_groups": []}]), 400, "Ecs.0005", "invalid_value", "security_groups"),
            (&add, on(NOBODY), 400, "Ecs.0038", "no_such_network", NOBODY),
            (&add, on(&bare), 400, "Ecs.0014", "no_subnet", &bare),
            (&add, on(&small), 400, "Ecs.0012", "pool_empty", &small),
            (&add, at("192.0.2.1"), 400, "Ecs.0010", "address_in_use", "192.0.2.1"),
            (&add, at("203.0.113.9"), 400, "Ecs.0039", "address_outside_subnet", "203.0.113.9"),
            (&add, three, 400, "Ecs.0050", "too_many_nics", "2 interfaces"),
            (&add, json!([{"port_id": NOBODY}]), 400, "Ecs.0307", "no_such_port", NOBODY),
            (&add, json!([{"port_id": held}]), 400, "Ecs.0217", "port_in_use", &held),
            (&nics_of_nobody(), on(&network), 404, "Ecs.0114", "no_such_server", NOBODY),
            (&delete, json!([{"id": held}]), 400, "Ecs.0085", "port_not_on_server", &held),
            (&delete, json!([{"id": held}, {"id": held}]), 400, "Ecs.0005", "invalid_value", "ask for it once"),
            (&delete, json!([{"port_id": held}]), 400, "Ecs.0005", "invalid_value", "'id' is a required property"),
        ] {
            // The gateway's address goes to the one port that asks for it by name.
            if reason == "address_in_use" {
                fixture.create_port(json!({"network_id": network, "fixed_ips": [{"ip_address": "192.0.2.1"}]}));
            }
            refused(&fixture.api.post(path, &json!({ "nics": nics })), status, code, reason, words);
        }
        refused(&fixture.api.post(&add, &json!({"nics": 1})), 400, "Ecs.0005", "invalid_value", "array");
        refused(&fixture.api.post(&add, &json!({})), 400, "Ecs.0005", "invalid_body", "'nics' is a required property");
        refused(&fixture.api.get(&format!("/v1/demo/jobs/{NOBODY}")), 404, "Ecs.0000", "no_such_job", "");
        refused(&fixture.api.get("/v1/demo/jobs/x"), 404, "Ecs.0000", "no_such_job", "x");
        refused(&fixture.api.get("/v1/demo/cloudservers"), 404, "Ecs.0000", "no_such_route", "cloudservers");
        refused(&fixture.api.get(&add), 405, "Ecs.0000", "bad_method", "GET");
        let virtual_address = json!({"nic": {"subnet_id": network, "ip_address": "192.0.2.77", "reverse_binding": true}});
        let path = format!("/v1/demo/cloudservers/nics/{held}");
        refused(&fixture.api.put(&path, &virtual_address), 404, "Ecs.0000", "no_such_route", &held);
        let path = format!("/v1/demo/cloudservers/{NOBODY}/os-interface");
        refused(&fixture.api.get(&path), 404, "Ecs.0114", "no_such_server", NOBODY);
        assert_eq!(listed(&mut fixture, &server)["interfaceAttachments"], json!([]));
    });
}

fn nics_of_nobody() -> String {
    nics(NOBODY)
}

#[test]
fn a_part_that_fails_has_a_code_and_the_others_are_done() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.set_failpoints(Some("op.create_tap:2:fail=EIO"));
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        let network = fixture.usual_network();
        let server = fixture.vm();
        let asked = json!([{"subnet_id": network}, {"subnet_id": network}, {"subnet_id": network}]);
        let id = start(&mut fixture, &nics(&server), &asked);
        let failed = ended(&mut fixture, &id);
        let parts = failed["entities"]["sub_jobs"].as_array().unwrap();
        let statuses: Vec<&Value> = parts.iter().map(|part| &part["status"]).collect();
        assert_eq!(statuses, ["SUCCESS", "FAIL", "SUCCESS"]);
        assert_eq!((&failed["status"], &failed["error_code"]), (&json!("FAIL"), &json!("Common.0001")));
        assert!(text(&failed["fail_reason"]).contains("EIO") && parts[1]["fail_reason"] == failed["fail_reason"], "{failed}");
        assert_eq!((fixture.ports().len(), marked_ports().len()), (2, 2));
        // It is as durable as what succeeded.
        fixture.daemon.kill();
        fixture.daemon.set_failpoints(None);
        fixture.launch();
        assert_eq!(job(&mut fixture, &id), failed);
    });
}

#[test]
fn the_same_key_gives_the_same_job() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let body = json!({"nics": [{"subnet_id": network}]});
        let key = [("Idempotency-Key", "once")];
        let first = post_with(&mut fixture.api, &nics(&server), &key, &body).expect(200);
        ended(&mut fixture, &text(&first["job_id"]));
        assert_eq!(post_with(&mut fixture.api, &nics(&server), &key, &body).expect(200), first);
        fixture.daemon.kill();
        fixture.launch();
        assert_eq!(post_with(&mut fixture.api, &nics(&server), &key, &body).expect(200), first);
        assert_eq!(fixture.ports().len(), 1);
    });
}

/// Where a daemon can die while it carries a job out; the first part's and the second part's.
#[cfg(debug_assertions)]
const DEATHS: [&str; 16] = [
    "store.put_job:1:kill-before",
    "store.put_job:1:kill-after",
    "store.put_job:2:kill-before",
    "store.put_job:2:kill-after",
    "store.put_job:3:kill-before",
    "store.put_job:3:kill-after",
    "store.put_job:4:kill-before",
    "store.put_port:1:kill-after",
    "store.put_port:2:kill-before",
    "store.put_port:3:kill-after",
    "op.create_tap:1:kill-before",
    "op.create_tap:1:kill-after",
    "tap.persist:1:kill-after",
    "op.delete_link:1:kill-before",
    "event.port.created:1:kill-after",
    "reply.http:4:kill-before",
];

#[cfg(debug_assertions)]
#[test]
fn a_job_that_was_accepted_is_carried_out_once_wherever_the_daemon_dies() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        for death in DEATHS {
            let leaving = [(); 2].map(|()| fixture.attach_to(&server, &network));
            fixture.daemon.term();
            fixture.daemon.set_failpoints(Some(death));
            fixture.launch();
            let new = json!([{"subnet_id": network, "ip_address": "192.0.2.9"}, {"subnet_id": network}]);
            let old = json!([{"id": leaving[0]}, {"id": leaving[1]}]);
            let add = asked(&mut fixture, &nics(&server), &new);
            let delete = add.as_ref().and_then(|_| asked(&mut fixture, &format!("{}/delete", nics(&server)), &old));
            // One that is not reached is as good as none; a death may come before both jobs were asked for.
            let died = dies(&mut fixture, [&add, &delete]);
            if !died {
                fixture.daemon.term();
            }
            fixture.daemon.set_failpoints(None);
            fixture.launch();
            for id in [&add, &delete].into_iter().flatten() {
                assert_eq!(ended(&mut fixture, id)["status"], "SUCCESS", "{death}");
            }
            let added = add.as_ref().map_or_else(Vec::new, |id| ports(&job(&mut fixture, id)));
            match (&add, &delete) {
                (Some(_), Some(_)) => assert_eq!(sorted(added), fixture.port_ids(), "{death}"),
                // One that was not answered is wholly done, or was never accepted.
                _ => assert!([2, 4].contains(&settled(&mut fixture)), "{death}"),
            }
            for port in fixture.port_ids() {
                fixture.detach(&server, &port);
            }
        }
    });
}

/// Asks for a job of a daemon that may die of it.
#[cfg(debug_assertions)]
fn asked(fixture: &mut Fixture, path: &str, nics: &Value) -> Option<String> {
    let body = json!({ "nics": nics }).to_string();
    let answer = fixture.api.try_call("POST", path, &[("Content-Type", "application/json")], body.as_bytes()).ok()?;
    Some(text(&answer.expect(200)["job_id"]))
}

/// Waits until the daemon has died, or the jobs have ended.
#[cfg(debug_assertions)]
fn dies(fixture: &mut Fixture, jobs: [&Option<String>; 2]) -> bool {
    let deadline = Instant::now() + PATIENCE;
    for id in jobs.into_iter().flatten() {
        loop {
            let shown = fixture.api.try_call("GET", &format!("/v1/demo/jobs/{id}"), &[], b"");
            match shown.map(|shown| shown.json()) {
                Ok(job) if job["status"] != "INIT" && job["status"] != "RUNNING" => break,
                Ok(_) => assert!(Instant::now() < deadline),
                Err(_) => {
                    fixture.daemon.bury();
                    return true;
                }
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
    let died = jobs.iter().any(|id| id.is_none());
    if died {
        fixture.daemon.bury();
    }
    died
}

/// How many ports there are once a job that was accepted and not answered is done.
#[cfg(debug_assertions)]
fn settled(fixture: &mut Fixture) -> usize {
    let accepted = rusqlite::Connection::open(fixture.daemon.state().join("nicd.db")).unwrap();
    let open = || -> i64 {
        let sql = "SELECT count(*) FROM jobs WHERE json_extract(body, '$.ended_at') IS NULL";
        accepted.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let deadline = Instant::now() + PATIENCE;
    while open() > 0 || fixture.ports().iter().any(|port| port["nicd:phase"] == "detaching") {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(5));
    }
    fixture.ports().len()
}

#[cfg(debug_assertions)]
fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}
