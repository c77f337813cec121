//! Changes to what is attached reach the guest while it runs. The witness is the guest's own kernel.

use serde_json::{Value, json};

use crate::fixture::{Fixture, text};
use crate::netns::{Guest, in_netns, json as ip_json};

/// A port on a network of both families, attached to a guest.
fn attached(fixture: &mut Fixture) -> (Guest, String, String) {
    let network = fixture.usual_network();
    let (guest, server) = fixture.guest("a");
    let port = fixture.attach_to(&server, &network);
    assert_eq!(addresses(&guest), ["192.0.2.2/24", "2001:db8::2/64"]);
    (guest, network, port)
}

/// The global addresses of the guest's NIC, sorted.
fn addresses(guest: &Guest) -> Vec<String> {
    let shown = guest.ip_json("addr show dev eth0 scope global");
    // What the scope leaves out is an empty object, or not there at all.
    let info = shown[0]["addr_info"].as_array().into_iter().flatten().filter(|one| one["local"].is_string());
    let mut all: Vec<String> = info.map(|one| format!("{}/{}", text(&one["local"]), one["prefixlen"])).collect();
    all.sort();
    all
}

fn change(fixture: &mut Fixture, port: &str, body: Value) -> Value {
    fixture.api.put(&format!("/v2.0/ports/{port}"), &json!({ "port": body })).expect(200)["port"].clone()
}

#[test]
fn changed_addresses_replace_the_guests_and_old_ones_are_free_again() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (guest, network, port) = attached(&mut fixture);
        let mac = guest.ip_json("link show dev eth0")[0]["address"].clone();
        let index = guest.ip_json("link show dev eth0")[0]["ifindex"].clone();
        for (ips, expected) in [
            (json!([{"ip_address": "192.0.2.40"}, {"ip_address": "2001:db8::2"}]), vec!["192.0.2.40/24", "2001:db8::2/64"]),
            (json!([{"ip_address": "2001:db8::2"}, {"ip_address": "2001:db8::3"}]), vec!["2001:db8::2/64", "2001:db8::3/64"]),
            (json!([]), vec![]),
            (json!([{"ip_address": "192.0.2.2"}]), vec!["192.0.2.2/24"]),
        ] {
            let changed = change(&mut fixture, &port, json!({ "fixed_ips": ips }));
            assert_eq!(changed["status"], "ACTIVE");
            assert_eq!(addresses(&guest), expected, "{ips}");
        }
        let link = guest.ip_json("link show dev eth0")[0].clone();
        assert_eq!((&link["address"], &link["ifindex"]), (&mac, &index), "it is the same NIC");
        let routes = guest.ip("route");
        assert!(routes.contains("default via 192.0.2.1 dev eth0"), "{routes}");
        fixture.create_port(json!({"network_id": network, "fixed_ips": [{"ip_address": "192.0.2.40"}]}));
        let taken = json!({"port": {"fixed_ips": [{"ip_address": "192.0.2.40"}]}});
        fixture.api.put(&format!("/v2.0/ports/{port}"), &taken).refused(409, "address_in_use");
        assert_eq!(addresses(&guest), ["192.0.2.2/24"]);
    });
}

#[test]
fn a_port_set_down_loses_its_carrier_and_comes_back_with_all_it_had() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (guest, _, port) = attached(&mut fixture);
        let has_carrier = |guest: &Guest| {
            let flags = guest.ip_json("link show dev eth0")[0]["flags"].clone();
            flags.as_array().unwrap().contains(&json!("LOWER_UP"))
        };
        for _ in 0..2 {
            let down = change(&mut fixture, &port, json!({"admin_state_up": false}));
            assert_eq!((&down["status"], &down["nicd:reason"]), (&json!("DOWN"), &json!("admin_down")));
            assert!(!has_carrier(&guest));
            change(&mut fixture, &port, json!({"admin_state_up": true}));
            fixture.wait_status(&port, "ACTIVE");
            assert!(has_carrier(&guest));
            assert_eq!(addresses(&guest), ["192.0.2.2/24", "2001:db8::2/64"]);
        }
    });
}

#[test]
fn a_networks_new_mtu_reaches_its_guests_and_its_devices() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (guest, network, port) = attached(&mut fixture);
        let device = fixture.device(&port);
        for mtu in [1400, 9000, 1280, 1500] {
            let body = json!({"network": {"mtu": mtu}});
            let changed = fixture.api.put(&format!("/v2.0/networks/{network}"), &body).expect(200);
            assert_eq!(changed["network"]["mtu"], mtu);
            assert_eq!(guest.ip_json("link show dev eth0")[0]["mtu"], mtu, "the guest's end");
            assert_eq!(ip_json(&format!("ip -j link show dev {device}"))[0]["mtu"], mtu, "the host's end");
            let shown = fixture.wait_status(&port, "ACTIVE");
            assert_eq!(shown["binding:vif_details"]["mtu"], mtu);
            assert_eq!(addresses(&guest), ["192.0.2.2/24", "2001:db8::2/64"]);
        }
    });
}

#[test]
fn what_can_change_only_while_detached_is_refused_and_changes_nothing() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (guest, _, port) = attached(&mut fixture);
        let before = fixture.port(&port);
        for body in [json!({"mac_address": "fa:16:3e:00:00:09"}), json!({"binding:profile": {"interface_name": "wan0"}})] {
            fixture.api.put(&format!("/v2.0/ports/{port}"), &json!({ "port": body })).refused(409, "needs_detach");
        }
        assert_eq!(fixture.port(&port), before);
        assert_eq!(guest.ip_json("link show dev eth0")[0]["address"], before["mac_address"]);
        let renamed = change(&mut fixture, &port, json!({"name": "new", "device_id": before["device_id"]}));
        assert_eq!((&renamed["name"], &renamed["status"]), (&json!("new"), &json!("ACTIVE")));
    });
}
