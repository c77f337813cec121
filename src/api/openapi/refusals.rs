//! Every refusal there is, once, with what a request must do to meet it. Status, words and envelope come from `faults`, so
//! a document made of these says what the daemon says.

use axum::http::Method;
use serde_json::Value;
use uuid::Uuid;

use crate::api::dialect::{COMPUTE, Dialect, Envelope};
use crate::api::faults::{self, Refusal, What};
use crate::api::fields::BodyError;
use crate::api::listener::Limits;
use crate::kernel::{NetnsError, OpError, Trouble};
use crate::manager::Error;
use crate::model::mac::MacError;
use crate::model::subnet::SubnetError;
use crate::model::{Mac, NetworkId, PortId, ServerId, SubnetId, names};
use crate::plan::{HostUse, NotOurs, PlanError};
use crate::store::StoreError;

/// What a request does on its way: each may end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Is sent, whatever it is: what the listener refuses.
    Any,
    /// Is no GET.
    Write,
    /// Has parameters in its path.
    Path,
    /// Reads its query.
    Query,
    /// Reads a body.
    Body,
    /// Speaks a microversion.
    Version,
    /// May have an idempotency key.
    Key,
    /// Takes a new object's id from the path.
    OwnId,
    /// Looks up a server.
    Server,
    /// Looks up a port.
    Port,
    /// Looks up one of a server's ports.
    PortOfServer,
    /// Looks up a network.
    Network,
    /// Looks up a subnet.
    Subnet,
    /// Looks up a flavor.
    Flavor,
    /// Says itself which port, network and address an attach is for, as Nova's does.
    NovaAttach,
    /// Attaches under Rackspace's rule.
    OnePerNetwork,
    /// Gives a port to a server.
    Attach,
    /// Makes networks.
    NewNetwork,
    /// Changes a network.
    ChangeNetwork,
    /// Removes a network.
    DropNetwork,
    /// Makes subnets.
    NewSubnet,
    /// Changes a subnet.
    ChangeSubnet,
    /// Removes a subnet.
    DropSubnet,
    /// Makes ports.
    NewPort,
    /// Changes a port.
    ChangePort,
    /// May be for one revision alone.
    Conditional,
    /// Makes a server known.
    PutServer,
    /// Forgets a server.
    DropServer,
    /// Reads the number of an event.
    LastEvent,
    /// Asks kernel and store how they are.
    Host,
    /// Asks how the daemon fares.
    Health,
}

use Act::*;

/// A refusal as a client gets it.
pub(super) struct Shown {
    pub status: u16,
    pub body: Value,
}

impl Shown {
    fn new(refusal: &Refusal, dialect: Dialect) -> Self {
        let told = faults::told(refusal, dialect);
        Self { status: told.status.as_u16(), body: told.body(dialect) }
    }
}

/// Every refusal that a request of a dialect that does `acts` can meet.
pub(super) fn of(acts: &[Act], dialect: Dialect) -> Vec<Shown> {
    let met = all().into_iter().filter(|(_, met)| met.iter().any(|act| *act == Any || acts.contains(act)));
    let each = |(refusal, _)| envelopes(&refusal, dialect).into_iter().map(move |dialect| Shown::new(&refusal, dialect));
    met.flat_map(each).collect()
}

/// In which envelopes it comes: the path's, Nova's where the path is not known yet, or either.
fn envelopes(refusal: &Refusal, dialect: Dialect) -> Vec<Dialect> {
    match refusal {
        Refusal::Malformed | Refusal::TooSlow { .. } if dialect.envelope == Envelope::Network => vec![dialect, COMPUTE],
        Refusal::HeadersTooLarge { .. } | Refusal::Crowded => vec![COMPUTE],
        _ => vec![dialect],
    }
}

fn all() -> Vec<(Refusal, &'static [Act])> {
    let managed = manager().into_iter().map(|(error, acts)| (Refusal::Manager(error), acts));
    listener().into_iter().chain(readers()).chain(managed).collect()
}

