//! What all hosts have: networks and subnets that one host makes are every host's, their ports have addresses and MACs of their own, and
//! reach each other.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::daemon::PATIENCE;
use crate::hosts::{Host, with_etcd};
use crate::netns::{Guest, comes_true, try_run};

/// A VXLAN network with a subnet, made at a host.
pub fn network(host: &mut Host, cidr: &str) -> String {
    let made =
        host.client.post("/v2.0/networks", &json!({"network": {"name": "blue", "provider:network_type": "vxlan"}})).expect(201);
    assert_eq!(made["network"]["nicd:scope"], "fleet");
    let id = made["network"]["id"].as_str().unwrap().to_owned();
    host.client.post("/v2.0/subnets", &json!({"subnet": {"network_id": id, "cidr": cidr}})).expect(201);
    id
}

/// Waits until a host has a network with so many subnets.
pub fn has(host: &mut Host, network: &str, subnets: usize) -> Value {
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
pub fn guest(host: &mut Host, network: &str, number: u8) -> (Guest, Value) {
    let guest = Guest::new(&format!("guest-{number}"));
    let server = format!("00000000-0000-4000-8000-0000000000{number:02}");
    let body = json!({"server": {"guest": {"kind": "netns", "path": guest.path}}});
    assert!(host.client.put(&format!("/nicd/v1/servers/{server}"), &body).status < 300);
    let port = attach(host, network, &server);
    (guest, port)
}

pub fn attach(host: &mut Host, network: &str, server: &str) -> Value {
    let path = format!("/v2.1/servers/{server}/os-interface");
    let attached = host.client.post(&path, &json!({"interfaceAttachment": {"net_id": network}})).expect(200);
    attached["interfaceAttachment"].clone()
}

pub fn address(port: &Value) -> String {
    port["fixed_ips"][0]["ip_address"].as_str().unwrap().to_owned()
}

/// Waits until one guest reaches another.
pub fn reaches(from: &Guest, to: &Value) {
    let ping = format!("ip netns exec {} ping -c 1 -W 1 {}", from.name, address(to));
    let mut said = String::new();
    let answered = || try_run(&ping).map_err(|error| said = error).is_ok();
    let entries = || {
        let of = |host: u8| {
            [format!("bridge -n host-{host} fdb"), format!("ip -n host-{host} neigh"), format!("ip -n host-{host} -d link")]
        };
        (1..=3).flat_map(of).map(|look| format!("{look}\n{}", try_run(&look).unwrap_or_default())).collect::<String>()
    };
    comes_true(PATIENCE, answered, || format!("{ping} has no answer\n{}", entries()));
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
            // No trouble is told of while its devices were made and deleted.
            let log = std::fs::read_to_string(host.daemon.config().with_file_name("log")).unwrap();
            assert!(!log.contains("not_on_uplink"), "{log}");
        }
    });
}

/// A port of a network that has no server.
fn port(host: &mut Host, network: &str) -> crate::daemon::Answer {
    host.client.post("/v2.0/ports", &json!({"port": {"network_id": network}}))
}

/// The address and the MAC of a port.
fn of(port: &Value) -> (String, String) {
    (address(&port["port"]), port["port"]["mac_address"].as_str().unwrap().to_owned())
}

#[test]
fn without_etcd_ports_are_made_from_what_is_reserved_and_told_of_later() {
    with_etcd(|node| {
        let (mut one, mut two) = (Host::started("node-1", 1), Host::started("node-2", 2));
        let id = network(&mut one, "192.0.2.0/24");
        has(&mut two, &id, 1);
        let mut all = vec![of(&port(&mut one, &id).expect(201)), of(&port(&mut two, &id).expect(201))];
        for host in [&mut one, &mut two] {
            let enough = |host: &mut Host| host.fleet()["reserved"][0]["free"].as_u64().is_some_and(|free| free >= 16);
            comes_true(PATIENCE, || enough(host), || "16 addresses are not reserved".to_owned());
        }
        node.kill();
        for host in [&mut one, &mut two] {
            all.extend((0..16).map(|_| of(&port(host, &id).expect(201))));
            // One that was started without etcd goes on from what it had reserved.
            host.daemon.kill();
            host.launch();
        }
        // What is lacking is said once that is known.
        host_runs_out(&mut one, &id, &mut all);
        one.client.post("/v2.0/networks", &json!({"network": {}})).refused(503, "fleet_unreachable");
        one.client.delete(&format!("/v2.0/networks/{id}")).refused(409, "network_in_use");
        node.restart();
        for host in [&mut one, &mut two] {
            host.joins();
            comes_true(PATIENCE, || port(host, &id).status == 201, || "no port is made again".to_owned());
        }
        for host in [&mut one, &mut two] {
            let ports = host.client.get(&format!("/v2.0/ports?network_id={id}&binding:host_id=")).expect(200);
            all.extend(ports["ports"].as_array().unwrap().iter().map(|port| of(&json!({"port": port}))));
        }
        let count = |pick: fn(&(String, String)) -> &String| {
            let mut each: Vec<&String> = all.iter().map(pick).collect();
            each.sort();
            each.dedup();
            each.len()
        };
        assert_eq!(count(|both| &both.0), count(|both| &both.1), "{all:?}");
    });
}

