//! What clients of the fleet have asked for, and what of it was answered: from that follows what each host has to have.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::daemon::Answer;
use crate::dice::Dice;

/// How many guests each host has.
pub const GUESTS: usize = 2;

/// Whether something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    There,
    Gone,
    /// The answer was lost, or something else may have brought it back or taken it away.
    Open,
}

pub struct Network {
    pub id: String,
    pub known: Known,
    /// How often a change of it was answered.
    pub changes: u64,
}

pub struct Subnet {
    pub id: String,
    pub known: Known,
    pub network: String,
}

pub struct Port {
    pub id: String,
    pub known: Known,
    pub network: String,
    pub host: usize,
    /// The guest that it is attached to; none where that is not known.
    pub guest: Option<Option<usize>>,
    /// The subnets of its addresses; none where they are not known.
    pub subnets: Option<Vec<String>>,
}

/// All of it by names, each of which is used once.
#[derive(Default)]
pub struct Model {
    pub networks: BTreeMap<String, Network>,
    pub subnets: BTreeMap<String, Subnet>,
    pub ports: BTreeMap<String, Port>,
    count: usize,
}

/// What a request is to do, by the name of what it is about.
#[derive(Debug, Clone)]
pub enum Work {
    NewNetwork(String),
    ChangeNetwork(String),
    DeleteNetwork(String),
    NewSubnet(String, String),
    ChangeSubnet,
    DeleteSubnet(String),
    NewPort(String, String),
    Attach(String, usize),
    Detach(String),
    DeletePort(String),
}

impl Work {
    /// What it alone is to be about in a burst, at a host.
    pub fn subjects(&self, host: usize) -> Vec<String> {
        match self {
            Self::NewNetwork(_) => vec!["a new network".to_owned()],
            Self::Attach(port, guest) => vec![port.clone(), format!("guest {guest} of {host}")],
            Self::Detach(port) | Self::DeletePort(port) => vec![port.clone()],
            _ => Vec::new(),
        }
    }

    /// Whether it is about a port that there is.
    pub fn is_of_a_port(&self) -> bool {
        matches!(self, Self::Attach(..) | Self::Detach(_) | Self::DeletePort(_))
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    pub work: Work,
    pub method: &'static str,
    pub path: String,
    pub body: Value,
}

/// The id of a guest's server.
pub fn server(host: usize, guest: usize) -> String {
    format!("00000000-0000-4000-8000-0000000000{host}{guest}")
}

/// The name of a host.
pub fn host_name(host: usize) -> String {
    format!("node-{}", host + 1)
}

impl Model {
    fn fresh(&mut self, letter: char) -> String {
        self.count += 1;
        format!("{letter}{}", self.count)
    }

