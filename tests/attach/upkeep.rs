//! What the agent says of itself: what a request would do, what differs, what is left over; and what it removes of that.

use serde_json::{Value, json};

use crate::fixture::{Fixture, text};
use crate::kernel_view::{Monitor, link, links, marked_ports, try_link};
use crate::netns::{in_netns, run, set_alias};

const OLD: &str = "22222222-2222-4333-8444-555555555555";
const STRAY: &str = "11111111-2222-4333-8444-555555555555";

fn plan(fixture: &mut Fixture, body: Value) -> Vec<Value> {
    let plan = fixture.api.post("/nicd/v1/plan", &body).expect(200)["plan"].clone();
    assert_eq!(plan["reason"], "dry_run");
    plan["steps"].as_array().unwrap().clone()
}

fn ops(steps: &[Value]) -> Vec<String> {
    steps.iter().map(|step| text(&step["op"]["op"])).collect()
}

/// The kinds of what deviates.
fn deviations(fixture: &mut Fixture) -> Vec<String> {
    let verified = fixture.verified();
    assert!(verified["checked"]["links"].as_u64() > Some(0), "{verified}");
    verified["deviations"].as_array().unwrap().iter().map(|deviation| text(&deviation["kind"])).collect()
}

fn collect(fixture: &mut Fixture, apply: bool) -> (Vec<String>, Vec<String>) {
    let said = fixture.api.post("/nicd/v1/gc", &json!({ "apply": apply })).expect(200);
    let names = |key: &str| said[key].as_array().unwrap().iter().map(|one| text(&one["object"])).collect();
    (names("leftovers"), names("removed"))
}

/// A port's facts in their order, and whether each holds.
fn explained(fixture: &mut Fixture, port: &str) -> Vec<(String, bool)> {
    let told = fixture.api.get(&format!("/nicd/v1/ports/{port}/explain")).expect(200);
    let facts = told["facts"].as_array().unwrap();
    facts.iter().map(|fact| (text(&fact["fact"]), fact["ok"] == true)).collect()
}

/// The first fact that does not hold.
fn cause(fixture: &mut Fixture, port: &str) -> String {
    explained(fixture, port).into_iter().find(|(_, ok)| !ok).expect("a cause").0
}

/// A device that this daemon's store has lost.
fn stray(fixture: &Fixture, name: &str) {
    run(&format!("ip link add {name} type veth peer name {name}-peer"));
    run(&format!("ip link property add dev {name} altname nicd-{STRAY}"));
    fixture.daemon.tag(name);
}

/// A bridge that this daemon's store has lost.
fn old_bridge(fixture: &Fixture) {
    run("ip link add old type bridge");
    run(&format!("ip link property add dev old altname nicd-{OLD}"));
    set_alias("old", &format!("nicd {} {OLD}", fixture.daemon.store_id()));
}

#[test]
fn a_dry_run_shows_the_steps_and_does_none() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let (_guest, other) = fixture.guest("a");
        let mut told = Monitor::links();
        let (before, ports) = (links(), fixture.ports());
        let on = |server: &str| json!({"server_id": server, "interfaceAttachment": {"net_id": network}});
        let tap = plan(&mut fixture, on(&server));
        let bridge = ["create_bridge", "close_bridge", "set_bridge", "set_filter"];
        assert_eq!(ops(&tap), [&bridge[..], &["create_tap", "configure", "persist"]].concat());
        assert_eq!((&tap[4]["undo"]["op"], &tap[6]["undo"]["op"]), (&json!("close_tap"), &json!("delete_link")));
        let veth = plan(&mut fixture, on(&other));
        assert_eq!(ops(&veth), [&bridge[..], &["create_veth", "configure_guest", "configure"]].concat());
        assert_eq!(plan(&mut fixture, on(&server))[4]["op"]["name"].as_str().map(str::len), Some(15));
        assert_eq!((links(), fixture.ports()), (before, ports));
        assert!(told.take_links().is_empty() && fixture.events.next(std::time::Duration::ZERO).is_none());
        // The lowest address is still free.
        let port = fixture.attach_to(&server, &network);
        assert_eq!(fixture.port(&port)["fixed_ips"][0]["ip_address"], "192.0.2.2");
        let gone = plan(&mut fixture, json!({ "detach": port }));
        assert_eq!(ops(&gone), ["set_link", "delete_link"]);
        assert_eq!((&gone[0]["stage"], &gone[1]["stage"]), (&Value::Null, &json!("deferred")));
        assert_eq!(marked_ports(), [port.as_str()]);
    });
}

#[test]
fn a_dry_run_is_refused_as_the_request_would_be() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let mut refused = |body: Value, status, reason: &str| {
            fixture.api.post("/nicd/v1/plan", &body).refused(status, reason);
        };
        let on = |server: &str, how: Value| json!({"server_id": server, "interfaceAttachment": how});
        refused(on(STRAY, json!({ "net_id": network })), 404, "no_such_server");
        refused(on(&server, json!({ "net_id": STRAY })), 404, "no_such_network");
        refused(on(&server, json!({ "port_id": STRAY })), 404, "no_such_port");
        let outside = json!({"net_id": network, "fixed_ips": [{"ip_address": "198.51.100.1"}]});
        refused(on(&server, outside), 400, "address_outside_subnet");
        refused(json!({ "detach": STRAY }), 404, "no_such_port");
        refused(json!({}), 400, "invalid_body");
    });
}

