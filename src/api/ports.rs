//! Neutron's ports.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::model::action::{Action, NewPort, OptionChange, PortChange, WantedIp};
use crate::model::dhcp::{EXTRA_OPTIONS, OptionError, Sets, is_host_name};
use crate::model::network::{MAX_MTU, MIN_MTU};
use crate::model::port::{BURSTS, RATES};
use crate::model::server::MAX_QUEUES;
use crate::model::trunk::VLAN_IDS;
use crate::model::{
    AddressPair, Carrier, ExtraOption, FixedIp, GroupId, GuestTold, IpVersion, Limits, Mac, PortId, Profile, RateLimit, ServerId,
    SubPort,
};
use crate::service::{Binding, DeviceView, Error, PortFilter, PortTrunk, PortView, Reply, WantedElsewhere};

use super::AppState;
use super::agent::NAME;
use super::answer::answer;
use super::error::{ApiError, ObjectKind};
use super::fields::{AddressOrRange, BodyError, Fields, Ip, parse_value, wrong};
use super::listing::Listing;
use super::networks::project;
use super::openapi::schema::{
    Record, Shape, any, empty_list, ip, list, mac, number, one_of_numbers, one_of_words, only, or_null, phase, range, status,
    time, truth, uuid, words,
};
use super::resource::{Changeable, Resource};
use super::trunks::ShownSubPort;

/// The most entries of any list in a body.
pub(super) const ENTRIES: usize = 64;

/// The `device_owner` of an attached port, as Nova's clients expect it.
const COMPUTE: &str = "compute:nova";

impl Resource for PortView {
    const ONE: &'static str = "port";
    const MANY: &'static str = "ports";
    const WHAT: ObjectKind = ObjectKind::Port;
    const KNOWN: &'static [&'static str] = &[
        "id",
        "name",
        "description",
        "network_id",
        "tenant_id",
        "project_id",
        "mac_address",
        "fixed_ips",
        "admin_state_up",
        "status",
        "device_id",
        "device_owner",
        "binding:host_id",
        "binding:vif_type",
        "binding:vnic_type",
        "port_security_enabled",
        "security_groups",
        "nicd:unknown_unicast",
        "nicd:isolated",
        "nicd:dhcp",
        "dns_name",
        "nicd:phase",
        "nicd:reason",
        "revision_number",
        "created_at",
        "updated_at",
    ];
    type Id = PortId;

    fn all(state: &AppState, listing: &Listing) -> Vec<Self> {
        narrowed(listing).map_or_else(Vec::new, |filter| state.ports(filter))
    }

    fn find(state: &AppState, id: PortId) -> Result<Self, Error> {
        state.active_port(id)
    }

    async fn elsewhere(state: &AppState, listing: &Listing) -> Result<Vec<Self>, Error> {
        match wanted_elsewhere(state, listing) {
            Some(wanted) => state.ports_elsewhere(wanted).await,
            None => Ok(Vec::new()),
        }
    }

    async fn find_elsewhere(state: &AppState, id: PortId) -> Result<Option<Self>, Error> {
        Ok(state.ports_elsewhere(WantedElsewhere::One(id)).await?.pop())
    }

    fn shown(&self) -> Value {
        Shown::of(self, vif(self))
    }

    fn create(state: &AppState, bodies: Vec<Fields>) -> Result<Action, ApiError> {
        bodies.into_iter().map(|fields| read_new(state.host(), fields)).collect::<Result<_, _>>().map(Action::CreatePorts)
    }

    fn delete(id: PortId) -> Action {
        Action::DeletePort(id)
    }

    fn of(reply: Reply) -> Option<Vec<Self>> {
        match reply {
            Reply::Port(one) => Some(vec![*one]),
            Reply::Ports(many) => Some(many),
            _ => None,
        }
    }
}

