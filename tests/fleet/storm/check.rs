//! What has to hold once nothing is in the way: as the hosts answer it, as `ip` and `bridge` show it, and as it is in etcd.

use std::collections::{BTreeMap, BTreeSet};

use nicd::fleet::keys::Names;
use nicd::model::{Claim, NetworkId};
use serde_json::{Value, json};

use super::model::{GUESTS, Known, host_name, server};
use super::world::{HOSTS, World};
use crate::netns::json as json_of;

type Found = Result<(), String>;

/// What a host has.
pub struct Seen {
    networks: BTreeMap<String, Value>,
    subnets: BTreeMap<String, Value>,
    /// Its own ports, by their names.
    pub ports: BTreeMap<String, Value>,
    /// All hosts' ports, as it shows them.
    all: BTreeMap<String, Value>,
    links: Vec<Value>,
    entries: Vec<Value>,
}

/// What etcd has below a path of the fleet's keys.
fn stored(world: &World, path: &str) -> Result<BTreeMap<String, Value>, String> {
    let prefix = format!("nicd/default/{path}/");
    let (_, found) = world.runtime.block_on(world.etcd.pages(prefix.clone()).all()).map_err(|error| error.to_string())?;
    let value = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(bytes)));
    Ok(found.iter().map(|one| (one.key[prefix.len()..].to_owned(), value(&one.value))).collect())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Says no unless two things are alike.
fn same<T: PartialEq + std::fmt::Debug>(what: impl FnOnce() -> String, found: T, wanted: T) -> Found {
    if found == wanted { Ok(()) } else { Err(format!("{}: there is {found:?}, and {wanted:?} is expected", what())) }
}

impl Seen {
    fn of(world: &mut World, n: usize) -> Result<Self, String> {
        let host = &mut world.stations[n].host;
        if host.fleet()["connected"] != true {
            return Err(format!("{} is not connected", host_name(n)));
        }
        let mut list = |kind: &str, key: &str| -> Result<BTreeMap<String, Value>, String> {
            let answer = host.client.get(&format!("/v2.0/{kind}"));
            if answer.status != 200 {
                return Err(format!("{kind} of {}: {}", host_name(n), answer.text));
            }
            let all = answer.json()[kind].as_array().cloned().unwrap_or_default();
            Ok(all.into_iter().map(|one| (text(&one, key).to_owned(), one)).collect())
        };
        let mut networks = list("networks", "id")?;
        for network in networks.values_mut() {
            let network = network.as_object_mut().unwrap();
            // Each host's own.
            network.remove("nicd:device");
            network["subnets"].as_array_mut().unwrap().sort_by_key(Value::to_string);
        }
        let subnets = list("subnets", "id")?;
        let all = list("ports", "name")?;
        let is_own = |name: &String| name.ends_with(&format!("@{}", host_name(n)));
        let ports = all.iter().filter(|(name, _)| is_own(name)).map(|(name, port)| (name.clone(), port.clone())).collect();
        let place = world.stations[n].host.place.name.clone();
        Ok(Self {
            networks,
            subnets,
            ports,
            all,
            links: json_of(&format!("ip -n {place} -j -d link")).as_array().unwrap().clone(),
            entries: json_of(&format!("bridge -n {place} -j fdb show")).as_array().unwrap().clone(),
        })
    }

    /// The ports that are attached, of a network or of any.
    fn attached(&self, network: Option<&str>) -> impl Iterator<Item = &Value> {
        let is_of = move |port: &&Value| network.is_none_or(|network| text(port, "network_id") == network);
        self.ports.values().filter(|port| !text(port, "device_id").is_empty()).filter(is_of)
    }

    fn of_network<'a>(&'a self, network: &str) -> impl Iterator<Item = &'a Value> {
        self.ports.values().filter(move |port| text(port, "network_id") == network)
    }
}

fn is_lost(port: &Value) -> bool {
    port["nicd:reason"] == "claim_lost"
}

fn addresses(port: &Value) -> Vec<String> {
    port["fixed_ips"].as_array().into_iter().flatten().map(|ip| text(ip, "ip_address").to_owned()).collect()
}

/// The tunnel address of a host.
fn tunnel(host: usize) -> String {
    format!("10.9.0.{}", 11 + host)
}

/// Looks at all of it. Answers with what all hosts have.
pub fn look(world: &mut World) -> Result<Vec<Seen>, String> {
    let seen: Vec<Seen> = (0..HOSTS).map(|n| Seen::of(world, n)).collect::<Result<_, _>>()?;
    definitions(world, &seen)?;
    asked(world, &seen)?;
    unique(&seen)?;
    told(world, &seen)?;
    claims(world, &seen)?;
    for (n, one) in seen.iter().enumerate() {
        devices(n, one)?;
        entries(n, &seen)?;
    }
    Ok(seen)
}

