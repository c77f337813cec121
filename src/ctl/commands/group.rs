//! `nicctl group …` and `nicctl rule …`.

use serde_json::{Value, json};

use super::{Session, members};
use crate::ctl::args::{ChangedGroup, Ethertype, Format, GroupCommand, NewGroup, NewRule, RuleCommand};
use crate::ctl::client;
use crate::ctl::failure::Failure;
use crate::ctl::names::Kind;
use crate::ctl::values::PortRange;
use crate::ctl::views::{GROUP, Labels, RULE, View, Width};

/// The envelope of one group.
const ONE: &str = "security_group";

/// The envelope of one rule.
const ONE_RULE: &str = "security_group_rule";

/// Runs a command about security groups.
pub async fn run(session: &mut Session, command: GroupCommand) -> Result<(), Failure> {
    match command {
        GroupCommand::Create(NewGroup { name, description }) => {
            let body = members([("name", Some(json!(name))), ("description", description.map(Value::from))]);
            let answer = session.client.post(Kind::Group.collection(), &json!({ ONE: body })).await?;
            show(session, &client::member(answer, ONE)?).await
        }
        GroupCommand::List => {
            let groups = Kind::Group.list(&session.client, &[]).await?;
            session.print_list(&GROUP, groups).await
        }
        GroupCommand::Show { group } => {
            let id = session.id_of(Kind::Group, &group).await?;
            let group = client::member(session.client.get(&Kind::Group.item(id)).await?, ONE)?;
            show(session, &group).await
        }
        GroupCommand::Set(ChangedGroup { group, name, description }) => {
            let id = session.id_of(Kind::Group, &group).await?;
            let body = members([("name", name.map(Value::from)), ("description", description.map(Value::from))]);
            let answer = session.client.put(&Kind::Group.item(id), &json!({ ONE: body })).await?;
            show(session, &client::member(answer, ONE)?).await
        }
        GroupCommand::Delete { group } => {
            let id = session.id_of(Kind::Group, &group).await?;
            session.client.delete(&Kind::Group.item(id)).await?;
            session.out.say(&format!("group {id} is deleted"))
        }
    }
}

/// Runs a command about the rules of security groups.
pub async fn run_rule(session: &mut Session, command: RuleCommand) -> Result<(), Failure> {
    match command {
        RuleCommand::Create(new) => create(session, new).await,
        RuleCommand::List { group } => {
            let id = match group {
                Some(group) => session.id_of(Kind::Group, &group).await?.to_string(),
                None => String::new(),
            };
            let query: &[(&str, &str)] = if id.is_empty() { &[] } else { &[("security_group_id", &id)] };
            let rules = Kind::Rule.list(&session.client, query).await?;
            session.print_list(&RULE, rules).await
        }
        RuleCommand::Delete { rule } => {
            let id = session.id_of(Kind::Rule, &rule).await?;
            session.client.delete(&Kind::Rule.item(id)).await?;
            session.out.say(&format!("rule {id} is deleted"))
        }
    }
}

async fn create(session: &mut Session, new: NewRule) -> Result<(), Failure> {
    let group = session.id_of(Kind::Group, &new.group).await?;
    let remote_group = match &new.remote_group {
        Some(remote) => Some(session.id_of(Kind::Group, remote).await?),
        None => None,
    };
    let by_remote = new.remote.as_ref().map(|remote| if remote.version() == 6 { Ethertype::V6 } else { Ethertype::V4 });
    let ethertype = match new.ethertype.or(by_remote) {
        Some(Ethertype::V6) => "IPv6",
        Some(Ethertype::V4) | None => "IPv4",
    };
    let ports = new.ports.map(|PortRange { first, last }| (first, last));
    let (min, max) = match ports {
        Some((first, last)) => (Some(first), Some(last)),
        None => (new.icmp_type.map(u16::from), new.icmp_code.map(u16::from)),
    };
    let body = members([
        ("security_group_id", Some(json!(group))),
        ("direction", Some(json!(if new.egress { "egress" } else { "ingress" }))),
        ("ethertype", Some(json!(ethertype))),
        ("protocol", new.protocol.map(Value::from)),
        ("port_range_min", min.map(Value::from)),
        ("port_range_max", max.map(Value::from)),
        ("remote_ip_prefix", new.remote.map(|remote| json!(remote.to_string()))),
        ("remote_group_id", remote_group.map(|id| json!(id))),
        ("description", new.description.map(Value::from)),
    ]);
    let answer = session.client.post(Kind::Rule.collection(), &json!({ ONE_RULE: body })).await?;
    session.print_one(&RULE, &client::member(answer, ONE_RULE)?).await
}

/// Shows a group, to people with its rules below.
async fn show(session: &mut Session, group: &Value) -> Result<(), Failure> {
    let below = match session.out.format() {
        Format::Table | Format::Wide => {
            let names = ["id", "direction", "ethertype", "protocol", "ports", "remote", "description"].map(str::to_owned);
            let rules = group["security_group_rules"].as_array().cloned().unwrap_or_default();
            let columns = RULE.chosen(&names, Width::Full)?;
            let labels = Labels::fetch(&session.client, &RULE.kinds(&columns)).await?;
            Some(View::list(&columns, RULE.order(None)?, rules, &labels, Width::Narrow))
        }
        _ => None,
    };
    session.print_with(&GROUP, group, below).await
}

/// What a port's `security_groups` are to be: those that it has, or none, and those named; nothing when it is not about them.
pub async fn of_port(session: &Session, had: &Value, names: &[String], none: bool) -> Result<Option<Value>, Failure> {
    let had = had.as_array().filter(|_| !none).cloned().unwrap_or_default();
    let mut groups = had;
    for name in names {
        groups.push(json!(session.id_of(Kind::Group, name).await?));
    }
    Ok((none || !names.is_empty()).then_some(Value::Array(groups)))
}