impl Changeable for PortView {
    fn change(state: &AppState, id: PortId, body: Fields) -> Result<Action, ApiError> {
        Ok(Action::UpdatePort(id, read_change(&state.port(id)?, body)?))
    }
}

answer! {
    /// A port as Neutron shows it.
    pub(super) Shown(view: &PortView, vif: (&str, Value)) {
        /// The port's id.
        "id": view.port.id.to_string() => uuid(),
        /// Its name, which need not be unique.
        "name": view.port.name => words(),
        /// Free text.
        "description": view.port.description => words(),
        /// Its network.
        "network_id": view.port.network_id.to_string() => uuid(),
        /// The same as `project_id`.
        "tenant_id": view.port.project_id => words(),
        /// The project; nicd only stores it.
        "project_id": view.port.project_id => words(),
        /// The guest's MAC.
        "mac_address": view.port.mac.to_string() => mac(),
        /// Its addresses.
        "fixed_ips": view.port.fixed_ips.iter().map(Address::of).collect::<Vec<_>>() => list(Address::shape()),
        /// What its guest may send from beside its own MAC and addresses.
        "allowed_address_pairs": view.port.address_pairs.iter().map(|pair| Pair::of(pair, view.port.mac)).collect::<Vec<_>>()
            => list(Pair::shape()),
        /// Whether what its guest sends is filtered.
        "port_security_enabled": view.port.port_security => truth(),
        /// The security groups that it is in; without any its connections are not restricted.
        "security_groups": view.port.groups.iter().map(ToString::to_string).collect::<Vec<_>>() => list(uuid()),
        /// Whether it is to carry traffic.
        "admin_state_up": view.port.admin_up => truth(),
        /// Whether traffic flows.
        "status": view.phase.status().as_str() => status(),
        /// The server that has it, of a subport the trunk, as Neutron has it; empty where none has.
        "device_id": device_id(view) => words(),
        /// What has it, as Neutron's clients expect it: of an attached port `compute:nova` unless set, of a subport `trunk:subport`.
        "device_owner": owner(view) => words(),
        /// How the NIC is given to the guest; `unbound` without a server.
        "binding:vif_type": vif.0 => one_of_words(["tap", "veth", "vlan", "unbound"]),
        /// The device on the host; empty without a server.
        "binding:vif_details": vif.1 => details(),
        /// Always normal.
        "binding:vnic_type": "normal" => only("normal"),
        /// This host; empty without a server.
        "binding:host_id": if view.binding.is_some() { view.host.as_str() } else { "" } => words(),
        /// What its NIC is built with.
        "binding:profile": view.port.profile => profile(),
        /// Its rate limits; null: none.
        "nicd:limits": (!view.port.limits.is_empty()).then_some(view.port.limits) => or_null(limits()),
        /// Whether frames for MACs that nobody has reach it.
        "nicd:unknown_unicast": view.port.unknown_unicast => truth(),
        /// As the network's, for this port; null: as its network says.
        "nicd:isolated": view.port.isolated => or_null(truth()),
        /// Whether its guest's DHCP is answered.
        "nicd:dhcp": view.port.told.dhcp => truth(),
        /// The host name that its guest is told.
        "dns_name": view.port.told.dns_name => words(),
        /// DHCP options for its guest.
        "extra_dhcp_opts": view.port.told.extra_options.iter().map(Extra::of).collect::<Vec<_>>() => list(Extra::shape()),
        /// Finer than `status`, which it decides.
        "nicd:phase": view.phase.as_str() => phase(),
        /// Why it has this status: a stable word; null where there is nothing to say.
        "nicd:reason": view.reason => or_null(words()),
        /// What its NIC carries beside its own frames, of a trunk's parent; null of any other port.
        "trunk_details": trunk_details(view) => or_null(trunk_details_shape()),
        /// Always empty.
        "tags": Value::Array(Vec::new()) => empty_list(),
        /// Counts its changes, for `If-Match`.
        "revision_number": view.port.revision_number => number(1..=u32::MAX),
        /// When it was created.
        "created_at": view.port.created_at => time(),
        /// When it was last changed.
        "updated_at": view.port.updated_at => time(),
    }
}

