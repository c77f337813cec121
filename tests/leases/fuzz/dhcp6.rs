//! IPv6: what a guest asks by DHCPv6 or a router solicitation, read octet by octet, and what an answer has to be.

use std::net::Ipv6Addr;

use nicd::lease::frame::Checksum;
use nicd::lease::frame6::{self, Asks, Envelope, Request};
use nicd::lease::v6::{Message, Told, answer};
use nicd::model::{ExtraOption, Mac};

use super::sum;
use crate::dice::Dice;

const MAC: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 1];
const HOST_SIDE: [u8; 6] = [0xfe, 0x16, 0x3e, 0, 0, 1];
const SERVERS: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2];
const OWN: [[u8; 16]; 2] =
    [[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5], [0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]];
const SERVER: [u8; 18] = [0, 4, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
const MTU: usize = 1400;
/// Ethernet's header and IPv6's.
const HEADERS: usize = 54;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const REPLY: u8 = 7;

fn told() -> Told {
    Told {
        server: uuid::Uuid::from_slice(&SERVER[2..]).unwrap(),
        addresses: OWN.map(Ipv6Addr::from).into(),
        links: ["fd00::/64", "fd01::/64"].map(|link| link.parse().unwrap()).into(),
        mtu: u32::try_from(MTU).unwrap(),
        resolvers: vec!["fd00::53".parse().unwrap()],
        hostname: Some("web-1".to_owned()),
        domain: Some("cloud.example".to_owned()),
        extra: vec![ExtraOption::read6("bootfile-url", &"http://b/".repeat(20)).unwrap()],
    }
}

/// An option, right or with another length, often one of those that are looked into.
pub fn option(dice: &mut Dice) -> Vec<u8> {
    const CODES: [u16; 10] = [1, 2, 3, 4, 5, 6, 9, 14, 25, 39];
    const LENGTHS: [u16; 8] = [0, 1, 2, 130, 131, 0x7fff, 0xfffc, 0xffff];
    let code = if dice.chance(85) { dice.of(&CODES) } else { dice.next().to_le_bytes()[0].into() };
    let length = dice.below(60);
    let value = match code {
        3 if dice.chance(60) => [vec![0; 12], vec![0, 5, 0, 24], dice.of(&OWN).to_vec(), vec![0; 8]].concat(),
        1 if dice.chance(30) => vec![7; usize::from(dice.of(&LENGTHS[..5]))],
        _ => dice.bytes(length),
    };
    let said = if dice.chance(80) { u16::try_from(value.len()).unwrap() } else { dice.of(&LENGTHS) };
    [&code.to_be_bytes()[..], &said.to_be_bytes(), &value].concat()
}

fn with_pseudo_header(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len() - HEADERS).unwrap().to_be_bytes();
    [&frame[22..HEADERS], &length, &[0, 0, 0, frame[20]], &frame[HEADERS..]].concat()
}

pub fn mend(frame: &mut [u8]) {
    if frame.len() < HEADERS + 8 || frame[14] >> 4 != 6 {
        return;
    }
    let length = u16::try_from(frame.len() - HEADERS).unwrap().to_be_bytes();
    frame[18..20].copy_from_slice(&length);
    let at = match frame[20] {
        17 => {
            frame[58..60].copy_from_slice(&length);
            60
        }
        58 => 56,
        _ => return,
    };
    frame[at..at + 2].fill(0);
    let checksum = !u16::try_from(sum(&with_pseudo_header(frame))).unwrap();
    frame[at..at + 2].copy_from_slice(&if checksum == 0 && at == 60 { 0xffff } else { checksum }.to_be_bytes());
}

/// What a whole and right frame of the guest's asks; none where it is not that, or only perhaps.
fn asked(frame: &[u8]) -> Option<Asks<'_>> {
    let carried = frame.get(HEADERS..).filter(|carried| carried.len() >= 8)?;
    let length = u16::try_from(carried.len()).ok()?.to_be_bytes();
    let is_whole = frame[6..12] == MAC && frame[12..14] == [0x86, 0xdd] && frame[14] >> 4 == 6 && frame[18..20] == length;
    if !is_whole || sum(&with_pseudo_header(frame)) != 0xffff {
        return None;
    }
    match frame[20] {
        17 if carried[2..6] == [&[2, 0x23][..], &length].concat() && carried[6..8] != [0, 0] => Some(Asks::Dhcp(&carried[8..])),
        58 if carried[..2] == [133, 0] && carried[2..4] != [0xff; 2] && frame[21] == 255 => {
            let mut options = &carried[8..];
            while let [kind, units, ..] = options {
                let is_its_mac = *kind == 1 && frame[22..38] == [0; 16];
                options = options.get(usize::from(*units) * 8..).filter(|_| *units > 0 && !is_its_mac)?;
            }
            options.is_empty().then_some(Asks::Router)
        }
        _ => None,
    }
}

