//! What other hosts have of the networks that this one has ports on, as values: each change of it leads to what is to be done about a
//! network's tunnels.
//!
//! While etcd may lack what it had, as after a backup was put back, what was known before stays beside what is read.
//!
//! A host that is lost gets no copies of what is for all any more. What is for its ports alone is sent there all the same: it may be cut off
//! from etcd and not from other hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::published::Published;
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
    /// A host has its first port.
    Peer(IpAddr),
    /// A host has no port any more.
    NoPeer(IpAddr),
    /// A port is new, or another than before.
    Port(RemotePort),
    /// No port has this MAC any more.
    NoPort(Mac),
}

#[derive(Debug)]
struct Host {
    tunnel: Option<IpAddr>,
    is_lost: bool,
}

/// What other hosts have.
#[derive(Debug)]
pub struct Remotes {
    /// This host's name.
    own: String,
    hosts: BTreeMap<String, Host>,
    networks: BTreeMap<NetworkId, Ports>,
    /// What was known of networks that are not read anew yet.
    before: BTreeMap<NetworkId, Ports>,
}

type Ports = BTreeMap<(String, PortId), Published>;

impl Remotes {
    /// Nothing known, but the name of this host.
    pub fn new(own: String) -> Self {
        Self { own, hosts: BTreeMap::new(), networks: BTreeMap::new(), before: BTreeMap::new() }
    }

    /// The networks that are followed.
    pub fn networks(&self) -> impl Iterator<Item = NetworkId> + '_ {
        self.networks.keys().copied()
    }

    /// Takes in a host's tunnel address; none where it has none, or is gone.
    pub fn put_host(&mut self, host: String, tunnel: Option<IpAddr>) -> Vec<(NetworkId, RemoteChange)> {
        let entry = self.hosts.entry(host.clone()).or_insert(Host { tunnel: None, is_lost: false });
        if std::mem::replace(&mut entry.tunnel, tunnel) == tunnel {
            return Vec::new();
        }
        self.all_with(&host)
    }

    /// Takes in whether a host is lost.
    pub fn set_lost(&mut self, host: &str, is_lost: bool) -> Vec<(NetworkId, RemoteChange)> {
        match self.hosts.get_mut(host) {
            Some(entry) if entry.is_lost != is_lost => entry.is_lost = is_lost,
            _ => return Vec::new(),
        }
        self.all_with(host)
    }

    /// All of each network that a host has ports of.
    fn all_with(&self, host: &str) -> Vec<(NetworkId, RemoteChange)> {
        let with = self.networks.iter().filter(|(_, ports)| ports.keys().any(|(of, _)| of == host));
        with.map(|(network, ports)| (*network, self.all(ports))).collect()
    }

    /// Follows a network from now on, of which this is all.
    pub fn enter(&mut self, network: NetworkId, mut ports: Ports) -> RemoteChange {
        ports.retain(|(host, _), _| *host != self.own);
        if let Some(before) = self.before.remove(&network) {
            let told: BTreeSet<PortId> = ports.keys().map(|(_, port)| *port).collect();
            ports.extend(before.into_iter().filter(|((_, port), _)| !told.contains(port)));
        }
        let change = self.all(&ports);
        self.networks.insert(network, ports);
        change
    }

    /// Begins anew: with what was known, if etcd may have lost some of it.
    #[must_use]
    pub fn again(self, may_lack: bool) -> Self {
        match may_lack {
            true => Self { before: self.networks, networks: BTreeMap::new(), ..self },
            false => Self::new(self.own),
        }
    }

    /// Follows a network no more.
    pub fn leave(&mut self, network: NetworkId) {
        self.networks.remove(&network);
    }

    fn all(&self, ports: &Ports) -> RemoteChange {
        let hosts: BTreeSet<&String> = ports.keys().map(|(host, _)| host).collect();
        let peers = hosts.into_iter().filter_map(|host| self.peer(host)).collect();
        let remote = ports.iter().filter_map(|((host, _), port)| self.remote_port(host, port)).collect();
        RemoteChange::All(peers, remote)
    }

    /// Where copies for a host go; nowhere if it is lost.
    fn peer(&self, host: &str) -> Option<IpAddr> {
        self.hosts.get(host).filter(|host| !host.is_lost)?.tunnel
    }

    fn remote_port(&self, host: &str, port: &Published) -> Option<RemotePort> {
        let tunnel = self.hosts.get(host).filter(|_| !port.is_kept_down)?.tunnel?;
        Some(RemotePort { mac: port.mac, tunnel, addresses: port.addresses.clone() })
    }

    /// Takes in a port.
    pub fn put(&mut self, network: NetworkId, at: (String, PortId), port: Published) -> Vec<RemoteChange> {
        let (host, remote) = (at.0.clone(), self.remote_port(&at.0, &port));
        let Some(ports) = self.networks.get_mut(&network).filter(|_| host != self.own) else { return Vec::new() };
        let is_first = !ports.keys().any(|(of, _)| *of == host);
        let mac = Some(port.mac).filter(|_| !port.is_kept_down);
        let before = ports.insert(at, port);
        let left = before.filter(|before| Some(before.mac) != mac).map(|before| self.without(network, before.mac));
        let peer = self.peer(&host).filter(|_| is_first).map(RemoteChange::Peer);
        left.into_iter().chain(peer).chain(remote.map(RemoteChange::Port)).collect()
    }

    /// Takes in that a port is gone from a host.
    pub fn remove(&mut self, network: NetworkId, at: &(String, PortId)) -> Vec<RemoteChange> {
        let Some(ports) = self.networks.get_mut(&network) else { return Vec::new() };
        let Some(gone) = ports.remove(at) else { return Vec::new() };
        let is_last = !ports.keys().any(|(of, _)| *of == at.0);
        let left = self.without(network, gone.mac);
        let tunnel = self.hosts.get(&at.0).and_then(|host| host.tunnel).filter(|_| is_last);
        tunnel.map(RemoteChange::NoPeer).into_iter().chain([left]).collect()
    }

    /// What is to be done about a MAC that a port had: another host may have it, as while a port moves.
    fn without(&self, network: NetworkId, mac: Mac) -> RemoteChange {
        let ports = self.networks.get(&network).into_iter().flatten();
        let mut others = ports.filter(|(_, port)| port.mac == mac).filter_map(|((host, _), port)| self.remote_port(host, port));
        others.next().map_or(RemoteChange::NoPort(mac), RemoteChange::Port)
    }
}
