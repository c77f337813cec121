//! What others do to a device is undone, soon, and without a fight.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixture::{Fixture, foreign_bridge};
use crate::kernel_view::{Monitor, bridge_port, has_flag, link, links, marked_ports, try_link, v6_addresses};
use crate::netns::{comes_true, in_netns, run, try_run};
use crate::taps::open;

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

/// Waits until the kernel has a link so: no event tells that the last repair is done.
fn wait_for_link(name: &str, wanted: impl Fn() -> bool) {
    comes_true(crate::daemon::PATIENCE, wanted, || link(name).to_string());
}

/// Changes an ACTIVE port's device, and waits for it to be as before.
fn repaired(change: &str) {
    let change = change.to_owned();
    in_netns(move || {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        fixture.events.wait_status(&port, "ACTIVE");
        let before = settled(&device);
        let start = Instant::now();
        run(&change.replace("DEV", &device));
        fixture.events.wait_for("a repair", |event| event["port_id"] == port.as_str() && event["new"] == "BUILD");
        fixture.events.wait_status(&port, "ACTIVE");
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
fn other_flags_of_its_bridge_port_are_set_back() {
    repaired("bridge link set dev DEV isolated on flood off hairpin on");
    repaired("bridge link set dev DEV mcast_router 0 mcast_to_unicast on vlan_tunnel on");
}

#[test]
fn an_address_on_the_hosts_side_is_taken_off() {
    repaired("ip addr add 203.0.113.1/32 dev DEV");
    repaired("ip addr add fd00::1/64 dev DEV nodad");
}

/// Below 1280 a link has no IPv6, and when it has it again the kernel gives it an address.
#[test]
fn an_mtu_below_ipv6s_is_set_back_and_no_address_comes_with_it() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        fixture.events.wait_status(&port, "ACTIVE");
        let before = settled(&device);
        let mut told = Monitor::v6_addresses();
        run(&format!("ip link set {device} mtu 1000"));
        fixture.events.wait_for("a repair", |event| event["port_id"] == port.as_str() && event["new"] == "BUILD");
        fixture.events.wait_status(&port, "ACTIVE");
        assert_eq!(settled(&device), before);
        assert!(told.take().is_empty(), "at no instant");
    });
}

#[test]
fn an_agent_made_bridge_keeps_the_addresses_that_an_operator_gave_it_alone() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let bridge = link(&fixture.device(&port))["master"].as_str().unwrap().to_owned();
        let mtu = link(&bridge)["mtu"].clone();
        run(&format!("ip link set {bridge} mtu 1000"));
        let start = Instant::now();
        while link(&bridge)["mtu"] != mtu || !v6_addresses().is_empty() {
            assert!(start.elapsed() < SOON, "{:?}", v6_addresses());
        }
        run(&format!("ip addr add fe80::1/64 dev {bridge} nodad"));
        run(&format!("ip link set {bridge} type bridge stp_state 1"));
        while link(&bridge)["linkinfo"]["info_data"]["stp_state"] != 0 {
            assert!(start.elapsed() < 2 * SOON);
        }
        assert_eq!(v6_addresses().len(), 1, "what was given to it is left when it is set back");
    });
}

#[test]
fn a_port_kept_from_forwarding_forwards_again() {
    for state in [0, 1, 2] {
        repaired(&format!("bridge link set dev DEV state {state}"));
    }
}

#[test]
fn what_was_switched_on_at_an_agent_made_bridge_is_switched_off() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        fixture.events.wait_status(&port, "ACTIVE");
        let bridge = link(&fixture.device(&port))["master"].as_str().unwrap().to_owned();
        let extras = || {
            let data = link(&bridge)["linkinfo"]["info_data"].clone();
            ["stp_state", "mcast_snooping", "vlan_filtering"].map(|name| data[name].clone())
        };
        let before = extras();
        run(&format!("ip link set {bridge} type bridge stp_state 1 mcast_snooping 1"));
        let start = Instant::now();
        while extras() != before {
            assert!(start.elapsed() < SOON, "{:?}", extras());
        }
        fixture.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn address_generation_is_switched_off_again() {
    repaired("ip link set DEV addrgenmode eui64");
}

