//! Invalid requests: each is refused with its status, its stable word, the value in the message, the request id in both headers
//! and the dialect's envelope, and leaves no trace.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/kernel_view.rs"]
mod kernel_view;
#[path = "common/netns.rs"]
mod netns;

use daemon::Answer;
use fixture::{Fixture, interfaces, server_path, text};
use kernel_view::marked;
use netns::{in_netns, run};
use serde_json::{Value, json};

const NOBODY: &str = "00000000-0000-4000-8000-000000000009";

/// A request and how it is to be refused.
struct Bad {
    method: &'static str,
    path: String,
    body: Value,
    status: u16,
    reason: &'static str,
    /// What of the request the message repeats.
    says: String,
}

fn bad(method: &'static str, path: impl Into<String>, body: Value, status: u16, reason: &'static str, says: &str) -> Bad {
    Bad { method, path: path.into(), body, status, reason, says: says.to_owned() }
}

/// Everything there is, as a client and as the kernel shows it.
fn everything(fixture: &mut Fixture) -> Vec<String> {
    let lists = ["/v2.0/networks", "/v2.0/subnets", "/v2.0/security-groups", "/v2.0/ports", "/nicd/v1/servers"];
    let mut all: Vec<String> = lists.iter().map(|list| fixture.api.get(list).text).collect();
    all.extend(marked());
    all
}

/// All three headers carry the request's id, and the envelope is the path's dialect's.
fn well_formed(path: &str, answer: &Answer) -> Value {
    let id = answer.header("x-compute-request-id").unwrap_or_else(|| panic!("{}: no id", answer.call));
    assert!(id.strip_prefix("req-").is_some_and(|id| uuid::Uuid::parse_str(id).is_ok()), "{id}");
    for name in ["x-openstack-request-id", "x-request-id"] {
        assert_eq!(answer.header(name), Some(id), "{name}");
    }
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let json = answer.json();
    let key = json.as_object().unwrap().keys().next().unwrap().clone();
    let error = answer.error();
    assert!(!text(&error["reason"]).is_empty() && !text(&error["message"]).is_empty());
    if path.starts_with("/v2.0") {
        assert_eq!(key, "NeutronError", "{json}");
        assert!(!text(&error["type"]).is_empty() && error["detail"] == "", "{json}");
        return error;
    }
    let expected = match answer.status {
        400 => "badRequest",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "itemNotFound",
        405 => "badMethod",
        409 => "conflictingRequest",
        413 | 429 => "overLimit",
        415 => "badMediaType",
        501 => "notImplemented",
        503 => "serviceUnavailable",
        _ => "computeFault",
    };
    assert_eq!((key.as_str(), &error["code"]), (expected, &json!(answer.status)), "{json}");
    error
}

/// Makes each request and checks its refusal, and that nothing is there afterwards that was not before.
fn refused(fixture: &mut Fixture, cases: Vec<Bad>) {
    let before = everything(fixture);
    for case in cases {
        let body = if case.body.is_null() { String::new() } else { case.body.to_string() };
        let headers: &[(&str, &str)] = if body.is_empty() { &[] } else { &[("Content-Type", "application/json")] };
        let answer = fixture.api.call(case.method, &case.path, headers, body.as_bytes());
        let what = format!("{} {} {body}: {}", case.method, case.path, answer.text);
        assert_eq!(answer.status, case.status, "{what}");
        let error = well_formed(&case.path, &answer);
        assert_eq!(error["reason"], case.reason, "{what}");
        assert!(text(&error["message"]).contains(&case.says), "the message does not say '{}': {what}", case.says);
        assert_eq!(everything(fixture), before, "it left a trace: {what}");
    }
}

