//! Frames that nobody thought of: those of the classes with octets changed, cut off, doubled and put together anew. What arrives
//! is judged once more, by a reading of its own.

use std::time::Instant;

use crate::bytes::{ARP, ICMP6, IGMP, IP4, IP6, RARP, UDP};
use crate::classes::{Ends, Host, classes};
use crate::dice::Dice;
use crate::netns::{in_netns, run};
use crate::scene::{BRIDGE, Scene};
use crate::traffic::Nic;

const PIM: u8 = 103;

fn at<const N: usize>(bytes: &[u8], from: usize) -> Option<[u8; N]> {
    bytes.get(from..from + N)?.try_into().ok()
}

/// Whether a host may send a frame; none where it is malformed.
fn may_send(frame: &[u8], own: Host) -> Option<bool> {
    if at(frame, 6)? != own.mac {
        return Some(false);
    }
    let packet = frame.get(14..)?;
    match u16::from_be_bytes(at(frame, 12)?) {
        IP4 => ip4(packet, own),
        ARP => {
            let request = match at(packet, 0)? {
                [0, 1, 8, 0, 6, 4, 0, operation] if [1, 2].contains(&operation) => operation == 1,
                _ => return Some(false),
            };
            let (sender, target) = (at(packet, 14)?, at(packet, 24)?);
            let probes = request && sender == [0; 4] && target == own.ip4.octets();
            Some(at(packet, 8)? == own.mac && (sender == own.ip4.octets() || probes))
        }
        RARP => {
            let own_macs = at(packet, 8)? == own.mac && at(packet, 18)? == own.mac;
            Some(own_macs && at(packet, 0)? == [0, 1, 8, 0, 6, 4, 0, 3] && at(packet, 14)? == [0; 4] && at(packet, 24)? == [0; 4])
        }
        IP6 => ip6(packet, own),
        _ => Some(false),
    }
}

fn ip4(packet: &[u8], own: Host) -> Option<bool> {
    let header = usize::from(packet.first()? & 15) * 4;
    let length = usize::from(u16::from_be_bytes(at(packet, 2)?));
    if packet[0] >> 4 != 4 || header < 20 || length < header || length > packet.len() {
        return None;
    }
    let (from, fragment) = (at(packet, 12)?, u16::from_be_bytes(at(packet, 6)?));
    let (is_own, is_nowhere) = (from == own.ip4.octets(), from == [0; 4]);
    let data = &packet[header..];
    Some(match packet[9] {
        UDP if fragment & 0x1fff == 0 => match (at(data, 0).map(u16::from_be_bytes), at(data, 2).map(u16::from_be_bytes)) {
            // A guest that relays for itself is heard by nicd.
            (Some(67), Some(67)) => at(data, 8) == Some([1]) && at(data, 32) == Some(own.ip4.octets()),
            (Some(67), _) | (_, Some(68)) => false,
            (from, Some(67)) => at(data, 36) == Some(own.mac) && (is_own || from == Some(68)),
            _ => is_own,
        },
        IGMP => fragment & 0x3fff == 0 && [0x12, 0x16, 0x17, 0x22].contains(data.first()?) && (is_own || is_nowhere),
        PIM => false,
        _ => is_own,
    })
}

/// Where IPv6's headers end: at a header that is not to be passed, or at the end of the packet; whether a fragment header is among
/// them, and its offset.
fn headers(packet: &[u8], passed: &[u8]) -> Option<(u8, usize, Option<u16>)> {
    let (mut next, mut header, mut fragment) = (*packet.get(6)?, 40, None);
    while passed.contains(&next) {
        let [then, units] = at(packet, header)?;
        let length = match next {
            44 => {
                fragment = Some(u16::from_be_bytes(at(packet, header + 2)?) & 0xfff8);
                8
            }
            51 => usize::from(units) * 4 + 8,
            _ => usize::from(units) * 8 + 8,
        };
        if fragment.is_some_and(|offset| offset != 0) {
            break;
        }
        (next, header) = (then, header + length);
    }
    Some((next, header, fragment))
}

fn ip6(packet: &[u8], own: Host) -> Option<bool> {
    let from: [u8; 16] = at(packet, 8)?;
    let addresses = [own.ip6, own.link_local()].map(|address| address.octets());
    let is_own = addresses.contains(&from);
    // The first fragment header says whether it is a later fragment, be it behind AH.
    if let Some((44, header, _)) = headers(packet, &[0, 43, 60, 51])
        && at(packet, header + 2).is_some_and(|offset| u16::from_be_bytes(offset) & 0xfff8 != 0)
    {
        return Some(is_own && packet[0] >> 4 == 6);
    }
    let (next, header, fragment) = headers(packet, &[0, 43, 44, 60])?;
    if fragment.is_some_and(|offset| offset != 0) {
        return Some(false);
    }
    let is_fragment = fragment.is_some();
    let data = packet.get(header..)?;
    let length = usize::from(u16::from_be_bytes(at(packet, 4)?));
    if packet[0] >> 4 != 6 || packet.len() < 40 + length || data.len() < 3 {
        return None;
    }
    let is_unspecified = from == [0; 16];
    let port = |from| at(data, from).map(u16::from_be_bytes);
    // Options: at most one, which is the own MAC.
    let says = |from: usize, kind: u8| {
        let option = [&[kind, 1][..], &own.mac].concat();
        data.len() <= from || data.len() <= from + 8 && data[from..].starts_with(&option)
    };
    Some(match (next, data[0]) {
        (ICMP6, 133..=137) if is_fragment => false,
        (ICMP6, 130 | 134 | 137 | 151) => false,
        // From any address: for nicd alone.
        (ICMP6, 133) => true,
        (ICMP6, 135) if is_unspecified => addresses.contains(&at(data, 8)?),
        (ICMP6, 135) => is_own && says(24, 1),
        (ICMP6, 136) => is_own && addresses.contains(&at(data, 8)?) && says(24, 2),
        (ICMP6, 131 | 132 | 143) => is_own || is_unspecified,
        (UDP, _) if (port(0), port(2)) == (Some(546), Some(547)) => true,
        (UDP, _) => is_own && port(0) != Some(547) && port(2) != Some(546),
        (PIM, _) => false,
        _ => is_own,
    })
}

