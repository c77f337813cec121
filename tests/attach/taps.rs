//! What a VMM finds: the tap, who may open it, and how its opening and closing show.

use std::process::Command;

use nicd::kernel::tap;
use serde_json::{Value, json};

use crate::fixture::{Fixture, interfaces};
use crate::kernel_view::{has_flag, link, marked_ports, try_link};
use crate::netns::{comes_true, in_netns, run};

/// Opens a queue of a tap as a VMM does.
pub fn open(device: &str) -> std::os::fd::OwnedFd {
    tap::attach(&device.parse().unwrap(), 1, true).unwrap_or_else(|error| panic!("{device}: {error}"))
}

/// A vm with a tap on the usual network; the server, the port and the device.
pub fn vm_with_tap(fixture: &mut Fixture, guest: Value) -> (String, String, String) {
    let network = fixture.usual_network();
    let server = fixture.server(guest);
    let port = fixture.attach_to(&server, &network);
    let device = fixture.device(&port);
    (server, port, device)
}

/// Opens a tap as somebody without any capability: `setpriv` drops them, a few lines of Perl make the ioctl.
fn open_as(uid: u32, gid: u32, device: &str) -> Result<(), String> {
    // TUNSETIFF with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR (linux/if_tun.h).
    let script = r#"sysopen(my $tun, "/dev/net/tun", 2) or die "open: $!";
        ioctl($tun, 0x400454ca, pack("a16 S x22", $ARGV[0], 0x5002)) or die $!{EPERM} ? "EPERM" : "ioctl: $!";"#;
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "--bounding-set=-all"]);
    let output = command.args(["--inh-caps=-all", "--", "perl", "-e", script, device]).output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn a_vm_gets_a_persistent_tap_that_waits_for_its_process() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let body = json!({"interfaceAttachment": {"net_id": network}});
        let answer = fixture.api.post(&interfaces(&server), &body).expect(200);
        assert_eq!(answer["interfaceAttachment"]["port_state"], "DOWN");
        let port = answer["interfaceAttachment"]["port_id"].as_str().unwrap();
        let shown = fixture.port(port);
        assert_eq!(shown["nicd:reason"], "no_carrier");
        assert_eq!(shown["binding:vif_type"], "tap");
        let details = &shown["binding:vif_details"];
        assert_eq!((&details["queues"], &details["vnet_hdr"], &details["mtu"]), (&json!(1), &json!(true), &json!(1500)));
        let device = details["device"].as_str().unwrap();
        assert_eq!(device, format!("nicd{}", port.replace('-', "").get(..11).unwrap()));
        let link = link(device);
        assert_eq!(link["linkinfo"]["info_kind"], "tun");
        let data = &link["linkinfo"]["info_data"];
        assert_eq!((&data["type"], &data["persist"]), (&json!("tap"), &json!(true)), "{data}");
        assert_eq!((&data["vnet_hdr"], &data["pi"], &data["multi_queue"]), (&json!(true), &json!(false), &json!(false)));
        assert!(has_flag(&link, "UP") && !has_flag(&link, "LOWER_UP"), "{link}");
        assert_eq!(details["host_mac"], link["address"]);
    });
}

#[test]
fn an_owner_opens_its_tap_without_privileges_and_nobody_else_does() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (_, _, of_user) = vm_with_tap(&mut fixture, json!({"kind": "vm", "owner": {"uid": 1234}}));
        open_as(1234, 99, &of_user).unwrap();
        assert!(open_as(1235, 99, &of_user).unwrap_err().contains("EPERM"));
        let network = fixture.network(json!({}));
        fixture.subnet(&network, "198.51.100.0/24");
        let mut tap = |owner: Value| {
            let server = fixture.server(json!({"kind": "vm", "owner": owner}));
            let port = fixture.attach_to(&server, &network);
            fixture.device(&port)
        };
        let of_group = tap(json!({"gid": 4321}));
        let of_both = tap(json!({"uid": 1234, "gid": 4321}));
        let of_nobody = tap(json!({}));
        for (device, uid, gid, may) in [
            (&of_group, 99, 4321, true),
            (&of_group, 99, 99, false),
            (&of_both, 1234, 4321, true),
            (&of_both, 1234, 99, false),
            (&of_both, 99, 4321, false),
            (&of_nobody, 99, 99, false),
        ] {
            let opened = open_as(uid, gid, device);
            assert_eq!(opened.is_ok(), may, "{device} by {uid}:{gid}: {opened:?}");
        }
        fixture.daemon.term();
        fixture.launch();
        open_as(1234, 99, &of_user).unwrap();
        assert!(open_as(1235, 99, &of_user).is_err(), "also after a restart");
    });
}