/// With the daemon's limits.
fn listener() -> Vec<(Refusal, &'static [Act])> {
    let limits = Limits::default();
    vec![
        (Refusal::Malformed, &[Any]),
        (Refusal::Unauthorized { uid: 1000 }, &[Any]),
        (Refusal::ReadOnly { method: Method::POST }, &[Write]),
        (Refusal::TooSlow { limit: limits.arrival }, &[Any]),
        (Refusal::BodyTooLarge { limit: limits.body_bytes }, &[Any]),
        (Refusal::HeadersTooLarge { limit: limits.header_bytes }, &[Any]),
        (Refusal::Crowded, &[Any]),
        (Refusal::ManyReaders, &[Any]),
        (Refusal::Internal, &[Any]),
    ]
}

fn readers() -> Vec<(Refusal, &'static [Act])> {
    let field = |why: &str| BodyError::Field { field: "name".into(), value: "5".into(), why: why.into() };
    let unknown = |what| Refusal::Unknown { what, id: "none".into() };
    vec![
        (Refusal::Body(BodyError::Json("expected value at line 1 column 1".into())), &[Body]),
        (Refusal::Body(BodyError::Twice("the key 'name' is given twice at line 1 column 20".into())), &[Body]),
        (Refusal::Body(BodyError::Top("Additional properties are not allowed ('colour' was unexpected)".into())), &[Body]),
        (Refusal::Body(field("5 is not of type 'string'")), &[Body]),
        (Refusal::Body(BodyError::NotBuilt("port_security_enabled = true".into())), &[Body]),
        (Refusal::Query("'colour' is not an attribute of this resource".into()), &[Query, LastEvent]),
        (Refusal::MediaType("text/plain".into()), &[Body]),
        (Refusal::MicroversionMalformed("two".into()), &[Version]),
        (Refusal::MicroversionUnsupported { asked: "2.99".into(), min: "2.1".into(), max: "2.70".into() }, &[Version]),
        (Refusal::BadKey, &[Key]),
        (Refusal::KeyMismatch("a-key".into()), &[Key]),
        (Refusal::NetworkAndPort, &[NovaAttach]),
        (Refusal::AddressWithoutNetwork, &[NovaAttach]),
        (unknown(What::Server), &[Server]),
        (unknown(What::Port), &[Port, PortOfServer]),
        (unknown(What::Network), &[Network]),
        (unknown(What::Subnet), &[Subnet]),
        (unknown(What::Flavor), &[Flavor]),
        (Refusal::UseAttach { device: server().to_string(), port: None }, &[NewPort, ChangePort]),
        (Refusal::BadCondition("none".into()), &[Conditional]),
        (Refusal::BadId("'none' is not a 'uuid': 32 hexadecimal digits are expected".into()), &[OwnId]),
        (Refusal::BadPath("/v2.0/ports/%FF".into()), &[Path]),
        (Refusal::NoRoute("/v3".into()), &[]),
        (Refusal::BadMethod { method: "PATCH".into(), path: "/v2.0/ports".into() }, &[]),
        (Refusal::Starting("12 ports: 9 active, 3 in build; starting".into()), &[Health]),
    ]
}

fn manager() -> Vec<(Error, &'static [Act])> {
    [objects(), addresses(), limits(), guests(), host(), store()].into_iter().flatten().collect()
}

