//! What is wrong with the agent, as health lists it and as events tell of it: read off the inventory and the agent's conditions.

use std::collections::BTreeSet;

use crate::inventory::leftovers::Leftover;
use crate::inventory::{Inventory, whose};
use crate::kernel::{DESCRIPTORS_REMEDY, HELPER_REMEDY, MissingRequirement, module_remedy};
use crate::store::{Holder, StoreError};

use super::conditions::{Conditions, Problem};
use super::planning::{ADDRESS_DECLINED, ADDRESS_IN_USE};
use super::told::Trouble;
use super::{closing, crowded, passing, rollback};

/// How many leftovers health names one by one.
const NAMED: usize = 16;

/// The stable word for a configuration that could not be read again.
const CONFIG_INVALID: &str = "config_invalid";

/// The stable word for a device that the kernel does not let go.
const DEVICE_KEPT: &str = "device_kept";

/// The stable word for another program that holds the store up.
const STORE_HELD: &str = "store_held";

/// The stable word for a bridge whose DHCP requests cannot be heard.
const RESPONDER_UNBOUND: &str = "responder_unbound";

/// The stable word for an address that a port and this host have.
pub const ADDRESS_OF_HOST: &str = "address_of_host";

const CUT_OFF_REMEDY: &str = "find the program that changes the device's MAC, often the one that holds the tap, and end it; the port is put back 10 s after";

const FLAPPING_REMEDY: &str =
    "find who does, such as a network service, udev or another agent, and have it leave nicd's devices alone";

/// The word for a bridge of nicd's that another program keeps changing.
const NETWORK_BRIDGE: &str = "contested_network_bridge";

/// What is wrong, in the order in which health lists it.
pub fn list(state: &Inventory, conditions: &Conditions) -> Vec<Problem> {
    let lacks = conditions.lacks.iter().map(Problem::from);
    store(conditions)
        .into_iter()
        .chain(held(conditions))
        .chain(rollback::problem(state, conditions.lost))
        .chain(config(conditions))
        .chain(conditions.socket_trouble.clone())
        .chain(lacks)
        .chain(flapping(state))
        .chain(flapping_bridges(state))
        .chain(kept(state))
        .chain(clashes(state))
        .chain(declined(state))
        .chain(conflicts(state))
        .chain(unheard(state))
        .chain(closing::problems(state))
        .chain(passing::problems(state))
        .chain(leftovers(state))
        .chain(crowded::problems(state, &conditions.nearly_full))
        .collect()
}

/// The troubles there are, as events tell of them.
pub fn troubles(state: &Inventory, conditions: &Conditions) -> BTreeSet<Trouble> {
    let store = conditions.store_trouble.as_ref().map(|error| (store_word(error), None));
    let held = conditions.store_holder.map(|_| (STORE_HELD, None));
    let lost = conditions.lost.map(|_| (rollback::REASON, None));
    let config = conditions.config_trouble.as_ref().map(|_| (CONFIG_INVALID, None));
    let sockets = conditions.socket_trouble.as_ref().map(|problem| (problem.reason, None));
    let lacks = conditions.lacks.iter().map(|lack| (Problem::from(lack).reason, None));
    let crowded = crowded::bridges(state, &conditions.nearly_full).next().map(|_| (crowded::NEARLY_FULL, None));
    let contested = state.contested.iter().map(|(port, contest)| (contest.reason, Some(*port)));
    let kept = state.kept.iter().map(|port| (DEVICE_KEPT, Some(*port)));
    let bridges = (!state.fought_bridges.is_empty()).then_some((NETWORK_BRIDGE, None));
    let clashes = state.clashes().into_iter().map(|clash| (ADDRESS_OF_HOST, Some(clash.port)));
    let declined = state.declined.keys().map(|(port, _)| (ADDRESS_DECLINED, Some(*port)));
    let conflicts = state.conflicts.keys().map(|port| (ADDRESS_IN_USE, Some(*port)));
    let unheard = state.responder.unheard().next().map(|_| (RESPONDER_UNBOUND, None));
    let open = closing::open(state).next().map(|_| (closing::HOST_NOT_CLOSED, None));
    let taking = closing::taking_ras(state).next().map(|_| (closing::TAKES_RAS, None));
    let deaf = passing::is_deaf(state).then_some((passing::VLAN, None));
    let dropping = passing::filtered(state).next().map(|_| (passing::FORWARD_FILTERED, None));
    let leftovers = (!state.orphans.is_empty()).then_some(("device_without_record", None));
    store
        .into_iter()
        .chain(held)
        .chain(lost)
        .chain(config)
        .chain(sockets)
        .chain(lacks)
        .chain(contested)
        .chain(kept)
        .chain(clashes)
        .chain(declined)
        .chain(conflicts)
        .chain(unheard)
        .chain(bridges)
        .chain(open)
        .chain(taking)
        .chain(deaf)
        .chain(dropping)
        .chain(leftovers)
        .chain(crowded)
        .collect()
}

