//! Reads what this host is like: links, addresses and routes over netlink, the rest from files. None of it needs rights.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, Prop,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia};
use rtnetlink::{Handle, RouteMessageBuilder};
use uuid::Uuid;

use super::{Bridge, Host, HostAddress, Module};
use crate::uplink::{BROAD, BroadRoute, Link, Links, carried};

/// The modules that nicd uses.
const MODULES: [&str; 5] = ["bridge", "veth", "tun", "nf_tables", "ifb"];

/// Where taps are made.
const TUN: &str = "/dev/net/tun";

/// The table of the host's own addresses (`RT_TABLE_LOCAL`).
const LOCAL: u32 = 255;

/// A link, as far as it is looked at here.
#[derive(Debug, Default)]
struct Seen {
    index: u32,
    /// All but what is counted of other links and routes.
    bridge: Bridge,
    is_bridge: bool,
    is_veth: bool,
    /// Whether the link below it is on the same segment: a macvlan's or an ipvlan's parent, a veth's other end.
    is_beside: bool,
    /// Whether some nicd made it.
    of_nicd: bool,
    master: Option<u32>,
    /// None in another namespace.
    lower: Option<u32>,
}

/// All links, by index.
type Seens = BTreeMap<u32, Seen>;

/// What is read of the host's routes.
#[derive(Debug, Default)]
struct Routes {
    broad: Vec<BroadRoute>,
    /// The next hops by each link.
    next_hops: BTreeMap<u32, BTreeSet<IpAddr>>,
}

/// Reads this host, in the network namespace of the caller.
///
/// # Errors
/// Netlink does not answer.
pub async fn read() -> io::Result<Host> {
    let (bridges, on_bridges) = over_netlink(of_kernel).await?;
    let modules = MODULES.map(|name| (name, module(name))).into();
    let tun = fs::OpenOptions::new().read(true).write(true).open(TUN).err();
    // Opening it as another user than nicd says little where its mode is not that of udev.
    let tun = tun.map(|error| format!("{TUN}: {error}"));
    Ok(Host { modules, tun, bridges, on_bridges })
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

async fn of_kernel(handle: &Handle) -> Result<(Vec<Bridge>, Vec<HostAddress>), rtnetlink::Error> {
    let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
    let mut links: Seens = links.iter().map(|link| (link.header.index, seen(link))).collect();
    let routes = routes(handle).await?;
    let addresses: Vec<AddressMessage> = handle.address().get().execute().try_collect().await?;
    let on_bridges = on_bridges(&links, &routes, &addresses);
    let mut ports: BTreeMap<u32, usize> = BTreeMap::new();
    links.values().filter_map(|link| link.master).for_each(|master| *ports.entry(master).or_default() += 1);
    let uplinks: Vec<_> = links.keys().filter_map(|index| Some((*index, carried(&routes.broad, *index, &links)?))).collect();
    for (index, uplink) in uplinks {
        links.entry(index).and_modify(|link| link.bridge.uplink = Some(uplink));
    }
    let bridges = links.into_values().filter(|link| link.is_bridge && !link.of_nicd);
    let bridges =
        bridges.map(|link| Bridge { ports: ports.get(&link.index).copied().unwrap_or_default(), ..link.bridge }).collect();
    Ok((bridges, on_bridges))
}

impl Links for Seens {
    fn link(&self, index: u32) -> Option<Link<'_>> {
        let link = self.get(&index)?;
        Some(Link { name: &link.bridge.name, is_veth: link.is_veth, master: link.master, lower: link.lower })
    }

    fn members(&self, master: u32) -> Vec<u32> {
        self.values().filter(|member| member.master == Some(master)).map(|member| member.index).collect()
    }
}

