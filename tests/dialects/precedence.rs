//! Of two wrong things at once the one that Nova checks first is told: every condition of an attach that can be met here,
//! by its number in `docs/dialects.md`, together with every later one that can be met in the same request.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::NOBODY;
use crate::fixture::{Fixture, foreign_bridge, interfaces};
use crate::netns::{in_netns, run};

/// A condition, and what of a request meets it.
struct Condition {
    number: u32,
    status: u16,
    reason: &'static str,
    asks: &'static [(&'static str, Part)],
}

/// What a condition needs of one part of a request.
#[derive(Clone, Copy)]
enum Part {
    /// To be there, whatever it is.
    Given,
    /// To be there and this.
    Is(&'static str),
    /// Not to be there.
    Absent,
}

use Part::{Absent, Given, Is};

const CONDITIONS: &[Condition] = &[
    on(1, 400, "malformed_version", &[("version", Is("malformed"))]),
    on(1, 406, "unsupported_version", &[("version", Is("unsupported"))]),
    on(2, 415, "unsupported_media_type", &[("type", Is("text"))]),
    on(3, 400, "malformed_body", &[("body", Is("cut"))]),
    on(5, 400, "invalid_value", &[("key", Is("colour"))]),
    on(6, 404, "no_such_server", &[("server", Is("unknown"))]),
    on(8, 400, "network_and_port", &[("net_id", Given), ("port_id", Given)]),
    on(9, 400, "address_without_network", &[("net_id", Absent), ("ip", Given)]),
    on(12, 404, "no_such_port", &[("port_id", Is("unknown"))]),
    on(15, 409, "port_in_use", &[("port_id", Is("attached"))]),
    on(16, 404, "no_such_network", &[("net_id", Is("unknown"))]),
    on(18, 400, "several_networks", &[("net_id", Absent), ("port_id", Absent)]),
    on(21, 409, "address_in_use", &[("net_id", Is("used")), ("ip", Is("used"))]),
    on(22, 400, "pool_empty", &[("net_id", Is("full")), ("ip", Absent)]),
    on(23, 403, "too_many_nics", &[("server", Is("sated"))]),
    on(25, 400, "no_subnet", &[("net_id", Is("bare"))]),
    on(26, 400, "address_outside_subnet", &[("net_id", Given), ("ip", Is("outside"))]),
    on(28, 409, "no_such_bridge", &[("net_id", Is("bridgeless"))]),
    on(28, 409, "no_such_bridge", &[("port_id", Is("bridgeless"))]),
];

/// Those that can be met only where there is no network at all; 23 is a later one.
const WITHOUT_NETWORKS: &[Condition] = &[
    on(17, 400, "no_network", &[("net_id", Absent), ("port_id", Absent)]),
    on(17, 400, "no_network", &[("net_id", Absent), ("port_id", Absent), ("server", Is("sated"))]),
];

const fn on(number: u32, status: u16, reason: &'static str, asks: &'static [(&'static str, Part)]) -> Condition {
    Condition { number, status, reason, asks }
}

/// What a part that is given can be, as the qualities it has, and how it is then written.
type Things = BTreeMap<(&'static str, &'static str), String>;

/// A request that meets both conditions and none before them; none when there is no such request.
fn request(things: &Things, one: &Condition, other: &Condition) -> Option<BTreeMap<&'static str, String>> {
    let mut given: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut absent = BTreeSet::new();
    for (part, ask) in one.asks.iter().chain(other.asks) {
        match ask {
            Given => drop(given.entry(part).or_default()),
            Is(quality) => drop(given.entry(part).or_default().insert(quality)),
            Absent => drop(absent.insert(*part)),
        }
    }
    if given.keys().any(|part| absent.contains(part)) {
        return None;
    }
    let asked = |number| one.number == number || other.number == number;
    let there = |part: &str| given.contains_key(part);
    if there("net_id") && there("port_id") && !asked(8) || there("ip") && !there("net_id") && !absent.contains("net_id") {
        return None;
    }
    if !there("net_id") && !there("port_id") && !absent.contains("net_id") {
        given.entry("net_id").or_default();
    }
    given.entry("server").or_default();
    let written = given.into_iter().map(|(part, qualities)| {
        let qualities: Vec<&str> = qualities.into_iter().collect();
        let (part, written) = things.iter().find(|((name, is), _)| *name == part && *is == qualities.join("+"))?;
        Some((part.0, written.clone()))
    });
    written.collect()
}

/// Sends it.
fn send(fixture: &mut Fixture, request: &BTreeMap<&'static str, String>) -> crate::daemon::Answer {
    let mut nic = Map::new();
    for name in ["net_id", "port_id"] {
        nic.extend(request.get(name).map(|id| (name.to_owned(), Value::from(id.as_str()))));
    }
    nic.extend(request.get("ip").map(|ip| ("fixed_ips".to_owned(), json!([{ "ip_address": ip }]))));
    nic.extend(request.get("key").map(|key| (key.clone(), json!(1))));
    let mut body = json!({ "interfaceAttachment": nic }).to_string();
    if request.contains_key("body") {
        body.pop();
    }
    let kind = request.get("type").map_or("application/json", String::as_str);
    let mut headers = vec![("Content-Type", kind)];
    headers.extend(request.get("version").map(|version| ("X-OpenStack-Nova-API-Version", version.as_str())));
    fixture.api.call("POST", &interfaces(&request["server"]), &headers, body.as_bytes())
}

/// Tries each condition alone and with each later one; how many requests that were.
fn try_all(fixture: &mut Fixture, things: &Things, conditions: &[&Condition]) -> usize {
    let before = fixture.port_ids();
    let mut tried = 0;
    for one in conditions {
        for other in conditions.iter().filter(|other| other.number > one.number || std::ptr::eq(**other, *one)) {
            let Some(request) = request(things, one, other) else { continue };
            let answer = send(fixture, &request);
            let what = format!("{} before {}: {request:?}: {}", one.number, other.number, answer.text);
            assert_eq!((answer.status, &answer.error()["reason"]), (one.status, &json!(one.reason)), "{what}");
            tried += 1;
        }
    }
    assert_eq!(fixture.port_ids(), before, "nothing was made");
    tried
}

/// What is the same in every world.
fn things(fixture: &mut Fixture) -> Things {
    let sated = "9c1f5d6e-1111-4000-8000-000000000000";
    let limited = json!({"server": {"guest": {"kind": "vm"}, "nic_limit": 0}});
    fixture.api.put(&format!("/nicd/v1/servers/{sated}"), &limited).expect(201);
    let server = fixture.vm();
    let all = [
        (("version", "malformed"), "2"),
        (("version", "unsupported"), "2.71"),
        (("type", "text"), "text/plain"),
        (("body", "cut"), ""),
        (("key", "colour"), "colour"),
        (("server", ""), server.as_str()),
        (("server", "sated"), sated),
        (("server", "unknown"), NOBODY),
        (("net_id", ""), NOBODY),
        (("net_id", "unknown"), NOBODY),
        (("port_id", ""), NOBODY),
        (("port_id", "unknown"), NOBODY),
        (("ip", ""), "192.0.2.5"),
        (("ip", "used"), "192.0.2.9"),
        (("ip", "outside"), "203.0.113.1"),
    ];
    all.into_iter().map(|(key, written)| (key, written.to_owned())).collect()
}

/// Networks and ports of every quality and of those that go together.
fn add_networks(fixture: &mut Fixture, things: &mut Things) {
    foreign_bridge("theirs", 1500);
    for (bridge, names) in
        [(None, ["used", "full", "bare"]), (Some("theirs"), ["bridgeless+used", "bridgeless+full", "bare+bridgeless"])]
    {
        let [used, full, bare] = names.map(|name| (name, fixture.network(json!({ "nicd:bridge": bridge }))));
        fixture.subnet(&used.1, "192.0.2.0/24");
        fixture.create_port(json!({"network_id": used.1, "fixed_ips": [{"ip_address": "192.0.2.9"}]}));
        fixture.subnet(&full.1, "198.51.100.0/30");
        fixture.create_port(json!({"network_id": full.1}));
        let free = fixture.create_port(json!({"network_id": used.1}));
        let taken = fixture.create_port(json!({"network_id": used.1}));
        let other = fixture.vm();
        fixture.attach(&other, json!({ "port_id": taken }));
        let [is_free, is_taken] = if bridge.is_some() { ["bridgeless", "attached+bridgeless"] } else { ["", "attached"] };
        things.extend([(("port_id", is_free), free), (("port_id", is_taken), taken)]);
        things.insert(("net_id", if bridge.is_some() { "bridgeless" } else { "" }), used.1.clone());
        things.extend([used, full, bare].map(|(name, id)| (("net_id", name), id)));
    }
    run("ip link del theirs");
}

#[test]
fn the_condition_that_nova_checks_first_is_told() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        // An operator's bridge goes.
        fixture.leaves_deviations();
        let mut things = things(&mut fixture);
        let before_any: Vec<&Condition> = CONDITIONS.iter().filter(|one| one.number <= 9).chain(WITHOUT_NETWORKS).collect();
        let few = try_all(&mut fixture, &things, &before_any);
        add_networks(&mut fixture, &mut things);
        let many = try_all(&mut fixture, &things, &CONDITIONS.iter().collect::<Vec<_>>());
        println!("{few} requests without a network, {many} with some");
        assert!(few > 40 && many > 120, "{few}, {many}");
    });
}
