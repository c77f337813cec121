//! Links that have an altname of nicd's form and that nicd did not make: they are named, left as they are, and never offered.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fixture::{Fixture, interfaces, text};
use crate::kernel_view::{bridge_attributes, has_flag, link, links, try_link};
use crate::netns::{Guest, in_netns, run, set_alias};

const OTHER_STORE: &str = "99999999-8888-4777-8666-555555555555";

/// Makes a link that is somebody else's and has a mark.
fn marked(make: &str, name: &str, mark: &str) {
    run(make);
    run(&format!("ip link property add dev {name} altname nicd-{mark}"));
}

/// What the host has, but for what counts by itself.
fn shown(name: &str) -> Value {
    let mut shown = link(name);
    shown.as_object_mut().unwrap().retain(|key, _| key != "stats64");
    shown
}

fn nothing_is_offered(fixture: &mut Fixture) {
    let said = fixture.api.post("/nicd/v1/gc", &json!({"apply": true})).expect(200);
    assert_eq!(said, json!({"leftovers": [], "removed": []}));
    assert_eq!(fixture.api.get("/nicd/v1/health").expect(200)["problems"], json!([]));
}

#[test]
fn a_link_with_a_ports_altname_is_named_and_left_whatever_it_is() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, netns) = fixture.guest("a");
        let vm = fixture.vm();
        for server in [vm, netns] {
            for kind in ["bridge", "veth", "ifb", "tap", "derived", "other_store", "alias"] {
                let port = fixture.create_port(json!({ "network_id": network }));
                let derived = format!("nicd{}", &port.replace('-', "")[..11]);
                let name = if kind == "derived" { derived.as_str() } else { "foreign" };
                let make = match kind {
                    "tap" | "derived" => format!("ip tuntap add {name} mode tap"),
                    "bridge" | "veth" | "ifb" => format!("ip link add {name} type {kind}"),
                    _ => format!("ip link add {name} type veth peer name peer"),
                };
                marked(&make, name, &port);
                match kind {
                    "other_store" => set_alias(name, &format!("nicd {OTHER_STORE} 7")),
                    "alias" => set_alias(name, "uplink of rack 4"),
                    _ => {}
                }
                let before = shown(name);
                let attach = json!({"interfaceAttachment": {"port_id": port}});
                let error = fixture.api.post(&interfaces(&server), &attach).refused(409, "name_taken");
                assert!(text(&error["message"]).contains(name), "{error}");
                assert_eq!(shown(name), before, "{kind}");
                assert_eq!(fixture.port(&port)["nicd:phase"], "unbound");
                nothing_is_offered(&mut fixture);
                fixture.api.delete(&format!("/v2.0/ports/{port}")).expect(204);
                assert_eq!(shown(name), before, "{kind}");
                run(&format!("ip link del {name}"));
            }
        }
    });
}

#[test]
fn an_operators_bridge_with_a_networks_altname_is_named_and_left() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        marked("ip link add corp type bridge stp_state 1 mcast_snooping 1", "corp", &network);
        run("ip link set corp up mtu 1400");
        run("ip addr add 198.51.100.1/24 dev corp");
        let before = bridge_attributes("corp");
        let error = fixture.api.post(&interfaces(&server), &json!({"interfaceAttachment": {"net_id": network}}));
        let error = error.refused(409, "name_taken");
        assert!(text(&error["message"]).contains("corp"), "{error}");
        fixture.api.put(&format!("/v2.0/networks/{network}"), &json!({"network": {"mtu": 1300}})).expect(200);
        nothing_is_offered(&mut fixture);
        assert_eq!(bridge_attributes("corp"), before);
        fixture.api.delete(&format!("/v2.0/networks/{network}")).expect(204);
        assert_eq!(bridge_attributes("corp"), before);
        assert!(run("ip addr show dev corp").contains("198.51.100.1/24"));
    });
}

