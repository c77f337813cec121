use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::plan::{Overlay, Remote};

const HOSTS: [&str; 4] = ["own", "a", "b", "c"];

fn network(n: u8) -> NetworkId {
    NetworkId(Uuid::from_u128(n.into()))
}

fn tunnel(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn mac(n: u32) -> Mac {
    let [_, a, b, c] = n.to_be_bytes();
    Mac([0xfa, 0x16, 0x3e, a, b, c])
}

fn told(host: &str, port: u32, of: u32, is_kept_down: bool, revision: i64) -> ToldPort {
    let addresses = Box::new([IpAddr::V4((0x0a00_0000 + of).into())]);
    let brief = Brief { mac: mac(of), addresses, is_kept_down };
    ToldPort { host: host.to_owned(), port: PortId(Uuid::from_u128(port.into())), brief, revision }
}

/// What etcd has, and what is heard of hosts.
#[derive(Debug, Clone, Default)]
struct Plain {
    ports: BTreeMap<(u8, usize, u32), ToldPort>,
    tunnels: BTreeMap<usize, u8>,
    lost: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum Step {
    Tunnel(usize, Option<u8>),
    Lost(usize, bool),
    Put(u8, usize, u32, u32, bool),
    Remove(u8, usize, u32),
    Leave(u8),
    Again,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let host = 0..HOSTS.len();
    let step = prop_oneof![
        1 => (host.clone(), proptest::option::of(1..3_u8)).prop_map(|(host, at)| Step::Tunnel(host, at.map(|at| 10 * at + u8::try_from(host).unwrap()))),
        1 => (host.clone(), any::<bool>()).prop_map(|(host, is_lost)| Step::Lost(host, is_lost)),
        6 => (0..2_u8, host.clone(), 0..4_u32, 0..3_u32, proptest::bool::weighted(0.2))
            .prop_map(|(network, host, port, mac, down)| Step::Put(network, host, port, mac, down)),
        4 => (0..2_u8, host, 0..4_u32).prop_map(|(network, host, port)| Step::Remove(network, host, port)),
        1 => (0..2_u8).prop_map(Step::Leave),
        1 => Just(Step::Again),
    ];
    vec(step, 0..40)
}

impl Plain {
    /// What tunnels are to be, looked for among all ports.
    fn overlay(&self, of: u8) -> Overlay {
        let others = || self.ports.iter().filter(|((network, host, _), _)| *network == of && *host != 0);
        let tunnel_of = |host: &usize| self.tunnels.get(host).map(|n| tunnel(*n));
        let peers = others().map(|((_, host, _), _)| host).filter(|host| !self.lost.contains(*host)).filter_map(tunnel_of);
        let mut ports: Vec<(i64, Mac, Remote)> = Vec::new();
        for ((_, host, _), told) in others().filter(|(_, told)| !told.brief.is_kept_down) {
            let Some(host) = tunnel_of(host) else { continue };
            ports.push((
                told.revision,
                told.brief.mac,
                Remote { host, addresses: told.brief.addresses.iter().copied().collect() },
            ));
        }
        ports.sort_by_key(|(revision, ..)| *revision);
        Overlay::new(peers.collect(), ports.into_iter().map(|(_, mac, remote)| (mac, remote)))
    }
}

fn remote(port: RemotePort) -> (Mac, Remote) {
    (port.mac, Remote { host: port.tunnel, addresses: port.addresses.into_iter().collect() })
}

/// What the rest of the daemon makes of the changes.
fn apply(overlays: &mut BTreeMap<NetworkId, Overlay>, changes: impl IntoIterator<Item = (NetworkId, RemoteChange)>) {
    for (network, change) in changes {
        let overlay = overlays.entry(network).or_default();
        match change {
            RemoteChange::All(peers, ports) => *overlay = Overlay::new(peers, ports.into_iter().map(remote)),
            RemoteChange::Peer(host) => _ = overlay.put_peer(host),
            RemoteChange::Lost(host) => _ = overlay.lose_peer(host),
            RemoteChange::NoPeer(host) => _ = overlay.remove_peer(host),
            RemoteChange::Port(port) => {
                let (mac, remote) = remote(port);
                overlay.put_remote(mac, remote);
            }
            RemoteChange::NoPort(mac) => _ = overlay.remove_remote(mac),
        }
    }
}

proptest! {
    #[test]
    fn changes_lead_where_a_look_at_all_ports_leads(steps in steps()) {
        let (mut plain, mut overlays) = (Plain::default(), BTreeMap::new());
        let mut remotes = Remotes::new("own".to_owned());
        for (revision, step) in (1..).zip(steps) {
            for n in 0..2 {
                if !remotes.networks().any(|one| one == network(n)) {
                    let all = plain.ports.iter().filter(|((of, ..), _)| *of == n).map(|(_, told)| told.clone());
                    let change = remotes.enter(network(n), all.collect::<Vec<_>>());
                    apply(&mut overlays, [(network(n), change)]);
                }
            }
            match step {
                Step::Tunnel(host, at) => {
                    match at {
                        Some(at) => _ = plain.tunnels.insert(host, at),
                        None => _ = plain.tunnels.remove(&host),
                    }
                    apply(&mut overlays, remotes.put_host(HOSTS[host], at.map(tunnel)));
                }
                Step::Lost(host, is_lost) => {
                    match is_lost {
                        true => _ = plain.lost.insert(host),
                        false => _ = plain.lost.remove(&host),
                    }
                    apply(&mut overlays, remotes.set_lost(HOSTS[host], is_lost));
                }
                Step::Put(n, host, port, of, is_kept_down) => {
                    let told = told(HOSTS[host], port, of, is_kept_down, revision);
                    plain.ports.insert((n, host, port), told.clone());
                    apply(&mut overlays, remotes.put(network(n), told).into_iter().map(|change| (network(n), change)));
                }
                Step::Remove(n, host, port) => {
                    plain.ports.remove(&(n, host, port));
                    let changes = remotes.remove(network(n), HOSTS[host], PortId(Uuid::from_u128(port.into())));
                    apply(&mut overlays, changes.into_iter().map(|change| (network(n), change)));
                }
                Step::Leave(n) => {
                    remotes.leave(network(n));
                    overlays.remove(&network(n));
                    continue;
                }
                Step::Again => {
                    remotes = remotes.again(false);
                    for (host, at) in &plain.tunnels {
                        remotes.put_host(HOSTS[*host], Some(tunnel(*at)));
                    }
                    plain.lost.iter().for_each(|host| _ = remotes.set_lost(HOSTS[*host], true));
                    overlays.clear();
                    continue;
                }
            }
            for n in 0..2 {
                prop_assert_eq!(&overlays[&network(n)], &plain.overlay(n));
            }
        }
    }
}

#[test]
fn what_was_known_stays_beside_what_is_told_of_another_etcd() {
    let mut remotes = Remotes::new("own".to_owned());
    remotes.put_host("a", Some(tunnel(1)));
    remotes.enter(network(1), [told("a", 1, 1, false, 50), told("a", 2, 2, false, 51)]);
    // A join that fails before the network is read forgets nothing.
    let mut remotes = remotes.again(true).again(true);
    remotes.put_host("b", Some(tunnel(2)));
    let RemoteChange::All(peers, ports) = remotes.enter(network(1), [told("b", 3, 1, false, 7)]) else { panic!("all of it") };
    assert_eq!(peers, [tunnel(1), tunnel(2)].into());
    let at: Vec<(Mac, IpAddr)> = ports.iter().map(|port| (port.mac, port.tunnel)).collect();
    assert_eq!(at, [(mac(1), tunnel(2)), (mac(2), tunnel(1))]);
}

#[test]
fn a_change_costs_the_same_among_a_hundred_thousand_ports() {
    const MANY: u32 = 100_000;
    let time = |many: u32| {
        let mut remotes = Remotes::new("own".to_owned());
        let names: Vec<String> = (0..1000).map(|n| format!("host-{n}")).collect();
        names.iter().for_each(|name| _ = remotes.put_host(name, Some(tunnel(1))));
        let host = |port: u32| &names[port as usize % names.len()];
        remotes.enter(network(1), (0..many).map(|n| told(host(n), n, n, false, 1)));
        let began = Instant::now();
        for (revision, n) in (2..).zip(many..many + 1000) {
            assert!(remotes.put(network(1), told(host(n), n, n, false, revision)).len() <= 2);
            assert!(remotes.remove(network(1), host(n), PortId(Uuid::from_u128(n.into()))).len() <= 2);
        }
        began.elapsed()
    };
    let (few, many) = (time(1000), time(MANY));
    assert!(many < few * 20, "1,000 changes take {many:?} among {MANY} ports, and {few:?} among 1,000");
}
