//! A port with port security off.

use serde_json::json;

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
