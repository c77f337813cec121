//! Neutron's networks.

use serde_json::Value;

use crate::model::action::{Action, NetworkChange, NewNetwork};
use crate::model::network::{MAX_MTU, MIN_MTU};
use crate::model::segment::{VLANS, VNIS};
use crate::model::{NetworkId, NetworkKind, Scope};
use crate::service::{Error, NetworkView, Reply};

use super::AppState;
use super::agent::NAME;
use super::answer::answer;
use super::error::{ApiError, ObjectKind};
use super::fields::{BodyError, Fields, shown, wrong};
use super::listing::Listing;
use super::openapi::schema::{empty_list, list, number, one_of_words, only, or_null, time, truth, uuid, words};
use super::resource::{Changeable, Resource};

impl Resource for NetworkView {
    const ONE: &'static str = "network";
    const MANY: &'static str = "networks";
    const WHAT: ObjectKind = ObjectKind::Network;
    const KNOWN: &'static [&'static str] = &[
        "id",
        "name",
        "description",
        "status",
        "admin_state_up",
        "mtu",
        "shared",
        "router:external",
        "subnets",
        "tenant_id",
        "project_id",
        "provider:network_type",
        "provider:physical_network",
        "provider:segmentation_id",
        "nicd:bridge",
        "nicd:device",
        "nicd:uplink",
        "port_security_enabled",
        "nicd:isolated",
        "nicd:scope",
        "revision_number",
        "created_at",
        "updated_at",
    ];
    type Id = NetworkId;

    fn all(state: &AppState, _: &Listing) -> Vec<Self> {
        state.networks()
    }

    fn find(state: &AppState, id: NetworkId) -> Result<Self, Error> {
        state.network(id)
    }

    fn shown(&self) -> Value {
        Shown::of(self)
    }

    fn create(_: &AppState, bodies: Vec<Fields>) -> Result<Action, ApiError> {
        let new = bodies.into_iter().map(read_new).collect::<Result<_, _>>()?;
        Ok(Action::CreateNetworks(new))
    }

    fn delete(id: NetworkId) -> Action {
        Action::DeleteNetwork(id)
    }

    fn of(reply: Reply) -> Option<Vec<Self>> {
        match reply {
            Reply::Network(one) => Some(vec![one]),
            Reply::Networks(many) => Some(many),
            _ => None,
        }
    }
}

impl Changeable for NetworkView {
    fn change(_: &AppState, id: NetworkId, body: Fields) -> Result<Action, ApiError> {
        Ok(Action::UpdateNetwork(id, read_change(body)?))
    }
}

answer! {
    /// A network as Neutron shows it.
    pub(super) Shown(view: &NetworkView) {
        /// The network's id.
        "id": view.network.id.to_string() => uuid(),
        /// Its name, which need not be unique.
        "name": view.network.name => words(),
        /// Free text.
        "description": view.network.description => words(),
        /// Always ACTIVE.
        "status": "ACTIVE" => one_of_words(["ACTIVE"]),
        /// Always true.
        "admin_state_up": true => only(true),
        /// The MTU of its guests.
        "mtu": view.network.mtu => number(MIN_MTU..=MAX_MTU),
        /// Always false.
        "shared": false => only(false),
        /// Always false.
        "router:external": false => only(false),
        /// Its subnets' ids.
        "subnets": view.subnets.iter().map(ToString::to_string).collect::<Vec<_>>() => list(uuid()),
        /// The same as `project_id`.
        "tenant_id": view.network.project_id => words(),
        /// The project; nicd only stores it.
        "project_id": view.network.project_id => words(),
        /// `vlan`: a VLAN of a physical network; `flat`: untagged on one; `vxlan`: tunnels between the hosts of a fleet; `local`: without an uplink.
        "provider:network_type": view.network.kind.as_str() => one_of_words(["local", "flat", "vlan", "vxlan"]),
        /// Its physical network, by its name in `[physical_networks]`; with `nicd:bridge` by any name.
        "provider:physical_network": view.network.physical_network => or_null(words()),
        /// The VLAN of a vlan network, the VXLAN network identifier of a vxlan network; null for others.
        "provider:segmentation_id": view.network.segmentation_id => or_null(number(VNIS)),
        /// The existing bridge that it uses, which nicd does not change; null where nicd makes one.
        "nicd:bridge": view.network.bridge => or_null(words()),
        /// The name of its bridge on this host; null while there is none.
        "nicd:device": view.device => or_null(words()),
        /// The link of this host that leads to its physical network; null where none does, or where `nicd:bridge` does.
        "nicd:uplink": view.uplink => or_null(words()),
        /// Whether ports that are made from now on are filtered.
        "port_security_enabled": view.network.port_security => truth(),
        /// Whether its ports are sent only what is for them, ARP, neighbour discovery, router advertisements and DHCP.
        "nicd:isolated": view.network.isolated => truth(),
        /// `fleet`: all hosts of the fleet have it; `host`: this host alone.
        "nicd:scope": view.network.scope.as_str() => one_of_words(["host", "fleet"]),
        /// Always empty.
        "tags": Value::Array(Vec::new()) => empty_list(),
        /// Counts its changes, for `If-Match`.
        "revision_number": view.network.revision_number => number(1..=u32::MAX),
        /// When it was created.
        "created_at": view.network.created_at => time(),
        /// When it was last changed.
        "updated_at": view.network.updated_at => time(),
    }
}

