//! Neutron's networks, subnets and ports.

use serde_json::{Value, json};

use crate::NOBODY;
use crate::fixture::{Fixture, text};
use crate::netns::in_netns;

#[test]
fn each_refusal_names_neutrons_exception() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let small = fixture.network(json!({}));
        fixture.subnet(&small, "198.51.100.0/30");
        let filler = fixture.create_port(json!({ "network_id": small }));
        let fixed = json!([{"ip_address": "192.0.2.9"}]);
        let port = fixture.create_port(json!({"network_id": network, "mac_address": "fa:16:3e:00:00:01", "fixed_ips": fixed}));
        let subnet = text(&fixture.port(&port)["fixed_ips"][0]["subnet_id"]);
        let new = |key: &str, body: Value| ("POST", format!("/v2.0/{key}s"), json!({ key: body }));
        let get = |path: &str| ("GET", format!("/v2.0/{path}"), Value::Null);
        let delete = |path: String| ("DELETE", format!("/v2.0/{path}"), Value::Null);
        let outside = json!([{"ip_address": "203.0.113.1"}]);
        let pair = &outside;
        let overlap = json!({"network_id": network, "cidr": "192.0.2.128/25"});
        for ((method, path, body), status, kind, reason) in [
            (get(&format!("networks/{NOBODY}")), 404, "NetworkNotFound", "no_such_network"),
            (get(&format!("subnets/{NOBODY}")), 404, "SubnetNotFound", "no_such_subnet"),
            (get(&format!("ports/{NOBODY}")), 404, "PortNotFound", "no_such_port"),
            (get("routers"), 404, "HTTPNotFound", "no_such_route"),
            (get("ports?colour=red"), 400, "HTTPBadRequest", "bad_query"),
            (new("port", json!({ "network_id": NOBODY })), 404, "NetworkNotFound", "no_such_network"),
            (new("port", json!({"network_id": network, "fixed_ips": fixed})), 409, "IpAddressInUse", "address_in_use"),
            (
                new("port", json!({"network_id": network, "fixed_ips": outside})),
                400,
                "InvalidIpForNetwork",
                "address_outside_subnet",
            ),
            (
                new("port", json!({"network_id": network, "mac_address": "fa:16:3e:00:00:01"})),
                409,
                "MacAddressInUse",
                "mac_in_use",
            ),
            (new("port", json!({ "network_id": small })), 409, "IpAddressGenerationFailure", "pool_empty"),
            (new("port", json!({"network_id": network, "id": port})), 409, "Conflict", "id_in_use"),
            (
                new("port", json!({"network_id": network, "port_security_enabled": false, "allowed_address_pairs": pair})),
                409,
                "AddressPairAndPortSecurityRequired",
                "port_security_off",
            ),
            (new("network", json!({"provider:network_type": "vxlan"})), 501, "HTTPNotImplemented", "fleet_only"),
            (new("subnet", overlap), 400, "InvalidInput", "subnet_overlap"),
            (new("subnet", json!({"network_id": network, "cidr": "x"})), 400, "InvalidInput", "invalid_value"),
            (new("network", json!({ "nicd:bridge": "nowhere" })), 400, "InvalidInput", "no_such_bridge"),
            (("PUT", format!("/v2.0/ports/{port}"), json!({"port": {"device_id": NOBODY}})), 409, "Conflict", "use_attach"),
            (("PATCH", format!("/v2.0/ports/{port}"), Value::Null), 405, "HTTPMethodNotAllowed", "bad_method"),
            (delete(format!("networks/{small}")), 409, "NetworkInUse", "network_in_use"),
            (delete(format!("subnets/{subnet}")), 409, "SubnetInUse", "subnet_in_use"),
        ] {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let answer = fixture.api.call(method, &path, &[("Content-Type", "application/json")], body.as_bytes());
            let error = answer.refused(status, reason);
            assert_eq!(error["type"], kind, "{}: {}", answer.call, answer.text);
            assert_eq!(answer.json()["NeutronError"], error);
            assert_eq!(error.as_object().unwrap().keys().collect::<Vec<_>>(), ["detail", "message", "reason", "type"]);
        }
        assert_eq!(fixture.port_ids().len(), [filler, port].len());
    });
}

