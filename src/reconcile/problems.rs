//! All that can be wrong with the agent. This is the one place: [`Problem`] lists the problems with their stable words, and
//! [`Problem::find`] tells for each how it is found, what was seen, and what to do about it. Health, `agent.degraded` and
//! `agent.recovered`, the metric `nicd_problems` and the test of the documents' list ([`Problem::ALL`]) read them from here.
//!
//! To add one, add its line to the list: the compiler asks for the rest.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::inventory::leftovers::Leftover;
use crate::inventory::{Inventory, NetworkEntry, whose};
use crate::kernel::{DESCRIPTORS_REMEDY, HELPER_REMEDY, MissingRequirement, module_remedy};
use crate::model::{NetworkId, NetworkKind, Phase, PortId, names};
use crate::plan::diff::{Segment, vlan_remedy};
use crate::plan::{BRIDGE_PORTS, Facet, LinkState};
use crate::store::{Holder, StoreError};

use super::conditions::{Conditions, Finding, RecipientTrouble};
use super::told::Trouble;
use super::{closing, crowded, passing};

/// How many of one problem health names one by one.
pub const NAMED: usize = 16;

const RENEW_ADDRESS: &str = "give the port another address (its fixed_ips)";

const CUT_OFF_REMEDY: &str = "find the program that changes the device's MAC, often the one that holds the tap, and end it; the port is put back 10 s after";

const FLAPPING_REMEDY: &str =
    "find who does, such as a network service, udev or another agent, and have it leave nicd's devices alone";

/// Declares the problems, in the order in which health lists them, with their stable words.
macro_rules! problems {
    ($($problem:ident = $word:literal,)*) => {
        /// One kind of thing that can be wrong with the agent.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Problem {
            $(#[doc = $word] $problem,)*
        }

        impl Problem {
            /// All of them, in the order in which health lists them.
            pub const ALL: &[Self] = &[$(Self::$problem,)*];

            /// The stable word (`reason`).
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$problem => $word,)*
                }
            }
        }
    };
}

problems! {
    StoreFull = "store_full",
    StoreDamaged = "store_damaged",
    StoreReplaced = "store_replaced",
    StoreFailed = "store_failed",
    StoreHeld = "store_held",
    StoreRolledBack = "store_rolled_back",
    ConfigInvalid = "config_invalid",
    SocketUnreachable = "socket_unreachable",
    CertificateEnds = "certificate_ends",
    BusLost = "bus_lost",
    FleetUnreachable = "fleet_unreachable",
    NovaUnreachable = "nova_unreachable",
    NovaRefuses = "nova_refuses",
    WebhookUnreachable = "webhook_unreachable",
    WebhookRefuses = "webhook_refuses",
    TunUnusable = "tun_unusable",
    ModuleMissing = "module_missing",
    NoDescriptors = "no_descriptors",
    NetnsHelperUnreachable = "netns_helper_unreachable",
    FiltersUnavailable = "filters_unavailable",
    FiltersUnproven = "filters_unproven",
    ConntrackUnavailable = "conntrack_unavailable",
    HostNotClosed = "host_not_closed",
    ContestedDevice = "contested_device",
    ContestedAltname = "contested_altname",
    ContestedBridge = "contested_bridge",
    ContestedMac = "contested_mac",
    ContestedMtu = "contested_mtu",
    ContestedFdb = "contested_fdb",
    ContestedFilter = "contested_filter",
    ContestedPortFlags = "contested_port_flags",
    ContestedLimit = "contested_limit",
    ContestedAddressGeneration = "contested_address_generation",
    ContestedAddresses = "contested_addresses",
    ContestedAlias = "contested_alias",
    ContestedUp = "contested_up",
    ContestedNic = "contested_nic",
    ContestedNetworkBridge = "contested_network_bridge",
    DeviceKept = "device_kept",
    AddressOfHost = "address_of_host",
    AddressDeclined = "address_declined",
    AddressInUse = "address_in_use",
    ResponderUnbound = "responder_unbound",
    BridgeTakesRas = "bridge_takes_ras",
    Vlan = "vlan",
    UplinkGone = "uplink_gone",
    UplinkDown = "uplink_down",
    UplinkUnusable = "uplink_unusable",
    NotOnUplink = "not_on_uplink",
    EntriesRefused = "entries_refused",
    ForwardFiltered = "forward_filtered",
    PortInError = "port_in_error",
    DeviceWithoutRecord = "device_without_record",
    BridgeNearlyFull = "bridge_nearly_full",
}