#[test]
fn an_altname_that_moves_to_another_link_costs_the_port_and_not_the_link() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        run("ip link add foreign type veth peer name peer");
        // The altname is taken before nicd can make the device anew.
        fixture.daemon.signal(Signal::SIGSTOP);
        run(&format!("ip link del {device}"));
        run(&format!("ip link property add dev foreign altname nicd-{port}"));
        fixture.daemon.signal(Signal::SIGCONT);
        fixture.wait_until(&port, "ERROR", |port| port.is_some_and(|port| port["nicd:reason"] == "name_taken"));
        let before = shown("foreign");
        fixture.detach(&server, &port);
        assert_eq!(shown("foreign"), before);
    });
}

#[test]
fn what_another_store_built_is_left_until_that_store_is_named() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let port = fixture.attach_to(&server, &network);
        let (device, theirs) = (fixture.device(&port), "11111111-2222-4333-8444-555555555555");
        marked("ip tuntap add theirs mode tap", "theirs", theirs);
        set_alias("theirs", &format!("nicd {OTHER_STORE} 7"));
        marked("ip link add theirbr type bridge", "theirbr", "22222222-2222-4333-8444-555555555555");
        set_alias("theirbr", &format!("nicd {OTHER_STORE} {theirs}"));
        run("ip link set theirs master theirbr");
        run("ip tuntap add lost mode tap");
        set_alias("lost", &format!("nicd {OTHER_STORE} 8"));
        nothing_is_offered(&mut fixture);
        let mut named = |apply: bool| fixture.api.post("/nicd/v1/gc", &json!({"apply": apply, "store": OTHER_STORE})).expect(200);
        let names = |links: &Value| {
            let mut names: Vec<String> = links.as_array().unwrap().iter().map(|one| text(&one["object"])).collect();
            names.sort();
            names
        };
        assert_eq!(names(&named(false)["leftovers"]), ["lost", "theirbr", "theirs"]);
        let said = named(true);
        assert_eq!((names(&said["leftovers"]), names(&said["removed"]).len()), (vec![], 3), "{said}");
        assert!(["theirs", "theirbr", "lost"].iter().all(|name| try_link(name).is_none()));
        assert!(try_link(&device).is_some());
        fixture.api.post("/nicd/v1/gc", &json!({"store": "x"})).refused(400, "invalid_value");
    });
}

#[test]
fn a_bridge_of_nicds_is_known_by_its_alias_and_gets_back_what_it_lost() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let bridge = text(&fixture.port(&port)["binding:vif_details"]["bridge"]);
        let alias = format!("nicd {} {network}", fixture.daemon.store_id());
        let index = link(&bridge)["ifindex"].clone();
        assert_eq!(link(&bridge)["ifalias"], alias.as_str());
        let until = |what: &str, right: &dyn Fn() -> bool| {
            let deadline = std::time::Instant::now() + crate::daemon::PATIENCE;
            while !right() {
                assert!(std::time::Instant::now() < deadline, "{what}: {:#?}", links());
                std::thread::yield_now();
            }
        };
        run(&format!("ip link property del dev {bridge} altname nicd-{network}"));
        until("the altname", &|| try_link(&format!("nicd-{network}")).is_some_and(|link| link["ifindex"] == index));
        // As a bridge of a nicd that gave none.
        set_alias(&bridge, "");
        until("the alias", &|| link(&bridge)["ifalias"] == alias.as_str());
        assert!(has_flag(&link(&bridge), "UP"));
        assert_eq!(link(&fixture.device(&port))["master"], bridge.as_str());
        fixture.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn an_altname_that_comes_just_before_the_attach_is_not_taken_over() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let guest = Guest::new("b");
        let server = fixture.server(json!({"kind": "netns", "path": guest.path}));
        for _ in 0..20 {
            let port = fixture.create_port(json!({ "network_id": network }));
            marked("ip link add foreign type veth peer name peer", "foreign", &port);
            let before = shown("foreign");
            let attach = json!({"interfaceAttachment": {"port_id": port}});
            fixture.api.post(&interfaces(&server), &attach).refused(409, "name_taken");
            assert_eq!(shown("foreign"), before);
            run("ip link del foreign");
            fixture.api.delete(&format!("/v2.0/ports/{port}")).expect(204);
        }
    });
}