#[test]
fn of_two_wrong_things_the_schema_comes_first_then_what_it_is_on_then_itself() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let port = fixture.create_port(json!({"network_id": network, "mac_address": "fa:16:3e:00:00:01"}));
        let ip = json!([{"ip_address": "203.0.113.1"}]);
        for (body, status, reason) in [
            (json!({"network_id": NOBODY, "mac_address": "x"}), 400, "invalid_value"),
            (json!({"network_id": NOBODY, "id": port}), 404, "no_such_network"),
            (json!({"network_id": network, "id": port, "mac_address": "fa:16:3e:00:00:01"}), 409, "id_in_use"),
            (json!({"network_id": network, "mac_address": "fa:16:3e:00:00:01", "fixed_ips": ip}), 409, "mac_in_use"),
            (json!({"network_id": network, "mac_address": "02:16:3e:00:00:01", "fixed_ips": ip}), 409, "mac_in_use"),
        ] {
            fixture.api.post("/v2.0/ports", &json!({ "port": body })).refused(status, reason);
        }
    });
}

#[test]
fn a_bulk_create_makes_all_in_their_order_or_none() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let many = |key: &str, all: &[Value]| (format!("/v2.0/{key}"), json!({ key: all }));
        let (path, body) = many("networks", &[json!({"name": "a"}), json!({"name": "b"})]);
        let made = fixture.api.post(&path, &body).expect(201)["networks"].clone();
        let names: Vec<&Value> = made.as_array().unwrap().iter().map(|network| &network["name"]).collect();
        assert_eq!(names, ["a", "b"]);
        let network = text(&made[0]["id"]);
        let on = |mut body: Value| {
            body["network_id"] = network.clone().into();
            body
        };
        let (path, body) = many("subnets", &[on(json!({"cidr": "192.0.2.0/29"})), on(json!({"cidr": "2001:db8::/64"}))]);
        assert_eq!(fixture.api.post(&path, &body).expect(201)["subnets"].as_array().unwrap().len(), 2);
        let (path, body) = many("ports", &[on(json!({"name": "one"}))]);
        let one = fixture.api.post(&path, &body).expect(201);
        assert_eq!(one["ports"][0]["name"], "one", "a list of one is answered with a list");
        let before = ["networks", "subnets", "ports"].map(|what| fixture.api.get(&format!("/v2.0/{what}")).text);
        for ((path, body), status, reason) in [
            (many("networks", &[json!({"name": "c"}), json!({ "id": network })]), 409, "id_in_use"),
            (many("networks", &[json!({"id": NOBODY}), json!({"id": NOBODY})]), 409, "id_in_use"),
            (many("networks", &[json!({"name": "c"}), json!({"mtu": 1})]), 400, "invalid_value"),
            (
                many("subnets", &[on(json!({"cidr": "198.51.100.0/24"})), on(json!({"cidr": "198.51.100.0/25"}))]),
                400,
                "subnet_overlap",
            ),
            (many("ports", &[on(json!({})), json!({ "network_id": NOBODY })]), 404, "no_such_network"),
            // Five addresses are left to five; the sixth has none.
            (many("ports", &vec![on(json!({})); 6]), 409, "pool_empty"),
            (
                many(
                    "ports",
                    &[on(json!({"mac_address": "fa:16:3e:00:00:01"})), on(json!({"mac_address": "fa:16:3e:00:00:01"}))],
                ),
                409,
                "mac_in_use",
            ),
            (many("ports", &[]), 400, "invalid_value"),
            (many("ports", &vec![on(json!({})); 257]), 400, "invalid_value"),
        ] {
            fixture.api.post(&path, &body).refused(status, reason);
        }
        let after = ["networks", "subnets", "ports"].map(|what| fixture.api.get(&format!("/v2.0/{what}")).text);
        assert_eq!(after, before);
        // What was reserved for those that failed is free again.
        let (path, body) = many("ports", &vec![on(json!({})); 4]);
        assert_eq!(fixture.api.post(&path, &body).expect(201)["ports"].as_array().unwrap().len(), 4);
    });
}

#[test]
fn true_and_false_are_understood_as_neutrons_clients_write_them() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        for (written, up) in [
            (json!(true), true),
            (json!("True"), true),
            (json!("1"), true),
            (json!(1), true),
            (json!(false), false),
            (json!("FALSE"), false),
            (json!("0"), false),
            (json!(0), false),
        ] {
            let port = fixture.create_port(json!({"network_id": network, "admin_state_up": written}));
            assert_eq!(fixture.port(&port)["admin_state_up"], up, "{written}");
        }
        for written in [json!(2), json!("yes"), json!(null), json!([]), json!(1.0)] {
            let body = json!({"port": {"network_id": network, "admin_state_up": written}});
            fixture.api.post("/v2.0/ports", &body).refused(400, "invalid_value");
        }
        for (query, count) in [("True", 4), ("true", 4), ("1", 4), ("False", 4), ("0", 4)] {
            assert_eq!(names(&mut fixture, &format!("admin_state_up={query}")).len(), count, "{query}");
        }
        let shared = fixture.api.get("/v2.0/networks?shared=False&router:external=0&admin_state_up=True").expect(200);
        assert_eq!(shared["networks"].as_array().unwrap().len(), 1);
    });
}