/// One problem as health lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The stable word.
    pub reason: &'static str,
    /// What was seen, and what to do about it.
    #[serde(flatten)]
    pub finding: Finding,
}

/// What health lists: of each problem the first [`NAMED`], and how many there are.
#[derive(Debug, Default)]
pub struct List {
    /// The problems.
    pub problems: Vec<Listed>,
    /// How many of each reason there are.
    pub counts: Vec<(&'static str, usize)>,
}

/// Takes in what is found of a problem, each with the port that events name for it.
trait Collect {
    fn add<T>(&mut self, problem: Problem, of: impl Iterator<Item = (Option<PortId>, T)>, tell: impl Fn(T) -> Finding);
}

impl Collect for List {
    fn add<T>(&mut self, problem: Problem, mut of: impl Iterator<Item = (Option<PortId>, T)>, tell: impl Fn(T) -> Finding) {
        let (reason, before) = (problem.word(), self.problems.len());
        self.problems.extend(of.by_ref().take(NAMED).map(|(_, found)| Listed { reason, finding: tell(found) }));
        // An index knows how many it has left.
        let more = match of.size_hint() {
            (least, Some(most)) if least == most => least,
            _ => of.count(),
        };
        match self.problems.len() - before + more {
            0 => {}
            count => self.counts.push((reason, count)),
        }
        if more > 0 {
            let finding = Finding::new(format!("and {more} more"), "as for those above");
            self.problems.push(Listed { reason, finding });
        }
    }
}

impl Collect for BTreeSet<Trouble> {
    fn add<T>(&mut self, problem: Problem, of: impl Iterator<Item = (Option<PortId>, T)>, _: impl Fn(T) -> Finding) {
        for (port, _) in of {
            self.insert((problem.word(), port));
            if port.is_none() {
                return;
            }
        }
    }
}

/// The problems that there are, for health.
pub fn list(state: &Inventory, conditions: &Conditions) -> List {
    collect(state, conditions)
}

/// The problems that there are, for events.
pub fn troubles(state: &Inventory, conditions: &Conditions) -> BTreeSet<Trouble> {
    collect(state, conditions)
}

fn collect<C: Collect + Default>(state: &Inventory, conditions: &Conditions) -> C {
    let mut into = C::default();
    Problem::ALL.iter().for_each(|problem| problem.find(state, conditions, &mut into));
    into
}

impl Problem {
    /// Adds each finding of this problem.
    fn find(self, state: &Inventory, conditions: &Conditions, into: &mut impl Collect) {
        let lacks = || conditions.lacks.iter().map(lack).filter(move |(problem, _)| *problem == self).map(|(_, finding)| finding);
        let device = |port: PortId| state.have.device(port).map_or("no device", |link| link.name.as_str());
        match self {
            Self::StoreFull | Self::StoreDamaged | Self::StoreReplaced | Self::StoreFailed => {
                let trouble = conditions.store_trouble.iter().filter(|error| Self::of_store(error) == self);
                into.add(self, one(trouble), |error| Finding::new(error.to_string(), store_remedy(error)));
            }
            Self::StoreHeld => into.add(self, one(conditions.store_holder.iter()), |holder| {
                let detail = match holder {
                    Holder::Writer => "another program has the write lock of nicd.db; attaches and detaches wait for it, at most 5 s".to_owned(),
                    Holder::Reader { log } => format!(
                        "another program reads nicd.db and does not end its transaction: nicd.db-wal has {} MiB and grows with each change",
                        log >> 20
                    ),
                };
                Finding::new(detail, "end that program, or its transaction: fuser -v nicd.db in the state directory names it")
            }),
            Self::StoreRolledBack => into.add(self, one(conditions.lost.iter()), |lost| {
                let is_lost = |link: &&LinkState| {
                    let tag = link.alias.as_deref().and_then(|alias| names::commit_in_tag(alias, state.store_id));
                    tag.is_some_and(|commit| lost.has(commit))
                };
                Finding::new(
                    format!(
                        "an older copy of the store was put back: its last commit was {}, and {} devices were tagged by later ones, up to {}",
                        lost.after,
                        state.have.iter().filter(is_lost).count(),
                        lost.until
                    ),
                    "put the newest copy back; or, if it is lost, detach the ports that are ERROR for this, and remove devices \
                     without a record: nicctl gc lists them, nicctl gc --apply removes them",
                )
            }),
            Self::ConfigInvalid => into.add(self, one(conditions.config_trouble.iter()), |why| {
                Finding::new(
                    format!("the configuration was to be read again, and cannot be used: {why}"),
                    "mend it and send SIGHUP once more; nicd goes on with the one it had",
                )
            }),
            Self::SocketUnreachable => into.add(self, one(conditions.socket_trouble.iter()), Finding::clone),
            Self::CertificateEnds => {
                into.add(self, conditions.certificates.iter().map(|finding| (None, finding)), Finding::clone);
            }
            Self::BusLost => into.add(self, one(conditions.bus_trouble.iter()), Finding::clone),
            Self::FleetUnreachable => into.add(self, one(conditions.fleet_trouble.iter()), Finding::clone),
            Self::NovaUnreachable => {
                let found = conditions.nova_trouble.iter().filter_map(RecipientTrouble::unreachable);
                into.add(self, one(found), Finding::clone);
            }
            Self::NovaRefuses => {
                into.add(self, one(conditions.nova_trouble.iter().filter_map(RecipientTrouble::refuses)), Finding::clone);
            }
            Self::WebhookUnreachable => {
                let found = conditions.webhook_trouble.iter().filter_map(RecipientTrouble::unreachable);
                into.add(self, one(found), Finding::clone);
            }
            Self::WebhookRefuses => {
                let found = conditions.webhook_trouble.iter().filter_map(RecipientTrouble::refuses);
                into.add(self, one(found), Finding::clone);
            }
            Self::TunUnusable
            | Self::ModuleMissing
            | Self::NoDescriptors
            | Self::NetnsHelperUnreachable
            | Self::FiltersUnavailable
            | Self::FiltersUnproven
            | Self::ConntrackUnavailable => into.add(self, one(lacks()), |finding| finding),
            Self::HostNotClosed => {
                let open = closing::open(state).map(|(network, why)| {
                    let bridge = state.bridge_name(*network);
                    not_closed(format!("bridge {bridge} of network {network} could not be closed to the host ({why})"))
                });
                into.add(self, one(lacks().chain(open)), |finding| finding);
            }
            Self::ContestedDevice
            | Self::ContestedAltname
            | Self::ContestedBridge
            | Self::ContestedMac
            | Self::ContestedMtu
            | Self::ContestedFdb
            | Self::ContestedFilter
            | Self::ContestedPortFlags
            | Self::ContestedLimit
            | Self::ContestedAddressGeneration
            | Self::ContestedAddresses
            | Self::ContestedAlias
            | Self::ContestedUp
            | Self::ContestedNic => {
                let contested = state.contested.iter().filter(|(_, contest)| Self::of_contest(contest.first) == self);
                into.add(self, contested.map(|found| (Some(*found.0), found)), |(port, contest)| {
                    let facets: Vec<&str> = contest.facets.iter().map(|facet| facet.as_str()).collect();
                    Finding::new(
                        format!("another program keeps changing the {} of port {port} ({})", facets.join(", "), device(*port)),
                        if contest.cut_off { CUT_OFF_REMEDY } else { FLAPPING_REMEDY },
                    )
                });
            }
            Self::ContestedNetworkBridge => into.add(self, one(state.fought_bridges.iter()), |network| {
                let bridge = state.bridge_name(*network);
                Finding::new(format!("another program keeps changing bridge {bridge} of network {network}"), FLAPPING_REMEDY)
            }),
            Self::DeviceKept => into.add(self, state.kept.iter().map(|port| (Some(*port), port)), |port| {
                Finding::new(
                    format!("the kernel does not let go of {} of port {port}, which holds its addresses until then", device(*port)),
                    "the kernel's log says what holds it, such as \"unregister_netdevice: waiting for …\"; nicd goes on by itself",
                )
            }),
            Self::AddressOfHost => {
                into.add(self, state.clashes().into_iter().map(|clash| (Some(clash.port), clash)), |clash| {
                    let whose = whose(clash.host.of, &clash.device);
                    Finding::new(
                        format!("port {} has {}, and so has this host: {whose}", clash.port, clash.host.ip),
                        format!("{RENEW_ADDRESS}, or take it off the host"),
                    )
                });
            }
            Self::AddressDeclined => {
                let declined = state.declined.iter().map(|((port, _), address)| (Some(*port), (port, address)));
                into.add(self, declined, |(port, address)| {
                    Finding::new(
                        format!("the guest of port {port} found {address} in use by another machine on its network"),
                        format!("find that machine (arping on the network shows its MAC), or {RENEW_ADDRESS}"),
                    )
                });
            }
            Self::AddressInUse => {
                into.add(self, state.conflicts.iter().map(|found| (Some(*found.0), found)), |(port, conflict)| {
                    Finding::new(
                        format!("port {port}: {conflict}"),
                        format!("take the address off that machine, which nicd sees within a minute; or {RENEW_ADDRESS}"),
                    )
                });
            }
            Self::ResponderUnbound => into.add(self, one(state.responder.unheard()), |(bridge, why)| {
                let bridge = state.have.link(bridge).map_or("a bridge that is gone", |link| link.name.as_str());
                Finding::new(
                    format!("DHCP requests are not heard on {bridge}: {why}"),
                    "nicd tries again each second; it needs CAP_NET_RAW, the address family AF_PACKET, memory and descriptors",
                )
            }),
            Self::BridgeTakesRas => into.add(self, one(closing::taking_ras(state)), |LinkState { name, .. }| {
                Finding::new(
                    format!(
                        "the host would take a guest's router advertisements through bridge {name}: addresses, routes and an MTU of \
                         the guest's choice"
                    ),
                    format!("sysctl -w net/ipv6/conf/{name}/accept_ra=0, and the same in /etc/sysctl.d"),
                )
            }),
            Self::UplinkGone | Self::UplinkDown | Self::UplinkUnusable | Self::NotOnUplink => {
                let networks = uplinks_of(state).filter(|(_, reason, _)| *reason == self.word());
                into.add(self, one(networks), |(network, _, detail)| {
                    let remedy = match self {
                        Self::UplinkGone => {
                            "plug it in, or give it the tunnel address, or correct [physical_networks] and systemctl reload nicd; nicd goes on by itself"
                        }
                        Self::UplinkDown => "set it up (ip link set UPLINK up), and look at cable and switch; nicd sets no uplink up",
                        Self::UplinkUnusable => {
                            "correct [physical_networks] and systemctl reload nicd, or free the uplink; delete a VXLAN device that has a network's number"
                        }
                        _ => "nicd makes the device again; where this lasts its log says what the kernel refuses",
                    };
                    Finding::new(format!("the ports of network {network} are DOWN: {detail}"), remedy)
                });
            }
            Self::EntriesRefused => {
                let networks = state.used_networks();
                let refused = networks.filter_map(|entry| Some((entry.record.id, entry.overlay.refused.as_ref()?)));
                into.add(self, one(refused), |(network, why)| {
                    Finding::new(
                        format!("what leads network {network} to ports on other hosts could not be set: {why}"),
                        "nicd tries again by itself; where this lasts the kernel says why, and nicctl verify what is missing",
                    )
                });
            }
            Self::Vlan => into.add(self, one(state.have.deaf()), |(device, bridge)| {
                let seen = match passing::pvid(device) {
                    None => "has no pvid".to_owned(),
                    Some(pvid) if device.vlan.is_some_and(|vlan| vlan.untagged) => format!("does not forward its VLAN {pvid}"),
                    Some(pvid) => format!("is tagged in its VLAN {pvid}"),
                };
                Finding::new(
                    format!(
                        "{} {seen} on bridge {}, which tells VLANs apart: its guest's frames are dropped",
                        device.name, bridge.name
                    ),
                    vlan_remedy(&device.name, passing::pvid(device)),
                )
            }),
            Self::ForwardFiltered => into.add(self, one(passing::chains(state)), |chain| passing::finding(state, chain)),
            Self::PortInError => into.add(self, one(state.errors.iter()), |port| {
                let entry = state.ports.get(port);
                let reason = entry.and_then(|entry| entry.reason.as_deref()).unwrap_or("no_reason");
                let detail = entry.and_then(|entry| entry.detail.as_deref()).unwrap_or("no detail was kept");
                Finding::new(
                    format!("port {port} is ERROR: {reason}: {detail}"),
                    format!("nicctl explain {port} tells more; nicd tries again by itself"),
                )
            }),
            Self::DeviceWithoutRecord => into.add(self, one(state.orphans.values()), |orphan| {
                Finding::new(
                    described(orphan),
                    "if no older state is to be put back, remove it: nicctl gc lists it, nicctl gc --apply removes it",
                )
            }),
            Self::BridgeNearlyFull => {
                into.add(self, one(crowded::bridges(state, &conditions.nearly_full)), |bridge| {
                    Finding::new(
                        format!("bridge {} has {} of {BRIDGE_PORTS} ports", bridge.name, state.have.members(bridge.index)),
                        "detach what is not needed, or put further NICs on another network: a full bridge takes none",
                    )
                });
            }
        }
    }

    fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::Full => Self::StoreFull,
            StoreError::Damaged(_) => Self::StoreDamaged,
            StoreError::Replaced(_) => Self::StoreReplaced,
            _ => Self::StoreFailed,
        }
    }

    /// Drift that comes back, by what changes.
    pub const fn of_contest(facet: Facet) -> Self {
        match facet {
            Facet::Device => Self::ContestedDevice,
            Facet::Altname => Self::ContestedAltname,
            Facet::Bridge => Self::ContestedBridge,
            Facet::Mac => Self::ContestedMac,
            Facet::Mtu => Self::ContestedMtu,
            Facet::Fdb => Self::ContestedFdb,
            Facet::Filter => Self::ContestedFilter,
            Facet::PortFlags => Self::ContestedPortFlags,
            Facet::ToGuest => Self::ContestedLimit,
            Facet::AddressGeneration => Self::ContestedAddressGeneration,
            Facet::Addresses => Self::ContestedAddresses,
            Facet::Alias => Self::ContestedAlias,
            Facet::Up => Self::ContestedUp,
            Facet::Nic => Self::ContestedNic,
        }
    }
}

/// The networks with a bridge that do not reach other hosts, with the stable word for why and what was found.
fn uplinks_of(state: &Inventory) -> impl Iterator<Item = (NetworkId, &'static str, String)> {
    let leads = |entry: &&NetworkEntry| entry.record.physical_network.is_some() || entry.record.kind == NetworkKind::Vxlan;
    state.used_networks().filter(leads).filter_map(|entry| {
        let network = entry.record.id;
        state.have.own_bridge(network)?;
        let bridge = state.desired_bridge(&entry.record);
        let way = Segment::find(&bridge, &state.have)?;
        let reason = way.trouble()?.reason();
        // While the first port is built, and once the last one is gone, it is not made yet, or not any more.
        let lacks = || {
            entry
                .ports
                .iter()
                .filter_map(|port| state.ports.get(port))
                .any(|port| matches!(port.phase, Phase::Wired | Phase::Active | Phase::Error))
        };
        (reason != Problem::NotOnUplink.word() || lacks()).then(|| (network, reason, way.words()))
    })
}