#[test]
fn a_mark_that_was_taken_off_is_put_back() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        fixture.events.wait_status(&port, "ACTIVE");
        let before = settled(&device);
        run(&format!("ip link property del dev {device} altname nicd-{port}"));
        fixture.events.wait_for("a repair", |event| event["port_id"] == port.as_str() && event["new"] == "BUILD");
        fixture.events.wait_status(&port, "ACTIVE");
        assert_eq!(settled(&device), before, "it is the same device, by its index too");
        assert_eq!(marked_ports(), [port.as_str()]);
        // Also when nobody looked.
        fixture.daemon.kill();
        run(&format!("ip link property del dev {device} altname nicd-{port}"));
        fixture.launch();
        fixture.wait_until(&port, "itself", |port| {
            port.is_some_and(|port| port["binding:vif_details"]["device"] == device.as_str())
        });
        fixture.wait_status(&port, "ACTIVE");
        assert_eq!(settled(&device), before);
        assert_eq!(guest.ip_json("link").as_array().unwrap().len(), 2);
    });
}

#[test]
fn a_device_that_lost_altname_and_alias_is_known_again_by_its_mac() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, netns) = fixture.guest("a");
        let vm = fixture.vm();
        let strip = |device: &str, port: &str| {
            std::fs::write(
                "/run/batch",
                format!("link set {device} alias \"\"\nlink property del dev {device} altname nicd-{port}\n"),
            )
            .unwrap();
            _ = try_run("ip -force -batch /run/batch");
        };
        for server in [&netns, &vm] {
            let port = fixture.attach_to(server, &network);
            let device = fixture.device(&port);
            let opened = (server == &vm).then(|| open(&device));
            fixture.wait_status(&port, "ACTIVE");
            let before = settled(&device);
            strip(&device, &port);
            fixture.wait_until(&port, "marked", |_| try_link(&device).is_some_and(|link| link["ifalias"] == before.0["ifalias"]));
            fixture.wait_status(&port, "ACTIVE");
            assert_eq!(settled(&device), before, "it is the same device, by its index too");
            assert_eq!(marked_ports(), [port.as_str()]);
            // Also when nobody looked, and while it is taken away.
            fixture.daemon.kill();
            strip(&device, &port);
            fixture.launch();
            fixture.wait_status(&port, "ACTIVE");
            assert_eq!(settled(&device), before);
            let members = links().iter().filter(|link| link.get("master").is_some()).count();
            fixture.api.delete(&format!("/v2.1/servers/{server}/os-interface/{port}")).expect(202);
            strip(&device, &port);
            if let Some(tap) = opened {
                fixture.wait_until(&port, "kept", |port| port.is_some_and(|port| port["nicd:reason"] == "guest_keeps_device"));
                strip(&device, &port);
                drop(tap);
            }
            fixture.wait_until(&port, "gone", |port| port.is_none());
            assert!(try_link(&device).is_none());
            assert_eq!(links().iter().filter(|link| link.get("master").is_some()).count(), members - 1);
            fixture.leaves_deviations();
        }
    });
}

#[test]
fn a_mark_on_a_link_that_is_not_the_ports_does_not_make_it_so() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        let alias = link(&device)["ifalias"].as_str().unwrap().to_owned();
        fixture.events.wait_status(&port, "ACTIVE");
        let was = settled(&device);
        // Two links with its alias: its index tells which of them it was.
        run("ip link add theirs type veth peer name theirs-peer");
        std::fs::write(
            "/run/batch",
            format!("link set theirs alias \"{alias}\"\nlink property del dev {device} altname nicd-{port}\n"),
        )
        .unwrap();
        let theirs =
            || (link("theirs")["ifindex"].clone(), link("theirs")["master"].clone(), link("theirs").get("altnames").cloned());
        let before = theirs();
        run("ip -batch /run/batch");
        fixture.events.wait_for("a repair", |event| event["port_id"] == port.as_str() && event["new"] == "BUILD");
        fixture.wait_status(&port, "ACTIVE");
        assert_eq!(theirs(), before);
        assert_eq!((settled(&device), marked_ports()), (was, vec![port]));
        fixture.leaves_deviations();
    });
}

