//! What a port may send, in the kernel's own words (`nft`): it is there before the device, follows every change, is put back when
//! another program takes it, and goes with the device. Frames are sent in `tests/frames`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::fixture::{Fixture, interfaces, text};
use crate::kernel_view::{bridge_port, elements, filtered_ports, has_flag, link};
use crate::netns::{comes_true, in_netns, json as json_of, run, try_run};

/// How soon what another program took is back.
const SOON: Duration = Duration::from_secs(1);

/// Waits until the kernel has it so.
fn wait(what: &str, holds: impl FnMut() -> bool) {
    comes_true(SOON, holds, || what.to_owned());
}

/// What the table has beside counters and limits, which count on.
fn table() -> Vec<(String, Vec<Value>)> {
    let sets = ["guarded", "open", "isolated", "macs", "hosts4", "nets4", "hosts6", "nets6"];
    sets.iter().map(|set| ((*set).to_owned(), elements(set))).collect()
}

/// The table's rules as `nft` prints them.
fn rules() -> String {
    let shown = try_run("nft -n list table bridge nicd").unwrap_or_default();
    let chains = shown.split("\tchain ").skip(1);
    let count = |line: &str| line.split(" packets ").next().unwrap_or_default().to_owned();
    let mut chains: Vec<String> = chains.map(|chain| chain.lines().map(count).collect()).collect();
    chains.sort();
    chains.concat()
}

/// A number of the daemon's metrics.
fn metric(fixture: &mut Fixture, name: &str) -> u64 {
    let answer = fixture.api.get("/nicd/v1/metrics");
    let line = answer.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_ports_filter_is_there_while_its_device_is() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        assert!(filtered_ports().is_empty());
        let port = fixture.attach_to(&server, &network);
        fixture.wait_status(&port, "ACTIVE");
        assert_eq!(filtered_ports(), [port.as_str()]);
        let (device, mac) = (fixture.device(&port), fixture.port(&port)["mac_address"].clone());
        assert_eq!(elements("macs"), [json!({"concat": [device, mac]})]);
        assert_eq!(elements("hosts4"), [json!({"concat": [device, mac, "192.0.2.2"]})]);
        assert_eq!(elements("hosts6").len(), 2, "its address and the link-local one");
        // The elements go by the device's index: another name changes nothing.
        run(&format!("ip link set dev {device} down"));
        run(&format!("ip link set dev {device} name other"));
        assert_eq!(elements("macs"), [json!({"concat": ["other", mac]})]);
        fixture.detach(&server, &port);
        wait("removed", || table().iter().all(|(_, elements)| elements.is_empty()));
        assert!(elements("dropped_mac").is_empty() && elements("logged").is_empty());
    });
}

#[test]
fn an_attach_that_fails_leaves_no_filter() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        fixture.daemon.term();
        fixture.daemon.environment = vec![("NICD_FAILPOINTS", "message.port_flags:1:fail=EINVAL".to_owned())];
        fixture.launch();
        let attached = json!({"interfaceAttachment": {"net_id": network}});
        assert!(fixture.api.post(&interfaces(&server), &attached).status >= 400);
        wait("undone", || filtered_ports().is_empty());
    });
}

#[test]
#[cfg(debug_assertions)] // a release build has no failpoints
fn a_change_that_the_kernel_refuses_leaves_the_old_filter_and_the_old_record() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, _server, port) = fixture.active_guest("a", &network);
        fixture.daemon.term();
        fixture.daemon.set_failpoints(Some("filter.commit:1+:fail=EINVAL"));
        fixture.launch();
        let (before, table_before) = (fixture.wait_status(&port, "ACTIVE"), table());
        for change in [
            json!({"allowed_address_pairs": [{"ip_address": "192.0.2.64/26"}]}),
            json!({"fixed_ips": [{"ip_address": "192.0.2.9"}]}),
            json!({"port_security_enabled": false}),
            json!({"nicd:isolated": true}),
        ] {
            fixture.api.put(&format!("/v2.0/ports/{port}"), &json!({ "port": change })).refused(503, "filter_refused");
            assert_eq!((fixture.port(&port), table()), (before.clone(), table_before.clone()), "{change}");
        }
        fixture.daemon.kill();
        fixture.daemon.set_failpoints(None);
        fixture.launch();
        assert_eq!(fixture.wait_status(&port, "ACTIVE"), before, "also after a restart");
        assert_eq!(table(), table_before);
    });
}