/// Of these, events tell without a port, and of all of them at once.
fn one<T>(found: impl Iterator<Item = T>) -> impl Iterator<Item = (Option<PortId>, T)> {
    found.map(|found| (None, found))
}

fn store_remedy(error: &StoreError) -> &'static str {
    match error {
        StoreError::Full => "free space in the state directory; detaching works meanwhile",
        StoreError::Damaged(_) => "stop nicd and put a copy of the store back; devices stay as they are meanwhile",
        StoreError::Replaced(_) => {
            "put the file that nicd has open back in its place; or restart nicd, which then goes on from what lies there \
             and leaves devices that it does not know; nothing is attached or detached meanwhile"
        }
        _ => "mend the disk of the state directory; devices stay as they are, and nicd goes on by itself",
    }
}

fn not_closed(detail: String) -> Finding {
    Finding::new(
        detail,
        "load nf_tables (modprobe nf_tables) and leave table netdev nicd to nicd; or let guests' frames reach the host: \
         links.require_host_closed = false in the configuration, and systemctl reload nicd",
    )
}

/// What the host lacks, as a problem.
fn lack(lack: &MissingRequirement) -> (Problem, Finding) {
    match lack {
        MissingRequirement::Tun { said, remedy } => {
            (Problem::TunUnusable, Finding::new(format!("no tap can be made: {said}"), remedy.as_str()))
        }
        MissingRequirement::Module { module, said } => {
            let what = match *module {
                "bridge" => "no bridge of nicd's own",
                "veth" => "no NIC in a network namespace",
                "8021q" => "no VLAN device",
                "vxlan" => "no VXLAN device",
                _ => "no tap",
            };
            let detail = format!("{what} can be made: the kernel has no module {module} ({said})");
            (Problem::ModuleMissing, Finding::new(detail, module_remedy(module)))
        }
        MissingRequirement::HostClosing { said } => {
            (Problem::HostNotClosed, not_closed(format!("this kernel does not let nicd close a bridge to the host ({said})")))
        }
        MissingRequirement::Filters { said } => (
            Problem::FiltersUnavailable,
            Finding::new(
                format!("the kernel does not let nicd filter what guests send ({said}): no port with port security is ACTIVE"),
                "use a kernel with nf_tables and its bridge family (CONFIG_NF_TABLES_BRIDGE), or give the networks \
                 port_security_enabled false",
            ),
        ),
        MissingRequirement::FiltersUnproven { frame } => (
            Problem::FiltersUnproven,
            Finding::new(
                format!(
                    "this kernel does not do what the filters say: in the check at the start {frame} passed; no port with port \
                     security is ACTIVE"
                ),
                "use another kernel and report this one; or give the networks port_security_enabled false",
            ),
        ),
        MissingRequirement::FiltersUnchecked { said } => (
            Problem::FiltersUnproven,
            Finding::new(
                format!(
                    "whether this kernel does what the filters say is not known: the check with frames cannot be made ({said})"
                ),
                "nicd tries again by itself; it needs /dev/net/tun, and CAP_SYS_ADMIN or nicd-netns",
            ),
        ),
        MissingRequirement::Conntrack { said } => (
            Problem::ConntrackUnavailable,
            Finding::new(
                format!("the kernel does not track the connections of bridges ({said}): no port in security groups is ACTIVE"),
                "use a kernel with nf_conntrack_bridge (CONFIG_NF_CONNTRACK_BRIDGE) and load it (modprobe nf_conntrack_bridge), or take \
                 the ports out of their groups",
            ),
        ),
        MissingRequirement::Descriptors { said } => (
            Problem::NoDescriptors,
            Finding::new(format!("no tap can be made and no namespace entered: {said}"), DESCRIPTORS_REMEDY),
        ),
        MissingRequirement::NetnsHelper { said } => (
            Problem::NetnsHelperUnreachable,
            Finding::new(
                format!("no network namespace can be entered: nicd-netns does not answer ({said})"),
                format!("{HELPER_REMEDY}, or run nicd with CAP_SYS_ADMIN"),
            ),
        ),
    }
}

