//! What becomes of connections: what answers them, what belongs to them, and what ends them.

use serde_json::{Value, json};

use crate::fixture::{Fixture, text};
use crate::flows::{Carried, Host, Scene, frame};
use crate::netns::{in_netns, run};
use crate::{daemon::Daemon, tracks};

fn rule(direction: &str, v6: bool, more: &Value) -> Value {
    let mut rule = json!({"direction": direction, "ethertype": if v6 { "IPv6" } else { "IPv4" }});
    rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    rule
}

fn dns() -> Value {
    json!({"protocol": "udp", "port_range_min": 53, "port_range_max": 53})
}

/// Gives an IPv4 header its checksum.
fn sum_up(frame: &mut [u8]) {
    frame[24..26].copy_from_slice(&[0; 2]);
    let words = frame[14..34].chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])));
    let sum: u32 = words.sum();
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    frame[24..26].copy_from_slice(&(!folded).to_be_bytes());
}

/// A guest whose group the test changes, and one in none.
fn pair(scene: &mut Scene) -> (Host, Host, String) {
    let network = scene.fixture.usual_network();
    let group = scene.group("tested");
    let one = scene.host("one", &network, &[&group]);
    let other = scene.host("other", &network, &[]);
    (one, other, group)
}

#[test]
fn what_answers_an_allowed_packet_passes_and_what_does_not_is_dropped() {
    if !tracks() {
        return;
    }
    in_netns(|| {
        let mut scene = Scene::start();
        let (one, other, group) = pair(&mut scene);
        for v6 in [false, true] {
            let (ask, answer) = (Carried::Udp { from: 4000, to: 53 }, Carried::Udp { from: 53, to: 4000 });
            assert!(!scene.passes(&other, &one, v6, ask), "a group without rules lets nothing in");
            assert!(!scene.passes(&one, &other, v6, answer), "nor out");
            let id = scene.rule(&group, rule("ingress", v6, &dns()));
            assert!(!scene.passes(&one, &other, v6, answer), "nothing was asked yet");
            assert!(scene.passes(&other, &one, v6, ask));
            assert!(scene.passes(&one, &other, v6, answer), "what answers needs no rule");
            assert!(!scene.passes(&one, &other, v6, Carried::Udp { from: 53, to: 4001 }));
            let refused = scene.refused(&one);
            scene.unrule(&id);
            assert!(!scene.passes(&other, &one, v6, ask), "the connection is cut with its rule");
            assert!(!scene.passes(&one, &other, v6, answer));
            assert_eq!(scene.refused(&one), refused + 2);
        }
        // TCP is not taken up in its midst, from either side.
        let all = scene.rule(&group, rule("egress", false, &json!({})));
        let ssh =
            scene.rule(&group, rule("ingress", false, &json!({"protocol": "tcp", "port_range_min": 22, "port_range_max": 22})));
        let begin = Carried::Tcp { from: 5000, to: 22, syn: true };
        assert!(!scene.passes(&other, &one, false, Carried::Tcp { from: 5001, to: 22, syn: false }));
        assert!(scene.passes(&other, &one, false, begin));
        scene.unrule(&ssh);
        assert!(!scene.passes(&one, &other, false, Carried::Tcp { from: 22, to: 5000, syn: false }), "no answer opens it again");
        assert!(!scene.passes(&other, &one, false, Carried::Tcp { from: 5000, to: 22, syn: false }));
        scene.unrule(&all);
    });
}