#[test]
fn attaches_that_cannot_be() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({"name": "blue"}));
        fixture.subnet(&network, "192.0.2.0/29");
        let bare = fixture.network(json!({"name": "no subnet"}));
        let server = fixture.vm();
        let taken = fixture.attach(&server, json!({"net_id": network, "fixed_ips": [{"ip_address": "192.0.2.4"}]}));
        let path = interfaces(&server);
        let attach = |nic: Value| json!({ "interfaceAttachment": nic });
        let at = |ip: &str| attach(json!({"net_id": network, "fixed_ips": [{"ip_address": ip}]}));
        let two = json!([{"ip_address": "192.0.2.2"}, {"ip_address": "192.0.2.3"}]);
        let post = |body, status, reason, says: &str| bad("POST", path.clone(), body, status, reason, says);
        let cases = vec![
            bad("POST", interfaces(NOBODY), attach(json!({"net_id": network})), 404, "no_such_server", NOBODY),
            bad("POST", interfaces("nonsense"), attach(json!({"net_id": network})), 404, "no_such_server", "nonsense"),
            post(attach(json!({"net_id": NOBODY})), 404, "no_such_network", NOBODY),
            post(attach(json!({"port_id": NOBODY})), 404, "no_such_port", NOBODY),
            post(attach(json!({"net_id": "blue"})), 400, "invalid_value", "blue"),
            post(attach(json!({"port_id": 7})), 400, "invalid_value", "7"),
            post(attach(json!({"net_id": network, "port_id": taken})), 400, "network_and_port", "port_id"),
            post(
                attach(json!({"port_id": taken, "fixed_ips": [{"ip_address": "192.0.2.2"}]})),
                400,
                "address_without_network",
                "IP",
            ),
            post(attach(json!({"fixed_ips": [{"ip_address": "192.0.2.2"}]})), 400, "address_without_network", "network_id"),
            post(attach(json!({"net_id": network, "fixed_ips": []})), 400, "invalid_value", "too short"),
            post(attach(json!({"net_id": network, "fixed_ips": two})), 400, "invalid_value", "too long"),
            post(attach(json!({"net_id": network, "fixed_ips": "192.0.2.2"})), 400, "invalid_value", "array"),
            post(at("192.0.2"), 400, "invalid_value", "192.0.2"),
            post(at("198.51.100.7"), 400, "address_outside_subnet", "198.51.100.7"),
            post(at("2001:db8::7"), 400, "address_outside_subnet", "2001:db8::7"),
            post(at("192.0.2.4"), 409, "address_in_use", "192.0.2.4"),
            post(at("192.0.2.0"), 400, "address_not_usable", "192.0.2.0"),
            post(at("192.0.2.7"), 400, "address_not_usable", "192.0.2.7"),
            post(attach(json!({"net_id": bare})), 400, "no_subnet", &bare),
            post(attach(json!({"port_id": taken})), 409, "port_in_use", &taken),
            post(attach(json!({"net_id": network, "colour": "red"})), 400, "invalid_value", "colour"),
            post(json!({"interfaceAttachment": {}, "more": 1}), 400, "invalid_body", "more"),
            post(json!({"interfaceAttachment": []}), 400, "invalid_value", "[]"),
            post(json!([]), 400, "invalid_body", "[]"),
            bad("GET", format!("{path}/{NOBODY}"), Value::Null, 404, "no_such_port", NOBODY),
            bad("GET", format!("{path}/%ff"), Value::Null, 400, "bad_path", "%ff"),
            bad("DELETE", format!("{path}/{NOBODY}"), Value::Null, 404, "no_such_port", NOBODY),
            bad("DELETE", format!("{path}/nonsense"), Value::Null, 404, "no_such_port", "nonsense"),
            bad("GET", interfaces(NOBODY), Value::Null, 404, "no_such_server", NOBODY),
            bad("DELETE", format!("{}/{taken}", interfaces(NOBODY)), Value::Null, 404, "no_such_server", NOBODY),
            bad("DELETE", server_path(&server), Value::Null, 409, "server_has_nics", &server),
            bad("DELETE", format!("/v2.0/networks/{network}"), Value::Null, 409, "network_in_use", &network),
        ];
        refused(&mut fixture, cases);
        let other = fixture.vm();
        let wrong = format!("{}/{taken}", interfaces(&other));
        let cases = ["GET", "DELETE"].map(|method| bad(method, &wrong, Value::Null, 404, "port_not_on_server", &taken));
        refused(&mut fixture, cases.into());
    });
}

