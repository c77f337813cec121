//! What the kernel has for a VXLAN network, and what becomes of it by others' hands.

use serde_json::{Value, json};

use crate::hosts::{Host, Underlay, VNI};
use crate::netns::{in_netns, run};

fn two() -> [Host; 2] {
    run("ip link add under type bridge mcast_snooping 0");
    run("ip link set under up");
    let hosts = [1, 2].map(|number| Host::new(number, Underlay::V4));
    hosts.iter().for_each(|host| _ = host.attach());
    hosts[0].tell(&[&hosts[1]]);
    hosts[1].tell(&[&hosts[0]]);
    hosts
}

/// The entries of a host with one other.
fn right(host: &Host, other: &Host) -> bool {
    let (entries, mac) = (host.entries(), other.port().port.mac.to_string());
    let is = |key: &'static str, value: Value| move |entry: &&Value| entry[key] == value;
    let to = other.tunnel().to_string();
    let of = |mac: &str| entries.iter().filter(is("mac", json!(mac))).collect::<Vec<_>>();
    let (known, copies) = (of(&mac), of("00:00:00:00:00:00"));
    let forward = known.iter().filter(|entry| entry["dst"] == json!(to) && entry["flags"] == json!(["self"])).count();
    let bridge = known.iter().filter(|entry| entry["master"].is_string() && entry["state"] == "static").count();
    let device = host.device();
    let own = device.as_ref().map_or(Value::Null, |device| device["address"].clone());
    let others = entries.iter().filter(|entry| entry["mac"] != own).count();
    (forward, bridge, known.len(), copies.len(), others) == (1, 1, 2, 1, 3) && copies[0]["dst"] == json!(to)
}

#[test]
fn the_device_is_quiet_and_carries_what_the_network_has_room_for() {
    in_netns(|| {
        let [first, second] = two();
        assert!(right(&first, &second), "{:?}", first.entries());
        let device = first.device().unwrap();
        let (data, port) = (&device["linkinfo"]["info_data"], &device["linkinfo"]["info_slave_data"]);
        assert_eq!(
            (&data["id"], &data["port"], &data["local"], &data["learning"]),
            (&json!(VNI), &json!(4789), &json!("192.0.2.1"), &json!(false))
        );
        assert_eq!((&device["mtu"], &device["inet6_addr_gen_mode"]), (&json!(1450), &json!("none")));
        assert_eq!((&port["learning"], &port["neigh_suppress"], &port["flood"]), (&json!(false), &json!(true), &json!(true)));
        let index = device["ifindex"].as_u64().unwrap();
        let range = nicd::model::names::FIRST_TUNNEL_INDEX..nicd::model::names::FIRST_SEGMENT_INDEX;
        assert!(range.contains(&u32::try_from(index).unwrap()), "its frames are taken for a tunnel's");
        assert_eq!(first.guest.ip_json("link show dev eth0")[0]["mtu"], 1450);
        let neighbours = first.space.ip_json("neigh show nud permanent");
        let named: Vec<&Value> = neighbours.as_array().unwrap().iter().map(|one| &one["dst"]).collect();
        assert_eq!(named, [&json!("10.0.0.12"), &json!("2001:db8::12")]);
        assert!(first.space.ip_json("addr show").as_array().unwrap().iter().all(|link| {
            let name = link["ifname"].as_str().unwrap();
            !(name.starts_with("nbr") || name.starts_with("nvx")) || link["addr_info"].as_array().unwrap().is_empty()
        }));
        // A frame as large as the network allows, and no larger one.
        let ping = |size: u32| format!("ip netns exec guest1 ping -n -q -c 1 -W 2 -M do -s {} 10.0.0.12", size - 28);
        run(&ping(1450));
        assert!(crate::netns::try_run(&ping(1451)).is_err());
    });
}