/// The names of a list's ports.
fn names(fixture: &mut Fixture, query: &str) -> Vec<String> {
    let ports = fixture.api.get(&format!("/v2.0/ports?{query}")).expect(200)["ports"].clone();
    ports.as_array().unwrap().iter().map(|port| text(&port["name"])).collect()
}

#[test]
fn lists_are_filtered_sorted_cut_and_paged() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let mut ids = Vec::new();
        for name in ["c", "a", "b", "d"] {
            let up = name != "d";
            ids.push(fixture.create_port(json!({"network_id": network, "name": name, "admin_state_up": up})));
        }
        fixture.attach(&server, json!({ "port_id": ids[0] }));
        let mac = text(&fixture.port(&ids[1])["mac_address"]);
        for (query, expected) in [
            ("sort_key=name".to_owned(), vec!["a", "b", "c", "d"]),
            ("sort_key=name&sort_dir=desc".to_owned(), vec!["d", "c", "b", "a"]),
            ("sort_key=admin_state_up&sort_key=name&sort_dir=asc&sort_dir=desc".to_owned(), vec!["d", "c", "b", "a"]),
            ("name=a&name=b&sort_key=name".to_owned(), vec!["a", "b"]),
            ("name=a&admin_state_up=False".to_owned(), vec![]),
            ("admin_state_up=false".to_owned(), vec!["d"]),
            (format!("id={}", ids[2]), vec!["b"]),
            (format!("device_id={server}"), vec!["c"]),
            ("device_id=&sort_key=name".to_owned(), vec!["a", "b", "d"]),
            ("device_owner=compute:nova".to_owned(), vec!["c"]),
            ("binding:vif_type=tap".to_owned(), vec!["c"]),
            (format!("mac_address={mac}"), vec!["a"]),
            (format!("mac_address={}", mac.to_uppercase()), vec!["a"]),
            ("fixed_ips=ip_address%3D192.0.2.2".to_owned(), vec!["c"]),
            (format!("network_id={NOBODY}"), vec![]),
            ("device_id=no-uuid".to_owned(), vec![]),
            ("sort_key=name&limit=2".to_owned(), vec!["a", "b"]),
            (format!("sort_key=name&limit=2&marker={}", ids[2]), vec!["c", "d"]),
            (format!("sort_key=name&limit=2&page_reverse=True&marker={}", ids[0]), vec!["a", "b"]),
            ("sort_key=name&limit=0".to_owned(), vec!["a", "b", "c", "d"]),
        ] {
            assert_eq!(names(&mut fixture, &query), expected, "{query}");
        }
        let cut = fixture.api.get("/v2.0/ports?fields=name&fields=id&fields=colour&name=a").expect(200);
        assert_eq!(cut["ports"], json!([{"name": "a", "id": ids[1]}]));
        for (query, words) in [
            ("limit=-1", "limit=-1"),
            ("limit=x", "limit=x"),
            ("sort_key=colour", "colour"),
            ("sort_key=name&sort_dir=up", "up"),
            ("sort_dir=asc", "sort_key"),
            ("marker=no-such", "no-such"),
            ("colour=red", "colour"),
            ("admin_state_up=maybe", "true or false"),
            ("port_security_enabled=", "true or false"),
            ("revision_number=new", "a whole number"),
            ("fixed_ips=192.0.2.2", "ip_address=…"),
        ] {
            let error = fixture.api.get(&format!("/v2.0/ports?{query}")).refused(400, "bad_query");
            assert!(text(&error["message"]).contains(words), "{error}");
        }
    });
}

