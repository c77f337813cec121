//! What others do to a device is undone, soon, and without a fight.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bench::Bench;
use crate::netns::{in_netns, run};
use crate::witness::{bridge_port, link, marked_ports};

/// How soon a repair is done.
const SOON: Duration = Duration::from_secs(1);

/// A device as it is to be, without what counts or follows the guest's side.
fn settled(device: &str) -> (Value, Value) {
    let mut shown = link(device);
    for passing in ["operstate", "flags", "linkmode"] {
        shown.as_object_mut().unwrap().remove(passing);
    }
    if let Some(data) = shown["linkinfo"]["info_slave_data"].as_object_mut() {
        data.retain(|key, _| !key.ends_with("_timer"));
    }
    let port = bridge_port(device);
    (shown, port["learning"].clone())
}

/// Changes an ACTIVE port's device, and waits for it to be as before.
fn repaired(change: &str) {
    let change = change.to_owned();
    in_netns(move || {
        let mut bench = Bench::start();
        let network = bench.usual_network();
        let (_guest, server) = bench.guest("a");
        let port = bench.attach_to(&server, &network);
        let device = bench.device(&port);
        bench.events.wait_status(&port, "ACTIVE");
        let before = settled(&device);
        let start = Instant::now();
        run(&change.replace("DEV", &device));
        bench.events.wait_for("a repair", |event| event["port_id"] == port.as_str() && event["new"] == "BUILD");
        bench.events.wait_status(&port, "ACTIVE");
        let took = start.elapsed();
        assert!(took < SOON, "{took:?}");
        assert_eq!(settled(&device), before, "{change}");
        assert_eq!(marked_ports(), [port.as_str()]);
    });
}

#[test]
fn a_device_taken_out_of_its_bridge_is_put_back() {
    repaired("ip link set DEV nomaster");
}

#[test]
fn a_device_set_down_is_set_up() {
    repaired("ip link set DEV down");
}

#[test]
fn a_devices_mac_is_set_back() {
    repaired("ip link set DEV address 02:00:00:00:00:77");
}

#[test]
fn a_devices_mtu_is_set_back() {
    repaired("ip link set DEV mtu 1280");
}

#[test]
fn a_devices_alias_is_set_back() {
    repaired("ip link set DEV alias something");
}

#[test]
fn learning_is_switched_off_again() {
    repaired("bridge link set dev DEV learning on");
}

#[test]
fn a_deleted_device_is_built_again() {
    in_netns(|| {
        let mut bench = Bench::start();
        let network = bench.usual_network();
        let server = bench.vm();
        let port = bench.attach_to(&server, &network);
        let device = bench.device(&port);
        bench.events.wait_for("attached", |event| event["port_id"] == port.as_str() && event["phase"] == "wired");
        let before = link(&device);
        run(&format!("ip link del {device}"));
        bench.events.wait_for("built", |event| event["port_id"] == port.as_str() && event["phase"] == "wired");
        let after = link(&device);
        for same in ["ifname", "address", "altnames", "mtu", "master"] {
            assert_eq!(after[same], before[same]);
        }
    });
}

#[test]
fn the_last_of_many_changes_is_undone_like_the_first() {
    in_netns(|| {
        let mut bench = Bench::start();
        let network = bench.usual_network();
        let (_guest, server) = bench.guest("a");
        let port = bench.attach_to(&server, &network);
        let device = bench.device(&port);
        let before = settled(&device);
        for round in 0..10 {
            // Within one repair's time, and a different number of them each round.
            let changes: String = (0..round).map(|n| format!("link set {device} mtu {}\n", 1300 + n)).collect();
            std::fs::write("/run/batch", format!("{changes}link set {device} nomaster\nlink set {device} mtu 1280\n")).unwrap();
            run("ip -batch /run/batch");
        }
        let start = Instant::now();
        // Repairs in a row wait longer each time; the kernel is asked, as no event tells that it was the last.
        while settled(&device) != before {
            assert!(start.elapsed() < crate::daemon::PATIENCE, "{}", link(&device));
            std::thread::sleep(Duration::from_millis(5));
        }
        bench.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn a_renamed_device_keeps_its_identity() {
    in_netns(|| {
        let mut bench = Bench::start();
        let network = bench.usual_network();
        let (_guest, server) = bench.guest("a");
        let port = bench.attach_to(&server, &network);
        let device = bench.device(&port);
        run(&format!("ip link set {device} name other0"));
        bench.wait_status(&port, "ACTIVE");
        assert_eq!(marked_ports(), [port.as_str()], "and there is no second one");
        bench.detach(&server, &port);
        assert!(marked_ports().is_empty());
    });
}

#[test]
fn an_agent_made_bridge_is_set_back() {
    in_netns(|| {
        let mut bench = Bench::start();
        let network = bench.usual_network();
        let (_guest, server) = bench.guest("a");
        let port = bench.attach_to(&server, &network);
        let bridge = bench.port(&port)["binding:vif_details"]["bridge"].as_str().unwrap().to_owned();
        let before = (link(&bridge)["address"].clone(), link(&bridge)["mtu"].clone());
        let start = Instant::now();
        run(&format!("ip link set {bridge} address 02:00:00:00:00:77 mtu 1400"));
        run(&format!("ip link set {bridge} down"));
        let right = || {
            let now = link(&bridge);
            (now["address"].clone(), now["mtu"].clone()) == before && crate::witness::has_flag(&now, "UP")
        };
        // A bridge has no events of its own: the kernel is asked until it is right.
        while !right() {
            assert!(start.elapsed() < crate::daemon::PATIENCE, "{}", link(&bridge));
            std::thread::sleep(Duration::from_millis(5));
        }
        bench.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn a_device_that_somebody_fights_over_is_not_fought_without_end() {
    in_netns(|| {
        let mut bench = Bench::start();
        let network = bench.usual_network();
        let server = bench.vm();
        let port = bench.attach_to(&server, &network);
        let device = bench.device(&port);
        let until = Instant::now() + Duration::from_secs(2);
        let mut repairs = 0;
        while Instant::now() < until {
            run(&format!("ip link set {device} nomaster"));
            let left = until.saturating_duration_since(Instant::now());
            while let Some(event) = bench.events.next(left.min(Duration::from_secs(1))) {
                if event["port_id"] == port.as_str() && event["phase"] == "wired" {
                    repairs += 1;
                    break;
                }
            }
        }
        assert!((1..30).contains(&repairs), "{repairs} repairs in 2 s");
        bench.wait_until(&port, "in its bridge", |_| link(&device)["master"].is_string());
    });
}
