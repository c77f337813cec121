//! What any plan of the entries of a VXLAN network does: it ends the need for plans, it can be taken back, it may run twice, and the order of
//! changes is nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nicd::kernel::Host;
use nicd::kernel::fake::Fake;
use nicd::model::Mac;
use nicd::model::names::{self, FIRST_INDEX, FIRST_TUNNEL_INDEX, SegmentKind};
use nicd::plan::{
    BridgeMade, Desired, DesiredBridge, DesiredOverlay, DesiredSegment, Entry, HostAddress, HostUse, Kind, Observed, Overlay,
    Plan, Reason, Remote, Step, Strange, Unwanted, plan,
};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use crate::scenario::{STORE, empty_context, network_id, observed, open, run};

const TUNNEL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn host(n: u8) -> IpAddr {
    [192, 0, 2, 10 + n].into()
}

fn mac(n: u8) -> Mac {
    Mac([0xfa, 0x16, 0x3e, 5, 5, n])
}

/// A change of what is on other hosts.
#[derive(Debug, Clone)]
enum Change {
    Peer(u8, bool),
    Lost(u8),
    Put(u8, u8, BTreeSet<u8>),
    Remove(u8),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        (0..4_u8, any::<bool>()).prop_map(|(host, there)| Change::Peer(host, there)),
        (0..4_u8).prop_map(Change::Lost),
        (0..5_u8, 0..4_u8, btree_set(0..6_u8, 0..3)).prop_map(|(mac, host, ips)| Change::Put(mac, host, ips)),
        (0..5_u8).prop_map(Change::Remove),
    ];
    vec(change, 0..12)
}

impl Change {
    /// Makes it; the entries that it is about.
    fn apply(&self, overlay: &mut Overlay) -> BTreeSet<Entry> {
        match self {
            Self::Peer(n, true) => overlay.put_peer(host(*n)),
            Self::Peer(n, false) => overlay.remove_peer(host(*n)),
            Self::Lost(n) => overlay.lose_peer(host(*n)),
            Self::Put(n, at, ips) => {
                let addresses = ips.iter().map(|ip| [10, 0, 0, *ip].into()).collect();
                overlay.put_remote(mac(*n), Remote { host: host(*at), addresses })
            }
            Self::Remove(n) => overlay.remove_remote(mac(*n)),
        }
    }
}

fn overlay(changes: &[Change]) -> Overlay {
    let mut overlay = Overlay::default();
    changes.iter().for_each(|change| drop(change.apply(&mut overlay)));
    overlay
}

/// What other programs put there.
fn strange() -> impl Strategy<Value = Entry> {
    prop_oneof![
        (0..5_u8).prop_map(|n| Entry::Strange(Strange::Tunnel {
            mac: mac(n),
            to: Some(host(0)),
            port: Some(1),
            vni: None,
            via: None
        })),
        (0..5_u8).prop_map(|n| Entry::Strange(Strange::Bridge { mac: mac(n), vlan: 0 })),
        (5..7_u8).prop_map(|n| Entry::Forward { mac: mac(n), to: host(1) }),
    ]
}

/// A host with the network's bridge and its VXLAN device, and the desired bridge.
fn network() -> (Fake, DesiredBridge) {
    let fake = Fake::new();
    fake.add_link("eth0", Kind::Other, 1500);
    fake.meddle("eth0", |link| link.hosts = vec![HostAddress { ip: TUNNEL, of: HostUse::Own }]);
    let network = network_id(true);
    let made = BridgeMade::ByAgent {
        index: FIRST_INDEX + 1,
        mac: Mac([0xfe, 0x62, 0, 0, 0, 1]),
        mtu: 1450,
        alias: names::bridge_tag(STORE, network),
        close: true,
    };
    let alias = names::segment_tag(SegmentKind::Vxlan, STORE, network);
    let segment = DesiredSegment::Vxlan { vni: 7, local: Some(TUNNEL), suppress: true, index: FIRST_TUNNEL_INDEX + 1, alias };
    let bridge = DesiredBridge { network, made, segment: Some(segment) };
    let want = Desired { bridges: vec![bridge.clone()], ..Desired::default() };
    run(&fake, plan(Reason::Restart, &want, &observed(&fake)).expect("a plan")).expect("no faults");
    let again = plan(Reason::Restart, &want, &observed(&fake)).expect("a plan");
    assert_eq!(again.steps, []);
    (fake, bridge)
}

