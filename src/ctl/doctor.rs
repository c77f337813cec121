//! `nicctl doctor`: what could stop an attach on this host, found before one does.
//!
//! ```text
//! host (netlink, sysfs, /lib/modules) ──▶ Host ──┐
//! nicd (health, networks, subnets)    ──▶ Agent ─┴─▶ findings (pure) ──▶ table or JSON
//! ```
//!
//! It needs no rights and changes nothing. What it can read only of the daemon is left out where that does not answer, and said.

mod host;

pub use host::{members, read as read_host};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::Serialize;
use serde_json::Value;

use super::views::plain;
use crate::uplink::Carried;

/// The most ports of a bridge (`BR_MAX_PORTS`, net/bridge/br_private.h).
const BRIDGE_PORTS: usize = 1023;

/// The least MTU of IPv6 (RFC 8200, 5), and of a network.
const LEAST_MTU: u32 = 1280;

/// Problems of the daemon that stop attaches, beside those of its store.
const STOPPING: [&str; 6] =
    ["filters_unavailable", "filters_unproven", "module_missing", "netns_helper_unreachable", "no_descriptors", "tun_unusable"];

/// What a host is like.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Host {
    /// The kernel's modules that nicd needs, and whether it has them.
    pub modules: Vec<(&'static str, Module)>,
    /// Why `/dev/net/tun` cannot be used; none where it can.
    pub tun: Option<String>,
    /// Its bridges but those that nicd made.
    pub bridges: Vec<Bridge>,
    /// The addresses on its bridges, nicd's among them, that no guest there can have.
    pub on_bridges: Vec<HostAddress>,
}

/// An address on a bridge's segment that no guest may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAddress {
    /// The bridge's name.
    pub bridge: String,
    /// The link that has it.
    pub link: String,
    pub ip: IpAddr,
    /// Whose it is, in words.
    pub whose: &'static str,
}

/// Whether the kernel has a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    /// It is loaded, or part of the kernel.
    Ready,
    /// It is loaded when it is needed.
    Loadable,
    /// It is neither.
    Missing,
    /// The kernel does not say: there is no list of its modules.
    Unknown,
}

/// A bridge that could carry a network.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub name: String,
    pub altnames: Vec<String>,
    pub up: bool,
    pub mtu: u32,
    pub ports: usize,
    pub stp: bool,
    pub vlan_filtering: bool,
    /// 0 for none.
    pub default_pvid: u16,
    /// How a default route of this host goes through it.
    pub uplink: Option<Carried>,
}

/// What the daemon says.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    pub health: Value,
    pub networks: Vec<Value>,
    pub subnets: Vec<Value>,
    pub ports: Vec<Value>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It stops attaches.
    Fail,
    /// It stops some, or delays them.
    Warn,
    /// It is as it should be.
    Ok,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at.
    pub check: String,
    /// How it is.
    pub detail: String,
    /// What mends it; empty where nothing is wrong.
    pub remedy: String,
}

fn finding(level: Level, check: impl Into<String>, detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level, check: check.into(), detail: detail.into(), remedy: remedy.into() }
}

/// All findings, the worst first. `agent` is what the daemon says, or why it says nothing.
pub fn findings(host: &Host, agent: Result<&Agent, &str>) -> Vec<Finding> {
    let mut all = daemon(agent);
    all.extend(host.modules.iter().map(|(name, module)| kernel_module(name, *module, agent.is_ok())));
    all.push(match &host.tun {
        None => finding(Level::Ok, "/dev/net/tun", "it can be opened", ""),
        // nicd tries it itself, as its own user, and its problems are listed.
        Some(_) if agent.is_ok() => finding(Level::Ok, "/dev/net/tun", "nicd can use it, or says why not", ""),
        Some(why) => finding(
            Level::Fail,
            "/dev/net/tun",
            format!("no tap can be made: {why}"),
            "modprobe tun; in a container pass the device in; chmod 0666 /dev/net/tun, as udev does",
        ),
    });
    all.extend(host.bridges.iter().map(bridge));
    if host.bridges.is_empty() {
        all.push(finding(Level::Ok, "bridges", "none but nicd's own: networks that name no bridge get one", ""));
    }
    if let Ok(agent) = agent {
        all.extend(host_in_pools(host, agent));
        all.extend(networks(host, &agent.networks));
        all.extend(full_pools(host, agent));
        all.extend(names_in_use(&agent.networks));
    }
    all.sort_by_key(|finding| finding.level);
    all
}

