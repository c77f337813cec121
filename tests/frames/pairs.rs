//! Address pairs: what they let a guest send, and what not.

use serde_json::{Value, json};

use crate::bytes::{IP4, Ip4, UDP, ethernet, udp};
use crate::classes::Host;
use crate::netns::in_netns;
use crate::scene::Scene;
use crate::traffic::{Flood, Nic, Traffic};

/// A virtual router's MAC that two ports may use in turn (RFC 5798, 7.3).
const ROUTER: Host = Host {
    mac: [0, 0, 0x5e, 0, 1, 9],
    ip4: std::net::Ipv4Addr::new(203, 0, 113, 7),
    ip6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0x88, 0, 0, 0, 0, 7),
};

fn let_pairs(scene: &mut Scene, pairs: &Value) {
    let path = format!("/v2.0/ports/{}", scene.guests[0].1.id);
    scene.fixture.api.put(&path, &json!({"port": {"allowed_address_pairs": pairs}})).expect(200);
}

/// The first guest sends every class of frame as this host.
#[track_caller]
fn may_speak_as(scene: &Scene, host: Host) {
    let mut parties = scene.parties();
    parties[0].host = host;
    // The others do not: what is for another MAC than its own the bridge floods.
    let mut traffic = Traffic::new(&parties, vec![(0, Some(Nic::of_guest(&scene.guests[0].0)))], scene.others());
    // nicd answers the port's own MAC: requests from another one are as other frames.
    if host.mac != scene.guests[0].1.host.mac {
        traffic.is_not_served(0);
    }
    (0..3).for_each(|_| traffic.round());
    traffic.is_right();
}

#[test]
fn a_pair_lets_a_guest_send_everything_as_it_says_and_nothing_else() {
    in_netns(|| {
        let mut scene = Scene::start();
        let own = scene.guests[0].1.host;
        let pairs = json!([
            {"ip_address": "198.51.100.0/24"},
            {"ip_address": "2001:db8:77::/64"},
            {"ip_address": "203.0.113.7", "mac_address": "00:00:5e:00:01:09"},
            {"ip_address": "2001:db8:88::7", "mac_address": "00:00:5e:00:01:09"},
        ]);
        let_pairs(&mut scene, &pairs);
        may_speak_as(&scene, own);
        for last in [0, 9, 255] {
            let (ip4, ip6) = ([198, 51, 100, last].into(), format!("2001:db8:77::{last:x}").parse().unwrap());
            may_speak_as(&scene, Host { ip4, ip6, ..own });
        }
        may_speak_as(&scene, ROUTER);
        // A MAC is allowed with its own addresses alone, and of a network what is beside it is not.
        let nic = Nic::of_guest(&scene.guests[0].0);
        let before = scene.dropped();
        let crossed = [(own.mac, ROUTER.ip4), (ROUTER.mac, own.ip4), (own.mac, [198, 51, 101, 0].into())];
        for (mac, from) in crossed {
            let packet = Ip4 { id: 1, from, to: ROUTER.ip4, protocol: UDP, options: Vec::new(), fragment: 0 };
            nic.send(&ethernet(scene.guests[1].1.host.mac, mac, IP4, &packet.packet(&udp(7, 9, &[0; 24])))).unwrap();
        }
        assert_eq!(scene.dropped()["ip4"] - before["ip4"], 3);
        // What is taken away is nobody's any more.
        let_pairs(&mut scene, &json!([]));
        let mut parties = scene.parties();
        parties[1].host = Host { mac: parties[1].host.mac, ..ROUTER };
        let mut traffic = scene.traffic_of(&parties);
        traffic.round();
        traffic.is_right();
    });
}

/// CVE-2019-10876: ranges that overlap; CVE-2019-9735: a rule that the kernel refuses. Either was the end of all filters of a node.
#[test]
fn pairs_that_overlap_or_repeat_are_held_and_leave_other_ports_alone() {
    in_netns(|| {
        let mut scene = Scene::start();
        let own = scene.guests[0].1.host;
        let nets = ["10.1.0.0/16", "10.0.0.0/8", "10.128.0.0/9", "10.1.2.0/24", "10.1.2.3", "2001:db9:1::/48", "2001:db9::/32"];
        let orders: [Vec<&str>; 2] = [nets.to_vec(), nets.iter().rev().copied().collect()];
        for order in orders {
            let repeated = order.into_iter().map(str::to_owned).chain([own.ip4.to_string(), own.link_local().to_string()]);
            let pairs: Vec<Value> = repeated.map(|net| json!({"ip_address": net})).collect();
            let_pairs(&mut scene, &pairs.into());
            let id = scene.guests[0].1.id.clone();
            scene.fixture.wait_status(&id, "ACTIVE");
            may_speak_as(&scene, Host { ip4: [10, 1, 2, 3].into(), ip6: "2001:db9:1::1".parse().unwrap(), ..own });
            may_speak_as(&scene, own);
            may_speak_as(&scene, Host { ip4: [10, 200, 0, 1].into(), ip6: "2001:db9:ffff::1".parse().unwrap(), ..own });
            let mut all = scene.traffic();
            all.round();
            all.is_right();
        }
    });
}

#[test]
fn a_change_of_pairs_loses_nothing_and_opens_nothing() {
    in_netns(|| {
        let mut scene = Scene::start();
        let flood = Flood::start(scene.traffic());
        for round in 0..20 {
            let wide = json!([{"ip_address": "10.0.0.0/8"}, {"ip_address": "2001:db9::/32"}]);
            let narrow =
                json!([{"ip_address": "10.1.0.0/16"}, {"ip_address": "203.0.113.7", "mac_address": "00:00:5e:00:01:09"}]);
            let_pairs(&mut scene, &[wide, narrow, json!([])][round % 3]);
            flood.goes_on(1);
        }
        flood.end().is_right();
    });
}
