//! Neutron's trunks.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use serde_json::{Value, json};

use crate::model::action::Action;
use crate::model::trunk::{NewSubPort, NewTrunk, SubPortSegment, TrunkChange, VLAN_IDS};
use crate::model::{PortId, SubPort, TrunkId, TrunkStatus};
use crate::service::{Error, Reply, TrunkView};

use super::agent::NAME;
use super::answer::answer;
use super::dialect::NETWORK;
use super::error::{ApiError, ObjectKind};
use super::fields::{BULK, BodyError, Fields, wrong};
use super::listing::Listing;
use super::networks::project;
use super::openapi::schema::{empty_list, list, number, one_of_words, time, truth, uuid, words};
use super::resource::{ChangeRequest, Changeable, Resource, changed};
use super::{AppState, id, respond};

/// The most subports of one request.
pub(super) const SUB_PORTS: usize = BULK;

impl Resource for TrunkView {
    const ONE: &'static str = "trunk";
    const MANY: &'static str = "trunks";
    const WHAT: ObjectKind = ObjectKind::Trunk;
    const KNOWN: &'static [&'static str] = &[
        "id",
        "name",
        "description",
        "tenant_id",
        "project_id",
        "port_id",
        "admin_state_up",
        "status",
        "revision_number",
        "created_at",
        "updated_at",
    ];
    type Id = TrunkId;

    fn all(state: &AppState, _: &Listing) -> Vec<Self> {
        state.trunks()
    }

    fn find(state: &AppState, id: TrunkId) -> Result<Self, Error> {
        state.trunk(id)
    }

    fn shown(&self) -> Value {
        Shown::of(self)
    }

    fn create(_: &AppState, bodies: Vec<Fields>) -> Result<Action, ApiError> {
        Ok(Action::CreateTrunks(bodies.into_iter().map(read_new).collect::<Result<_, _>>()?))
    }

    fn delete(id: TrunkId) -> Action {
        Action::DeleteTrunk(id)
    }

    fn of(reply: Reply) -> Option<Vec<Self>> {
        match reply {
            Reply::Trunk(one) => Some(vec![one]),
            Reply::Trunks(many) => Some(many),
            _ => None,
        }
    }
}

impl Changeable for TrunkView {
    fn change(state: &AppState, id: TrunkId, body: Fields) -> Result<Action, ApiError> {
        state.trunk(id)?;
        Ok(Action::UpdateTrunk(id, read_change(body)?))
    }
}

/// `GET v2.0/trunks/{id}/get_subports`.
pub(super) async fn sub_ports(State(state): State<AppState>, Path(text): Path<String>, RawQuery(query): RawQuery) -> Response {
    let found = Listing::read(query.as_deref(), TrunkView::KNOWN).and_then(|_| {
        let trunk = state.trunk(id(ObjectKind::Trunk, &text)?)?;
        Ok(Json(json!({"sub_ports": shown_sub_ports(&trunk)})))
    });
    respond(found, NETWORK)
}

/// `PUT v2.0/trunks/{id}/add_subports`. The answer is the trunk without an envelope, as Neutron has it.
pub(super) async fn add(request: ChangeRequest) -> Response {
    let changed = changed::<TrunkView>(request, |_, id, body| {
        let mut fields = Fields::top(body)?;
        let added = read_sub_ports(&mut fields)?;
        let added = fields.required("sub_ports", added)?;
        fields.end()?;
        Ok(Action::AddSubPorts(id, added))
    });
    respond(changed.await.map(Json), NETWORK)
}

/// `PUT v2.0/trunks/{id}/remove_subports`, answered in the same way.
pub(super) async fn remove(request: ChangeRequest) -> Response {
    let changed = changed::<TrunkView>(request, |_, id, body| {
        let mut fields = Fields::top(body)?;
        let removed = read_removed(&mut fields)?;
        fields.end()?;
        Ok(Action::RemoveSubPorts(id, removed))
    });
    respond(changed.await.map(Json), NETWORK)
}

