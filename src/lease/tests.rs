//! The room as a whole: what comes in is octets, what goes out is octets.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::frame::{BadFrame, Checksum, Envelope};
use super::message::FIXED_LENGTH;
use super::*;

const MAC: Mac = Mac([0xfa, 0x16, 0x3e, 0, 0, 1]);
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn given(address: Ipv4Addr, server: Ipv4Addr) -> Given {
    Given { address, prefix: 24, server, router: Some(server), routes: Vec::new(), resolvers: Vec::new() }
}

fn told() -> Told {
    let addresses = vec![given(OWN, SERVER), given(SECOND, Ipv4Addr::new(198, 51, 100, 1))];
    Told { mac: MAC, addresses, mtu: 1500, hostname: None, domain: None, extra: Vec::new() }
}

/// A client's message with these options.
fn octets(options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut octets = vec![0; FIXED_LENGTH];
    octets[..3].copy_from_slice(&[1, 1, 6]);
    octets[28..34].copy_from_slice(&MAC.0);
    octets[236..].copy_from_slice(&[99, 130, 83, 99]);
    for (code, value) in options {
        octets.extend([*code, u8::try_from(value.len()).unwrap()]);
        octets.extend(*value);
    }
    octets.push(code::END);
    octets
}

fn message(kind: u8, options: &[(u8, &[u8])]) -> Message {
    let all: Vec<(u8, &[u8])> = [(53, std::slice::from_ref(&kind))].into_iter().chain(options.iter().copied()).collect();
    Message::read(&octets(&all)).unwrap()
}

fn answered(outcome: Result<Answer, Silence>) -> Answer {
    match outcome {
        Ok(answer) => answer,
        Err(why) => panic!("{why:?}"),
    }
}

/// The options of an answer as a client puts them together, with those in BOOTP's fields.
fn said(reply: &Reply) -> BTreeMapOfOptions {
    let (octets, _) = reply.write();
    let mut as_request = octets.clone();
    as_request[0] = 1;
    Message::read(&as_request).unwrap().options
}

type BTreeMapOfOptions = std::collections::BTreeMap<u8, Vec<u8>>;

#[test]
fn a_guest_with_two_addresses_gets_the_one_that_it_asks_for() {
    let ask = |options: &[(u8, &[u8])]| answered(answer(&message(1, options), &told()));
    let first = ask(&[]);
    assert_eq!((first.reply.yiaddr, first.source, first.target, first.to), (OWN, SERVER, OWN, MAC));
    let second = ask(&[(50, &SECOND.octets())]);
    assert_eq!((second.reply.yiaddr, second.source), (SECOND, Ipv4Addr::new(198, 51, 100, 1)));
    assert_eq!(ask(&[(50, &[10, 0, 0, 1])]).reply.yiaddr, OWN);
}

#[test]
fn the_client_identifier_decides_nothing_and_comes_back() {
    for id in [&b""[..], b"\x01\xfa\x16\x3e\x00\x00\x01", b"\xff someone else's", &[0; 255]] {
        let offer = answered(answer(&message(1, &[(61, id)]), &told()));
        assert_eq!((offer.reply.yiaddr, said(&offer.reply).get(&61).map(Vec::as_slice)), (OWN, Some(id)));
    }
}

#[test]
fn another_clients_mac_is_not_answered() {
    let mut of_other = message(1, &[]);
    of_other.chaddr = Mac([2, 0, 0, 0, 0, 9]);
    assert_eq!(answer(&of_other, &told()), Err(Silence::OtherClient));
}

#[test]
fn a_guest_that_relays_for_itself_is_answered_as_a_relay_and_no_other_is() {
    let relayed = |kind, options: &[(u8, &[u8])], giaddr| Message { giaddr, ..message(kind, options) };
    let offer = answered(answer(&relayed(1, &[], SECOND), &told()));
    // Its address says which subnet is asked.
    assert_eq!((offer.reply.yiaddr, offer.reply.giaddr, offer.source), (SECOND, SECOND, Ipv4Addr::new(198, 51, 100, 1)));
    assert_eq!((offer.target, offer.to, offer.port), (SECOND, MAC, 67));
    let nak = answered(answer(&relayed(3, &[(50, &[10, 0, 0, 1])], OWN), &told()));
    assert_eq!((nak.reply.kind, nak.reply.flags, nak.target, nak.to, nak.port), (Kind::Nak, 0x8000, OWN, MAC, 67));
    let informed = answered(answer(&Message { ciaddr: SECOND, ..relayed(8, &[], OWN) }, &told()));
    assert_eq!((informed.target, informed.port, informed.source), (OWN, 67, Ipv4Addr::new(198, 51, 100, 1)));
    assert_eq!(answer(&relayed(1, &[], SERVER), &told()), Err(Silence::Relayed));
    let of_other = Message { chaddr: Mac([2, 0, 0, 0, 0, 9]), ..relayed(1, &[], OWN) };
    assert_eq!(answer(&of_other, &told()), Err(Silence::OtherClient));
}