/// A frame made of others.
fn mutated(dice: &mut Dice, frames: &[Vec<u8>], hosts: &[Host]) -> Vec<u8> {
    let pick = |dice: &mut Dice| frames[dice.below(frames.len())].clone();
    let mut frame = pick(dice);
    for _ in 0..=dice.below(4) {
        let from = dice.below(frame.len().min(110));
        match dice.below(8) {
            0 => frame.truncate(from.max(14)),
            1 => {
                // Its beginning with another's end.
                let other = pick(dice);
                let cut = [14, 34, 54, 62, from][dice.below(5)];
                frame = [frame.get(..cut).unwrap_or(&frame), other.get(cut..).unwrap_or_default()].concat();
            }
            2 => {
                // A header in front of what IPv6 carries.
                if frame.len() > 62 {
                    let header = [frame[20], 0, 0, [0, 1, 8, 9][dice.below(4)], 0, 0, 0, 0];
                    frame[20] = [0, 43, 44, 44, 51, 60][dice.below(6)];
                    frame.splice(54..54, header);
                    let length = u16::try_from(frame.len() - 54).unwrap();
                    frame[18..20].copy_from_slice(&length.to_be_bytes());
                }
            }
            3 => {
                let host = hosts[dice.below(hosts.len())];
                let what = [&host.mac[..], &host.ip4.octets(), &host.ip6.octets(), &[0; 16]][dice.below(4)].to_vec();
                let at = [from, 6, 22, 26, 28, 32, 38, 62, 80][dice.below(9)];
                if let Some(place) = frame.get_mut(at..at + what.len()) {
                    place.copy_from_slice(&what);
                }
            }
            4 => frame[from] ^= 1 << dice.below(8),
            _ => frame[from] = [0, 255, 67, 68, 2, 44, 58, 60, 133, 134, 135, 136, 137, 1, 8, 6, 0x86, 0xdd][dice.below(18)],
        }
        if frame.len() < 14 {
            frame.resize(14, 0);
        }
    }
    frame.truncate(1514);
    frame
}

#[test]
fn what_arrives_of_mutated_frames_is_what_their_sender_may_send() {
    in_netns(|| {
        let seed = std::env::var("NICD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
        let mut scene = Scene::start();
        // What nicd says of new ports has been said; it says nothing where VLANs are told apart.
        if std::env::var_os("NICD_VLAN").is_none() {
            scene.fixture.wait_announced(3);
        }
        // Neither the bridge nor the wire says anything of its own, and nothing is told in the name of the second guest, which may.
        run(&format!("sysctl -qw net.ipv6.conf.{BRIDGE}.disable_ipv6=1"));
        scene.wire.inside(|| std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1").unwrap());
        let [own, silent, vm, host, wire] = scene.parties()[..] else { panic!("{:?}", scene.parties()) };
        let hosts = [own, vm, host, wire].map(|party| party.host);
        let ends = Ends { id: 0, own: own.host, to: wire.host, victim: vm.host };
        let frames: Vec<Vec<u8>> = classes().iter().map(|class| class.frame(&ends)).collect();
        let nic = Nic::of_guest(&scene.guests[0].0);
        let listeners = scene.others();
        let mut dice = Dice::new(seed);
        let (start, mut arrived, mut buffer) = (Instant::now(), 0, [0; 4096]);
        let rounds = crate::frames() / 1000;
        for _ in 0..rounds {
            for _ in 0..300 {
                // Some are refused by the sender's own kernel.
                let _ = nic.send(&mutated(&mut dice, &frames, &hosts));
            }
            for (_, listener) in &listeners {
                while let Some(frame) = listener.next(&mut buffer) {
                    // The bridge joins the group of those that snoop.
                    let is_bridges = at(frame, 6) == Some(host.host.mac) && frame.ends_with(&[224, 0, 0, 106]);
                    // What nicd tells a guest comes from its device's other side.
                    let is_told = frame.get(6) == Some(&0xfe) && frame.get(7..12) == frame.get(1..6);
                    if at(frame, 6) != Some(silent.host.mac) && !is_bridges && !is_told {
                        arrived += 1;
                        assert_eq!(may_send(frame, own.host), Some(true), "NICD_SEED={seed}: {frame:02x?}");
                    }
                }
            }
        }
        eprintln!("NICD_SEED={seed}: {} frames, {arrived} arrived, in {:?}", rounds * 300, start.elapsed());
        assert!(arrived > rounds * 10, "few arrive: {arrived}");
    });
}
