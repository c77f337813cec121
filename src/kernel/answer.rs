//! The kernel's answers to requests, and their meaning.

use std::fmt;

use netlink_packet_core::{ErrorBuffer, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_DONE};
use nix::errno::Errno;

use super::message::{self, Message};
use super::untyped::NLMSGERR_ATTR_MSG;
use super::{DESCRIPTORS_REMEDY, OpError, OpErrorKind, modules, no_descriptors};
use crate::model::Mac;
use crate::plan::{Address, Op, Route};

/// One request to the kernel: a netlink message or a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Making the device.
    Create,
    /// Setting its altname.
    Mark,
    /// Switching IPv6 address generation off.
    V6Off,
    /// Setting its MAC, MTU and bridge, and disabling IPv6 address generation if that is part of the message.
    Link,
    /// Its VLANs as a bridge's port.
    Vlan,
    /// A static entry in the bridge's FDB.
    Fdb(Mac),
    /// A permanent neighbour over IPv6.
    Neighbour6,
    /// The rate of what it sends.
    RateLimit,
    /// Lifting that rate.
    NoRateLimit,
    /// Holding what comes in by it to a rate.
    Redirect,
    /// Setting its bridge port flags, with its ownership tag if there is one.
    PortFlags,
    /// Setting it up or down, with its alias if there is one.
    Switch,
    /// Letting a tap outlive the process.
    Persist,
    /// Taking it out of its bridge.
    Unbind,
    /// Its group.
    Group,
    /// Deleting it.
    Delete,
    /// Closing a bridge to the host.
    Close,
    /// What a port's device may send.
    Filter,
    /// Entering a guest's namespace.
    Namespace,
    /// An address of a guest's.
    Address(Address),
    /// A route of a guest's.
    Route(Route),
    /// Removing an address or a route of a guest.
    Stale,
    /// Reading.
    Look,
    /// Opening a socket.
    Open,
}

impl Request {
    /// Its word, used in failpoint names.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Mark => "mark",
            Self::V6Off => "v6_off",
            Self::Link => "link",
            Self::Vlan => "vlan",
            Self::Fdb(_) => "fdb",
            Self::Neighbour6 => "neighbour6",
            Self::RateLimit => "rate_limit",
            Self::NoRateLimit => "no_rate_limit",
            Self::Redirect => "redirect",
            Self::PortFlags => "port_flags",
            Self::Switch => "switch",
            Self::Persist => "persist",
            Self::Unbind => "unbind",
            Self::Group => "group",
            Self::Delete => "delete",
            Self::Close => "close",
            Self::Filter => "filter",
            Self::Namespace => "namespace",
            Self::Address(_) => "address",
            Self::Route(_) => "route",
            Self::Stale => "stale",
            Self::Look => "look",
            Self::Open => "open",
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create => f.write_str("making the device"),
            Self::Mark => f.write_str("its altname"),
            Self::V6Off => f.write_str("IPv6 address generation off"),
            Self::Link => f.write_str("MAC, MTU and bridge"),
            Self::Vlan => f.write_str("its VLAN in the bridge"),
            Self::Fdb(mac) => write!(f, "the bridge's static entry for {mac}"),
            Self::Neighbour6 => f.write_str("a neighbour over IPv6"),
            Self::RateLimit => f.write_str("the rate of what it sends to its guest"),
            Self::NoRateLimit => f.write_str("no rate of what it sends to its guest"),
            Self::Redirect => f.write_str("the rate of what its guest sends"),
            Self::PortFlags => f.write_str("bridge port flags"),
            Self::Switch => f.write_str("up or down"),
            Self::Persist => f.write_str("making the tap persistent"),
            Self::Unbind => f.write_str("taking it out of the bridge"),
            Self::Group => f.write_str("its group"),
            Self::Delete => f.write_str("deleting it"),
            Self::Close => f.write_str("closing it to the host"),
            Self::Filter => f.write_str("the filter of what it may send"),
            Self::Namespace => f.write_str("the guest's namespace"),
            Self::Address(Address { ip, prefix }) => write!(f, "the guest's address {ip}/{prefix}"),
            Self::Route(Route { destination, via, .. }) => write!(f, "the guest's route to {destination} via {via}"),
            Self::Stale => f.write_str("what the guest is to have no longer"),
            Self::Look => f.write_str("looking"),
            Self::Open => f.write_str("opening a netlink socket"),
        }
    }
}