answer! {
    /// An address of a port.
    pub(super) Address(given: &FixedIp) {
        /// The subnet that it is from.
        "subnet_id": given.subnet_id.to_string() => uuid(),
        /// The address.
        "ip_address": given.ip_address.to_string() => ip(),
    }
}

answer! {
    /// What a guest may send from beside its port's own MAC, which a pair without a MAC means, and addresses.
    Pair(pair: &AddressPair, own: Mac) {
        /// An address or a range.
        "ip_address": AddressOrRange(pair.ip).to_string() => any([ip(), range().into()]),
        /// The MAC.
        "mac_address": pair.mac.unwrap_or(own).to_string() => mac(),
    }
}

answer! {
    /// An option for a port's guest.
    Extra(option: &ExtraOption) {
        /// The option: its number or Neutron's name.
        "opt_name": option.name => words(),
        /// The value, as text.
        "opt_value": option.value => words(),
        /// The family of DHCP.
        "ip_version": if option.version() == IpVersion::V6 { 6 } else { 4 } => one_of_numbers([4, 6]),
    }
}

/// `nicd:limits` as shown and as read.
pub(super) fn limits() -> Record {
    let rate = Record::new()
        .must("rate_kbps", "The rate, in kbit/s.", number(RATES))
        .may("burst_kb", "How much may come at once, in kbit; 125 ms of the rate when left out.", number(BURSTS))
        .may("exact", "Whether the burst is held exactly, and not with up to a second of the rate in addition.", truth());
    let rate: Shape = or_null(rate);
    Record::new().may("to_guest", "Of what the guest receives; null: none.", rate.clone()).may(
        "from_guest",
        "Of what the guest sends; null: none.",
        rate,
    )
}

answer! {
    /// A port's device. For a tap also how a VMM opens it, for a veth the namespace and name of the guest's end.
    Device(binding: &Binding, device: Option<&DeviceView>) {
        /// Its name on the host; null while it does not exist.
        "device": device.map(|device| device.name.clone()) => or_null(words()),
        /// The bridge that it is in; null while there is none.
        "bridge": binding.bridge => or_null(words()),
        /// Its own MAC, which is not the guest's; null while it does not exist.
        "host_mac": device.and_then(|device| device.host_mac).map(|mac| mac.to_string()) => or_null(mac()),
        /// The guest's MTU.
        "mtu": binding.mtu => number(MIN_MTU..=MAX_MTU),
    }
}

/// `binding:profile` as shown.
pub(super) fn profile() -> Record {
    Record::new().may("interface_name", "The NIC's name in the guest's namespace.", words()).must(
        "vnet_hdr",
        "Whether a VMM opens the tap with IFF_VNET_HDR.",
        truth(),
    )
}

pub(super) fn details() -> Shape {
    let tap = Device::shape().must("queues", "The tap's queues.", number(1..=u32::from(MAX_QUEUES))).must(
        "vnet_hdr",
        "Whether a VMM opens the tap with IFF_VNET_HDR.",
        truth(),
    );
    // Of a tap that nicd has plugged into its machine.
    let tap = tap.may("qdev_id", "The NIC's id in its machine, where nicd has plugged it in.", words()).may(
        "pci_address",
        "The NIC's PCI address in its machine; null: not known.",
        or_null(words()),
    );
    let veth =
        Device::shape().must("guest_device", "The name of the guest's end; null while it does not exist.", or_null(words()));
    let range = u32::from(*VLAN_IDS.start())..=u32::from(*VLAN_IDS.end());
    let vlan = Device::shape()
        .must("parent_port_id", "The port whose NIC carries its frames, of a subport of a trunk.", uuid())
        .must("vlan", "The VLAN that its frames have the tag of there.", number(range));
    any([tap.into(), veth.into(), vlan.into(), Record::new().into()])
}