#[test]
#[cfg(debug_assertions)] // a release build has no failpoints
fn a_change_of_a_device_that_the_kernel_refuses_leaves_device_filter_and_record() {
    let limit = |rate: u32| json!({"nicd:limits": {"to_guest": {"rate_kbps": rate}, "from_guest": {"rate_kbps": 9000}}});
    in_netns(move || {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, _server, port) = fixture.active_guest("a", &network);
        let path = format!("/v2.0/ports/{port}");
        for (failpoint, reason, change) in [
            ("message.rate_limit:1+:fail=EINVAL", "limit_refused", limit(2000)),
            ("message.rate_limit:1:fail=ENOENT", "module_missing", limit(2000)),
            ("message.no_rate_limit:1+:fail=EPERM", "limit_refused", json!({"nicd:limits": null})),
            ("message.port_flags:1:fail=EPERM", "no_permission", json!({"port_security_enabled": false, "nicd:isolated": true})),
            ("message.port_flags:1:fail=EPERM", "no_permission", json!({"nicd:unknown_unicast": true})),
        ] {
            for limited in [Value::Null, limit(1000)["nicd:limits"].clone()] {
                if limited.is_null() && failpoint.contains("no_rate_limit") {
                    continue;
                }
                fixture.api.put(&path, &json!({"port": {"nicd:limits": limited}})).expect(200);
                fixture.daemon.term();
                fixture.daemon.set_failpoints(Some(failpoint));
                fixture.launch();
                let before = (fixture.wait_status(&port, "ACTIVE"), table(), device(&mut fixture, &port));
                fixture.api.put(&path, &json!({ "port": change })).refused(503, reason);
                // A look at the device between the change and its undo begins a repair, which finds nothing to do.
                let after = (fixture.wait_status(&port, "ACTIVE"), table(), device(&mut fixture, &port));
                assert_eq!(after, before, "{failpoint}: {change}");
                fixture.daemon.term();
                fixture.daemon.set_failpoints(None);
                fixture.launch();
                assert_eq!(fixture.wait_status(&port, "ACTIVE"), before.0, "also after a restart");
            }
        }
        fixture.api.put(&path, &json!({"port": limit(2000)})).expect(200);
    });
}

/// What a port's device is as a bridge's port, and its rate.
fn device(fixture: &mut Fixture, port: &str) -> (Value, bool, Vec<Value>) {
    let device = fixture.device(port);
    let up = has_flag(&link(&device), "UP");
    (bridge_port(&device), up, json_of(&format!("tc -j qdisc show dev {device}")).as_array().unwrap().clone())
}