#[test]
fn a_pool_that_is_empty_tells_its_size_and_use() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({}));
        fixture.subnet(&network, "192.0.2.0/29");
        let server = fixture.vm();
        for _ in 0..5 {
            fixture.attach_to(&server, &network);
        }
        let body = json!({"interfaceAttachment": {"net_id": network}});
        let says = "5 of 5 addresses of 192.0.2.0/29";
        let attach = bad("POST", interfaces(&server), body, 400, "pool_empty", says);
        let port = bad("POST", "/v2.0/ports", json!({"port": {"network_id": network}}), 409, "pool_empty", says);
        refused(&mut fixture, vec![attach, port]);
    });
}

#[test]
fn a_server_has_its_limit_of_nics() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        for _ in 0..12 {
            fixture.attach_to(&server, &network);
        }
        let body = json!({"interfaceAttachment": {"net_id": network}});
        let over = bad("POST", interfaces(&server), body, 403, "too_many_nics", "12");
        refused(&mut fixture, vec![over]);
    });
}

#[test]
fn networks_and_subnets_that_cannot_be() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({}));
        let subnet = fixture.subnet(&network, "192.0.2.0/24");
        run("ip link add plain type veth peer name other");
        run("ip link add uplink type bridge");
        run("ip addr add 198.51.100.2/24 dev uplink");
        run("ip link set uplink up");
        run("ip route add default via 198.51.100.1 dev uplink");
        let network_of = |body: Value, status, reason, says: &str| {
            bad("POST", "/v2.0/networks", json!({ "network": body }), status, reason, says)
        };
        let vlan = |id: Value| json!({"provider:network_type": "vlan", "provider:physical_network": "nowhere", "provider:segmentation_id": id});
        let subnet_of = |mut body: Value, status, reason, says: &str| {
            body["network_id"] = network.clone().into();
            bad("POST", "/v2.0/subnets", json!({ "subnet": body }), status, reason, says)
        };
        let by = |nexthop: &str| json!([{"destination": "198.51.100.0/24", "nexthop": nexthop}]);
        let routed = |nexthop: &str| json!({"cidr": "10.0.0.0/24", "host_routes": by(nexthop)});
        let route_of = |nexthop: &str, status, reason, says: &str| {
            let body = json!({"subnet": {"host_routes": by(nexthop)}});
            bad("PUT", format!("/v2.0/subnets/{subnet}"), body, status, reason, says)
        };
        let elsewhere = json!({"subnet": {"network_id": NOBODY, "cidr": "198.51.100.0/24"}});
        let cases = vec![
            network_of(json!({"nicd:bridge": "nowhere"}), 400, "no_such_bridge", "nowhere"),
            network_of(json!({"nicd:bridge": "plain"}), 400, "not_a_bridge", "plain"),
            network_of(json!({"nicd:bridge": "uplink"}), 403, "bridge_not_allowed", "uplink"),
            network_of(json!({"nicd:bridge": "a/b"}), 400, "invalid_value", "a/b"),
            network_of(json!({"mtu": 1279}), 400, "invalid_value", "1279"),
            network_of(json!({"mtu": 65522}), 400, "invalid_value", "65522"),
            network_of(json!({"mtu": "wide"}), 400, "invalid_value", "wide"),
            network_of(json!({"id": "x"}), 400, "invalid_value", "x"),
            network_of(json!({"id": network}), 409, "id_in_use", &network),
            network_of(json!({"name": "a\u{0}b"}), 400, "invalid_value", "name"),
            network_of(json!({"name": "x".repeat(256)}), 400, "invalid_value", "255"),
            network_of(json!({"colour": "red"}), 400, "invalid_value", "colour"),
            network_of(json!({"port_security_enabled": null}), 400, "invalid_value", "port_security_enabled"),
            network_of(json!({"nicd:isolated": "maybe"}), 400, "invalid_value", "maybe"),
            network_of(json!({"provider:network_type": "gre"}), 400, "invalid_value", "gre"),
            network_of(json!({"provider:network_type": "vlan"}), 400, "invalid_value", "provider:physical_network"),
            network_of(
                vlan(json!(5)),
                400,
                "unknown_physical_network",
                "'nowhere' is not known; [physical_networks] of the configuration has none",
            ),
            network_of(vlan(json!(0)), 400, "invalid_value", "1 to 4094"),
            network_of(vlan(json!(4095)), 400, "invalid_value", "4095"),
            network_of(vlan(json!("red")), 400, "invalid_value", "red"),
            network_of(json!({"provider:physical_network": "nowhere"}), 400, "unknown_physical_network", "nowhere"),
            network_of(json!({"provider:network_type": "vxlan"}), 501, "fleet_only", "fleet"),
            network_of(
                json!({"provider:network_type": "vxlan", "provider:segmentation_id": 16_777_216}),
                400,
                "invalid_value",
                "16777215",
            ),
            network_of(json!({"provider:segmentation_id": 5}), 400, "invalid_value", "vlan"),
            subnet_of(json!({}), 400, "invalid_value", "cidr"),
            subnet_of(json!({"cidr": "10.0.0.0/33"}), 400, "invalid_value", "10.0.0.0/33"),
            subnet_of(json!({"cidr": "10.0.0.0"}), 400, "invalid_value", "10.0.0.0"),
            subnet_of(json!({"cidr": "blue"}), 400, "invalid_value", "blue"),
            subnet_of(json!({"cidr": "10.0.0.0/24", "ip_version": 6}), 400, "invalid_value", "6"),
            subnet_of(json!({"cidr": "192.0.2.128/25"}), 400, "subnet_overlap", "192.0.2.128/25"),
            subnet_of(json!({"cidr": "10.0.0.0/24", "gateway_ip": "10.0.0"}), 400, "invalid_value", "10.0.0"),
            subnet_of(json!({"cidr": "10.0.0.0/24", "gateway_ip": "fd00::1"}), 400, "bad_subnet", "fd00::1"),
            subnet_of(
                json!({"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.0.9", "end": "10.0.0.3"}]}),
                400,
                "bad_subnet",
                "10.0.0.9",
            ),
            subnet_of(
                json!({"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.1.2", "end": "10.0.1.3"}]}),
                400,
                "bad_subnet",
                "10.0.1.2",
            ),
            subnet_of(json!({"cidr": "126.0.0.0/7"}), 400, "bad_subnet", "127.0.0.0/8"),
            subnet_of(json!({"cidr": "fc00::/6"}), 400, "bad_subnet", "fe80::/10"),
            subnet_of(routed("10.0.0.255"), 400, "bad_subnet", "10.0.0.255"),
            subnet_of(routed("10.0.0.0"), 400, "bad_subnet", "10.0.0.0"),
            subnet_of(routed("192.0.2.255"), 400, "bad_subnet", "192.0.2.255"),
            subnet_of(routed("198.51.100.9"), 400, "bad_subnet", "198.51.100.9"),
            subnet_of(routed("fd00::1"), 400, "bad_subnet", "fd00::1"),
            route_of("192.0.2.255", 400, "bad_subnet", "192.0.2.255"),
            route_of("198.51.100.9", 400, "bad_subnet", "198.51.100.9"),
            route_of("224.0.0.1", 400, "bad_subnet", "224.0.0.1"),
            subnet_of(json!({"cidr": "10.0.0.0/24", "dns_nameservers": ["dns"]}), 400, "invalid_value", "dns"),
            bad("POST", "/v2.0/subnets", elsewhere, 404, "no_such_network", NOBODY),
            bad("PUT", format!("/v2.0/networks/{NOBODY}"), json!({"network": {}}), 404, "no_such_network", NOBODY),
            bad("DELETE", format!("/v2.0/networks/{NOBODY}"), Value::Null, 404, "no_such_network", NOBODY),
            bad("GET", format!("/v2.0/subnets/{NOBODY}"), Value::Null, 404, "no_such_subnet", NOBODY),
            bad("GET", "/v2.0/networks/nonsense", Value::Null, 404, "no_such_network", "nonsense"),
            bad(
                "PUT",
                format!("/v2.0/subnets/{subnet}"),
                json!({"subnet": {"cidr": "10.0.0.0/8"}}),
                400,
                "invalid_value",
                "cidr",
            ),
            bad("GET", "/v2.0/networks?colour=red", Value::Null, 400, "bad_query", "colour"),
        ];
        refused(&mut fixture, cases);
    });
}

