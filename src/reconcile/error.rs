//! Why what was asked for is not done. Knows no HTTP: `api/status.rs` gives each word its status.

use ipnetwork::IpNetwork;

use crate::inventory;
use crate::inventory::neighbours::Conflict;
use crate::inventory::uplinks::SegmentError;
use crate::kernel::{NetnsError, OpError, OpErrorKind};
use crate::model::rule::RuleError;
use crate::model::subnet::SubnetError;
use crate::model::{GroupId, JobId, Mac, NetworkId, PortId, RuleId, ServerId, SubnetId, TrunkId};
use crate::monitor::MonitorError;
use crate::plan::PlanError;
use crate::queue::QueueError;
use crate::store::StoreError;

use super::uplinks::UplinkError;

/// A refusal. The message says what was wrong, with the value, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// What is known refuses it.
    #[error(transparent)]
    Inventory(#[from] inventory::Error),
    /// The fleet has no host of that name.
    #[error("there is no host '{0}' in the fleet")]
    NoSuchHost(String),
    /// Only a host that is gone can be forgotten: another one would go on with its addresses.
    #[error("host '{0}' is alive; stop its nicd for good before it is forgotten")]
    HostAlive(String),
    /// Another host does not answer.
    #[error("host '{host}' of the fleet has not answered in 10 s{}", waiting(port.as_ref()))]
    HostSilent {
        /// The host's name.
        host: String,
        /// The port that is made once it is back.
        port: Option<PortId>,
    },
    /// The host has no silent device for the port.
    #[error("port {port} has no binding on host '{host}'")]
    NoSuchBinding {
        /// The port.
        port: PortId,
        /// The host's name.
        host: String,
    },
    /// The host has one.
    #[error("port {port} has a binding on host '{host}' already")]
    BindingExists {
        /// The port.
        port: PortId,
        /// The host's name.
        host: String,
    },
    /// The port is active there.
    #[error("port {port} is active on host '{host}'; detach it, or make it active on another host first")]
    BindingActive {
        /// The port.
        port: PortId,
        /// The host's name.
        host: String,
    },
    /// The port stays where it is.
    #[error("port {port} cannot be moved: {why}")]
    NotMovable {
        /// The port.
        port: PortId,
        /// Why.
        why: &'static str,
    },
    /// Another host has it.
    #[error("{what} is reserved by host '{host}' of the fleet; ask that one, choose another, or leave it out to get a free one")]
    OfOtherHost {
        /// What.
        what: String,
        /// The host's name.
        host: String,
    },
    /// Ports of other hosts use it.
    #[error("{what} is in use by ports of other hosts ({}); {} first", hosts.join(", "), set_free(reason))]
    InUseElsewhere {
        /// What.
        what: String,
        /// The hosts' names.
        hosts: Vec<String>,
        /// The stable word.
        reason: &'static str,
    },
    /// More than one transaction of etcd's takes.
    #[error(
        "that is too much to change for all hosts at once ({parts} parts of a transaction, of which etcd takes 128); make 40 at a time, and delete rules that name a security group before it"
    )]
    TooManyAtOnce {
        /// How many parts it would have.
        parts: usize,
    },
    /// Other hosts have changed, at this revision, what it depends on: it is done again once that is followed.
    #[error("other hosts of the fleet have changed the same; try again")]
    Outdated(i64),
    /// Etcd does not answer, or not as it should.
    #[error("the fleet cannot be reached: {0}")]
    FleetUnreachable(String),
    /// No job with the id is kept.
    #[error("there is no job {}; jobs are kept for a day after their end", .0.0.simple())]
    NoSuchJob(JobId),
    /// The network cannot have what it asks for of its physical network.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The link that is to lead to the physical network cannot.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// The uplink has less room than the network is to have.
    #[error("MTU {mtu} is above the {most} that uplink {device} has room for; lower the network's mtu or raise the uplink's")]
    MtuAboveUplink {
        /// The network's, in bytes.
        mtu: u32,
        /// The uplink's name.
        device: String,
        /// The most, in bytes.
        most: u32,
    },
    /// The port is another server's, or no server's.
    #[error("Instance {server} does not have a port with id {port}")]
    PortNotOnServer {
        /// The server asked about.
        server: ServerId,
        /// The port asked for.
        port: PortId,
    },
    /// The port is attached, or on its way in or out.
    #[error("Port {0} is still in use.")]
    PortInUse(PortId),
    /// An id given for something new is taken.
    #[error("the id {0} is taken; leave it out to get a fresh one")]
    IdTaken(uuid::Uuid),
    /// Another machine has the address.
    #[error("{0}; give the port another one, or leave it out to get a free one")]
    AddressHeld(Conflict),
    /// No machine could be asked whether it has the addresses.
    #[error(
        "no machine on the network could be asked whether the addresses of port {port} are another machine's ({said}); it is tried again"
    )]
    AddressUnasked {
        /// The port.
        port: PortId,
        /// What was in the way.
        said: String,
    },
    /// The request was made for another revision than the one there is.
    #[error("Constrained to {asked}, but current revision is {is}; read it again")]
    RevisionMismatch {
        /// As asked.
        asked: u64,
        /// As it is.
        is: u64,
    },
    /// The network has no subnet to give an address from.
    #[error("Network {0} requires a subnet in order to attach interfaces; add one first.")]
    NoSubnet(NetworkId),
    /// The server has as many NICs as it may have.
    #[error("Instance {server} has {limit} interfaces and may have no more; raise its nic_limit or detach one")]
    TooManyNics {
        /// The server.
        server: ServerId,
        /// Its limit.
        limit: u32,
    },
    /// The dialect allows one NIC per server and network.
    #[error("Instance {server} already has an interface on network {network}")]
    SecondOnNetwork {
        /// The server.
        server: ServerId,
        /// The network.
        network: NetworkId,
    },
    /// Ports are on it.
    #[error("Network {network} is in use by {ports} ports; delete them first")]
    NetworkInUse {
        /// The network.
        network: NetworkId,
        /// How many.
        ports: usize,
    },
    /// Ports have addresses of it.
    #[error("Subnet {subnet} is in use by {ports} ports; delete them first")]
    SubnetInUse {
        /// The subnet.
        subnet: SubnetId,
        /// How many.
        ports: usize,
    },
    /// The server still has NICs.
    #[error("Instance {server} has {nics} interfaces; detach them first, or use ?detach=true")]
    ServerHasNics {
        /// The server.
        server: ServerId,
        /// How many.
        nics: usize,
    },
    /// A server with NICs stays what it is.
    #[error("Instance {server} is a {is} with interfaces attached and cannot become a {asked}; detach them first")]
    KindChange {
        /// The server.
        server: ServerId,
        /// Its kind.
        is: &'static str,
        /// The kind asked for.
        asked: &'static str,
    },
    /// NICs are plugged into the machine that a server's monitor leads to.
    #[error(
        "Instance {server} has {nics} interfaces plugged into its machine by its monitor, which cannot change meanwhile; detach them \
         first, or end the machine"
    )]
    MonitorInUse {
        /// The server.
        server: ServerId,
        /// How many.
        nics: usize,
    },
    /// The range overlaps another of the network.
    #[error("{cidr} overlaps subnet {other} ({other_cidr}) of the same network")]
    SubnetOverlap {
        /// The new range.
        cidr: String,
        /// The other subnet.
        other: SubnetId,
        /// Its range.
        other_cidr: String,
    },
    /// More subnets than a network may have.
    #[error("network {network} has {limit} subnets and may have no more")]
    TooManySubnets {
        /// The network.
        network: NetworkId,
        /// The limit.
        limit: usize,
    },
    /// The subnet's parts do not fit.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// The path is no guest's namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The pinned namespace is alive and the path names another.
    #[error(
        "{path} no longer names the network namespace of instance {server}, which still lives; end that one, or delete the server and add it again"
    )]
    NamespaceChanged {
        /// The path.
        path: String,
        /// The server.
        server: ServerId,
    },
    /// The server's namespace is gone.
    #[error("the network namespace of instance {server} at {path} is gone; {}", anew(*by_process))]
    NamespaceGone {
        /// The path.
        path: String,
        /// The server.
        server: ServerId,
        /// Whether the path names a process.
        by_process: bool,
    },
    /// The policy refuses the bridge.
    #[error("bridge {bridge} may not be used: {why}")]
    BridgeNotAllowed {
        /// Its name.
        bridge: String,
        /// What the policy says.
        why: String,
    },
    /// The guest has a NIC of that name.
    #[error("interface name {name} is taken in the namespace of instance {server}; choose another, or none for the lowest free")]
    GuestNameTaken {
        /// The name.
        name: String,
        /// The server.
        server: ServerId,
    },
    /// The guest, or the kernel, has no IPv6.
    #[error("the guest can have no IPv6 address: {0}")]
    Ipv6Disabled(OpError),
    /// The guest's namespace refused an address.
    #[error("the guest refused its settings: {0}")]
    GuestRefused(OpError),
    /// It can be changed only while unbound.
    #[error("{what} of port {port} can be changed only while it is detached")]
    NeedsDetach {
        /// The attribute.
        what: &'static str,
        /// The port.
        port: PortId,
    },
    /// It can be changed only without ports attached.
    #[error("mtu of network {network} can be changed only while no port on it is attached")]
    MtuInUse {
        /// The network.
        network: NetworkId,
    },
    /// A port without port security has no address pairs.
    #[error(
        "Port Security must be enabled in order to have allowed address pairs on a port; switch it on, or leave allowed_address_pairs empty"
    )]
    PortSecurityOff,
    /// A port without port security is in no group.
    #[error("Port security must be enabled in order to use security groups: switch it on, or leave security_groups empty ([])")]
    GroupsWithoutPortSecurity,
    /// More groups than a port may be in.
    #[error("{given} security groups are too many; a port may be in {limit}")]
    TooManyGroups {
        /// As asked.
        given: usize,
        /// The limit.
        limit: usize,
    },
    /// The group has ports.
    #[error("Security Group {group} in use: {ports} ports are in it; take them out of it first")]
    GroupInUse {
        /// The group.
        group: GroupId,
        /// How many ports it has.
        ports: usize,
    },
    /// The name is a project's own group's.
    #[error("Default security group already exists: a project has one group of the name default; choose another name")]
    DefaultGroupName,
    /// A project's own group keeps its name.
    #[error("Updating default security group not allowed: {0} keeps its name")]
    DefaultGroupChange(GroupId),
    /// A project's own group stays.
    #[error("Insufficient rights for removing default security group: {0} stays while filters.default_group is true")]
    DefaultGroupDelete(GroupId),
    /// No group can have such a rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// The group has a rule that allows the same.
    #[error("Security group rule already exists. Rule id is {0}.")]
    RuleExists(RuleId),
    /// More rules than a group may have.
    #[error("security group {group} may have {limit} rules and no more; delete some, or put the rule into another group")]
    TooManyRules {
        /// The group.
        group: GroupId,
        /// The limit.
        limit: usize,
    },
    /// Rules made together are of one group.
    #[error("Only allowed to update rules for one security profile at a time: give all rules the same security_group_id")]
    RulesOfSeveralGroups,
    /// A rule is of its group's project.
    #[error("project_id '{given}' is not that of security group {group}, which is '{is}'; leave it out")]
    RuleOfOtherProject {
        /// As given.
        given: String,
        /// The group.
        group: GroupId,
        /// Its project.
        is: String,
    },
    /// The pair lets through every address of its family.
    #[error("{0} in allowed_address_pairs is every address; give a longer prefix, or switch port_security_enabled off")]
    PairTooWide(IpNetwork),
    /// A pair comes twice.
    #[error("Request contains duplicate address pair: mac_address {mac} ip_address {ip}; give it once")]
    DuplicatePair {
        /// Its MAC, or the port's.
        mac: Mac,
        /// Its addresses.
        ip: IpNetwork,
    },
    /// It needs a filter, and the kernel filters nothing.
    #[error(
        "this kernel does not let nicd filter what guests send ({0}); use one with nf_tables and its bridge family \
         (CONFIG_NF_TABLES_BRIDGE), or do without a filter: port_security_enabled false on the port or its network, no nicd:isolated, \
         no trunk, and no nicd:limits from the guest"
    )]
    FiltersUnavailable(String),
    /// Rules of a port's groups that make too many keys.
    #[error(
        "the rules of these security groups overlap in too many ways: they would be more than {} entries in the kernel; use fewer ranges \
         of ports, or wider networks",
        crate::plan::groups::KEYS
    )]
    RulesTooMany,
    /// Rules of all groups that ports are in that make too many keys.
    #[error(
        "the rules of this host's security groups would be up to {keys} entries in the kernel, which is given at most {}: a rule that \
         names a group (remote_group_id) is one for each different set of groups with its own group, times each with the group that \
         it names; use remote_ip_prefix in its place, fewer rules, or fewer different sets of groups on ports",
        crate::plan::groups::KEYS_OF_ALL
    )]
    RulesOfAllTooMany {
        /// So many.
        keys: usize,
    },
    /// The kernel does not track the connections of bridges.
    #[error(
        "this kernel does not track connections of bridges ({0}), which security groups need; use one with nf_conntrack_bridge \
         (CONFIG_NF_CONNTRACK_BRIDGE) and nf_conntrack_netlink, or take the groups off the port: security_groups []"
    )]
    ConntrackUnavailable(String),
    /// More extra options than a port may have.
    #[error("{given} entries of extra_dhcp_opts are too many; a port may have {limit}")]
    TooManyOptions {
        /// How many there would be.
        given: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The port is in a trunk already, as its parent, or is to be the parent and a subport.
    #[error("Port {port} is currently in use as a trunk's parent and is not eligible for use in a trunk; name another port.")]
    ParentPortInUse {
        /// The port.
        port: PortId,
    },
    /// The port is a subport already.
    #[error("Port {port} is in use by another trunk{}; remove it from that first.", of_trunk(*trunk))]
    TrunkPortInUse {
        /// The port.
        port: PortId,
        /// The trunk; none where the request itself names the port twice.
        trunk: Option<TrunkId>,
    },
    /// The trunk has a subport with that VLAN.
    #[error("segmentation_type vlan and segmentation_id {vlan} already in use on trunk {trunk}, by port {port}; choose another.")]
    DuplicateSubPort {
        /// The VLAN.
        vlan: u16,
        /// The trunk.
        trunk: TrunkId,
        /// The port that has it.
        port: PortId,
    },
    /// The trunk has no such subport.
    #[error("SubPort on trunk {trunk} with parent port {port} could not be found.")]
    NoSuchSubPort {
        /// The trunk.
        trunk: TrunkId,
        /// The port asked for.
        port: PortId,
    },
    /// Subports of a trunk that is down stay as they are, and so does it.
    #[error("Trunk {0} is currently disabled; set its admin_state_up first.")]
    TrunkDisabled(TrunkId),
    /// The parent's NIC could not carry the subport's frames.
    #[error(
        "MTU {mtu} of subport {port} cannot be greater than MTU {parent_mtu} of its trunk, which is that of the network of its parent \
         {parent}; lower the mtu of the subport's network"
    )]
    SubPortMtu {
        /// The subport.
        port: PortId,
        /// The MTU of its network, in bytes.
        mtu: u32,
        /// The parent.
        parent: PortId,
        /// The MTU of its network, in bytes.
        parent_mtu: u32,
    },
    /// There is no VLAN to take over.
    #[error(
        "segmentation_type inherit takes over the VLAN of the network of port {port}, and network {network} has none; give \
         segmentation_type vlan with a segmentation_id"
    )]
    NoVlanToInherit {
        /// The subport.
        port: PortId,
        /// Its network.
        network: NetworkId,
    },
    /// A machine could not be asked, or refused.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// The tap that is to be handed to a machine is another process's.
    #[error("the tap of port {0} is held open by a process; the machine is given it once that closes it")]
    TapHeld(PortId),
    /// Nothing can be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The kernel refused for a reason of its own.
    #[error(transparent)]
    Kernel(OpError),
    /// It failed, and what was begun could not be taken back.
    #[error("{cause}; and undoing failed: {left}")]
    NotUndone {
        /// What failed.
        cause: String,
        /// What is left.
        left: String,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too much is under way.
    #[error("too much is under way: {0}")]
    Busy(&'static str),
    /// The daemon is stopping.
    #[error("nicd is stopping")]
    Stopping,
}

/// The trunk that has a port, where it is another's than the request's.
fn of_trunk(trunk: Option<TrunkId>) -> String {
    trunk.map(|trunk| format!(" ({trunk})")).unwrap_or_default()
}

/// What brings a guest's namespace back.
fn anew(by_process: bool) -> &'static str {
    match by_process {
        true => {
            "the path names a process, whose number may be another's by now: PUT the server again with the path of the new one"
        }
        false => "make it again",
    }
}