/// Each host and etcd have the same networks and subnets.
fn definitions(world: &World, seen: &[Seen]) -> Found {
    for (n, other) in seen.iter().enumerate().skip(1) {
        same(|| format!("networks of {}", host_name(n)), &other.networks, &seen[0].networks)?;
        same(|| format!("subnets of {}", host_name(n)), &other.subnets, &seen[0].subnets)?;
    }
    let keys = |found: &BTreeMap<String, Value>, last: bool| -> BTreeSet<String> {
        found.keys().map(|key| if last { key.rsplit('/').next().unwrap_or(key).to_owned() } else { key.clone() }).collect()
    };
    let networks = stored(world, "def/net")?;
    same(|| "networks in etcd".into(), keys(&networks, false), keys(&seen[0].networks, false))?;
    for (id, stored) in &networks {
        let (shown, stored) = (&seen[0].networks[id], &stored["network"]);
        for key in ["name", "description", "revision_number"] {
            same(|| format!("{key} of network {id} in etcd"), &stored[key], &shown[key])?;
        }
    }
    let subnets = stored(world, "def/subnet")?;
    same(|| "subnets in etcd".into(), keys(&subnets, true), keys(&seen[0].subnets, true))?;
    let numbers: BTreeMap<String, Value> = stored(world, "segment/vxlan")?;
    let vxlans = seen[0].networks.iter().filter(|(_, network)| network["provider:network_type"] == "vxlan");
    let wanted = vxlans.map(|(id, network)| (network["provider:segmentation_id"].to_string(), json!(id))).collect();
    same(|| "VXLAN numbers in etcd".into(), numbers, wanted)
}

/// What was answered is so.
fn asked(world: &World, seen: &[Seen]) -> Found {
    let names = |all: &BTreeMap<String, Value>| all.values().map(|one| text(one, "name").to_owned()).collect::<BTreeSet<_>>();
    let (networks, subnets) = (names(&seen[0].networks), names(&seen[0].subnets));
    let is = |what: &str, name: &str, known: Known, there: bool| match known {
        Known::There if !there => Err(format!("{what} {name} is not there")),
        Known::Gone if there => Err(format!("{what} {name} is there")),
        _ => Ok(()),
    };
    for (name, network) in &world.model.networks {
        is("network", name, network.known, networks.contains(name))?;
        if let Some(shown) = seen[0].networks.get(&network.id) {
            let revision = shown["revision_number"].as_u64().unwrap_or_default();
            if revision <= network.changes {
                return Err(format!("network {name} was changed {} times, and is of revision {revision}", network.changes));
            }
        }
    }
    for (name, subnet) in &world.model.subnets {
        let of = world.model.networks[&subnet.network].known;
        let known = if of == Known::There || subnet.known == Known::Gone { subnet.known } else { Known::Open };
        is("subnet", name, known, subnets.contains(name))?;
    }
    for (name, port) in &world.model.ports {
        let shown = seen[port.host].ports.get(name);
        is("port", name, port.known, shown.is_some())?;
        if let (Some(shown), Some(guest)) = (shown, port.guest) {
            let wanted = guest.map(|guest| server(port.host, guest)).unwrap_or_default();
            same(|| format!("server of port {name}"), text(shown, "device_id"), &wanted)?;
        }
    }
    Ok(())
}

/// No two ports have one address or MAC, but those that are kept down.
fn unique(seen: &[Seen]) -> Found {
    let mut all: BTreeMap<(String, String), String> = BTreeMap::new();
    for (name, port) in seen.iter().flat_map(|host| &host.ports) {
        if is_lost(port) {
            same(|| format!("status of port {name}, which is another's"), text(port, "status"), "DOWN")?;
            continue;
        }
        for what in addresses(port).into_iter().chain([text(port, "mac_address").to_owned()]) {
            if let Some(other) = all.insert((text(port, "network_id").to_owned(), what.clone()), name.clone()) {
                return Err(format!("{name} and {other} have {what}"));
            }
        }
    }
    Ok(())
}