/// A server, or of a subport its trunk: a server's NICs are the ports that have its id.
fn device_id(view: &PortView) -> String {
    match (&view.trunk, &view.binding) {
        (Some(PortTrunk::SubPort(trunk)), _) => trunk.to_string(),
        (_, Some(binding)) => binding.server.to_string(),
        (_, None) => String::new(),
    }
}

/// Neutron's extension `trunk-details`.
fn trunk_details(view: &PortView) -> Option<Value> {
    let Some(PortTrunk::Parent(id, sub_ports)) = &view.trunk else { return None };
    let carried = |(sub, mac): &(SubPort, Mac)| {
        let mut shown = ShownSubPort::of(sub);
        shown["mac_address"] = mac.to_string().into();
        shown
    };
    let sub_ports: Vec<Value> = sub_ports.iter().map(carried).collect();
    Some(json!({"trunk_id": id.to_string(), "sub_ports": sub_ports}))
}

fn trunk_details_shape() -> Record {
    Record::new().must("trunk_id", "The trunk.", uuid()).must(
        "sub_ports",
        "The subports whose frames it carries.",
        list(ShownSubPort::shape().must("mac_address", "The subport's MAC.", mac())),
    )
}

/// What can be looked up instead of searched; none when an id asked for is the id of nothing.
fn narrowed(listing: &Listing) -> Option<PortFilter> {
    let unbound = listing.only("device_id").is_some_and(str::is_empty);
    Some(PortFilter {
        id: listing.only("id").map(str::parse).transpose().ok()?,
        server: if unbound { None } else { listing.only("device_id").map(str::parse).transpose().ok()? },
        network: listing.only("network_id").map(str::parse).transpose().ok()?,
        group: listing.only("security_groups").map(str::parse).transpose().ok()?,
    })
}

/// Which ports of other hosts a list may hold; none where only this host's can fit, so that it needs no etcd.
fn wanted_elsewhere(state: &AppState, listing: &Listing) -> Option<WantedElsewhere> {
    let PortFilter { id, server, network, group } = narrowed(listing)?;
    let of_host = listing.only("binding:host_id");
    let is_here = of_host.is_some_and(|host| host == state.host())
        || id.is_some_and(|id| state.has_here(id.0))
        || server.is_some_and(|server| state.has_here(server.0))
        || network.is_some_and(|network| state.network(network).is_ok_and(|view| !view.network.is_shared()))
        || group.is_some();
    let wanted = match (id, server, of_host.filter(|host| !host.is_empty()), network) {
        (Some(id), ..) => WantedElsewhere::One(id),
        (None, Some(server), ..) => WantedElsewhere::Server(server),
        (None, None, Some(host), _) => WantedElsewhere::Host(host.to_owned()),
        (None, None, None, Some(network)) => WantedElsewhere::Network(network),
        (None, None, None, None) => WantedElsewhere::All,
    };
    (!is_here).then_some(wanted)
}

fn read_new(host: &str, mut fields: Fields) -> Result<NewPort, ApiError> {
    let network_id = fields.parsed("network_id")?;
    let new = NewPort {
        id: fields.parsed("id")?,
        network_id: fields.required("network_id", network_id)?,
        name: fields.text("name", NAME)?.unwrap_or_default(),
        description: fields.text("description", NAME)?.unwrap_or_default(),
        project_id: project(&mut fields)?,
        mac: fields.parsed("mac_address")?,
        fixed_ips: read_ips(&mut fields)?,
        admin_up: fields.truth("admin_state_up")?.unwrap_or(true),
        unknown_unicast: fields.truth("nicd:unknown_unicast")?.unwrap_or(false),
        port_security: fields.truth("port_security_enabled")?,
        address_pairs: read_pairs(&mut fields)?.unwrap_or_default(),
        groups: read_groups(&mut fields)?,
        limits: read_limits(&mut fields)?.unwrap_or_default(),
        isolated: fields.truth_or_null("nicd:isolated")?.flatten(),
        told: GuestTold {
            dhcp: fields.truth("nicd:dhcp")?.unwrap_or(true),
            dns_name: read_dns_name(&mut fields)?.unwrap_or_default(),
            extra_options: read_new_options(&mut fields)?,
        },
        device_owner: fields.text("device_owner", NAME)?.unwrap_or_default(),
        profile: read_profile(&mut fields, "binding:profile")?.unwrap_or_default(),
    };
    let device = fields.text("device_id", NAME)?.unwrap_or_default();
    own_host(&mut fields, host)?;
    unchanging(&mut fields)?;
    fields.end()?;
    if device.is_empty() { Ok(new) } else { Err(ApiError::UseAttach { device, port: None }) }
}