fn objects() -> Vec<(Error, &'static [Act])> {
    vec![
        (Error::NoSuchNetwork(network()), &[Network, NewSubnet, NewPort, NovaAttach, OnePerNetwork]),
        (Error::NoSuchSubnet(subnet()), &[Subnet, NewPort, ChangePort]),
        (Error::NoSuchServer(server()), &[Server]),
        (Error::NoSuchPort(port()), &[Port, PortOfServer, NovaAttach]),
        (Error::PortNotOnServer { server: server(), port: port() }, &[PortOfServer]),
        (Error::PortInUse(port()), &[NovaAttach]),
        (Error::IdTaken(uuid()), &[NewNetwork, NewSubnet, NewPort]),
        (Error::NetworkInUse { network: network(), ports: 2 }, &[DropNetwork]),
        (Error::SubnetInUse { subnet: subnet(), ports: 2 }, &[DropSubnet]),
        (Error::ServerHasNics { server: server(), nics: 1 }, &[DropServer]),
        (Error::KindChange { server: server(), is: "vm", asked: "netns" }, &[PutServer]),
        (Error::NeedsDetach { what: "mac_address", port: port() }, &[ChangePort]),
        (Error::MtuInUse { network: network() }, &[ChangeNetwork]),
        (Error::RevisionMismatch { asked: 3, is: 4 }, &[Conditional]),
    ]
}

fn addresses() -> Vec<(Error, &'static [Act])> {
    const ASKED: &[Act] = &[NovaAttach, NewPort, ChangePort];
    let ip = std::net::IpAddr::from([10, 0, 0, 5]);
    let mac = Mac([0xfa, 0x16, 0x3e, 0x63, 0x75, 0xb2]);
    let loopback = ipnetwork::IpNetwork::V4(std::net::Ipv4Addr::LOCALHOST.into());
    let not_for_guests = SubnetError::NotForGuests { cidr: loopback, what: "loopback", block: loopback };
    let of_host = Error::AddressOfHost { ip, host: "node1".into(), device: "br0".into(), of: HostUse::Own };
    let overlap = Error::SubnetOverlap { cidr: "10.0.0.0/24".into(), other: subnet(), other_cidr: "10.0.0.0/16".into() };
    let empty = Error::PoolEmpty { network: network(), cidr: "10.0.0.0/24".into(), size: 253, used: 253 };
    vec![
        (Error::AddressInUse { ip, network: network(), port: port() }, ASKED),
        (of_host, ASKED),
        (Error::GatewayInUse { gateway: ip, port: port() }, &[ChangeSubnet]),
        (Error::AddressOutside { ip, network: network(), subnets: "10.1.0.0/24".into() }, ASKED),
        (Error::AddressKept { ip, why: "the network or broadcast address" }, ASKED),
        (Error::SubnetOfOther { subnet: subnet(), network: network() }, &[NewPort, ChangePort]),
        (empty, &[Attach, NewPort, ChangePort]),
        (Error::NoSubnet(network()), &[Attach]),
        (Error::MacInUse { mac, by: format!("port {}", port()) }, &[NewPort, ChangePort]),
        (Error::Mac(MacError::Zero), &[NewPort, ChangePort]),
        (overlap, &[NewSubnet]),
        (Error::Subnet(not_for_guests), &[NewSubnet, ChangeSubnet]),
    ]
}

fn limits() -> Vec<(Error, &'static [Act])> {
    vec![
        (Error::TooManyAddresses { given: 17, limit: 16 }, &[NewPort, ChangePort]),
        (Error::TooManyNics { server: server(), limit: 12 }, &[Attach]),
        (Error::SecondOnNetwork { server: server(), network: network() }, &[OnePerNetwork]),
        (Error::TooManySubnets { network: network(), limit: 64 }, &[NewSubnet]),
        (Error::NoNetwork("demo".into()), &[NovaAttach]),
        (Error::SeveralNetworks, &[NovaAttach]),
        (Error::Plan(PlanError::BridgeFull("br-ex".into())), &[Attach]),
    ]
}

