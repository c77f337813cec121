//! Security groups are one set for all hosts: made, changed and deleted at any of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::daemon::{Answer, PATIENCE};
use crate::hosts::{Host, with_etcd};
use crate::netns::comes_true;

const GROUPS: &str = "/v2.0/security-groups";
const RULES: &str = "/v2.0/security-group-rules";

/// A group, made at a host.
fn group(host: &mut Host, name: &str) -> String {
    let made = host.client.post(GROUPS, &json!({"security_group": {"name": name}})).expect(201);
    made["security_group"]["id"].as_str().unwrap().to_owned()
}

fn show(host: &mut Host, group: &str) -> Value {
    let answer = host.client.get(&format!("{GROUPS}/{group}"));
    if answer.status == 200 { answer.json()["security_group"].clone() } else { Value::Null }
}

/// Waits until a host shows a group as another one does.
fn follows(host: &mut Host, group: &str, wanted: &Value) {
    let mut seen = Value::Null;
    let is_same = || {
        seen = show(host, group);
        seen == *wanted
    };
    comes_true(PATIENCE, is_same, || format!("{group} is never {wanted}"));
}

fn rule(group: &str, more: &Value) -> Value {
    let mut rule = json!({"security_group_id": group, "direction": "ingress", "protocol": "tcp"});
    rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"security_group_rule": rule})
}

fn port(host: &mut Host, network: &str, groups: &[&str]) -> Answer {
    host.client.post("/v2.0/ports", &json!({"port": {"network_id": network, "security_groups": groups}}))
}

/// A network that both hosts know.
fn network(one: &mut Host, two: &mut Host) -> String {
    let made = one.client.post("/v2.0/networks", &json!({"network": {"provider:network_type": "vxlan"}})).expect(201);
    let id = made["network"]["id"].as_str().unwrap().to_owned();
    one.client.post("/v2.0/subnets", &json!({"subnet": {"network_id": id, "cidr": "192.0.2.0/24"}})).expect(201);
    let has_subnet = || two.client.get(&format!("/v2.0/subnets?network_id={id}")).expect(200)["subnets"][0].is_object();
    comes_true(PATIENCE, has_subnet, || "the subnet is not seen".to_owned());
    id
}

#[test]
fn a_group_of_any_host_is_every_hosts_and_goes_once_no_host_uses_it() {
    with_etcd(|_| {
        let (mut one, mut two) = (Host::started("node-1", 1), Host::started("node-2", 2));
        let network = network(&mut one, &mut two);
        let web = group(&mut one, "web");
        let shown = show(&mut one, &web);
        follows(&mut two, &web, &shown);
        // Changed at the other one, also by both in turn: no change is lost.
        let db = group(&mut two, "db");
        for port in 1..=5 {
            one.client.post(RULES, &rule(&web, &json!({"port_range_min": port, "port_range_max": port}))).expect(201);
            let other = json!({"port_range_min": 100 + port, "port_range_max": 100 + port});
            two.client.post(RULES, &rule(&web, &other)).expect(201);
        }
        two.client.post(RULES, &rule(&web, &json!({"port_range_min": 1, "port_range_max": 1}))).refused(409, "rule_exists");
        two.client.post(RULES, &rule(&db, &json!({"remote_group_id": web}))).expect(201);
        let shown = show(&mut two, &web);
        assert_eq!(shown["security_group_rules"].as_array().unwrap().len(), 12);
        assert_eq!(shown["revision_number"], 11);
        follows(&mut one, &web, &shown);
        let first = shown["security_group_rules"][2]["id"].as_str().unwrap().to_owned();
        assert_eq!(one.client.get(&format!("{RULES}/{first}")).status, 200);
        assert_eq!(two.client.delete(&format!("{RULES}/{first}")).status, 204);
        let renamed = json!({"security_group": {"name": "front"}});
        let shown = two.client.put(&format!("{GROUPS}/{web}"), &renamed).expect(200)["security_group"].clone();
        follows(&mut one, &web, &shown);
        // A port of any host keeps it.
        let used = port(&mut two, &network, &[&web]).expect(201)["port"]["id"].as_str().unwrap().to_owned();
        let path = format!("{GROUPS}/{web}");
        two.client.delete(&path).refused(409, "group_in_use");
        let seen = || one.client.get(&format!("/v2.0/ports/{used}")).status == 200;
        comes_true(PATIENCE, seen, || "the port is not told of".to_owned());
        let refused = one.client.delete(&path).refused(409, "group_in_use");
        assert!(refused.to_string().contains("node-2"), "{refused}");
        let leaves = json!({"port": {"security_groups": []}});
        two.client.put(&format!("/v2.0/ports/{used}"), &leaves).expect(200);
        comes_true(PATIENCE, || one.client.delete(&path).status == 204, || "it is never free".to_owned());
        comes_true(PATIENCE, || show(&mut two, &web).is_null(), || "it stays".to_owned());
        // The rule that named it went with it.
        let shown = show(&mut one, &db);
        assert_eq!(shown["security_group_rules"].as_array().unwrap().len(), 2);
        follows(&mut two, &db, &shown);
    });
}

