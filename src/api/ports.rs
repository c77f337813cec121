//! Neutron's ports.

use serde_json::{Value, json};

use crate::model::action::{Action, NewPort, PortChange, WantedIp};
use crate::model::network::{MAX_MTU, MIN_MTU};
use crate::model::server::MAX_QUEUES;
use crate::model::{FixedIp, PortId, Profile};
use crate::service::{Binding, DeviceView, Error, PortFilter, PortView, Reply};

use super::AppState;
use super::agent::NAME;
use super::answer::answer;
use super::error::{ApiError, ObjectKind};
use super::fields::{BodyError, Fields, Ip, parse_value, wrong};
use super::listing::Listing;
use super::networks::project;
use super::openapi::schema::{
    Record, Shape, any, empty_list, ip, list, mac, null, number, one_of_words, only, or_null, phase, status, time, truth, uuid,
    words,
};
use super::resource::Resource;

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
        "nicd:unknown_unicast",
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
        state.port(id)
    }

    fn shown(&self) -> Value {
        Shown::of(self, vif(self))
    }

    fn create(state: &AppState, bodies: Vec<Fields>) -> Result<Action, ApiError> {
        bodies.into_iter().map(|fields| read_new(state.host(), fields)).collect::<Result<_, _>>().map(Action::CreatePorts)
    }

    fn change(state: &AppState, id: PortId, body: Fields) -> Result<Action, ApiError> {
        Ok(Action::UpdatePort(id, read_change(&state.port(id)?, body)?))
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

answer! {
    /// A port as Neutron shows it.
    pub(super) Shown(view: &PortView, vif: (&str, Value)) {
        "id": view.port.id.to_string() => uuid(),
        "name": view.port.name => words(),
        "description": view.port.description => words(),
        "network_id": view.port.network_id.to_string() => uuid(),
        "tenant_id": view.port.project_id => words(),
        "project_id": view.port.project_id => words(),
        "mac_address": view.port.mac.to_string() => mac(),
        "fixed_ips": view.port.fixed_ips.iter().map(Address::of).collect::<Vec<_>>() => list(Address::shape()),
        "allowed_address_pairs": Value::Array(Vec::new()) => empty_list(),
        "port_security_enabled": false => only(false),
        "security_groups": Value::Array(Vec::new()) => empty_list(),
        "admin_state_up": view.port.admin_up => truth(),
        "status": view.phase.status().as_str() => status(),
        "device_id": view.binding.as_ref().map_or_else(String::new, |binding| binding.server.to_string()) => words(),
        "device_owner": owner(view) => words(),
        "binding:vif_type": vif.0 => one_of_words(["tap", "veth", "unbound"]),
        "binding:vif_details": vif.1 => details(),
        "binding:vnic_type": "normal" => only("normal"),
        "binding:host_id": if view.binding.is_some() { view.host.as_str() } else { "" } => words(),
        "binding:profile": view.port.profile => Record::new().may("interface_name", words()).must("vnet_hdr", truth()),
        "nicd:limits": Value::Null => null(),
        "nicd:unknown_unicast": view.port.unknown_unicast => truth(),
        "nicd:phase": view.phase.as_str() => phase(),
        "nicd:reason": view.reason => or_null(words()),
        "tags": Value::Array(Vec::new()) => empty_list(),
        "revision_number": view.port.revision_number => number(1..=u32::MAX),
        "created_at": view.port.created_at => time(),
        "updated_at": view.port.updated_at => time(),
    }
}

answer! {
    /// An address of a port.
    pub(super) Address(given: &FixedIp) {
        "subnet_id": given.subnet_id.to_string() => uuid(),
        "ip_address": given.ip_address.to_string() => ip(),
    }
}

answer! {
    /// A port's device. For a tap also how a VMM opens it, for a veth the namespace and name of the guest's end.
    Device(binding: &Binding, device: Option<&DeviceView>) {
        "device": device.map(|device| device.name.clone()) => or_null(words()),
        "bridge": binding.bridge => or_null(words()),
        "host_mac": device.and_then(|device| device.host_mac).map(|mac| mac.to_string()) => or_null(mac()),
        "mtu": binding.mtu => number(MIN_MTU..=MAX_MTU),
    }
}

fn details() -> Shape {
    let tap = Device::shape().must("queues", number(1..=u32::from(MAX_QUEUES))).must("vnet_hdr", truth());
    let veth = Device::shape().must("guest_device", or_null(words()));
    any([tap.into(), veth.into(), Record::new().into()])
}

/// What can be looked up instead of searched; none when an id asked for is the id of nothing.
fn narrowed(listing: &Listing) -> Option<PortFilter> {
    let unbound = listing.only("device_id").is_some_and(str::is_empty);
    Some(PortFilter {
        id: listing.only("id").map(str::parse).transpose().ok()?,
        server: if unbound { None } else { listing.only("device_id").map(str::parse).transpose().ok()? },
        network: listing.only("network_id").map(str::parse).transpose().ok()?,
    })
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
        device_owner: fields.text("device_owner", NAME)?.unwrap_or_default(),
        profile: read_profile(&mut fields)?.unwrap_or_default(),
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
        device_owner: fields.text("device_owner", NAME)?,
        mac: fields.parsed("mac_address")?,
        fixed_ips: read_ips(&mut fields)?,
        profile: read_profile(&mut fields)?,
    };
    own_host(&mut fields, &port.host)?;
    unchanging(&mut fields)?;
    fields.end_of_change(PortView::KNOWN)?;
    let its_own = |device: &String| port.binding.as_ref().is_some_and(|binding| device.parse() == Ok(binding.server));
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

/// `binding:profile`: what of it nicd knows.
fn read_profile(fields: &mut Fields) -> Result<Option<Profile>, BodyError> {
    let given = match fields.value("binding:profile") {
        None | Some(Value::Null) => return Ok(None),
        Some(given) => given,
    };
    let mut fields = Fields::object("binding:profile", given)?;
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

/// Attributes that have one possible value until filters and limits exist.
fn unchanging(fields: &mut Fields) -> Result<(), BodyError> {
    let none = [Value::Array(Vec::new()), Value::Null];
    fields.only_truth("port_security_enabled", false)?;
    fields.must_be("security_groups", &none, "nicd has no security groups: only [] is possible")?;
    fields.only("allowed_address_pairs", &none)?;
    fields.only("nicd:limits", &[Value::Null, json!({})])?;
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
fn vif(view: &PortView) -> (&'static str, Value) {
    let Some(binding) = &view.binding else { return ("unbound", json!({})) };
    let mut details = Device::of(binding, binding.device.as_ref());
    match binding.tap {
        Some(tap) => {
            details["queues"] = tap.queues.into();
            details["vnet_hdr"] = tap.vnet_hdr.into();
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
    fn what_is_not_built_is_refused_as_such() {
        for later in [
            json!({"port_security_enabled": true}),
            json!({"nicd:limits": {"to_guest": {"rate_kbps": 1}}}),
            json!({"allowed_address_pairs": [{"ip_address": "10.0.0.1"}]}),
        ] {
            assert!(matches!(read(later.clone()), Err(ApiError::Body(BodyError::NotBuilt(_)))), "{later}");
        }
    }
}
