//! Neutron's trunks against the real daemon. The kernel of these tests may have no VLAN devices: what becomes of subports on the wire is
//! seen with Debian's (`tests/service/inside.sh`).

use serde_json::{Value, json};

use crate::NOBODY;
use crate::fixture::{Fixture, interfaces, text};
use crate::netns::in_netns;

/// A parent and two ports that can be its subports, each on a network of its own.
fn ports(fixture: &mut Fixture) -> [String; 3] {
    ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"].map(|cidr| {
        let network = fixture.network(json!({"name": cidr}));
        fixture.subnet(&network, cidr);
        fixture.create_port(json!({ "network_id": network }))
    })
}

fn sub(port: &str, vlan: u16) -> Value {
    json!({"port_id": port, "segmentation_type": "vlan", "segmentation_id": vlan})
}

fn path(trunk: &Value) -> String {
    format!("/v2.0/trunks/{}", text(&trunk["id"]))
}

fn create(fixture: &mut Fixture, trunk: Value) -> Value {
    fixture.api.post("/v2.0/trunks", &json!({ "trunk": trunk })).expect(201)["trunk"].clone()
}

#[test]
fn a_trunk_is_made_listed_changed_and_deleted() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let [parent, one, two] = ports(&mut fixture);
        let made =
            create(&mut fixture, json!({"port_id": parent, "name": "router", "project_id": "p", "sub_ports": [sub(&one, 7)]}));
        for (key, value) in [
            ("port_id", json!(parent)),
            ("name", json!("router")),
            ("description", json!("")),
            ("tenant_id", json!("p")),
            ("admin_state_up", json!(true)),
            ("status", json!("DOWN")),
            ("sub_ports", json!([sub(&one, 7)])),
            ("revision_number", json!(1)),
            ("tags", json!([])),
        ] {
            assert_eq!(made[key], value, "{key}");
        }
        let path = path(&made);
        assert_eq!(fixture.api.get(&path).expect(200)["trunk"], made);
        assert_eq!(fixture.api.get(&format!("{path}/get_subports")).expect(200), json!({"sub_ports": [sub(&one, 7)]}));
        let details = fixture.port(&parent)["trunk_details"].clone();
        let mac = fixture.port(&one)["mac_address"].clone();
        let mut with_mac = sub(&one, 7);
        with_mac["mac_address"] = mac;
        assert_eq!(details, json!({"trunk_id": made["id"], "sub_ports": [with_mac]}));
        let shown = fixture.port(&one);
        assert_eq!((&shown["device_owner"], &shown["device_id"]), (&json!("trunk:subport"), &made["id"]));
        assert_eq!((&shown["trunk_details"], &shown["binding:vif_type"]), (&Value::Null, &json!("unbound")));
        // Neutron answers these without an envelope.
        let added = fixture.api.put(&format!("{path}/add_subports"), &json!({"sub_ports": [sub(&two, 4094)]})).expect(200);
        assert_eq!((&added["sub_ports"], &added["revision_number"]), (&json!([sub(&one, 7), sub(&two, 4094)]), &json!(2)));
        let of_trunk = format!("/v2.0/ports?device_id={}&fields=id", text(&made["id"]));
        assert_eq!(fixture.api.get(&of_trunk).expect(200)["ports"].as_array().unwrap().len(), 2);
        let gone = json!({"sub_ports": [{"port_id": one}]});
        let removed = fixture.api.put(&format!("{path}/remove_subports"), &gone).expect(200);
        assert_eq!(removed["sub_ports"], json!([sub(&two, 4094)]));
        let free = fixture.port(&one);
        assert_eq!((&free["device_owner"], &free["device_id"]), (&json!(""), &json!("")));
        let changed = fixture.api.put(&path, &json!({"trunk": {"name": "r", "description": "d"}})).expect(200)["trunk"].clone();
        assert_eq!(
            (&changed["name"], &changed["description"], &changed["revision_number"]),
            (&json!("r"), &json!("d"), &json!(4))
        );
        let same = fixture.api.put(&path, &json!({"trunk": {"name": "r"}})).expect(200)["trunk"].clone();
        assert_eq!(same, changed, "what changes nothing is no change");
        for (query, found) in [("name=r", 1), ("port_id=x", 0), ("status=DOWN&admin_state_up=True", 1), ("limit=1", 1)] {
            let listed = fixture.api.get(&format!("/v2.0/trunks?{query}")).expect(200);
            assert_eq!(listed["trunks"].as_array().unwrap().len(), found, "{query}");
        }
        assert_eq!(fixture.api.get(&format!("{path}?fields=name")).expect(200)["trunk"], json!({"name": "r"}));
        fixture.api.delete(&path).expect(204);
        fixture.api.get(&path).refused(404, "no_such_trunk");
        assert_eq!(fixture.port(&parent)["trunk_details"], Value::Null);
        for port in [parent, one, two] {
            fixture.api.delete(&format!("/v2.0/ports/{port}")).expect(204);
        }
    });
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_made() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let [parent, one, two] = ports(&mut fixture);
        let (_guest, server) = fixture.guest("a");
        let network = text(&fixture.port(&two)["network_id"]);
        let taken = fixture.attach_to(&server, &network);
        let jumbo = fixture.network(json!({"name": "jumbo", "mtu": 9000}));
        let large = fixture.create_port(json!({ "network_id": jumbo }));
        let made = create(&mut fixture, json!({"port_id": parent, "sub_ports": [sub(&one, 7)]}));
        let path = path(&made);
        let add = format!("{path}/add_subports");
        let new = |port: &str| json!({"trunk": {"port_id": port}});
        let with = |port: &str, sub_ports: Value| json!({"trunk": {"port_id": port, "sub_ports": sub_ports}});
        let inherits = json!([{"port_id": two, "segmentation_type": "inherit"}]);
        for (to, body, status, reason, kind) in [
            ("/v2.0/trunks", new(NOBODY), 404, "no_such_port", "PortNotFound"),
            ("/v2.0/trunks", new(&parent), 409, "port_is_trunk_parent", "ParentPortInUse"),
            ("/v2.0/trunks", new(&one), 409, "port_is_subport", "TrunkPortInUse"),
            ("/v2.0/trunks", with(&two, json!([sub(&two, 1)])), 409, "port_is_trunk_parent", "ParentPortInUse"),
            ("/v2.0/trunks", with(&two, json!([sub(&one, 1)])), 409, "port_is_subport", "TrunkPortInUse"),
            ("/v2.0/trunks", with(&two, json!([sub(&parent, 1)])), 409, "port_is_trunk_parent", "ParentPortInUse"),
            ("/v2.0/trunks", with(&two, json!([sub(NOBODY, 1)])), 404, "no_such_port", "PortNotFound"),
            ("/v2.0/trunks", with(&two, json!([sub(&taken, 1)])), 409, "port_in_use", "PortInUse"),
            ("/v2.0/trunks", with(&two, json!([sub(&large, 1)])), 409, "mtu_above_parent", "SubPortMtuGreaterThanTrunkPortMtu"),
            (&add, json!({ "sub_ports": inherits }), 400, "no_vlan_to_inherit", "InvalidInput"),
            (&add, json!({"sub_ports": [sub(&two, 7)]}), 409, "vlan_in_use", "DuplicateSubPort"),
            (&add, json!({"sub_ports": [sub(&parent, 8)]}), 409, "port_is_trunk_parent", "ParentPortInUse"),
            (&add, json!({"sub_ports": [sub(&two, 8), sub(&one, 9)]}), 409, "port_is_subport", "TrunkPortInUse"),
            (&add, json!({"sub_ports": [sub(&two, 0)]}), 400, "invalid_value", "InvalidInput"),
            (&add, json!({"sub_ports": [sub(&two, 4095)]}), 400, "invalid_value", "InvalidInput"),
            (&add, json!({"sub_ports": [sub(&two, 8), sub(&two, 9)]}), 400, "invalid_value", "InvalidInput"),
            (&add, json!({"trunk": {}}), 400, "invalid_body", "HTTPBadRequest"),
        ] {
            let answer = if to == add { fixture.api.put(to, &body) } else { fixture.api.post(to, &body) };
            let error = answer.refused(status, reason);
            assert_eq!(error["type"], kind, "{body}");
        }
        let remove = format!("{path}/remove_subports");
        let not_there = json!({"sub_ports": [{"port_id": one}, {"port_id": two}]});
        assert_eq!(fixture.api.put(&remove, &not_there).refused(404, "no_such_subport")["type"], "SubPortNotFound");
        for (body, reason) in [
            (json!({"trunk": {"port_id": two}}), "invalid_value"),
            (json!({"trunk": {"sub_ports": []}}), "invalid_value"),
            (json!({"trunk": {"status": "ACTIVE"}}), "invalid_value"),
            (json!({"trunk": {"colour": "red"}}), "invalid_value"),
        ] {
            fixture.api.put(&path, &body).refused(400, reason);
        }
        for (port, kind, reason) in
            [(&parent, "PortInUseAsTrunkParent", "port_is_trunk_parent"), (&one, "PortInUseAsSubPort", "port_is_subport")]
        {
            assert_eq!(fixture.api.delete(&format!("/v2.0/ports/{port}")).refused(409, reason)["type"], kind);
        }
        let attach = json!({"interfaceAttachment": {"port_id": one}});
        fixture.api.post(&interfaces(&server), &attach).refused(409, "port_is_subport");
        assert_eq!(fixture.api.get(&path).expect(200)["trunk"], made);
        assert_eq!(fixture.api.get("/v2.0/trunks").expect(200)["trunks"].as_array().unwrap().len(), 1);
        // One that is down stays as it is.
        fixture.api.put(&path, &json!({"trunk": {"admin_state_up": false}})).expect(200);
        for answer in [
            fixture.api.put(&add, &json!({"sub_ports": [sub(&two, 8)]})),
            fixture.api.put(&remove, &json!({"sub_ports": [{"port_id": one}]})),
            fixture.api.delete(&path),
        ] {
            assert_eq!(answer.refused(409, "trunk_disabled")["type"], "TrunkDisabled");
        }
        fixture.api.put(&path, &json!({"trunk": {"admin_state_up": true}})).expect(200);
        fixture.api.delete(&path).expect(204);
    });
}