#[test]
fn as_many_queues_as_asked_for_can_be_opened() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (_, port, device) = vm_with_tap(&mut fixture, json!({"kind": "vm", "queues": 4}));
        assert_eq!(fixture.port(&port)["binding:vif_details"]["queues"], 4);
        assert_eq!(link(&device)["linkinfo"]["info_data"]["multi_queue"], true);
        let name = device.parse().unwrap();
        let queues: Vec<_> = (0..4).map(|_| tap::attach(&name, 4, true).unwrap()).collect();
        fixture.events.wait_status(&port, "ACTIVE");
        drop(queues);
        fixture.events.wait_status(&port, "DOWN");
    });
}

#[test]
fn opening_and_closing_a_tap_shows_also_when_it_is_quick() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (_, port, device) = vm_with_tap(&mut fixture, json!({"kind": "vm"}));
        for _ in 0..5 {
            let vmm = open(&device);
            fixture.events.wait_status(&port, "ACTIVE");
            drop(vmm);
            let told = fixture.events.wait_status(&port, "DOWN");
            assert_eq!(told["reason"], "no_carrier");
            // The next VMM comes as soon as that is told.
        }
    });
}

#[test]
fn a_tap_that_is_held_open_is_cut_and_goes_when_it_is_closed() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        for (queues, admin_up) in [(1, true), (1, false), (4, true), (4, false)] {
            let server = fixture.server(json!({"kind": "vm", "queues": queues}));
            let port = fixture.create_port(json!({"network_id": network, "admin_state_up": admin_up}));
            fixture.attach(&server, json!({"port_id": port}));
            let device = fixture.device(&port);
            let bridge = link(&device)["master"].as_str().unwrap().to_owned();
            let held = tap::attach(&device.parse().unwrap(), queues, true).unwrap();
            if admin_up {
                fixture.wait_status(&port, "ACTIVE");
            }
            let one = format!("{}/{port}", interfaces(&server));
            fixture.api.delete(&one).expect(202);
            let told = fixture.events.wait_for("why it stays", |event| event["reason"] == "guest_keeps_device");
            assert_eq!((&told["port_id"], &told["phase"], &told["new"]), (&json!(port), &json!("detaching"), &json!("DOWN")));
            let seen = link(&device);
            assert!(!has_flag(&seen, "UP") && seen["master"].is_null(), "{seen}");
            let shown = fixture.port(&port);
            assert_eq!((&shown["nicd:phase"], &shown["nicd:reason"]), (&json!("detaching"), &json!("guest_keeps_device")));
            // Meanwhile nothing of it is free, and it is nobody's to attach.
            fixture.api.delete(&one).expect(202);
            let again = json!({"interfaceAttachment": {"port_id": port}});
            fixture.api.post(&interfaces(&server), &again).refused(409, "port_in_use");
            let same =
                json!({"port": {"network_id": network, "fixed_ips": [{"ip_address": shown["fixed_ips"][0]["ip_address"]}]}});
            fixture.api.post("/v2.0/ports", &same).refused(409, "address_in_use");
            // Somebody puts it back, and a start finds it so.
            run(&format!("ip link set {device} master {bridge} up"));
            wait_for(|| try_link(&device).is_some_and(|link| !has_flag(&link, "UP") && link["master"].is_null()));
            fixture.daemon.kill();
            run(&format!("ip link set {device} master {bridge} up"));
            fixture.launch();
            wait_for(|| try_link(&device).is_some_and(|link| !has_flag(&link, "UP") && link["master"].is_null()));
            fixture.wait_until(&port, "held still", |port| port.is_some_and(|port| port["nicd:reason"] == "guest_keeps_device"));
            drop(held);
            fixture.wait_until(&port, "unbound", |port| port.is_some_and(|port| port["nicd:phase"] == "unbound"));
            assert!(try_link(&device).is_none());
        }
    });
}

/// Waits until the kernel shows something.
fn wait_for(shown: impl Fn() -> bool) {
    comes_true(crate::daemon::PATIENCE, shown, || run("ip -d link"));
}