fn guests() -> Vec<(Error, &'static [Act])> {
    let path = || "/run/netns/blue".to_owned();
    let ipv6_off = op(Trouble::Ipv6Off, "setting addresses in the guest", "IPv6 is switched off in the guest's namespace");
    let refused = op(Trouble::GuestRefused, "setting addresses in the guest", "Invalid argument (EINVAL)");
    vec![
        (Error::Netns(NetnsError::Missing(path())), &[PutServer]),
        (Error::Netns(NetnsError::NotNetns(path())), &[PutServer]),
        (Error::Netns(NetnsError::Own(path())), &[PutServer]),
        (Error::Netns(NetnsError::OwnProcess("/proc/self/ns/net".to_owned())), &[PutServer]),
        (Error::Netns(NetnsError::Refused { path: path(), said: "Operation not permitted (EPERM)".into() }), &[PutServer]),
        (Error::Netns(NetnsError::Hanging(path())), &[PutServer]),
        (Error::Netns(NetnsError::NoDescriptors { path: path(), said: "Too many open files (EMFILE)".into() }), &[PutServer]),
        (Error::Netns(NetnsError::Helper { path: path(), said: "Connection refused (os error 111)".into() }), &[PutServer]),
        (Error::NamespaceChanged { path: path(), server: server() }, &[PutServer, Attach]),
        (Error::NamespaceGone { path: path(), server: server(), by_process: false }, &[Attach]),
        (Error::GuestNameTaken { name: "eth0".into(), server: server() }, &[Attach]),
        (Error::GuestRefused(refused), &[Attach]),
        (Error::Ipv6Disabled(ipv6_off), &[Attach]),
    ]
}

fn host() -> Vec<(Error, &'static [Act])> {
    const KERNEL: &[Act] = &[Attach, NewNetwork, ChangeNetwork, DropNetwork];
    const ANY: &[Act] = &[Attach, NewNetwork, ChangeNetwork, DropNetwork, Host];
    let bridge = || "br0".to_owned();
    let kernel = |trouble, said: &str| Error::Kernel(op(trouble, "making device nicdce531f90199", said));
    let above = PlanError::MtuAboveBridge { mtu: 9000, bridge: bridge(), bridge_mtu: 1500 };
    let altname = names::port_altname(port());
    let not_ours = NotOurs { link: "br0".into(), kind: "bridge", altname, store: None };
    let not_undone = Error::NotUndone { cause: "the bridge is full".into(), left: "deleting nicdce531f90199".into() };
    vec![
        (Error::BridgeNotAllowed { bridge: bridge(), why: "it holds this host's default route".into() }, &[NewNetwork]),
        (Error::Plan(PlanError::NoSuchBridge(bridge())), &[Attach, NewNetwork, ChangeNetwork]),
        (Error::Plan(PlanError::NotABridge(bridge())), &[Attach, NewNetwork, ChangeNetwork]),
        (Error::Plan(above), &[Attach, NewNetwork, ChangeNetwork]),
        (Error::Plan(PlanError::NoFreeName(bridge())), &[Attach, ChangeNetwork]),
        (Error::Plan(PlanError::NotOurs(not_ours)), &[Attach]),
        (Error::Plan(PlanError::IndexTaken(100)), &[Attach]),
        (Error::Plan(PlanError::Incomplete(port())), &[Attach]),
        (kernel(Trouble::Taken, "File exists (EEXIST)"), KERNEL),
        (kernel(Trouble::Gone, "No such device (ENODEV)"), KERNEL),
        (kernel(Trouble::Unmarked, "it has lost its altname and its alias"), &[Host]),
        (kernel(Trouble::NoBridge, "No such device (ENODEV)"), KERNEL),
        (kernel(Trouble::Permission, "Operation not permitted (EPERM)"), ANY),
        (kernel(Trouble::ModuleMissing, "module veth is missing (Operation not supported (EOPNOTSUPP))"), &[Attach]),
        (kernel(Trouble::HostNotClosed, "Operation not supported (EOPNOTSUPP)"), &[Attach]),
        (kernel(Trouble::NamespaceRefused, "/run/netns/blue cannot be entered: Input/output error (EIO)"), &[Attach]),
        (kernel(Trouble::NoDescriptors, "Too many open files (EMFILE)"), ANY),
        (kernel(Trouble::Hanging, "/run/netns/blue does not open"), &[Attach]),
        (kernel(Trouble::Helper, "nicd-netns does not answer"), &[Attach]),
        (kernel(Trouble::TimedOut, "no answer in 5 s"), ANY),
        (kernel(Trouble::Other, "Invalid argument (EINVAL)"), ANY),
        (not_undone, &[Attach]),
    ]
}