#[test]
fn several_are_made_at_once_or_none_and_once_under_a_key() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let [parent, one, two] = ports(&mut fixture);
        let twice =
            json!({"trunks": [{"port_id": parent, "sub_ports": [sub(&one, 7)]}, {"port_id": two, "sub_ports": [sub(&one, 7)]}]});
        fixture.api.post("/v2.0/trunks", &twice).refused(409, "port_is_subport");
        assert_eq!(fixture.api.get("/v2.0/trunks").expect(200), json!({"trunks": []}));
        let both = json!({"trunks": [{"port_id": parent, "sub_ports": [sub(&one, 7)]}, {"port_id": two}]});
        let once = |fixture: &mut Fixture| {
            let answer = crate::post_with(&mut fixture.api, "/v2.0/trunks", &[("Idempotency-Key", "two-trunks")], &both);
            answer.expect(201)["trunks"].as_array().unwrap().iter().map(|trunk| text(&trunk["id"])).collect::<Vec<_>>()
        };
        let made = once(&mut fixture);
        assert_eq!((made.len(), once(&mut fixture)), (2, made));
        // They are there after a kill.
        fixture.daemon.kill();
        fixture.launch();
        assert_eq!(fixture.api.get("/v2.0/trunks").expect(200)["trunks"].as_array().unwrap().len(), 2);
        assert_eq!(fixture.port(&one)["device_owner"], "trunk:subport");
    });
}

