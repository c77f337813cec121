//! Reads what this host is like: links, addresses and routes over netlink, the rest from files. None of it needs rights.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnetwork::IpNetwork;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{Bridge, Host, Module, is_default};

/// The modules that nicd uses.
const MODULES: [&str; 5] = ["bridge", "veth", "tun", "nf_tables", "ifb"];

/// Where taps are made.
const TUN: &str = "/dev/net/tun";

/// Reads this host, in the network namespace of the caller.
///
/// # Errors
/// Netlink does not answer.
pub async fn read() -> io::Result<Host> {
    let (bridges, addresses) = over_netlink(of_kernel).await?;
    let modules = MODULES.map(|name| (name, module(name))).into();
    let tun = fs::OpenOptions::new().read(true).write(true).open(TUN).err();
    // Opening it as another user than nicd says little where its mode is not that of udev.
    let tun = tun.map(|error| format!("{TUN}: {error}"));
    Ok(Host { modules, tun, bridges, addresses })
}

/// The names of each bridge's ports.
///
/// # Errors
/// Netlink does not answer.
pub async fn members() -> io::Result<BTreeMap<String, Vec<String>>> {
    over_netlink(async |handle| {
        let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
        let names: BTreeMap<u32, &String> = links.iter().filter_map(|link| Some((link.header.index, name(link)?))).collect();
        let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for link in &links {
            let bridge = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Controller(bridge) => names.get(bridge),
                _ => None,
            });
            if let (Some(bridge), Some(name)) = (bridge, name(link)) {
                members.entry((*bridge).clone()).or_default().push(name.clone());
            }
        }
        Ok(members)
    })
    .await
}

/// Asks the kernel in the network namespace of the caller.
async fn over_netlink<T>(ask: impl AsyncFnOnce(&Handle) -> Result<T, rtnetlink::Error>) -> io::Result<T> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let answer = ask(&handle).await.map_err(io::Error::other);
    connection.abort();
    answer
}

fn name(link: &LinkMessage) -> Option<&String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    })
}

async fn of_kernel(handle: &Handle) -> Result<(Vec<Bridge>, Vec<(String, IpAddr)>), rtnetlink::Error> {
    let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
    let mut ports: BTreeMap<u32, usize> = BTreeMap::new();
    let names: BTreeMap<u32, &String> = links.iter().filter_map(|link| Some((link.header.index, name(link)?))).collect();
    for attribute in links.iter().flat_map(|link| &link.attributes) {
        if let LinkAttribute::Controller(bridge) = attribute {
            *ports.entry(*bridge).or_default() += 1;
        }
    }
    let routes = default_routes(handle).await?;
    let bridges = links.iter().filter_map(|link| bridge(link, &ports, &routes)).collect();
    let mut addresses = Vec::new();
    let mut listed = handle.address().get().execute();
    while let Some(address) = listed.try_next().await? {
        let name = names.get(&address.header.index).map(|name| (*name).clone()).unwrap_or_default();
        // Of a point-to-point link the other end's address is beside its own.
        let own = address.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) => Some(*ip),
            _ => None,
        });
        let only = || {
            address.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            })
        };
        addresses.extend(own.or_else(only).map(|ip| (name, ip)));
    }
    Ok((bridges, addresses))
}

/// The tables with a default route out of each link.
async fn default_routes(handle: &Handle) -> Result<BTreeMap<u32, BTreeSet<u32>>, rtnetlink::Error> {
    let mut tables: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    let asked = [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
    for ask in asked {
        let mut routes = handle.route().get(ask).execute();
        while let Some(route) = routes.try_next().await? {
            if route.header.destination_prefix_length == 0 && is_default(destination(&route)) {
                let table = route.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Table(table) => Some(*table),
                    _ => None,
                });
                let table = table.unwrap_or(route.header.table.into());
                for link in legs(&route) {
                    tables.entry(link).or_default().insert(table);
                }
            }
        }
    }
    Ok(tables)
}

fn destination(route: &RouteMessage) -> Option<IpNetwork> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
            IpNetwork::new((*ip).into(), route.header.destination_prefix_length).ok()
        }
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => {
            IpNetwork::new((*ip).into(), route.header.destination_prefix_length).ok()
        }
        _ => None,
    })
}

/// The links that a route leaves by.
fn legs(route: &RouteMessage) -> impl Iterator<Item = u32> {
    route.attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::Oif(link) => vec![*link],
        RouteAttribute::MultiPath(legs) => legs.iter().map(|leg| leg.interface_index).collect(),
        _ => Vec::new(),
    })
}

/// A bridge; none for another link, or for a bridge that nicd made, whose alias says so.
fn bridge(link: &LinkMessage, ports: &BTreeMap<u32, usize>, routes: &BTreeMap<u32, BTreeSet<u32>>) -> Option<Bridge> {
    let index = link.header.index;
    let mut bridge = Bridge {
        up: link.header.flags.contains(LinkFlags::Up),
        ports: ports.get(&index).copied().unwrap_or(0),
        default_routes: routes.get(&index).into_iter().flatten().copied().collect(),
        ..Bridge::default()
    };
    let mut is_bridge = false;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => bridge.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => bridge.mtu = *mtu,
            LinkAttribute::IfAlias(alias) if alias.starts_with("nicd ") => return None,
            LinkAttribute::LinkInfo(parts) => {
                for part in parts {
                    match part {
                        LinkInfo::Kind(InfoKind::Bridge) => is_bridge = true,
                        LinkInfo::Data(InfoData::Bridge(settings)) => settings.iter().for_each(|one| note(&mut bridge, one)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    is_bridge.then_some(bridge)
}

fn note(bridge: &mut Bridge, setting: &InfoBridge) {
    match setting {
        InfoBridge::StpState(state) => bridge.stp = *state != BridgeStpState::Disabled,
        InfoBridge::VlanFiltering(on) => bridge.vlan_filtering = *on,
        InfoBridge::VlanDefaultPvid(pvid) => bridge.default_pvid = *pvid,
        _ => {}
    }
}

/// Whether the running kernel has a module, by what is loaded and by its lists (depmod(8)).
fn module(name: &str) -> Module {
    if fs::exists(format!("/sys/module/{name}")).unwrap_or(false)
        || name == "tun" && fs::exists("/sys/class/misc/tun").unwrap_or(false)
    {
        return Module::Ready;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let list = |file: &str| fs::read_to_string(format!("/lib/modules/{}/{file}", release.trim()));
    let (Ok(built_in), Ok(loadable)) = (list("modules.builtin"), list("modules.dep")) else { return Module::Unknown };
    let has = |list: &str| list.lines().any(|line| names(line, name));
    if has(&built_in) {
        Module::Ready
    } else if has(&loadable) {
        Module::Loadable
    } else {
        Module::Missing
    }
}

/// Whether a line of a list is about a module: a path that ends with its name, compressed or not.
fn names(line: &str, module: &str) -> bool {
    let path = line.split(':').next().unwrap_or_default();
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split_once(".ko").is_some_and(|(name, _)| name.replace('-', "_") == module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_by_their_files() {
        for line in ["kernel/drivers/net/veth.ko", "kernel/drivers/net/veth.ko.xz: kernel/x.ko", "a/veth.ko.zst:"] {
            assert!(names(line, "veth"), "{line}");
        }
        for line in ["kernel/drivers/net/veth2.ko", "kernel/x.ko: kernel/drivers/net/veth.ko", ""] {
            assert!(!names(line, "veth"), "{line}");
        }
        assert!(names("kernel/net/netfilter/nf-tables.ko", "nf_tables"));
    }
}