#[test]
fn what_others_change_is_put_back() {
    in_netns(|| {
        let [first, second] = two();
        let mac = second.port().port.mac;
        let name = first.device().unwrap()["ifname"].as_str().unwrap().to_owned();
        let bridge = first.device().unwrap()["master"].as_str().unwrap().to_owned();
        let fdb = |what: &str| _ = run(&format!("bridge -n host1 fdb {what}"));
        fdb(&format!("del {mac} dev {name} self"));
        fdb(&format!("del {mac} dev {name} master"));
        fdb(&format!("del 00:00:00:00:00:00 dev {name} dst 192.0.2.2 self"));
        fdb(&format!("append 00:00:00:00:00:00 dev {name} dst 192.0.2.9 self"));
        fdb(&format!("append 00:00:00:00:00:00 dev {name} dst 192.0.2.9 port 1234 self"));
        fdb(&format!("add 02:00:00:00:00:07 dev {name} dst 192.0.2.9 self"));
        fdb(&format!("add 02:00:00:00:00:08 dev {name} master static"));
        first.until("entries", |host| right(host, &second));
        fdb(&format!("replace {mac} dev {name} dst 192.0.2.9 self"));
        first.space.ip(&format!("neigh del 10.0.0.12 dev {bridge}"));
        first.space.ip(&format!("neigh replace 10.0.0.77 lladdr 02:00:00:00:00:07 dev {bridge} nud permanent"));
        first.until("neighbours", |host| {
            let permanent = host.space.ip_json("neigh show nud permanent");
            let named: Vec<&Value> = permanent.as_array().unwrap().iter().map(|one| &one["dst"]).collect();
            right(host, &second) && named == [&json!("10.0.0.12"), &json!("2001:db8::12")]
        });
        let has = |key: &'static str, value: Value| {
            move |host: &Host| host.device().is_some_and(|device| device["linkinfo"]["info_data"][key] == value)
        };
        first.space.ip(&format!("link set {name} type vxlan learning"));
        first.until("learning", has("learning", json!(false)));
        first.space.ip(&format!("link set {name} type bridge_slave neigh_suppress off learning on"));
        first.until("flags", |host| {
            host.device().is_some_and(|device| {
                let port = &device["linkinfo"]["info_slave_data"];
                port["neigh_suppress"] == true && port["learning"] == false
            })
        });
        first.space.ip(&format!("link set {name} nomaster"));
        first.until("bridge", |host| right(host, &second) && host.device().is_some_and(|device| device["master"] == bridge));
        first.space.ip(&format!("link set {name} down"));
        first.until("up", |host| host.device().is_some_and(|device| device["flags"].as_array().unwrap().contains(&json!("UP"))));
        first.space.ip(&format!("link set {bridge} down"));
        first.has_right_entries();
        first.space.ip(&format!("link del {name}"));
        first.until("device", |host| right(host, &second));
        first.is_active();
        assert!(first.reaches(second.addresses()[0]) && first.reaches(second.addresses()[1]));
    });
}

#[test]
fn a_restart_writes_nothing_and_a_foreign_device_with_the_number_is_left() {
    in_netns(|| {
        let [mut first, second] = two();
        let shown = |host: &Host| (host.device(), host.entries(), host.space.ip_json("neigh show nud permanent"));
        let before = shown(&first);
        first.stop();
        assert!(first.reaches(second.addresses()[0]), "without its daemon");
        first.start();
        first.is_active();
        assert_eq!(shown(&first), before, "without what a fleet tells");
        first.tell(&[&second]);
        assert_eq!(shown(&first), before);
        // Its daemon is away, and another program has its device's number.
        first.stop();
        let name = first.device().unwrap()["ifname"].as_str().unwrap().to_owned();
        first.space.ip(&format!("link del {name}"));
        first.space.ip(&format!("link add foreign type vxlan id {VNI} dstport 4789 local 192.0.2.1"));
        let foreign = first.space.ip_json("-d link show dev foreign");
        first.start();
        first.until("uplink_unusable", |host| host.uplink().2.as_deref() == Some("uplink_unusable"));
        let (ok, detail, _) = first.uplink();
        assert!(!ok && detail.contains("the number 70000 on UDP port 4789 is foreign's"), "{detail}");
        let problems = first.with(|daemon| daemon.service.health().problems);
        assert!(problems.iter().any(|problem| problem.reason == "uplink_unusable"), "{problems:?}");
        assert_eq!((first.space.ip_json("-d link show dev foreign"), first.device()), (foreign, None));
        first.space.ip("link del foreign");
        first.is_active();
        first.tell(&[&second]);
        assert!(right(&first, &second) && first.reaches(second.addresses()[0]));
        // The underlay's address goes, and comes.
        first.space.ip("addr del 192.0.2.1/24 dev u");
        first.until("uplink_gone", |host| host.uplink().2.as_deref() == Some("uplink_gone"));
        first.space.ip("addr add 192.0.2.1/24 dev u");
        first.is_active();
    });
}
