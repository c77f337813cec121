//! DHCP for IPv4: the answer that is due to a message, read octet by octet, and what an answer has to be.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use nicd::lease::frame::{self, Checksum, Envelope};
use nicd::lease::{Answer, Given, Message, Told, answer};
use nicd::model::{ExtraOption, Mac};

use super::{VALUES, sum};
use crate::dice::Dice;

const MAC: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 1];
/// The port's addresses with their servers.
const OWN: [([u8; 4], [u8; 4]); 2] = [([192, 0, 2, 7], [192, 0, 2, 1]), ([198, 51, 100, 7], [169, 254, 169, 67])];
const NOWHERE: [u8; 4] = [0; 4];
const MTU: usize = 1400;
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const INFORM: u8 = 8;

type Options = BTreeMap<u8, Vec<u8>>;

fn told() -> Told {
    let given = |(address, server): ([u8; 4], [u8; 4])| Given {
        address: address.into(),
        prefix: 24,
        server: server.into(),
        router: (server[0] == 192).then_some(server.into()),
        routes: (0..30).map(|n| (format!("10.0.{n}.0/24").parse().unwrap(), Ipv4Addr::from(server))).collect(),
        resolvers: vec![[192, 0, 2, 53].into()],
    };
    let extra = [("bootfile-name", "pxelinux.0"), ("17", &"long ".repeat(60)), ("lease-time", "600")];
    Told {
        mac: Mac(MAC),
        addresses: OWN.map(given).into(),
        mtu: u32::try_from(MTU).unwrap(),
        hostname: Some("web-1".into()),
        domain: Some("cloud.example".into()),
        extra: extra.iter().map(|(name, value)| ExtraOption::read(name, value).unwrap()).collect(),
    }
}

fn at<const N: usize>(octets: &[u8], from: usize) -> Option<[u8; N]> {
    octets.get(from..from + N)?.try_into().ok()
}

fn number(octets: &[u8], from: usize) -> Option<usize> {
    at(octets, from).map(|two| usize::from(u16::from_be_bytes(two)))
}

/// An option, right or with another length.
pub fn option(dice: &mut Dice) -> Vec<u8> {
    let length = dice.below(40);
    let code = if dice.chance(50) { dice.of(&VALUES) } else { dice.bytes(1)[0] };
    let said = if dice.chance(80) { length } else { dice.below(256) };
    [vec![code, u8::try_from(said).unwrap()], dice.bytes(length)].concat()
}

/// UDP's datagram behind the header that its checksum is of too.
fn with_pseudo_header(packet: &[u8], datagram: &[u8]) -> Vec<u8> {
    let length = u32::try_from(datagram.len()).unwrap().to_be_bytes();
    [&packet[12..20], &[0, 17], &length[2..], datagram].concat()
}

pub fn mend(frame: &mut [u8]) {
    let Some(packet) = frame.get_mut(14..).filter(|packet| packet.len() >= 28) else { return };
    let header = usize::from(packet[0] & 15) * 4;
    if packet[0] >> 4 != 4 || header < 20 || packet.len() < header + 8 {
        return;
    }
    let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
    packet[2..4].copy_from_slice(&length);
    packet[10..12].fill(0);
    let checksum = !u16::try_from(sum(&packet[..header])).unwrap();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    let length = u16::try_from(packet.len() - header).unwrap().to_be_bytes();
    packet[header + 4..header + 6].copy_from_slice(&length);
    packet[header + 6..header + 8].fill(0);
    let checksum = !u16::try_from(sum(&with_pseudo_header(packet, &packet[header..]))).unwrap();
    packet[header + 6..header + 8].copy_from_slice(&if checksum == 0 { 0xffff } else { checksum }.to_be_bytes());
}

/// The message of a whole and right frame from the guest to a server; none where it is not that, or only perhaps.
fn message_of(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(14..)?;
    let header = usize::from(packet.first()? & 15) * 4;
    let datagram = packet.get(header..)?;
    let is_udp = at(frame, 6)? == MAC && at(frame, 12)? == [8, 0] && packet[0] >> 4 == 4 && header >= 20 && packet.get(9)? == &17;
    let is_whole =
        number(packet, 2)? == packet.len() && number(packet, 6)? & 0xbfff == 0 && number(datagram, 4)? == datagram.len();
    let is_right =
        sum(&packet[..header]) == 0xffff && (number(datagram, 6)? == 0 || sum(&with_pseudo_header(packet, datagram)) == 0xffff);
    (is_udp && is_whole && is_right && number(datagram, 2)? == 67).then(|| &datagram[8..])
}

/// Options up to their end; none where one is cut off. `ends` says that the end mark has to be there, and what follows it empty.
fn options(mut octets: &[u8], ends: bool, into: &mut Options) -> Option<()> {
    while let Some((code, rest)) = octets.split_first() {
        octets = match code {
            0 => rest,
            255 => return (!ends || rest.iter().all(|octet| *octet == 0)).then_some(()),
            code => {
                let (length, rest) = rest.split_first()?;
                into.entry(*code).or_default().extend(rest.get(..usize::from(*length))?);
                &rest[usize::from(*length)..]
            }
        };
    }
    (!ends).then_some(())
}

/// All options of a message with BOOTP's fields, as RFC 3396 puts them together.
fn all_options(message: &[u8], ends: bool) -> Option<Options> {
    let mut all = Options::new();
    if at(message, 236)? != [99, 130, 83, 99] {
        return None;
    }
    options(&message[240..], ends, &mut all)?;
    let overload = all.remove(&52).and_then(|value| value.first().copied()).unwrap_or_default();
    if overload & 1 != 0 {
        options(&message[108..236], ends, &mut all)?;
    }
    if overload & 2 != 0 {
        options(&message[44..108], ends, &mut all)?;
    }
    Some(all)
}

