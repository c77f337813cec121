//! A kernel without the modules that links need, as after an upgrade without a reboot.

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::fixture::{Fixture, interfaces, text};
use crate::kernel_view;
use crate::netns::{Guest, in_netns, run};

/// The details and remedies of health's problems of this kind.
fn missing(fixture: &mut Fixture) -> Vec<(String, String)> {
    let health = fixture.api.get("/nicd/v1/health").expect(200);
    // A port that cannot be built for that is told of too.
    let problems = health["problems"].as_array().unwrap().iter().filter(|problem| problem["reason"] != "port_in_error");
    let told = |problem: &Value| {
        assert_eq!(problem["reason"], "module_missing", "{health}");
        (text(&problem["detail"]), text(&problem["remedy"]))
    };
    problems.map(told).collect()
}

fn message(error: &Value) -> String {
    text(&error["message"])
}

#[cfg(debug_assertions)] // a release build has no failpoints
fn launched(order: &str) -> Fixture {
    let mut daemon = Daemon::prepared("/run/nicd");
    daemon.set_failpoints(Some(order));
    daemon.launch();
    Fixture::of(daemon)
}

#[test]
fn a_host_with_its_modules_lacks_none_and_the_question_makes_no_link() {
    in_netns(|| {
        let mut watching = kernel_view::Monitor::links();
        let mut fixture = Fixture::start();
        assert_eq!(missing(&mut fixture), []);
        assert_eq!(watching.take().len(), 0);
    });
}

#[test]
#[cfg(debug_assertions)]
fn modules_that_are_missing_are_named_before_the_first_attach() {
    in_netns(|| {
        let mut fixture = launched("module.bridge:1:fail=EOPNOTSUPP,module.veth:1:fail=EOPNOTSUPP");
        let told = missing(&mut fixture);
        for (module, (detail, remedy)) in ["bridge", "veth"].iter().zip(&told) {
            assert!(detail.contains(&format!("module {module} (")), "{detail}");
            assert!(remedy.contains(&format!("modprobe {module}")) && remedy.contains("reboot"), "{remedy}");
        }
        assert_eq!(told.len(), 2, "{told:?}");
        // They are there again, which is noticed without an attach.
        fixture.events.wait_for("its end", |event| event["event"] == "agent.recovered" && event["reason"] == "module_missing");
        assert_eq!(missing(&mut fixture), []);
    });
}

#[test]
#[cfg(debug_assertions)]
fn an_attach_that_needs_a_missing_module_is_refused_in_every_dialect_and_leaves_nothing() {
    in_netns(|| {
        for (order, module) in [("message.create:1+:fail=EOPNOTSUPP", "bridge"), ("op.create_veth:1+:fail=EOPNOTSUPP", "veth")] {
            let mut fixture = launched(order);
            let network = fixture.usual_network();
            let (guest, server) = fixture.guest(module);
            let body = json!({"interfaceAttachment": {"net_id": network}});
            let error = fixture.api.post(&interfaces(&server), &body).refused(503, "module_missing");
            let said = message(&error);
            assert!(said.contains(&format!("modprobe {module}")) && said.contains("reboot"), "{said}");
            let rackspace = format!("/v2/658405/servers/{server}/os-virtual-interfacesv2");
            let body = json!({"virtual_interface": {"network_id": network}});
            fixture.api.post(&rackspace, &body).refused(503, "module_missing");
            assert!(kernel_view::marked().is_empty() && fixture.ports().is_empty(), "nothing is left of it");
            assert_eq!(guest.ip("-br link").lines().count(), 1, "but for lo");
        }
    });
}

#[test]
#[cfg(debug_assertions)]
fn the_module_of_vlan_devices_is_named_once_one_cannot_be_made() {
    in_netns(|| {
        let mut fixture = launched("message.create:2+:fail=EOPNOTSUPP,module.vlan:1+:fail=EOPNOTSUPP");
        let network = fixture.usual_network();
        let server = fixture.vm();
        let [parent, sub] = [(); 2].map(|()| fixture.create_port(json!({"network_id": network})));
        fixture.attach(&server, json!({"port_id": parent}));
        assert_eq!(missing(&mut fixture), [], "nothing needs it");
        let subports = json!([{"port_id": sub, "segmentation_type": "vlan", "segmentation_id": 101}]);
        let trunk = json!({"trunk": {"port_id": parent, "sub_ports": subports}});
        let trunk = fixture.api.post("/v2.0/trunks", &trunk).expect(201);
        let told = missing(&mut fixture);
        assert!(told.len() == 1 && told[0].0.contains("no VLAN device") && told[0].0.contains("module 8021q ("), "{told:?}");
        assert!(told[0].1.contains("modprobe 8021q"), "{told:?}");
        let port = fixture.port(&sub);
        assert_eq!((&port["status"], &port["nicd:reason"]), (&json!("ERROR"), &json!("module_missing")), "{port}");
        // Nothing needs it any more.
        fixture.api.delete(&format!("/v2.0/trunks/{}", text(&trunk["trunk"]["id"]))).expect(204);
        assert_eq!(missing(&mut fixture), []);
    });
}

#[test]
fn a_tun_driver_that_is_not_there_is_told_from_a_node_that_is_not() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        // A misc device of a number that no driver has: ENODEV, as with the node of a module that cannot be loaded.
        run("mknod -m 0666 /run/without c 10 250");
        run("mount --bind /run/without /dev/net/tun");
        let told = missing(&mut fixture);
        assert!(told.len() == 1 && told[0].0.contains("module tun (") && told[0].1.contains("modprobe tun"), "{told:?}");
        let body = json!({"interfaceAttachment": {"net_id": network}});
        let error = fixture.api.post(&interfaces(&server), &body).refused(503, "module_missing");
        assert!(message(&error).contains("modprobe tun"), "{error}");
        assert!(kernel_view::marked().is_empty() && fixture.ports().is_empty(), "nothing is left of it");
        // What needs no tap is attached.
        let guest = Guest::new("a");
        let other = fixture.server(json!({"kind": "netns", "path": guest.path}));
        fixture.attach_to(&other, &network);
        // The driver is there, and no node: no module would help.
        run("umount /dev/net/tun");
        run("mount -t tmpfs none /dev/net");
        let health = fixture.api.get("/nicd/v1/health").expect(200);
        assert_eq!(health["problems"][0]["reason"], "tun_unusable", "{health}");
        assert!(text(&health["problems"][0]["remedy"]).contains("mknod"), "{health}");
        fixture.api.post(&interfaces(&server), &body).refused(503, "no_permission");
        run("umount /dev/net");
        fixture.attach_to(&server, &network);
        assert_eq!(missing(&mut fixture), []);
    });
}
