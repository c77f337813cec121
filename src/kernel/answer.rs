//! What the kernel answers to a message, and what that means.

use std::fmt;

use netlink_packet_core::{ErrorBuffer, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_DONE};
use nix::errno::Errno;

use super::message::{self, Message};
use super::untyped::NLMSGERR_ATTR_MSG;
use super::{DESCRIPTORS_REMEDY, OpError, Trouble, modules, no_descriptors};
use crate::model::Mac;
use crate::plan::{Address, Op, Route};

/// What one message, or one step beside netlink, is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Making the device.
    Create,
    /// Its altname.
    Mark,
    /// Switching IPv6 address generation off.
    V6Off,
    /// Its MAC, MTU and bridge, and IPv6 address generation where that is switched off with them.
    Link,
    /// A static entry in the bridge's FDB.
    Fdb(Mac),
    /// Its flags as a bridge port, with its seal where there is one.
    PortFlags,
    /// Setting it up or down, with its alias where there is one.
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
    /// Entering a guest's namespace.
    Namespace,
    /// An address of a guest's.
    Address(Address),
    /// A route of a guest's.
    Route(Route),
    /// An address or a route that is to go.
    Stale,
    /// Looking.
    Look,
    /// Opening a socket.
    Open,
}

impl Part {
    /// Its word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Mark => "mark",
            Self::V6Off => "v6_off",
            Self::Link => "link",
            Self::Fdb(_) => "fdb",
            Self::PortFlags => "port_flags",
            Self::Switch => "switch",
            Self::Persist => "persist",
            Self::Unbind => "unbind",
            Self::Group => "group",
            Self::Delete => "delete",
            Self::Close => "close",
            Self::Namespace => "namespace",
            Self::Address(_) => "address",
            Self::Route(_) => "route",
            Self::Stale => "stale",
            Self::Look => "look",
            Self::Open => "open",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create => f.write_str("making the device"),
            Self::Mark => f.write_str("its altname"),
            Self::V6Off => f.write_str("IPv6 address generation off"),
            Self::Link => f.write_str("MAC, MTU and bridge"),
            Self::Fdb(mac) => write!(f, "the bridge's static entry for {mac}"),
            Self::PortFlags => f.write_str("bridge port flags"),
            Self::Switch => f.write_str("up or down"),
            Self::Persist => f.write_str("making the tap persistent"),
            Self::Unbind => f.write_str("taking it out of the bridge"),
            Self::Group => f.write_str("its group"),
            Self::Delete => f.write_str("deleting it"),
            Self::Close => f.write_str("closing it to the host"),
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

/// One message's refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What was refused.
    pub(super) part: Part,
    /// Why.
    pub(super) errno: Errno,
    /// The kernel's own words (ext-ack), where it has any.
    pub(super) text: Option<String>,
}

impl Refusal {
    /// Reads an `NLMSG_ERROR` or `NLMSG_DONE`; none when it acknowledges.
    pub(super) fn read(part: Part, message: &Message<'_>) -> Option<Self> {
        let errno = match ErrorBuffer::new_checked(message.payload()) {
            Ok(answer) => Errno::from_raw(answer.code()?.get().saturating_neg()),
            // The end of a dump need not have an errno.
            Err(_) if message.message_type() == NLMSG_DONE => return None,
            Err(_) => Errno::EBADMSG,
        };
        Some(Self { part, errno, text: said(message) })
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

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// What it means.
    pub(super) trouble: Trouble,
    /// At what it failed.
    pub(super) part: Part,
    /// In words.
    pub(super) said: String,
    /// The kernel's number for it, where it gave one.
    pub(super) errno: Option<Errno>,
}

impl Failure {
    /// A failure that no message's refusal tells.
    pub(super) fn new(trouble: Trouble, part: Part, said: impl Into<String>) -> Self {
        Self { trouble, part, said: said.into(), errno: None }
    }

    /// A system call's failure.
    pub(super) fn system(part: Part, errno: Errno) -> Self {
        Refusal { part, errno, text: None }.into()
    }

    /// The same, with the module that it is for want of.
    pub(super) fn wanting(self, module: &str) -> Self {
        match self.trouble {
            Trouble::ModuleMissing => {
                Self { said: format!("module {module} is missing ({}); {}", self.said, modules::remedy(module)), ..self }
            }
            _ => self,
        }
    }

    /// The same, known to mean something else.
    pub(super) fn meaning(self, trouble: Trouble) -> Self {
        Self { trouble, ..self }
    }

    /// For the caller of the room, with the object's name.
    pub(super) fn during(self, doing: &str) -> OpError {
        OpError { trouble: self.trouble, doing: format!("{doing}: {}", self.part), said: self.said }
    }
}

/// Where IPv6 is switched off, by what the kernel says of an address, and what would be right (`addrconf_add_dev`,
/// net/ipv6/addrconf.c; without the protocol nobody takes the message).
fn no_ipv6(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES => {
            "IPv6 is switched off in the guest's namespace: set net.ipv6.conf.all.disable_ipv6=0 and \
             net.ipv6.conf.default.disable_ipv6=0 there, or give the port no IPv6 address"
        }
        _ => "IPv6 is switched off in this host's kernel: boot it without ipv6.disable=1, or give the port no IPv6 address",
    }
}