    /// A request for a host, if what the dice choose can be asked for.
    pub fn request(&mut self, host: usize, dice: &mut Dice) -> Option<Request> {
        let some = |method, path: String, body: Value, work| Some(Request { work, method, path, body });
        match dice.below(100) {
            0..10 => {
                if self.networks.values().filter(|network| network.known != Known::Gone).count() >= 5 {
                    return None;
                }
                let (name, vxlan) = (self.fresh('n'), dice.chance(75));
                let mut body = json!({"name": name});
                if vxlan {
                    body["provider:network_type"] = "vxlan".into();
                    if dice.chance(20) {
                        body["provider:segmentation_id"] = (4096 + dice.below(4)).into();
                    }
                }
                let work = Work::NewNetwork(name);
                some("POST", "/v2.0/networks".into(), json!({"network": body}), work)
            }
            10..22 => {
                let (network, id) = self.a_network(dice)?;
                let (name, n) = (self.fresh('s'), network[1..].parse::<u32>().unwrap() % 250);
                let cidr = dice.of(&["10.N.0.0/24", "10.N.0.64/26", "10.N.1.0/27", "2001:db8:N::/64", "2001:db8:N:1::/123"]);
                let cidr = cidr.replace('N', &n.to_string());
                let body = json!({"subnet": {"name": name, "network_id": id, "cidr": cidr, "ip_version": if cidr.contains(':') { 6 } else { 4 }}});
                some("POST", "/v2.0/subnets".into(), body, Work::NewSubnet(name, network))
            }
            22..27 => {
                let (network, id) = self.a_network(dice)?;
                let body = json!({"network": {"description": self.fresh('d')}});
                some("PUT", format!("/v2.0/networks/{id}"), body, Work::ChangeNetwork(network))
            }
            27..30 => {
                let (_, id) = self.a_subnet(dice)?;
                let body = json!({"subnet": {"description": self.fresh('d')}});
                some("PUT", format!("/v2.0/subnets/{id}"), body, Work::ChangeSubnet)
            }
            30..33 => {
                let (subnet, id) = self.a_subnet(dice)?;
                some("DELETE", format!("/v2.0/subnets/{id}"), Value::Null, Work::DeleteSubnet(subnet))
            }
            33..38 => {
                let (network, id) = self.a_network(dice)?;
                some("DELETE", format!("/v2.0/networks/{id}"), Value::Null, Work::DeleteNetwork(network))
            }
            38..62 => self.new_port(host, dice),
            62..82 => {
                let (port, id) = self.a_port(host, dice, |port| port.guest == Some(None))?;
                let free: Vec<usize> = (0..GUESTS).filter(|guest| self.is_free(host, *guest)).collect();
                let guest = *free.first()?;
                let body = json!({"interfaceAttachment": {"port_id": id}});
                let path = format!("/v2.1/servers/{}/os-interface", server(host, guest));
                some("POST", path, body, Work::Attach(port, guest))
            }
            82..89 => {
                let (port, id) = self.a_port(host, dice, |port| port.guest.flatten().is_some())?;
                let guest = self.ports[&port].guest.flatten()?;
                let path = format!("/v2.1/servers/{}/os-interface/{id}", server(host, guest));
                some("DELETE", path, Value::Null, Work::Detach(port))
            }
            _ => {
                let (port, id) = self.a_port(host, dice, |_| true)?;
                some("DELETE", format!("/v2.0/ports/{id}"), Value::Null, Work::DeletePort(port))
            }
        }
    }

    fn new_port(&mut self, host: usize, dice: &mut Dice) -> Option<Request> {
        let own = self.ports.values().filter(|port| port.host == host && port.known != Known::Gone).count();
        if own >= 16 {
            return None;
        }
        let (network, id) = self.a_network(dice)?;
        let name = format!("{}@{}", self.fresh('p'), host_name(host));
        let mut body = json!({"name": name, "network_id": id});
        if dice.chance(15) {
            body["mac_address"] = format!("02:00:00:00:00:{:02x}", dice.below(8)).into();
        }
        if dice.chance(15) {
            let n = network[1..].parse::<u32>().unwrap() % 250;
            body["fixed_ips"] = json!([{"ip_address": format!("10.{n}.0.{}", 66 + dice.below(40))}]);
        }
        let work = Work::NewPort(name, network);
        Some(Request { work, method: "POST", path: "/v2.0/ports".into(), body: json!({"port": body}) })
    }

    fn is_free(&self, host: usize, guest: usize) -> bool {
        let own = self.ports.values().filter(|port| port.host == host && port.known != Known::Gone);
        own.into_iter().all(|port| port.guest.is_some_and(|at| at != Some(guest)))
    }

    fn a_network(&self, dice: &mut Dice) -> Option<(String, String)> {
        let there = self.networks.iter().filter(|(_, network)| network.known == Known::There);
        pick(dice, there.map(|(name, network)| (name.clone(), network.id.clone())).collect())
    }

    fn a_subnet(&self, dice: &mut Dice) -> Option<(String, String)> {
        let there = self.subnets.iter().filter(|(_, subnet)| subnet.known == Known::There);
        pick(dice, there.map(|(name, subnet)| (name.clone(), subnet.id.clone())).collect())
    }

    fn a_port(&self, host: usize, dice: &mut Dice, is_one: impl Fn(&Port) -> bool) -> Option<(String, String)> {
        let there = self.ports.iter().filter(|(_, port)| port.host == host && port.known == Known::There && is_one(port));
        pick(dice, there.map(|(name, port)| (name.clone(), port.id.clone())).collect())
    }