/// Etcd has the ports that the hosts have, as they are.
fn told(world: &World, seen: &[Seen]) -> Found {
    let (mut own, mut ports, mut places) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for (n, host) in seen.iter().enumerate() {
        for port in host.ports.values() {
            let (id, network, host) = (text(port, "id"), text(port, "network_id"), host_name(n));
            own.insert(format!("{host}/port/{id}"));
            ports.insert(format!("{network}/{host}/{id}"));
            places.insert(id.to_owned(), host);
        }
    }
    own.extend((0..HOSTS).flat_map(|n| (0..GUESTS).map(move |guest| format!("{}/server/{}", host_name(n), server(n, guest)))));
    let stored_own: BTreeSet<String> = stored(world, "own")?.into_keys().collect();
    same(|| "lists of hosts in etcd".into(), stored_own, own)?;
    let told = stored(world, "port")?;
    same(|| "ports in etcd".into(), told.keys().cloned().collect(), ports)?;
    let stored_places = stored(world, "where")?.into_iter().map(|(id, place)| (id, text(&place, "host").to_owned())).collect();
    same(|| "places in etcd".into(), stored_places, places)?;
    let all: BTreeMap<&String, &Value> = seen.iter().flat_map(|host| &host.ports).collect();
    for (n, host) in seen.iter().enumerate() {
        same(|| format!("ports of all hosts, as {} shows them", host_name(n)), host.all.iter().collect(), all.clone())?;
    }
    for port in seen.iter().flat_map(|host| host.ports.values()) {
        let id = text(port, "id");
        let told = told.iter().find(|(key, _)| key.ends_with(id)).map(|(_, told)| told).ok_or("no port")?;
        let shown: Vec<String> = addresses(port);
        let of: Vec<String> =
            told["addresses"].as_array().into_iter().flatten().map(|ip| ip.as_str().unwrap().to_owned()).collect();
        same(|| format!("addresses of port {id} in etcd"), of, shown)?;
        same(|| format!("MAC of port {id} in etcd"), &told["mac"], &port["mac_address"])?;
        same(
            || format!("phase of port {id} in etcd"),
            text(&told["view"], "phase").to_lowercase(),
            text(port, "nicd:phase").to_lowercase(),
        )?;
        same(|| format!("reason of port {id} in etcd"), &told["view"]["reason"], &port["nicd:reason"])?;
    }
    Ok(())
}

/// Each host's list of claims is that of the claims themselves, and its ports have what it claims.
fn claims(world: &World, seen: &[Seen]) -> Found {
    let names = Names::new("default");
    let mut listed: BTreeMap<String, String> = BTreeMap::new();
    for (path, claim) in stored(world, "held")? {
        let (host, rest) = path.split_once('/').unwrap();
        same(|| format!("host of {path}"), text(&claim, "host"), host)?;
        if let Some(other) = listed.insert(rest.to_owned(), host.to_owned()) {
            return Err(format!("{host} and {other} have {rest} in their lists"));
        }
    }
    let mut claimed: BTreeMap<String, String> = BTreeMap::new();
    for kind in ["block", "mac"] {
        let of_kind = stored(world, kind)?.into_iter();
        claimed.extend(of_kind.map(|(path, claim)| (format!("{kind}/{path}"), text(&claim, "host").to_owned())));
    }
    same(|| "claims and lists of claims".into(), &claimed, &listed)?;
    for (n, host) in seen.iter().enumerate() {
        let key = |claim: Claim| names.claim(&claim)["nicd/default/".len()..].to_owned();
        let has = |claim: Claim| claimed.get(&key(claim)).is_some_and(|of| *of == host_name(n));
        for port in host.ports.values().filter(|port| !is_lost(port)) {
            let (name, network) = (text(port, "name"), NetworkId(text(port, "network_id").parse().unwrap()));
            let mac = text(port, "mac_address").parse().unwrap();
            if !has(Claim::of_mac(mac)) && !has(Claim::Mac(mac)) {
                return Err(format!("{name} has {mac}, which its host has not claimed"));
            }
            for ip in addresses(port) {
                if !has(Claim::of_address(network, ip.parse().unwrap())) {
                    return Err(format!("{name} has {ip}, which its host has not claimed"));
                }
            }
        }
    }
    Ok(())
}

/// A host has the devices of its attached ports and of their networks. Those of a network stay until that is deleted.
fn devices(n: usize, seen: &Seen) -> Found {
    let names = seen.links.iter().flat_map(|link| link["altnames"].as_array().into_iter().flatten());
    let there: BTreeSet<String> =
        names.filter_map(Value::as_str).filter(|name| name.starts_with("nicd-")).map(str::to_owned).collect();
    let mut wanted = BTreeSet::new();
    for port in seen.attached(None) {
        wanted.insert(format!("nicd-{}", text(port, "id")));
        if !is_lost(port) {
            same(|| format!("status of port {}", text(port, "name")), text(port, "status"), "ACTIVE")?;
        }
    }
    for (network, shown) in &seen.networks {
        let is_used = seen.attached(Some(network)).next().is_some();
        let is_vxlan = shown["provider:network_type"] == "vxlan";
        let own = [Some(format!("nicd-{network}")), is_vxlan.then(|| format!("nicd-vxlan-{network}"))];
        wanted.extend(own.into_iter().flatten().filter(|name| is_used || there.contains(name)));
    }
    same(|| format!("devices of {}", host_name(n)), there, wanted)
}

