//! A port with port security off.

use serde_json::json;

use crate::fixture::text;
use crate::netns::in_netns;
use crate::scene::Scene;

#[test]
fn with_port_security_off_a_guest_sends_what_it_likes_but_does_not_speak_to_the_bridge() {
    in_netns(|| {
        let mut scene = Scene::start();
        let path = format!("/v2.0/ports/{}", scene.guests[0].1.id);
        scene.fixture.api.put(&path, &json!({"port": {"port_security_enabled": false}})).expect(200);
        let mut traffic = scene.traffic();
        traffic.opens(0);
        traffic.round();
        traffic.is_right();
        scene.fixture.api.put(&path, &json!({"port": {"port_security_enabled": true}})).expect(200);
        let mut traffic = scene.traffic();
        traffic.round();
        traffic.is_right();
    });
}

/// What a VLAN device does not take, of which there is none here.
#[test]
fn with_port_security_off_a_trunks_nic_carries_no_tags_that_no_subport_has() {
    in_netns(|| {
        let mut scene = Scene::start();
        let ids = [0, 1].map(|guest| scene.guests[guest].1.id.clone());
        for id in &ids {
            let open = json!({"port": {"port_security_enabled": false}});
            scene.fixture.api.put(&format!("/v2.0/ports/{id}"), &open).expect(200);
        }
        let trunk = |scene: &mut Scene, guest: usize| {
            let trunk = json!({"trunk": {"port_id": ids[guest]}});
            text(&scene.fixture.api.post("/v2.0/trunks", &trunk).expect(201)["trunk"]["id"])
        };
        // To a trunk, then from one.
        trunk(&mut scene, 1);
        let mut traffic = scene.traffic();
        traffic.opens(0);
        traffic.carries(1);
        traffic.round();
        traffic.is_right();
        let before = scene.dropped().get("ethertype").copied();
        let made = trunk(&mut scene, 0);
        let mut traffic = scene.traffic();
        traffic.opens(0);
        traffic.carries(0);
        traffic.carries(1);
        traffic.round();
        traffic.is_right();
        assert!(scene.dropped().get("ethertype").copied() > before, "{before:?}");
        scene.fixture.api.delete(&format!("/v2.0/trunks/{made}")).expect(204);
        let mut traffic = scene.traffic();
        traffic.opens(0);
        traffic.carries(1);
        traffic.round();
        traffic.is_right();
    });
}

#[test]
fn without_nicds_dhcp_a_guests_requests_go_where_others_do() {
    in_netns(|| {
        let mut scene = Scene::start();
        let path = format!("/v2.0/ports/{}", scene.guests[0].1.id);
        scene.fixture.api.put(&path, &json!({"port": {"nicd:dhcp": false}})).expect(200);
        let mut traffic = scene.traffic();
        traffic.is_not_served(0);
        traffic.round();
        traffic.is_right();
    });
}