/// Makes ports until there is no address left.
fn host_runs_out(host: &mut Host, network: &str, all: &mut Vec<(String, String)>) {
    for _ in 0..64 {
        let answer = port(host, network);
        if answer.status == 503 {
            assert!(answer.text.contains("fleet_unreachable"), "{}", answer.text);
            return;
        }
        all.push(of(&answer.expect(201)));
    }
    panic!("a host without etcd has more than 64 addresses");
}

#[test]
fn an_address_or_mac_that_another_host_has_reserved_is_refused_in_words() {
    with_etcd(|_| {
        let (mut one, mut two) = (Host::started("node-1", 1), Host::started("node-2", 2));
        let id = network(&mut one, "192.0.2.0/24");
        has(&mut two, &id, 1);
        let (ip, mac) = of(&port(&mut one, &id).expect(201));
        let with = |key: &str, value: Value| json!({"port": {"network_id": id, key: value}});
        let refused =
            two.client.post("/v2.0/ports", &with("fixed_ips", json!([{"ip_address": ip}]))).refused(409, "reserved_elsewhere");
        assert!(refused.to_string().contains("node-1"), "{refused}");
        two.client.post("/v2.0/ports", &with("mac_address", json!(mac))).refused(409, "reserved_elsewhere");
        // Any other is claimed at once, also in a block of its own.
        let free = two.client.post("/v2.0/ports", &with("fixed_ips", json!([{"ip_address": "192.0.2.250"}]))).expect(201);
        assert_eq!(of(&free).0, "192.0.2.250");
        let named = json!("02:00:00:00:00:07");
        two.client.post("/v2.0/ports", &with("mac_address", named.clone())).expect(201);
        one.client.post("/v2.0/ports", &with("mac_address", named)).refused(409, "reserved_elsewhere");
        one.client
            .post("/v2.0/ports", &with("fixed_ips", json!([{"ip_address": "192.0.2.251"}])))
            .refused(409, "reserved_elsewhere");
        // A network of one host alone asks nobody.
        let own = two.client.post("/v2.0/networks", &json!({"network": {"nicd:scope": "host"}})).expect(201);
        let own = own["network"]["id"].as_str().unwrap();
        two.client.post("/v2.0/subnets", &json!({"subnet": {"network_id": own, "cidr": "192.0.2.0/24"}})).expect(201);
        let both = json!({"port": {"network_id": own, "fixed_ips": [{"ip_address": ip}]}});
        two.client.post("/v2.0/ports", &both).expect(201);
        one.client.get(&format!("/v2.0/networks/{own}")).refused(404, "no_such_network");
    });
}