#[test]
fn ports_that_cannot_be() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let port = fixture.create_port(json!({"network_id": network, "mac_address": "fa:16:3e:00:00:01",
            "fixed_ips": [{"ip_address": "192.0.2.9"}]}));
        let group = fixture.api.post("/v2.0/security-groups", &json!({"security_group": {}})).expect(201);
        let group = text(&group["security_group"]["id"]);
        let new = |mut body: Value, status, reason, says: &str| {
            body["network_id"] = network.clone().into();
            bad("POST", "/v2.0/ports", json!({ "port": body }), status, reason, says)
        };
        let change = |body: Value, status, reason, says: &str| {
            bad("PUT", format!("/v2.0/ports/{port}"), json!({ "port": body }), status, reason, says)
        };
        let pairs = |ips: &[&str], mac: Value| {
            let pairs: Vec<Value> = ips.iter().map(|ip| json!({"ip_address": ip, "mac_address": mac})).collect();
            json!({ "allowed_address_pairs": pairs })
        };
        let off = |mut body: Value| {
            body["port_security_enabled"] = false.into();
            body
        };
        let twice = json!([{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.1", "mac_address": "fa:16:3e:00:00:01"}]);
        let cases = vec![
            new(json!({"mac_address": "zz:16:3e:00:00:01"}), 400, "invalid_value", "zz:16:3e:00:00:01"),
            new(json!({"mac_address": "fa:16:3e:00:00"}), 400, "invalid_value", "fa:16:3e:00:00"),
            new(json!({"mac_address": "01:00:5e:00:00:01"}), 400, "bad_mac", "01:00:5e:00:00:01"),
            new(json!({"mac_address": "fe:16:3e:00:00:01"}), 400, "bad_mac", "fe:16:3e:00:00:01"),
            new(json!({"mac_address": "00:00:00:00:00:00"}), 400, "bad_mac", "00:00:00:00:00:00"),
            new(json!({"mac_address": "FA-16-3E-00-00-01"}), 409, "mac_in_use", "fa:16:3e:00:00:01"),
            new(json!({"fixed_ips": [{"ip_address": "192.0.2.9"}]}), 409, "address_in_use", "192.0.2.9"),
            new(json!({"fixed_ips": [{"ip_address": "10.0.0.1"}]}), 400, "address_outside_subnet", "10.0.0.1"),
            new(json!({"fixed_ips": [{"subnet_id": NOBODY}]}), 404, "no_such_subnet", NOBODY),
            new(json!({"fixed_ips": [{}]}), 400, "invalid_value", "{}"),
            new(json!({"id": port}), 409, "id_in_use", &port),
            new(json!({"security_groups": ["default"]}), 400, "invalid_value", "default"),
            new(json!({"security_groups": [NOBODY]}), 404, "no_such_group", NOBODY),
            new(off(json!({"security_groups": [group]})), 409, "port_security_off", "security_groups"),
            new(json!({"binding:host_id": "elsewhere"}), 400, "invalid_value", "elsewhere"),
            new(
                json!({"binding:profile": {"interface_name": "much-too-long-for-the-kernel"}}),
                400,
                "invalid_value",
                "much-too-long",
            ),
            new(json!({"binding:profile": {"pci_slot": "0"}}), 400, "invalid_value", "pci_slot"),
            new(pairs(&["0.0.0.0/0"], Value::Null), 400, "pair_too_wide", "0.0.0.0/0"),
            new(pairs(&["::/0"], Value::Null), 400, "pair_too_wide", "::/0"),
            new(pairs(&["10.0.0.1/24"], Value::Null), 400, "invalid_value", "10.0.0.0/24"),
            new(pairs(&["10.0.0.0/33"], Value::Null), 400, "invalid_value", "10.0.0.0/33"),
            new(pairs(&["10.0.0.1"; 65], Value::Null), 400, "invalid_value", "64"),
            new(pairs(&["10.0.0.1", "10.0.0.1/32"], Value::Null), 400, "duplicate_pair", "10.0.0.1"),
            new(pairs(&["10.0.0.1"], "01:00:5e:00:00:01".into()), 400, "bad_mac", "01:00:5e:00:00:01"),
            new(pairs(&["10.0.0.1"], "fe:16:3e:00:00:01".into()), 400, "bad_mac", "fe:16:3e:00:00:01"),
            new(off(pairs(&["10.0.0.1"], Value::Null)), 409, "port_security_off", "Port Security must be enabled"),
            change(off(pairs(&["10.0.0.1"], Value::Null)), 409, "port_security_off", "allowed_address_pairs"),
            change(json!({"allowed_address_pairs": twice}), 400, "duplicate_pair", "fa:16:3e:00:00:01"),
            change(json!({"port_security_enabled": null}), 400, "invalid_value", "null"),
            new(json!({"nicd:limits": {"to_guest": {"rate_kbps": 63}}}), 400, "invalid_value", "63"),
            new(json!({"nicd:limits": {"to_guest": {"rate_kbps": 64, "rate": 64}}}), 400, "invalid_value", "'rate'"),
            new(json!({"nicd:limits": {"to_host": {"rate_kbps": 64}}}), 400, "invalid_value", "to_host"),
            new(json!({"nicd:isolated": "maybe"}), 400, "invalid_value", "maybe"),
            new(json!({"colour": "red"}), 400, "invalid_value", "colour"),
            bad("POST", "/v2.0/ports", json!({"port": {}}), 400, "invalid_value", "network_id"),
            bad("POST", "/v2.0/ports", json!({"port": {"network_id": NOBODY}}), 404, "no_such_network", NOBODY),
            change(json!({"device_id": NOBODY}), 409, "use_attach", &port),
            change(json!({"network_id": NOBODY}), 400, "invalid_value", "network_id"),
            bad("PUT", format!("/v2.0/ports/{NOBODY}"), json!({"port": {}}), 404, "no_such_port", NOBODY),
            bad("GET", format!("/nicd/v1/ports/{NOBODY}/explain"), Value::Null, 404, "no_such_port", NOBODY),
            bad("GET", format!("/nicd/v1/ports/{NOBODY}/counters"), Value::Null, 404, "no_such_port", NOBODY),
        ];
        refused(&mut fixture, cases);
    });
}