type Options<'a> = Vec<(u16, &'a [u8])>;

/// Options to the end; none where one is cut off.
fn options(mut octets: &[u8]) -> Option<Options<'_>> {
    let mut all = Vec::new();
    while !octets.is_empty() {
        let length = usize::from(u16::from_be_bytes(octets.get(2..4)?.try_into().ok()?));
        all.push((u16::from_be_bytes([octets[0], octets[1]]), octets.get(4..4 + length)?));
        octets = &octets[4 + length..];
    }
    Some(all)
}

fn first<'a>(all: &Options<'a>, code: u16) -> Option<&'a [u8]> {
    all.iter().find(|(number, _)| *number == code).map(|(_, value)| *value)
}

/// An association: its option's number, its own, and its addresses with how long each holds.
type Association = (u16, [u8; 4], Vec<([u8; 16], u32)>);

/// The associations of a message; none where one is cut off.
fn associations(all: &Options<'_>) -> Option<Vec<Association>> {
    let of = all.iter().filter(|(code, _)| [3, 4, 25].contains(code));
    of.map(|(code, value)| {
        let named = options(value.get(if *code == 4 { 4 } else { 12 }..)?)?;
        let address = |value: &[u8]| Some((*value.first_chunk()?, u32::from_be_bytes(*value.get(20..)?.first_chunk()?)));
        let addresses = named.iter().filter(|(code, _)| *code == 5).map(|(_, value)| address(value));
        Some((*code, *value.first_chunk()?, addresses.collect::<Option<_>>()?))
    })
    .collect()
}

/// The answer that is due to a message.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    kind: u8,
    /// The status of the whole.
    status: Option<u8>,
    /// Whether the port's addresses are given.
    gives: bool,
}

fn due(message: &[u8], target: [u8; 16]) -> Option<Due> {
    let all = options(message.get(4..)?)?;
    let kind = message[0];
    let (client, server) = (first(&all, 1), first(&all, 2));
    let asked = associations(&all)?;
    let is_said = match kind {
        1 | 4 | 6 => client.is_some() && server.is_none(),
        3 | 5 | 8 | 9 => client.is_some() && server.is_some(),
        11 => true,
        _ => false,
    };
    let is_for_all = target == SERVERS;
    let named: Vec<[u8; 16]> = asked.iter().flat_map(|(_, _, named)| named.iter().map(|(address, _)| *address)).collect();
    let is_answered = match kind {
        4 => is_for_all && !named.is_empty(),
        11 => is_for_all && asked.is_empty(),
        1 | 6 => is_for_all,
        _ => true,
    };
    if !is_said
        || client.is_some_and(|client| !(3..=130).contains(&client.len()))
        || server.is_some_and(|server| server != SERVER)
        || !is_answered
    {
        return None;
    }
    let plain = |status| Some(Due { kind: REPLY, status: Some(status), gives: false });
    let for_addresses = asked.iter().find(|(code, ..)| *code == 3);
    let is_on_link = |address: &[u8; 16]| address[0] == 0xfd && address[1] < 2 && address[2..8] == [0; 6];
    match kind {
        _ if !is_for_all => plain(5),
        4 => plain(if named.iter().all(|address| OWN.contains(address)) { 0 } else { 4 }),
        8 | 9 => plain(0),
        _ => {
            let gives = for_addresses.is_some_and(|(_, _, named)| kind != REQUEST || named.iter().all(|one| is_on_link(&one.0)));
            let is_offer = kind == 1 && !(first(&all, 14).is_some() && gives);
            Some(Due { kind: if is_offer { ADVERTISE } else { REPLY }, status: None, gives })
        }
    }
}