/// The kernel tells of no change of a link that is down: nicd does not see that its altname is gone.
#[test]
fn a_device_that_lost_altname_and_alias_while_it_was_down_is_known_again() {
    in_netns(|| {
        foreign_bridge("br0", 1500);
        let mut fixture = Fixture::start();
        let network = fixture.network_on("br0");
        let (_guest, netns) = fixture.guest("a");
        let vm = fixture.vm();
        for server in [&netns, &vm] {
            let port = fixture.attach_to(server, &network);
            let device = fixture.device(&port);
            let before = link(&device);
            // Without its bridge a device is kept down.
            run("ip link del br0");
            wait_for_link(&device, || !has_flag(&link(&device), "UP"));
            fixture.events.wait_status(&port, "ERROR");
            run(&format!("ip link set {device} alias mine"));
            run(&format!("ip link property del dev {device} altname nicd-{port}"));
            foreign_bridge("br0", 1500);
            wait_for_link(&device, || has_flag(&link(&device), "UP") && link(&device)["master"] == "br0");
            wait_for_link(&device, || link(&device)["ifalias"] == before["ifalias"]);
            assert_eq!(link(&device)["ifindex"], before["ifindex"]);
            assert_eq!(marked_ports(), [port.as_str()]);
            fixture.api.delete(&format!("/v2.1/servers/{server}/os-interface/{port}")).expect(202);
            fixture.wait_until(&port, "gone", |port| port.is_none());
        }
    });
}

#[test]
fn a_device_moved_to_another_namespace_is_built_anew() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let other = crate::netns::Guest::new("other");
        let server = fixture.vm();
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        let before = link(&device);
        fixture.events.wait_for("attached", |event| event["port_id"] == port.as_str() && event["phase"] == "wired");
        run(&format!("ip link set {device} netns other"));
        fixture.events.wait_for("built", |event| event["port_id"] == port.as_str() && event["phase"] == "wired");
        let after = link(&device);
        assert_eq!((&after["address"], &after["altnames"]), (&before["address"], &before["altnames"]));
        assert_eq!(marked_ports(), [port.as_str()]);
        assert!(other.ip("link").contains(&device), "what left the host is not followed");
    });
}

#[test]
fn a_deleted_bridge_of_the_agents_is_made_again_with_its_ports() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let ports = [fixture.attach_to(&server, &network), fixture.attach_to(&server, &network)];
        ports.iter().for_each(|port| _ = fixture.events.wait_status(port, "ACTIVE"));
        let bridge = fixture.port(&ports[0])["binding:vif_details"]["bridge"].as_str().unwrap().to_owned();
        let before = link(&bridge);
        let start = Instant::now();
        run(&format!("ip link del {bridge}"));
        // Either may come first.
        (0..2).for_each(|_| _ = fixture.events.wait_for("a repair", |event| event["new"] == "BUILD"));
        ports.iter().for_each(|port| _ = fixture.wait_status(port, "ACTIVE"));
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        let after = link(&bridge);
        assert_eq!((&after["address"], &after["mtu"]), (&before["address"], &before["mtu"]));
        assert_ne!(after["ifindex"], before["ifindex"]);
    });
}

#[test]
fn an_operators_bridge_made_again_gets_its_ports_back() {
    in_netns(|| {
        crate::fixture::foreign_bridge("br0", 1500);
        let mut fixture = Fixture::start();
        let network = fixture.network_on("br0");
        let (_guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        run("ip link del br0");
        let gone = fixture.wait_status(&port, "ERROR");
        assert_eq!(gone["nicd:reason"], "no_such_bridge");
        // What its guest sends would reach the host's own stack.
        let device = fixture.device(&port);
        wait_for_link(&device, || !has_flag(&link(&device), "UP"));
        run(&format!("ip link set {device} up"));
        wait_for_link(&device, || !has_flag(&link(&device), "UP"));
        let start = Instant::now();
        crate::fixture::foreign_bridge("br0", 9000);
        fixture.wait_status(&port, "ACTIVE");
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        fixture.wait_until(&port, "as its bridge is", |_| link(&device)["mtu"] == link("br0")["mtu"]);
        assert_eq!(link(&device)["master"], "br0");
    });
}

#[test]
fn a_deleted_device_is_built_again() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        fixture.events.wait_for("attached", |event| event["port_id"] == port.as_str() && event["phase"] == "wired");
        let before = link(&device);
        run(&format!("ip link del {device}"));
        fixture.events.wait_for("built", |event| event["port_id"] == port.as_str() && event["phase"] == "wired");
        let after = link(&device);
        for same in ["ifname", "address", "altnames", "mtu", "master"] {
            assert_eq!(after[same], before[same]);
        }
    });
}