answer! {
    /// A trunk as Neutron shows it.
    pub(super) Shown(view: &TrunkView) {
        /// The trunk's id.
        "id": view.trunk.id.to_string() => uuid(),
        /// Its name, which need not be unique.
        "name": view.trunk.name => words(),
        /// Free text.
        "description": view.trunk.description => words(),
        /// The same as `project_id`.
        "tenant_id": view.trunk.project_id => words(),
        /// The project; nicd only stores it.
        "project_id": view.trunk.project_id => words(),
        /// The parent: the port whose NIC carries the subports' frames, and its own without a tag.
        "port_id": view.trunk.port_id.to_string() => uuid(),
        /// Whether its subports are to carry traffic; of a trunk that is down no subport can be added or removed.
        "admin_state_up": view.trunk.admin_up => truth(),
        /// `ACTIVE`: the parent and all subports are; `DEGRADED`: the parent is, and a subport is not; `BUILD`: one of them is being built;
        /// `DOWN`: the trunk or its parent is down; `ERROR`: the parent or every subport cannot be built.
        "status": view.status.as_str() => one_of_words(TrunkStatus::ALL.map(TrunkStatus::as_str)),
        /// Its subports.
        "sub_ports": shown_sub_ports(view) => list(ShownSubPort::shape()),
        /// Always empty.
        "tags": Value::Array(Vec::new()) => empty_list(),
        /// Counts its changes, for `If-Match`.
        "revision_number": view.trunk.revision_number => number(1..=u32::MAX),
        /// When it was created.
        "created_at": view.trunk.created_at => time(),
        /// When it was last changed.
        "updated_at": view.trunk.updated_at => time(),
    }
}

answer! {
    /// A subport of a trunk.
    pub(super) ShownSubPort(sub: &SubPort) {
        /// The port.
        "port_id": sub.port_id.to_string() => uuid(),
        /// Always vlan: its frames have a tag on the parent's NIC.
        "segmentation_type": VLAN => one_of_words([VLAN]),
        /// The VLAN of that tag.
        "segmentation_id": sub.vlan => number(u32::from(*VLAN_IDS.start())..=u32::from(*VLAN_IDS.end())),
    }
}

pub(super) const VLAN: &str = "vlan";

pub(super) const INHERIT: &str = "inherit";

fn shown_sub_ports(view: &TrunkView) -> Vec<Value> {
    view.trunk.sub_ports.iter().map(ShownSubPort::of).collect()
}

fn read_new(mut fields: Fields) -> Result<NewTrunk, BodyError> {
    let port = fields.parsed("port_id")?;
    let new = NewTrunk {
        id: fields.parsed("id")?,
        name: fields.text("name", NAME)?.unwrap_or_default(),
        description: fields.text("description", NAME)?.unwrap_or_default(),
        project_id: project(&mut fields)?,
        port_id: fields.required("port_id", port)?,
        admin_up: fields.truth("admin_state_up")?.unwrap_or(true),
        sub_ports: read_sub_ports(&mut fields)?.unwrap_or_default(),
    };
    fields.end()?;
    Ok(new)
}

fn read_change(mut fields: Fields) -> Result<TrunkChange, BodyError> {
    let change = TrunkChange {
        name: fields.text("name", NAME)?,
        description: fields.text("description", NAME)?,
        admin_up: fields.truth("admin_state_up")?,
    };
    if let Some(given) = fields.value("sub_ports") {
        return Err(wrong("sub_ports", &given, "add_subports and remove_subports change them: leave it out"));
    }
    fields.end_of_change(TrunkView::KNOWN)?;
    Ok(change)
}

/// The subports to add, of which no two have one port or one VLAN (`validate_subports`, neutron_lib/services/trunk).
fn read_sub_ports(fields: &mut Fields) -> Result<Option<Vec<NewSubPort>>, BodyError> {
    let Some(given) = fields.list_or_null("sub_ports", SUB_PORTS)? else { return Ok(None) };
    let (mut ports, mut vlans) = (BTreeSet::new(), BTreeSet::new());
    let read = |(at, value): (String, Value)| {
        let mut fields = Fields::object(&at, value.clone())?;
        let port_id: Option<PortId> = fields.parsed("port_id")?;
        let port_id = fields.required("port_id", port_id)?;
        let kind = fields.text("segmentation_type", NAME)?;
        let range = u32::from(*VLAN_IDS.start())..=u32::from(*VLAN_IDS.end());
        let segment = match kind.as_deref() {
            // The id says nothing then, and some clients send one.
            Some(INHERIT) => {
                let _ = fields.number_or_text("segmentation_id", range)?;
                SubPortSegment::Inherit
            }
            Some(VLAN) => {
                let vlan = fields.number_or_text("segmentation_id", range)?;
                SubPortSegment::Vlan(u16::try_from(fields.required("segmentation_id", vlan)?).unwrap_or_default())
            }
            Some(other) => return Err(wrong("segmentation_type", &other.into(), "vlan or inherit is expected")),
            None => fields.required("segmentation_type", None)?,
        };
        fields.end()?;
        if !ports.insert(port_id) {
            return Err(wrong(&at, &value, "another entry has this port_id: name each port once"));
        }
        if let SubPortSegment::Vlan(vlan) = segment
            && !vlans.insert(vlan)
        {
            return Err(wrong(&at, &value, "another entry has this segmentation_id: give each port its own"));
        }
        Ok(NewSubPort { port_id, segment })
    };
    given.into_iter().map(read).collect::<Result<_, _>>().map(Some)
}