#[test]
fn a_port_that_is_made_while_its_group_is_deleted_elsewhere_has_its_group() {
    with_etcd(|_| {
        let (mut one, mut two) = (Host::started("node-1", 1), Host::started("node-2", 2));
        let network = network(&mut one, &mut two);
        for _ in 0..10 {
            let id = group(&mut one, "web");
            comes_true(PATIENCE, || !show(&mut two, &id).is_null(), || "it is not seen".to_owned());
            let (made, deleted) = std::thread::scope(|both| {
                let made = both.spawn(|| port(&mut two, &network, &[&id]));
                let deleted = both.spawn(|| one.client.delete(&format!("{GROUPS}/{id}")).status);
                (made.join().unwrap(), deleted.join().unwrap())
            });
            match made.status {
                201 => {
                    // It is not deleted, or comes back.
                    assert!([204, 409].contains(&deleted), "{deleted}");
                    let is_there = |host: &mut Host| !show(host, &id).is_null();
                    comes_true(PATIENCE, || is_there(&mut one) && is_there(&mut two), || "a port's group is gone".to_owned());
                    let port = made.json()["port"]["id"].as_str().unwrap().to_owned();
                    assert_eq!(
                        two.client.get(&format!("/v2.0/ports/{port}")).expect(200)["port"]["security_groups"],
                        json!([id])
                    );
                }
                404 => {
                    assert_eq!(deleted, 204);
                    comes_true(PATIENCE, || show(&mut two, &id).is_null(), || "it stays".to_owned());
                }
                other => panic!("{other}: {}", made.text),
            }
        }
        // All hosts say the same in the end.
        let all = |host: &mut Host| {
            let listed = host.client.get(GROUPS).expect(200)["security_groups"].as_array().unwrap().clone();
            listed.iter().map(Value::to_string).collect::<BTreeSet<_>>()
        };
        comes_true(PATIENCE, || all(&mut one) == all(&mut two), || "hosts tell of other groups".to_owned());
    });
}

#[test]
fn without_etcd_groups_stay_as_they_are_and_an_emptied_etcd_gets_them_again() {
    with_etcd(|node| {
        let (mut one, mut two) = (Host::started("node-1", 1), Host::started("node-2", 2));
        let network = network(&mut one, &mut two);
        let web = group(&mut one, "web");
        let shown = show(&mut one, &web);
        follows(&mut two, &web, &shown);
        node.kill();
        let path = format!("{GROUPS}/{web}");
        two.client.post(GROUPS, &json!({"security_group": {"name": "db"}})).refused(503, "fleet_unreachable");
        two.client.put(&path, &json!({"security_group": {"name": "db"}})).refused(503, "fleet_unreachable");
        two.client.post(RULES, &rule(&web, &json!({}))).refused(503, "fleet_unreachable");
        let own = shown["security_group_rules"][0]["id"].as_str().unwrap();
        two.client.delete(&format!("{RULES}/{own}")).refused(503, "fleet_unreachable");
        two.client.delete(&path).refused(503, "fleet_unreachable");
        assert_eq!(show(&mut two, &web), shown);
        // It is known after a restart too.
        two.daemon.kill();
        two.launch();
        assert_eq!(show(&mut two, &web), shown);
        node.restart();
        two.joins();
        port(&mut two, &network, &[&web]).expect(201);
        // What a backup lacks is put again.
        node.empty();
        one.is_connected(false);
        two.is_connected(false);
        node.restart();
        for host in [&mut one, &mut two] {
            host.joins();
            assert_eq!(show(host, &web), shown);
        }
        one.client.post(RULES, &rule(&web, &json!({}))).expect(201);
        let shown = show(&mut one, &web);
        follows(&mut two, &web, &shown);
    });
}

