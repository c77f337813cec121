//! What a guest's frames may be: every class of frame from a guest to another, to the host and to the wire, at every moment of
//! a port's life. No forged frame arrives, and every honest one does.
//!
//! `NICD_FRAMES=10000000` sends so many instead of a million. `NICD_VLAN=100` has the bridge filter VLANs, with all of its ports in
//! this one.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

mod bytes;
mod classes;
#[path = "../common/daemon.rs"]
mod daemon;
#[allow(dead_code)]
#[path = "../hostile/dice.rs"]
mod dice;
#[path = "../common/fixture.rs"]
mod fixture;
mod isolation;
mod mutations;
#[path = "../common/netns.rs"]
mod netns;
mod open;
mod pairs;
mod scene;
mod storm;
mod stp;
mod traffic;
#[path = "../common/wire.rs"]
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use classes::{Verdict, classes};
use daemon::PATIENCE;
use netns::{in_netns, run, try_run};
use scene::{BRIDGE, Scene, host_of};
use serde_json::json;
use traffic::{Flood, Traffic};

/// What the table of `docs/filters.md` says of a class.
fn said_of(verdict: Verdict) -> String {
    match verdict {
        Verdict::Allowed => "allowed".to_owned(),
        Verdict::Dropped(reason) => format!("dropped: `{reason}`"),
        Verdict::Ended => "ended by the kernel".to_owned(),
        Verdict::Answered | Verdict::AnsweredOr(_) => "for nicd alone".to_owned(),
    }
}

#[test]
fn the_page_has_every_class_with_what_becomes_of_it_and_why() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/filters.md")).unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| frame |")).skip(2).take_while(|line| line.starts_with('|'));
    let listed: BTreeMap<&str, &str> = rows
        .map(|row| match row.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>()[..] {
            [frame, verdict, why] if !why.is_empty() => (frame, verdict),
            _ => panic!("not a frame, what becomes of it, and why: {row}"),
        })
        .collect();
    let tested: Vec<(&str, String)> = classes().iter().map(|class| (class.name, said_of(class.verdict))).collect();
    let tested: BTreeMap<&str, &str> = tested.iter().map(|(name, said)| (*name, &said[..])).collect();
    assert_eq!(listed, tested);
    assert_eq!(tested.len(), classes().len(), "two classes have one name");
}

#[test]
fn what_other_programs_let_through_is_among_the_classes() {
    let known: BTreeSet<&str> = classes().iter().map(|class| class.known_as).filter(|known| !known.is_empty()).collect();
    let published = [
        "CVE-2015-8914",
        "CVE-2016-5362",
        "CVE-2016-5363",
        "CVE-2020-13401",
        "CVE-2021-20267",
        "CVE-2021-38598",
        "CVE-2025-52890",
        "VU#855201",
    ];
    assert_eq!(known, BTreeSet::from(published));
}