/// The subports to remove. What else clients say of them, which is what a GET shows, does not matter.
fn read_removed(fields: &mut Fields) -> Result<Vec<PortId>, BodyError> {
    let given = fields.list("sub_ports", SUB_PORTS)?;
    let mut removed = BTreeSet::new();
    for (at, value) in fields.required("sub_ports", given)? {
        let mut fields = Fields::object(&at, value.clone())?;
        let port = fields.parsed("port_id")?;
        let port = fields.required("port_id", port)?;
        let _ = (fields.value("segmentation_type"), fields.value("segmentation_id"));
        fields.end()?;
        if !removed.insert(port) {
            return Err(wrong(&at, &value, "another entry has this port_id: name each port once"));
        }
    }
    Ok(removed.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "ce531f90-199f-48c0-816c-13e38010b442";
    const SUB: &str = "3cb9bc59-5699-4588-a4b1-b87f96708bc6";

    fn read(mut trunk: Value) -> Result<NewTrunk, BodyError> {
        trunk["port_id"] = PARENT.into();
        read_new(Fields::object("trunk", trunk)?)
    }

    #[test]
    fn a_subport_has_a_vlan_or_takes_over_its_networks() {
        let subs = |given: Value| read(json!({ "sub_ports": given })).map(|new| new.sub_ports);
        let vlan = |id: Value| json!([{"port_id": SUB, "segmentation_type": "vlan", "segmentation_id": id}]);
        let port_id: PortId = SUB.parse().unwrap();
        for id in [json!(100), json!("100")] {
            assert_eq!(subs(vlan(id)), Ok(vec![NewSubPort { port_id, segment: SubPortSegment::Vlan(100) }]));
        }
        let inherits = json!([{"port_id": SUB, "segmentation_type": "inherit"}]);
        assert_eq!(subs(inherits), Ok(vec![NewSubPort { port_id, segment: SubPortSegment::Inherit }]));
        assert_eq!((subs(Value::Null), subs(json!([]))), (Ok(vec![]), Ok(vec![])));
        for bad in
            [vlan(json!(0)), vlan(json!(4095)), vlan(json!("x")), vlan(Value::Null), vlan(json!(1.5)), json!({}), json!([1])]
        {
            assert!(subs(bad.clone()).is_err(), "{bad}");
        }
        for bad in [
            json!({"port_id": SUB}),
            json!({"port_id": SUB, "segmentation_id": 7}),
            json!({"port_id": SUB, "segmentation_type": "vlan"}),
            json!({"port_id": SUB, "segmentation_type": "vxlan", "segmentation_id": 7}),
            json!({"segmentation_type": "vlan", "segmentation_id": 7}),
            json!({"port_id": "x", "segmentation_type": "vlan", "segmentation_id": 7}),
            json!({"port_id": SUB, "segmentation_type": "vlan", "segmentation_id": 7, "mac_address": "fa:16:3e:00:00:01"}),
        ] {
            assert!(subs(json!([bad])).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_and_a_vlan_come_once_in_a_request() {
        let sub = |port: &str, id: u16| json!({"port_id": port, "segmentation_type": "vlan", "segmentation_id": id});
        for bad in [json!([sub(SUB, 1), sub(SUB, 2)]), json!([sub(SUB, 1), sub(PARENT, 1)])] {
            let why = read(json!({ "sub_ports": bad })).unwrap_err().to_string();
            assert!(why.contains("another entry"), "{why}");
        }
        let twice = json!({"sub_ports": [{"port_id": SUB}, {"port_id": SUB}]});
        assert!(read_removed(&mut Fields::object("x", twice).unwrap()).is_err());
    }

    #[test]
    fn what_a_get_shows_can_be_removed() {
        let shown = json!({"sub_ports": [{"port_id": SUB, "segmentation_type": "vlan", "segmentation_id": 7}]});
        assert_eq!(read_removed(&mut Fields::object("x", shown).unwrap()).map(|ports| ports.len()), Ok(1));
    }
}