#[test]
fn errors_fragments_and_neighbours_pass_as_the_connection_does() {
    if !tracks() {
        return;
    }
    in_netns(|| {
        let mut scene = Scene::start();
        let (one, other, group) = pair(&mut scene);
        let id = scene.rule(&group, rule("egress", false, &dns()));
        let ask = Carried::Udp { from: 4000, to: 53 };
        // An error about a packet that was sent, and about one that was not.
        let about = |from: u16, tag: &[u8]| {
            let asked = frame(&one, &other, false, Carried::Udp { from, to: 53 }, tag);
            let mut frame = Vec::new();
            let unreachable = etherparse::icmpv4::DestUnreachableHeader::Port;
            let builder = etherparse::PacketBuilder::ethernet2(other.mac, one.mac);
            let builder = builder.ipv4(other.v4.octets(), one.v4.octets(), 64);
            builder.icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(unreachable)).write(&mut frame, &asked[14..]).unwrap();
            frame
        };
        let tag = *b"about it";
        assert!(!scene.arrives(&other, &one, &[about(4000, &tag)], &tag));
        assert!(scene.passes(&one, &other, false, ask));
        assert!(scene.arrives(&other, &one, &[about(4000, &tag)], &tag));
        assert!(!scene.arrives(&other, &one, &[about(4001, &tag)], &tag));
        // A datagram in two fragments, of which the second one has no ports.
        for (to, allowed) in [(53, true), (54, false)] {
            let data = [&[0; 1000][..], b"the end of it"].concat();
            let whole = frame(&one, &other, false, Carried::Udp { from: 4100, to }, &data);
            let mut pieces = [whole[..14 + 20 + 808].to_vec(), [&whole[..34], &whole[14 + 20 + 808..]].concat()];
            for (piece, flags) in pieces.iter_mut().zip([0x2000_u16, 808 / 8]) {
                let length = u16::try_from(piece.len() - 14).unwrap();
                piece[16..18].copy_from_slice(&length.to_be_bytes());
                piece[18..20].copy_from_slice(&to.to_be_bytes());
                piece[20..22].copy_from_slice(&flags.to_be_bytes());
                sum_up(piece);
            }
            assert_eq!(scene.arrives(&one, &other, &pieces, b"the end of it"), allowed, "to port {to}");
        }
        scene.unrule(&id);
        // Without any rule guests find each other.
        one.solicits(&mut scene, &other);
    });
}

impl Host {
    /// Neighbour discovery passes both ways.
    fn solicits(&self, scene: &mut Scene, other: &Self) {
        for (from, to) in [(self, other), (other, self)] {
            let target = to.v6.octets();
            let solicit = etherparse::PacketBuilder::ethernet2(from.mac, to.mac).ipv6(from.v6.octets(), target, 255);
            let mut frame = Vec::new();
            let body = [&target[..], &[1, 1], &from.mac].concat();
            solicit.icmpv6_raw(135, 0, [0; 4]).write(&mut frame, &body).unwrap();
            assert!(scene.arrives(from, to, &[frame], &body));
        }
    }
}

#[test]
fn a_nic_that_a_job_made_is_in_its_groups() {
    if !tracks() {
        return;
    }
    in_netns(|| {
        let mut scene = Scene::start();
        let network = scene.fixture.usual_network();
        let group = scene.group("tested");
        scene.rule(&group, rule("ingress", false, &dns()));
        let (one, other) = (scene.host_by_job("one", &network, &[&group]), scene.host_by_job("other", &network, &[]));
        assert!(scene.passes(&other, &one, false, Carried::Udp { from: 4000, to: 53 }));
        assert!(!scene.passes(&other, &one, false, Carried::Udp { from: 4000, to: 54 }));
        assert!(!scene.passes(&one, &other, false, Carried::Udp { from: 53, to: 4001 }));
    });
}