#[test]
#[cfg(debug_assertions)] // a release build has no failpoints
fn without_nf_tables_only_what_needs_no_filter_is_accepted() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.set_failpoints(Some("filter.read:1+:fail=EINVAL,filter.commit:1+:fail=EOPNOTSUPP"));
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        let health = fixture.api.get("/nicd/v1/health").expect(200);
        assert_eq!(health["problems"][0]["reason"], "filters_unavailable", "{health}");
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let refused = |fixture: &mut Fixture, port: Value| {
            let answer = fixture.api.post("/v2.0/ports", &json!({ "port": port }));
            let error = answer.refused(503, "filters_unavailable");
            assert!(text(&error["message"]).contains("port_security_enabled false"), "{error}");
        };
        refused(&mut fixture, json!({"network_id": network}));
        refused(&mut fixture, json!({"network_id": network, "port_security_enabled": true}));
        refused(&mut fixture, json!({"network_id": network, "port_security_enabled": false, "nicd:isolated": true}));
        let attached = json!({"interfaceAttachment": {"net_id": network}});
        fixture.api.post(&interfaces(&server), &attached).refused(503, "filters_unavailable");
        let port = fixture.create_port(json!({"network_id": network, "port_security_enabled": false}));
        fixture.attach(&server, json!({"port_id": port}));
        fixture.wait_status(&port, "ACTIVE");
        for change in [
            json!({"port_security_enabled": true}),
            json!({"nicd:isolated": true}),
            json!({"nicd:limits": {"from_guest": {"rate_kbps": 1000}}}),
        ] {
            let path = format!("/v2.0/ports/{port}");
            fixture.api.put(&path, &json!({ "port": change })).refused(503, "filters_unavailable");
        }
        let isolated = json!({"network": {"nicd:isolated": true}});
        fixture.api.put(&format!("/v2.0/networks/{network}"), &isolated).refused(503, "filters_unavailable");
        let limits = json!({"nicd:limits": {"to_guest": {"rate_kbps": 1000}}, "name": "free"});
        fixture.api.put(&format!("/v2.0/ports/{port}"), &json!({ "port": limits })).expect(200);
        assert_eq!(fixture.port(&port)["status"], "ACTIVE");
        fixture.api.put(&format!("/v2.0/networks/{network}"), &json!({"network": {"port_security_enabled": false}})).expect(200);
        let other = fixture.attach_to(&server, &network);
        fixture.wait_status(&other, "ACTIVE");
        fixture.detach(&server, &other);
        assert_eq!(fixture.port_ids(), [port]);
        // Nothing turns its DHCP requests to nicd, which therefore does not hear them.
        let machine = fixture.vm();
        let unheard = fixture.attach_to(&machine, &network);
        let explained = fixture.api.get(&format!("/nicd/v1/ports/{unheard}/explain")).expect(200);
        let responder = explained["facts"].as_array().unwrap().iter().find(|fact| fact["fact"] == "responder").unwrap();
        assert!(responder["ok"] == false && text(&responder["detail"]).contains("no nf_tables"), "{explained}");
    });
}

#[test]
#[cfg(debug_assertions)] // a release build has no failpoints
fn elements_whose_removal_keeps_failing_are_removed_by_a_sweep_or_the_next_start() {
    for next in ["sweep", "start"] {
        in_netns(move || {
            let mut daemon = Daemon::prepared("/run/nicd");
            std::fs::write(daemon.config(), "[links]\nsweep_s = 1\n").unwrap();
            // The removal itself, and three tries after a read of what there is.
            let failures = [3, 4, 5, 6].map(|commit| format!("filter.commit:{commit}:fail=EIO"));
            daemon.set_failpoints(Some(&failures.join(",")));
            daemon.launch();
            let mut fixture = Fixture::of(daemon);
            let network = fixture.usual_network();
            let (_guest, server, port) = fixture.active_guest("a", &network);
            fixture.detach(&server, &port);
            wait("tried in vain", || fixture.daemon.log().contains("the filter's elements of deleted devices are still there"));
            assert_eq!(filtered_ports(), [port.as_str()]);
            if next == "start" {
                fixture.daemon.kill();
                fixture.daemon.set_failpoints(None);
                fixture.launch();
            }
            // A sweep gives a device that is not there 10 s to appear.
            let is_gone = || filtered_ports().is_empty() && elements("macs").is_empty();
            comes_true(15 * SOON, is_gone, || format!("its elements are there: {next}"));
            let again = fixture.attach_to(&server, &network);
            fixture.wait_status(&again, "ACTIVE");
        });
    }
}

#[test]
#[cfg(debug_assertions)] // a release build has no failpoints
fn a_restore_that_is_refused_is_tried_again_a_second_later() {
    in_netns(|| {
        // The table is made, the port is attached, and a restore is tried three times at once.
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.set_failpoints(Some("filter.commit:3:fail=EIO,filter.commit:4:fail=EIO,filter.commit:5:fail=EIO"));
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        let network = fixture.usual_network();
        let (_guest, _server, port) = fixture.active_guest("a", &network);
        let before = table();
        let taken = Instant::now();
        run("nft flush set bridge nicd hosts4");
        wait("refused", || fixture.daemon.log().contains("cannot be put back"));
        assert!(elements("hosts4").is_empty());
        comes_true(3 * SOON, || table() == before, || format!("{:?}", table()));
        assert!(taken.elapsed() >= SOON, "{:?}", taken.elapsed());
        fixture.wait_status(&port, "ACTIVE");
        assert_eq!(metric(&mut fixture, "nicd_filter_restores_total"), 1);
    });
}