fn daemon(agent: Result<&Agent, &str>) -> Vec<Finding> {
    let agent = match agent {
        Ok(agent) => agent,
        Err(why) => {
            let remedy =
                "systemctl status nicd shows why; what only nicd knows (its problems, pools and networks) was not looked at";
            return vec![finding(Level::Fail, "nicd", why, remedy)];
        }
    };
    let problems: Vec<Finding> = agent.health["problems"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|problem| {
            let reason = plain(&problem["reason"]);
            let stops = reason.starts_with("store_") || STOPPING.contains(&reason.as_str());
            let level = if stops { Level::Fail } else { Level::Warn };
            finding(level, reason, plain(&problem["detail"]), plain(&problem["remedy"]))
        })
        .collect();
    if !problems.is_empty() {
        return problems;
    }
    vec![finding(Level::Ok, "nicd", format!("version {} has no problem", plain(&agent.health["version"])), "")]
}

/// Without bridge, veth, tun or nf_tables some attaches fail; ifb is for exact limits alone.
fn kernel_module(name: &'static str, module: Module, is_asked: bool) -> Finding {
    let check = format!("module {name}");
    let needed = match name {
        "bridge" => "networks without a bridge of the operator's",
        "veth" => "NICs in network namespaces",
        "tun" => "taps",
        "nf_tables" => "port security, isolation and limits",
        _ => "exact limits from guests",
    };
    match module {
        Module::Ready => finding(Level::Ok, check, "the kernel has it", ""),
        Module::Loadable => finding(Level::Ok, check, "the kernel loads it when it is needed", ""),
        // nicd asks the kernel itself, and its problems are listed.
        Module::Unknown if is_asked => {
            finding(Level::Ok, check, "this host has no list of its kernel's modules; nicd does not miss it", "")
        }
        Module::Unknown => finding(
            Level::Warn,
            check,
            "not loaded, and this host has no list of its kernel's modules",
            format!("modprobe {name}"),
        ),
        Module::Missing => finding(
            if name == "ifb" { Level::Warn } else { Level::Fail },
            check,
            format!("the running kernel has none: no {needed}"),
            format!(
                "modprobe {name}; where that does not find it, the kernel was upgraded: reboot, or put /lib/modules/$(uname -r) back"
            ),
        ),
    }
}

/// Whether a bridge can carry a network, and why not.
fn bridge(bridge: &Bridge) -> Finding {
    let name = &bridge.name;
    let mut wrong: Vec<(Level, String, String)> = Vec::new();
    if bridge.ports >= BRIDGE_PORTS {
        wrong.push((Level::Fail, "it is full".into(), "use another bridge".into()));
    }
    if let Some(uplink) = &bridge.uplink {
        let detail = format!("{uplink}: nicd lets no new network use it unless links.allowed_bridges names it");
        wrong.push((Level::Warn, detail, format!("name {name} in links.allowed_bridges if that is meant")));
    }
    if bridge.vlan_filtering && bridge.default_pvid == 0 {
        let detail = "it tells VLANs apart and gives new ports no pvid: frames cannot pass".into();
        wrong.push((
            Level::Warn,
            detail,
            format!("ip link set {name} type bridge vlan_default_pvid 1, or bridge vlan add for each port"),
        ));
    }
    if bridge.stp {
        let detail = "it speaks STP: new ports forward nothing for about 30 s".into();
        wrong.push((Level::Warn, detail, format!("ip link set {name} type bridge stp_state 0, or a shorter forward_delay")));
    }
    if !bridge.up {
        wrong.push((Level::Warn, "it is down".into(), format!("ip link set {name} up")));
    }
    if bridge.mtu < LEAST_MTU {
        wrong.push((
            Level::Warn,
            format!("its MTU {} is less than {LEAST_MTU}", bridge.mtu),
            format!("ip link set {name} mtu 1500"),
        ));
    }
    let check = format!("bridge {name}");
    let free = BRIDGE_PORTS.saturating_sub(bridge.ports);
    let Some(level) = wrong.iter().map(|(level, ..)| *level).min() else {
        let detail =
            format!("it can carry a network: MTU {}, room for {free} ports; links.allowed_bridges was not looked at", bridge.mtu);
        return finding(Level::Ok, check, detail, "");
    };
    let joined = |part: fn(&(Level, String, String)) -> &str| wrong.iter().map(part).collect::<Vec<_>>().join("; ");
    finding(level, check, joined(|(_, detail, _)| detail), joined(|(.., remedy)| remedy))
}

