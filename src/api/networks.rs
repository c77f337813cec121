//! Neutron's networks.

use serde_json::{Value, json};

use crate::manager::{Error, NetworkView, Reply};
use crate::model::NetworkId;
use crate::model::action::{Action, NetworkChange, NewNetwork};
use crate::model::network::{MAX_MTU, MIN_MTU};

use super::Desk;
use super::agent::NAME;
use super::faults::{Refusal, What};
use super::fields::{BodyError, Fields, shown, wrong};
use super::listing::Listing;
use super::resource::Resource;

impl Resource for NetworkView {
    const ONE: &'static str = "network";
    const MANY: &'static str = "networks";
    const WHAT: What = What::Network;
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
        "port_security_enabled",
        "revision_number",
        "created_at",
        "updated_at",
    ];
    type Id = NetworkId;

    fn all(desk: &Desk, _: &Listing) -> Vec<Self> {
        desk.networks()
    }

    fn find(desk: &Desk, id: NetworkId) -> Result<Self, Error> {
        desk.network(id)
    }

    fn shown(&self) -> Value {
        let network = &self.network;
        let kind = if network.physical_network.is_some() || network.bridge.is_some() { "flat" } else { "local" };
        json!({
            "id": network.id.to_string(),
            "name": network.name,
            "description": network.description,
            "status": "ACTIVE",
            "admin_state_up": true,
            "mtu": network.mtu,
            "shared": false,
            "router:external": false,
            "subnets": self.subnets.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "tenant_id": network.project_id,
            "project_id": network.project_id,
            "provider:network_type": kind,
            "provider:physical_network": network.physical_network,
            "provider:segmentation_id": null,
            "nicd:bridge": network.bridge,
            "port_security_enabled": false,
            "tags": [],
            "revision_number": network.revision_number,
            "created_at": network.created_at,
            "updated_at": network.updated_at,
        })
    }

    fn create(_: &Desk, bodies: Vec<Fields>) -> Result<Action, BodyError> {
        bodies.into_iter().map(read_new).collect::<Result<_, _>>().map(Action::CreateNetworks)
    }

    fn change(_: &Desk, id: NetworkId, body: Fields) -> Result<Action, Refusal> {
        Ok(Action::UpdateNetwork(id, read_change(body)?))
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

fn read_new(mut fields: Fields) -> Result<NewNetwork, BodyError> {
    let id = fields.parsed("id")?;
    let name = fields.text("name", NAME)?.unwrap_or_default();
    let description = fields.text("description", NAME)?.unwrap_or_default();
    let project_id = project(&mut fields)?;
    let mtu = fields.number_or_text("mtu", MIN_MTU..=MAX_MTU)?;
    let bridge = fields.parsed_or_null("nicd:bridge")?.flatten();
    let kind = fields.value("provider:network_type");
    match kind.as_ref().map(|kind| kind.as_str().unwrap_or_default()) {
        None | Some("local" | "flat") => {}
        Some("vlan" | "vxlan") => {
            let kind = kind.unwrap_or_default();
            return Err(BodyError::NotBuilt(format!("provider:network_type = {kind}")));
        }
        Some(_) => {
            let why = "local, flat, vlan or vxlan is expected";
            return Err(wrong("provider:network_type", &kind.unwrap_or_default(), why));
        }
    }
    let physical_network = fields.text_or_null("provider:physical_network", NAME)?;
    fields.only("provider:segmentation_id", &[Value::Null])?;
    unchanging(&mut fields)?;
    fields.end()?;
    Ok(NewNetwork { id, name, description, project_id, mtu, bridge, physical_network })
}

fn read_change(mut fields: Fields) -> Result<NetworkChange, BodyError> {
    let change = NetworkChange {
        name: fields.text("name", NAME)?,
        description: fields.text("description", NAME)?,
        mtu: fields.number_or_text("mtu", MIN_MTU..=MAX_MTU)?,
    };
    unchanging(&mut fields)?;
    fields.end()?;
    Ok(change)
}

/// Attributes that have one possible value so far.
fn unchanging(fields: &mut Fields) -> Result<(), BodyError> {
    fields.only_truth("admin_state_up", true)?;
    fields.only_truth("shared", false)?;
    fields.only_truth("router:external", false)?;
    fields.only_truth("port_security_enabled", false)
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
    use super::*;

    fn read(network: Value) -> Result<NewNetwork, BodyError> {
        read_new(Fields::object("network", network)?)
    }

    #[test]
    fn what_is_not_built_is_refused_as_such() {
        for body in [
            json!({"provider:network_type": "vlan"}),
            json!({"provider:network_type": "vxlan"}),
            json!({"port_security_enabled": true}),
            json!({"admin_state_up": false}),
            json!({"provider:segmentation_id": 5}),
        ] {
            assert!(matches!(read(body.clone()), Err(BodyError::NotBuilt(_))), "{body}");
        }
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
            json!({"tenant_id": "a", "project_id": "b"}),
            json!({"nicd:bridge": "a/b"}),
            json!({"provider:network_type": "gre"}),
            json!({"id": "x"}),
            json!({"name": "x".repeat(256)}),
            json!({"colour": 1}),
        ] {
            assert!(read(body.clone()).is_err(), "{body}");
        }
        assert!(read(json!({"name": "blue", "admin_state_up": true, "nicd:bridge": null})).is_ok());
        // As openstackclient and older Neutron clients write them.
        assert_eq!(read(json!({"mtu": "1400", "shared": "False", "admin_state_up": 1})).unwrap().mtu, Some(1400));
    }
}