fn store_word(error: &StoreError) -> &'static str {
    match error {
        StoreError::Full => "store_full",
        StoreError::Damaged(_) => "store_damaged",
        StoreError::Replaced(_) => "store_replaced",
        _ => "store_failed",
    }
}

fn store(conditions: &Conditions) -> Option<Problem> {
    conditions.store_trouble.as_ref().map(|error| Problem {
        reason: store_word(error),
        detail: error.to_string(),
        remedy: match error {
            StoreError::Full => "free space in the state directory; detaching works meanwhile",
            StoreError::Damaged(_) => "stop nicd and put a copy of the store back; devices stay as they are meanwhile",
            StoreError::Replaced(_) => {
                "put the file that nicd has open back in its place; or restart nicd, which then goes on from what lies there \
                 and leaves devices that it does not know; nothing is attached or detached meanwhile"
            }
            _ => "mend the disk of the state directory; devices stay as they are, and nicd goes on by itself",
        }
        .to_owned(),
    })
}

fn held(conditions: &Conditions) -> Option<Problem> {
    let detail = match conditions.store_holder? {
        Holder::Writer => {
            "another program has the write lock of nicd.db; attaches and detaches wait for it, at most 5 s".to_owned()
        }
        Holder::Reader { log } => format!(
            "another program reads nicd.db and does not end its transaction: nicd.db-wal has {} MiB and grows with each change",
            log >> 20
        ),
    };
    let remedy = "end that program, or its transaction: fuser -v nicd.db in the state directory names it".to_owned();
    Some(Problem { reason: STORE_HELD, detail, remedy })
}

fn config(conditions: &Conditions) -> Option<Problem> {
    conditions.config_trouble.as_ref().map(|why| Problem {
        reason: CONFIG_INVALID,
        detail: format!("the configuration was to be read again, and cannot be used: {why}"),
        remedy: "mend it and send SIGHUP once more; nicd goes on with the one it had".to_owned(),
    })
}

fn kept(state: &Inventory) -> impl Iterator<Item = Problem> {
    state.kept.iter().map(|port| {
        let device = state.have.device(*port).map_or("its device", |link| link.name.as_str());
        Problem {
            reason: DEVICE_KEPT,
            detail: format!("the kernel does not let go of {device} of port {port}, which holds its addresses until then"),
            remedy:
                "the kernel's log says what holds it, such as \"unregister_netdevice: waiting for …\"; nicd goes on by itself"
                    .to_owned(),
        }
    })
}

fn clashes(state: &Inventory) -> impl Iterator<Item = Problem> {
    state.clashes().into_iter().map(|clash| Problem {
        reason: ADDRESS_OF_HOST,
        detail: format!(
            "port {} has {}, and so has this host: {}",
            clash.port,
            clash.host.ip,
            whose(clash.host.of, &clash.device)
        ),
        remedy: "give the port another address (PUT its fixed_ips), or take it off the host".to_owned(),
    })
}

fn declined(state: &Inventory) -> impl Iterator<Item = Problem> {
    state.declined.iter().map(|((port, _), address)| Problem {
        reason: ADDRESS_DECLINED,
        detail: format!("the guest of port {port} found {address} in use by another machine on its network"),
        remedy: "find that machine (arping on the network shows its MAC), or give the port another address (PUT its fixed_ips)"
            .to_owned(),
    })
}

fn conflicts(state: &Inventory) -> impl Iterator<Item = Problem> {
    state.conflicts.iter().map(|(port, conflict)| Problem {
        reason: ADDRESS_IN_USE,
        detail: format!("port {port}: {conflict}"),
        remedy:
            "take the address off that machine, which nicd sees within a minute; or give the port another one (PUT its fixed_ips)"
                .to_owned(),
    })
}

fn unheard(state: &Inventory) -> impl Iterator<Item = Problem> {
    state.responder.unheard().map(|(bridge, why)| Problem {
        reason: RESPONDER_UNBOUND,
        detail: format!(
            "DHCP requests are not heard on {}: {why}",
            state.have.link(bridge).map_or("a bridge that is gone", |link| link.name.as_str())
        ),
        remedy: "nicd tries again each second; it needs CAP_NET_RAW, the address family AF_PACKET, memory and descriptors"
            .to_owned(),
    })
}