pub fn check(frame: &[u8]) -> bool {
    thread_local!(static TOLD: Told = told());
    let sure = asked(frame);
    let request = match frame6::read(frame, Checksum::Complete) {
        Ok(request) => request,
        Err(error) => {
            assert_eq!(sure, None, "{error:?}");
            // Where the checksum was left to the NIC the same is read without one.
            if let Ok(Request { asks: Asks::Dhcp(message), .. }) = frame6::read(frame, Checksum::Unfinished) {
                let _ = Message::read(message);
            }
            return false;
        }
    };
    assert!(sure.is_none_or(|sure| sure == request.asks));
    let Asks::Dhcp(message) = request.asks else { return request.from == Mac(MAC) };
    let said = Message::read(message).ok().map(|read| TOLD.with(|told| answer(&read, request.target, told)));
    if request.from != Mac(MAC) {
        return false;
    }
    match (due(message, request.target.octets()), said) {
        (Some(due), Some(Ok(answer))) => {
            let (octets, left_out) = answer.reply.write();
            let from = Mac(MAC).host_side();
            let envelope = Envelope { from, to: Mac(MAC), source: from.link_local(), target: request.source };
            let frame = envelope.dhcp(&octets).unwrap();
            is_right(message, &due, left_out, &frame, request.source.octets());
            true
        }
        (None, None | Some(Err(_))) => false,
        (due, said) => panic!("{due:?} is due, and {said:?} was said"),
    }
}

/// An answer's frame is what is due to a request's message.
fn is_right(request: &[u8], due: &Due, left_out: usize, frame: &[u8], target: [u8; 16]) {
    assert_eq!((&frame[..6], &frame[6..12], &frame[12..14]), (&MAC[..], &HOST_SIDE[..], &[0x86, 0xdd][..]));
    let own = [&[0xfe, 0x80, 0, 0, 0, 0, 0, 0, HOST_SIDE[0] ^ 2, 0x16, 0x3e, 0xff, 0xfe][..], &HOST_SIDE[3..]].concat();
    assert_eq!((frame[20], frame[21], &frame[22..38], &frame[38..54]), (17, 255, &own[..], &target[..]));
    let length = u16::try_from(frame.len() - HEADERS).unwrap().to_be_bytes();
    assert_eq!((&frame[18..20], &frame[58..60], &frame[54..58]), (&length[..], &length[..], &[2, 0x23, 2, 0x22][..]));
    assert_eq!(sum(&with_pseudo_header(frame)), 0xffff);
    assert!(frame[60..62] != [0, 0], "a checksum");
    let message = &frame[62..];
    assert!(message.len() + 48 <= MTU, "{} octets", message.len());
    assert_eq!((message[0], &message[1..4]), (due.kind, &request[1..4]));
    let (asked, said) = (options(&request[4..]).unwrap(), options(&message[4..]).expect("whole options"));
    assert_eq!((first(&said, 2), first(&said, 1)), (Some(&SERVER[..]), first(&asked, 1)));
    assert_eq!(first(&said, 13), due.status.map(|status| vec![0, status]).as_deref());
    let (asked, said) = (associations(&asked).unwrap(), associations(&said).expect("whole associations"));
    let first_id = asked.iter().find(|(code, ..)| *code == 3).map(|(_, id, _)| *id);
    let mut gives = due.gives;
    for (code, id, told) in said {
        let alike: Vec<_> = asked.iter().filter(|(number, one, _)| (*number, *one) == (code, id)).collect();
        assert!(!alike.is_empty(), "an association that was not asked for");
        let (holds, ends): (Vec<_>, Vec<_>) = told.iter().partition(|(_, seconds)| *seconds > 0);
        let ends: Vec<[u8; 16]> = ends.into_iter().map(|(address, _)| address).collect();
        let is_named = |address: &[u8; 16]| alike.iter().any(|(_, _, named)| named.iter().any(|(one, _)| one == address));
        assert!(ends.iter().all(is_named) && (ends.is_empty() || [5, 6].contains(&request[0])), "{ends:?}");
        if !holds.is_empty() {
            assert_eq!((code, Some(id), gives, holds), (3, first_id, true, OWN.map(|address| (address, 86_400)).to_vec()));
            assert!(!ends.iter().any(|address| OWN.contains(address)));
            gives = false;
        }
    }
    assert!(!gives || left_out > 0, "no address was given");
}