#[test]
fn servers_that_cannot_be() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let server = fixture.vm();
        let put = |guest: Value, reason, says: &str| {
            bad("PUT", server_path(NOBODY), json!({"server": {"guest": guest}}), 400, reason, says)
        };
        let vm = || json!({"server": {"guest": {"kind": "vm"}}});
        let cases = vec![
            bad("PUT", server_path("nonsense"), vm(), 400, "bad_id", "nonsense"),
            put(json!({"kind": "pod"}), "invalid_value", "pod"),
            put(json!({"kind": "vm", "queues": 0}), "invalid_value", "0"),
            put(json!({"kind": "vm", "queues": 257}), "invalid_value", "257"),
            put(json!({"kind": "vm", "owner": {"uid": -1}}), "invalid_value", "-1"),
            put(json!({"kind": "vm", "path": "/x"}), "invalid_value", "path"),
            put(json!({"kind": "netns"}), "invalid_value", "path"),
            put(json!({"kind": "netns", "path": "relative"}), "invalid_value", "relative"),
            put(json!({"kind": "netns", "path": "/run/netns/never"}), "no_such_namespace", "/run/netns/never"),
            put(json!({"kind": "netns", "path": "/proc/self/ns/net"}), "own_namespace", "/proc/self/ns/net"),
            bad("GET", server_path(NOBODY), Value::Null, 404, "no_such_server", NOBODY),
            bad("DELETE", server_path(NOBODY), Value::Null, 404, "no_such_server", NOBODY),
            bad("DELETE", format!("{}?detatch=true", server_path(&server)), Value::Null, 400, "bad_query", "detatch"),
        ];
        refused(&mut fixture, cases);
    });
}