#[test]
fn a_path_may_say_that_it_wants_json() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let port = fixture.create_port(json!({"network_id": network, "name": "old"}));
        fixture.api.put(&format!("/v2.0/ports/{port}.json"), &json!({"port": {"name": "new"}})).expect(200);
        assert_eq!(fixture.api.get("/v2.0/ports.json?name=new").expect(200)["ports"][0]["id"], port.as_str());
        let server = fixture.vm();
        let path = format!("/servers/{server}/os-virtual-interfacesv2.json");
        assert_eq!(fixture.api.get(&path).expect(200), json!({"virtual_interfaces": []}));
        fixture.api.get(&format!("/v2.1/servers/{server}.json")).expect(200);
        // The agent's own routes have one name each.
        fixture.api.get("/nicd/v1/health.json").refused(404, "no_such_route");
        fixture.api.get("/nicd/v1/openapi.json").expect(200);
        fixture.api.get("/openapi.json").expect(200);
    });
}

#[test]
fn numbers_and_truths_may_be_text_and_what_is_not_used_may_be_null() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({"mtu": "1400", "shared": "False", "admin_state_up": "True"}));
        assert_eq!(fixture.api.get(&format!("/v2.0/networks/{network}")).expect(200)["network"]["mtu"], 1400);
        fixture.subnet_with(json!({"network_id": network, "cidr": "192.0.2.0/24", "ip_version": "4", "enable_dhcp": "False",
            "dns_nameservers": null, "host_routes": null}));
        fixture.create_port(json!({"network_id": network, "port_security_enabled": 0, "security_groups": null,
            "allowed_address_pairs": null}));
        for (body, status, reason) in [
            (json!({"shared": "maybe"}), 400, "invalid_value"),
            (json!({"shared": "True"}), 501, "not_built"),
            (json!({"admin_state_up": 0}), 501, "not_built"),
            (json!({"mtu": "1e4"}), 400, "invalid_value"),
            (json!({"tenant_id": "a", "project_id": "b"}), 400, "invalid_value"),
        ] {
            fixture.api.post("/v2.0/networks", &json!({ "network": body })).refused(status, reason);
        }
    });
}

#[test]
fn port_security_address_pairs_limits_and_isolation_are_kept_and_changed() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let open = fixture.network(json!({"port_security_enabled": "False", "nicd:isolated": true}));
        fixture.subnet(&open, "198.51.100.0/24");
        let network = fixture.usual_network();
        let shown =
            |fixture: &mut Fixture, id: &str| fixture.api.get(&format!("/v2.0/networks/{id}")).expect(200)["network"].clone();
        for (id, security, isolated) in [(&open, false, true), (&network, true, false)] {
            let network = shown(&mut fixture, id);
            assert_eq!((&network["port_security_enabled"], &network["nicd:isolated"]), (&security.into(), &isolated.into()));
            let port = fixture.create_port(json!({ "network_id": id }));
            let port = fixture.port(&port);
            assert_eq!(port["port_security_enabled"], security);
            for (attribute, none) in
                [("allowed_address_pairs", json!([])), ("nicd:limits", Value::Null), ("nicd:isolated", Value::Null)]
            {
                assert_eq!(port[attribute], none, "{attribute}");
            }
        }
        let server = fixture.vm();
        let made = fixture.attach_to(&server, &open);
        assert_eq!(fixture.port(&made)["port_security_enabled"], false, "an attach too takes the network's");
        let pairs = json!([{"ip_address": "192.0.2.200", "mac_address": "00-00-5E-00-01-07"}, {"ip_address": "fd00::/64"}]);
        let limits = json!({"from_guest": {"rate_kbps": 1000, "burst_kb": 200}, "to_guest": {"rate_kbps": 64}});
        let port = fixture
            .create_port(json!({"network_id": open, "mac_address": "fa:16:3e:00:00:09", "port_security_enabled": true,
            "allowed_address_pairs": pairs, "nicd:limits": limits, "nicd:isolated": false}));
        fixture.attach(&server, json!({ "port_id": port }));
        let filled = json!([{"ip_address": "192.0.2.200", "mac_address": "00:00:5e:00:01:07"},
            {"ip_address": "fd00::/64", "mac_address": "fa:16:3e:00:00:09"}]);
        let before = fixture.port(&port);
        assert_eq!(before["allowed_address_pairs"], filled);
        assert_eq!((&before["nicd:limits"], &before["nicd:isolated"]), (&limits, &json!(false)));
        let listed = |fixture: &mut Fixture, on: &str| {
            let ports = fixture.api.get(&format!("/v2.0/ports?port_security_enabled={on}")).expect(200);
            ports["ports"].as_array().unwrap().len()
        };
        assert_eq!((listed(&mut fixture, "True"), listed(&mut fixture, "false")), (2, 2));
        fixture.daemon.kill();
        fixture.launch();
        assert_eq!(fixture.port(&port)["allowed_address_pairs"], filled, "also after a restart");
        let path = format!("/v2.0/ports/{port}");
        let put = |fixture: &mut Fixture, change: Value| fixture.api.put(&path, &json!({ "port": change }));
        // What is shown and given back changes nothing.
        let same =
            json!({"allowed_address_pairs": filled, "nicd:limits": limits, "nicd:isolated": false, "port_security_enabled": 1});
        assert_eq!(put(&mut fixture, same).expect(200)["port"]["revision_number"], before["revision_number"]);
        put(&mut fixture, json!({"port_security_enabled": false})).refused(409, "port_security_off");
        let mut revision = before["revision_number"].as_u64().unwrap();
        for (change, attribute, after) in [
            (
                json!({"allowed_address_pairs": [{"ip_address": "192.0.2.64/26"}]}),
                "allowed_address_pairs",
                json!([{"ip_address": "192.0.2.64/26", "mac_address": "fa:16:3e:00:00:09"}]),
            ),
            (json!({"port_security_enabled": false, "allowed_address_pairs": null}), "allowed_address_pairs", json!([])),
            (json!({"nicd:limits": {"to_guest": {"rate_kbps": 128}}}), "nicd:limits", json!({"to_guest": {"rate_kbps": 128}})),
            (json!({"nicd:limits": null}), "nicd:limits", Value::Null),
            (json!({"nicd:isolated": null}), "nicd:isolated", Value::Null),
            (json!({"port_security_enabled": "true"}), "port_security_enabled", json!(true)),
        ] {
            let changed = put(&mut fixture, change.clone()).expect(200)["port"].clone();
            revision += 1;
            assert_eq!((&changed[attribute], &changed["revision_number"]), (&after, &json!(revision)), "{change}");
            assert_eq!(changed, fixture.port(&port));
        }
        let change = json!({"network": {"port_security_enabled": true, "nicd:isolated": false}});
        fixture.api.put(&format!("/v2.0/networks/{open}"), &change).expect(200);
        let network = shown(&mut fixture, &open);
        assert_eq!((&network["port_security_enabled"], &network["nicd:isolated"]), (&json!(true), &json!(false)));
        assert_eq!(fixture.port(&made)["port_security_enabled"], false, "ports keep what they have");
    });
}

