//! What other hosts have of the networks that this one has ports on, as values: each change of it leads to what is to be done about a
//! network's tunnels.
//!
//! Of a port only what tunnels need is kept ([`Brief`]); what is shown of it is read from etcd when it is asked for. A change costs the same
//! however many ports a network has: a host's ports and a MAC's are found by an index.
//!
//! Of several ports with one MAC, as while one moves, the one counts that was told of last.
//!
//! While etcd may lack what it had, as after a backup was put back, what was known before stays beside what is read.
//!
//! A host that is lost gets no copies of what is for all any more. What is for its ports alone is sent there all the same: it may be cut off
//! from etcd and not from other hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use uuid::Uuid;

use super::published::Brief;
use crate::model::{Mac, NetworkId, PortId};

/// A port on another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemotePort {
    /// Its MAC.
    pub mac: Mac,
    /// The tunnel address of its host.
    pub tunnel: IpAddr,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// What has changed of a network on other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteChange {
    /// All of it: the hosts that get copies of what is for all, and the ports.
    All(BTreeSet<IpAddr>, Vec<RemotePort>),
    /// A host has its first port, or is not lost any more.
    Peer(IpAddr),
    /// A host with ports is lost: it gets no copies of what is for all.
    Lost(IpAddr),
    /// A host has no port any more.
    NoPeer(IpAddr),
    /// A port is new, or another than before.
    Port(RemotePort),
    /// No port has this MAC any more.
    NoPort(Mac),
}

#[derive(Debug, Default)]
struct Host {
    tunnel: Option<IpAddr>,
    is_lost: bool,
}

/// A host, by the order in which it was first heard of.
type HostNumber = u32;

/// The hosts that are known.
#[derive(Debug, Default)]
struct Hosts {
    numbers: BTreeMap<String, HostNumber>,
    hosts: Vec<Host>,
}

impl Hosts {
    fn number(&mut self, name: &str) -> HostNumber {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        // More hosts than that have no room in etcd.
        let number = HostNumber::try_from(self.hosts.len()).unwrap_or(HostNumber::MAX);
        self.hosts.push(Host::default());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    fn get(&self, number: HostNumber) -> Option<&Host> {
        self.hosts.get(usize::try_from(number).ok()?)
    }

    fn get_mut(&mut self, number: HostNumber) -> Option<&mut Host> {
        self.hosts.get_mut(usize::try_from(number).ok()?)
    }

    fn tunnel(&self, number: HostNumber) -> Option<IpAddr> {
        self.get(number)?.tunnel
    }

    /// Where copies for a host go; nowhere if it is lost.
    fn peer(&self, number: HostNumber) -> Option<IpAddr> {
        self.get(number).filter(|host| !host.is_lost)?.tunnel
    }
}

/// The ports of a network on other hosts.
#[derive(Debug, Default)]
struct Ports {
    /// Each with the revision of etcd's data at which it was told of.
    ports: BTreeMap<(HostNumber, PortId), (Brief, i64)>,
    /// Those that have a MAC, in the order in which they were told of; not those that are kept down.
    macs: BTreeSet<(Mac, i64, HostNumber, PortId)>,
}

const LOWEST: PortId = PortId(Uuid::nil());
const HIGHEST: PortId = PortId(Uuid::max());

impl Ports {
    /// Whether a host has any.
    fn has(&self, host: HostNumber) -> bool {
        self.ports.range((host, LOWEST)..=(host, HIGHEST)).next().is_some()
    }

    /// The hosts that have some.
    fn hosts(&self) -> impl Iterator<Item = HostNumber> + '_ {
        let next = |after: Option<HostNumber>| match after {
            None => self.ports.keys().next().map(|(host, _)| *host),
            Some(host) => self.ports.range((host.checked_add(1)?, LOWEST)..).next().map(|((host, _), _)| *host),
        };
        std::iter::successors(next(None), move |host| next(Some(*host)))
    }

    /// Puts a port in the place of what was known of it. Answers with that one's MAC.
    fn put(&mut self, (host, port): (HostNumber, PortId), brief: Brief, revision: i64) -> Option<Mac> {
        let before = self.remove((host, port));
        if !brief.is_kept_down {
            self.macs.insert((brief.mac, revision, host, port));
        }
        self.ports.insert((host, port), (brief, revision));
        before
    }

    /// Forgets a port, and answers with its MAC.
    fn remove(&mut self, at: (HostNumber, PortId)) -> Option<Mac> {
        let (brief, revision) = self.ports.remove(&at)?;
        self.macs.remove(&(brief.mac, revision, at.0, at.1));
        Some(brief.mac)
    }

    /// The port that has a MAC, if one has.
    fn with(&self, mac: Mac, hosts: &Hosts) -> Option<RemotePort> {
        let with = self.macs.range((mac, i64::MIN, 0, LOWEST)..=(mac, i64::MAX, HostNumber::MAX, HIGHEST));
        with.rev().find_map(|(_, _, host, port)| {
            let (brief, _) = self.ports.get(&(*host, *port))?;
            Some(RemotePort { mac, tunnel: hosts.tunnel(*host)?, addresses: brief.addresses.to_vec() })
        })
    }

    /// What is to be done about a MAC.
    fn change(&self, mac: Mac, hosts: &Hosts) -> RemoteChange {
        self.with(mac, hosts).map_or(RemoteChange::NoPort(mac), RemoteChange::Port)
    }

