//! Rackspace's `os-virtual-interfacesv2`: the whole table of statuses in its reference, and one NIC per network.
//!
//! 401 is in `tests/peers.rs`, as it takes another uid.

use std::fs;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::daemon::{Client, Daemon};
use crate::fixture::{Fixture, interfaces, text};
use crate::kernel_view::marked;
use crate::netns::in_netns;
use crate::{NOBODY, told};

fn virtual_interfaces(server: &str) -> String {
    format!("/v2/658405/servers/{server}/os-virtual-interfacesv2")
}

fn on(network: &str) -> Value {
    json!({"virtual_interface": {"network_id": network}})
}

#[test]
fn each_status_of_the_reference_is_answered_when_it_says() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (network, other) = (fixture.usual_network(), fixture.usual_network());
        let bare = fixture.network(json!({}));
        let server = NOBODY.replace('9', "8");
        let limited = json!({"server": {"guest": {"kind": "vm"}, "nic_limit": 1}});
        fixture.api.put(&format!("/nicd/v1/servers/{server}"), &limited).expect(201);
        let path = virtual_interfaces(&server);
        assert_eq!(fixture.api.get(&path).expect(200), json!({"virtual_interfaces": []}));
        let made = fixture.api.post(&path, &on(&network)).expect(200);
        let id = text(&made["virtual_interfaces"][0]["id"]);
        assert_eq!(fixture.api.get(&path).expect(200), made);
        let missing = json!({"virtual_interface": {}});
        for (path, body, status, key, reason, words) in [
            (path.clone(), missing, 400, "badRequest", "invalid_value", "'network_id' is a required property"),
            (path.clone(), json!({}), 400, "badRequest", "invalid_body", "'virtual_interface' is a required property"),
            (path.clone(), on("blue"), 400, "badRequest", "invalid_value", "blue"),
            (path.clone(), on(NOBODY), 404, "itemNotFound", "no_such_network", NOBODY),
            (virtual_interfaces(NOBODY), on(&network), 404, "itemNotFound", "no_such_server", NOBODY),
            // One per network comes before the limit, as it holds whatever the limit is.
            (path.clone(), on(&network), 409, "conflictingRequest", "already_on_network", &network),
            (path.clone(), on(&other), 413, "overLimit", "too_many_nics", "1 interfaces"),
        ] {
            told(&fixture.api.post(&path, &body), status, key, reason, words);
        }
        let spare = fixture.vm();
        told(&fixture.api.post(&virtual_interfaces(&spare), &on(&bare)), 400, "badRequest", "no_subnet", &bare);
        for method in ["PUT", "DELETE"] {
            told(&fixture.api.call(method, &path, &[], b""), 405, "badMethod", "bad_method", method);
        }
        told(&fixture.api.get(&format!("{path}/{id}")), 405, "badMethod", "bad_method", "GET");
        told(&fixture.api.delete(&format!("{path}/{NOBODY}")), 404, "itemNotFound", "no_such_port", NOBODY);
        let wrong = format!("{}/{id}", virtual_interfaces(&spare));
        told(&fixture.api.delete(&wrong), 404, "itemNotFound", "port_not_on_server", &id);
        let mut viewer = Client::new(fixture.daemon.socket().with_file_name("nicd-view.sock"));
        assert_eq!(viewer.get(&path).expect(200), made);
        told(&viewer.post(&path, &on(&other)), 403, "forbidden", "read_only_socket", "POST");
        let gone = fixture.api.delete(&format!("{path}/{id}"));
        assert_eq!((gone.status, gone.text.as_str()), (200, ""));
    });
}

#[test]
fn a_kernel_that_fails_is_a_compute_fault_and_leaves_nothing() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.set_failpoints(Some("op.create_tap:1:fail=EIO,op.configure:1:applied-but-fail=EIO,tap.persist:1:fail=EIO"));
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        let network = fixture.usual_network();
        let path = virtual_interfaces(&fixture.vm());
        for _ in 0..3 {
            let failed = fixture.api.post(&path, &on(&network));
            told(&failed, 500, "computeFault", "kernel_refused", "EIO");
            assert_eq!(fixture.api.get(&path).expect(200), json!({"virtual_interfaces": []}));
            assert_eq!((fixture.ports(), marked()), (Vec::new(), Vec::<String>::new()));
        }
        fixture.api.post(&path, &on(&network)).expect(200);
    });
}

