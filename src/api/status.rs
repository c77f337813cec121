//! The only file with status codes: the status of each error in each dialect, and the requests that can get it.
//!
//! Handlers, listener and the OpenAPI document read this table. 500 means a bug or an unexpected kernel error; 503 means that a
//! retry may succeed, possibly after the operator has repaired the host; 507 means that the state directory is full.

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode as S};

use super::dialect::{Dialect, Envelope, RACKSPACE};

/// Every status a request can be refused with: its key in Nova's envelope (nova/api/openstack/wsgi.py), and what it means.
const STATUSES: [(S, &str, &str); 17] = [
    (S::BAD_REQUEST, "badRequest", "The request is wrong as it is; the message says what would be right."),
    (S::UNAUTHORIZED, "unauthorized", "The caller may not use this socket."),
    (S::FORBIDDEN, "forbidden", "It may not be done."),
    (S::NOT_FOUND, "itemNotFound", "There is no such thing."),
    (S::METHOD_NOT_ALLOWED, "badMethod", "The route has other methods; `Allow` names them."),
    (S::NOT_ACCEPTABLE, FAULT, "The version asked for is not one of these."),
    (S::REQUEST_TIMEOUT, FAULT, "The request did not arrive in time; the connection closes."),
    (S::CONFLICT, "conflictingRequest", "It does not fit what is there."),
    (S::PRECONDITION_FAILED, FAULT, "It has another revision than the request was made for."),
    (S::PAYLOAD_TOO_LARGE, "overLimit", "More than is possible."),
    (S::UNSUPPORTED_MEDIA_TYPE, "badMediaType", "The body is not JSON."),
    (S::REQUEST_HEADER_FIELDS_TOO_LARGE, FAULT, "The headers are too long; the connection closes."),
    (
        S::INTERNAL_SERVER_ERROR,
        FAULT,
        "A bug in nicd, or a kernel that refuses what it should not; the log has it under the request's id.",
    ),
    (S::NOT_IMPLEMENTED, "notImplemented", "The mechanism is not built yet."),
    (S::SERVICE_UNAVAILABLE, "serviceUnavailable", "Not now; try again."),
    (S::GATEWAY_TIMEOUT, FAULT, "Another host of the fleet does not answer."),
    (S::INSUFFICIENT_STORAGE, FAULT, "The state directory is full."),
];

/// Nova's key of what has no key of its own.
const FAULT: &str = "computeFault";

/// The steps of a request that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestStep {
    /// Every request: errors of the listener.
    Any,
    /// The request is no GET.
    Write,
    /// Has parameters in its path.
    Path,
    /// Reads its query.
    Query,
    /// Reads a body.
    Body,
    /// Reads the microversion header.
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
    /// Looks up a trunk.
    Trunk,
    /// Looks up a flavor.
    Flavor,
    /// Looks up a job.
    Job,
    /// Asks the fleet.
    Fleet,
    /// Looks up a host of the fleet.
    FleetHost,
    /// Takes a host out of the fleet.
    ForgetHost,
    /// Looks up an extension.
    Extension,
    /// Looks up a subnet pool.
    SubnetPool,
    /// Selects port, network and address of an attach in the body, as Nova's attach does.
    NovaAttach,
    /// Attaches with Rackspace's limit of one NIC per network.
    OnePerNetwork,
    /// Attaches a port to a server.
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
    /// Looks up a security group.
    Group,
    /// Makes security groups.
    NewGroup,
    /// Changes a security group.
    ChangeGroup,
    /// Removes a security group.
    DropGroup,
    /// Looks up a rule of a security group.
    Rule,
    /// Makes rules of a security group.
    NewRule,
    /// Removes a rule of a security group.
    DropRule,
    /// Makes ports.
    NewPort,
    /// Puts a port that an attach makes into security groups.
    InGroups,
    /// Changes a port.
    ChangePort,
    /// Removes a port.
    DropPort,
    /// Looks up a port's binding on a host.
    PortBinding,
    /// Builds a silent device for a port on another host.
    NewBinding,
    /// Makes a port active on another host.
    MovePort,
    /// Removes a silent device.
    DropBinding,
    /// Makes trunks.
    NewTrunk,
    /// Puts ports into a trunk.
    SubPorts,
    /// Takes ports from a trunk.
    LeaveTrunk,
    /// Removes a trunk.
    DropTrunk,
    /// May require a revision.
    Conditional,
    /// Registers a server.
    PutServer,
    /// Deletes a server's registration.
    DropServer,
    /// Reads the number of an event.
    LastEvent,
    /// Reads kernel and store.
    Host,
    /// Reads the daemon's health.
    Health,
}