fn described(orphan: &Leftover) -> String {
    let Leftover { object, kind, altname, alias, .. } = orphan;
    let alias = alias.as_ref().map_or_else(|| "no alias".to_owned(), |alias| format!("the alias '{alias}'"));
    match altname {
        Some(altname) => format!("{kind} {object} has {alias}, the altname {altname}, and no record"),
        None => format!("{kind} {object} has {alias}, no altname of nicd's any more, and no record"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_documented_and_no_other() {
        let page = include_str!("../../docs/reasons.md").split("\n## ").find(|part| part.starts_with("Of the agent\n"));
        let rows = page.expect("the part of the agent's problems").lines().filter_map(|line| line.strip_prefix("| `"));
        let documented: BTreeSet<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        assert_eq!(documented, Problem::ALL.iter().map(|problem| problem.word()).collect());
    }

    /// Alerts and `nicctl doctor` name some of them.
    #[test]
    fn who_names_a_problem_uses_its_word() {
        let known: BTreeSet<&str> = Problem::ALL.iter().map(|problem| problem.word()).collect();
        let alerts = include_str!("../../contrib/prometheus/alerts.yaml").split("nicd_problems{reason").skip(1);
        let alerts: Vec<&str> = alerts.filter_map(|rest| rest.split('"').nth(1)).flat_map(|words| words.split('|')).collect();
        let doctor = include_str!("../ctl/doctor.rs").split_once("const STOPPING").and_then(|(_, rest)| rest.split_once("];"));
        let doctor: Vec<&str> = doctor.expect("its list").0.split('"').skip(1).step_by(2).collect();
        for word in [alerts, doctor].into_iter().inspect(|words| assert!(words.len() > 5, "{words:?}")).flatten() {
            assert!(known.contains(word), "no problem is called {word}");
        }
    }

    #[test]
    fn health_names_sixteen_and_how_many_more_and_events_tell_of_the_agent_once() {
        let mut state = Inventory::default();
        state.errors.extend((0..1000_u128).map(|number| PortId(uuid::Uuid::from_u128(number))));
        let conditions = Conditions::default();
        let list = list(&state, &conditions);
        assert_eq!((list.problems.len(), list.counts), (NAMED + 1, vec![("port_in_error", 1000)]));
        assert_eq!(list.problems[NAMED].finding.detail, "and 984 more");
        assert_eq!(troubles(&state, &conditions), BTreeSet::from([("port_in_error", None)]));
    }
}