#[test]
fn what_one_host_changes_is_changed_at_all_and_no_change_is_lost() {
    with_etcd(|_| {
        let (mut one, mut two) = (Host::started("node-1", 1), Host::started("node-2", 2));
        let id = network(&mut one, "192.0.2.0/24");
        has(&mut two, &id, 1);
        let path = format!("/v2.0/networks/{id}");
        // Each change is of what was there before, also where another host has just made that.
        for n in 0..10 {
            let change = json!({"network": {"name": format!("blue-{n}")}});
            assert_eq!(one.client.put(&path, &change).expect(200)["network"]["revision_number"], 2 * n + 2);
            let change = json!({"network": {"description": format!("of {n}")}});
            let changed = two.client.put(&path, &change).expect(200)["network"].clone();
            assert_eq!((&changed["name"], &changed["revision_number"]), (&json!(format!("blue-{n}")), &json!(2 * n + 3)));
        }
        let is_seen = || one.client.get(&path).expect(200)["network"]["description"] == "of 9";
        comes_true(PATIENCE, is_seen, || "the change is not seen".to_owned());
        // Of two subnets that overlap, one is made.
        let subnet = |cidr: &str| json!({"subnet": {"network_id": id, "cidr": cidr}});
        let (first, second) = std::thread::scope(|both| {
            let at_one = both.spawn(|| one.client.post("/v2.0/subnets", &subnet("198.51.100.0/24")).status);
            let at_two = both.spawn(|| two.client.post("/v2.0/subnets", &subnet("198.51.100.128/25")).status);
            (at_one.join().unwrap(), at_two.join().unwrap())
        });
        let mut answers = [first, second];
        answers.sort_unstable();
        assert_eq!(answers, [201, 400]);
        has(&mut one, &id, 2);
        let shown = has(&mut two, &id, 2);
        // All or none, also of more than etcd takes at once.
        let many = |number: usize| json!({"networks": vec![json!({"provider:network_type": "vxlan"}); number]});
        two.client.post("/v2.0/networks", &many(100)).refused(400, "too_many_at_once");
        assert_eq!(two.client.get("/v2.0/networks").expect(200)["networks"].as_array().unwrap().len(), 1);
        let made = two.client.post("/v2.0/networks", &many(40)).expect(201)["networks"].clone();
        for network in made.as_array().unwrap() {
            assert_eq!(two.client.delete(&format!("/v2.0/networks/{}", network["id"].as_str().unwrap())).status, 204);
        }
        // No two networks have one number.
        let vni = shown["provider:segmentation_id"].clone();
        let same = json!({"network": {"provider:network_type": "vxlan", "provider:segmentation_id": vni}});
        two.client.post("/v2.0/networks", &same).refused(409, "segment_in_use");
        let subnet = shown["subnets"][1].as_str().unwrap().to_owned();
        assert_eq!(two.client.delete(&format!("/v2.0/subnets/{subnet}")).status, 204);
        has(&mut one, &id, 1);
    });
}