#[test]
fn a_crowded_socket_says_service_unavailable_and_when_to_come_again() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        fs::write(daemon.config(), "[socket]\nmax_connections = 2\nroot_reserve = 0\n").unwrap();
        daemon.launch();
        let _held = [(); 2].map(|()| UnixStream::connect(daemon.socket()).unwrap());
        let answer = daemon.client().get(&virtual_interfaces(NOBODY));
        told(&answer, 503, "serviceUnavailable", "too_many_connections", "");
        assert!(answer.header("retry-after").is_some_and(|after| after.parse::<u32>().is_ok()));
    });
}

#[test]
fn one_interface_per_network_is_rackspaces_rule_and_nobody_elses() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let path = virtual_interfaces(&server);
        fixture.attach_to(&server, &network);
        let port = fixture.attach_to(&server, &network);
        told(&fixture.api.post(&path, &on(&network)), 409, "conflictingRequest", "already_on_network", &network);
        // Both dialects see the same interfaces, each in its own spelling.
        let listed = fixture.api.get(&path).expect(200)["virtual_interfaces"].clone();
        let nova = fixture.api.get(&interfaces(&server)).expect(200)["interfaceAttachments"].clone();
        for (one, other) in listed.as_array().unwrap().iter().zip(nova.as_array().unwrap()) {
            assert_eq!(
                (&one["id"], one["mac_address"].as_str()),
                (&other["port_id"], Some(text(&other["mac_addr"]).to_uppercase().as_str()))
            );
        }
        let other = fixture.port_ids().into_iter().find(|id| *id != port).unwrap();
        for id in [&port, &other] {
            fixture.api.delete(&format!("{path}/{id}")).expect(200);
        }
        // On its way out it no longer counts.
        fixture.api.post(&path, &on(&network)).expect(200);
    });
}

#[test]
fn networks_are_shown_as_rackspaces_clients_name_them() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        for base in ["/os-networksv2", "/v2/658405/os-networksv2"] {
            assert_eq!(fixture.api.get(base).expect(200), json!({"networks": []}));
        }
        let network = fixture.network(json!({"name": "blue"}));
        let bare = json!({"id": network, "label": "blue"});
        assert_eq!(fixture.api.get("/os-networksv2").expect(200), json!({ "networks": [bare] }));
        fixture.subnet(&network, "2001:db8::/64");
        fixture.subnet(&network, "192.0.2.0/24");
        let shown = json!({"id": network, "label": "blue", "cidr": "192.0.2.0/24"});
        for base in ["/os-networksv2", "/v2/658405/os-networksv2", "/v2/658405/os-networksv2.json", "/os-networksv2/"] {
            assert_eq!(fixture.api.get(base).expect(200), json!({ "networks": [shown] }), "{base}");
        }
        for id in [network.clone(), network.to_uppercase(), network.replace('-', "")] {
            let path = format!("/v2/658405/os-networksv2/{id}");
            assert_eq!(fixture.api.get(&path).expect(200), json!({ "network": shown }));
            for method in ["PUT", "DELETE", "POST"] {
                let refused = fixture.api.call(method, &path, &[], b"");
                told(&refused, 405, "badMethod", "bad_method", method);
                assert_eq!(refused.header("allow"), Some("GET,HEAD"));
            }
        }
        for unknown in [NOBODY, "blue", "public"] {
            told(&fixture.api.get(&format!("/os-networksv2/{unknown}")), 404, "itemNotFound", "no_such_network", unknown);
        }
        let refused = fixture.api.post("/os-networksv2", &json!({"network": {"label": "x", "cidr": "192.0.2.0/24"}}));
        told(&refused, 405, "badMethod", "bad_method", "POST");
        assert_eq!(refused.header("allow"), Some("GET,HEAD"));
    });
}