#[test]
fn what_is_right_does_not_deviate_and_what_nobody_mends_does() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        fixture.attach_to(&server, &network);
        let vm = fixture.server(json!({"kind": "vm", "queues": 2, "owner": {"uid": 107}}));
        fixture.attach_to(&vm, &network);
        fixture.create_port(json!({ "network_id": network }));
        assert!(deviations(&mut fixture).is_empty());
        stray(&fixture, "stray");
        let verified = fixture.verified();
        assert_eq!(verified["deviations"][0]["object"], "stray", "{verified}");
        run("ip link del stray");
        assert!(deviations(&mut fixture).is_empty());
    });
}

#[test]
fn a_store_that_somebody_wrote_to_deviates() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let port = fixture.create_port(json!({ "network_id": network, "name": "a" }));
        let sql = rusqlite::Connection::open(fixture.daemon.state().join("nicd.db")).unwrap();
        let write = |statement: &str| sql.execute(statement, []).unwrap();
        write(r#"UPDATE ports SET body = replace(body, '"name":"a"', '"name":"b"')"#);
        let verified = fixture.verified();
        let object = format!("name of port {port}");
        assert_eq!(
            verified["deviations"],
            json!([{"kind": "record_differs", "object": object, "want": "\"a\"", "have": "\"b\""}])
        );
        write("DELETE FROM ports");
        write("DELETE FROM addresses");
        assert_eq!(deviations(&mut fixture), ["record_missing"]);
        fixture.api.put(&format!("/v2.0/ports/{port}"), &json!({"port": {"name": "c"}})).expect(200);
        assert!(deviations(&mut fixture).is_empty(), "a record is written whole");
    });
}

#[test]
fn leftovers_go_when_asked_and_nothing_else_does() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let port = fixture.attach_to(&server, &network);
        assert_eq!(collect(&mut fixture, true), (vec![], vec![]));
        stray(&fixture, "stray");
        run("ip link add ifb0 type ifb");
        run("ip link property add dev ifb0 altname nicd-99999999-2222-4333-8444-555555555555");
        run("ip link add foreign type bridge");
        old_bridge(&fixture);
        run("ip link set stray master old");
        let both = || vec!["stray".to_owned(), "old".to_owned()];
        let sorted = |mut names: Vec<String>| {
            names.sort_unstable_by(|a, b| b.cmp(a));
            names
        };
        let (left, removed) = collect(&mut fixture, false);
        assert_eq!((sorted(left), removed), (both(), vec![]));
        assert!(try_link("stray").is_some() && try_link("old").is_some());
        let (left, removed) = collect(&mut fixture, true);
        assert_eq!((left, sorted(removed)), (vec![], both()));
        assert!(try_link("stray").is_none() && try_link("old").is_none());
        assert!(try_link("ifb0").is_some() && try_link("foreign").is_some(), "what nicd never makes is not its");
        assert_eq!(link(&fixture.device(&port))["operstate"], "DOWN");
        assert_eq!(fixture.api.get("/nicd/v1/health").expect(200)["status"], "ok");
    });
}

#[test]
fn a_bridge_that_others_use_is_left() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        old_bridge(&fixture);
        run("ip link add theirs type veth peer name theirs-peer");
        run("ip link set theirs master old");
        assert_eq!(collect(&mut fixture, true), (vec!["old".to_owned()], vec![]));
        run("ip link set theirs nomaster");
        assert_eq!(collect(&mut fixture, true), (vec![], vec!["old".to_owned()]));
    });
}

#[test]
fn a_device_of_a_port_that_has_no_server_is_left_over() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let port = fixture.create_port(json!({ "network_id": network }));
        run("ip link add stray type veth peer name other");
        run(&format!("ip link property add dev stray altname nicd-{port}"));
        assert_eq!(collect(&mut fixture, true), (vec![], vec![]), "it is not known to be nicd's");
        fixture.daemon.tag("stray");
        assert_eq!(collect(&mut fixture, true).1, ["stray"]);
        assert_eq!(fixture.port(&port)["nicd:phase"], "unbound");
    });
}

#[test]
fn a_port_explains_itself_from_its_server_to_its_traffic() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let all = [
            "bound",
            "device",
            "bridge",
            "host_closed",
            "filters",
            "addresses",
            "vlan",
            "forward_filtered",
            "built",
            "fdb",
            "admin_up",
            "carrier",
            "forwarding",
        ];
        let all = all.map(str::to_owned).to_vec();
        let told = explained(&mut fixture, &port);
        assert_eq!(told.iter().map(|(fact, _)| fact.clone()).collect::<Vec<_>>(), all);
        assert!(told.iter().all(|(_, ok)| *ok));
        guest.ip("link set eth0 down");
        fixture.events.wait_for("down", |event| event["port_id"] == port.as_str() && event["new"] == "DOWN");
        assert_eq!(cause(&mut fixture, &port), "carrier");
        guest.end();
        fixture.events.wait_for("gone", |event| event["port_id"] == port.as_str() && event["reason"] == "namespace_gone");
        assert_eq!(cause(&mut fixture, &port), "namespace");
        let alone = fixture.create_port(json!({ "network_id": network }));
        assert_eq!(cause(&mut fixture, &alone), "bound");
    });
}