fn read_change(port: &PortView, mut fields: Fields) -> Result<PortChange, ApiError> {
    let device = fields.text("device_id", NAME)?;
    let change = PortChange {
        // So Neutron's clients take a port from its server, Nova among them (`_unbind_ports`, nova/network/neutron.py).
        detach: device.as_deref() == Some(""),
        name: fields.text("name", NAME)?,
        description: fields.text("description", NAME)?,
        admin_up: fields.truth("admin_state_up")?,
        unknown_unicast: fields.truth("nicd:unknown_unicast")?,
        port_security: fields.truth("port_security_enabled")?,
        address_pairs: read_pairs(&mut fields)?,
        groups: read_groups(&mut fields)?,
        limits: read_limits(&mut fields)?,
        isolated: fields.truth_or_null("nicd:isolated")?,
        dhcp: fields.truth("nicd:dhcp")?,
        dns_name: read_dns_name(&mut fields)?,
        extra_options: read_options(&mut fields)?,
        device_owner: fields.text("device_owner", NAME)?,
        mac: fields.parsed("mac_address")?,
        fixed_ips: read_ips(&mut fields)?,
        profile: read_profile(&mut fields, "binding:profile")?,
    };
    own_host(&mut fields, &port.host)?;
    unchanging(&mut fields)?;
    fields.end_of_change(PortView::KNOWN)?;
    let its_own = |device: &String| device.parse::<ServerId>().is_ok_and(|id| id.to_string() == device_id(port));
    match device.filter(|device| !device.is_empty() && !its_own(device)) {
        None => Ok(change),
        Some(device) => Err(ApiError::UseAttach { device, port: Some(port.port.id) }),
    }
}

fn read_ips(fields: &mut Fields) -> Result<Option<Vec<WantedIp>>, BodyError> {
    let Some(given) = fields.list("fixed_ips", ENTRIES)? else { return Ok(None) };
    let read = |(at, value): (String, Value)| {
        let mut fields = Fields::object(&at, value.clone())?;
        let ip = WantedIp { subnet_id: fields.parsed("subnet_id")?, ip_address: fields.parsed("ip_address")?.map(|Ip(ip)| ip) };
        fields.end()?;
        match ip {
            WantedIp { subnet_id: None, ip_address: None } => {
                Err(wrong(&at, &value, "subnet_id, ip_address or both are expected"))
            }
            ip => Ok(ip),
        }
    };
    given.into_iter().map(read).collect::<Result<_, _>>().map(Some)
}

fn read_pairs(fields: &mut Fields) -> Result<Option<Vec<AddressPair>>, BodyError> {
    let Some(given) = fields.list_or_null("allowed_address_pairs", ENTRIES)? else { return Ok(None) };
    let read = |(at, value): (String, Value)| {
        let mut fields = Fields::object(&at, value)?;
        let ip = fields.parsed("ip_address")?;
        let AddressOrRange(ip) = fields.required("ip_address", ip)?;
        let pair = AddressPair { ip, mac: fields.parsed_or_null("mac_address")?.flatten() };
        fields.end()?;
        Ok(pair)
    };
    given.into_iter().map(read).collect::<Result<_, _>>().map(Some)
}