#[test]
fn releases_and_declines_are_noted_when_they_are_for_this_server() {
    let silence = |kind, options: &[(u8, &[u8])], ciaddr| {
        let said = Message { ciaddr, ..message(kind, options) };
        match answer(&said, &told()) {
            Err(why) => why,
            Ok(answer) => panic!("{answer:?}"),
        }
    };
    let none = Ipv4Addr::UNSPECIFIED;
    assert_eq!(silence(7, &[(54, &SERVER.octets())], OWN), Silence::Released(OWN));
    assert_eq!(silence(7, &[(54, &[10, 0, 0, 1])], OWN), Silence::OtherServer);
    assert_eq!(silence(7, &[], none), Silence::Incomplete);
    assert_eq!(silence(4, &[(54, &SERVER.octets()), (50, &OWN.octets())], none), Silence::Declined(OWN));
    assert_eq!(silence(4, &[(54, &SERVER.octets())], none), Silence::Incomplete);
    assert_eq!(silence(4, &[(50, &[10, 0, 0, 9])], none), Silence::Incomplete);
    for kind in [2, 5, 6, 9, 13, 255] {
        assert_eq!(silence(kind, &[], none), Silence::NoRequest);
    }
}

#[test]
fn routes_have_the_default_among_them_and_hops_beyond_the_subnet_are_on_the_link() {
    let mut told = told();
    told.addresses[0].routes = vec![("203.0.113.0/24".parse().unwrap(), Ipv4Addr::new(192, 0, 2, 9))];
    let routes = |told: &Told| said(&answered(answer(&message(1, &[]), told)).reply)[&121].clone();
    assert_eq!(routes(&told), [24, 203, 0, 113, 192, 0, 2, 9, 0, 192, 0, 2, 1]);
    told.addresses[0].router = Some(Ipv4Addr::new(10, 0, 0, 1));
    told.addresses[0].routes.clear();
    assert_eq!(routes(&told), [32, 10, 0, 0, 1, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    // A router that was set for the port is the default's next hop.
    told.extra = vec![ExtraOption::read("router", "192.0.2.66").unwrap()];
    assert_eq!(routes(&told), [0, 192, 0, 2, 66]);
    told.extra = vec![ExtraOption::read("121", "0.0.0.0/0,192.0.2.67").unwrap()];
    assert_eq!(routes(&told), [0, 192, 0, 2, 67]);
    // An empty one is not said, and an empty router is no default route.
    let options = |told: &Told| said(&answered(answer(&message(1, &[]), told)).reply);
    told.extra = vec![ExtraOption::read("121", "").unwrap()];
    told.addresses[0].router = Some(SERVER);
    let without_routes = options(&told);
    assert_eq!((without_routes.get(&121), without_routes.get(&3)), (None, Some(&SERVER.octets().to_vec())));
    told.extra = vec![ExtraOption::read("router", "").unwrap()];
    let without_router = options(&told);
    assert_eq!((without_router.get(&121), without_router.get(&3)), (None, None));
}

#[test]
fn times_are_half_and_seven_eighths_unless_they_were_set() {
    let times = |extra: &[(&str, &str)]| {
        let extra = extra.iter().map(|(name, value)| ExtraOption::read(name, value).unwrap()).collect();
        let told = Told { extra, ..told() };
        let options = said(&answered(answer(&message(1, &[]), &told)).reply);
        [51, 58, 59].map(|code| u32::from_be_bytes(options[&code][..].try_into().unwrap()))
    };
    assert_eq!(times(&[]), [86_400, 43_200, 75_600]);
    assert_eq!(times(&[("lease-time", "600")]), [600, 300, 525]);
    assert_eq!(times(&[("lease-time", "0")]), [10, 5, 9]);
    assert_eq!(times(&[("T1", "100"), ("T2", "50")]), [86_400, 100, 100]);
    assert_eq!(times(&[("T1", "0"), ("T2", "0")]), [86_400, 43_200, 75_600]);
    let endless = Told { extra: vec![ExtraOption::read("lease-time", "infinite").unwrap()], ..told() };
    let options = said(&answered(answer(&message(1, &[]), &endless)).reply);
    assert_eq!((&options[&51][..], options.get(&58), options.get(&59)), (&[255; 4][..], None, None));
}

#[test]
fn long_options_are_split_and_what_does_not_fit_goes_into_unused_fields() {
    let long = "x".repeat(600);
    let told = Told { mtu: 9000, extra: vec![ExtraOption::read("17", &long).unwrap()], ..told() };
    let roomy = message(1, &[(57, &9000_u16.to_be_bytes())]);
    let offer = answered(answer(&roomy, &told));
    let (octets, left_out) = offer.reply.write();
    assert_eq!(left_out, Vec::<u8>::new());
    let parts = octets.windows(2).filter(|two| two[0] == 17 && [255, 90].contains(&two[1])).count();
    assert_eq!(parts, 3, "255, 255 and 90 octets");
    assert_eq!(said(&offer.reply)[&17], long.as_bytes());
    // A client that takes 576 octets.
    let extra = [("17", "a".repeat(230)), ("18", "b".repeat(100)), ("40", "c".repeat(50)), ("64", "d".repeat(100))];
    let extra = extra.iter().map(|(name, value)| ExtraOption::read(name, value).unwrap()).collect();
    let told = Told { extra, ..told };
    let offer = answered(answer(&message(1, &[]), &told));
    let (octets, left_out) = offer.reply.write();
    assert!(octets.len() <= 548, "{}", octets.len());
    let options = said(&offer.reply);
    assert_eq!((options[&17].len(), options[&18].len(), options[&40].len(), left_out), (230, 100, 50, vec![64]));
    assert!(!options.contains_key(&64));
    assert_eq!(&options[&53], &[2]);
}

/// A subnet with many routes, and a client that takes no more than it must.
#[test]
fn an_option_that_no_place_has_room_for_is_spread_over_them() {
    let mut told = told();
    let route = |n| (Ipv4Network::new(Ipv4Addr::new(10, 0, n, 0), 24).unwrap(), Ipv4Addr::new(192, 0, 2, 9));
    told.addresses[0].routes = (0..40).map(route).collect();
    let whole = [crate::model::dhcp::classless(&told.addresses[0].routes), vec![0, 192, 0, 2, 1]].concat();
    let asked = message(1, &[(55, &[121, 3, 6])]);
    let offer = answered(answer(&asked, &told));
    let (octets, left_out) = offer.reply.write();
    assert!(octets.len() <= 548 && left_out.is_empty(), "{} {left_out:?}", octets.len());
    assert_eq!(said(&offer.reply)[&121], whole);
    told.addresses[0].routes = (0..80).map(route).collect();
    let offer = answered(answer(&asked, &told));
    assert_eq!(offer.reply.write().1, [121]);
    assert_eq!(said(&offer.reply)[&3], SERVER.octets());
    for length in 0..900 {
        let reply = Reply { options: vec![(43, vec![7; length])], ..offer.reply.clone() };
        let (octets, left_out) = reply.write();
        assert!(octets.len() <= 548);
        let as_request = [&[1][..], &octets[1..240], &[53, 1, 1], &octets[240..]].concat();
        let read = Message::read(&as_request).unwrap();
        assert_eq!(
            (read.options.get(&43).map_or(0, Vec::len), left_out.is_empty()),
            (if left_out.is_empty() { length } else { 0 }, length <= 486),
            "{length}"
        );
    }
}

#[test]
fn a_long_boot_file_is_in_the_option_alone() {
    let name = "x".repeat(128);
    let extra = vec![ExtraOption::read("bootfile-name", &name).unwrap()];
    let offer = answered(answer(&message(1, &[]), &Told { extra, ..told() }));
    assert_eq!(offer.reply.write().0[108..236], [0; 128]);
    assert_eq!(said(&offer.reply)[&67], name.as_bytes());
}

#[test]
fn a_boot_file_is_in_the_field_and_in_the_option() {
    let extra = [("bootfile-name", "pxelinux.0"), ("tftp-server", "boot"), ("server-ip-address", "192.0.2.9")];
    let extra = extra.map(|(name, value)| ExtraOption::read(name, value).unwrap()).into();
    let offer = answered(answer(&message(1, &[]), &Told { extra, ..told() }));
    let (octets, _) = offer.reply.write();
    assert_eq!(octets[20..24], [192, 0, 2, 9]);
    assert_eq!(octets[108..119], *b"pxelinux.0\0");
    let options = said(&offer.reply);
    assert_eq!((&options[&67][..], &options[&66][..]), (&b"pxelinux.0"[..], &b"boot"[..]));
}

#[test]
fn a_clients_wishes_come_in_their_order_and_no_others() {
    let told = Told { hostname: Some("web".into()), domain: Some("cloud.example".into()), ..told() };
    let offer = answered(answer(&message(1, &[(55, &[15, 12, 1, 3, 99])]), &told));
    let codes: Vec<u8> = offer.reply.options.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [53, 54, 51, 58, 59, 1, 121, 3, 15, 12]);
    let all = said(&answered(answer(&message(1, &[]), &told)).reply);
    assert_eq!(all[&119], b"\x05cloud\x07example\x00");
    assert_eq!(all[&26], [5, 220]);
}

#[test]
fn options_in_several_parts_and_places_are_put_together() {
    let mut octets = octets(&[(53, &[1]), (52, &[3]), (12, b"one "), (61, b"id"), (12, b"two ")]);
    octets[108..116].copy_from_slice(b"\x0c\x05file \xff");
    octets[44..51].copy_from_slice(b"\x0c\x05sname");
    let read = Message::read(&octets).unwrap();
    assert_eq!(read.options[&12], b"one two file sname");
}

#[test]
fn what_is_no_clients_message_is_not_read() {
    let whole = octets(&[(53, &[1])]);
    assert!(Message::read(&whole).is_ok());
    for length in 0..whole.len() - 1 {
        assert_eq!(Message::read(&whole[..length]), Err(Unreadable::Malformed), "{length}");
    }
    let changed = |at: usize, to: u8| {
        let mut octets = whole.clone();
        octets[at] = to;
        Message::read(&octets)
    };
    assert_eq!(changed(0, 2), Err(Unreadable::NotRequest));
    assert_eq!(changed(1, 6), Err(Unreadable::Hardware));
    assert_eq!(changed(2, 255), Err(Unreadable::Hardware), "longer than there is room for");
    assert_eq!(changed(236, 0), Err(Unreadable::Malformed));
    assert_eq!(changed(241, 2), Err(Unreadable::Malformed), "a type of two octets");
    // BOOTP has no types.
    assert_eq!(Message::read(&octets(&[])), Err(Unreadable::Malformed));
}

#[test]
fn a_frame_comes_back_as_it_was_put_together() {
    let envelope = Envelope { from: MAC, to: Mac([0xff; 6]), source: SERVER, target: Ipv4Addr::BROADCAST, port: frame::CLIENT };
    let mut frame = frame::write(envelope, b"a message").unwrap();
    assert_eq!(frame::read(&frame, Checksum::Complete), Err(BadFrame::Malformed), "it is for a client");
    // The ports change places, which no checksum minds.
    frame[34..38].copy_from_slice(&[0, 68, 0, 67]);
    let request = frame::read(&frame, Checksum::Complete).unwrap();
    assert_eq!((request.from, request.source, request.message), (MAC, SERVER, &b"a message"[..]));
    frame[50] ^= 1;
    assert_eq!(frame::read(&frame, Checksum::Complete), Err(BadFrame::Checksum));
    assert!(frame::read(&frame, Checksum::Unfinished).is_ok());
    assert!(frame::write(envelope, &vec![0; 65_528]).is_none());
}

proptest! {
    /// Whatever comes, nothing panics; what is answered has the client's number and MAC, and one of the port's addresses or none.
    #[test]
    fn any_message_is_answered_rightly_or_not_at_all(
        head in proptest::collection::vec(any::<u8>(), 0..FIXED_LENGTH),
        options in proptest::collection::vec(any::<u8>(), 0..8778),
        sane in any::<bool>(),
        kind in 0_u8..12,
    ) {
        let mut octets = head;
        octets.resize(FIXED_LENGTH, 0);
        if sane {
            octets[..3].copy_from_slice(&[1, 1, 6]);
            octets[24..28].fill(0);
            octets[28..34].copy_from_slice(&MAC.0);
            octets[236..].copy_from_slice(&[99, 130, 83, 99]);
            octets.extend([53, 1, kind]);
        }
        octets.extend(options);
        if let Ok(message) = Message::read(&octets)
            && let Ok(answer) = answer(&message, &told())
        {
            prop_assert!(sane);
            let (written, _) = answer.reply.write();
            prop_assert!(written.len() <= 1472);
            prop_assert_eq!(&written[4..8], &octets[4..8]);
            prop_assert_eq!(&written[28..34], &MAC.0[..]);
            prop_assert!([Ipv4Addr::UNSPECIFIED, OWN, SECOND].contains(&answer.reply.yiaddr));
            let Answer { source, target, to, port, .. } = answer;
            let envelope = Envelope { from: MAC, to, source, target, port };
            prop_assert!(frame::write(envelope, &written).is_some());
        }
    }

    #[test]
    fn no_frame_panics(mut frame in proptest::collection::vec(any::<u8>(), 0..9019), sane in any::<bool>(), done in any::<bool>()) {
        if sane && frame.len() > 42 {
            frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
            frame[20..22].fill(0);
            frame[23] = 17;
            frame[36..38].copy_from_slice(&[0, 67]);
        }
        let checksum = if done { Checksum::Complete } else { Checksum::Unfinished };
        if let Ok(request) = frame::read(&frame, checksum) {
            let _ = Message::read(request.message);
        }
    }
}