impl From<Refusal> for Failure {
    fn from(Refusal { part, errno, text }: Refusal) -> Self {
        let trouble = match (part, errno) {
            (_, errno) if no_descriptors(errno) => Trouble::NoDescriptors,
            (Part::Close, errno) if errno != Errno::ETIMEDOUT => Trouble::HostNotClosed,
            (_, Errno::ENODEV) => Trouble::Gone,
            // What the kernel says of a link that is in no bridge (`rtnl_fdb_add`, net/core/rtnetlink.c).
            (Part::Fdb(_), Errno::EOPNOTSUPP) => Trouble::Gone,
            (Part::Create | Part::Mark, Errno::EEXIST | Errno::EBUSY) => Trouble::Taken,
            (Part::Create, Errno::EOPNOTSUPP) => Trouble::ModuleMissing,
            (Part::Link, Errno::EXFULL) => Trouble::BridgeFull,
            (Part::Address(address), Errno::EACCES | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) if address.ip.is_ipv6() => {
                return Self { trouble: Trouble::Ipv6Off, part, said: no_ipv6(errno).to_owned(), errno: Some(errno) };
            }
            (Part::Address(_) | Part::Route(_), _) => Trouble::GuestRefused,
            (_, Errno::ETIMEDOUT) => Trouble::TimedOut,
            (_, Errno::EPERM | Errno::EACCES) => Trouble::Permission,
            _ => Trouble::Other,
        };
        let said = match text {
            Some(text) => format!("{} ({errno:?}): {text}", errno.desc()),
            None if trouble == Trouble::NoDescriptors => format!("{} ({errno:?}); {DESCRIPTORS_REMEDY}", errno.desc()),
            None => format!("{} ({errno:?})", errno.desc()),
        };
        Self { trouble, part, said, errno: Some(errno) }
    }
}

/// What an op's refusal as a whole means: as if the message by which it is known had been refused.
pub(super) fn refused(op: &Op, errno: Errno) -> OpError {
    let part = match op {
        Op::CreateBridge { .. } | Op::CreateTap { .. } | Op::CreateVeth { .. } => Part::Create,
        Op::CloseBridge { .. } => Part::Close,
        Op::SetBridge { .. } | Op::Configure { .. } => Part::Link,
        Op::Persist { .. } => Part::Persist,
        Op::ConfigureGuest { .. } => Part::Namespace,
        Op::SetLink { .. } => Part::Switch,
        Op::MarkAgain { .. } | Op::MarkBridgeAgain { .. } => Part::Mark,
        Op::Unbind { .. } => Part::Unbind,
        Op::SetGroup { .. } => Part::Group,
        Op::DeleteBridge { .. } | Op::CloseTap { .. } | Op::DeleteGroup { .. } | Op::DeleteLink { .. } => Part::Delete,
    };
    let failure = Failure::system(part, errno);
    let failure = match (op, errno) {
        (Op::CreateVeth { .. } | Op::ConfigureGuest { .. }, Errno::ENOENT) => failure.meaning(Trouble::Namespace),
        (Op::CreateVeth { .. }, Errno::ENOTUNIQ) => failure.meaning(Trouble::GuestNameTaken),
        (Op::Configure { .. }, Errno::EOPNOTSUPP) => failure.meaning(Trouble::NoBridge),
        (Op::CreateBridge { .. }, _) => failure.wanting("bridge"),
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

    fn read(part: Part, bytes: &[u8]) -> Option<Refusal> {
        Refusal::read(part, &NetlinkBuffer::new_checked(bytes).unwrap())
    }

    proptest! {
        #[test]
        fn arbitrary_answers_never_panic(body in proptest::collection::vec(any::<u8>(), 0..80), flags in any::<u16>()) {
            let _ = read(Part::Look, &answer(NLMSG_ERROR, flags, &body));
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
            let refusal = read(Part::Create, &answer(NLMSG_ERROR, flags | NLM_F_ACK_TLVS, &body)).unwrap();
            assert_eq!((refusal.errno, refusal.text.as_deref()), (Errno::EEXIST, Some("why?")));
            assert_eq!(Failure::from(refusal).trouble, Trouble::Taken);
        }
    }

    #[test]
    fn a_want_of_descriptors_is_told_as_that_whatever_was_asked() {
        for errno in [Errno::EMFILE, Errno::ENFILE] {
            for part in [Part::Open, Part::Create, Part::Close, Part::Namespace, Part::Look, Part::Persist] {
                let failure = Failure::system(part, errno);
                assert_eq!(failure.trouble, Trouble::NoDescriptors, "{part:?}");
                assert!(failure.said.contains(DESCRIPTORS_REMEDY), "{}", failure.said);
            }
            let error = NetnsError::of("/run/netns/a".as_ref(), errno);
            assert_eq!(error.trouble(), Trouble::NoDescriptors, "{error}");
        }
        assert_eq!(NetnsError::of("/run/netns/a".as_ref(), Errno::EIO).trouble(), Trouble::NamespaceRefused);
    }

    #[test]
    fn an_acknowledgement_is_no_refusal() {
        assert_eq!(read(Part::Look, &answer(NLMSG_ERROR, 0, &[0; 20])), None);
        assert_eq!(read(Part::Look, &answer(NLMSG_DONE, 0, &[])), None);
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_no_acknowledgement() {
        assert_eq!(read(Part::Look, &answer(NLMSG_ERROR, 0, &[0; 3])).map(|refusal| refusal.errno), Some(Errno::EBADMSG));
    }
}