#[test]
fn anti_spoof_comes_first_and_members_are_followed() {
    if !tracks() {
        return;
    }
    in_netns(|| {
        let mut scene = Scene::start();
        let (one, other, group) = pair(&mut scene);
        for direction in ["ingress", "egress"] {
            scene.rule(&group, rule(direction, false, &json!({})));
        }
        // No group allows another's address.
        let mut forged = frame(&one, &other, false, Carried::Gre, b"forged!!");
        forged[29] ^= 0x40;
        sum_up(&mut forged);
        assert!(!scene.arrives(&one, &other, &[forged], b"forged!!"));
        let counters = scene.fixture.api.get(&format!("/nicd/v1/ports/{}/counters", one.port)).expect(200);
        assert_eq!((&counters["dropped"]["ip4"], &counters["dropped"]["group"]), (&json!(1), &json!(0)));
        // A rule that names a group follows who is in it.
        let (server, clients) = (scene.group("server"), scene.group("clients"));
        scene.rule(&server, rule("ingress", false, &json!({"remote_group_id": clients})));
        scene.set_groups(&one, &[&server]);
        let ask = |from| Carried::Udp { from, to: 9 };
        assert!(!scene.passes(&other, &one, false, ask(1)));
        scene.rule(&clients, rule("egress", false, &json!({})));
        scene.set_groups(&other, &[&clients]);
        assert!(scene.passes(&other, &one, false, ask(1)));
        scene.set_groups(&other, &[]);
        assert!(!scene.passes(&other, &one, false, ask(2)), "it is in it no more");
    });
}

#[test]
fn restarts_and_flushes_cut_nothing_and_open_nothing() {
    if !tracks() {
        return;
    }
    in_netns(|| {
        let mut scene = Scene::start();
        let (one, other, group) = pair(&mut scene);
        scene.rule(&group, rule("ingress", false, &dns()));
        let (ask, answer) = (Carried::Udp { from: 4000, to: 53 }, Carried::Udp { from: 53, to: 4000 });
        assert!(scene.passes(&other, &one, false, ask));
        let check = |scene: &mut Scene, when: &str| {
            assert!(scene.passes(&one, &other, false, answer), "{when}: what was allowed goes on");
            assert!(!scene.passes(&other, &one, false, Carried::Udp { from: 4000, to: 54 }), "{when}: nothing is open");
        };
        check(&mut scene, "before");
        let ruleset = run("nft -j list table bridge nicd");
        scene.fixture.daemon.kill();
        check(&mut scene, "while nicd is not there");
        scene.fixture.launch();
        scene.fixture.wait_status(&one.port, "ACTIVE");
        check(&mut scene, "after a restart");
        let names = |text: &str| serde_json::from_str::<Value>(text).unwrap()["nftables"].as_array().unwrap().len();
        assert_eq!(names(&run("nft -j list table bridge nicd")), names(&ruleset), "the table was left as it was");
        run("nft flush ruleset");
        scene.soon("the table is back", |_| crate::netns::try_run("nft list map bridge nicd grouped").is_ok());
        check(&mut scene, "after a flush");
    });
}

#[test]
fn equal_addresses_in_two_networks_never_meet() {
    if !tracks() {
        return;
    }
    in_netns(|| {
        let mut scene = Scene::start();
        let group = scene.group("tested");
        scene.rule(&group, rule("ingress", false, &dns()));
        let networks = [0, 1].map(|_| scene.fixture.usual_network());
        let hosts = [0, 1].map(|at| {
            let one = scene.host(&format!("one{at}"), &networks[at], &[&group]);
            (one, scene.host(&format!("other{at}"), &networks[at], &[]))
        });
        let [(one, other), (one2, other2)] = &hosts;
        assert_eq!((one.v4, other.v4), (one2.v4, other2.v4));
        let (ask, answer) = (Carried::Udp { from: 4000, to: 53 }, Carried::Udp { from: 53, to: 4000 });
        assert!(scene.passes(other, one, false, ask));
        assert!(!scene.passes(one2, other2, false, answer), "what the other network's guest was asked");
        assert!(scene.passes(one, other, false, answer));
    });
}

