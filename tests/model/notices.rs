//! Notices that are lost, come twice, late or in another order: what the reconciler shows in the end is what the host has.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nicd::events::EventKind;
use nicd::kernel::Notice;
use nicd::kernel::fake::Fake;
use nicd::model::{Mac, PortId};
use nicd::plan::BridgePort;
use proptest::prelude::*;

use crate::check::Reference;
use crate::scene::{AGENTS, NETNS, OPERATORS, Scene, VM, on};

/// How soon after the last change all is right.
const SOON: Duration = Duration::from_secs(2);

/// What somebody does to a device.
#[derive(Debug, Clone, Copy)]
enum Meddling {
    NoMaster,
    Down,
    Mtu,
    Mac,
    Learning,
    Unmarked,
    Untagged,
    Deleted,
    Opened,
    Closed,
}

/// What becomes of a notice.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Passes,
    Lost,
    Twice,
    /// It comes behind the next ones.
    Late,
    /// It comes, and an older one once more behind it.
    WithAnOldOne,
}

fn meddling() -> impl Strategy<Value = (Meddling, usize)> {
    let what = prop_oneof![
        Just(Meddling::NoMaster),
        Just(Meddling::Down),
        Just(Meddling::Mtu),
        Just(Meddling::Mac),
        Just(Meddling::Learning),
        Just(Meddling::Unmarked),
        Just(Meddling::Untagged),
        Just(Meddling::Deleted),
        Just(Meddling::Opened),
        Just(Meddling::Closed),
    ];
    (what, 0..3usize)
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![Just(Fate::Passes), Just(Fate::Lost), Just(Fate::Twice), Just(Fate::Late), Just(Fate::WithAnOldOne)];
    proptest::collection::vec(fate, 1..12)
}

/// Lets notices meet these fates, over and over.
fn spoil(fake: &Fake, fates: Vec<Fate>) {
    let (mut late, mut old, mut n) = (VecDeque::new(), VecDeque::new(), 0);
    fake.set_wire(move |notice: Notice| {
        n += 1;
        old.push_back(notice.clone());
        if old.len() > 8 {
            old.pop_front();
        }
        let mut come = match fates[n % fates.len()] {
            Fate::Passes => vec![notice],
            Fate::Lost => vec![],
            Fate::Twice => vec![notice.clone(), notice],
            Fate::Late => {
                late.push_back(notice);
                return vec![];
            }
            Fate::WithAnOldOne => vec![notice, old[0].clone()],
        };
        come.extend(late.drain(..));
        come
    });
}

fn meddle(fake: &Fake, reference: &mut Reference, (what, which): (Meddling, usize), ports: &[PortId]) {
    let port = ports[which];
    let Some(device) = fake.device(port) else { return };
    let change = |change: fn(&mut nicd::plan::LinkState)| fake.meddle(&device.name, change);
    let mut held = |open| _ = reference.ports.get_mut(&port).map(|port| port.open = open);
    match what {
        Meddling::NoMaster => change(|link| link.master = None),
        Meddling::Down => change(|link| link.up = false),
        Meddling::Mtu => change(|link| link.mtu = 1300),
        Meddling::Mac => change(|link| link.mac = Some(Mac([2, 0, 0, 0, 0, 9]))),
        Meddling::Learning => change(|link| {
            link.bridge_port = link.bridge_port.map(|seen| BridgePort { learning: true, altered: true, held: true, ..seen });
        }),
        // Without its alias as well, nobody could tell whose it is.
        Meddling::Unmarked if device.alias.is_none() => {}
        Meddling::Unmarked => change(|link| link.altnames.clear()),
        Meddling::Untagged => change(|link| link.alias = None),
        Meddling::Deleted => {
            fake.delete_link(&device.name);
            held(false);
        }
        Meddling::Opened | Meddling::Closed if which == 2 => {}
        Meddling::Opened => {
            fake.set_carrier(port, true);
            held(true);
        }
        Meddling::Closed => {
            fake.set_carrier(port, false);
            held(false);
        }
    }
}

/// Two taps and a veth.
fn three() -> (Scene, Reference, Vec<PortId>) {
    let scene = Scene::with_networks();
    let mut reference = Reference::of(&scene);
    reference.networks = [Some([true, false]), Some([true, true])];
    let attach =
        [(VM, AGENTS), (1, AGENTS), (NETNS, OPERATORS)].map(|(server, network)| scene.attach(server, on(network)).unwrap());
    attach.iter().for_each(|port| reference.adopt(port));
    let ports = attach.iter().map(|port| port.port.id).collect();
    (scene, reference, ports)
}

fn right(scene: &mut Scene, reference: &Reference) {
    let (service, fake, dir) = (scene.service(), scene.fake.clone(), scene.dir.path().to_owned());
    let reference = reference.clone();
    scene.daemon().settle(|| reference.check(&service, &fake, &dir));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn whatever_was_lost_a_dump_makes_it_right(meddlings in proptest::collection::vec(meddling(), 1..5), fates in fates()) {
        let (mut scene, mut reference, ports) = three();
        spoil(&scene.fake, fates);
        for one in meddlings {
            meddle(&scene.fake, &mut reference, one, &ports);
        }
        scene.fake.resync();
        let start = Instant::now();
        right(&mut scene, &reference);
        prop_assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        scene.stop();
    }
}

#[test]
fn a_sweep_finds_what_nobody_told_of() {
    let (mut scene, mut reference, ports) = three();
    scene.stop();
    scene.sweep = Duration::from_millis(100);
    scene.open();
    spoil(&scene.fake, vec![Fate::Lost]);
    for (which, what) in [Meddling::Deleted, Meddling::Opened, Meddling::NoMaster].into_iter().enumerate() {
        meddle(&scene.fake, &mut reference, (what, which), &ports);
    }
    right(&mut scene, &reference);
    // And it writes nothing where all is right.
    let ops = scene.fake.log().len();
    let until = Instant::now() + Duration::from_millis(350);
    while Instant::now() < until {
        scene.daemon().drain();
    }
    assert_eq!(scene.fake.log()[ops..], []);
    scene.stop();
}

#[test]
fn a_trouble_that_flaps_is_told_at_once_then_a_few_times_a_second_and_its_last_state_always() {
    let mut scene = Scene::with_networks();
    let service = scene.service();
    let mut reader = service.events().read_after(None);
    let before = service.events().newest();
    let begin = Instant::now();
    for flap in 0..=500 {
        service.reconciler().note_config((flap % 2 == 0).then(|| "it is not right".to_owned()));
    }
    assert!(service.events().newest() > before, "at once");
    scene.daemon().go_on(|| begin.elapsed() > SOON);
    let count = service.events().newest() - before;
    assert!((2..=4 * (begin.elapsed().as_secs() + 1)).contains(&count), "{count} events");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut kinds = (0..count).map(|_| runtime.block_on(reader.next()).kind).collect::<Vec<_>>();
    assert_eq!((kinds[0], kinds.pop()), (EventKind::AgentDegraded, Some(EventKind::AgentDegraded)));
    scene.stop();
}
