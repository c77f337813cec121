//! Machines that are stopped: they take a NIC, and their guests never let one go.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::Answer;
use crate::fixture::{Fixture, interfaces, text};
use crate::kernel_view::{link, marked, try_link};
use crate::machine::{Machine, Monitor, root_ports};
use crate::netns::in_netns;

/// A server with a monitor.
pub fn server(fixture: &mut Fixture, qmp: &str, queues: u16) -> String {
    fixture.server(json!({"kind": "vm", "queues": queues, "monitor": {"qmp": qmp}}))
}

/// Asks for a NIC on a network.
pub fn attach(fixture: &mut Fixture, server: &str, network: &str) -> Answer {
    fixture.api.post(&interfaces(server), &json!({"interfaceAttachment": {"net_id": network}}))
}

/// The fact about a port's machine.
fn monitor_fact(fixture: &mut Fixture, port: &str) -> Value {
    let explained = fixture.api.get(&format!("/nicd/v1/ports/{port}/explain")).expect(200);
    explained["facts"].as_array().unwrap().iter().find(|fact| fact["fact"] == "monitor").cloned().unwrap_or_default()
}

#[test]
fn a_nic_is_plugged_by_an_attach_and_taken_out_by_a_detach() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let mut machine = Machine::stopped("one", "q35", &root_ports(2));
        let vm = server(&mut fixture, &machine.qmp, 1);
        let shown = attach(&mut fixture, &vm, &network).expect(200);
        assert_eq!(shown["interfaceAttachment"]["port_state"], "ACTIVE", "at once");
        let port = text(&shown["interfaceAttachment"]["port_id"]);
        assert_eq!(machine.nics(), [format!("nicd-{port}")]);
        let details = fixture.port(&port)["binding:vif_details"].clone();
        assert_eq!(details["qdev_id"], format!("nicd-{port}"), "{details}");
        // Of a stopped machine no firmware has given it an address.
        assert_eq!(details["pci_address"], Value::Null, "{details}");
        assert_eq!(monitor_fact(&mut fixture, &port)["ok"], true);
        // Two NICs in two slots; a third finds none, and leaves nothing.
        let second = fixture.attach_to(&vm, &network);
        assert_eq!(machine.nics().len(), 2);
        let other = json!({"server": {"guest": {"kind": "vm", "queues": 1, "monitor": {"qmp": "/run/another"}}}});
        let refused = fixture.api.put(&format!("/nicd/v1/servers/{vm}"), &other).refused(409, "monitor_in_use");
        assert!(text(&refused["message"]).contains("2 interfaces"), "{refused}");
        let before = marked();
        attach(&mut fixture, &vm, &network).refused(409, "no_free_slot");
        assert_eq!((marked(), fixture.ports().len()), (before, 2));

        // The restart of nicd changes nothing: no event, no status but ACTIVE, the same device.
        let device = link(&fixture.device(&port));
        fixture.daemon.kill();
        fixture.launch();
        assert_eq!(fixture.port(&port)["status"], "ACTIVE");
        assert_eq!(link(&fixture.device(&port))["ifindex"], device["ifindex"]);
        assert_eq!(fixture.events.next(Duration::from_millis(300)), None);

        // Its guest does not answer: it is cut off, and its address is held.
        let address = fixture.port(&port)["fixed_ips"][0]["ip_address"].clone();
        fixture.api.delete(&format!("{}/{port}", interfaces(&vm))).expect(202);
        fixture.events.wait_for("why it stays", |event| event["port_id"] == *port && event["reason"] == "guest_keeps_device");
        let kept = link(fixture.port(&port)["binding:vif_details"]["device"].as_str().unwrap());
        assert!(kept["master"].is_null() && !crate::kernel_view::has_flag(&kept, "UP"), "{kept}");
        let taken = json!({"port": {"network_id": network, "fixed_ips": [{"ip_address": address}]}});
        fixture.api.post("/v2.0/ports", &taken).refused(409, "address_in_use");
        let explained = fixture.api.get(&format!("/nicd/v1/ports/{port}/explain")).expect(200).to_string();
        assert!(explained.contains("has not answered the request to unplug it"), "{explained}");
        // Forced it ends at once, and the machine is left idle: it was made to close the tap before.
        fixture.api.delete(&format!("{}/{port}?force=true", interfaces(&vm))).expect(202);
        fixture.events.wait_deleted(&port);
        let ticks = machine.ticks();
        assert_eq!(fixture.events.next(Duration::from_millis(300)), None);
        assert!(machine.ticks() - ticks < 15, "it spins");
        assert!(machine.runs());

        // One whose machine dies is finished with it.
        fixture.api.delete(&format!("{}/{second}", interfaces(&vm))).expect(202);
        fixture.events.wait_for("why it stays", |event| event["port_id"] == *second && event["reason"] == "guest_keeps_device");
        machine.kill();
        fixture.events.wait_deleted(&second);
        assert!(marked().iter().all(|name| name.starts_with("nbr")), "{:?}", marked());
    });
}

