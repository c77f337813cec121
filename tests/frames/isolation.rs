//! What an isolated port hears.

use serde_json::json;

use crate::classes::{Ends, classes};
use crate::netns::in_netns;
use crate::scene::Scene;
use crate::traffic::Nic;

#[test]
fn an_isolated_port_hears_what_is_for_it_and_what_it_needs() {
    in_netns(|| {
        let mut scene = Scene::start();
        let path = format!("/v2.0/ports/{}", scene.guests[1].1.id);
        scene.fixture.api.put(&path, &json!({"port": {"nicd:isolated": true}})).expect(200);
        let mut traffic = scene.traffic();
        traffic.isolated = Some(1);
        (0..10).for_each(|_| traffic.round());
        traffic.is_right();
        // From the wire also what no guest may send.
        let needed =
            ["DHCP: a server", "IGMP query", "MLD query", "router advertisement", "ARP request", "advertisement", "IPv4: UDP"];
        let others = [
            "IPv4 to all",
            "IPv4 to a group (mDNS)",
            "IPv6 to a group (mDNS)",
            "MLDv2 report",
            "wake on LAN",
            "PPPoE discovery",
            "CDP",
        ];
        let (wire, all) = (Nic::of_guest(&scene.wire), scene.parties());
        let hears = |guest: usize| {
            let nic = Nic::of_guest(&scene.guests[guest].0);
            let ends = Ends { id: 0, own: all[4].host, to: all[guest].host, victim: all[0].host };
            let frame = |name: &str| classes().into_iter().find(|class| class.name == name).unwrap().frame(&ends);
            // What is for the guest alone comes last: then the rest has been there.
            let names: Vec<&str> = others.into_iter().chain(needed).collect();
            names.iter().for_each(|name| wire.send(&frame(name)).unwrap());
            let (last, mut heard) = (frame("IPv4: UDP"), Vec::new());
            while !heard.contains(&last) {
                heard.push(nic.wait());
            }
            names.into_iter().filter(|name| heard.contains(&frame(name))).collect::<Vec<_>>()
        };
        assert_eq!(hears(1), needed);
        assert_eq!(hears(0), [&others[..], &needed].concat());
        scene.fixture.api.put(&path, &json!({"port": {"nicd:isolated": false}})).expect(200);
        assert_eq!(hears(1), [&others[..], &needed].concat());
    });
}
