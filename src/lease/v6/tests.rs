use proptest::prelude::*;

use super::*;
use crate::model::ExtraOption;

const DUID: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn told() -> Told {
    Told {
        server: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        addresses: vec![ip("fd00::5"), ip("fd01::5")],
        links: ["fd00::/64", "fd01::/64", "fd0e::/64"].map(|link| link.parse().unwrap()).into(),
        mtu: 1500,
        resolvers: vec![ip("fd00::53")],
        hostname: Some("web-1".to_owned()),
        domain: Some("x.example".to_owned()),
        extra: vec![ExtraOption::read6("bootfile-url", "http://b/").unwrap()],
    }
}

fn option(number: u16, value: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

/// An association with these addresses.
fn ia(number: u16, addresses: &[&str]) -> Vec<u8> {
    let fixed = [&[0, 0, 0, 7][..], if number == code::IA_TA { &[] } else { &[0; 8] }].concat();
    let named = addresses.iter().map(|one| option(code::ADDRESS, &[&ip(one).octets()[..], &[0; 8]].concat()));
    option(number, &[fixed, named.collect::<Vec<_>>().concat()].concat())
}

fn message(kind: u8, options: &[Vec<u8>]) -> Vec<u8> {
    [&[kind, 1, 2, 3][..], &options.concat()].concat()
}

fn client() -> Vec<u8> {
    option(code::CLIENT, &DUID)
}

fn server() -> Vec<u8> {
    option(code::SERVER, &duid(told().server))
}

fn said(octets: &[u8]) -> Result<Answer, Silence> {
    answer(&Message::read(octets).unwrap(), ALL_SERVERS, &told())
}

fn answered(octets: &[u8]) -> Answer {
    match said(octets) {
        Ok(answer) => answer,
        Err(why) => panic!("{why:?}"),
    }
}

fn options(answer: &Answer) -> Vec<u16> {
    answer.reply.options.iter().map(|(number, _)| *number).collect()
}

fn value(answer: &Answer, number: u16) -> Vec<u8> {
    answer.reply.options.iter().find(|(one, _)| *one == number).unwrap().1.clone()
}

/// An association as it is to be answered: addresses with their lifetimes.
fn given(addresses: &[(&str, u32)]) -> Vec<u8> {
    let times = [43_200_u32.to_be_bytes(), 75_600_u32.to_be_bytes()].concat();
    let each = addresses.iter().map(|(one, seconds)| {
        option(code::ADDRESS, &[&ip(one).octets()[..], &seconds.to_be_bytes(), &seconds.to_be_bytes()].concat())
    });
    [&[0, 0, 0, 7][..], &times, &each.collect::<Vec<_>>().concat()].concat()
}

const OWN: [(&str, u32); 2] = [("fd00::5", 86_400), ("fd01::5", 86_400)];

#[test]
fn an_offer_octet_by_octet() {
    let wishes = option(code::WISHES, &[0, 23, 0, 24, 0, 39, 0, 99]);
    let answer = answered(&message(1, &[client(), wishes, ia(code::IA_NA, &[])]));
    assert_eq!(answer.event, Some(Event::Offered(ip("fd00::5"))));
    let expected = [
        client(),
        option(
            code::SERVER,
            &[0, 4, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff],
        ),
        option(code::PREFERENCE, &[255]),
        option(code::IA_NA, &given(&OWN)),
        option(59, b"http://b/"),
        option(code::RESOLVERS, &ip("fd00::53").octets()),
        option(code::SEARCH, b"\x01x\x07example\x00"),
        option(code::NAME, b"\x04\x05web-1\x01x\x07example\x00"),
    ];
    assert_eq!(answer.reply.write(), (message(2, &expected), 0));
}

#[test]
fn each_kind_is_answered_as_the_rfc_says() {
    let na = || ia(code::IA_NA, &["fd00::5"]);
    let rapid = answered(&message(1, &[client(), option(code::RAPID, &[]), ia(code::IA_NA, &[])]));
    assert_eq!((rapid.reply.kind, rapid.event), (Kind::Reply, Some(Event::Bound(ip("fd00::5")))));
    assert_eq!(options(&rapid)[..4], [code::CLIENT, code::SERVER, code::RAPID, code::IA_NA]);
    for (kind, from) in [(3, Some(server())), (5, Some(server())), (6, None)] {
        let asked: Vec<_> = [client()].into_iter().chain(from).chain([ia(code::IA_NA, &["fd00::5", "fd00::9"])]).collect();
        let answer = answered(&message(kind, &asked));
        assert_eq!((answer.reply.kind, answer.event), (Kind::Reply, Some(Event::Bound(ip("fd00::5")))), "{kind}");
        // A guest that renews an address that it lost is told that the address is no longer valid.
        let expected = if kind == 3 { OWN.to_vec() } else { [&OWN[..], &[("fd00::9", 0)]].concat() };
        assert_eq!(value(&answer, code::IA_NA), given(&expected), "{kind}");
    }
    let confirm = |address: &str| answered(&message(4, &[client(), ia(code::IA_NA, &[address])]));
    assert_eq!(value(&confirm("fd00::5"), code::STATUS), [0, 0]);
    assert_eq!(value(&confirm("fd00::6"), code::STATUS), [0, 4]);
    assert_eq!(confirm("fd00::6").event, Some(Event::Refused(ip("fd00::6"))));
    for (kind, event) in [(8, Event::Released(ip("fd00::5"))), (9, Event::Declined(ip("fd00::5")))] {
        let answer = answered(&message(kind, &[client(), server(), na()]));
        assert_eq!((answer.event, options(&answer)), (Some(event), vec![code::CLIENT, code::SERVER, code::STATUS]));
        let other = answered(&message(kind, &[client(), server(), ia(code::IA_NA, &["fd00::6"])]));
        assert_eq!((other.event, &value(&other, code::IA_NA)[12..]), (None, &option(code::STATUS, &[0, 3])[..]));
    }
    let information = answered(&message(11, &[option(code::WISHES, &[0, 32, 0, 23])]));
    assert_eq!((information.event, options(&information)), (Some(Event::Informed), vec![code::SERVER, 59, 32, 23]));
    // Nothing but addresses is given, and those once.
    let others = answered(&message(1, &[client(), ia(code::IA_TA, &[]), ia(code::IA_PD, &[]), na(), na()]));
    let statuses: Vec<Vec<u8>> =
        others.reply.options.iter().filter(|(number, _)| matches!(number, 3 | 4 | 25)).map(|(_, value)| value.clone()).collect();
    assert_eq!(statuses[0][4..], option(code::STATUS, &[0, 2]));
    assert_eq!(statuses[1][12..], option(code::STATUS, &[0, 6]));
    assert_eq!(statuses[2], given(&OWN));
    assert_eq!(statuses[3][12..], option(code::STATUS, &[0, 2]));
}

#[test]
fn an_address_of_another_link_is_refused_to_who_begins() {
    let asked = |kind| answered(&message(kind, &[client(), server(), ia(3, &["fd00::5", "fd77::5"])]));
    let status = value(&asked(3), 3)[12..].to_vec();
    assert_eq!(status, [0, 13, 0, 2, 0, 4]);
    assert_eq!(asked(3).event, Some(Event::Refused(ip("fd00::5"))));
    // Who has it already is told that it holds no longer.
    assert_eq!(asked(5).event, Some(Event::Bound(ip("fd00::5"))));
}

#[test]
fn without_addresses_the_rest_is_told() {
    let told = Told { addresses: Vec::new(), ..told() };
    let octets = message(1, &[client(), option(code::RAPID, &[]), ia(code::IA_NA, &[])]);
    let Ok(answer) = answer(&Message::read(&octets).unwrap(), ALL_SERVERS, &told) else { panic!("silence") };
    assert_eq!((answer.reply.kind, answer.event), (Kind::Advertise, None));
    assert_eq!(value(&answer, code::IA_NA)[12..], option(code::STATUS, &[0, 2]));
    assert!(options(&answer).contains(&code::RESOLVERS));
}

#[test]
fn what_the_rfc_has_dropped_is_dropped() {
    use Silence::{Incomplete, Malformed, NoRequest, OtherServer};
    let (na, other) = (|| ia(code::IA_NA, &["fd00::5"]), || option(code::SERVER, &[0, 4, 1]));
    let no_duid = |length: usize| option(code::CLIENT, &vec![7; length]);
    let cases = [
        (message(1, &[na()]), Incomplete),
        (message(1, &[client(), server(), na()]), Incomplete),
        (message(1, &[no_duid(0), na()]), Incomplete),
        (message(1, &[no_duid(2), na()]), Incomplete),
        (message(1, &[no_duid(131), na()]), Incomplete),
        (message(11, &[no_duid(131)]), Incomplete),
        (message(3, &[client(), na()]), Incomplete),
        (message(3, &[client(), other(), na()]), OtherServer),
        (message(4, &[client(), ia(code::IA_NA, &[])]), Incomplete),
        (message(4, &[client(), server(), na()]), Incomplete),
        (message(6, &[client(), server(), na()]), Incomplete),
        (message(8, &[client(), other(), na()]), OtherServer),
        (message(11, &[other()]), OtherServer),
        (message(11, &[client(), na()]), Incomplete),
        (message(2, &[client(), server(), na()]), NoRequest),
        (message(7, &[client(), server(), na()]), NoRequest),
        (message(10, &[client(), server()]), NoRequest),
        (message(200, &[client()]), NoRequest),
        (message(1, &[client(), option(code::IA_NA, &[0; 11])]), Malformed),
        (message(1, &[client(), option(code::IA_NA, &[&[0; 12][..], &[0, 5, 255, 255]].concat())]), Malformed),
        (message(1, &[client(), option(code::IA_NA, &[&[0; 12][..], &option(code::ADDRESS, &[0; 23])].concat())]), Malformed),
    ];
    for (octets, why) in cases {
        assert_eq!(said(&octets), Err(why), "{octets:?}");
    }
    assert!(said(&message(1, &[no_duid(130), na()])).is_ok());
    for kind in [12, 13] {
        assert_eq!(Message::read(&message(kind, &[option(9, &message(12, &[]))])), Err(Unreadable::Relayed));
    }
    for octets in [&[][..], &[1, 2, 3], &[1, 2, 3, 4, 0, 1, 0], &[1, 2, 3, 4, 0, 1, 255, 255]] {
        assert_eq!(Message::read(octets), Err(Unreadable::Malformed), "{octets:?}");
    }
    // To one host.
    let to_one = |octets: &[u8]| answer(&Message::read(octets).unwrap(), ip("fe80::1"), &told());
    for kind in [3, 5, 8, 9] {
        let Ok(answer) = to_one(&message(kind, &[client(), server(), na()])) else { panic!("{kind}") };
        assert_eq!((answer.event, value(&answer, code::STATUS)), (None, vec![0, 5]));
        assert_eq!(options(&answer), [code::CLIENT, code::SERVER, code::STATUS]);
    }
    for octets in [message(1, &[client(), na()]), message(4, &[client(), na()]), message(6, &[client(), na()]), message(11, &[])]
    {
        assert_eq!(to_one(&octets), Err(Incomplete), "{octets:?}");
    }
}

proptest! {
    /// Whatever comes, no other addresses than the port's are told as valid, and nothing is larger than the link's packets.
    #[test]
    fn any_octets_are_answered_rightly_or_not_at_all(
        kind in 0..14_u8,
        named in prop::collection::vec((0..60_u16, prop::collection::vec(any::<u8>(), 0..80)), 0..40),
        tail in prop::collection::vec(any::<u8>(), 0..2000),
        to_all in any::<bool>(),
    ) {
        let honest = [client(), if kind % 2 == 0 { server() } else { Vec::new() }];
        let options: Vec<Vec<u8>> = honest.into_iter().chain(named.iter().map(|(number, value)| option(*number, value))).collect();
        for octets in [message(kind, &options), [message(kind, &options), tail.clone()].concat(), tail] {
            let Ok(read) = Message::read(&octets) else { continue };
            let target = if to_all { ALL_SERVERS } else { ip("fe80::1") };
            if let Ok(answer) = answer(&read, target, &told()) {
                let (octets, _) = answer.reply.write();
                prop_assert!(octets.len() <= 1452);
                let back = Message::read(&octets).unwrap();
                for one in back.associations().unwrap() {
                    let own = told().addresses;
                    prop_assert!(one.addresses.iter().all(|address| own.contains(address)) || matches!(kind, 5 | 6));
                }
            }
        }
    }
}