/// With the default groups of Neutron.
fn with_defaults(host: &mut Host) {
    let config = host.daemon.config();
    let settings = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{settings}[filters]\ndefault_group = true\n")).unwrap();
}

fn defaults(host: &mut Host) -> Vec<(String, String)> {
    let listed = host.client.get(&format!("{GROUPS}?project_id=blue")).expect(200)["security_groups"].clone();
    let text = |group: &Value, key: &str| group[key].as_str().unwrap().to_owned();
    let mut all: Vec<_> = listed.as_array().unwrap().iter().map(|group| (text(group, "name"), text(group, "id"))).collect();
    all.sort();
    all
}

#[test]
fn the_default_group_of_a_project_is_one_for_all_hosts() {
    with_etcd(|_| {
        let (mut one, mut two, mut three) = (Host::new("node-1", 1), Host::new("node-2", 2), Host::new("node-3", 3));
        for host in [&mut one, &mut two, &mut three] {
            with_defaults(host);
        }
        // One had its own before it came into the fleet.
        let in_fleet = std::fs::read_to_string(three.daemon.config()).unwrap();
        std::fs::write(three.daemon.config(), "[filters]\ndefault_group = true\n").unwrap();
        three.launch();
        let alone = three.client.post("/v2.0/networks", &json!({"network": {}})).expect(201)["network"]["id"].clone();
        let new = json!({"port": {"network_id": alone, "project_id": "blue"}});
        let own = three.client.post("/v2.0/ports", &new).expect(201)["port"].clone();
        three.daemon.term();
        for host in [&mut one, &mut two] {
            host.launch();
            host.joins();
        }
        let network = network(&mut one, &mut two);
        // Two make it at once.
        let new = json!({"port": {"network_id": network, "project_id": "blue"}});
        let (first, second) = std::thread::scope(|both| {
            let first = both.spawn(|| one.client.post("/v2.0/ports", &new).expect(201)["port"].clone());
            let second = both.spawn(|| two.client.post("/v2.0/ports", &new).expect(201)["port"].clone());
            (first.join().unwrap(), second.join().unwrap())
        });
        assert_eq!(first["security_groups"], second["security_groups"]);
        let shared = first["security_groups"][0].as_str().unwrap().to_owned();
        assert_eq!(defaults(&mut two), [("default".to_owned(), shared.clone())]);
        // That one's stays, under another name, with its ports.
        std::fs::write(three.daemon.config(), in_fleet).unwrap();
        three.launch();
        three.joins();
        let beside = own["security_groups"][0].as_str().unwrap().to_owned();
        let wanted = [("default".to_owned(), shared.clone()), ("default-node-3".to_owned(), beside)];
        for host in [&mut three, &mut one, &mut two] {
            comes_true(PATIENCE, || defaults(host) == wanted, || "the default groups are others".to_owned());
        }
        let path = format!("/v2.0/ports/{}", own["id"].as_str().unwrap());
        assert_eq!(three.client.get(&path).expect(200)["port"]["security_groups"], own["security_groups"]);
        let seen = || three.client.get(&format!("/v2.0/networks/{network}")).status == 200;
        comes_true(PATIENCE, seen, || "the network is not seen".to_owned());
        assert_eq!(three.client.post("/v2.0/ports", &new).expect(201)["port"]["security_groups"], json!([shared]));
        one.client.delete(&format!("{GROUPS}/{shared}")).refused(409, "default_group");
    });
}
