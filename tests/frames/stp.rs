//! A bridge of an operator's that runs a spanning tree.

use serde_json::{Value, json};

use crate::bytes::{Mac, llc};
use crate::netns::{in_netns, json as said, run};
use crate::scene::{BRIDGE, Scene};
use crate::traffic::Nic;

/// 802.1D's group address of bridges.
const BRIDGES: Mac = [1, 0x80, 0xc2, 0, 0, 0];

/// A configuration message of a bridge with the highest priority.
fn better_root(own: Mac) -> Vec<u8> {
    let root = [&[0, 0], &own[..]].concat();
    let message = [&[0x42, 0x42, 3, 0, 0, 0, 0, 0], &root[..], &[0; 4], &root, &[0x80, 1, 0, 0, 20, 0, 2, 0, 2, 0]];
    llc(BRIDGES, own, &message.concat(), 0)
}

/// The root of a spanning tree has no port towards a root.
fn is_root() -> bool {
    let link: Value = said(&format!("ip -j -d link show {BRIDGE}"));
    link[0]["linkinfo"]["info_data"]["root_port"] == 0
}

#[test]
fn a_guest_does_not_become_the_root_of_an_operators_spanning_tree() {
    in_netns(|| {
        let mut scene = Scene::start();
        run(&format!("ip link set {BRIDGE} type bridge forward_delay 200 stp_state 1"));
        let id = scene.guests[0].1.id.clone();
        let device = scene.guests[0].1.device.clone();
        let nic = Nic::of_guest(&scene.guests[0].0);
        let bpdu = better_root(scene.guests[0].1.host.mac);

        nic.send(&bpdu).unwrap();
        scene.fixture.wait_until(&id, "not_forwarding", |port| port.is_some_and(|port| port["nicd:reason"] == "not_forwarding"));
        assert!(is_root(), "the guest is the root");
        let explained = scene.fixture.api.get(&format!("/nicd/v1/ports/{id}/explain")).expect(200);
        assert!(explained.to_string().contains("when its guest sends a BPDU"), "{explained}");

        run(&format!("ip link set {device} down"));
        run(&format!("ip link set {device} up"));
        scene.fixture.wait_status(&id, "ACTIVE");

        // Without port security the guest may be a switch.
        scene.fixture.api.put(&format!("/v2.0/ports/{id}"), &json!({"port": {"port_security_enabled": false}})).expect(200);
        nic.send(&bpdu).unwrap();
        scene.fixture.wait_until(&id, "another root", |_| !is_root());
    });
}
