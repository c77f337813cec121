//! Neutron's security groups and their rules.

use ipnetwork::IpNetwork;
use serde_json::Value;
use uuid::Uuid;

use crate::model::action::Action;
use crate::model::group::What;
use crate::model::rule::{GroupChange, NewGroup, NewRule, RULE_REVISION};
use crate::model::{Direction, Family, Group, GroupId, Remote, Rule, RuleId};
use crate::service::{Error, Reply, RuleFilter, RuleView};

use super::AppState;
use super::agent::NAME;
use super::answer::answer;
use super::error::{ApiError, ObjectKind};
use super::fields::{BodyError, Fields, wrong};
use super::listing::Listing;
use super::networks::project;
use super::openapi::schema::{empty_list, list, null, number, one_of_words, only, or_null, range, time, uuid, words};
use super::resource::{Changeable, Resource};

/// The longest protocol and the longest prefix, in characters.
pub(super) const WORD: usize = 64;

impl Resource for Group {
    const ONE: &'static str = "security_group";
    const MANY: &'static str = "security_groups";
    const WHAT: ObjectKind = ObjectKind::Group;
    const KNOWN: &'static [&'static str] = &[
        "id",
        "name",
        "description",
        "tenant_id",
        "project_id",
        "stateful",
        "shared",
        "revision_number",
        "created_at",
        "updated_at",
    ];
    type Id = GroupId;

    fn all(state: &AppState, _: &Listing) -> Vec<Self> {
        state.groups()
    }

    fn find(state: &AppState, id: GroupId) -> Result<Self, Error> {
        state.group(id)
    }

    fn shown(&self) -> Value {
        Shown::of(self)
    }

    fn create(_: &AppState, bodies: Vec<Fields>) -> Result<Action, ApiError> {
        let new = bodies.into_iter().map(read_new).collect::<Result<_, _>>()?;
        Ok(Action::CreateGroups(new))
    }

    fn delete(id: GroupId) -> Action {
        Action::DeleteGroup(id)
    }

    fn of(reply: Reply) -> Option<Vec<Self>> {
        match reply {
            Reply::Group(one) => Some(vec![one]),
            Reply::Groups(many) => Some(many),
            _ => None,
        }
    }
}

impl Changeable for Group {
    fn change(_: &AppState, id: GroupId, mut body: Fields) -> Result<Action, ApiError> {
        let change = GroupChange { name: body.text("name", NAME)?, description: body.text("description", NAME)? };
        body.only_truth("stateful", true)?;
        body.end_of_change(Self::KNOWN)?;
        Ok(Action::UpdateGroup(id, change))
    }
}

impl Resource for RuleView {
    const ONE: &'static str = "security_group_rule";
    const MANY: &'static str = "security_group_rules";
    const WHAT: ObjectKind = ObjectKind::Rule;
    const KNOWN: &'static [&'static str] = &[
        "id",
        "security_group_id",
        "direction",
        "ethertype",
        "protocol",
        "port_range_min",
        "port_range_max",
        "remote_ip_prefix",
        "remote_group_id",
        "remote_address_group_id",
        "normalized_cidr",
        "description",
        "tenant_id",
        "project_id",
        "revision_number",
        "created_at",
        "updated_at",
    ];
    type Id = RuleId;

    fn all(state: &AppState, listing: &Listing) -> Vec<Self> {
        narrowed(listing).map_or_else(Vec::new, |filter| state.rules(filter))
    }

    fn find(state: &AppState, id: RuleId) -> Result<Self, Error> {
        state.rule(id)
    }

    fn shown(&self) -> Value {
        ShownRule::of(&self.rule, self.group, &self.project_id)
    }

    fn create(_: &AppState, bodies: Vec<Fields>) -> Result<Action, ApiError> {
        let new = bodies.into_iter().map(read_new_rule).collect::<Result<_, _>>()?;
        Ok(Action::CreateRules(new))
    }

    fn delete(id: RuleId) -> Action {
        Action::DeleteRule(id)
    }

    fn of(reply: Reply) -> Option<Vec<Self>> {
        match reply {
            Reply::Rules(many) => Some(many),
            _ => None,
        }
    }
}

answer! {
    /// A security group as Neutron shows it.
    pub(super) Shown(group: &Group) {
        /// The group's id.
        "id": group.id.to_string() => uuid(),
        /// Its name, which need not be unique; `default` is a project's own group.
        "name": group.name => words(),
        /// Free text.
        "description": group.description => words(),
        /// The same as `project_id`.
        "tenant_id": group.project_id => words(),
        /// The project; ports and rules of any project may use the group.
        "project_id": group.project_id => words(),
        /// Always true: what answers an allowed packet is allowed.
        "stateful": true => only(true),
        /// Always false.
        "shared": false => only(false),
        /// Its rules.
        "security_group_rules": group.rules.iter().map(|rule| ShownRule::of(rule, group.id, &group.project_id)).collect::<Vec<_>>()
            => list(ShownRule::shape()),
        /// Always empty.
        "tags": Value::Array(Vec::new()) => empty_list(),
        /// Counts its changes, also of its rules, for `If-Match`.
        "revision_number": group.revision_number => number(1..=u32::MAX),
        /// When it was created.
        "created_at": group.created_at => time(),
        /// When it, or one of its rules, was last changed.
        "updated_at": group.updated_at => time(),
    }
}

