//! Guests of several hosts reach each other, and each frame goes where it belongs and nowhere else.

use std::net::IpAddr;

use nicd::model::Mac;

use crate::hosts::{Host, Sent, Tunnelled, Underlay, network};
use crate::netns::{in_netns, run};
use crate::wire::Nic;

const ARP: [u8; 2] = [0x08, 0x06];

fn three(underlay: Underlay) -> [Host; 3] {
    run("ip link add under type bridge mcast_snooping 0");
    run("ip link set under up");
    let hosts = [1, 2, 3].map(|number| Host::new(number, underlay));
    hosts.iter().for_each(|host| _ = host.attach());
    for host in &hosts {
        let others: Vec<&Host> = hosts.iter().filter(|other| other.number != host.number).collect();
        host.tell(&others);
    }
    hosts
}

/// Sends a frame from a host's guest, and a second one to another host's guest, which arrives behind all that the first caused. What was sent
/// in between.
fn sent_by(host: &Host, frame: &[u8], reaches: &Host, on: &Sent) -> Vec<Tunnelled> {
    drop(on.all());
    Nic::of_guest(&host.guest).send(frame).unwrap();
    assert!(host.reaches(reaches.addresses()[0]));
    let is_asked = |one: &Tunnelled| frame.len() <= one.frame.len() && one.frame[..frame.len()] == *frame;
    on.all().into_iter().filter(is_asked).collect()
}

fn request(from: (Mac, IpAddr), target: IpAddr) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => panic!("ARP is for IPv4"),
    };
    let header = [&[0xff; 6][..], &from.0.0, &ARP, &[0, 1, 8, 0, 6, 4, 0, 1]].concat();
    [&header[..], &from.0.0, &octets(from.1), &[0; 6], &octets(target)].concat()
}

/// A UDP packet from a host's guest to a MAC.
fn packet(host: &Host, to: Mac) -> Vec<u8> {
    let IpAddr::V4(from) = host.addresses()[0] else { unreachable!() };
    let mut ip = [&[0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0][..], &from.octets(), &[10, 0, 0, 99]].concat();
    let sum: u32 = ip.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [&to.0[..], &host.port().port.mac.0, &[0x08, 0x00], &ip, &[0x10, 0, 0x10, 0, 0, 12, 0, 0, 1, 2, 3, 4]].concat()
}

fn targets(sent: &[Tunnelled]) -> Vec<u8> {
    let mut to: Vec<u8> = sent.iter().map(|one| one.to).collect();
    to.sort_unstable();
    to
}

fn frames_go_where_they_belong(underlay: Underlay) {
    let [first, second, third] = three(underlay);
    for (from, to) in [(&first, &second), (&second, &third), (&third, &first)] {
        for address in to.addresses() {
            assert!(from.reaches(address), "host {} to {address}", from.number);
        }
    }
    let sent = first.sent();
    drop(sent.all());
    // The bridge answers for what is known: nobody is asked over the underlay.
    first.guest.ip("neigh flush dev eth0");
    assert!(second.addresses().into_iter().all(|address| first.reaches(address)));
    let asked = |one: &Tunnelled| {
        one.frame[12..14] == ARP || one.frame[12..14] == [0x86, 0xdd] && one.frame[20] == 58 && one.frame[54] == 135
    };
    let all = sent.all();
    assert!(!all.iter().any(asked), "{all:?}");
    // Guests' kernels speak of multicast by themselves.
    let for_one: Vec<Tunnelled> = all.into_iter().filter(|one| one.frame[0] & 1 == 0).collect();
    let is_second = |one: &Tunnelled| one.to == 2;
    assert!(!for_one.is_empty() && for_one.iter().all(is_second), "known frames go to one host alone: {for_one:?}");
    // What is for all goes to each other host once, as does what is for nobody known.
    let own = (first.port().port.mac, first.addresses()[0]);
    let unknown = request(own, [10, 0, 0, 99].into());
    assert_eq!(targets(&sent_by(&first, &unknown, &second, &sent)), [2, 3]);
    let nobody = packet(&first, Mac([0xfa, 0x16, 0x3e, 9, 9, 9]));
    assert_eq!(targets(&sent_by(&first, &nobody, &second, &sent)), [2, 3]);
    let known = packet(&first, third.port().port.mac);
    assert_eq!(targets(&sent_by(&first, &known, &second, &sent)), [3]);
    // That an address has moved is told to other hosts where that may be.
    let moved = request(own, own.1);
    assert!(sent_by(&first, &moved, &second, &sent).is_empty());
    first.pair("10.0.0.200/32");
    assert_eq!(targets(&sent_by(&first, &moved, &second, &sent)), [2, 3]);
    // A port that has left is nobody known; a host that has left is sent nothing.
    let mac = third.port().port.mac;
    first.fleet(move |fleet| fleet.reconciler().remove_remote(network(), mac));
    first.has_right_entries();
    assert_eq!(targets(&sent_by(&first, &known, &second, &sent)), [2, 3]);
    let tunnel = third.tunnel();
    first.fleet(move |fleet| fleet.reconciler().remove_peer(network(), tunnel));
    first.has_right_entries();
    assert_eq!(targets(&sent_by(&first, &known, &second, &sent)), [2]);
    assert_eq!(targets(&sent_by(&first, &unknown, &second, &sent)), [2]);
    // It is back, at another host: the frames go there.
    let remote = nicd::plan::Remote { host: second.tunnel(), ..third.as_remote().1 };
    first.fleet(move |fleet| fleet.reconciler().put_remote(network(), mac, remote));
    first.has_right_entries();
    assert_eq!(targets(&sent_by(&first, &known, &second, &sent)), [2]);
}

#[test]
fn frames_go_where_they_belong_over_ipv4() {
    in_netns(|| frames_go_where_they_belong(Underlay::V4));
}

#[test]
fn frames_go_where_they_belong_over_ipv6() {
    in_netns(|| frames_go_where_they_belong(Underlay::V6));
}

#[test]
fn no_guest_gets_a_frame_from_a_tunnel_in_the_name_of_a_port_here() {
    in_netns(|| {
        let [first, second, third] = three(Underlay::V4);
        // The second host says so, whose own guest could not.
        let device = second.device().unwrap()["ifname"].as_str().unwrap().to_owned();
        let speaks = second.space.inside(move || Nic::of(&device)).unwrap();
        let guests = [&first, &third].map(|host| (host, Nic::of_guest(&host.guest)));
        let asked = |mac: Mac| request((mac, [10, 0, 0, 77].into()), [10, 0, 0, 78].into());
        let [own, others, last] =
            [first.port().port.mac, Mac([0xfa, 0x16, 0x3e, 9, 9, 9]), Mac([0xfa, 0x16, 0x3e, 9, 9, 10])].map(asked);
        for frame in [&own, &others, &last] {
            speaks.send(frame).unwrap();
        }
        for (host, nic) in guests {
            let mut came = Vec::new();
            while came.last() != Some(&last) {
                came.extend(Some(nic.wait()).filter(|frame| [&own, &others, &last].contains(&frame)));
            }
            assert_eq!(came.contains(&own), host.number == 3, "host {}", host.number);
            assert!(came.contains(&others));
        }
        // The port's own frames pass, and what is for it.
        assert!(first.reaches(second.addresses()[0]) && second.reaches(first.addresses()[0]));
    });
}