fn read_new(mut fields: Fields) -> Result<NewNetwork, BodyError> {
    let id = fields.parsed("id")?;
    let name = fields.text("name", NAME)?.unwrap_or_default();
    let description = fields.text("description", NAME)?.unwrap_or_default();
    let project_id = project(&mut fields)?;
    let mtu = fields.number_or_text("mtu", MIN_MTU..=MAX_MTU)?;
    let bridge = fields.parsed_or_null("nicd:bridge")?.flatten();
    let kind = fields.value("provider:network_type");
    let physical_network = fields.text_or_null("provider:physical_network", NAME)?;
    let kind = read_kind(kind.as_ref(), bridge.is_some(), physical_network.as_deref())?;
    let segmentation_id = read_segment(&mut fields, kind)?;
    let port_security = fields.truth("port_security_enabled")?.unwrap_or(true);
    let isolated = fields.truth("nicd:isolated")?.unwrap_or(false);
    let scope = fields.value("nicd:scope");
    let scope = scope.as_ref().map(|asked| read_scope(asked, kind)).transpose()?;
    unchanging(&mut fields)?;
    fields.end()?;
    Ok(NewNetwork {
        id,
        name,
        description,
        project_id,
        mtu,
        bridge,
        kind,
        physical_network,
        segmentation_id,
        port_security,
        isolated,
        scope,
    })
}

/// For which hosts a network is to be.
fn read_scope(asked: &Value, kind: NetworkKind) -> Result<Scope, BodyError> {
    match asked.as_str() {
        Some("host") if kind == NetworkKind::Vxlan => {
            Err(wrong("nicd:scope", asked, "a vxlan network connects the hosts of a fleet: leave it out"))
        }
        Some("host") => Ok(Scope::Host),
        Some("fleet") => Ok(Scope::Fleet),
        _ => Err(wrong("nicd:scope", asked, "host or fleet is expected")),
    }
}

/// A network's kind as asked for, or as follows from what else is.
fn read_kind(asked: Option<&Value>, has_bridge: bool, physical: Option<&str>) -> Result<NetworkKind, BodyError> {
    let Some(asked) = asked else {
        return Ok(if has_bridge || physical.is_some() { NetworkKind::Flat } else { NetworkKind::Local });
    };
    let refuse = |why| Err(wrong("provider:network_type", asked, why));
    match (asked.as_str().unwrap_or_default(), physical) {
        ("local", None) => Ok(NetworkKind::Local),
        ("local", Some(_)) => refuse("provider:physical_network is a flat network's: leave it out"),
        ("flat", None) if !has_bridge => refuse("a flat network needs provider:physical_network or nicd:bridge"),
        ("flat", _) => Ok(NetworkKind::Flat),
        ("vlan", _) if has_bridge => refuse(
            "a vlan network has no nicd:bridge; name the bridge in [physical_networks], and that in provider:physical_network",
        ),
        ("vlan", None) => refuse("a vlan network needs provider:physical_network"),
        ("vlan", Some(_)) => Ok(NetworkKind::Vlan),
        ("vxlan", _) if has_bridge => refuse("a vxlan network has no nicd:bridge: leave it out"),
        ("vxlan", Some(_)) => refuse("a vxlan network has no provider:physical_network: leave it out"),
        ("vxlan", None) => Ok(NetworkKind::Vxlan),
        _ => refuse("local, flat, vlan or vxlan is expected"),
    }
}

/// The VLAN, or the VXLAN network identifier, that a network asks for; none for a free one. Only a vlan or vxlan network has one.
fn read_segment(fields: &mut Fields, kind: NetworkKind) -> Result<Option<u32>, BodyError> {
    const NAME: &str = "provider:segmentation_id";
    let among = if kind == NetworkKind::Vxlan { VNIS } else { VLANS };
    match fields.number_or_null(NAME, among)? {
        Some(id) if !matches!(kind, NetworkKind::Vlan | NetworkKind::Vxlan) => {
            Err(wrong(NAME, &id.into(), "only a network with provider:network_type vlan or vxlan has one: leave it out"))
        }
        id => Ok(id),
    }
}

fn read_change(mut fields: Fields) -> Result<NetworkChange, BodyError> {
    let change = NetworkChange {
        name: fields.text("name", NAME)?,
        description: fields.text("description", NAME)?,
        mtu: fields.number_or_text("mtu", MIN_MTU..=MAX_MTU)?,
        port_security: fields.truth("port_security_enabled")?,
        isolated: fields.truth("nicd:isolated")?,
    };
    unchanging(&mut fields)?;
    fields.end_of_change(NetworkView::KNOWN)?;
    Ok(change)
}