#[test]
fn what_another_program_takes_from_the_table_is_put_back() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let mut guests = Vec::new();
        for name in ["a", "b"] {
            let (guest, _, port) = fixture.active_guest(name, &network);
            guests.push((guest, port));
        }
        let index = link(&fixture.device(&guests[0].1))["ifindex"].as_u64().unwrap();
        let (before, rules_before) = (table(), rules());
        for (number, change) in (1..).zip([
            "nft flush ruleset",
            "nft delete table bridge nicd",
            "nft flush table bridge nicd",
            "nft flush set bridge nicd hosts4",
            "nft flush chain bridge nicd solicit",
            "nft insert rule bridge nicd from_guest accept",
            "nft add table bridge nicd { flags dormant; }",
            &format!("nft delete element bridge nicd guarded {{ {index} }}"),
            &format!("nft add element bridge nicd open {{ {index} }}"),
        ]) {
            run(change);
            let restored = |fixture: &mut Fixture| metric(fixture, "nicd_filter_restores_total") >= number;
            wait(change, || restored(&mut fixture) && table() == before && rules() == rules_before);
        }
        assert!(fixture.ports().iter().all(|port| port["status"] == "ACTIVE"));
        run("nft add table bridge others");
        run("nft add chain bridge others mine");
        wait("left alone", || run("nft list table bridge others").contains("mine"));
    });
}

#[test]
fn a_start_puts_right_what_is_wrong_and_writes_nothing_otherwise() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server, port) = fixture.active_guest("a", &network);
        let before = (table(), rules());
        fixture.daemon.term();
        fixture.launch();
        assert_eq!((metric(&mut fixture, "nicd_kernel_writes_total"), (table(), rules())), (0, before.clone()));
        for change in ["nft flush ruleset", "nft flush set bridge nicd hosts4", "nft flush chain bridge nicd guard"] {
            fixture.daemon.kill();
            run(change);
            fixture.launch();
            fixture.wait_status(&port, "ACTIVE");
            wait(change, || (table(), rules()) == before);
        }
        // What a process that died left for a device that it did not make.
        fixture.daemon.kill();
        fixture.launch();
        fixture.detach(&server, &port);
        wait("removed", || filtered_ports().is_empty());
    });
}

#[test]
fn the_last_frames_that_were_dropped_are_told() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let shown = fixture.wait_status(&port, "ACTIVE");
        let name = text(&shown["binding:vif_details"]["guest_device"]);
        // A guest with an address that is not its own asks for a neighbour.
        guest.ip(&format!("addr add 198.51.100.9/24 dev {name}"));
        guest.inside(|| {
            let socket = std::net::UdpSocket::bind("198.51.100.9:0").unwrap();
            socket.send_to(b"x", "198.51.100.1:9").unwrap();
        });
        let path = format!("/nicd/v1/ports/{port}/counters");
        let start = Instant::now();
        let frame = loop {
            let counted = fixture.api.get(&path).json();
            let last = counted["last_dropped"].as_array().unwrap().clone();
            if let Some(frame) = last.into_iter().find(|frame| frame["reason"] == "arp") {
                assert!(counted["dropped"]["arp"].as_u64().unwrap() > 0);
                break frame;
            }
            assert!(start.elapsed() < SOON, "{counted}");
            std::thread::sleep(Duration::from_millis(2));
        };
        assert_eq!(frame["src_mac"], shown["mac_address"]);
        assert_eq!((&frame["src_ip"], &frame["ethertype"]), (&"198.51.100.9".into(), &"0x0806".into()));
        let explained = fixture.api.get(&format!("/nicd/v1/ports/{port}/explain")).expect(200);
        let filters = explained["facts"].as_array().unwrap().iter().find(|fact| fact["fact"] == "filters").unwrap().clone();
        assert!(filters["ok"] == true && text(&filters["detail"]).contains("; dropped: arp "), "{filters}");
        let all = "nicd_dropped_frames_total{reason=\"arp\"}";
        let before = metric(&mut fixture, all);
        let counted = fixture.api.get(&path).json()["dropped"]["arp"].as_u64().unwrap();
        assert!(before > 0 && counted >= before, "{counted} of one port, {before} of all");
        // The last frames of a device end with it, and what all have dropped never falls.
        fixture.detach(&server, &port);
        run("nft flush ruleset");
        wait("made anew", || !rules().is_empty());
        assert!(metric(&mut fixture, all) >= before);
    });
}