/// The pools of a subnet.
fn pools(subnet: &Value) -> Vec<RangeInclusive<IpAddr>> {
    let pools = subnet["allocation_pools"].as_array().into_iter().flatten();
    pools.filter_map(|pool| Some(pool["start"].as_str()?.parse().ok()?..=pool["end"].as_str()?.parse().ok()?)).collect()
}

/// The addresses on the bridge of a subnet's network that no guest can have.
fn beside<'a>(host: &'a Host, networks: &[Value], subnet: &Value) -> impl Iterator<Item = &'a HostAddress> {
    let network = networks.iter().find(|network| network["id"] == subnet["network_id"]);
    let bridge = network.and_then(|network| network["nicd:device"].as_str()).map(str::to_owned);
    host.on_bridges.iter().filter(move |address| Some(&address.bridge) == bridge.as_ref())
}

/// Addresses of this host that a pool would give to a guest.
fn host_in_pools(host: &Host, agent: &Agent) -> Vec<Finding> {
    let mut found = Vec::new();
    for subnet in &agent.subnets {
        let gateway = subnet["gateway_ip"].as_str().and_then(|ip| ip.parse().ok());
        let pools = pools(subnet);
        for HostAddress { link, ip, whose, .. } in beside(host, &agent.networks, subnet) {
            if Some(*ip) != gateway && pools.iter().any(|pool| pool.contains(ip)) {
                found.push(finding(
                    Level::Warn,
                    format!("subnet {}", plain(&subnet["cidr"])),
                    format!("its pool has {ip}, {whose} ({link})"),
                    "nicd passes over it while the host has it; leave it out of allocation_pools",
                ));
            }
        }
    }
    found
}

/// Subnets without a free address.
fn full_pools(host: &Host, agent: &Agent) -> Vec<Finding> {
    let mut taken: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
    for fixed in agent.ports.iter().flat_map(|port| port["fixed_ips"].as_array().into_iter().flatten()) {
        if let (Some(subnet), Some(Ok(ip))) = (fixed["subnet_id"].as_str(), fixed["ip_address"].as_str().map(str::parse)) {
            taken.entry(subnet).or_default().push(ip);
        }
    }
    let mut found = Vec::new();
    for subnet in &agent.subnets {
        let pools = pools(subnet);
        let size: u128 =
            pools.iter().map(|pool| number(*pool.end()).saturating_sub(number(*pool.start())).saturating_add(1)).sum();
        let of_ports = taken.get(subnet["id"].as_str().unwrap_or_default()).into_iter().flatten();
        let used = of_ports.chain(beside(host, &agent.networks, subnet).map(|address| &address.ip));
        let used: BTreeSet<&IpAddr> = used.filter(|ip| pools.iter().any(|pool| pool.contains(*ip))).collect();
        let used = used.len();
        if used as u128 >= size {
            found.push(finding(
                Level::Fail,
                format!("subnet {}", plain(&subnet["cidr"])),
                format!("no address of its pool is free: {used} of {size} are in use"),
                format!(
                    "nicctl subnet set {} --pool START-END, with more of its range; or nicctl port delete what is not needed",
                    plain(&subnet["id"])
                ),
            ));
        }
    }
    found
}

/// An address as a number; those of the two families are not compared.
fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Names that several networks have, as they may.
fn names_in_use(networks: &[Value]) -> Vec<Finding> {
    let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
    let names = networks.iter().filter_map(|network| network["name"].as_str()).filter(|name| !name.is_empty());
    names.for_each(|name| *by_name.entry(name).or_default() += 1);
    let several = by_name.into_iter().filter(|(_, count)| *count > 1);
    several
        .map(|(name, count)| {
            finding(
                Level::Warn,
                format!("network {name}"),
                format!("{count} networks have this name, which then names none of them: give an id"),
                "nicctl network set ID --name NAME gives one another name",
            )
        })
        .collect()
}