#[test]
fn a_subnets_gateway_and_pools_change_for_those_who_come_after() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({}));
        let subnet = fixture.subnet(&network, "192.0.2.0/24");
        let path = format!("/v2.0/subnets/{subnet}");
        let first = fixture.create_port(json!({ "network_id": network }));
        let address = |fixture: &mut Fixture, port: &str| text(&fixture.port(port)["fixed_ips"][0]["ip_address"]);
        assert_eq!(address(&mut fixture, &first), "192.0.2.2");
        let put = |fixture: &mut Fixture, change: Value| fixture.api.put(&path, &json!({ "subnet": change }));
        put(&mut fixture, json!({"gateway_ip": "192.0.2.2"})).refused(409, "address_in_use");
        put(&mut fixture, json!({"gateway_ip": "192.0.2.255"})).refused(400, "bad_subnet");
        let outside = json!({"allocation_pools": [{"start": "192.0.2.250", "end": "192.0.3.9"}]});
        put(&mut fixture, outside).refused(400, "bad_subnet");
        let pools = json!([{"start": "192.0.2.1", "end": "192.0.2.4"}]);
        let changed = put(&mut fixture, json!({"gateway_ip": "192.0.2.4", "allocation_pools": pools})).expect(200);
        assert_eq!((&changed["subnet"]["gateway_ip"], &changed["subnet"]["allocation_pools"]), (&json!("192.0.2.4"), &pools));
        fixture.daemon.kill();
        fixture.launch();
        assert_eq!(fixture.api.get(&path).expect(200), changed, "also after a restart");
        for expected in ["192.0.2.1", "192.0.2.3"] {
            let port = fixture.create_port(json!({ "network_id": network }));
            assert_eq!(address(&mut fixture, &port), expected);
        }
        fixture.api.post("/v2.0/ports", &json!({"port": {"network_id": network}})).refused(409, "pool_empty");
        // What a port has outside of the pools stays its own, and none of the pools' when it goes.
        let pools = json!([{"start": "192.0.2.9", "end": "192.0.2.9"}]);
        put(&mut fixture, json!({"gateway_ip": null, "allocation_pools": pools})).expect(200);
        fixture.api.delete(&format!("/v2.0/ports/{first}")).expect(204);
        let last = fixture.create_port(json!({ "network_id": network }));
        assert_eq!(address(&mut fixture, &last), "192.0.2.9");
        fixture.api.post("/v2.0/ports", &json!({"port": {"network_id": network}})).refused(409, "pool_empty");
    });
}