#[test]
fn every_class_is_dropped_for_its_reason_and_counted() {
    in_netns(|| {
        let scene = Scene::start();
        let mut traffic = scene.traffic();
        let (mut before, mut wrong) = (scene.dropped(), Vec::new());
        for class in classes() {
            let sent = traffic.only(class.name);
            let after = scene.dropped();
            let grown = after.iter().map(|(reason, packets)| (reason.clone(), packets - before.get(reason).unwrap_or(&0)));
            let grown: BTreeMap<String, u64> = grown.filter(|(_, packets)| *packets > 0).collect();
            let expected = match class.verdict {
                Verdict::Dropped(reason) => BTreeMap::from([(reason.to_owned(), sent)]),
                Verdict::Allowed | Verdict::Ended | Verdict::Answered | Verdict::AnsweredOr(_) => BTreeMap::new(),
            };
            if grown != expected {
                wrong.push(format!("{}: counted {grown:?}, not {expected:?}", class.name));
            }
            before = after;
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        traffic.is_right();
    });
}

#[test]
fn what_has_no_room_to_be_counted_is_dropped_all_the_same() {
    in_netns(|| {
        let mut scene = Scene::start();
        scene.fixture.daemon.kill();
        scene.fill_counters();
        let mut traffic = scene.traffic();
        (0..3).for_each(|_| traffic.round());
        traffic.is_right();
        assert!(scene.dropped().is_empty(), "there was room");
        scene.fixture.launch();
        let vm = scene.vm.id.clone();
        scene.fixture.wait_status(&vm, "ACTIVE");
    });
}

/// How many frames are sent while nothing changes.
fn frames() -> u64 {
    std::env::var("NICD_FRAMES").ok().and_then(|number| number.parse().ok()).unwrap_or(1_000_000)
}

#[test]
fn no_forged_frame_arrives_and_every_honest_one_does() {
    in_netns(|| {
        let scene = Scene::start();
        let mut traffic = scene.traffic();
        let start = Instant::now();
        while traffic.total < frames() {
            traffic.round();
        }
        traffic.is_right();
        eprintln!("{} frames of {} classes in {:?}", traffic.total, classes().len(), start.elapsed());
    });
}

#[test]
fn nothing_forged_leaves_a_guest_while_it_is_plugged_or_unplugged() {
    in_netns(|| {
        let mut scene = Scene::start();
        for _ in 0..10 {
            let (guest, server) = scene.fixture.guest("late");
            let port = scene.fixture.create_port(json!({"network_id": scene.network}));
            let mut parties = scene.parties();
            parties[0].host = host_of(&scene.fixture.port(&port));
            let flood = Flood::as_soon_as_plugged(Traffic::new(&parties, vec![(0, None)], scene.others()), &guest);
            scene.fixture.attach(&server, json!({ "port_id": port }));
            scene.fixture.wait_status(&port, "ACTIVE");
            flood.goes_on(3);
            let mut traffic = flood.end();
            traffic.is_closed();
            // From ACTIVE on nothing honest is lost.
            traffic.forget();
            traffic.round();
            traffic.is_right();
            let flood = Flood::start(traffic);
            flood.goes_on(3);
            scene.fixture.detach(&server, &port);
            flood.goes_on(3);
            flood.end().is_closed();
            guest.end();
        }
    });
}

#[test]
fn a_change_of_addresses_on_a_live_port_opens_nothing_and_loses_nothing() {
    in_netns(|| {
        let mut scene = Scene::start();
        let id = scene.guests[0].1.id.clone();
        for round in 0..10_u8 {
            let (before, mut parties) = (scene.guests[0].1.host, scene.parties());
            let mut after = before;
            (after.ip4, after.ip6) = ([192, 0, 2, 100 + round].into(), format!("2001:db8::aa:{round}").parse().unwrap());
            let mut traffic = scene.traffic();
            traffic.changes(0, after);
            let flood = Flood::start(traffic);
            flood.goes_on(3);
            let ips = json!([{"ip_address": after.ip4.to_string()}, {"ip_address": after.ip6.to_string()}]);
            scene.fixture.api.put(&format!("/v2.0/ports/{id}"), &json!({"port": {"fixed_ips": ips}})).expect(200);
            flood.goes_on(3);
            flood.end().is_right();
            // As soon as it is answered the old addresses are anybody's.
            scene.guests[0].1.host = after;
            parties[0].host = after;
            (parties[1].host.ip4, parties[1].host.ip6) = (before.ip4, before.ip6);
            let mut traffic = scene.traffic_of(&parties);
            traffic.round();
            traffic.is_right();
        }
    });
}

#[test]
fn a_restart_of_nicd_opens_nothing_and_loses_nothing() {
    in_netns(|| {
        let mut scene = Scene::start();
        let flood = Flood::start(scene.traffic());
        for round in 0..6 {
            flood.goes_on(3);
            match round % 2 {
                0 => scene.fixture.daemon.term(),
                _ => scene.fixture.daemon.kill(),
            }
            flood.goes_on(3);
            scene.fixture.launch();
        }
        flood.goes_on(3);
        flood.end().is_right();
    });
}

#[test]
fn a_flushed_ruleset_is_restored_and_nothing_honest_is_lost() {
    in_netns(|| {
        let scene = Scene::start();
        // A guest's query that passes meanwhile makes a bridge that snoops keep reports from other guests for minutes.
        run(&format!("ip link set {BRIDGE} type bridge mcast_snooping 0"));
        for _ in 0..5 {
            let whole = scene.elements();
            let flood = Flood::start(scene.traffic());
            flood.goes_on(3);
            run("nft flush ruleset");
            let start = Instant::now();
            while try_run("nft list set bridge nicd guarded").is_err() || scene.elements() != whole {
                assert!(start.elapsed() < PATIENCE, "not restored");
            }
            eprintln!("restored, as nft sees it, after {:?}", start.elapsed());
            let mut traffic = flood.end();
            // Without a table the bridge's locked port still lets nothing pass from another MAC.
            let by_the_bridge = |wrong: &String| [":", "mac:", "from an invented MAC"].iter().any(|kind| wrong.starts_with(kind));
            assert_eq!(traffic.wrong(true).into_iter().find(by_the_bridge), None, "lost, or came from another MAC");
            traffic.forget();
            (0..3).for_each(|_| traffic.round());
            traffic.is_right();
        }
    });
}