fn leftovers(state: &Inventory) -> impl Iterator<Item = Problem> {
    let more = state.orphans.len().checked_sub(NAMED).filter(|more| *more > 0).map(|more| format!("{more} more such links"));
    state.orphans.values().take(NAMED).map(described).chain(more).map(|detail| Problem {
        reason: "device_without_record",
        detail,
        remedy: "if no older state is to be put back, remove it: nicctl gc lists it, nicctl gc --apply removes it".to_owned(),
    })
}

fn described(orphan: &Leftover) -> String {
    let Leftover { object, kind, altname, alias, .. } = orphan;
    let alias = alias.as_ref().map_or_else(|| "no alias".to_owned(), |alias| format!("the alias '{alias}'"));
    match altname {
        Some(altname) => format!("{kind} {object} has {alias}, the altname {altname}, and no record"),
        None => format!("{kind} {object} has {alias}, no altname of nicd's any more, and no record"),
    }
}

/// The fights as health tells of them.
fn flapping(state: &Inventory) -> impl Iterator<Item = Problem> {
    state.contested.iter().map(|(port, contest)| {
        let facets: Vec<&str> = contest.facets.iter().map(|facet| facet.as_str()).collect();
        let device = state.have.device(*port).map_or("no device", |link| link.name.as_str());
        Problem {
            reason: contest.reason,
            detail: format!("another program keeps changing the {} of port {port} ({device})", facets.join(", ")),
            remedy: if contest.cut_off { CUT_OFF_REMEDY } else { FLAPPING_REMEDY }.to_owned(),
        }
    })
}

/// The bridges that are fought over, as health tells of them.
fn flapping_bridges(state: &Inventory) -> impl Iterator<Item = Problem> {
    state.fought_bridges.iter().map(|network| Problem {
        reason: NETWORK_BRIDGE,
        detail: format!("another program keeps changing bridge {} of network {network}", state.bridge_name(*network)),
        remedy: FLAPPING_REMEDY.to_owned(),
    })
}

impl From<&MissingRequirement> for Problem {
    fn from(lack: &MissingRequirement) -> Self {
        match lack {
            MissingRequirement::Tun { said, remedy } => {
                Self { reason: "tun_unusable", detail: format!("no tap can be made: {said}"), remedy: remedy.clone() }
            }
            MissingRequirement::Module { module, said } => Self {
                reason: "module_missing",
                detail: format!("{} can be made: the kernel has no module {module} ({said})", made_with(module)),
                remedy: module_remedy(module),
            },
            MissingRequirement::HostClosing { said } => {
                closing::problem(format!("this kernel does not let nicd close a bridge to the host ({said})"))
            }
            MissingRequirement::Filters { said } => Self {
                reason: "filters_unavailable",
                detail: format!(
                    "the kernel does not let nicd filter what guests send ({said}): no port with port security is ACTIVE"
                ),
                remedy: "use a kernel with nf_tables and its bridge family (CONFIG_NF_TABLES_BRIDGE), or give the networks \
                         port_security_enabled false"
                    .to_owned(),
            },
            MissingRequirement::FiltersUnproven { frame } => Self {
                reason: "filters_unproven",
                detail: format!(
                    "this kernel does not do what the filters say: in the check at the start {frame} passed; no port with \
                     port security is ACTIVE"
                ),
                remedy: "use another kernel and report this one; or give the networks port_security_enabled false".to_owned(),
            },
            MissingRequirement::FiltersUnchecked { said } => Self {
                reason: "filters_unproven",
                detail: format!(
                    "whether this kernel does what the filters say is not known: the check with frames cannot be made ({said})"
                ),
                remedy: "nicd tries again by itself; it needs /dev/net/tun, and CAP_SYS_ADMIN or nicd-netns".to_owned(),
            },
            MissingRequirement::Descriptors { said } => Self {
                reason: "no_descriptors",
                detail: format!("no tap can be made and no namespace entered: {said}"),
                remedy: DESCRIPTORS_REMEDY.to_owned(),
            },
            MissingRequirement::NetnsHelper { said } => Self {
                reason: "netns_helper_unreachable",
                detail: format!("no network namespace can be entered: nicd-netns does not answer ({said})"),
                remedy: format!("{HELPER_REMEDY}, or run nicd with CAP_SYS_ADMIN"),
            },
        }
    }
}

/// What cannot be made without a module.
fn made_with(module: &str) -> &'static str {
    match module {
        "bridge" => "no bridge of nicd's own",
        "veth" => "no NIC in a network namespace",
        _ => "no tap",
    }
}