use RequestStep::*;

/// An error: its word, its status in each dialect, and the steps that can cause it.
#[derive(Debug)]
pub(super) struct Row {
    /// The stable word that scripts match on (`reason`).
    pub reason: &'static str,
    status: S,
    /// Where Neutron's differs.
    in_network: Option<S>,
    /// Where Rackspace's differs.
    in_rackspace: Option<S>,
    /// Neutron's exception.
    pub kind: &'static str,
    /// A request that does one of these can meet it.
    pub met_by: &'static [RequestStep],
    /// In which envelope it comes.
    pub envelope: In,
}

/// In which envelope a refusal comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum In {
    /// The path's.
    Own,
    /// Nova's: it comes before a path is known.
    Nova,
    /// Either.
    Either,
}

impl Row {
    /// Its status in a dialect.
    pub fn status(&self, dialect: Dialect) -> S {
        let own = match dialect.envelope {
            Envelope::Network => self.in_network,
            Envelope::Otc => ecs_row(self.reason).map(|_| S::BAD_REQUEST),
            Envelope::Compute if dialect == RACKSPACE => self.in_rackspace,
            Envelope::Compute => None,
        };
        own.unwrap_or(self.status)
    }

    const fn in_network(self, status: S) -> Self {
        Self { in_network: Some(status), ..self }
    }

    const fn in_rackspace(self, status: S) -> Self {
        Self { in_rackspace: Some(status), ..self }
    }

    const fn enveloped(self, envelope: In) -> Self {
        Self { envelope, ..self }
    }
}

const fn row(reason: &'static str, status: S, kind: &'static str, met_by: &'static [RequestStep]) -> Row {
    Row { reason, status, in_network: None, in_rackspace: None, kind, met_by, envelope: In::Own }
}

/// The row of a refusal. Where a word has several rows, `kind` says which; the first otherwise. A word without a row would be
/// a bug of ours, and is answered as one.
pub(super) fn find(reason: &str, kind: Option<&str>) -> &'static Row {
    const BUG: &Row = &row("internal", S::INTERNAL_SERVER_ERROR, "HTTPInternalServerError", &[]);
    TABLE.iter().find(|row| row.reason == reason && kind.is_none_or(|kind| row.kind == kind)).unwrap_or(BUG)
}

/// What takes an address that the client may name.
const ASKED: &[RequestStep] = &[NovaAttach, NewPort, ChangePort];
/// What asks etcd in a fleet.
const IN_FLEET: &[RequestStep] = &[
    Fleet,
    NewBinding,
    MovePort,
    DropBinding,
    Attach,
    NewPort,
    ChangePort,
    NewNetwork,
    ChangeNetwork,
    DropNetwork,
    NewSubnet,
    ChangeSubnet,
    DropSubnet,
    NewGroup,
    ChangeGroup,
    DropGroup,
    NewRule,
    DropRule,
];
/// What is refused to a port that moves.
const MOVED: &[RequestStep] = &[NewBinding, MovePort, PortOfServer, ChangePort, DropPort, DropServer, SubPorts];
/// What another host may have to do.
const PASSED_ON: &[RequestStep] = &[Server, Port, PortOfServer, Attach, ChangePort, DropPort, NewBinding, MovePort, DropBinding];
/// What changes the kernel.
const KERNEL: &[RequestStep] = &[Attach, ChangePort, NewNetwork, ChangeNetwork, DropNetwork];
/// What asks anything of the kernel.
const ANY_KERNEL: &[RequestStep] = &[Attach, ChangePort, NewNetwork, ChangeNetwork, DropNetwork, Host];
/// What uses the store.
const STORE: &[RequestStep] = &[Write, Host];