/// Length of the errno that an answer begins with.
const ERRNO: usize = 4;
/// Length of `struct nlmsghdr`.
const NLMSGHDR: usize = 16;

/// The error answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestError {
    /// The request.
    pub(super) request: Request,
    /// The errno.
    pub(super) errno: Errno,
    /// The kernel's extended error message (ext-ack), if any.
    pub(super) text: Option<String>,
}

impl RequestError {
    /// Decodes an `NLMSG_ERROR` or `NLMSG_DONE`; `None` for an acknowledgement.
    pub(super) fn read(request: Request, message: &Message<'_>) -> Option<Self> {
        let errno = match ErrorBuffer::new_checked(message.payload()) {
            Ok(answer) => Errno::from_raw(answer.code()?.get().saturating_neg()),
            // The end of a dump need not have an errno.
            Err(_) if message.message_type() == NLMSG_DONE => return None,
            Err(_) => Errno::EBADMSG,
        };
        Some(Self { request, errno, text: said(message) })
    }
}

/// The text among the attributes behind the echoed request (`netlink_ack`, net/netlink/af_netlink.c). The crate does not read it.
fn said(message: &Message<'_>) -> Option<String> {
    if message.flags() & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let echo = message.payload().get(ERRNO..)?;
    let length = match message.flags() & NLM_F_CAPPED {
        0 => usize::try_from(u32::from_ne_bytes(*echo.first_chunk()?)).ok()?.max(NLMSGHDR),
        _ => NLMSGHDR,
    };
    message::find(echo, length.checked_next_multiple_of(4)?, NLMSGERR_ATTR_MSG).map(message::text)
}

/// A failed operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Its kind.
    pub(super) kind: OpErrorKind,
    /// The failed request.
    pub(super) request: Request,
    /// The error text.
    pub(super) said: String,
    /// The errno, if the kernel gave one.
    pub(super) errno: Option<Errno>,
}

impl Failure {
    /// A failure without an errno.
    pub(super) fn new(kind: OpErrorKind, request: Request, said: impl Into<String>) -> Self {
        Self { kind, request, said: said.into(), errno: None }
    }

    /// A system call's failure.
    pub(super) fn system(request: Request, errno: Errno) -> Self {
        RequestError { request, errno, text: None }.into()
    }

    /// The same, naming the missing module.
    pub(super) fn wanting(self, module: &str) -> Self {
        match self.kind {
            OpErrorKind::ModuleMissing => {
                Self { said: format!("module {module} is missing ({}); {}", self.said, modules::remedy(module)), ..self }
            }
            _ => self,
        }
    }

    /// The same with another kind.
    pub(super) fn meaning(self, kind: OpErrorKind) -> Self {
        Self { kind, ..self }
    }

    /// Converts it to the error of an op, with the object's name.
    pub(super) fn during(self, doing: &str) -> OpError {
        OpError { kind: self.kind, doing: format!("{doing}: {}", self.request), said: self.said }
    }
}

/// Where IPv6 is disabled, by the errno of adding an address, and the remedy (`addrconf_add_dev`, net/ipv6/addrconf.c; without the
/// protocol the kernel has no handler for the message).
fn no_ipv6(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES => {
            "IPv6 is switched off in the guest's namespace: set net.ipv6.conf.all.disable_ipv6=0 and \
             net.ipv6.conf.default.disable_ipv6=0 there, or give the port no IPv6 address"
        }
        _ => "IPv6 is switched off in this host's kernel: boot it without ipv6.disable=1, or give the port no IPv6 address",
    }
}

