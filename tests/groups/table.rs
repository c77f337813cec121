//! The table of flows: each rule with each form of the other side, in both directions and families, and what of each kind of packet
//! it allows.

use serde_json::{Value, json};

use crate::flows::{Carried, Host, Scene};
use crate::netns::in_netns;
use crate::tracks;

/// What a rule says of packets, and which kinds it allows.
struct Case {
    rule: fn(bool) -> Value,
    allows: &'static [usize],
}

/// The kinds of packets that begin a connection, each time another one.
fn kinds(number: u16) -> [Carried; 6] {
    let from = 10_000 + number;
    [
        Carried::Tcp { from, to: 22, syn: true },
        Carried::Tcp { from, to: 26, syn: true },
        Carried::Udp { from, to: 53 },
        Carried::Udp { from, to: 1500 },
        Carried::Echo { id: from, answer: false },
        Carried::Gre,
    ]
}

const ALL: &[usize] = &[0, 1, 2, 3, 4, 5];

fn cases() -> Vec<Case> {
    vec![
        Case { rule: |_| json!({}), allows: ALL },
        Case { rule: |_| json!({"protocol": "tcp"}), allows: &[0, 1] },
        Case { rule: |_| json!({"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}), allows: &[0] },
        Case { rule: |_| json!({"protocol": "tcp", "port_range_min": 20, "port_range_max": 25}), allows: &[0] },
        Case { rule: |_| json!({"protocol": "udp", "port_range_min": 1000, "port_range_max": 2000}), allows: &[3] },
        Case { rule: |_| json!({"protocol": "17"}), allows: &[2, 3] },
        Case { rule: |v6| json!({"protocol": if v6 { "ipv6-icmp" } else { "icmp" }}), allows: &[4] },
        Case {
            rule: |v6| {
                let (protocol, kind) = if v6 { ("ipv6-icmp", 128) } else { ("icmp", 8) };
                json!({"protocol": protocol, "port_range_min": kind})
            },
            allows: &[4],
        },
        Case {
            rule: |v6| {
                let (protocol, kind) = if v6 { ("ipv6-icmp", 129) } else { ("icmp", 0) };
                json!({"protocol": protocol, "port_range_min": kind, "port_range_max": 0})
            },
            allows: &[],
        },
        Case { rule: |_| json!({"protocol": "47"}), allows: &[5] },
    ]
}

#[test]
fn each_rule_allows_what_it_says_and_nothing_else() {
    if !tracks() {
        return;
    }
    in_netns(|| {
        let mut scene = Scene::start();
        let network = scene.fixture.usual_network();
        let [tested, friends, strangers] = ["tested", "friends", "strangers"].map(|name| scene.group(name));
        for family in ["IPv4", "IPv6"] {
            scene.rule(&friends, json!({"direction": "egress", "ethertype": family}));
            scene.rule(&friends, json!({"direction": "ingress", "ethertype": family}));
        }
        let one = scene.host("one", &network, &[&tested]);
        let other = scene.host("other", &network, &[&friends]);
        let (mut number, mut wrong, mut flows) = (0, Vec::new(), 0);
        for (case, v6, direction) in ways() {
            for (remote, is_other) in remotes(v6, &other, &friends, &strangers) {
                let mut rule = (case.rule)(v6);
                rule["direction"] = json!(direction);
                rule["ethertype"] = json!(if v6 { "IPv6" } else { "IPv4" });
                rule.as_object_mut().unwrap().extend(remote.as_object().unwrap().clone());
                let id = scene.rule(&tested, rule.clone());
                number += 1;
                for (kind, carried) in kinds(number).into_iter().enumerate() {
                    let (from, to) = if direction == "ingress" { (&other, &one) } else { (&one, &other) };
                    let passes = scene.passes(from, to, v6, carried);
                    flows += 1;
                    if passes != (is_other && case.allows.contains(&kind)) {
                        wrong.push(format!("{rule}: {carried:?} {}", if passes { "passes" } else { "does not pass" }));
                    }
                }
                scene.unrule(&id);
                // GRE and what is answered have no ports of their own: the next rule finds the connection ended.
                let left = kinds(number).into_iter().enumerate().filter(|(kind, _)| case.allows.contains(kind));
                for (_, carried) in left {
                    let (from, to) = if direction == "ingress" { (&other, &one) } else { (&one, &other) };
                    flows += 1;
                    if scene.passes(from, to, v6, carried) {
                        wrong.push(format!("{rule}: {carried:?} passes though the rule is gone"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{} of {flows} flows: {wrong:#?}", wrong.len());
        eprintln!("{flows} flows");
        assert!(flows >= 120);
    });
}

fn ways() -> impl Iterator<Item = (Case, bool, &'static str)> {
    [false, true].into_iter().flat_map(|v6| {
        ["ingress", "egress"].into_iter().flat_map(move |direction| cases().into_iter().map(move |case| (case, v6, direction)))
    })
}

/// Forms of the other side, and whether it is the other host.
fn remotes(v6: bool, other: &Host, friends: &str, strangers: &str) -> Vec<(Value, bool)> {
    let [own, all, foreign] = match v6 {
        false => [format!("{}/32", other.v4), "192.0.2.0/24".to_owned(), "198.51.100.0/24".to_owned()],
        true => [format!("{}/128", other.v6), "2001:db8::/64".to_owned(), "2001:db8:1::/64".to_owned()],
    };
    vec![
        (json!({}), true),
        (json!({"remote_ip_prefix": own}), true),
        (json!({"remote_ip_prefix": all}), true),
        (json!({"remote_ip_prefix": foreign}), false),
        (json!({"remote_group_id": friends}), true),
        (json!({"remote_group_id": strangers}), false),
    ]
}