/// What a look shows, with the entries.
fn looked(fake: &Fake) -> Observed {
    let mut have = observed(fake);
    open(fake).entries(network_id(true)).expect("an answer").into_iter().for_each(|seen| have.note_entries(seen));
    have
}

/// The plan that brings the entries to an overlay.
fn whole(fake: &Fake, overlay: &Overlay) -> Plan {
    let overlays = vec![DesiredOverlay { network: network_id(true), entries: overlay.entries(), unwanted: Unwanted::Others }];
    plan(Reason::Restart, &Desired { overlays, ..Desired::default() }, &looked(fake)).expect("a plan")
}

fn entries(fake: &Fake) -> BTreeSet<Entry> {
    fake.entries(network_id(true))
}

proptest! {
    #[test]
    fn a_comparison_of_all_ends_the_need_for_one(before in changes(), foreign in vec(strange(), 0..3), after in changes()) {
        let (fake, _) = network();
        let want = overlay(&after);
        run(&fake, whole(&fake, &overlay(&before))).expect("no faults");
        prop_assert_eq!(entries(&fake), overlay(&before).entries());
        fake.meddle_entries(network_id(true), &foreign, &[]);
        let planned = whole(&fake, &want);
        let mut host = open(&fake);
        for step in planned.steps.iter().chain(&planned.steps) {
            host.apply(&step.op, &mut empty_context()).expect("also twice");
        }
        prop_assert_eq!(entries(&fake), want.entries());
        prop_assert_eq!(whole(&fake, &want).steps, vec![]);
    }

    #[test]
    fn changes_one_by_one_lead_where_all_of_them_lead(changes in changes(), together in 1..4_usize) {
        let (fake, _) = network();
        let mut now = Overlay::default();
        let mut have = looked(&fake);
        let device = have.own_segment(SegmentKind::Vxlan, network_id(true)).expect("the device").index;
        for some in changes.chunks(together) {
            let about: BTreeSet<Entry> = some.iter().flat_map(|change| change.apply(&mut now)).collect();
            let (wanted, others) = about.into_iter().partition(|entry| now.wants(entry));
            let overlays = vec![DesiredOverlay { network: network_id(true), entries: wanted, unwanted: Unwanted::These(others) }];
            let planned = plan(Reason::Drift, &Desired { overlays, ..Desired::default() }, &have).expect("a plan");
            prop_assert!(planned.steps.len() <= 1, "{:?}", planned);
            for Step { op, .. } in &planned.steps {
                if let nicd::plan::Op::SetEntries { put, remove, .. } = op {
                    have.change_entries(device, put, remove);
                }
            }
            run(&fake, planned).expect("no faults");
            prop_assert_eq!(Some(&entries(&fake)), have.entries(network_id(true)).map(|seen| &seen.entries));
        }
        prop_assert_eq!(entries(&fake), overlay(&changes).entries());
    }

    #[test]
    fn what_was_set_in_part_is_set_wholly(before in changes(), after in changes(), share in 0..4_usize) {
        let (fake, _) = network();
        let want = overlay(&after);
        run(&fake, whole(&fake, &overlay(&before))).expect("no faults");
        for Step { op, .. } in whole(&fake, &want).steps {
            let nicd::plan::Op::SetEntries { network, put, remove } = op else { continue };
            let some = |entries: BTreeSet<Entry>| entries.into_iter().enumerate().filter(|(n, _)| n % 4 < share).map(|(_, one)| one).collect();
            let op = nicd::plan::Op::SetEntries { network, put: some(put), remove: some(remove) };
            open(&fake).apply(&op, &mut empty_context()).expect("no faults");
        }
        run(&fake, whole(&fake, &want)).expect("no faults");
        prop_assert_eq!(entries(&fake), want.entries());
        prop_assert_eq!(whole(&fake, &want).steps, vec![]);
    }
}