impl From<RequestError> for Failure {
    fn from(RequestError { request, errno, text }: RequestError) -> Self {
        let kind = match (request, errno) {
            (_, errno) if no_descriptors(errno) => OpErrorKind::NoDescriptors,
            (Request::Close, errno) if errno != Errno::ETIMEDOUT => OpErrorKind::HostNotClosed,
            (Request::Filter, errno) if errno != Errno::ETIMEDOUT => OpErrorKind::FilterRefused,
            (_, Errno::ENODEV) => OpErrorKind::Gone,
            // The errno for a link that is in no bridge (`rtnl_fdb_add`, net/core/rtnetlink.c).
            (Request::Fdb(_), Errno::EOPNOTSUPP) => OpErrorKind::Gone,
            (Request::Create | Request::Mark, Errno::EEXIST | Errno::EBUSY) => OpErrorKind::Taken,
            (Request::Create, Errno::EOPNOTSUPP) => OpErrorKind::ModuleMissing,
            // The kernel knows no such kind (`qdisc_create`, net/sched/sch_api.c).
            (Request::RateLimit | Request::Redirect, Errno::ENOENT) => OpErrorKind::ModuleMissing,
            (Request::RateLimit | Request::NoRateLimit | Request::Redirect, errno) if errno != Errno::ETIMEDOUT => {
                OpErrorKind::LimitRefused
            }
            (Request::Link, Errno::EXFULL) => OpErrorKind::BridgeFull,
            (Request::Address(address), Errno::EACCES | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) if address.ip.is_ipv6() => {
                return Self { kind: OpErrorKind::Ipv6Off, request, said: no_ipv6(errno).to_owned(), errno: Some(errno) };
            }
            (Request::Address(_) | Request::Route(_), _) => OpErrorKind::GuestRefused,
            (_, Errno::ETIMEDOUT) => OpErrorKind::TimedOut,
            (_, Errno::EPERM | Errno::EACCES) => OpErrorKind::Permission,
            _ => OpErrorKind::Other,
        };
        let said = match text {
            Some(text) => format!("{} ({errno:?}): {text}", errno.desc()),
            None if kind == OpErrorKind::NoDescriptors => format!("{} ({errno:?}); {DESCRIPTORS_REMEDY}", errno.desc()),
            None => format!("{} ({errno:?})", errno.desc()),
        };
        Self { kind, request, said, errno: Some(errno) }
    }
}

