//! What is shown: properties, lists, signals, as busctl sees them.

use serde_json::{Value, json};

use crate::bus::{Lines, NAME, PORT, Policy, ROOT, ask, busctl, busctl_as, path, property, with_bus};
use crate::fixture::{interfaces, text};
use crate::netns::in_netns;

const MANAGER: &str = "org.nicd.Agent1.Manager";
const OBJECT_MANAGER: &str = "org.freedesktop.DBus.ObjectManager";

/// A dictionary of variants as plain values.
fn plain(values: &Value) -> Value {
    values.as_object().unwrap().iter().map(|(name, value)| (name.clone(), value["data"].clone())).collect()
}

#[test]
fn a_ports_properties_are_what_the_socket_says() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let vm = fixture.vm();
        let unbound = fixture.create_port(json!({"network_id": network}));
        for port in [fixture.attach_to(&server, &network), fixture.attach_to(&vm, &network), unbound] {
            let said = fixture.port(&port);
            let ips: Vec<&Value> = said["fixed_ips"].as_array().unwrap().iter().map(|ip| &ip["ip_address"]).collect();
            let text = |value: &Value| json!(value.as_str().unwrap_or_default());
            let expected = json!({
                "Id": port, "ServerId": said["device_id"], "NetworkId": network,
                "Device": text(&said["binding:vif_details"]["device"]), "Mac": said["mac_address"], "FixedIps": ips,
                "Status": said["status"], "Phase": said["nicd:phase"], "Reason": text(&said["nicd:reason"]),
            });
            let all = ask(&path(&port), &format!("org.freedesktop.DBus.Properties GetAll s {PORT}"));
            assert_eq!(plain(&all[0]), expected);
            for (name, value) in expected.as_object().unwrap() {
                assert_eq!(&property(&port, name), value, "{name}");
            }
        }
    });
}

#[test]
fn lists_come_in_pages_and_the_object_manager_has_all() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        for _ in 0..5 {
            fixture.create_port(json!({"network_id": network}));
        }
        let ids = fixture.port_ids();
        let row = |id: &String| json!([path(id), id, "DOWN"]);
        let list = |offset: u32, limit: u32| ask(ROOT, &format!("{MANAGER} ListPorts uu {offset} {limit}"))[0].clone();
        let rows = |range: std::ops::Range<usize>| Value::Array(ids[range].iter().map(row).collect());
        assert_eq!(list(0, 2), rows(0..2));
        assert_eq!(list(2, 2), rows(2..4));
        assert_eq!(list(4, 2), rows(4..5));
        assert_eq!((list(5, 2), list(u32::MAX, u32::MAX)), (json!([]), json!([])));
        assert_eq!((list(0, 0), list(0, u32::MAX)), (rows(0..5), rows(0..5)));
        let managed = ask(ROOT, &format!("{OBJECT_MANAGER} GetManagedObjects"));
        let managed = managed[0].as_object().unwrap();
        assert_eq!(
            managed.keys().collect::<Vec<_>>(),
            ids.iter().map(|id| path(id)).collect::<Vec<_>>().iter().collect::<Vec<_>>()
        );
        for id in &ids {
            assert_eq!(plain(&managed[&path(id)][PORT])["Id"], json!(id));
        }
        let agent = ask(ROOT, &format!("org.freedesktop.DBus.Properties GetAll s {MANAGER}"));
        assert_eq!(plain(&agent[0]), json!({"Version": env!("CARGO_PKG_VERSION"), "PortCount": 5}));
    });
}

#[test]
fn busctl_finds_its_way_and_everything_is_described() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        let port = fixture.create_port(json!({"network_id": network}));
        let tree = busctl(&format!("tree --list {NAME}"));
        let wanted = ["/", "/org", "/org/nicd", ROOT, "/org/nicd/Agent1/port", &path(&port)];
        assert_eq!(tree.lines().collect::<Vec<_>>(), wanted);
        let has = |said: &str, name: &str, kind: &str, signature: &str| {
            let found = said
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>())
                .any(|words| words.first() == Some(&name) && words.get(1) == Some(&kind) && words.contains(&signature));
            assert!(found, "{name} {kind} {signature} in\n{said}");
        };
        let said = busctl(&format!("introspect {NAME} {}", path(&port)));
        for (name, signature) in [("Id", "s"), ("ServerId", "s"), ("NetworkId", "s"), ("Device", "s"), ("Mac", "s")] {
            has(&said, &format!(".{name}"), "property", signature);
        }
        has(&said, ".FixedIps", "property", "as");
        has(&said, ".OpenTap", "method", "ah");
        has(&said, ".StatusChanged", "signal", "sss");
        has(&said, ".PropertiesChanged", "signal", "sa{sv}as");
        let said = busctl(&format!("introspect {NAME} {ROOT}"));
        has(&said, ".ListPorts", "method", "a(oss)");
        has(&said, ".GetManagedObjects", "method", "a{oa{sa{sv}}}");
        has(&said, ".PortCount", "property", "u");
        busctl(&format!("call {NAME} /anything org.freedesktop.DBus.Peer Ping"));
    });
}