#[test]
fn an_interface_name_that_is_taken_is_refused_and_leaves_no_trace() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        guest.ip("link add wan0 type bridge");
        // The network's bridge is there, so that nothing but the port is new.
        let other = fixture.vm();
        fixture.attach_to(&other, &network);
        let port = fixture.create_port(json!({"network_id": network, "binding:profile": {"interface_name": "wan0"}}));
        let inside = guest.ip("link");
        let body = json!({"interfaceAttachment": {"port_id": port}});
        let before = fixture.port(&port);
        let answer = fixture.api.post(&interfaces(&server), &body);
        let error = well_formed("/v2.1", &answer);
        assert_eq!((answer.status, &error["reason"]), (409, &json!("interface_name_taken")), "{}", answer.text);
        assert!(text(&error["message"]).contains("wan0"));
        assert_eq!(guest.ip("link"), inside);
        assert_eq!(fixture.port(&port), before);
        assert_eq!(marked().len(), 2, "the other's device and the bridge");
        guest.ip("link del wan0");
        fixture.api.post(&interfaces(&server), &body).expect(200);
    });
}

#[test]
fn bodies_that_are_none() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let before = everything(&mut fixture);
        let deep = "[".repeat(60_000);
        let large = format!("{{\"network\": {{\"name\": \"{}\"}}}}", "x".repeat(70_000));
        let json_type = ("Content-Type", "application/json");
        let server = fixture.vm();
        let paths = ["/v2.0/networks".to_owned(), "/v2.0/ports".to_owned(), interfaces(&server)];
        for path in &paths {
            for (headers, body, status, reason) in [
                (vec![json_type], "{", 400, "malformed_body"),
                (vec![json_type], "nonsense", 400, "malformed_body"),
                (vec![json_type], "{\"a\": 1e999}", 400, "malformed_body"),
                (vec![json_type], "{\"a\": \"\\ud800\"}", 400, "malformed_body"),
                (vec![json_type], deep.as_str(), 400, "malformed_body"),
                (vec![json_type], large.as_str(), 413, "body_too_large"),
                (vec![("Content-Type", "text/plain")], "{}", 415, "unsupported_media_type"),
                (vec![("Content-Type", "application/x-www-form-urlencoded")], "a=b", 415, "unsupported_media_type"),
                (vec![], "{}", 415, "unsupported_media_type"),
            ] {
                let answer = fixture.api.call("POST", path, &headers, body.as_bytes());
                let error = well_formed(path, &answer);
                assert_eq!((answer.status, &error["reason"]), (status, &json!(reason)), "{path}: {}", answer.text);
                assert!(text(&error["message"]).len() < 1024, "a message is no place for a whole body");
            }
        }
        fixture.api.delete(&server_path(&server)).expect(204);
        assert_eq!(everything(&mut fixture), before);
    });
}