    /// Takes in what came of a request: its answer, or none.
    pub fn answered(&mut self, host: usize, request: &Request, answer: Option<&Answer>) {
        let status = answer.map(|answer| answer.status);
        let is_done = status.is_some_and(|status| status < 300);
        // A transaction with etcd whose answer was lost is told of as such.
        let is_open = status.is_none_or(|status| status >= 500);
        let shared = match (is_done, is_open) {
            (true, _) => Known::There,
            (false, true) => Known::Open,
            (false, false) => Known::Gone,
        };
        // What is this host's alone is done or not when there is an answer.
        let local = if status.is_some() && !is_done { Known::Gone } else { shared };
        let made = |kind: &str| answer.filter(|_| is_done).map(|answer| answer.json()[kind].clone()).unwrap_or_default();
        let id = |made: &Value| made["id"].as_str().unwrap_or_default().to_owned();
        match &request.work {
            Work::NewNetwork(name) => {
                let network = Network { id: id(&made("network")), known: shared, changes: 0 };
                self.networks.insert(name.clone(), network);
            }
            Work::ChangeNetwork(name) => {
                self.networks.get_mut(name).into_iter().for_each(|network| network.changes += u64::from(is_done));
            }
            Work::NewSubnet(name, network) => {
                let subnet = Subnet { id: id(&made("subnet")), known: shared, network: network.clone() };
                self.subnets.insert(name.clone(), subnet);
            }
            Work::ChangeSubnet => {}
            Work::DeleteSubnet(name) => {
                let id = self.subnets[name].id.clone();
                let uses = |port: &Port| port.subnets.as_ref().is_none_or(|subnets| subnets.contains(&id));
                let is_used = self.ports.values().any(|port| port.known != Known::Gone && uses(port));
                self.subnets.get_mut(name).into_iter().for_each(|subnet| deleted(&mut subnet.known, is_done, is_open, is_used));
            }
            Work::DeleteNetwork(name) => {
                // One that a host has made a port on meanwhile comes back.
                let is_used = self.ports.values().any(|port| port.known != Known::Gone && port.network == *name);
                self.networks.get_mut(name).into_iter().for_each(|one| deleted(&mut one.known, is_done, is_open, is_used));
            }
            Work::NewPort(name, network) => {
                let made = made("port");
                let used: Vec<String> = made["fixed_ips"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|ip| ip["subnet_id"].as_str().unwrap().into())
                    .collect();
                if local != Known::Gone {
                    self.networks.get_mut(network).into_iter().for_each(|one| one.known = reopened(one.known));
                    let of =
                        self.subnets.values_mut().filter(|one| one.network == *network && (!is_done || used.contains(&one.id)));
                    of.for_each(|one| one.known = reopened(one.known));
                }
                let (known, network) = (local, network.clone());
                let port = Port { id: id(&made), known, network, host, guest: Some(None), subnets: is_done.then_some(used) };
                self.ports.insert(name.clone(), port);
            }
            Work::Attach(name, guest) => {
                let port = self.ports.get_mut(name).unwrap();
                port.guest = match status {
                    Some(_) if is_done => Some(Some(*guest)),
                    // An attach that is answered with an error may be going on: it is recorded before its devices are made.
                    _ => None,
                };
            }
            Work::Detach(name) => {
                let port = self.ports.get_mut(name).unwrap();
                port.guest = if is_done { Some(None) } else { None };
            }
            Work::DeletePort(name) => {
                let port = self.ports.get_mut(name).unwrap();
                port.known = match status {
                    _ if is_done => Known::Gone,
                    _ if is_open => Known::Open,
                    _ => port.known,
                };
            }
        }
    }

    /// A host's store was put back: what it had then is there again.
    pub fn put_back(&mut self, host: usize) {
        self.ports.values_mut().filter(|port| port.host == host).for_each(|port| {
            (port.known, port.guest, port.subnets) = (Known::Open, None, None);
        });
        self.reopen();
    }

    /// What was deleted may be known somewhere.
    pub fn reopen(&mut self) {
        self.networks.values_mut().for_each(|one| one.known = reopened(one.known));
        self.subnets.values_mut().for_each(|one| one.known = reopened(one.known));
    }
}

fn pick(dice: &mut Dice, all: Vec<(String, String)>) -> Option<(String, String)> {
    (!all.is_empty()).then(|| dice.of(&all))
}

fn reopened(known: Known) -> Known {
    if known == Known::Gone { Known::Open } else { known }
}

fn deleted(known: &mut Known, is_done: bool, is_open: bool, is_used: bool) {
    if is_open || is_done && is_used {
        *known = Known::Open;
    } else if is_done {
        *known = Known::Gone;
    }
}
