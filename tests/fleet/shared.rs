//! What all hosts have: networks and subnets that one host makes are every host's, their ports have addresses and MACs of their own, and
//! reach each other.

use serde_json::{Value, json};

use crate::daemon::PATIENCE;
use crate::hosts::{Host, with_etcd};
use crate::netns::{Guest, comes_true, try_run};

/// A VXLAN network with a subnet, made at a host.
fn network(host: &mut Host, cidr: &str) -> String {
    let made = host.client.post("/v2.0/networks", &json!({"network": {"name": "blue", "provider:network_type": "vxlan"}})).expect(201);
    assert_eq!(made["network"]["nicd:scope"], "fleet");
    let id = made["network"]["id"].as_str().unwrap().to_owned();
    host.client.post("/v2.0/subnets", &json!({"subnet": {"network_id": id, "cidr": cidr}})).expect(201);
    id
}

/// Waits until a host has a network with so many subnets.
fn has(host: &mut Host, network: &str, subnets: usize) -> Value {
    let path = format!("/v2.0/networks/{network}");
    let mut seen = Value::Null;
    let there = || {
        let answer = host.client.get(&path);
        seen = answer.json()["network"].clone();
        answer.status == 200 && seen["subnets"].as_array().unwrap().len() == subnets
    };
    comes_true(PATIENCE, there, || format!("{path} is not there with {subnets} subnets"));
    seen
}

/// A guest of this host's on a network, and its port.
fn guest(host: &mut Host, network: &str, number: u8) -> (Guest, Value) {
    let guest = Guest::new(&format!("guest-{number}"));
    let server = format!("00000000-0000-4000-8000-0000000000{number:02}");
    let body = json!({"server": {"guest": {"kind": "netns", "path": guest.path}}});
    assert!(host.client.put(&format!("/nicd/v1/servers/{server}"), &body).status < 300);
    let port = attach(host, network, &server);
    (guest, port)
}

fn attach(host: &mut Host, network: &str, server: &str) -> Value {
    let path = format!("/v2.1/servers/{server}/os-interface");
    let attached = host.client.post(&path, &json!({"interfaceAttachment": {"net_id": network}})).expect(200);
    attached["interfaceAttachment"].clone()
}

fn address(port: &Value) -> String {
    port["fixed_ips"][0]["ip_address"].as_str().unwrap().to_owned()
}

/// Waits until one guest reaches another.
fn reaches(from: &Guest, to: &Value) {
    let ping = format!("ip netns exec {} ping -c 1 -W 1 {}", from.name, address(to));
    let mut said = String::new();
    let answered = || try_run(&ping).map_err(|error| said = error).is_ok();
    comes_true(PATIENCE, answered, || format!("{ping} has no answer"));
}

#[test]
fn guests_on_all_hosts_of_one_network_reach_each_other() {
    with_etcd(|_| {
        let mut hosts = [Host::started("node-1", 1), Host::started("node-2", 2), Host::started("node-3", 3)];
        let id = network(&mut hosts[0], "192.0.2.0/24");
        for host in &mut hosts {
            has(host, &id, 1);
        }
        let guests: Vec<(Guest, Value)> = (1..).zip(&mut hosts).map(|(number, host)| guest(host, &id, number)).collect();
        for (from, _) in &guests {
            for (_, to) in guests.iter().filter(|(guest, _)| guest.name != from.name) {
                reaches(from, to);
            }
        }
        let mut addresses: Vec<String> = guests.iter().map(|(_, port)| address(port)).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 3);
        // It is in use elsewhere, and goes once it is not.
        hosts[0].client.delete(&format!("/v2.0/networks/{id}")).refused(409, "network_in_use");
        for (host, (_, port)) in hosts.iter_mut().zip(&guests) {
            let port = port["port_id"].as_str().unwrap();
            assert_eq!(host.client.delete(&format!("/v2.0/ports/{port}")).status, 204);
        }
        let path = format!("/v2.0/networks/{id}");
        comes_true(PATIENCE, || hosts[0].client.delete(&path).status == 204, || "the network is not deleted".to_owned());
        for host in &mut hosts {
            comes_true(PATIENCE, || host.client.get(&path).status == 404, || "the network stays".to_owned());
        }
    });
}