    fn all(&self, hosts: &Hosts) -> RemoteChange {
        let peers = self.hosts().filter_map(|host| hosts.peer(host)).collect();
        let first = self.macs.first().map(|(mac, ..)| *mac);
        let after = |mac: &Mac| {
            self.macs.range((*mac, i64::MAX, HostNumber::MAX, HIGHEST)..).map(|(next, ..)| *next).find(|next| next != mac)
        };
        let macs = std::iter::successors(first, after);
        RemoteChange::All(peers, macs.filter_map(|mac| self.with(mac, hosts)).collect())
    }
}

/// A port as its host tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldPort {
    /// The host.
    pub host: String,
    /// Its id.
    pub port: PortId,
    /// What is told.
    pub brief: Brief,
    /// The revision of etcd's data at which it was told of.
    pub revision: i64,
}

/// What other hosts have.
#[derive(Debug)]
pub struct Remotes {
    /// This host's name.
    own: String,
    hosts: Hosts,
    networks: BTreeMap<NetworkId, Ports>,
    /// What was known of networks that are not read anew yet.
    before: BTreeMap<NetworkId, Ports>,
}

impl Remotes {
    /// Nothing known, but the name of this host.
    pub fn new(own: String) -> Self {
        Self { own, hosts: Hosts::default(), networks: BTreeMap::new(), before: BTreeMap::new() }
    }

    /// The networks that are followed.
    pub fn networks(&self) -> impl Iterator<Item = NetworkId> + '_ {
        self.networks.keys().copied()
    }

    /// Takes in a host's tunnel address; none where it has none, or is gone.
    pub fn put_host(&mut self, host: &str, tunnel: Option<IpAddr>) -> Vec<(NetworkId, RemoteChange)> {
        let number = self.hosts.number(host);
        let Some(entry) = self.hosts.get_mut(number) else { return Vec::new() };
        if std::mem::replace(&mut entry.tunnel, tunnel) == tunnel {
            return Vec::new();
        }
        self.with_ports_of(number).map(|(network, ports)| (network, ports.all(&self.hosts))).collect()
    }

    /// Takes in whether a host is lost.
    pub fn set_lost(&mut self, host: &str, is_lost: bool) -> Vec<(NetworkId, RemoteChange)> {
        let number = self.hosts.number(host);
        let Some(entry) = self.hosts.get_mut(number) else { return Vec::new() };
        let was_lost = std::mem::replace(&mut entry.is_lost, is_lost);
        let Some(tunnel) = entry.tunnel.filter(|_| was_lost != is_lost) else { return Vec::new() };
        let change = if is_lost { RemoteChange::Lost(tunnel) } else { RemoteChange::Peer(tunnel) };
        self.with_ports_of(number).map(|(network, _)| (network, change.clone())).collect()
    }

    /// The networks that a host has ports of.
    fn with_ports_of(&self, host: HostNumber) -> impl Iterator<Item = (NetworkId, &Ports)> {
        self.networks.iter().filter(move |(_, ports)| ports.has(host)).map(|(network, ports)| (*network, ports))
    }

    /// Follows a network from now on, of which this is all.
    pub fn enter(&mut self, network: NetworkId, told: impl IntoIterator<Item = ToldPort>) -> RemoteChange {
        let mut ports = Ports::default();
        for one in told {
            if one.host != self.own {
                ports.put((self.hosts.number(&one.host), one.port), one.brief, one.revision);
            }
        }
        if let Some(before) = self.before.remove(&network) {
            let told: BTreeSet<PortId> = ports.ports.keys().map(|(_, port)| *port).collect();
            for (at, (brief, _)) in before.ports {
                if !told.contains(&at.1) {
                    // Of other revisions than these: what is told of now counts before it.
                    ports.put(at, brief, 0);
                }
            }
        }
        let change = ports.all(&self.hosts);
        self.networks.insert(network, ports);
        change
    }

    /// Begins anew: with what was known, if etcd may have lost some of it.
    #[must_use]
    pub fn again(mut self, may_lack: bool) -> Self {
        if !may_lack {
            return Self::new(self.own);
        }
        self.before.extend(std::mem::take(&mut self.networks));
        self
    }

    /// Follows a network no more.
    pub fn leave(&mut self, network: NetworkId) {
        self.networks.remove(&network);
    }

    /// Takes in a port.
    pub fn put(&mut self, network: NetworkId, told: ToldPort) -> Vec<RemoteChange> {
        let Some(ports) = self.networks.get_mut(&network).filter(|_| told.host != self.own) else { return Vec::new() };
        let host = self.hosts.number(&told.host);
        let (is_first, mac) = (!ports.has(host), told.brief.mac);
        let before = ports.put((host, told.port), told.brief, told.revision);
        let left = before.filter(|before| *before != mac).map(|before| ports.change(before, &self.hosts));
        let peer = self.hosts.peer(host).filter(|_| is_first).map(RemoteChange::Peer);
        left.into_iter().chain(peer).chain([ports.change(mac, &self.hosts)]).collect()
    }

    /// Takes in that a port is gone from a host.
    pub fn remove(&mut self, network: NetworkId, host: &str, port: PortId) -> Vec<RemoteChange> {
        let Some(ports) = self.networks.get_mut(&network) else { return Vec::new() };
        let number = self.hosts.number(host);
        let Some(mac) = ports.remove((number, port)) else { return Vec::new() };
        let tunnel = self.hosts.tunnel(number).filter(|_| !ports.has(number));
        tunnel.map(RemoteChange::NoPeer).into_iter().chain([ports.change(mac, &self.hosts)]).collect()
    }
}

#[cfg(test)]
#[path = "remotes/tests.rs"]
mod tests;