/// Attributes that have one possible value so far.
fn unchanging(fields: &mut Fields) -> Result<(), BodyError> {
    fields.only_truth("admin_state_up", true)?;
    fields.only_truth("shared", false)?;
    fields.only_truth("router:external", false)
}

/// The project, by either of its names, or by both if they say the same.
pub(super) fn project(fields: &mut Fields) -> Result<String, BodyError> {
    match (fields.text("tenant_id", NAME)?, fields.text("project_id", NAME)?) {
        (Some(old), Some(new)) if old != new => {
            Err(wrong("project_id", &new.into(), &format!("tenant_id, its older name, says '{}'", shown(&old.into()))))
        }
        (old, new) => Ok(new.or(old).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(network: Value) -> Result<NewNetwork, BodyError> {
        read_new(Fields::object("network", network)?)
    }

    #[test]
    fn what_is_not_built_is_refused_as_such() {
        let body = json!({"admin_state_up": false});
        assert!(matches!(read(body), Err(BodyError::NotBuilt(_))));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for body in [
            json!({"mtu": 1279}),
            json!({"mtu": 65522}),
            json!({"mtu": "1279"}),
            json!({"mtu": "1500 bytes"}),
            json!({"shared": "maybe"}),
            json!({"admin_state_up": null}),
            json!({"port_security_enabled": null}),
            json!({"nicd:isolated": null}),
            json!({"nicd:scope": null}),
            json!({"nicd:scope": "region"}),
            json!({"nicd:scope": "host", "provider:network_type": "vxlan"}),
            json!({"tenant_id": "a", "project_id": "b"}),
            json!({"nicd:bridge": "a/b"}),
            json!({"provider:network_type": "gre"}),
            json!({"provider:network_type": null}),
            json!({"provider:network_type": "flat"}),
            json!({"provider:network_type": "vlan"}),
            json!({"provider:network_type": "vlan", "provider:physical_network": "p", "nicd:bridge": "br0"}),
            json!({"provider:network_type": "vlan", "provider:physical_network": "p", "provider:segmentation_id": 0}),
            json!({"provider:network_type": "vlan", "provider:physical_network": "p", "provider:segmentation_id": 4095}),
            json!({"provider:network_type": "vlan", "provider:physical_network": "p", "provider:segmentation_id": "x"}),
            json!({"provider:network_type": "vxlan", "provider:physical_network": "p"}),
            json!({"provider:network_type": "vxlan", "nicd:bridge": "br0"}),
            json!({"provider:network_type": "vxlan", "provider:segmentation_id": 0}),
            json!({"provider:network_type": "vxlan", "provider:segmentation_id": 16_777_216}),
            json!({"provider:physical_network": "p", "provider:segmentation_id": 5}),
            json!({"provider:segmentation_id": 5}),
            json!({"provider:network_type": "local", "provider:physical_network": "p"}),
            json!({"id": "x"}),
            json!({"name": "x".repeat(256)}),
            json!({"colour": 1}),
        ] {
            assert!(read(body.clone()).is_err(), "{body}");
        }
        assert!(read(json!({"name": "blue", "admin_state_up": true, "nicd:bridge": null})).is_ok());
        for (body, kind) in [
            (json!({}), NetworkKind::Local),
            (json!({"nicd:bridge": "br0"}), NetworkKind::Flat),
            (json!({"provider:physical_network": "p"}), NetworkKind::Flat),
            (json!({"provider:network_type": "flat", "provider:physical_network": "p"}), NetworkKind::Flat),
            (json!({"provider:network_type": "flat", "nicd:bridge": "br0"}), NetworkKind::Flat),
            (json!({"provider:network_type": "local", "nicd:bridge": "br0"}), NetworkKind::Local),
        ] {
            assert_eq!(read(body.clone()).unwrap().kind, kind, "{body}");
        }
        for (id, vlan) in [(json!(null), None), (json!(101), Some(101)), (json!("4094"), Some(4094))] {
            let body = json!({"provider:network_type": "vlan", "provider:physical_network": "p", "provider:segmentation_id": id});
            let new = read(body).unwrap();
            assert_eq!((new.kind, new.segmentation_id), (NetworkKind::Vlan, vlan));
        }
        for (id, vni) in [(json!(null), None), (json!(4095), Some(4095)), (json!("16777215"), Some(0x00ff_ffff))] {
            let new = read(json!({"provider:network_type": "vxlan", "provider:segmentation_id": id})).unwrap();
            assert_eq!((new.kind, new.segmentation_id), (NetworkKind::Vxlan, vni));
        }
        // As openstackclient and older Neutron clients write them.
        assert_eq!(read(json!({"mtu": "1400", "shared": "False", "admin_state_up": 1})).unwrap().mtu, Some(1400));
    }
}