/// The addresses on bridges' segments that nicd gives to no port there: this host's, the other ends of such, and next hops of routes.
fn on_bridges(links: &Seens, routes: &Routes, addresses: &[AddressMessage]) -> Vec<HostAddress> {
    let of = |link: &Seen, ip: IpAddr, whose: &'static str| {
        let bridge = links.get(&segment(links, link)?)?.bridge.name.clone();
        Some(HostAddress { bridge, link: link.bridge.name.clone(), ip, whose })
    };
    let mut found = Vec::new();
    for address in addresses {
        // On a port's device none stays.
        let Some(link) = links.get(&address.header.index).filter(|link| link.is_bridge || !link.of_nicd) else { continue };
        let (mut local, mut peer) = (None, None);
        for attribute in &address.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => peer = Some(*ip),
                _ => {}
            }
        }
        let own = local.or(peer);
        found.extend(own.and_then(|ip| of(link, ip, "an address of this host")));
        let peer = peer.filter(|_| peer != own);
        found.extend(peer.and_then(|ip| of(link, ip, "the other end of an address of this host")));
    }
    for (link, hops) in &routes.next_hops {
        let Some(link) = links.get(link).filter(|link| link.is_bridge) else { continue };
        found.extend(hops.iter().filter_map(|ip| of(link, *ip, "the next hop of a route of this host")));
    }
    // No pool has a link-local address.
    found.retain(|host| !matches!(host.ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
    found
}

/// The bridge on whose segment a link is: itself, the one it is a port of, or the one that the link beside it is on.
fn segment(links: &Seens, link: &Seen) -> Option<u32> {
    let bridge = |link: &Seen| if link.is_bridge { Some(link.index) } else { link.master };
    bridge(link).or_else(|| bridge(links.get(&link.lower.filter(|_| link.is_beside)?)?))
}

async fn routes(handle: &Handle) -> Result<Routes, rtnetlink::Error> {
    let mut found = Routes::default();
    let asked = [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
    for ask in asked {
        let mut routes = handle.route().get(ask).execute();
        while let Some(route) = routes.try_next().await? {
            found.take(&route);
        }
    }
    Ok(found)
}

impl Routes {
    fn take(&mut self, route: &RouteMessage) {
        let mut table = u32::from(route.header.table);
        let mut first_octet = 0;
        let mut legs: Vec<(u32, Option<IpAddr>)> = leg(None, &route.attributes).into_iter().collect();
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Destination(RouteAddress::Inet(ip)) => first_octet = ip.octets()[0],
                RouteAttribute::Destination(RouteAddress::Inet6(ip)) => first_octet = ip.octets()[0],
                RouteAttribute::MultiPath(hops) => {
                    legs.extend(hops.iter().filter_map(|hop| leg(Some(hop.interface_index), &hop.attributes)));
                }
                _ => {}
            }
        }
        for (link, via) in &legs {
            self.next_hops.entry(*link).or_default().extend(via);
        }
        let length = route.header.destination_prefix_length;
        if length <= BROAD && route.header.kind == RouteType::Unicast && table != LOCAL {
            let v6 = route.header.address_family == AddressFamily::Inet6;
            self.broad.extend(legs.into_iter().map(|(link, _)| BroadRoute { link, table, v6, first_octet, length }));
        }
    }
}

/// One way of a route: the link that it leaves by, and the next hop.
fn leg(mut link: Option<u32>, attributes: &[RouteAttribute]) -> Option<(u32, Option<IpAddr>)> {
    let mut via = None;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) | RouteAttribute::Via(RouteVia::Inet(ip)) => via = Some((*ip).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) | RouteAttribute::Via(RouteVia::Inet6(ip)) => {
                via = Some((*ip).into());
            }
            _ => {}
        }
    }
    Some((link?, via))
}

fn seen(message: &LinkMessage) -> Seen {
    use InfoKind::{IpVlan, IpVtap, MacVlan, MacVtap, Veth};
    let mut link = Seen { index: message.header.index, ..Seen::default() };
    link.bridge.up = message.header.flags.contains(LinkFlags::Up);
    let mut elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.bridge.name.clone_from(name),
            LinkAttribute::PropList(properties) => {
                let altname = |property: &Prop| match property {
                    Prop::AltIfName(name) => Some(name.clone()),
                    _ => None,
                };
                link.bridge.altnames = properties.iter().filter_map(altname).collect();
            }
            LinkAttribute::Mtu(mtu) => link.bridge.mtu = *mtu,
            LinkAttribute::IfAlias(alias) => link.of_nicd = is_of_nicd(alias),
            LinkAttribute::Controller(master) => link.master = Some(*master).filter(|master| *master != 0),
            LinkAttribute::Link(lower) => link.lower = Some(*lower).filter(|lower| *lower != 0 && *lower != link.index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(parts) => {
                for part in parts {
                    match part {
                        LinkInfo::Kind(kind) => {
                            link.is_bridge = *kind == InfoKind::Bridge;
                            link.is_veth = *kind == Veth;
                            link.is_beside = matches!(kind, Veth | MacVlan | MacVtap | IpVlan | IpVtap);
                        }
                        LinkInfo::Data(InfoData::Bridge(settings)) => {
                            settings.iter().for_each(|one| note(&mut link.bridge, one));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link.lower = link.lower.filter(|_| !elsewhere);
    link
}

/// Whether an alias is one that nicd gives: `nicd`, the id of its store, and whose the link is.
fn is_of_nicd(alias: &str) -> bool {
    let parts = alias.strip_prefix("nicd ").and_then(|rest| rest.split_once(' '));
    parts.is_some_and(|(store, _)| Uuid::try_parse(store).is_ok())
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
    fn an_operators_alias_is_none_of_nicds() {
        assert!(is_of_nicd("nicd 6f1c2f0a-199f-48c0-816c-13e38010b442 17"));
        for alias in ["nicd uplink", "nicd uplink of rack 4", "", "nicd 6f1c2f0a-199f-48c0-816c-13e38010b442"] {
            assert!(!is_of_nicd(alias), "{alias}");
        }
    }

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