#[test]
fn a_machine_that_dies_is_seen_at_once_and_another_in_its_place_gets_the_nics() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let mut machine = Machine::stopped("two", "q35", &root_ports(3));
        let vm = server(&mut fixture, &machine.qmp, 2);
        let port = fixture.attach_to(&vm, &network);
        assert_eq!(fixture.port(&port)["status"], "ACTIVE");
        // Until its driver asks for more, a machine has switched all but one of them off.
        let info = link(&fixture.device(&port))["linkinfo"]["info_data"].clone();
        let queues = info["numqueues"].as_u64().unwrap() + info["numdisabled"].as_u64().unwrap_or(0);
        assert_eq!(queues, 2, "both are the machine's: {info}");
        let device = link(&fixture.device(&port))["ifindex"].clone();
        let killed = Instant::now();
        machine.kill();
        fixture.events.wait_status(&port, "DOWN");
        let seen = killed.elapsed();
        eprintln!("DOWN {seen:?} after the kill");
        assert!(seen < Duration::from_millis(500), "{seen:?}");
        fixture.wait_until(&port, "waiting", |port| port.is_some_and(|port| port["nicd:reason"] == "monitor_unreachable"));
        let fact = monitor_fact(&mut fixture, &port);
        assert_eq!(fact["ok"], false);
        assert!(text(&fact["detail"]).contains("Connection refused"), "{fact}");
        attach(&mut fixture, &vm, &network).refused(409, "monitor_unreachable");
        // A restart of nicd meanwhile goes on waiting.
        fixture.daemon.kill();
        fixture.launch();
        drop(machine);
        // Another one, with other slots.
        let more = ["-device", "pcie-root-port,id=other,chassis=9,slot=9"].map(str::to_owned);
        let mut machine = Machine::stopped("two", "q35", &more);
        fixture.wait_status(&port, "ACTIVE");
        assert_eq!(machine.nics(), [format!("nicd-{port}")]);
        assert_eq!(link(&fixture.device(&port))["ifindex"], device, "the tap is the same");

        // A tap that is deleted under the machine: the NIC is plugged anew, once the guest lets the old one go.
        drop(machine);
        fixture.wait_status(&port, "DOWN");
        // One without a slot for it.
        let mut none = Machine::stopped("two", "q35", &[]);
        fixture.wait_until(&port, "ERROR", |port| port.is_some_and(|port| port["nicd:reason"] == "no_free_slot"));
        assert!(none.nics().is_empty());
        drop(none);
        fixture.wait_until(&port, "waiting", |port| port.is_some_and(|port| port["nicd:reason"] == "monitor_unreachable"));
        let mut pc = Machine::stopped("two", "pc", &[]);
        fixture.wait_status(&port, "ACTIVE");
        assert_eq!(pc.nics(), [format!("nicd-{port}")]);
        assert!(text(&fixture.port(&port)["binding:vif_details"]["pci_address"]).starts_with("0000:00:"));

        // While another client has the monitor nothing can be asked, and what is plugged stays so.
        let other = Monitor::connect(&pc.qmp);
        attach(&mut fixture, &vm, &network).refused(409, "monitor_busy");
        assert_eq!(fixture.port(&port)["status"], "ACTIVE");
        fixture.daemon.kill();
        fixture.launch();
        assert_eq!(fixture.port(&port)["status"], "ACTIVE", "after a restart too");
        fixture.api.delete(&format!("{}/{port}", interfaces(&vm))).expect(202);
        fixture.events.wait_for("why it stays", |event| event["reason"] == "guest_keeps_device");
        let explained = fixture.api.get(&format!("/nicd/v1/ports/{port}/explain")).expect(200).to_string();
        assert!(explained.contains("libvirt or another program has it"), "{explained}");
        drop(other);
        pc.kill();
        fixture.events.wait_deleted(&port);
        assert!(try_link("nicd").is_none());
    });
}
