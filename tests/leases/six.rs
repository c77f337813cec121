//! DHCPv6: a virtual machine's messages octet by octet, and ISC dhclient.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Instant;

use serde_json::{Value, json};

use crate::bytes::{IP6, Ip6, Mac, UDP, ethernet, group_mac, link_local, udp};
use crate::client::Machine;
use crate::daemon::PATIENCE;
use crate::fixture::{Fixture, text};
use crate::netns::in_netns;
use crate::real::{Client, bare_guest, leases};
use crate::slaac::wait_route;

const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const DUID: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

fn option(number: u16, value: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

/// An association with these addresses.
fn ia(addresses: &[Ipv6Addr]) -> Vec<u8> {
    let named = addresses.iter().map(|one| option(5, &[&one.octets()[..], &[0; 8]].concat()));
    option(3, &[&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0][..], &named.collect::<Vec<_>>().concat()].concat())
}

/// What a server says: its type and its options.
#[derive(Debug)]
struct Said {
    kind: u8,
    options: BTreeMap<u16, Vec<u8>>,
}

impl Said {
    /// The addresses of its association with how long they hold.
    fn addresses(&self) -> Vec<(Ipv6Addr, u32)> {
        let mut rest = &self.options[&3][12..];
        let mut addresses = Vec::new();
        while let [_, kind, _, length, ..] = rest {
            let value = &rest[4..4 + usize::from(*length)];
            if *kind == 5 {
                let address = Ipv6Addr::from(*value.first_chunk::<16>().unwrap());
                addresses.push((address, u32::from_be_bytes(value[20..24].try_into().unwrap())));
            }
            rest = &rest[4 + value.len()..];
        }
        addresses
    }
}

/// A message's frame, whose checksum must be right.
fn frame(mac: Mac, from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut datagram = udp(546, 547, message);
    let (source, target) = (from.octets(), to.octets());
    let header = etherparse::UdpHeader::with_ipv6_checksum(
        546,
        547,
        &etherparse::Ipv6Header { source, destination: target, ..Default::default() },
        message,
    );
    datagram[6..8].copy_from_slice(&header.unwrap().checksum.to_be_bytes());
    let packet = Ip6 { id: 1, from, to };
    ethernet(if to == SERVERS { group_mac(to) } else { [2, 0, 0, 0, 0, 9] }, mac, IP6, &packet.packet(UDP, &datagram))
}

/// Sends a message of this kind to an address.
fn send(vm: &Machine, kind: u8, xid: u8, to: Ipv6Addr, options: &[Vec<u8>]) {
    vm.send_frame(&frame(vm.mac, link_local(vm.mac), to, &[&[kind, 0, 0, xid][..], &options.concat()].concat()));
}

/// The answer with this number, whose checksum must be whole.
fn said(vm: &Machine, xid: u8) -> Said {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let frame = vm.next_frame(deadline).expect("an answer");
        let Ok(packet) = etherparse::SlicedPacket::from_ethernet(&frame) else { continue };
        let (Some(etherparse::NetSlice::Ipv6(ip)), Some(etherparse::TransportSlice::Udp(udp))) = (&packet.net, &packet.transport)
        else {
            continue;
        };
        if (udp.source_port(), udp.destination_port()) != (547, 546) {
            continue;
        }
        let header = ip.header();
        let right = udp.to_header().calc_checksum_ipv6_raw(header.source(), header.destination(), udp.payload()).unwrap();
        assert_eq!(udp.checksum(), right);
        assert_eq!((header.destination_addr(), &frame[..6]), (link_local(vm.mac), &vm.mac[..]));
        let octets = udp.payload();
        if octets[3] != xid {
            continue;
        }
        let mut options = BTreeMap::new();
        let mut rest = &octets[4..];
        while let [a, b, c, d, behind @ ..] = rest {
            let (value, after) = behind.split_at(usize::from(u16::from_be_bytes([*c, *d])));
            options.insert(u16::from_be_bytes([*a, *b]), value.to_vec());
            rest = after;
        }
        return Said { kind: octets[0], options };
    }
}

fn address(fixture: &mut Fixture, vm: &Machine) -> Ipv6Addr {
    text(&fixture.port(&vm.port)["fixed_ips"][1]["ip_address"]).parse().unwrap()
}