/// All errors.
pub(super) static TABLE: &[Row] = &[
    // The listener's.
    row("malformed_request", S::BAD_REQUEST, "HTTPBadRequest", &[Any]).enveloped(In::Either),
    row("unknown_caller", S::UNAUTHORIZED, "HTTPUnauthorized", &[Any]),
    row("client_not_allowed", S::FORBIDDEN, "HTTPForbidden", &[Any]),
    row("read_only_socket", S::FORBIDDEN, "HTTPForbidden", &[Write]),
    row("request_timeout", S::REQUEST_TIMEOUT, "HTTPRequestTimeout", &[Any]).enveloped(In::Either),
    row("body_too_large", S::PAYLOAD_TOO_LARGE, "HTTPRequestEntityTooLarge", &[Any]),
    row("headers_too_large", S::REQUEST_HEADER_FIELDS_TOO_LARGE, "HTTPRequestHeaderFieldsTooLarge", &[Any]).enveloped(In::Nova),
    row("too_many_connections", S::SERVICE_UNAVAILABLE, "HTTPServiceUnavailable", &[Any]).enveloped(In::Nova),
    row("too_many_readers", S::SERVICE_UNAVAILABLE, "HTTPServiceUnavailable", &[Any]),
    row("internal", S::INTERNAL_SERVER_ERROR, "HTTPInternalServerError", &[Any]),
    // The readers'.
    row("malformed_body", S::BAD_REQUEST, "HTTPBadRequest", &[Body]),
    row("duplicate_key", S::BAD_REQUEST, "HTTPBadRequest", &[Body]),
    row("invalid_body", S::BAD_REQUEST, "HTTPBadRequest", &[Body]),
    row("invalid_value", S::BAD_REQUEST, "InvalidInput", &[Body]),
    row("not_built", S::NOT_IMPLEMENTED, "HTTPNotImplemented", &[Body]),
    row("bad_query", S::BAD_REQUEST, "HTTPBadRequest", &[Query, LastEvent]),
    row("unsupported_media_type", S::UNSUPPORTED_MEDIA_TYPE, "HTTPUnsupportedMediaType", &[Body]),
    row("malformed_version", S::BAD_REQUEST, "HTTPBadRequest", &[Version]),
    row("unsupported_version", S::NOT_ACCEPTABLE, "HTTPNotAcceptable", &[Version]),
    row("bad_idempotency_key", S::BAD_REQUEST, "HTTPBadRequest", &[Key]),
    row("idempotency_mismatch", S::CONFLICT, "Conflict", &[Key]),
    row("network_and_port", S::BAD_REQUEST, "InvalidInput", &[NovaAttach]),
    row("address_without_network", S::BAD_REQUEST, "InvalidInput", &[NovaAttach]),
    row("use_attach", S::CONFLICT, "Conflict", &[NewPort, ChangePort]),
    row("bad_condition", S::BAD_REQUEST, "HTTPBadRequest", &[Conditional]),
    row("bad_id", S::BAD_REQUEST, "InvalidInput", &[OwnId]),
    row("bad_path", S::BAD_REQUEST, "HTTPBadRequest", &[Path]),
    // Of what the document does not have.
    row("no_such_route", S::NOT_FOUND, "HTTPNotFound", &[]),
    row("bad_method", S::METHOD_NOT_ALLOWED, "HTTPMethodNotAllowed", &[]),
    row("starting", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", &[Health]),
    row("cannot_start", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", &[Any]),
    // Of objects.
    row("no_such_network", S::NOT_FOUND, "NetworkNotFound", &[Network, NewSubnet, NewPort, NovaAttach, OnePerNetwork]),
    row("no_such_subnet", S::NOT_FOUND, "SubnetNotFound", &[Subnet, NewPort, ChangePort]),
    row("no_such_group", S::NOT_FOUND, "SecurityGroupNotFound", &[Group, NewRule, NewPort, InGroups, ChangePort]),
    row("no_such_rule", S::NOT_FOUND, "SecurityGroupRuleNotFound", &[Rule]),
    row("no_such_server", S::NOT_FOUND, "InstanceNotFound", &[Server]),
    row("no_such_port", S::NOT_FOUND, "PortNotFound", &[Port, PortOfServer, NovaAttach, SubPorts]),
    row("no_such_trunk", S::NOT_FOUND, "TrunkNotFound", &[Trunk]),
    row("no_such_subport", S::NOT_FOUND, "SubPortNotFound", &[LeaveTrunk]),
    row("no_such_flavor", S::NOT_FOUND, "FlavorNotFound", &[Flavor]),
    row("no_such_extension", S::NOT_FOUND, "ExtensionNotFound", &[Extension]),
    row("no_such_subnetpool", S::NOT_FOUND, "SubnetPoolNotFound", &[SubnetPool]),
    row("no_such_job", S::NOT_FOUND, "JobNotFound", &[Job]),
    row("no_such_host", S::NOT_FOUND, "HostNotFound", &[FleetHost]),
    row("host_alive", S::CONFLICT, "Conflict", &[ForgetHost]),
    row("fleet_unreachable", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", IN_FLEET),
    row("host_silent", S::GATEWAY_TIMEOUT, "GatewayTimeout", PASSED_ON),
    row("no_such_binding", S::NOT_FOUND, "PortBindingNotFound", &[PortBinding, MovePort, DropBinding]),
    row("binding_exists", S::CONFLICT, "PortBindingAlreadyExists", &[NewBinding]),
    row("binding_active", S::CONFLICT, "PortBindingAlreadyActive", &[MovePort, DropBinding]),
    row("port_not_movable", S::CONFLICT, "PortBindingError", MOVED),
    row("too_many_at_once", S::BAD_REQUEST, "InvalidInput", &[NewNetwork, NewSubnet, NewGroup, DropGroup, NewRule]),
    row("reserved_elsewhere", S::CONFLICT, "IpAddressInUse", ASKED),
    row("port_not_on_server", S::NOT_FOUND, "PortNotFound", &[PortOfServer]),
    row("port_in_use", S::CONFLICT, "PortInUse", &[NovaAttach, SubPorts]),
    row("port_is_trunk_parent", S::CONFLICT, "PortInUseAsTrunkParent", &[DropPort]),
    row("port_is_trunk_parent", S::CONFLICT, "ParentPortInUse", &[SubPorts]),
    row("port_is_subport", S::CONFLICT, "PortInUseAsSubPort", &[DropPort, ChangePort, NovaAttach]),
    row("port_is_subport", S::CONFLICT, "TrunkPortInUse", &[SubPorts]),
    row("vlan_in_use", S::CONFLICT, "DuplicateSubPort", &[SubPorts]),
    row("trunk_disabled", S::CONFLICT, "TrunkDisabled", &[SubPorts, LeaveTrunk, DropTrunk]),
    row("mtu_above_parent", S::CONFLICT, "SubPortMtuGreaterThanTrunkPortMtu", &[SubPorts]),
    row("no_vlan_to_inherit", S::BAD_REQUEST, "InvalidInput", &[SubPorts]),
    row("id_in_use", S::CONFLICT, "Conflict", &[NewNetwork, NewSubnet, NewGroup, NewRule, NewPort, NewTrunk]),
    row("network_in_use", S::CONFLICT, "NetworkInUse", &[DropNetwork]),
    row("subnet_in_use", S::CONFLICT, "SubnetInUse", &[DropSubnet]),
    row("group_in_use", S::CONFLICT, "SecurityGroupInUse", &[DropGroup]),
    row("default_group", S::CONFLICT, "SecurityGroupDefaultAlreadyExists", &[NewGroup, ChangeGroup]),
    row("default_group", S::CONFLICT, "SecurityGroupCannotUpdateDefault", &[ChangeGroup]),
    row("default_group", S::CONFLICT, "SecurityGroupCannotRemoveDefault", &[DropGroup]),
    row("server_has_nics", S::CONFLICT, "Conflict", &[DropServer]),
    row("kind_change", S::CONFLICT, "Conflict", &[PutServer]),
    row("monitor_in_use", S::CONFLICT, "Conflict", &[PutServer]),
    row("needs_detach", S::CONFLICT, "Conflict", &[ChangePort]),
    row("mtu_in_use", S::CONFLICT, "Conflict", &[ChangeNetwork]),
    row("revision_mismatch", S::PRECONDITION_FAILED, "RevisionNumberConstraintFailed", &[Conditional]),
    // Of addresses.
    row("address_in_use", S::CONFLICT, "IpAddressInUse", ASKED),
    row("address_in_use", S::CONFLICT, "GatewayIpInUse", &[ChangeSubnet]),
    row("address_unasked", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", &[ChangePort]),
    row("address_outside_subnet", S::BAD_REQUEST, "InvalidIpForNetwork", ASKED),
    row("address_not_usable", S::BAD_REQUEST, "InvalidIpForNetwork", ASKED),
    row("subnet_of_other_network", S::BAD_REQUEST, "InvalidInput", &[NewPort, ChangePort]),
    // Neutron's generation failure is a conflict, which Nova turns into a bad request.
    row("pool_empty", S::BAD_REQUEST, "IpAddressGenerationFailure", &[Attach, NewPort, ChangePort]).in_network(S::CONFLICT),
    row("no_subnet", S::BAD_REQUEST, "InvalidInput", &[Attach]),
    row("mac_in_use", S::CONFLICT, "MacAddressInUse", &[NewPort, ChangePort]),
    row("bad_mac", S::BAD_REQUEST, "InvalidInput", &[NewPort, ChangePort]),
    row("port_security_off", S::CONFLICT, "AddressPairAndPortSecurityRequired", &[NewPort, ChangePort]),
    row("port_security_off", S::CONFLICT, "PortSecurityPortHasSecurityGroup", &[NewPort, InGroups, ChangePort]),
    row("pair_too_wide", S::BAD_REQUEST, "InvalidInput", &[NewPort, ChangePort]),
    row("too_many_options", S::BAD_REQUEST, "InvalidInput", &[ChangePort]),
    row("duplicate_pair", S::BAD_REQUEST, "DuplicateAddressPairInRequest", &[NewPort, ChangePort]),
    // Of security groups.
    row("bad_protocol", S::BAD_REQUEST, "SecurityGroupRuleInvalidProtocol", &[NewRule]),
    row("family_mismatch", S::BAD_REQUEST, "SecurityGroupEthertypeConflictWithProtocol", &[NewRule]),
    row("family_mismatch", S::BAD_REQUEST, "SecurityGroupRuleParameterConflict", &[NewRule]),
    row("bad_port_range", S::BAD_REQUEST, "SecurityGroupInvalidPortRange", &[NewRule]),
    row("bad_port_range", S::BAD_REQUEST, "SecurityGroupProtocolRequiredWithPorts", &[NewRule]),
    row("bad_port_range", S::BAD_REQUEST, "SecurityGroupInvalidProtocolForPortRange", &[NewRule]),
    row("bad_icmp", S::BAD_REQUEST, "SecurityGroupInvalidIcmpValue", &[NewRule]),
    row("bad_icmp", S::BAD_REQUEST, "SecurityGroupMissingIcmpType", &[NewRule]),
    row("two_remotes", S::BAD_REQUEST, "SecurityGroupRemoteGroupAndRemoteIpPrefix", &[NewRule]),
    row("rule_exists", S::CONFLICT, "SecurityGroupRuleExists", &[NewRule]),
    row("several_groups", S::BAD_REQUEST, "SecurityGroupNotSingleGroupRules", &[NewRule]),
    row("other_project", S::BAD_REQUEST, "SecurityGroupRulesNotSingleTenant", &[NewRule]),
    row("too_many_rules", S::CONFLICT, "OverQuota", &[NewRule, Attach, ChangePort]),
    row("too_many_groups", S::BAD_REQUEST, "InvalidInput", &[NewPort, InGroups, ChangePort]),
    row("subnet_overlap", S::BAD_REQUEST, "InvalidInput", &[NewSubnet]),
    row("bad_subnet", S::BAD_REQUEST, "InvalidInput", &[NewSubnet, ChangeSubnet]),
    // Of limits: Nova's quota is 403, Rackspace's 413.
    row("too_many_addresses", S::BAD_REQUEST, "InvalidInput", &[NewPort, ChangePort]),
    row("too_many_nics", S::FORBIDDEN, "OverQuota", &[Attach]).in_rackspace(S::PAYLOAD_TOO_LARGE),
    row("already_on_network", S::CONFLICT, "Conflict", &[OnePerNetwork]),
    row("too_many_networks", S::CONFLICT, "OverQuota", &[NewNetwork]),
    row("too_many_subnets", S::CONFLICT, "OverQuota", &[NewSubnet]),
    row("no_network", S::BAD_REQUEST, "InvalidInput", &[NovaAttach]),
    row("several_networks", S::BAD_REQUEST, "InvalidInput", &[NovaAttach]),
    row("bridge_full", S::CONFLICT, "Conflict", &[Attach]),
    // Of guests. 503 for a missing permission or a blocked path: a retry works after the operator's repair.
    row("no_such_namespace", S::BAD_REQUEST, "InvalidInput", &[PutServer]),
    row("not_a_namespace", S::BAD_REQUEST, "InvalidInput", &[PutServer]),
    row("own_namespace", S::BAD_REQUEST, "InvalidInput", &[PutServer]),
    row("namespace_refused", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", &[PutServer, Attach]),
    row("netns_helper_unreachable", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", &[PutServer, Attach]),
    row("namespace_changed", S::CONFLICT, "Conflict", &[PutServer, Attach]),
    row("namespace_gone", S::CONFLICT, "Conflict", &[Attach]),
    row("monitor_unreachable", S::CONFLICT, "Conflict", &[Attach]),
    row("monitor_denied", S::CONFLICT, "Conflict", &[Attach]),
    row("monitor_busy", S::CONFLICT, "Conflict", &[Attach]),
    row("monitor_refused", S::CONFLICT, "Conflict", &[Attach]),
    row("no_free_slot", S::CONFLICT, "Conflict", &[Attach]),
    row("tap_held", S::CONFLICT, "Conflict", &[Attach]),
    row("guest_keeps_device", S::CONFLICT, "Conflict", &[Attach]),
    row("interface_name_taken", S::CONFLICT, "Conflict", &[Attach]),
    row("guest_refused", S::CONFLICT, "Conflict", &[Attach]),
    row("ipv6_disabled", S::CONFLICT, "Conflict", &[Attach]),
    // Of the host.
    row("bridge_not_allowed", S::FORBIDDEN, "Forbidden", &[NewNetwork]),
    // For Neutron the client's own request names the bridge; an attach uses an earlier setting.
    row("no_such_bridge", S::CONFLICT, "InvalidInput", &[Attach, NewNetwork, ChangeNetwork]).in_network(S::BAD_REQUEST),
    row("no_such_bridge", S::CONFLICT, "Conflict", KERNEL),
    row("not_a_bridge", S::CONFLICT, "InvalidInput", &[Attach, NewNetwork, ChangeNetwork]).in_network(S::BAD_REQUEST),
    row("mtu_above_bridge", S::CONFLICT, "Conflict", &[Attach, NewNetwork, ChangeNetwork]),
    // Of physical networks.
    row("unknown_physical_network", S::BAD_REQUEST, "InvalidInput", &[NewNetwork]),
    row("fleet_only", S::NOT_IMPLEMENTED, "HTTPNotImplemented", &[NewNetwork]),
    row("segment_in_use", S::CONFLICT, "VlanIdInUse", &[NewNetwork]),
    row("no_free_segment", S::CONFLICT, "NoNetworkAvailable", &[NewNetwork]),
    row("uplink_missing", S::CONFLICT, "Conflict", &[NewNetwork]),
    row("uplink_is_loopback", S::CONFLICT, "Conflict", &[NewNetwork]),
    row("uplink_is_wireless", S::CONFLICT, "Conflict", &[NewNetwork]),
    row("uplink_not_ethernet", S::CONFLICT, "Conflict", &[NewNetwork]),
    row("uplink_is_bridge", S::CONFLICT, "Conflict", &[NewNetwork]),
    row("uplink_is_nicds", S::CONFLICT, "Conflict", &[NewNetwork]),
    row("uplink_is_port", S::CONFLICT, "Conflict", &[NewNetwork]),
    row("uplink_not_adopted", S::CONFLICT, "Conflict", &[NewNetwork]),
    row("uplink_in_use", S::CONFLICT, "Conflict", &[NewNetwork]),
    row("uplink_filters_no_vlans", S::CONFLICT, "Conflict", &[NewNetwork]),
    row("mtu_above_uplink", S::CONFLICT, "Conflict", &[NewNetwork, ChangeNetwork]),
    row("no_free_name", S::CONFLICT, "Conflict", &[Attach, ChangeNetwork]),
    row("name_taken", S::CONFLICT, "Conflict", &[Attach]),
    row("name_taken", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", KERNEL),
    row("index_taken", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", &[Attach]),
    row("device_gone", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", KERNEL),
    row("device_unmarked", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", &[Host]),
    row("module_missing", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", &[Attach, ChangePort]),
    row("limit_refused", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", &[Attach, ChangePort]),
    row("filter_refused", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", &[Attach, ChangePort]),
    row("filters_unavailable", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", &[Attach, NewPort, ChangePort]),
    row("conntrack_unavailable", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", &[Attach, ChangePort]),
    row("host_not_closed", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", &[Attach]),
    row("no_permission", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", ANY_KERNEL),
    row("kernel_timeout", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", ANY_KERNEL),
    row("kernel_refused", S::INTERNAL_SERVER_ERROR, "HTTPInternalServerError", ANY_KERNEL),
    row("not_undone", S::INTERNAL_SERVER_ERROR, "HTTPInternalServerError", &[Attach]),
    row("busy", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", STORE),
    row("no_descriptors", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", STORE),
    // Of the store; a disk that refuses may take the next one.
    row("store_full", S::INSUFFICIENT_STORAGE, "InsufficientStorage", &[Write]),
    row("store_damaged", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", &[Write]),
    row("store_replaced", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", STORE),
    row("store_failed", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", STORE),
    // What the store can only say when it is opened.
    row("store_failed", S::INTERNAL_SERVER_ERROR, "HTTPInternalServerError", &[]),
    row("stopping", S::SERVICE_UNAVAILABLE, "ServiceUnavailable", STORE),
];

/// OTC's code of an error about a NIC, each with status 400 (its reference, appendix "Error Codes"), and the errors that it has here.
const ECS: [(&str, &[&str]); 11] = [
    (
        "Ecs.0005",
        &[
            "malformed_request",
            "malformed_body",
            "duplicate_key",
            "invalid_body",
            "invalid_value",
            "bad_path",
            "bad_idempotency_key",
            "idempotency_mismatch",
        ],
    ),
    ("Ecs.0010", &["address_in_use"]),
    ("Ecs.0012", &["pool_empty"]),
    ("Ecs.0014", &["no_subnet", "no_such_group", "port_security_off", "too_many_groups"]),
    ("Ecs.0038", &["no_such_network"]),
    ("Ecs.0039", &["address_outside_subnet", "address_not_usable"]),
    ("Ecs.0050", &["too_many_nics"]),
    ("Ecs.0085", &["port_not_on_server"]),
    ("Ecs.0106", &["no_such_bridge", "not_a_bridge", "mtu_above_bridge", "bridge_full"]),
    (
        "Ecs.0217",
        &[
            "port_in_use",
            "namespace_changed",
            "namespace_gone",
            "monitor_unreachable",
            "monitor_denied",
            "monitor_busy",
            "monitor_refused",
            "no_free_slot",
            "tap_held",
            "guest_keeps_device",
            "interface_name_taken",
            "guest_refused",
            "ipv6_disabled",
            "no_free_name",
        ],
    ),
    ("Ecs.0307", &["no_such_port"]),
];

fn ecs_row(reason: &str) -> Option<&'static str> {
    ECS.iter().find(|(_, reasons)| reasons.contains(&reason)).map(|(code, _)| *code)
}

/// OTC's code of an error. One that has none about NICs gets the one of its status.
pub(super) fn ecs(row: &Row) -> &'static str {
    let of_status = || match row.status {
        S::UNAUTHORIZED => "Ecs.0004",
        S::FORBIDDEN => "Ecs.0003",
        S::NOT_FOUND if row.reason == "no_such_server" => "Ecs.0114",
        S::SERVICE_UNAVAILABLE | S::INSUFFICIENT_STORAGE => "Ecs.0002",
        S::INTERNAL_SERVER_ERROR => "Common.0001",
        _ => "Ecs.0000",
    };
    ecs_row(row.reason).unwrap_or_else(of_status)
}

/// The same of an error's word, as a job keeps it.
pub(super) fn ecs_of(reason: &str) -> &'static str {
    ecs(find(reason, None))
}

/// Nova's key of a status.
pub(super) fn key(status: S) -> &'static str {
    STATUSES.iter().find(|(known, ..)| *known == status).map_or(FAULT, |(_, key, _)| key)
}

/// The status of an answer of another host's that cannot be read.
pub(super) const UNREADABLE: S = S::BAD_GATEWAY;

/// What a status means, for the document.
pub(super) fn meaning(status: S) -> &'static str {
    STATUSES.iter().find(|(known, ..)| *known == status).map_or("Refused.", |(.., meaning)| meaning)
}

/// The header that belongs to a status (RFC 9110 §10.2.3 and §11.6.1).
pub(super) fn header(status: S) -> Option<(HeaderName, HeaderValue)> {
    match status {
        S::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, HeaderValue::from_static("1"))),
        S::UNAUTHORIZED => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Peercred realm=\"nicd\""))),
        _ => None,
    }
}

/// Whether a refusal is to be logged: 501 is the client's choice, and must not fill the log.
pub(super) fn is_trouble(status: S) -> bool {
    status.is_server_error() && status != S::NOT_IMPLEMENTED
}

/// Whether the same request may go better next time, so that its answer is not to be remembered.
pub(super) fn may_pass(status: S) -> bool {
    status.is_server_error() || matches!(status, S::REQUEST_TIMEOUT | S::PAYLOAD_TOO_LARGE)
}

/// Whether the router has found the path and not the method.
pub(super) fn is_bad_method(status: S) -> bool {
    status == S::METHOD_NOT_ALLOWED
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::dialect::{COMPUTE, NETWORK};
    use super::*;

    /// The stable words in a source: its string literals of lower-case words.
    fn words(source: &'static str, from: &str, to: &str) -> BTreeSet<&'static str> {
        let start = source.find(from).unwrap();
        let text = &source[start..];
        let text = &text[..text.find(to).unwrap_or(text.len())];
        let literals = text.split('"').skip(1).step_by(2);
        let plain = |byte: u8| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit();
        literals.filter(|word| word.len() > 3 && word.bytes().all(plain)).collect()
    }

    #[test]
    fn every_reason_there_is_has_a_row_and_every_row_a_status_that_is_known() {
        let mut service = words(include_str!("../reconcile/error.rs"), "pub fn reason", "\n    }\n");
        service.extend(words(include_str!("../inventory/error.rs"), "pub fn reason", "\n    }\n"));
        service.extend(words(include_str!("../inventory/uplinks.rs"), "pub fn reason", "\n    }\n"));
        service.extend(words(include_str!("../reconcile/uplinks.rs"), "pub fn reason", "\n    }\n"));
        service.extend(words(include_str!("../monitor/error.rs"), "pub fn reason", "\n    }\n"));
        service.extend(words(include_str!("../model/rule.rs"), "pub fn reason", "\n    }\n"));
        let readers = words(include_str!("fields.rs"), "pub fn reason", "\n    }\n");
        let others = words(include_str!("error.rs"), "fn error_answer(", "\n}\n");
        assert!(service.len() > 40 && readers.len() == 5 && others.len() > 25, "{service:?} {readers:?} {others:?}");
        let given: BTreeSet<&str> = service.into_iter().chain(readers).chain(others).collect();
        let rows: BTreeSet<&str> = TABLE.iter().map(|row| row.reason).collect();
        assert_eq!(given, rows);
        for row in TABLE {
            for status in [COMPUTE, NETWORK, RACKSPACE].map(|dialect| row.status(dialect)) {
                assert_ne!(meaning(status), "Refused.", "{row:?}");
            }
        }
    }

    #[test]
    fn the_dialects_tell_the_same_refusal_differently() {
        let status = |dialect, word| find(word, None).status(dialect).as_u16();
        assert_eq!((status(COMPUTE, "too_many_nics"), status(RACKSPACE, "too_many_nics")), (403, 413));
        assert_eq!((status(COMPUTE, "pool_empty"), status(NETWORK, "pool_empty")), (400, 409));
    }
}