answer! {
    /// A rule as Neutron shows it.
    pub(super) ShownRule(rule: &Rule, group: GroupId, project: &str) {
        /// The rule's id.
        "id": rule.id.to_string() => uuid(),
        /// The group that it is of.
        "security_group_id": group.to_string() => uuid(),
        /// Whether it allows what comes to the guest, or what comes from it.
        "direction": direction(rule.allows.direction) => one_of_words(["ingress", "egress"]),
        /// The family of the addresses.
        "ethertype": ethertype(rule.allows.family) => one_of_words(["IPv4", "IPv6"]),
        /// The protocol, as it was given: a name or a number; null: any.
        "protocol": protocol(rule) => or_null(words()),
        /// The first port, or the type of ICMP; null: all.
        "port_range_min": ends(&rule.allows.what).0 => or_null(number(0..=u32::from(u16::MAX))),
        /// The last port, or the code of ICMP; null: all.
        "port_range_max": ends(&rule.allows.what).1 => or_null(number(0..=u32::from(u16::MAX))),
        /// The addresses that the guest may speak with, as they were given; null: any, or those of `remote_group_id`.
        "remote_ip_prefix": rule.prefix => or_null(range()),
        /// The same without host bits.
        "normalized_cidr": rule.prefix.map(normalized) => or_null(range()),
        /// The group with whose ports the guest may speak; null: any, or those of `remote_ip_prefix`.
        "remote_group_id": remote(rule.allows.remote) => or_null(uuid()),
        /// Always null.
        "remote_address_group_id": Value::Null => null(),
        /// Free text.
        "description": rule.description => words(),
        /// The same as `project_id`.
        "tenant_id": project => words(),
        /// Its group's project.
        "project_id": project => words(),
        /// Always empty.
        "tags": Value::Array(Vec::new()) => empty_list(),
        /// Always 1: a rule is not changed.
        "revision_number": RULE_REVISION => number(1..=1),
        /// When it was created.
        "created_at": rule.created_at => time(),
        /// The same.
        "updated_at": rule.created_at => time(),
    }
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

fn ethertype(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn protocol(rule: &Rule) -> Option<String> {
    rule.protocol_name.clone().or_else(|| rule.allows.protocol.map(|number| number.to_string()))
}

fn ends(what: &What) -> (Option<u16>, Option<u16>) {
    match *what {
        What::All => (None, None),
        What::Ports { first, last } => (Some(first), Some(last)),
        What::Icmp { kind, code } => (Some(kind.into()), code.map(u16::from)),
    }
}

fn normalized(prefix: IpNetwork) -> String {
    format!("{}/{}", prefix.network(), prefix.prefix())
}

fn remote(remote: Remote) -> Option<String> {
    match remote {
        Remote::Group(group) => Some(group.to_string()),
        Remote::Any | Remote::Prefix(_) => None,
    }
}

/// What can be looked up instead of searched; none when an id asked for is the id of nothing.
fn narrowed(listing: &Listing) -> Option<RuleFilter> {
    Some(RuleFilter {
        id: listing.only("id").map(str::parse).transpose().ok()?,
        group: listing.only("security_group_id").map(str::parse).transpose().ok()?,
    })
}

fn read_new(mut fields: Fields) -> Result<NewGroup, BodyError> {
    let new = NewGroup {
        id: fields.parsed("id")?.unwrap_or_else(|| GroupId(Uuid::new_v4())),
        name: fields.text("name", NAME)?.unwrap_or_default(),
        description: fields.text_or_null("description", NAME)?.unwrap_or_default(),
        project_id: project(&mut fields)?,
    };
    fields.only_truth("stateful", true)?;
    fields.end()?;
    Ok(new)
}

fn read_new_rule(mut fields: Fields) -> Result<NewRule, BodyError> {
    let group_id = fields.parsed("security_group_id")?;
    let group_id = fields.required("security_group_id", group_id)?;
    let given = fields.value("direction");
    let direction = match fields.required("direction", given)? {
        Value::String(word) if word == "ingress" => Direction::Ingress,
        Value::String(word) if word == "egress" => Direction::Egress,
        given => return Err(wrong("direction", &given, "ingress or egress is expected")),
    };
    let family = match fields.value("ethertype") {
        None | Some(Value::Null) => Family::V4,
        Some(Value::String(word)) if word.eq_ignore_ascii_case("ipv4") => Family::V4,
        Some(Value::String(word)) if word.eq_ignore_ascii_case("ipv6") => Family::V6,
        Some(given) => return Err(wrong("ethertype", &given, "IPv4 or IPv6 is expected")),
    };
    let protocol = match fields.value("protocol") {
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::String(word)) if word.chars().count() <= WORD => Some(word),
        None | Some(Value::Null) => None,
        Some(given) => return Err(wrong("protocol", &given, "a name such as tcp, a number or null is expected")),
    };
    let min = fields.number_or_null("port_range_min", 0..=u16::MAX.into())?;
    let max = fields.number_or_null("port_range_max", 0..=u16::MAX.into())?;
    let prefix = fields.parsed_or_null("remote_ip_prefix")?.flatten().map(|Prefix(prefix)| prefix);
    let remote_group = fields.parsed_or_null("remote_group_id")?.flatten();
    fields.only("remote_address_group_id", &[Value::Null])?;
    let project_id = Some(project(&mut fields)?).filter(|project| !project.is_empty());
    let description = fields.text_or_null("description", NAME)?.unwrap_or_default();
    let id = fields.parsed("id")?.unwrap_or_else(|| RuleId(Uuid::new_v4()));
    fields.end()?;
    Ok(NewRule { id, group_id, description, project_id, direction, family, protocol, min, max, prefix, remote_group })
}

/// An address or a range of them, possibly with host bits, whose refusal says what would be one.
struct Prefix(IpNetwork);

impl std::str::FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text: String = text.chars().take(WORD).collect();
        text.parse()
            .map(Self)
            .map_err(|_| format!("'{}' is neither an address nor a range such as 10.0.0.0/24", text.escape_debug()))
    }
}