/// The error of an op that failed as a whole, by its most important request.
pub(super) fn refused(op: &Op, errno: Errno) -> OpError {
    let request = match op {
        Op::CreateBridge { .. } | Op::CreateVlan { .. } | Op::CreateVxlan { .. } => Request::Create,
        Op::CreateTap { .. } | Op::CreateVeth { .. } | Op::CreateVlanNic { .. } => Request::Create,
        Op::CloseBridge { .. } => Request::Close,
        Op::SetFilter { .. } | Op::SetProfiles { .. } | Op::SetMembers { .. } => Request::Filter,
        Op::SetBridge { .. } | Op::SetSegment { .. } | Op::Configure { .. } => Request::Link,
        Op::SetEntries { .. } => Request::Fdb(Mac::NOBODY),
        Op::AdoptUplink { .. } | Op::ReleaseUplink { .. } => Request::Link,
        // No kernel is asked for these.
        Op::PlugNic { .. } | Op::UnplugNic { .. } => Request::Link,
        Op::Persist { .. } => Request::Persist,
        Op::ConfigureGuest { .. } => Request::Namespace,
        Op::SetLink { .. } => Request::Switch,
        Op::RestoreAltname { .. } | Op::RestoreBridgeAltname { .. } | Op::RestoreSegmentAltname { .. } => Request::Mark,
        Op::Unbind { .. } => Request::Unbind,
        Op::SetGroup { .. } => Request::Group,
        Op::DeleteBridge { .. }
        | Op::DeleteSegment { .. }
        | Op::CloseTap { .. }
        | Op::DeleteGroup { .. }
        | Op::DeleteLink { .. } => Request::Delete,
    };
    let failure = Failure::system(request, errno);
    let failure = match (op, errno) {
        (Op::CreateVeth { .. } | Op::ConfigureGuest { .. }, Errno::ENOENT) => failure.meaning(OpErrorKind::Namespace),
        (Op::CreateVeth { .. }, Errno::ENOTUNIQ) => failure.meaning(OpErrorKind::GuestNameTaken),
        (Op::Configure { .. }, Errno::EOPNOTSUPP) => failure.meaning(OpErrorKind::NoBridge),
        (Op::CreateBridge { .. }, _) => failure.wanting("bridge"),
        (Op::CreateVlan { .. } | Op::CreateVlanNic { .. }, _) => failure.wanting("8021q"),
        (Op::CreateVxlan { .. }, _) => failure.wanting("vxlan"),
        (Op::CreateVeth { .. }, _) => failure.wanting("veth"),
        (Op::CreateTap { .. }, _) => failure.wanting("tun"),
        _ => failure,
    };
    failure.during(op.name())
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NLMSG_ERROR, NetlinkBuffer};
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::NetnsError;

    /// An answer with this body.
    fn answer(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; NLMSGHDR + body.len()];
        let length = u32::try_from(bytes.len()).unwrap();
        let mut message = NetlinkBuffer::new(&mut bytes);
        message.set_length(length);
        message.set_message_type(kind);
        message.set_flags(flags);
        message.payload_mut().copy_from_slice(body);
        bytes
    }

    fn read(request: Request, bytes: &[u8]) -> Option<RequestError> {
        RequestError::read(request, &NetlinkBuffer::new_checked(bytes).unwrap())
    }

    proptest! {
        #[test]
        fn arbitrary_answers_never_panic(body in proptest::collection::vec(any::<u8>(), 0..80), flags in any::<u16>()) {
            let _ = read(Request::Look, &answer(NLMSG_ERROR, flags, &body));
        }
    }

    #[test]
    fn the_kernels_words_are_read_behind_either_echo() {
        let tlv = [9, 0, 1, 0, b'w', b'h', b'y', b'?', 0, 0, 0, 0];
        for (flags, request) in [(NLM_F_CAPPED, 16_usize), (0, 24)] {
            let mut body = (-17_i32).to_ne_bytes().to_vec();
            body.extend_from_slice(&u32::try_from(24).unwrap().to_ne_bytes());
            body.resize(4 + request, 0);
            body.extend_from_slice(&tlv);
            let refusal = read(Request::Create, &answer(NLMSG_ERROR, flags | NLM_F_ACK_TLVS, &body)).unwrap();
            assert_eq!((refusal.errno, refusal.text.as_deref()), (Errno::EEXIST, Some("why?")));
            assert_eq!(Failure::from(refusal).kind, OpErrorKind::Taken);
        }
    }

    #[test]
    fn a_want_of_descriptors_is_told_as_that_whatever_was_asked() {
        for errno in [Errno::EMFILE, Errno::ENFILE] {
            for request in [Request::Open, Request::Create, Request::Close, Request::Namespace, Request::Look, Request::Persist] {
                let failure = Failure::system(request, errno);
                assert_eq!(failure.kind, OpErrorKind::NoDescriptors, "{request:?}");
                assert!(failure.said.contains(DESCRIPTORS_REMEDY), "{}", failure.said);
            }
            let error = NetnsError::of("/run/netns/a".as_ref(), errno);
            assert_eq!(error.kind(), OpErrorKind::NoDescriptors, "{error}");
        }
        assert_eq!(NetnsError::of("/run/netns/a".as_ref(), Errno::EIO).kind(), OpErrorKind::NamespaceRefused);
    }

    #[test]
    fn an_acknowledgement_is_no_refusal() {
        assert_eq!(read(Request::Look, &answer(NLMSG_ERROR, 0, &[0; 20])), None);
        assert_eq!(read(Request::Look, &answer(NLMSG_DONE, 0, &[])), None);
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_no_acknowledgement() {
        assert_eq!(read(Request::Look, &answer(NLMSG_ERROR, 0, &[0; 3])).map(|refusal| refusal.errno), Some(Errno::EBADMSG));
    }
}