#[test]
fn a_change_that_changes_nothing_is_none() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let port = fixture.create_port(json!({"network_id": network, "name": "a"}));
        let subnet = text(&fixture.port(&port)["fixed_ips"][0]["subnet_id"]);
        let server = fixture.vm();
        let server = format!("/nicd/v1/servers/{server}");
        let guest = fixture.api.get(&server).expect(200)["server"]["guest"].clone();
        assert_eq!(guest["owner"], Value::Null, "none was given");
        for (path, key, same, other) in [
            (format!("/v2.0/networks/{network}"), "network", json!({"mtu": 1500}), json!({"mtu": 1400})),
            (format!("/v2.0/subnets/{subnet}"), "subnet", json!({"gateway_ip": "192.0.2.1"}), json!({"name": "b"})),
            (format!("/v2.0/ports/{port}"), "port", json!({"name": "a"}), json!({"name": "b"})),
            (server, "server", json!({ "guest": guest }), json!({"guest": guest, "name": "b"})),
        ] {
            let before = fixture.api.get(&path).expect(200);
            assert_eq!(fixture.api.put(&path, &json!({ key: same })).expect(200), before);
            assert_eq!(fixture.api.get(&path).expect(200), before);
            let after = fixture.api.put(&path, &json!({ key: other })).expect(200);
            assert_ne!(after[key]["updated_at"], before[key]["updated_at"], "{path}");
            assert_eq!(after[key]["created_at"], before[key]["created_at"], "{path}");
        }
    });
}

#[test]
fn a_change_may_be_for_one_revision_alone() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let port = fixture.create_port(json!({ "network_id": network }));
        let subnet = text(&fixture.port(&port)["fixed_ips"][0]["subnet_id"]);
        for (path, key) in [
            (format!("/v2.0/ports/{port}"), "port"),
            (format!("/v2.0/subnets/{subnet}"), "subnet"),
            (format!("/v2.0/networks/{network}"), "network"),
        ] {
            let body = json!({ key: {"name": "changed"} }).to_string();
            let mut ask = |method: &str, condition: &str| {
                let headers = [("Content-Type", "application/json"), ("If-Match", condition)];
                let body = if method == "PUT" { body.as_str() } else { "" };
                fixture.api.call(method, &path, &headers, body.as_bytes())
            };
            for method in ["PUT", "DELETE"] {
                let error = ask(method, "revision_number=7").refused(412, "revision_mismatch");
                assert_eq!(error["type"], "RevisionNumberConstraintFailed");
                ask(method, "W/\"1\"").refused(400, "bad_condition");
            }
            assert_eq!(ask("PUT", "revision_number=1").expect(200)[key]["revision_number"], 2);
            ask("PUT", "revision_number=1").refused(412, "revision_mismatch");
            ask("PUT", "*").expect(200);
            ask("DELETE", "revision_number=2").expect(204);
        }
    });
}

#[test]
fn what_cannot_be_changed_is_told_from_what_there_is_not() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let port = fixture.create_port(json!({ "network_id": network }));
        let subnet = text(&fixture.port(&port)["fixed_ips"][0]["subnet_id"]);
        for (path, key, body, words) in [
            (
                format!("/v2.0/networks/{network}"),
                "network",
                json!({"nicd:bridge": "br0"}),
                "nicd:bridge. Value: br0. Cannot update",
            ),
            (
                format!("/v2.0/subnets/{subnet}"),
                "subnet",
                json!({"cidr": "192.0.2.0/25"}),
                "cidr. Value: 192.0.2.0/25. Cannot update",
            ),
            (format!("/v2.0/ports/{port}"), "port", json!({ "network_id": NOBODY }), "network_id. Value: 9c1f5d6e"),
            (format!("/v2.0/ports/{port}"), "port", json!({"colour": "red"}), "'colour' was unexpected"),
        ] {
            let error = fixture.api.put(&path, &json!({ key: body })).refused(400, "invalid_value");
            assert!(text(&error["message"]).contains(words), "{error}");
        }
    });
}
