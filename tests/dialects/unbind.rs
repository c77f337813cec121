//! A detach as Neutron's clients ask for it: PUT of an empty `device_id`.

use serde_json::{Value, json};

use crate::NOBODY;
use crate::fixture::{Fixture, interfaces, text};
use crate::netns::{in_netns, json as ip_json};

fn put(fixture: &mut Fixture, port: &str, body: Value) -> Value {
    fixture.api.put(&format!("/v2.0/ports/{port}"), &json!({ "port": body })).expect(200)["port"].clone()
}

/// Waits until nothing is left of a port's device, and looks.
fn unbound(fixture: &mut Fixture, port: &str, device: &str) -> Value {
    let unbound = |port: Option<&Value>| port.is_some_and(|port| port["nicd:phase"] == "unbound");
    let after = fixture.wait_until(port, "unbound", unbound).unwrap();
    assert_eq!((&after["device_id"], &after["device_owner"], &after["status"]), (&json!(""), &json!(""), &json!("DOWN")));
    assert_eq!((&after["binding:vif_type"], &after["binding:host_id"]), (&json!("unbound"), &json!("")));
    let links = ip_json("ip -j link show");
    assert!(links.as_array().unwrap().iter().all(|link| link["ifname"] != device), "{links}");
    after
}

#[test]
fn the_body_that_nova_unbinds_with_detaches_and_keeps_every_port() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (guest, namespace) = fixture.guest("a");
        let vm = fixture.vm();
        for server in [&namespace, &vm] {
            let mine = fixture.create_port(json!({ "network_id": network }));
            fixture.attach(server, json!({ "port_id": mine }));
            let made = fixture.attach_to(server, &network);
            for port in [mine, made] {
                let before = fixture.port(&port);
                assert_eq!(before["device_id"], server.as_str());
                let device = fixture.device(&port);
                // nova/network/neutron.py, _unbind_ports: the profile is the one it has just read.
                let body = json!({
                    "device_id": "", "device_owner": "", "binding:host_id": null, "binding:profile": before["binding:profile"],
                });
                let answer = put(&mut fixture, &port, body.clone());
                assert!(["detaching", "unbound"].contains(&answer["nicd:phase"].as_str().unwrap()), "{answer}");
                let after = unbound(&mut fixture, &port, &device);
                for same in ["id", "mac_address", "fixed_ips", "name", "binding:profile"] {
                    assert_eq!(after[same], before[same], "{same}");
                }
                // Again, and with a part of it alone: there is nothing to do.
                for again in [body, json!({"device_id": ""}), json!({"device_id": "", "device_owner": ""})] {
                    assert_eq!(put(&mut fixture, &port, again), after);
                }
            }
            assert_eq!(fixture.api.get(&interfaces(server)).expect(200)["interfaceAttachments"], json!([]));
        }
        assert!(!guest.ip("-br link").contains("eth"), "the guest has no NIC any more");
        // Each can be attached again, elsewhere.
        for port in fixture.port_ids() {
            fixture.attach(&vm, json!({ "port_id": port }));
        }
    });
}

#[test]
fn a_detach_and_other_changes_are_one_change_or_none() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let profile = json!({"binding:profile": {"interface_name": "wan0"}, "network_id": network});
        let port = fixture.create_port(profile);
        fixture.attach(&server, json!({ "port_id": port }));
        let device = fixture.device(&port);
        let before = fixture.port(&port);
        for (bad, status, reason) in [
            (json!({"device_id": "", "fixed_ips": [{"ip_address": "203.0.113.1"}]}), 400, "address_outside_subnet"),
            (json!({"device_id": "", "mac_address": "fa:16:3e:00:00:09"}), 409, "needs_detach"),
            (json!({"device_id": "", "binding:host_id": "elsewhere"}), 400, "invalid_value"),
            (json!({"device_id": "", "name": 1}), 400, "invalid_value"),
        ] {
            fixture.api.put(&format!("/v2.0/ports/{port}"), &json!({ "port": bad })).refused(status, reason);
        }
        let path = format!("/v2.0/ports/{port}");
        let (stale, body) =
            ([("If-Match", "revision_number=99"), ("Content-Type", "application/json")], json!({"port": {"device_id": ""}}));
        fixture.api.call("PUT", &path, &stale, body.to_string().as_bytes()).refused(412, "revision_mismatch");
        assert_eq!(fixture.port(&port), before);
        // A profile without its name is what Nova sends when it could not read the port.
        let all = json!({
            "device_id": "", "name": "free", "admin_state_up": false, "binding:profile": {}, "fixed_ips": [{"ip_address": "192.0.2.77"}],
        });
        let answer = put(&mut fixture, &port, all);
        assert_eq!((&answer["name"], &answer["admin_state_up"]), (&json!("free"), &json!(false)));
        let after = unbound(&mut fixture, &port, &device);
        assert_eq!((&after["name"], &after["fixed_ips"][0]["ip_address"]), (&json!("free"), &json!("192.0.2.77")));
        assert_eq!(after["binding:profile"], json!({"vnet_hdr": true}));
        // Its former addresses are free again.
        let former = text(&before["fixed_ips"][0]["ip_address"]);
        fixture.create_port(json!({"network_id": network, "fixed_ips": [{"ip_address": former}]}));
    });
}

#[test]
fn a_server_is_given_by_an_attach_alone() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (vm, other) = (fixture.vm(), fixture.vm());
        let port = fixture.attach_to(&vm, &network);
        let path = format!("/v2.0/ports/{port}");
        for device in [other.as_str(), NOBODY, "no id", " ", "dhcp3cb9bc59"] {
            let error = fixture.api.put(&path, &json!({"port": {"device_id": device}})).refused(409, "use_attach");
            assert!(text(&error["message"]).contains(&format!("'{device}'")), "{error}");
            let new = json!({"port": {"network_id": network, "device_id": device}});
            fixture.api.post("/v2.0/ports", &new).refused(409, "use_attach");
        }
        for device in [json!(null), json!(1), json!([]), json!("x".repeat(256))] {
            fixture.api.put(&path, &json!({"port": {"device_id": device}})).refused(400, "invalid_value");
            let new = json!({"port": {"network_id": network, "device_id": device}});
            fixture.api.post("/v2.0/ports", &new).refused(400, "invalid_value");
        }
        // The server it has is no change, however it is spelt.
        for device in [vm.clone(), vm.to_uppercase(), vm.replace('-', "")] {
            assert_eq!(put(&mut fixture, &port, json!({ "device_id": device }))["device_id"], vm.as_str());
        }
        assert_eq!(fixture.port_ids(), [port]);
    });
}