#[test]
fn an_etcd_that_was_emptied_takes_nothing_away_and_gets_all_again() {
    with_etcd(|node| {
        let (mut one, mut two) = (Host::started("node-1", 1), Host::started("node-2", 2));
        let id = network(&mut one, "192.0.2.0/24");
        has(&mut two, &id, 1);
        let (_first, _) = guest(&mut one, &id, 1);
        let (second, _) = guest(&mut two, &id, 2);
        let own = |host: &mut Host, name: &str| {
            host.client.get(&format!("/v2.0/ports?binding:host_id={name}")).expect(200)["ports"].clone()
        };
        let before = [own(&mut one, "node-1"), own(&mut two, "node-2")];
        node.empty();
        node.restart();
        let both = || one.client.get("/nicd/v1/hosts").json()["hosts"].as_array().is_some_and(|hosts| hosts.len() == 2);
        comes_true(PATIENCE, both, || "the hosts do not register again".to_owned());
        // A third one gets the network from those that have it.
        let mut three = Host::started("node-3", 3);
        has(&mut three, &id, 1);
        let (third, _) = {
            let begun = std::time::Instant::now();
            // New claims wait until all hosts had the time to tell of theirs.
            loop {
                let answer = port(&mut three, &id);
                if answer.status == 201 {
                    break;
                }
                answer.refused(503, "fleet_unreachable");
                assert!(begun.elapsed() < std::time::Duration::from_secs(60));
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            guest(&mut three, &id, 3)
        };
        for (host, ports) in [&mut one, &mut two].into_iter().zip(&before) {
            for port in ports.as_array().unwrap() {
                let now = host.client.get(&format!("/v2.0/ports/{}", port["id"].as_str().unwrap())).expect(200);
                assert_eq!((&now["port"]["status"], &now["port"]["fixed_ips"]), (&port["status"], &port["fixed_ips"]));
            }
        }
        let to = json!({"fixed_ips": before[0][0]["fixed_ips"]});
        reaches(&third, &to);
        reaches(&second, &to);
    });
}

/// The events of all hosts' ports, as a host tells them.
struct FleetEvents(Child, BufReader<ChildStdout>);

impl FleetEvents {
    /// From a revision on that was seen.
    fn at(host: &mut Host) -> Self {
        let (socket, seen) = (host.daemon.socket(), host.fleet()["revision"].to_string());
        let mut child = Command::new("curl")
            .args(["-sN", "-m", "60", "-H", "Accept: application/x-ndjson", "--unix-socket"])
            .arg(socket)
            .args(["-H", &format!("Last-Event-ID: {seen}")])
            .arg("http://localhost/nicd/v1/events?scope=fleet")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        Self(child, told)
    }

    /// The next one that is wanted.
    fn next(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut line = String::new();
        while self.1.read_line(&mut line).unwrap() > 0 {
            match serde_json::from_str(&line) {
                Ok(event) if wanted(&event) => return event,
                _ => line.clear(),
            }
        }
        panic!("the events have ended");
    }
}

impl Drop for FleetEvents {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_another_host_has_is_seen_here_and_done_there() {
    with_etcd(|_| {
        let (mut one, mut two) = (Host::started("node-1", 1), Host::started("node-2", 2));
        let id = network(&mut one, "192.0.2.0/24");
        has(&mut two, &id, 1);
        let (_guest, first) = guest(&mut two, &id, 2);
        let server = "00000000-0000-4000-8000-000000000002";
        let known = |host: &mut Host| host.client.get(&format!("/nicd/v1/servers/{server}")).status == 200;
        comes_true(PATIENCE, || known(&mut one), || "the server is not seen".to_owned());
        let mut events = FleetEvents::at(&mut one);
        let second = attach(&mut one, &id, server);
        assert_ne!(address(&second), address(&first));
        let path = format!("/v2.0/ports/{}", second["port_id"].as_str().unwrap());
        let at_two = two.client.get(&path).expect(200)["port"].clone();
        assert_eq!(at_two["binding:host_id"], "node-2");
        comes_true(PATIENCE, || one.client.get(&path).json()["port"]["status"] == "ACTIVE", || "never ACTIVE".to_owned());
        for query in
            [format!("device_id={server}"), format!("network_id={id}"), "binding:host_id=node-2".to_owned(), String::new()]
        {
            let listed = one.client.get(&format!("/v2.0/ports?{query}")).expect(200);
            let hosts: Vec<&Value> = listed["ports"].as_array().unwrap().iter().map(|port| &port["binding:host_id"]).collect();
            assert_eq!(hosts, [&json!("node-2"), &json!("node-2")], "{query}");
        }
        assert_eq!(one.client.get("/v2.0/ports?binding:host_id=node-1").expect(200)["ports"], json!([]));
        let interfaces = one.client.get(&format!("/v2.1/servers/{server}/os-interface")).expect(200);
        assert_eq!(interfaces["interfaceAttachments"].as_array().unwrap().len(), 2);
        let servers = one.client.get("/v2.1/servers/detail").expect(200);
        assert_eq!(servers["servers"][0]["addresses"]["blue"].as_array().unwrap().len(), 2);
        let facts = one.client.get(&format!("/nicd/v1/ports/{}/explain", second["port_id"].as_str().unwrap()));
        assert_eq!(facts.status, 200, "{}", facts.text);
        let named = one.client.put(&path, &json!({"port": {"name": "second"}})).expect(200);
        assert_eq!(
            (&named["port"]["name"], &two.client.get(&path).expect(200)["port"]["name"]),
            (&json!("second"), &json!("second"))
        );
        assert_eq!(one.client.delete(&path).status, 204);
        comes_true(PATIENCE, || two.client.get(&path).status == 404, || "it stays".to_owned());
        comes_true(PATIENCE, || one.client.get(&path).status == 404, || "it is seen still".to_owned());
        let id = second["port_id"].as_str().unwrap();
        for (event, new) in [("port.created", None), ("port.status", Some("ACTIVE")), ("port.deleted", None)] {
            let told =
                events.next(|one| one["port_id"] == id && one["event"] == event && new.is_none_or(|new| one["new"] == new));
            assert_eq!(told["host_id"], "node-2");
        }
    });
}

#[test]
fn what_a_silent_host_is_to_make_is_made_once_or_not_at_all() {
    with_etcd(|_| {
        let (mut one, mut two) = (Host::started("node-1", 1), Host::started("node-2", 2));
        let id = network(&mut one, "192.0.2.0/24");
        has(&mut two, &id, 1);
        let (_guest, _) = guest(&mut two, &id, 2);
        let server = "00000000-0000-4000-8000-000000000002";
        comes_true(PATIENCE, || one.client.get(&format!("/nicd/v1/servers/{server}")).status == 200, || "not seen".to_owned());
        two.daemon.kill();
        let path = format!("/v2.1/servers/{server}/os-interface");
        let ask = || {
            let mut client = one.daemon.client();
            client.post(&path, &json!({"interfaceAttachment": {"net_id": id}})).refused(504, "host_silent");
        };
        std::thread::scope(|both| {
            both.spawn(ask);
            both.spawn(ask);
        });
        let waiting = |host: &mut Host| -> Vec<String> {
            let listed = host.client.get(&format!("/v2.0/ports?network_id={id}")).expect(200);
            let all = listed["ports"].as_array().unwrap().iter();
            all.filter(|port| port["nicd:reason"] == "host_silent").map(|port| port["id"].as_str().unwrap().to_owned()).collect()
        };
        let ports = waiting(&mut one);
        assert_eq!(ports.len(), 2);
        let shown = one.client.get(&format!("/v2.0/ports/{}", ports[0])).expect(200)["port"].clone();
        assert_eq!(
            (&shown["status"], &shown["binding:host_id"], &shown["device_id"]),
            (&json!("BUILD"), &json!("node-2"), &json!(server))
        );
        // One is not wanted any more.
        assert_eq!(one.client.delete(&format!("/v2.0/ports/{}", ports[1])).status, 204);
        assert_eq!(waiting(&mut one), ports[..1]);
        two.launch();
        let made = format!("/v2.0/ports/{}", ports[0]);
        comes_true(PATIENCE, || two.client.get(&made).json()["port"]["status"] == "ACTIVE", || "the port is not made".to_owned());
        let listed = two.client.get("/v2.0/ports?binding:host_id=node-2").expect(200);
        assert_eq!(listed["ports"].as_array().unwrap().len(), 2, "{listed}");
        comes_true(PATIENCE, || waiting(&mut one).is_empty(), || "it waits still".to_owned());
        assert_eq!(one.client.delete(&made).status, 204);
    });
}

#[test]
fn nothing_is_left_of_a_host_that_is_forgotten_and_what_it_has_lost_it_can_replace() {
    with_etcd(|_| {
        let (mut one, mut two) = (Host::started("node-1", 1), Host::started("node-2", 2));
        let id = network(&mut one, "192.0.2.0/24");
        has(&mut two, &id, 1);
        let lost = port(&mut two, &id).expect(201)["port"].clone();
        let server = "00000000-0000-4000-8000-000000000077";
        let body = json!({"server": {"guest": {"kind": "vm"}}});
        assert!(two.client.put(&format!("/nicd/v1/servers/{server}"), &body).status < 300);
        let attach = json!({"interfaceAttachment": {"port_id": lost["id"]}});
        two.client.post(&format!("/v2.1/servers/{server}/os-interface"), &attach).expect(200);
        let told = |host: &mut Host| host.client.get("/v2.0/ports").expect(200)["ports"].as_array().unwrap().len();
        comes_true(PATIENCE, || told(&mut one) == 1, || "the port is not told of".to_owned());
        two.daemon.term();
        assert_eq!(one.client.delete("/nicd/v1/hosts/node-2").status, 204);
        assert_eq!(told(&mut one), 0);
        // What it had is free: its address, and the network itself.
        let path = format!("/v2.0/networks/{id}");
        assert_eq!(one.client.delete(&path).status, 204);
        two.launch();
        two.joins();
        // It has a port on the network, which comes back with it.
        has(&mut one, &id, 1);
        comes_true(PATIENCE, || told(&mut one) == 1, || "the port is not told of again".to_owned());
        two.daemon.term();
        assert_eq!(one.client.delete("/nicd/v1/hosts/node-2").status, 204);
        let same = json!({"port": {"network_id": id, "fixed_ips": [{"ip_address": lost["fixed_ips"][0]["ip_address"]}]}});
        one.client.post("/v2.0/ports", &same).expect(201);
        two.launch();
        two.joins();
        let path = format!("/v2.0/ports/{}", lost["id"].as_str().unwrap());
        let shown = |host: &mut Host| host.client.get(&path).expect(200)["port"].clone();
        let reason = |host: &mut Host| shown(host)["nicd:reason"].clone();
        comes_true(PATIENCE, || reason(&mut two) == "claim_lost", || "its address is another host's".to_owned());
        assert_eq!(shown(&mut two)["status"], "DOWN");
        let another = json!({"port": {"fixed_ips": [{"subnet_id": lost["fixed_ips"][0]["subnet_id"]}]}});
        assert_ne!(address(&two.client.put(&path, &another).expect(200)["port"]), address(&lost));
        comes_true(PATIENCE, || reason(&mut two) != "claim_lost", || "its address is its own".to_owned());
    });
}