/// Networks whose bridge is not there, or smaller than they are; their subnets' gateways.
fn networks(host: &Host, networks: &[Value]) -> Vec<Finding> {
    let mut found = Vec::new();
    for network in networks {
        // A network without it has a bridge that nicd makes.
        let Some(name) = network["nicd:bridge"].as_str() else { continue };
        let check = format!("network {}", plain(&network["name"]));
        match host.bridges.iter().find(|bridge| bridge.has_name(name)) {
            None => found.push(finding(
                Level::Fail,
                check,
                format!("its bridge {name} does not exist in this network namespace"),
                format!("ip link add {name} type bridge && ip link set {name} up"),
            )),
            Some(bridge) if network["mtu"].as_u64().is_some_and(|mtu| mtu > u64::from(bridge.mtu)) => found.push(finding(
                Level::Fail,
                check,
                format!("its MTU {} is more than that of its bridge {name}, {}", network["mtu"], bridge.mtu),
                format!(
                    "ip link set {name} mtu {}, or nicctl network set {} --mtu {}",
                    network["mtu"],
                    plain(&network["id"]),
                    bridge.mtu
                ),
            )),
            Some(_) => {}
        }
    }
    found
}

impl Bridge {
    fn has_name(&self, name: &str) -> bool {
        self.name == name || self.altnames.iter().any(|altname| altname == name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn address(bridge: &str, ip: &str) -> HostAddress {
        HostAddress { bridge: bridge.into(), link: bridge.into(), ip: ip.parse().unwrap(), whose: "an address of this host" }
    }

    fn host() -> Host {
        Host {
            modules: vec![("bridge", Module::Ready), ("veth", Module::Loadable)],
            bridges: vec![Bridge { name: "br0".into(), up: true, mtu: 1500, ports: 3, ..Bridge::default() }],
            on_bridges: vec![address("br0", "192.0.2.1")],
            ..Host::default()
        }
    }

    fn agent() -> Agent {
        let health = json!({"version": "1", "problems": []});
        let subnet = json!({"network_id": "n", "cidr": "192.0.2.0/24", "gateway_ip": "192.0.2.1", "allocation_pools": [{"start": "192.0.2.2", "end": "192.0.2.254"}]});
        let networks = vec![json!({"id": "n", "name": "blue", "nicd:bridge": "br0", "nicd:device": "br0", "mtu": 1500})];
        Agent { health, networks, subnets: vec![subnet], ports: Vec::new() }
    }

    /// The findings that are not ok.
    fn wrong(host: &Host, agent: &Agent) -> Vec<(Level, String, String)> {
        let all = findings(host, Ok(agent)).into_iter().filter(|finding| finding.level != Level::Ok);
        all.map(|finding| {
            assert!(!finding.remedy.is_empty(), "{finding:?}");
            (finding.level, finding.check, finding.detail)
        })
        .collect()
    }

    #[test]
    fn nothing_is_wrong_with_a_host_that_can_attach() {
        assert_eq!(wrong(&host(), &agent()), []);
        let all = findings(&host(), Ok(&agent()));
        assert!(
            all.iter().any(|finding| finding.detail.starts_with("it can carry a network: MTU 1500, room for 1020 ports;")),
            "{all:?}"
        );
    }

    #[test]
    fn each_trouble_is_named_with_its_remedy() {
        let with = |change: fn(&mut Host)| {
            let mut host = host();
            change(&mut host);
            let wrong = wrong(&host, &agent());
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            wrong[0].clone()
        };
        type Case = (fn(&mut Host), Level, &'static str, &'static str);
        let cases: [Case; 9] = [
            (|host| host.modules[1].1 = Module::Missing, Level::Fail, "module veth", "network namespaces"),
            (|host| host.modules.push(("ifb", Module::Missing)), Level::Warn, "module ifb", "exact limits"),
            (|host| host.bridges[0].ports = 1023, Level::Fail, "bridge br0", "full"),
            (
                |host| host.bridges[0].uplink = Some(Carried { by: "br0.5".into(), table: 254 }),
                Level::Warn,
                "bridge br0",
                "table main, by br0.5",
            ),
            (|host| host.bridges[0].vlan_filtering = true, Level::Warn, "bridge br0", "pvid"),
            (|host| host.bridges[0].stp = true, Level::Warn, "bridge br0", "STP"),
            (|host| host.bridges[0].up = false, Level::Warn, "bridge br0", "down"),
            (|host| host.bridges[0].mtu = 1400, Level::Fail, "network blue", "1400"),
            (|host| host.on_bridges.push(address("br0", "192.0.2.9")), Level::Warn, "subnet 192.0.2.0/24", "192.0.2.9"),
        ];
        for (change, level, check, part) in cases {
            let (found, of, detail) = with(change);
            assert_eq!((found, of.as_str()), (level, check), "{detail}");
            assert!(detail.contains(part), "{detail}");
        }
    }

    #[test]
    fn the_daemons_problems_and_its_silence_are_findings() {
        let mut agent = agent();
        agent.health["problems"] = json!([{"reason": "store_full", "detail": "no room", "remedy": "make room"}]);
        assert_eq!(wrong(&host(), &agent), [(Level::Fail, "store_full".to_owned(), "no room".to_owned())]);
        let all = findings(&host(), Err("nicd cannot be reached"));
        assert_eq!((all[0].level, all[0].check.as_str()), (Level::Fail, "nicd"));
        let closed = Host { tun: Some("Permission denied".into()), ..host() };
        let of =
            |agent| findings(&closed, agent).into_iter().find(|finding| finding.check == "/dev/net/tun").map(|one| one.level);
        assert_eq!((of(Err("away")), of(Ok(&agent))), (Some(Level::Fail), Some(Level::Ok)), "nicd knows better");
        agent.networks[0]["nicd:bridge"] = json!("br9");
        agent.health["problems"] = json!([]);
        assert_eq!(wrong(&host(), &agent)[0].1, "network blue");
    }

    #[test]
    fn a_full_pool_and_a_name_of_two_networks_are_named() {
        let mut agent = agent();
        agent.subnets[0]["id"] = json!("s");
        agent.subnets[0]["allocation_pools"] = json!([{"start": "192.0.2.2", "end": "192.0.2.3"}]);
        let port = |ip: &str| json!({"fixed_ips": [{"subnet_id": "s", "ip_address": ip}]});
        // One address is outside of the pool, and asked for.
        agent.ports = vec![port("192.0.2.2"), port("192.0.2.9")];
        assert_eq!(wrong(&host(), &agent), []);
        agent.ports.push(port("192.0.2.3"));
        agent.networks.push(json!({"name": "blue"}));
        let found = wrong(&host(), &agent);
        assert!(found[0].0 == Level::Fail && found[0].2.contains("2 of 2 are in use"), "{found:?}");
        assert!(found[1].0 == Level::Warn && found[1].1 == "network blue" && found[1].2.contains("2 networks"), "{found:?}");
    }

    #[test]
    fn only_addresses_on_the_networks_own_bridge_count() {
        let mut agent = agent();
        agent.subnets[0]["allocation_pools"] = json!([{"start": "192.0.2.2", "end": "192.0.2.2"}]);
        let with = |bridge: &str| Host { on_bridges: vec![address(bridge, "192.0.2.2")], ..host() };
        assert_eq!(wrong(&with("br1"), &agent), []);
        let found = wrong(&with("br0"), &agent);
        assert!(found[0].0 == Level::Fail && found[0].2.contains("1 of 1 are in use"), "{found:?}");
        assert!(found[1].0 == Level::Warn && found[1].2.contains("192.0.2.2"), "{found:?}");
        // An address that a port has too is one address.
        agent.subnets[0]["allocation_pools"] = json!([{"start": "192.0.2.2", "end": "192.0.2.3"}]);
        agent.subnets[0]["id"] = json!("s");
        agent.ports = vec![json!({"fixed_ips": [{"subnet_id": "s", "ip_address": "192.0.2.2"}]})];
        assert!(wrong(&with("br0"), &agent).iter().all(|(level, ..)| *level == Level::Warn));
        // A bridge of nicd's is named by the daemon alone.
        agent.networks[0]["nicd:bridge"] = Value::Null;
        agent.networks[0]["nicd:device"] = json!("nbr0");
        assert_eq!(wrong(&with("br0"), &agent), []);
        assert_eq!(wrong(&with("nbr0"), &agent).len(), 1);
    }

    #[test]
    fn a_networks_bridge_is_found_by_each_of_its_names() {
        let mut agent = agent();
        for name in ["lan6", "nbrop"] {
            agent.networks[0]["nicd:bridge"] = json!(name);
            let named = Bridge { altnames: vec!["lan6".into(), "nbrop".into()], ..host().bridges[0].clone() };
            assert_eq!(wrong(&Host { bridges: vec![named], ..host() }, &agent), []);
            let found = wrong(&host(), &agent);
            assert!(found[0].2.contains(&format!("its bridge {name} does not exist")), "{found:?}");
        }
    }
}