/// Groups, each once, however often it comes.
fn read_groups(fields: &mut Fields) -> Result<Option<BTreeSet<GroupId>>, BodyError> {
    let given = fields.list_or_null("security_groups", ENTRIES)?;
    given.map(|all| all.into_iter().map(|(at, value)| parse_value(&at, &value)).collect()).transpose()
}

/// `nicd:limits`, where null is the same as no limits.
fn read_limits(fields: &mut Fields) -> Result<Option<Limits>, BodyError> {
    let given = match fields.value("nicd:limits") {
        None => return Ok(None),
        Some(Value::Null) => return Ok(Some(Limits::default())),
        Some(given) => given,
    };
    let mut fields = Fields::object("nicd:limits", given)?;
    let limits = Limits { to_guest: read_rate(&mut fields, "to_guest")?, from_guest: read_rate(&mut fields, "from_guest")? };
    fields.end()?;
    Ok(Some(limits))
}

fn read_rate(fields: &mut Fields, direction: &str) -> Result<Option<RateLimit>, BodyError> {
    let given = match fields.value(direction) {
        None | Some(Value::Null) => return Ok(None),
        Some(given) => given,
    };
    let mut fields = Fields::object(direction, given)?;
    let rate = fields.number("rate_kbps", RATES)?;
    let rate_kbps = fields.required("rate_kbps", rate)?;
    let limit =
        RateLimit { rate_kbps, burst_kb: fields.number("burst_kb", BURSTS)?, exact: fields.truth("exact")?.unwrap_or(false) };
    fields.end()?;
    Ok(Some(limit))
}

/// The longest host name, in characters (RFC 1035, 2.3.4).
pub(super) const DNS_NAME: usize = 253;

/// The longest name and value of an extra option, in characters.
pub(super) const OPTION_NAME: usize = 64;
pub(super) const OPTION_VALUE: usize = 1024;

fn read_dns_name(fields: &mut Fields) -> Result<Option<String>, BodyError> {
    let given = fields.text("dns_name", DNS_NAME)?;
    match given {
        Some(name) if !name.is_empty() && !is_host_name(&name) => {
            Err(wrong("dns_name", &name.into(), "a host name such as web-1 is expected (RFC 1123, 2.1)"))
        }
        given => Ok(given),
    }
}

/// A port that is made has no options that could be taken back.
fn read_new_options(fields: &mut Fields) -> Result<Vec<ExtraOption>, BodyError> {
    let mut options: Vec<ExtraOption> = Vec::new();
    for change in read_options(fields)? {
        if let OptionChange::Set(option) = change {
            options.retain(|other| other.sets != option.sets);
            options.push(option);
        }
    }
    Ok(options)
}

fn read_options(fields: &mut Fields) -> Result<Vec<OptionChange>, BodyError> {
    let Some(given) = fields.list_or_null("extra_dhcp_opts", EXTRA_OPTIONS)? else { return Ok(Vec::new()) };
    let read = |(at, value): (String, Value)| {
        let mut fields = Fields::object(&at, value)?;
        let name = fields.text("opt_name", OPTION_NAME)?;
        let name = fields.required("opt_name", name)?;
        let version = match fields.number_or_text("ip_version", 4..=6)? {
            None | Some(4) => IpVersion::V4,
            Some(6) => IpVersion::V6,
            Some(other) => return Err(wrong("ip_version", &other.into(), "4 or 6 is expected")),
        };
        let bad = |value: Value| move |error: OptionError| wrong("extra_dhcp_opts", &value, &error.to_string());
        let change = match fields.value("opt_value") {
            Some(Value::Null) => OptionChange::Unset(Sets::of(version, &name).map_err(bad(name.into()))?),
            Some(Value::String(value)) if value.chars().count() <= OPTION_VALUE => {
                OptionChange::Set(ExtraOption::read_of(version, &name, &value).map_err(bad(value.into()))?)
            }
            Some(other) => return Err(wrong("opt_value", &other, "a text of at most 1024 characters, or null, is expected")),
            None => fields.required("opt_value", None)?,
        };
        fields.end()?;
        Ok(change)
    };
    given.into_iter().map(read).collect()
}