/// Every route that reads a body, with the key of its envelope and an attribute it knows that is a text.
fn readers(fixture: &mut Fixture) -> Vec<(&'static str, String, &'static str, &'static str)> {
    let network = fixture.usual_network();
    let subnet = text(&fixture.api.get("/v2.0/subnets").expect(200)["subnets"][0]["id"]);
    let port = fixture.create_port(json!({ "network_id": network }));
    let server = fixture.vm();
    vec![
        ("POST", "/v2.0/networks".to_owned(), "network", "name"),
        ("PUT", format!("/v2.0/networks/{network}"), "network", "name"),
        ("POST", "/v2.0/subnets".to_owned(), "subnet", "name"),
        ("PUT", format!("/v2.0/subnets/{subnet}"), "subnet", "name"),
        ("POST", "/v2.0/ports".to_owned(), "port", "name"),
        ("PUT", format!("/v2.0/ports/{port}"), "port", "name"),
        ("POST", interfaces(&server), "interfaceAttachment", "tag"),
        ("POST", format!("/v2/0/servers/{server}/os-interface"), "interfaceAttachment", "tag"),
        ("POST", format!("/v2/0/servers/{server}/os-virtual-interfacesv2"), "virtual_interface", "network_id"),
        ("PUT", server_path(&server), "server", "name"),
    ]
}