fn store() -> Vec<(Error, &'static [Act])> {
    vec![
        (Error::Store(StoreError::Full), &[Write]),
        (Error::Store(StoreError::Busy), &[Write, Host]),
        (Error::Store(StoreError::Replaced("/var/lib/nicd/nicd.db is gone".into())), &[Write, Host]),
        (Error::Store(StoreError::Damaged("database disk image is malformed".into())), &[Write]),
        (Error::Store(StoreError::Failed("disk I/O error".into())), &[Write, Host]),
        (Error::Store(StoreError::NoDescriptors("Too many open files (EMFILE)".into())), &[Write, Host]),
        (Error::Stopping, &[Write, Host]),
    ]
}

fn op(trouble: Trouble, doing: &str, said: &str) -> OpError {
    OpError { trouble, doing: doing.to_owned(), said: said.to_owned() }
}

/// The same id for everything in an example: what it is of the sentence says.
const fn uuid() -> Uuid {
    Uuid::from_u128(0xce53_1f90_199f_48c0_816c_13e3_8010_b442)
}

fn server() -> ServerId {
    ServerId(uuid())
}

fn port() -> PortId {
    PortId(uuid())
}

fn network() -> NetworkId {
    NetworkId(uuid())
}

fn subnet() -> SubnetId {
    SubnetId(uuid())
}

/// The word inside a refusal's envelope.
pub(super) fn reason(body: &Value) -> &str {
    inner(body).get("reason").and_then(Value::as_str).unwrap_or_default()
}

/// What is inside a refusal's envelope.
pub(super) fn inner(body: &Value) -> &Value {
    body.as_object().and_then(|top| top.values().next()).unwrap_or(&Value::Null)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::api::dialect::{NETWORK, RACKSPACE};

    use super::*;

    /// The stable words in a source: its string literals of lower-case words.
    fn words(source: &'static str, from: &str, to: &str) -> BTreeSet<&'static str> {
        let start = source.find(from).unwrap();
        let text = &source[start..];
        let text = &text[..text.find(to).unwrap_or(text.len())];
        let literals = text.split('"').skip(1).step_by(2);
        literals.filter(|word| word.len() > 3 && word.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())).collect()
    }

    #[test]
    fn every_reason_there_is_can_be_shown() {
        let shown: BTreeSet<&str> = all().iter().map(|(refusal, _)| faults::told(refusal, COMPUTE).reason).collect();
        let manager = words(include_str!("../../manager/error.rs"), "pub fn reason", "\n    }\n");
        let others = words(include_str!("../faults.rs"), "fn told(", "\n/// Status and Neutron's");
        assert!(manager.len() > 40 && others.len() > 21, "{manager:?} {others:?}");
        for word in manager.into_iter().chain(others) {
            assert!(shown.contains(word), "{word} is in no example: give it a place above");
        }
    }

    #[test]
    fn the_dialects_tell_the_same_refusal_differently() {
        let statuses = |acts: &[Act], dialect, word: &str| {
            let of = of(acts, dialect).into_iter().filter(|shown| reason(&shown.body) == word);
            of.map(|shown| shown.status).collect::<Vec<_>>()
        };
        assert_eq!(statuses(&[Attach], COMPUTE, "too_many_nics"), [403]);
        assert_eq!(statuses(&[Attach], RACKSPACE, "too_many_nics"), [413]);
        assert_eq!(statuses(&[NewPort], NETWORK, "pool_empty"), [409]);
        assert_eq!(statuses(&[Attach], COMPUTE, "pool_empty"), [400]);
    }
}