impl From<QueueError> for Error {
    fn from(refused: QueueError) -> Self {
        match refused {
            QueueError::Full => Self::Busy("the kernel's queue is full"),
            QueueError::Closed => Self::Stopping,
        }
    }
}

impl Error {
    /// Whether the host, the kernel, the store or the daemon itself refused, and not what is recorded or asked for.
    pub fn is_trouble(&self) -> bool {
        matches!(
            self,
            Self::Kernel(_)
                | Self::NotUndone { .. }
                | Self::Store(_)
                | Self::Busy(_)
                | Self::FleetUnreachable(_)
                | Self::HostSilent { .. }
                | Self::Stopping
                | Self::FiltersUnavailable(_)
                | Self::ConntrackUnavailable(_)
                | Self::AddressUnasked { .. }
                | Self::Netns(NetnsError::Hanging(_) | NetnsError::NoDescriptors { .. } | NetnsError::Helper { .. })
                | Self::Plan(PlanError::NotOurs(_) | PlanError::IndexTaken(_) | PlanError::Incomplete(_))
        )
    }

    /// The stable word that tests and scripts match on (`reason`).
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Inventory(error) => error.reason(),
            Self::NoSuchHost(_) => "no_such_host",
            Self::HostAlive(_) => "host_alive",
            Self::HostSilent { .. } => "host_silent",
            Self::NoSuchBinding { .. } => "no_such_binding",
            Self::BindingExists { .. } => "binding_exists",
            Self::BindingActive { .. } => "binding_active",
            Self::NotMovable { .. } => "port_not_movable",
            Self::TooManyAtOnce { .. } => "too_many_at_once",
            Self::OfOtherHost { .. } => "reserved_elsewhere",
            Self::InUseElsewhere { reason, .. } => reason,
            Self::FleetUnreachable(_) | Self::Outdated(_) => "fleet_unreachable",
            Self::NoSuchJob(_) => "no_such_job",
            Self::Segment(error) => error.reason(),
            Self::Uplink(error) => error.fault.reason(),
            Self::MtuAboveUplink { .. } => "mtu_above_uplink",
            Self::PortNotOnServer { .. } => "port_not_on_server",
            Self::PortInUse(_) => "port_in_use",
            Self::IdTaken(_) => "id_in_use",
            Self::AddressHeld(_) => "address_in_use",
            Self::AddressUnasked { .. } => "address_unasked",
            Self::RevisionMismatch { .. } => "revision_mismatch",
            Self::NoSubnet(_) => "no_subnet",
            Self::TooManyNics { .. } => "too_many_nics",
            Self::SecondOnNetwork { .. } => "already_on_network",
            Self::NetworkInUse { .. } => "network_in_use",
            Self::SubnetInUse { .. } => "subnet_in_use",
            Self::ServerHasNics { .. } => "server_has_nics",
            Self::KindChange { .. } => "kind_change",
            Self::MonitorInUse { .. } => "monitor_in_use",
            Self::SubnetOverlap { .. } => "subnet_overlap",
            Self::TooManySubnets { .. } => "too_many_subnets",
            Self::Subnet(_) => "bad_subnet",
            Self::Netns(NetnsError::Missing(_)) => "no_such_namespace",
            Self::Netns(NetnsError::NotNetns(_)) => "not_a_namespace",
            Self::Netns(NetnsError::Own(_) | NetnsError::OwnProcess(_)) => "own_namespace",
            Self::Netns(NetnsError::Refused { .. }) => "namespace_refused",
            Self::Netns(NetnsError::Hanging(_)) => "busy",
            Self::Netns(NetnsError::NoDescriptors { .. }) => "no_descriptors",
            Self::Netns(NetnsError::Helper { .. }) => "netns_helper_unreachable",
            Self::NamespaceChanged { .. } => "namespace_changed",
            Self::NamespaceGone { .. } => "namespace_gone",
            Self::BridgeNotAllowed { .. } => "bridge_not_allowed",
            Self::GuestNameTaken { .. } => "interface_name_taken",
            Self::Ipv6Disabled(_) => "ipv6_disabled",
            Self::GuestRefused(_) => "guest_refused",
            Self::NeedsDetach { .. } => "needs_detach",
            Self::MtuInUse { .. } => "mtu_in_use",
            Self::PortSecurityOff | Self::GroupsWithoutPortSecurity => "port_security_off",
            Self::TooManyGroups { .. } => "too_many_groups",
            Self::GroupInUse { .. } => "group_in_use",
            Self::DefaultGroupName | Self::DefaultGroupChange(_) | Self::DefaultGroupDelete(_) => "default_group",
            Self::Rule(error) => error.reason(),
            Self::RuleExists(_) => "rule_exists",
            Self::TooManyRules { .. } => "too_many_rules",
            Self::RulesOfSeveralGroups => "several_groups",
            Self::RuleOfOtherProject { .. } => "other_project",
            Self::PairTooWide(_) => "pair_too_wide",
            Self::DuplicatePair { .. } => "duplicate_pair",
            Self::FiltersUnavailable(_) => "filters_unavailable",
            Self::ConntrackUnavailable(_) => "conntrack_unavailable",
            Self::RulesTooMany | Self::RulesOfAllTooMany { .. } => "too_many_rules",
            Self::TooManyOptions { .. } => "too_many_options",
            Self::ParentPortInUse { .. } => "port_is_trunk_parent",
            Self::TrunkPortInUse { .. } => "port_is_subport",
            Self::DuplicateSubPort { .. } => "vlan_in_use",
            Self::NoSuchSubPort { .. } => "no_such_subport",
            Self::TrunkDisabled(_) => "trunk_disabled",
            Self::SubPortMtu { .. } | Self::Plan(PlanError::MtuAboveParent { .. }) => "mtu_above_parent",
            Self::NoVlanToInherit { .. } => "no_vlan_to_inherit",
            Self::Plan(PlanError::NoSuchBridge(_)) => "no_such_bridge",
            Self::Plan(PlanError::NotABridge(_)) => "not_a_bridge",
            Self::Plan(PlanError::MtuAboveBridge { .. }) => "mtu_above_bridge",
            Self::Plan(PlanError::BridgeFull(_)) => "bridge_full",
            Self::Plan(PlanError::NoFreeName(_)) => "no_free_name",
            Self::Plan(PlanError::NotOurs(_)) => "name_taken",
            Self::Plan(PlanError::IndexTaken(_)) => "index_taken",
            Self::Plan(PlanError::Incomplete(_)) => "internal",
            Self::Kernel(error) => match error.kind {
                OpErrorKind::Taken => "name_taken",
                OpErrorKind::Gone => "device_gone",
                OpErrorKind::Unmarked => "device_unmarked",
                OpErrorKind::NoBridge => "no_such_bridge",
                OpErrorKind::HostNotClosed => "host_not_closed",
                OpErrorKind::FilterRefused => "filter_refused",
                OpErrorKind::FiltersUnavailable => "filters_unavailable",
                OpErrorKind::ConntrackUnavailable => "conntrack_unavailable",
                OpErrorKind::LimitRefused => "limit_refused",
                OpErrorKind::ModuleMissing => "module_missing",
                OpErrorKind::Permission => "no_permission",
                OpErrorKind::Hanging => "busy",
                OpErrorKind::NamespaceRefused => "namespace_refused",
                OpErrorKind::NoDescriptors => "no_descriptors",
                OpErrorKind::Helper => "netns_helper_unreachable",
                OpErrorKind::TimedOut => "kernel_timeout",
                _ => "kernel_refused",
            },
            Self::Monitor(error) => error.reason(),
            Self::TapHeld(_) => "tap_held",
            Self::NotUndone { .. } => "not_undone",
            Self::Store(StoreError::Full) => "store_full",
            Self::Store(StoreError::Damaged(_)) => "store_damaged",
            Self::Store(StoreError::Replaced(_)) => "store_replaced",
            Self::Store(StoreError::Busy) | Self::Busy(_) => "busy",
            Self::Store(StoreError::NoDescriptors(_)) => "no_descriptors",
            Self::Store(_) => "store_failed",
            Self::Stopping => "stopping",
        }
    }
}

/// What is to be done with ports of other hosts.
fn set_free(reason: &str) -> &'static str {
    if reason == "group_in_use" { "take them out of it" } else { "delete them" }
}

/// What becomes of a request that a silent host has.
fn waiting(port: Option<&PortId>) -> String {
    match port {
        Some(port) => format!("; port {port} is made once it is back, unless it is deleted before"),
        None => "; nothing is done".to_owned(),
    }
}