/// The kind of the answer that is due to a message, and its address; none where no answer is due.
fn due(message: &[u8]) -> Option<(u8, [u8; 4])> {
    let said = all_options(message, false)?;
    let four = |code: u8| said.get(&code).and_then(|value| <[u8; 4]>::try_from(value.as_slice()).ok());
    let is_own = |address: &[u8; 4]| OWN.iter().any(|(own, _)| own == address);
    let (ciaddr, giaddr): ([u8; 4], [u8; 4]) = (at(message, 12)?, at(message, 24)?);
    let first = if giaddr == NOWHERE { OWN[0].0 } else { giaddr };
    if message[..3] != [1, 1, 6] || !is_own(&first) || at(message, 28)? != MAC {
        return None;
    }
    match said.get(&53).map(Vec::as_slice)? {
        [DISCOVER] => Some((OFFER, four(50).filter(is_own).unwrap_or(first))),
        [REQUEST] if four(54).is_some_and(|server| OWN.iter().all(|(_, own)| *own != server)) => None,
        [REQUEST] => match four(50).or((ciaddr != NOWHERE).then_some(ciaddr))? {
            address if is_own(&address) => Some((ACK, address)),
            _ => Some((NAK, NOWHERE)),
        },
        [INFORM] => Some((ACK, NOWHERE)),
        _ => None,
    }
}

pub fn check(frame: &[u8]) -> bool {
    thread_local!(static TOLD: Told = told());
    let sure = message_of(frame);
    let request = match frame::read(frame, Checksum::Complete) {
        Ok(request) => request,
        Err(error) => {
            assert_eq!(sure, None, "{error:?}");
            // Where the checksum was left to the NIC the same is read without one.
            let _ = frame::read(frame, Checksum::Unfinished).map(|request| Message::read(request.message));
            return false;
        }
    };
    assert!(sure.is_none_or(|message| message == request.message));
    let said = Message::read(request.message).ok().map(|message| (TOLD.with(|told| answer(&message, told)), message));
    if request.from != Mac(MAC) {
        return false;
    }
    match (due(request.message), said) {
        (Some(due), Some((Ok(answer), message))) => {
            let (octets, _) = answer.reply.write();
            let Answer { source, target, to, port, .. } = answer;
            let envelope = Envelope { from: Mac(MAC).host_side(), to, source, target, port };
            let room = message.largest().min(MTU) - 28;
            is_right(request.message, due, room, &frame::write(envelope, &octets).unwrap());
            true
        }
        (None, None | Some((Err(_), _))) => false,
        (due, said) => panic!("{due:?} is due, and {said:?} was said"),
    }
}

/// An answer's frame is what is due to a request's message.
fn is_right(request: &[u8], (kind, address): (u8, [u8; 4]), room: usize, frame: &[u8]) {
    let (packet, datagram, message) = (&frame[14..], &frame[34..], &frame[42..]);
    let (ciaddr, giaddr): ([u8; 4], [u8; 4]) = (at(request, 12).unwrap(), at(request, 24).unwrap());
    let is_relayed = giaddr != NOWHERE;
    let (to, target): ([u8; 6], [u8; 4]) = (at(frame, 0).unwrap(), at(packet, 16).unwrap());
    // To the guest's MAC with an address that is its own or that it says it has, or to all; to a guest that relays for itself as a relay.
    match to {
        to if is_relayed => assert_eq!((to, target), (MAC, giaddr)),
        MAC => assert!(target == address && kind != NAK || target == ciaddr, "to {target:?}"),
        to => assert_eq!((to, target), ([0xff; 6], [0xff; 4])),
    }
    assert_eq!(at(frame, 6), Some([0xfe, 0x16, 0x3e, 0, 0, 1]));
    assert_eq!(packet[..2], [0x45, 0]);
    assert_eq!((number(packet, 2), number(datagram, 4)), (Some(packet.len()), Some(datagram.len())));
    assert_eq!((sum(&packet[..20]), sum(&with_pseudo_header(packet, datagram))), (0xffff, 0xffff));
    let port = if is_relayed { 67 } else { 68 };
    assert_eq!((number(datagram, 0), number(datagram, 2), packet[9]), (Some(67), Some(port), 17));
    assert!(number(datagram, 6) != Some(0), "a checksum");
    assert!((300..=room).contains(&message.len()), "{} octets of {room}", message.len());
    assert_eq!((&message[..4], &message[4..8]), (&[2, 1, 6, 0][..], &request[4..8]));
    assert_eq!(
        (at(message, 16), at(message, 24), &message[28..44]),
        (Some(address), Some(giaddr), &[&MAC[..], &[0; 10]].concat()[..])
    );
    assert!([NOWHERE, ciaddr].contains(&at(message, 12).unwrap()));
    let said = all_options(message, true).expect("whole options");
    assert_eq!(said[&53], [kind]);
    let server = OWN.iter().find(|(own, _)| *own == address).map(|(_, server)| server.to_vec());
    assert!(server.is_none_or(|server| said[&54] == server && packet[12..16] == server));
    assert_eq!(said.contains_key(&51), address != NOWHERE, "for how long");
    if address != NOWHERE {
        assert_eq!((&said[&1][..], &said[&51][..]), (&[255, 255, 255, 0][..], &600_u32.to_be_bytes()[..]));
    }
}