#[test]
fn json_that_means_something_else_to_every_reader_is_refused_on_every_route() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let readers = readers(&mut fixture);
        let before = everything(&mut fixture);
        let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
        for (method, path, key, attribute) in readers {
            let inside = |text: &str| format!("{{\"{key}\": {{\"{attribute}\": {text}}}}}");
            let escaped: String = attribute.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
            for (body, reason, says) in [
                // The same key twice: at the top, in the envelope, below what is not even known, and spelt otherwise.
                (format!("{{\"{key}\": {{}}, \"{key}\": {{}}}}"), "duplicate_key", key),
                (inside(&format!("\"a\", \"{attribute}\": \"a\"")), "duplicate_key", attribute),
                (inside(&format!("\"a\", \"{escaped}\": \"b\"")), "duplicate_key", attribute),
                (inside("[{\"x\": [{\"ip\": 1, \"ip\": 2}]}]"), "duplicate_key", "ip"),
                // A NUL as such, half a surrogate pair, either half first, and bytes that are no UTF-8.
                (inside("\"a\u{0}b\""), "malformed_body", "control character"),
                (inside("\"\\ud800\""), "malformed_body", ""),
                (inside("\"\\udc00\\ud800\""), "malformed_body", ""),
                (inside("1e999"), "malformed_body", "number out of range"),
                (inside("-1e999"), "malformed_body", "number out of range"),
                (inside(&deep), "malformed_body", "recursion limit"),
                (inside(&"[".repeat(60_000)), "malformed_body", "recursion limit"),
                (inside(&"{\"a\":".repeat(10_000)), "malformed_body", "recursion limit"),
                // What is JSON and no name.
                (inside("\"a\\u0000b\""), "invalid_value", ""),
                (inside("1e308"), "invalid_value", ""),
                (inside("[[]]"), "invalid_value", ""),
            ] {
                let version = ("OpenStack-API-Version", "compute 2.49");
                let answer = fixture.api.call(method, &path, &[("Content-Type", "application/json"), version], body.as_bytes());
                let shown: String = body.chars().take(200).collect();
                let what = format!("{method} {path} {shown}: {}", answer.text);
                let error = well_formed(&path, &answer);
                assert_eq!((answer.status, &error["reason"]), (400, &json!(reason)), "{what}");
                assert!(text(&error["message"]).contains(says), "it does not say '{says}': {what}");
                assert!(answer.text.len() < 1500, "a message is no place for a whole body: {what}");
            }
        }
        assert_eq!(everything(&mut fixture), before);
    });
}

#[test]
fn paths_and_methods_that_are_none() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let server = fixture.vm();
        for path in ["/nonsense", "/v2.0/routers", "/v2.1/servers/x/y/z", "/nicd/v1/nonsense", "/v3/", "/nicd/v2/health"] {
            let answer = fixture.api.get(path);
            let error = well_formed(path, &answer);
            assert_eq!((answer.status, &error["reason"]), (404, &json!("no_such_route")), "{path}");
            assert!(text(&error["message"]).contains(path));
        }
        for (method, path, allowed) in [
            ("PUT", "/v2.0/networks".to_owned(), vec!["GET", "HEAD", "POST"]),
            ("PATCH", format!("/v2.0/ports/{NOBODY}"), vec!["GET", "HEAD", "PUT", "DELETE"]),
            ("DELETE", interfaces(&server), vec!["GET", "HEAD", "POST"]),
            ("PUT", format!("{}/{NOBODY}", interfaces(&server)), vec!["GET", "HEAD", "DELETE"]),
            ("POST", "/nicd/v1/health".to_owned(), vec!["GET", "HEAD"]),
            ("POST", "/v2.1/servers".to_owned(), vec!["GET", "HEAD"]),
        ] {
            let answer = fixture.api.call(method, &path, &[], b"");
            let error = well_formed(&path, &answer);
            assert_eq!((answer.status, &error["reason"]), (405, &json!("bad_method")), "{method} {path}");
            let mut given: Vec<&str> = answer.header("allow").expect("Allow").split(',').map(str::trim).collect();
            let mut allowed = allowed;
            given.sort_unstable();
            allowed.sort_unstable();
            assert_eq!(given, allowed, "{method} {path}");
        }
    });
}

#[test]
fn what_is_not_built_is_said_to_be_so() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let of = |path: &str, key: &str, body: Value, says: &str| bad("POST", path, json!({ key: body }), 501, "not_built", says);
        let port = |mut body: Value, says: &str| {
            body["network_id"] = network.clone().into();
            of("/v2.0/ports", "port", body, says)
        };
        let cases = vec![port(json!({"binding:vnic_type": "direct"}), "binding:vnic_type")];
        refused(&mut fixture, cases);
    });
}