/// `binding:profile`: what of it nicd knows.
pub(super) fn read_profile(fields: &mut Fields, name: &str) -> Result<Option<Profile>, BodyError> {
    let given = match fields.value(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(given) => given,
    };
    let mut fields = Fields::object(name, given)?;
    let interface_name = match fields.value("interface_name") {
        None | Some(Value::Null) => None,
        Some(name) => Some(parse_value("interface_name", &name)?),
    };
    let profile = Profile { interface_name, vnet_hdr: fields.truth("vnet_hdr")?.unwrap_or(true) };
    fields.end()?;
    Ok(Some(profile))
}

/// This agent's ports are on this host.
fn own_host(fields: &mut Fields, host: &str) -> Result<(), BodyError> {
    let why = format!("this agent's host is {host}: give that, or leave it out");
    fields.must_be("binding:host_id", &["".into(), Value::Null, host.into()], &why)
}

/// Attributes that have one possible value so far.
fn unchanging(fields: &mut Fields) -> Result<(), BodyError> {
    fields.only("binding:vnic_type", &["normal".into()])
}

/// Nova takes over a port it attaches and gives it back when it detaches; one that says otherwise keeps its own.
fn owner(view: &PortView) -> &str {
    match (view.port.device_owner.as_str(), &view.binding) {
        ("", Some(_)) => COMPUTE,
        (own, _) => own,
    }
}