#[test]
fn every_removal_takes_a_held_tap_by_force_also_as_the_second() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        for second in [false, true] {
            for way in ["nova", "rackspace", "port", "server"] {
                let server = fixture.vm();
                let port = fixture.attach_to(&server, &network);
                let device = fixture.device(&port);
                let held = open(&device);
                fixture.wait_status(&port, "ACTIVE");
                let (path, query, status) = match way {
                    "nova" => (format!("{}/{port}", interfaces(&server)), "?force=", 202),
                    "rackspace" => (format!("/servers/{server}/os-virtual-interfacesv2/{port}"), "?force=", 200),
                    "port" => (format!("/v2.0/ports/{port}"), "?force=", 204),
                    _ => (crate::fixture::server_path(&server), "?detach=true&force=", 204),
                };
                fixture.api.delete(&format!("{path}{query}maybe")).refused(400, "bad_query");
                assert_eq!(fixture.port(&port)["status"], "ACTIVE");
                if second {
                    fixture.api.delete(&format!("{path}{query}false")).expect(status);
                    let kept = |port: Option<&Value>| port.is_some_and(|port| port["nicd:reason"] == "guest_keeps_device");
                    fixture.wait_until(&port, "kept", kept);
                }
                fixture.api.delete(&format!("{path}{query}true")).expect(status);
                fixture.wait_until(&port, "gone", |port| port.is_none());
                assert!(try_link(&device).is_none());
                drop(held);
            }
        }
    });
}

#[test]
fn a_tap_that_was_held_open_leaves_a_port_that_can_be_attached_again() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let port = fixture.create_port(json!({"network_id": network}));
        fixture.attach(&server, json!({"port_id": port}));
        let device = fixture.device(&port);
        let held = open(&device);
        fixture.wait_status(&port, "ACTIVE");
        fixture.api.delete(&format!("{}/{port}?force=true", interfaces(&server))).expect(202);
        fixture.wait_until(&port, "unbound", |port| port.is_some_and(|port| port["nicd:phase"] == "unbound"));
        assert!(try_link(&device).is_none());
        fixture.attach(&server, json!({"port_id": port}));
        assert_eq!(marked_ports(), [port.as_str()]);
        assert_eq!(fixture.port(&port)["status"], "DOWN", "what is held is not this device");
        drop(held);
        let _vmm = open(&device);
        fixture.wait_status(&port, "ACTIVE");
    });
}

/// Queues and owner of a tap, as the kernel has them and as the port tells the queues.
fn made_with(fixture: &mut Fixture, port: &str) -> (bool, Value, Value) {
    let device = fixture.device(port);
    let data = link(&device)["linkinfo"]["info_data"].clone();
    (data["multi_queue"] == true, data["user"].clone(), fixture.port(port)["binding:vif_details"]["queues"].clone())
}

#[test]
fn a_server_that_is_changed_changes_what_is_attached_from_then_on() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let guest = json!({"kind": "vm", "queues": 1, "owner": {"uid": 1234}});
        let (server, before, device) = vm_with_tap(&mut fixture, guest);
        let network = fixture.network(json!({}));
        fixture.subnet(&network, "198.51.100.0/24");
        let old = made_with(&mut fixture, &before);
        assert_eq!((old.0, &old.2), (false, &json!(1)), "{old:?}");
        let index = link(&device)["ifindex"].clone();
        let changed = json!({"server": {"guest": {"kind": "vm", "queues": 4, "owner": {"uid": 4321}}}});
        fixture.api.put(&crate::fixture::server_path(&server), &changed).expect(200);
        let after = fixture.attach_to(&server, &network);
        let new = made_with(&mut fixture, &after);
        assert_eq!((new.0, &new.2), (true, &json!(4)), "{new:?}");
        assert_ne!(new.1, old.1, "another owner");
        assert_eq!(made_with(&mut fixture, &before), old);
        // The same holds after a restart, and for a device that has to be made again.
        fixture.daemon.kill();
        fixture.launch();
        assert_eq!((made_with(&mut fixture, &before), &link(&device)["ifindex"]), (old.clone(), &index), "it was left alone");
        run(&format!("ip link del {device}"));
        fixture.wait_until(&before, "made again", |port| {
            port.is_some_and(|port| {
                let device = port["binding:vif_details"]["device"].as_str();
                device.and_then(try_link).is_some_and(|link| link["ifindex"] != index && has_flag(&link, "UP"))
            })
        });
        assert_eq!(made_with(&mut fixture, &before), old);
        // Attached again it is what the server is by then.
        fixture.api.delete(&format!("{}/{before}?reserve_port=True", interfaces(&server))).expect(202);
        fixture.wait_until(&before, "unbound", |port| port.is_some_and(|port| port["nicd:phase"] == "unbound"));
        fixture.attach(&server, json!({ "port_id": before }));
        assert_eq!(made_with(&mut fixture, &before), new);
    });
}
