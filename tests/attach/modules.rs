//! A kernel without the modules that links need, as after an upgrade without a reboot.

use serde_json::{Value, json};

use crate::bench::{Bench, interfaces, text};
use crate::daemon::Daemon;
use crate::netns::{Guest, in_netns, run};
use crate::witness;

/// The details and remedies of health's problems of this kind.
fn missing(bench: &mut Bench) -> Vec<(String, String)> {
    let health = bench.api.get("/nicd/v1/health").expect(200);
    let problems = health["problems"].as_array().unwrap().iter();
    let told = |problem: &Value| {
        assert_eq!(problem["reason"], "module_missing", "{health}");
        (text(&problem["detail"]), text(&problem["remedy"]))
    };
    problems.map(told).collect()
}

fn message(error: &Value) -> String {
    text(&error["message"])
}

#[cfg(debug_assertions)] // a release has no points
fn launched(order: &str) -> Bench {
    let mut daemon = Daemon::prepared("/run/nicd");
    daemon.goes_wrong(Some(order));
    daemon.launch();
    Bench::of(daemon)
}

#[test]
fn a_host_with_its_modules_lacks_none_and_the_question_makes_no_link() {
    in_netns(|| {
        let mut watching = witness::Monitor::links();
        let mut bench = Bench::start();
        assert_eq!(missing(&mut bench), []);
        assert_eq!(watching.take().len(), 0);
    });
}

#[test]
#[cfg(debug_assertions)]
fn modules_that_are_missing_are_named_before_the_first_attach() {
    in_netns(|| {
        let mut bench = launched("module.bridge:1:fail=EOPNOTSUPP,module.veth:1:fail=EOPNOTSUPP");
        let told = missing(&mut bench);
        for (module, (detail, remedy)) in ["bridge", "veth"].iter().zip(&told) {
            assert!(detail.contains(&format!("module {module} (")), "{detail}");
            assert!(remedy.contains(&format!("modprobe {module}")) && remedy.contains("reboot"), "{remedy}");
        }
        assert_eq!(told.len(), 2, "{told:?}");
        // They are there again, which is noticed without an attach.
        bench.events.wait_for("its end", |event| event["event"] == "agent.recovered" && event["reason"] == "module_missing");
        assert_eq!(missing(&mut bench), []);
    });
}

#[test]
#[cfg(debug_assertions)]
fn an_attach_that_needs_a_missing_module_is_refused_in_every_dialect_and_leaves_nothing() {
    in_netns(|| {
        for (order, module) in [("message.create:1+:fail=EOPNOTSUPP", "bridge"), ("op.create_veth:1+:fail=EOPNOTSUPP", "veth")] {
            let mut bench = launched(order);
            let network = bench.usual_network();
            let (guest, server) = bench.guest(module);
            let body = json!({"interfaceAttachment": {"net_id": network}});
            let error = bench.api.post(&interfaces(&server), &body).refused(503, "module_missing");
            let said = message(&error);
            assert!(said.contains(&format!("modprobe {module}")) && said.contains("reboot"), "{said}");
            let rackspace = format!("/v2/658405/servers/{server}/os-virtual-interfacesv2");
            let body = json!({"virtual_interface": {"network_id": network}});
            bench.api.post(&rackspace, &body).refused(503, "module_missing");
            assert!(witness::marked().is_empty() && bench.ports().is_empty(), "nothing is left of it");
            assert_eq!(guest.ip("-br link").lines().count(), 1, "but for lo");
        }
    });
}

#[test]
fn a_tun_driver_that_is_not_there_is_told_from_a_node_that_is_not() {
    in_netns(|| {
        let mut bench = Bench::start();
        let network = bench.usual_network();
        let server = bench.vm();
        // A misc device of a number that no driver has: ENODEV, as with the node of a module that cannot be loaded.
        run("mknod -m 0666 /run/without c 10 250");
        run("mount --bind /run/without /dev/net/tun");
        let told = missing(&mut bench);
        assert!(told.len() == 1 && told[0].0.contains("module tun (") && told[0].1.contains("modprobe tun"), "{told:?}");
        let body = json!({"interfaceAttachment": {"net_id": network}});
        let error = bench.api.post(&interfaces(&server), &body).refused(503, "module_missing");
        assert!(message(&error).contains("modprobe tun"), "{error}");
        assert!(witness::marked().is_empty() && bench.ports().is_empty(), "nothing is left of it");
        // What needs no tap is attached.
        let guest = Guest::new("a");
        let other = bench.server(json!({"kind": "netns", "path": guest.path}));
        bench.attach_to(&other, &network);
        // The driver is there, and no node: no module would help.
        run("umount /dev/net/tun");
        run("mount -t tmpfs none /dev/net");
        let health = bench.api.get("/nicd/v1/health").expect(200);
        assert_eq!(health["problems"][0]["reason"], "tun_unusable", "{health}");
        assert!(text(&health["problems"][0]["remedy"]).contains("mknod"), "{health}");
        bench.api.post(&interfaces(&server), &body).refused(503, "no_permission");
        run("umount /dev/net");
        bench.attach_to(&server, &network);
        assert_eq!(missing(&mut bench), []);
    });
}