#[test]
fn a_parent_is_a_servers_only_interface_and_outlives_its_detach() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        // Without VLAN devices in this kernel the subports' are missing.
        fixture.leaves_deviations();
        let [_, one, two] = ports(&mut fixture);
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let parent = fixture.attach_to(&server, &network);
        let made = create(&mut fixture, json!({"port_id": parent, "sub_ports": [sub(&one, 7)]}));
        let path = path(&made);
        fixture.api.put(&format!("{path}/add_subports"), &json!({"sub_ports": [sub(&two, 8)]})).expect(200);
        for port in [&one, &two] {
            let shown = fixture.port(port);
            assert_eq!((&shown["binding:vif_type"], &shown["device_id"]), (&json!("vlan"), &made["id"]));
            let details = &shown["binding:vif_details"];
            assert_eq!((&details["parent_port_id"], details["vlan"].is_u64()), (&json!(parent), true));
        }
        let nics = fixture.api.get(&interfaces(&server)).expect(200)["interfaceAttachments"].clone();
        assert_eq!(nics.as_array().unwrap().iter().map(|nic| text(&nic["port_id"])).collect::<Vec<_>>(), [parent.as_str()]);
        let of_server = format!("/v2.0/ports?device_id={server}");
        assert_eq!(fixture.api.get(&of_server).expect(200)["ports"].as_array().unwrap().len(), 1);
        for call in ["GET", "DELETE"] {
            let sub_port = format!("{}/{one}", interfaces(&server));
            fixture.api.call(call, &sub_port, &[], b"").refused(404, "port_not_on_server");
        }
        fixture.api.put(&format!("/v2.0/ports/{one}"), &json!({"port": {"device_id": ""}})).refused(409, "port_is_subport");
        // The attach made it; a trunk's parent stays all the same, and so do its subports.
        fixture.detach(&server, &parent);
        let unbound = |port: Option<&Value>| port.is_some_and(|port| port["nicd:phase"] == "unbound");
        for port in [&parent, &one, &two] {
            fixture.wait_until(port, "unbound", unbound);
        }
        assert_eq!(fixture.api.get(&path).expect(200)["trunk"]["sub_ports"], json!([sub(&one, 7), sub(&two, 8)]));
        fixture.attach(&server, json!({ "port_id": parent }));
        assert_eq!(fixture.port(&one)["binding:vif_type"], "vlan");
        fixture.api.delete(&path).expect(204);
        fixture.wait_until(&one, "unbound", unbound);
        assert_eq!(fixture.port(&one)["device_owner"], "");
        fixture.wait_status(&parent, "ACTIVE");
    });
}