#[test]
fn a_guest_has_so_many_connections_and_no_more() {
    if !tracks() {
        return;
    }
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        std::fs::write(daemon.config(), "[filters]\nconnections = 16\n").unwrap();
        daemon.launch();
        let mut scene = Scene::of(Fixture::of(daemon));
        let (one, other, group) = pair(&mut scene);
        scene.rule(&group, rule("egress", false, &json!({})));
        // A connection counts once.
        for _ in 0..100 {
            assert!(scene.passes(&one, &other, false, Carried::Udp { from: 3000, to: 9 }));
        }
        let passed: Vec<u16> =
            (0..20).filter(|port| scene.passes(&one, &other, false, Carried::Udp { from: 3000 + port, to: 9 })).collect();
        assert_eq!(passed, (0..16).collect::<Vec<u16>>(), "{}", run("nft list set bridge nicd connections"));
        assert_eq!(scene.refused(&one), 4);
        assert!(scene.passes(&other, &one, false, Carried::Udp { from: 9, to: 3000 }), "those that it has go on");
        assert!(scene.passes(&one, &other, false, Carried::Udp { from: 3000, to: 9 }));
    });
}

#[test]
fn a_set_of_groups_is_as_its_rules_are_whenever_a_port_comes_to_it() {
    if !tracks() {
        return;
    }
    in_netns(|| {
        let mut scene = Scene::start();
        let (one, other, group) = pair(&mut scene);
        let closed = scene.group("closed");
        let network = text(&scene.fixture.port(&one.port)["network_id"]);
        let third = scene.host("third", &network, &[&closed]);
        let id = scene.rule(&group, rule("ingress", false, &dns()));
        let ask = |from| Carried::Udp { from, to: 53 };
        assert!(scene.passes(&other, &one, false, ask(1)));
        // A connection from before a port's groups is judged by them.
        scene.set_groups(&one, &[]);
        assert!(scene.passes(&other, &one, false, ask(1)));
        assert!(scene.passes(&other, &one, false, Carried::Udp { from: 1, to: 54 }));
        scene.unrule(&id);
        scene.set_groups(&one, &[&group]);
        assert!(!scene.passes(&other, &one, false, ask(1)), "the rule went while no port was in the group");
        assert!(!scene.passes(&other, &one, false, ask(2)));
        assert!(!scene.passes(&other, &third, false, ask(1)));
    });
}

#[test]
fn a_guest_without_port_security_opens_nothing_of_others() {
    if !tracks() {
        return;
    }
    in_netns(|| {
        let mut scene = Scene::start();
        let (one, other, group) = pair(&mut scene);
        let network = text(&scene.fixture.port(&one.port)["network_id"]);
        let third = scene.host("third", &network, &[]);
        scene.rule(&group, rule("egress", false, &json!({})));
        let off = json!({"port": {"port_security_enabled": false}});
        scene.fixture.api.put(&format!("/v2.0/ports/{}", other.port), &off).expect(200);
        // A tag of VLAN 0, which guests take for none.
        let plain = frame(&other, &one, false, Carried::Udp { from: 1, to: 2 }, b"tagged!!");
        let tagged = [&plain[..12], &[0x81, 0, 0, 0], &plain[12..]].concat();
        assert!(!scene.arrives(&other, &one, &[tagged], b"tagged!!"));
        // What is said in a member's name makes no connection of its, which another packet would be the answer to.
        let mut forged = frame(&other, &third, false, Carried::Udp { from: 53, to: 4000 }, b"forged!!");
        forged[26..30].copy_from_slice(&one.v4.octets());
        forged[30..34].copy_from_slice(&other.v4.octets());
        forged[40..42].copy_from_slice(&[0; 2]);
        sum_up(&mut forged);
        assert!(scene.arrives(&other, &third, &[forged], b"forged!!"));
        assert!(!scene.passes(&other, &one, false, Carried::Udp { from: 4000, to: 53 }));
        assert!(scene.passes(&one, &other, false, Carried::Udp { from: 53, to: 4000 }), "its own does");
        assert!(scene.passes(&other, &one, false, Carried::Udp { from: 4000, to: 53 }));
    });
}
