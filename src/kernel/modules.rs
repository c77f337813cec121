//! Checks that the kernel supports the kinds of links that nicd creates. The kernel loads their modules on first use; after an
//! upgrade without a reboot the modules are missing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::answer::{Failure, Request};
use super::message::Batch;
use super::socket::Netlink;
use super::{MissingRequirement, OpErrorKind, vlan_link, vxlan_link};
use crate::failpoints;
use crate::plan::Op;

/// The remedy for a missing module.
pub fn remedy(module: &str) -> String {
    format!(
        "modprobe {module}; where that does not find it, the kernel that runs has been upgraded: reboot, or put \
         /lib/modules/$(uname -r) back"
    )
}

/// How often to ask the kernel again for a missing module, because each request runs modprobe.
const PACE: Duration = Duration::from_secs(1);

/// Kinds of links, with their modules.
const KINDS: [(&str, &str); 4] =
    [("bridge", "bridge"), ("veth", "veth"), ("vlan", vlan_link::MODULE), ("vxlan", vxlan_link::MODULE)];

/// The kinds that the kernel is known to support, shared by all accesses. Devices that lead networks to other hosts are taken to be supported until
/// one could not be made: the question loads the module, which most hosts do not need.
#[derive(Debug, Clone)]
pub(super) struct Known(Arc<[AtomicBool; KINDS.len()]>);

impl Default for Known {
    fn default() -> Self {
        Self(Arc::new(KINDS.map(|(_, module)| AtomicBool::new(is_rare(module)))))
    }
}

/// The last answer of the kernel, and about which kinds.
#[derive(Debug, Default)]
pub(super) struct Asked(Option<(Instant, Vec<&'static str>, Vec<MissingRequirement>)>);

/// Whether most hosts do not need a module.
fn is_rare(module: &str) -> bool {
    [vlan_link::MODULE, vxlan_link::MODULE].contains(&module)
}

impl Known {
    /// The kernel did not know the kind of link that this op makes.
    pub(super) fn forget(&self, op: &Op) {
        let rare = match op {
            Op::CreateVlan { .. } | Op::CreateVlanNic { .. } => Some(vlan_link::MODULE),
            Op::CreateVxlan { .. } => Some(vxlan_link::MODULE),
            _ => None,
        };
        let is_ops = |module: &str| rare.map_or(!is_rare(module), |rare| rare == module);
        let of_op = KINDS.iter().zip(self.0.iter()).filter(|((_, module), _)| is_ops(module));
        of_op.for_each(|(_, known)| known.store(false, Ordering::Relaxed));
    }

    /// The kinds that the kernel does not know, and has no module for. Where it gives no clear answer a kind is none of them.
    pub(super) fn missing_requirements(&self, netlink: &mut Netlink, asked: &mut Asked) -> Vec<MissingRequirement> {
        let unknown = || KINDS.into_iter().zip(self.0.iter()).filter(|(_, known)| !known.load(Ordering::Relaxed));
        let kinds: Vec<&str> = unknown().map(|((kind, _), _)| kind).collect();
        if kinds.is_empty() {
            return Vec::new();
        }
        if let Some((at, about, told)) = &asked.0
            && at.elapsed() < PACE
            && kinds.iter().all(|kind| about.contains(kind))
        {
            return told.clone();
        }
        let mut lacks = Vec::new();
        for ((kind, module), known) in unknown() {
            match ask(netlink, kind) {
                Some(Ok(())) => known.store(true, Ordering::Relaxed),
                Some(Err(said)) => lacks.push(MissingRequirement::Module { module, said }),
                None => {}
            }
        }
        asked.0 = Some((Instant::now(), kinds, lacks.clone()));
        lacks
    }
}

/// As what the kernel's answer is read.
const PART: Request = Request::Create;

/// Whether the kernel knows a kind, from a message that makes no link: a kind that is known refuses a MAC of five octets, one
/// that is not is refused before (`rtnl_newlink`, net/core/rtnetlink.c). None where it says something else.
fn ask(netlink: &mut Netlink, kind: &'static str) -> Option<Result<(), String>> {
    let mut batch = Batch::default();
    let link = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind.into()).address(vec![0x02, 0, 0, 0, 0]);
    batch.add(PART, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(link.build()));
    let answer =
        failpoints::call(("module", kind), || netlink.answer(batch, |_| Ok(Some(()))), |errno| Failure::system(PART, errno));
    match answer {
        Err(failure) if failure.errno == Some(Errno::EINVAL) => Some(Ok(())),
        Err(failure) if failure.kind == OpErrorKind::ModuleMissing => Some(Err(failure.said)),
        _ => None,
    }
}

/// Whether the tun driver runs, wherever its node may be.
pub(super) fn has_tun() -> bool {
    Path::new("/sys/class/misc/tun").exists()
}