/// How a VMM or an operator finds the device.
pub(super) fn vif(view: &PortView) -> (&'static str, Value) {
    let Some(binding) = &view.binding else { return ("unbound", json!({})) };
    let mut details = Device::of(binding, binding.device.as_ref());
    if let Some(Carrier { port, vlan }) = binding.carrier {
        details["parent_port_id"] = port.to_string().into();
        details["vlan"] = vlan.into();
        return ("vlan", details);
    }
    match binding.tap {
        Some(tap) => {
            details["queues"] = tap.queues.into();
            details["vnet_hdr"] = tap.vnet_hdr.into();
            if let Some(nic) = &binding.nic {
                details["qdev_id"] = nic.qdev_id.as_str().into();
                details["pci_address"] = nic.pci_address.as_deref().into();
            }
            ("tap", details)
        }
        None => {
            details["guest_device"] = binding.guest_device.as_ref().map(ToString::to_string).into();
            ("veth", details)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(port: Value) -> Result<NewPort, ApiError> {
        let mut port = port;
        port["network_id"] = "3cb9bc59-5699-4588-a4b1-b87f96708bc6".into();
        read_new("here", Fields::object("port", port)?)
    }

    #[test]
    fn a_server_is_given_by_an_attach_which_is_said_once_all_else_is_right() {
        assert!(read(json!({"device_id": ""})).is_ok());
        assert!(matches!(read(json!({"device_id": "x"})), Err(ApiError::UseAttach { device, .. }) if device == "x"));
        for bad in [json!({"device_id": "x", "name": 1}), json!({"device_id": null}), json!({"device_id": 1})] {
            assert!(matches!(read(bad.clone()), Err(ApiError::Body(_))), "{bad}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for bad in [
            json!({"mac_address": "x"}),
            json!({"fixed_ips": [{}]}),
            json!({"fixed_ips": [{"ip_address": "10.0.0"}]}),
            json!({"fixed_ips": {"ip_address": "10.0.0.1"}}),
            json!({"fixed_ips": vec![json!({"ip_address": "10.0.0.1"}); 65]}),
            json!({"binding:profile": {"interface_name": "a/b"}}),
            json!({"binding:profile": {"pci_slot": "0"}}),
            json!({"colour": "red"}),
            json!({"security_groups": ["x"]}),
            json!({"binding:host_id": "elsewhere"}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pair_is_an_address_or_a_range_and_may_have_a_mac() {
        let pairs = |given: Value| read(json!({ "allowed_address_pairs": given })).map(|new| new.address_pairs);
        let both = json!([{"ip_address": "10.0.0.5"}, {"ip_address": "fd00::/64", "mac_address": "00-00-5E-00-01-07"}]);
        let shown = pairs(both).unwrap().iter().map(|pair| Pair::of(pair, Mac([2, 0, 0, 0, 0, 1]))).collect::<Vec<_>>();
        let expected = json!([{"ip_address": "10.0.0.5", "mac_address": "02:00:00:00:00:01"},
            {"ip_address": "fd00::/64", "mac_address": "00:00:5e:00:01:07"}]);
        assert_eq!(Value::from(shown), expected);
        assert_eq!(pairs(Value::Null), Ok(Vec::new()));
        assert_eq!(pairs(json!(vec![json!({"ip_address": "10.0.0.5"}); ENTRIES])).map(|pairs| pairs.len()), Ok(ENTRIES));
        for bad in [
            json!({"ip_address": "10.0.0.5"}),
            json!(["10.0.0.5"]),
            json!([{}]),
            json!([{"mac_address": "00:00:5e:00:01:07"}]),
            json!([{"ip_address": null}]),
            json!([{"ip_address": "10.0.0.5/24"}]),
            json!([{"ip_address": "10.0.0.0/33"}]),
            json!([{"ip_address": "10.0.0"}]),
            json!([{"ip_address": "10.0.0.5", "mac_address": "x"}]),
            json!([{"ip_address": "10.0.0.5", "port": 1}]),
            json!(vec![json!({"ip_address": "10.0.0.5"}); ENTRIES + 1]),
        ] {
            assert!(matches!(pairs(bad.clone()), Err(ApiError::Body(BodyError::Field { .. }))), "{bad}");
        }
    }

    #[test]
    fn limits_are_read_as_they_are_shown() {
        let limits = |given: Value| read(json!({ "nicd:limits": given })).map(|new| new.limits);
        let given = json!({"to_guest": {"rate_kbps": 64}, "from_guest": {"rate_kbps": 100_000_000, "burst_kb": 8}});
        let read = limits(given.clone()).unwrap();
        assert_eq!(json!(read), given);
        let slow = RateLimit { rate_kbps: 64, burst_kb: None, exact: false };
        assert_eq!(read.to_guest, Some(slow));
        for none in [Value::Null, json!({}), json!({"to_guest": null, "from_guest": null})] {
            assert_eq!(limits(none), Ok(Limits::default()));
        }
        for bad in [
            json!([]),
            json!({"to_guest": {}}),
            json!({"to_guest": 64}),
            json!({"to_guest": {"rate_kbps": 63}}),
            json!({"to_guest": {"rate_kbps": 100_000_001}}),
            json!({"to_guest": {"rate_kbps": "64"}}),
            json!({"to_guest": {"rate_kbps": 64, "burst_kb": 0}}),
            json!({"to_guest": {"rate_kbps": 64, "burst_kb": 34_359_739}}),
            json!({"to_guest": {"rate_kbps": 64, "exact": "maybe"}}),
            json!({"to_guest": {"rate_kbps": 64, "burst": 1}}),
            json!({"both": {"rate_kbps": 64}}),
        ] {
            assert!(matches!(limits(bad.clone()), Err(ApiError::Body(BodyError::Field { .. }))), "{bad}");
        }
        let exact = limits(json!({"from_guest": {"rate_kbps": 64, "exact": true}})).unwrap();
        assert_eq!(exact.from_guest, Some(RateLimit { exact: true, ..slow }));
    }
}