/// The entries of a host's VXLAN devices lead to all ports of other hosts, and nowhere else.
fn entries(n: usize, seen: &[Seen]) -> Found {
    let vxlans = seen[n].links.iter().filter(|link| text(link, "ifname").starts_with("nvx"));
    for link in vxlans {
        let altname = link["altnames"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let network = altname.filter_map(|name| name.strip_prefix("nicd-vxlan-")).next().unwrap_or_default();
        // Those of a network without ports here are left as they are.
        if seen[n].of_network(network).next().is_none() {
            continue;
        }
        let mut wanted = BTreeSet::new();
        for (other, host) in seen.iter().enumerate().filter(|(other, _)| *other != n) {
            for port in host.of_network(network) {
                wanted.insert(("00:00:00:00:00:00".to_owned(), tunnel(other)));
                if !is_lost(port) {
                    wanted.insert((text(port, "mac_address").to_owned(), tunnel(other)));
                }
            }
        }
        let own = seen[n].entries.iter().filter(|entry| entry["ifname"] == link["ifname"] && entry["mac"] != link["address"]);
        let pair = |entry: &Value| (text(entry, "mac").to_owned(), text(entry, "dst").to_owned());
        let (tunnels, others): (Vec<&Value>, Vec<&Value>) = own.partition(|entry| entry["dst"].is_string());
        same(
            || format!("entries of {} for network {network}", host_name(n)),
            tunnels.into_iter().map(pair).collect(),
            wanted.clone(),
        )?;
        let of_bridge = others.into_iter().filter(|entry| entry["master"].is_string());
        same(
            || format!("entries of the bridge of {} for network {network}", host_name(n)),
            of_bridge.map(|entry| text(entry, "mac")).collect::<BTreeSet<_>>(),
            wanted.iter().map(|(mac, _)| mac.as_str()).filter(|mac| *mac != "00:00:00:00:00:00").collect(),
        )?;
    }
    Ok(())
}

/// What guests of one VXLAN network and subnet are to reach: of each its place, and another one's address.
pub fn pings(seen: &[Seen]) -> Vec<(String, String)> {
    let mut of: BTreeMap<(&str, &str), Vec<(String, String)>> = BTreeMap::new();
    for (n, host) in seen.iter().enumerate() {
        for port in host.attached(None).filter(|port| !is_lost(port)) {
            let network = text(port, "network_id");
            let guest = (0..GUESTS).find(|guest| server(n, *guest) == text(port, "device_id"));
            let Some(guest) = guest.filter(|_| host.networks[network]["provider:network_type"] == "vxlan") else { continue };
            for ip in port["fixed_ips"].as_array().into_iter().flatten() {
                let of_subnet = of.entry((network, text(ip, "subnet_id"))).or_default();
                of_subnet.push((format!("guest-{n}{guest}"), text(ip, "ip_address").to_owned()));
            }
        }
    }
    let mut pings = Vec::new();
    for guests in of.into_values().filter(|guests| guests.len() > 1) {
        let next = guests.iter().cycle().skip(1);
        pings.extend(guests.iter().zip(next).map(|((from, _), (_, to))| (from.clone(), to.clone())));
    }
    pings
}

/// What is there becomes what is known to be there.
pub fn settle(world: &mut World, seen: &[Seen]) {
    let id = |all: &BTreeMap<String, Value>, name: &str| {
        all.values().find(|one| text(one, "name") == name).map(|one| text(one, "id").to_owned())
    };
    for (name, network) in &mut world.model.networks {
        let found = id(&seen[0].networks, name);
        network.known = if found.is_some() { Known::There } else { Known::Gone };
        network.id = found.unwrap_or_default();
    }
    for (name, subnet) in &mut world.model.subnets {
        let found = id(&seen[0].subnets, name);
        subnet.known = if found.is_some() { Known::There } else { Known::Gone };
        subnet.id = found.unwrap_or_default();
    }
    for (name, port) in &mut world.model.ports {
        let shown = seen[port.host].ports.get(name);
        port.known = if shown.is_some() { Known::There } else { Known::Gone };
        let Some(shown) = shown else { continue };
        port.id = text(shown, "id").to_owned();
        let at = text(shown, "device_id");
        port.guest = Some((0..GUESTS).find(|guest| server(port.host, *guest) == at));
        let of = shown["fixed_ips"].as_array().into_iter().flatten();
        port.subnets = Some(of.map(|ip| text(ip, "subnet_id").to_owned()).collect());
    }
}