#[test]
fn a_machine_gets_its_ports_address_and_no_other() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let vm = Machine::start(&mut fixture, &network);
        let other = Machine::start(&mut fixture, &network);
        let own = address(&mut fixture, &vm);
        let foreign = address(&mut fixture, &other);
        let client = || option(1, &DUID);
        send(&vm, 1, 1, SERVERS, &[client(), ia(&[])]);
        let offer = said(&vm, 1);
        assert_eq!((offer.kind, offer.addresses()), (2, vec![(own, 86_400)]));
        let id = fixture.daemon.store_id().replace('-', "");
        let id: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()).collect();
        assert_eq!(offer.options[&2], [&[0, 4][..], &id].concat());
        let server = || option(2, &offer.options[&2]);
        send(&vm, 3, 2, SERVERS, &[client(), server(), ia(&[foreign])]);
        assert_eq!((said(&vm, 2).addresses()), [(own, 86_400)]);
        send(&vm, 1, 3, SERVERS, &[client(), option(14, &[]), ia(&[])]);
        assert_eq!(said(&vm, 3).kind, 7);
        send(&vm, 6, 4, SERVERS, &[client(), ia(&[foreign])]);
        assert_eq!(said(&vm, 4).addresses(), [(own, 86_400), (foreign, 0)]);
        send(&vm, 4, 5, SERVERS, &[client(), ia(&[foreign])]);
        assert_eq!(said(&vm, 5).options[&13][..2], [0, 4]);
        // To one host, whichever.
        send(&vm, 5, 6, "2001:db8::1".parse().unwrap(), &[client(), server(), ia(&[own])]);
        assert_eq!(said(&vm, 6).options[&13][..2], [0, 5]);
        // Of what is not answered nothing comes before the answer to what follows.
        let relayed = [&[12, 0][..], &[0; 32], &option(9, &[1, 0, 0, 7])].concat();
        vm.send_frame(&frame(vm.mac, link_local(vm.mac), SERVERS, &relayed));
        for (kind, options) in [
            (1, vec![option(1, &[]), ia(&[])]),
            (1, vec![option(1, &[7; 200]), ia(&[])]),
            (3, vec![client(), option(2, &[0, 4, 1]), ia(&[])]),
            (1, vec![client(), vec![0, 3, 255, 255]]),
        ] {
            send(&vm, kind, 7, SERVERS, &options);
        }
        send(&vm, 9, 8, SERVERS, &[client(), server(), ia(&[own])]);
        assert_eq!(said(&vm, 8).options[&13][..2], [0, 0]);
        fixture.events.wait_for("agent.degraded", |event| {
            event["event"] == "agent.degraded" && event["reason"] == "address_declined" && event["port_id"] == vm.port.as_str()
        });
        fixture.wait_active(&vm.port, Some("address_declined"));
        let lease = &leases(&mut fixture, &vm.port)[0];
        let shown = ["family", "state", "message", "address"].map(|key| text(&lease[key]));
        assert_eq!(shown, ["ipv6", "declined", "decline6", &own.to_string()]);
        send(&vm, 8, 9, SERVERS, &[client(), server(), ia(&[own])]);
        said(&vm, 9);
        // A guest that is told nothing: what it asks goes where other guests' frames go, and no server answers.
        fixture.api.put(&format!("/v2.0/ports/{}", other.port), &json!({"port": {"nicd:dhcp": false}})).expect(200);
        send(&other, 1, 10, SERVERS, &[client(), ia(&[])]);
        let metrics = fixture.api.get("/metrics").text;
        for counted in [
            "nicd_dhcp_received_total{type=\"solicit\"} 4",
            "nicd_dhcp_sent_total{type=\"advertise\"} 1",
            "nicd_dhcp_ignored_total{reason=\"relayed\"} 1",
            "nicd_dhcp_ignored_total{reason=\"other_server\"} 1",
            "nicd_dhcp_ignored_total{reason=\"incomplete\"} 2",
        ] {
            assert!(metrics.contains(counted), "{counted}: {metrics}");
        }
    });
}

#[test]
fn dhclient_gets_its_address_over_ipv6_too() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({"name": "blue"}));
        let subnet =
            json!({"network_id": network, "cidr": "fd00:a::/64", "gateway_ip": "fe80::1", "dns_nameservers": ["fd00:a::53"]});
        fixture.subnet_with(subnet);
        let options = json!([{"opt_name": "bootfile-url", "opt_value": "http://x/y", "ip_version": 6}]);
        let (guest, id, port) =
            bare_guest(&mut fixture, "a", json!({"network_id": network, "dns_name": "web-1", "extra_dhcp_opts": options}));
        assert_eq!(port["extra_dhcp_opts"][0]["ip_version"], 6);
        // Its link-local address is not made of its MAC, as with many systems, and it is heard.
        guest.ip("link set eth0 down");
        guest.ip("link set eth0 addrgenmode random");
        guest.ip("link set eth0 up");
        wait_route(&guest, "fe80::1");
        let client = Client::start(&guest, "dhclient", &["-6"]);
        let told = client.wait_for(&["BOUND6"], 0);
        let said = |key: &str| told.get(key).map(String::as_str);
        assert_eq!(said("new_ip6_address"), port["fixed_ips"][0]["ip_address"].as_str());
        assert_eq!(said("new_dhcp6_name_servers"), Some("fd00:a::53"));
        assert_eq!((said("new_max_life"), said("new_preferred_life")), (Some("86400"), Some("86400")));
        let lease: Value = leases(&mut fixture, &id)[0].clone();
        assert_eq!((&lease["family"], &lease["state"]), (&json!("ipv6"), &json!("bound")));
    });
}