#[test]
fn what_happens_to_a_port_is_signalled_in_order() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let mut monitor = Lines::monitor();
        let port = fixture.attach_to(&server, &network);
        let added = monitor.signal("InterfacesAdded");
        assert_eq!((&added["path"], &added["interface"]), (&json!(ROOT), &json!(OBJECT_MANAGER)));
        assert_eq!(added["payload"]["data"][0], json!(path(&port)));
        let properties = plain(&added["payload"]["data"][1][PORT]);
        assert_eq!((&properties["Id"], &properties["ServerId"]), (&json!(port), &json!(server)));
        let changed = monitor.signal("StatusChanged");
        assert_eq!((&changed["path"], &changed["payload"]["data"]), (&json!(path(&port)), &json!(["BUILD", "ACTIVE", ""])));
        guest.ip("link set eth0 down");
        let changed = monitor.signal("PropertiesChanged");
        assert_eq!(changed["payload"]["data"][0], json!(PORT));
        assert_eq!(plain(&changed["payload"]["data"][1]), json!({"Status": "DOWN", "Phase": "wired", "Reason": "no_carrier"}));
        assert_eq!(monitor.signal("StatusChanged")["payload"]["data"], json!(["ACTIVE", "DOWN", "no_carrier"]));
        guest.ip("link set eth0 up");
        assert_eq!(monitor.signal("StatusChanged")["payload"]["data"], json!(["DOWN", "ACTIVE", ""]));
        fixture.detach(&server, &port);
        assert_eq!(monitor.signal("StatusChanged")["payload"]["data"], json!(["ACTIVE", "DOWN", ""]));
        let removed = monitor.signal("InterfacesRemoved");
        assert_eq!(removed["payload"]["data"], json!([path(&port), [PORT]]));
    });
}

#[test]
fn a_changed_mac_and_address_are_signalled_and_shown() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        let port = fixture.create_port(json!({"network_id": network}));
        let mut monitor = Lines::monitor();
        let change = json!({"port": {"mac_address": "fa:16:3e:00:00:01", "fixed_ips": [{"ip_address": "192.0.2.99"}]}});
        fixture.api.put(&format!("/v2.0/ports/{port}"), &change).expect(200);
        assert_eq!(property(&port, "FixedIps"), json!(["192.0.2.99"]));
        let changed = monitor.signal("PropertiesChanged");
        let values = plain(&changed["payload"]["data"][1]);
        assert_eq!(values, json!({"Mac": "fa:16:3e:00:00:01", "FixedIps": ["192.0.2.99"]}));
    });
}

#[test]
fn an_attach_that_fails_leaves_no_signal() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        fixture.wait_status(&port, "ACTIVE");
        let mut monitor = Lines::monitor();
        guest.end();
        let how = json!({"interfaceAttachment": {"net_id": network}});
        let refused = fixture.api.post(&interfaces(&server), &how);
        assert_eq!(refused.status, 409, "{}", refused.text);
        // The next that is made is the next that is told.
        let made = fixture.create_port(json!({"network_id": network}));
        assert_eq!(monitor.signal("InterfacesAdded")["payload"]["data"][0], json!(path(&made)));
    });
}

#[test]
fn what_is_not_there_and_what_does_not_fit_is_refused_by_name() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        let port = path(&fixture.create_port(json!({"network_id": network})));
        let nobody = path("11111111-2222-4333-8444-555555555555");
        for (call, says) in [
            (format!("{nobody} org.freedesktop.DBus.Properties GetAll s {PORT}"), "no object"),
            (format!("{nobody} {PORT} OpenTap"), "no object"),
            (format!("/org/nicd/Agent1/port/x {PORT} OpenTap"), "no object"),
            (format!("{port} {PORT} CloseTap"), "no method org.nicd.Agent1.Port.CloseTap"),
            (format!("{ROOT} {PORT} ListPorts uu 0 0"), "no method"),
            (format!("{ROOT} {MANAGER} ListPorts u 0"), "'uu' is expected"),
            (format!("{ROOT} {MANAGER} ListPorts ss 0 0"), "'uu' is expected"),
            (format!("{port} org.freedesktop.DBus.Properties Get ss {PORT} Colour"), "no property Colour"),
            (format!("{port} org.freedesktop.DBus.Properties Get ss {MANAGER} Version"), "no interface"),
            (format!("{port} org.freedesktop.DBus.Properties Set ssv {PORT} Mac s x"), "for reading"),
        ] {
            let output = busctl_as(&[], &format!("call {NAME} {call}"));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(says), "{call}: {said}");
        }
        assert_eq!(text(&property(&fixture.port_ids()[0], "Status")), "DOWN");
    });
}