#[test]
fn the_last_of_many_changes_is_undone_like_the_first() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        let before = settled(&device);
        for round in 0..10 {
            // Within one repair's time, and a different number of them each round.
            let changes: String = (0..round).map(|n| format!("link set {device} mtu {}\n", 1300 + n)).collect();
            std::fs::write("/run/batch", format!("{changes}link set {device} nomaster\nlink set {device} mtu 1280\n")).unwrap();
            run("ip -batch /run/batch");
        }
        // Repairs in a row wait longer each time.
        wait_for_link(&device, || settled(&device) == before);
        fixture.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn a_renamed_device_keeps_its_identity() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        run(&format!("ip link set {device} name other0"));
        let told = fixture.events.wait_for("renamed", |event| event["reason"] == "device_renamed");
        assert_eq!((&told["port_id"], &told["new"]), (&port.as_str().into(), &"ACTIVE".into()));
        assert_eq!(fixture.device(&port), "other0");
        fixture.wait_status(&port, "ACTIVE");
        assert_eq!(marked_ports(), [port.as_str()], "and there is no second one");
        fixture.detach(&server, &port);
        assert!(marked_ports().is_empty());
    });
}

#[test]
fn an_agent_made_bridge_is_set_back() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let bridge = fixture.port(&port)["binding:vif_details"]["bridge"].as_str().unwrap().to_owned();
        let before = (link(&bridge)["address"].clone(), link(&bridge)["mtu"].clone());
        run(&format!("ip link set {bridge} address 02:00:00:00:00:77 mtu 1400"));
        run(&format!("ip link set {bridge} down"));
        let right = || {
            let now = link(&bridge);
            (now["address"].clone(), now["mtu"].clone()) == before && crate::kernel_view::has_flag(&now, "UP")
        };
        wait_for_link(&bridge, right);
        fixture.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn a_device_that_somebody_fights_over_is_not_fought_without_end() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        let start = Instant::now();
        let (mut repairs, mut noticed) = (0, false);
        while start.elapsed() < Duration::from_secs(2) || !noticed && start.elapsed() < crate::daemon::PATIENCE {
            run(&format!("ip link set {device} nomaster"));
            while let Some(event) = fixture.events.next(Duration::from_secs(1)) {
                noticed |= event["event"] == "agent.degraded";
                if event["port_id"] == port.as_str() && event["phase"] == "wired" {
                    repairs += 1;
                    break;
                }
            }
        }
        assert!((1..30).contains(&repairs), "{repairs} repairs in {:?}", start.elapsed());
        run(&format!("ip link set {device} nomaster"));
        wait_for_link(&device, || link(&device)["master"].is_string() || !has_flag(&link(&device), "UP"));
        let degraded = fixture.events.seen.iter().find(|event| event["event"] == "agent.degraded").expect("it is noticed");
        assert_eq!((&degraded["port_id"], &degraded["reason"]), (&port.as_str().into(), &"contested_bridge".into()));
        let health = fixture.api.get("/nicd/v1/health").expect(200);
        let problem = &health["problems"][0];
        assert_eq!((&health["status"], &problem["reason"]), (&"degraded".into(), &"contested_bridge".into()));
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(&port) && detail.contains("bridge"), "{problem}");
        fixture.wait_until(&port, "in its bridge", |_| link(&device)["master"].is_string());
        // Longer than the port has to stand still for.
        let until = Instant::now() + Duration::from_secs(30);
        let recovered = std::iter::from_fn(|| fixture.events.next(until.saturating_duration_since(Instant::now())))
            .find(|event| event["event"] == "agent.recovered");
        assert_eq!(recovered.expect("it ends")["reason"], "contested_bridge");
        assert_eq!(fixture.api.get("/nicd/v1/health").expect(200)["status"], "ok");
    });
}

#[test]
fn who_keeps_changing_an_agent_made_bridge_is_named_and_fought_less() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let bridge = link(&fixture.device(&port))["master"].as_str().unwrap().to_owned();
        let mtu = || link(&bridge)["mtu"].clone();
        let made = mtu();
        let start = Instant::now();
        let mut rounds = 0;
        while start.elapsed() < Duration::from_secs(3) {
            run(&format!("ip link set {bridge} mtu 1300"));
            rounds += 1;
            while mtu() != made && start.elapsed() < Duration::from_secs(3) {}
        }
        assert!((5..20).contains(&rounds), "{rounds} rounds");
        fixture.events.wait_for("a fight", |event| event["reason"] == "contested_network_bridge");
        while mtu() != made {
            assert!(start.elapsed() < Duration::from_secs(6));
        }
    });
}
