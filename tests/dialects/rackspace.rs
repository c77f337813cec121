//! Rackspace's `os-virtual-interfacesv2`: the whole table of statuses in its reference, and one NIC per network.
//!
//! 401 is in `tests/peers.rs`, as it takes another uid.

use std::fs;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::bench::{Bench, interfaces, text};
use crate::daemon::{Client, Daemon};
use crate::netns::in_netns;
use crate::witness::marked;
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
        let mut bench = Bench::start();
        let (network, other) = (bench.usual_network(), bench.usual_network());
        let bare = bench.network(json!({}));
        let server = NOBODY.replace('9', "8");
        let limited = json!({"server": {"guest": {"kind": "vm"}, "nic_limit": 1}});
        bench.api.put(&format!("/nicd/v1/servers/{server}"), &limited).expect(201);
        let path = virtual_interfaces(&server);
        assert_eq!(bench.api.get(&path).expect(200), json!({"virtual_interfaces": []}));
        let made = bench.api.post(&path, &on(&network)).expect(200);
        let id = text(&made["virtual_interfaces"][0]["id"]);
        assert_eq!(bench.api.get(&path).expect(200), made);
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
            told(&bench.api.post(&path, &body), status, key, reason, words);
        }
        let spare = bench.vm();
        told(&bench.api.post(&virtual_interfaces(&spare), &on(&bare)), 400, "badRequest", "no_subnet", &bare);
        for method in ["PUT", "DELETE"] {
            told(&bench.api.call(method, &path, &[], b""), 405, "badMethod", "bad_method", method);
        }
        told(&bench.api.get(&format!("{path}/{id}")), 405, "badMethod", "bad_method", "GET");
        told(&bench.api.delete(&format!("{path}/{NOBODY}")), 404, "itemNotFound", "no_such_port", NOBODY);
        let wrong = format!("{}/{id}", virtual_interfaces(&spare));
        told(&bench.api.delete(&wrong), 404, "itemNotFound", "port_not_on_server", &id);
        let mut viewer = Client::new(bench.daemon.socket().with_file_name("nicd-view.sock"));
        assert_eq!(viewer.get(&path).expect(200), made);
        told(&viewer.post(&path, &on(&other)), 403, "forbidden", "read_only_socket", "POST");
        let gone = bench.api.delete(&format!("{path}/{id}"));
        assert_eq!((gone.status, gone.text.as_str()), (200, ""));
    });
}

#[test]
fn a_kernel_that_fails_is_a_compute_fault_and_leaves_nothing() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.goes_wrong(Some("op.create_tap:1:fail=EIO,op.configure:1:applied-but-fail=EIO,tap.persist:1:fail=EIO"));
        daemon.launch();
        let mut bench = Bench::of(daemon);
        let network = bench.usual_network();
        let path = virtual_interfaces(&bench.vm());
        for _ in 0..3 {
            let failed = bench.api.post(&path, &on(&network));
            told(&failed, 500, "computeFault", "kernel_refused", "EIO");
            assert_eq!(bench.api.get(&path).expect(200), json!({"virtual_interfaces": []}));
            assert_eq!((bench.ports(), marked()), (Vec::new(), Vec::<String>::new()));
        }
        bench.api.post(&path, &on(&network)).expect(200);
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
        let mut bench = Bench::start();
        let network = bench.usual_network();
        let server = bench.vm();
        let path = virtual_interfaces(&server);
        bench.attach_to(&server, &network);
        let port = bench.attach_to(&server, &network);
        told(&bench.api.post(&path, &on(&network)), 409, "conflictingRequest", "already_on_network", &network);
        // Both dialects see the same interfaces, each in its own spelling.
        let listed = bench.api.get(&path).expect(200)["virtual_interfaces"].clone();
        let nova = bench.api.get(&interfaces(&server)).expect(200)["interfaceAttachments"].clone();
        for (one, other) in listed.as_array().unwrap().iter().zip(nova.as_array().unwrap()) {
            assert_eq!(
                (&one["id"], one["mac_address"].as_str()),
                (&other["port_id"], Some(text(&other["mac_addr"]).to_uppercase().as_str()))
            );
        }
        let other = bench.port_ids().into_iter().find(|id| *id != port).unwrap();
        for id in [&port, &other] {
            bench.api.delete(&format!("{path}/{id}")).expect(200);
        }
        // On its way out it no longer counts.
        bench.api.post(&path, &on(&network)).expect(200);
    });
}

#[test]
fn networks_are_shown_as_rackspaces_clients_name_them() {
    in_netns(|| {
        let mut bench = Bench::start();
        for base in ["/os-networksv2", "/v2/658405/os-networksv2"] {
            assert_eq!(bench.api.get(base).expect(200), json!({"networks": []}));
        }
        let network = bench.network(json!({"name": "blue"}));
        let bare = json!({"id": network, "label": "blue"});
        assert_eq!(bench.api.get("/os-networksv2").expect(200), json!({ "networks": [bare] }));
        bench.subnet(&network, "2001:db8::/64");
        bench.subnet(&network, "192.0.2.0/24");
        let shown = json!({"id": network, "label": "blue", "cidr": "192.0.2.0/24"});
        for base in ["/os-networksv2", "/v2/658405/os-networksv2", "/v2/658405/os-networksv2.json", "/os-networksv2/"] {
            assert_eq!(bench.api.get(base).expect(200), json!({ "networks": [shown] }), "{base}");
        }
        for id in [network.clone(), network.to_uppercase(), network.replace('-', "")] {
            let path = format!("/v2/658405/os-networksv2/{id}");
            assert_eq!(bench.api.get(&path).expect(200), json!({ "network": shown }));
            for method in ["PUT", "DELETE", "POST"] {
                let refused = bench.api.call(method, &path, &[], b"");
                told(&refused, 405, "badMethod", "bad_method", method);
                assert_eq!(refused.header("allow"), Some("GET,HEAD"));
            }
        }
        for unknown in [NOBODY, "blue", "public"] {
            told(&bench.api.get(&format!("/os-networksv2/{unknown}")), 404, "itemNotFound", "no_such_network", unknown);
        }
        let refused = bench.api.post("/os-networksv2", &json!({"network": {"label": "x", "cidr": "192.0.2.0/24"}}));
        told(&refused, 405, "badMethod", "bad_method", "POST");
        assert_eq!(refused.header("allow"), Some("GET,HEAD"));
    });
}
