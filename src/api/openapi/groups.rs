//! Neutron's security groups and their rules.

use serde_json::{Value, json};

use super::entry::Entry;
use super::networks::{bulk, made};
use super::schema::{
    Record, Shape, any, any_number, any_uuid, like, named, null, number, one_of_words, only_truth, or_null, text,
};
use super::{lists, samples};
use crate::api::agent::NAME;
use crate::api::dialect::NETWORK;
use crate::api::groups::{Shown, ShownRule, WORD};
use crate::api::resource::Resource;
use crate::api::status::RequestStep::{ChangeGroup, DropGroup, DropRule, Group, NewGroup, NewRule, Query, Rule, Write};
use crate::model;
use crate::service::RuleView;

const TAG: &str = "security groups";

pub(in crate::api) fn list_all() -> Entry {
    let entry = entry("list_security_groups", "Security groups").does(&[Query]);
    let page = lists::page("security_groups", Shown::shape().cut());
    let example = json!({"security_groups": [samples::group().shown()]});
    lists::listing(entry, model::Group::KNOWN).answers(200, "Those that fit.", page, example)
}

pub(in crate::api) fn show() -> Entry {
    let shape = Record::wrapping("security_group", "The group.", Shown::shape().cut());
    let entry = entry("show_security_group", "A security group").does(&[Query, Group]);
    lists::fields(entry).answers(200, "The group.", shape, example())
}

pub(in crate::api) fn create() -> Entry {
    let one = json!({"security_group": {"name": "web", "description": "HTTP from the network alone"}});
    let many = json!({"security_groups": [{"name": "web"}, {"name": "db"}]});
    entry(
        "create_security_groups",
        "Make a security group, or several, for all hosts of a fleet; each allows all that its ports begin",
    )
    .does(&[Write, NewGroup])
    .once()
    .body(bulk("security_group", "security_groups", "NewSecurityGroup"), &[("one", one), ("several", many)])
    .answers(201, "As asked: one, or a list.", made("security_group", "security_groups", "SecurityGroup"), example())
}

pub(in crate::api) fn update() -> Entry {
    let name = json!({"security_group": {"name": "front"}});
    let shape = Record::wrapping("security_group", "The group.", named("SecurityGroup"));
    entry("update_security_group", "Change a security group")
        .does(&[Write, Group, ChangeGroup])
        .if_match()
        .body(Record::wrapping("security_group", "The group.", named("SecurityGroupChange")), &[("name", name)])
        .answers(200, "The group as it is now.", shape, example())
}

pub(in crate::api) fn delete() -> Entry {
    entry(
        "delete_security_group",
        "Remove a security group that no host's ports are in, and the rules of others that refer to it",
    )
    .does(&[Write, Group, DropGroup])
    .if_match()
    .answers_nothing(204, "It is gone.")
}

pub(in crate::api) fn list_rules() -> Entry {
    let entry = entry("list_security_group_rules", "The rules of security groups").does(&[Query]);
    let page = lists::page("security_group_rules", ShownRule::shape().cut());
    let example = json!({"security_group_rules": [samples::rule().shown()]});
    lists::listing(entry, RuleView::KNOWN).answers(200, "Those that fit.", page, example)
}

pub(in crate::api) fn show_rule() -> Entry {
    let shape = Record::wrapping("security_group_rule", "The rule.", ShownRule::shape().cut());
    let entry = entry("show_security_group_rule", "A rule of a security group").does(&[Query, Rule]);
    lists::fields(entry).answers(200, "The rule.", shape, rule_example())
}

pub(in crate::api) fn create_rules() -> Entry {
    let group = "85cc3048-abc3-43cc-89b3-377341410cb0";
    let rule = |rest: Value| {
        let mut rule = json!({"security_group_id": group, "direction": "ingress"});
        if let (Some(rule), Value::Object(rest)) = (rule.as_object_mut(), rest) {
            rule.extend(rest);
        }
        rule
    };
    let web = rule(json!({"protocol": "tcp", "port_range_min": 80, "port_range_max": 80, "remote_ip_prefix": "10.0.0.0/24"}));
    let many = [
        rule(json!({"protocol": "icmp", "port_range_min": 8})),
        rule(json!({"ethertype": "IPv6", "protocol": "ipv6-icmp", "remote_group_id": group})),
    ];
    let shape = made("security_group_rule", "security_group_rules", "SecurityGroupRule");
    entry("create_security_group_rules", "Make a rule of a security group, or several of one")
        .does(&[Write, NewRule])
        .once()
        .body(
            bulk("security_group_rule", "security_group_rules", "NewSecurityGroupRule"),
            &[("one", json!({"security_group_rule": web})), ("several", json!({"security_group_rules": many}))],
        )
        .answers(201, "As asked: one, or a list.", shape, rule_example())
}

pub(in crate::api) fn delete_rule() -> Entry {
    entry("delete_security_group_rule", "Remove a rule; connections that it alone allowed end at once")
        .does(&[Write, Rule, DropRule])
        .if_match()
        .answers_nothing(204, "It is gone.")
}

fn entry(id: &'static str, summary: &'static str) -> Entry {
    Entry::new(NETWORK, TAG, id, summary)
}

fn example() -> Value {
    json!({"security_group": samples::group().shown()})
}

fn rule_example() -> Value {
    json!({"security_group_rule": samples::rule().shown()})
}

pub(super) fn schemas() -> Vec<(&'static str, Shape)> {
    const ID: &str = "Its id, for a control plane that has ids of its own; a fresh one when left out.";
    let new = Record::new().may("id", ID, any_uuid()).may("tenant_id", "The same as `project_id`.", text(NAME)).may(
        "project_id",
        "The project; nicd only stores it.",
        text(NAME),
    );
    let end = || or_null(any_number(0..=u16::MAX.into()));
    let rule = Record::new()
        .may("id", ID, any_uuid())
        .must("security_group_id", "The group that it is of.", any_uuid())
        .must(
            "direction",
            "Whether it allows what comes to the guest, or what comes from it.",
            one_of_words(["ingress", "egress"]),
        )
        .may("ethertype", "The family of the addresses; IPv4 when left out.", or_null(like("^([Ii][Pp][Vv]4|[Ii][Pp][Vv]6)$")))
        .may(
            "protocol",
            "A name, such as tcp, udp, icmp or any, or a number; null: any.",
            or_null(any([number(0..=255).into(), text(WORD).into()])),
        )
        .may("port_range_min", "The first port, or the type of ICMP; null: all.", end())
        .may("port_range_max", "The last port, or the code of ICMP; null: all.", end())
        .may(
            "remote_ip_prefix",
            "The addresses that the guest may speak with; null: any, or those of `remote_group_id`.",
            or_null(like("^[0-9a-fA-F:.]+(/[0-9.]+)?$")),
        )
        .may("remote_group_id", "The group with whose ports, on any host of a fleet, the guest may speak.", or_null(any_uuid()))
        .may("remote_address_group_id", "Always null.", null())
        .may("description", "Free text.", or_null(text(NAME)))
        .may("tenant_id", "The same as `project_id`.", text(NAME))
        .may("project_id", "Its group's project, which it is when left out.", text(NAME));
    vec![
        ("SecurityGroup", Shown::shape().into()),
        ("NewSecurityGroup", changeable(new).into()),
        ("SecurityGroupChange", changeable(Record::new()).into()),
        ("SecurityGroupRule", ShownRule::shape().into()),
        ("NewSecurityGroupRule", rule.into()),
    ]
}

/// Attributes that every request may have, and attributes with only one supported value.
fn changeable(record: Record) -> Record {
    record
        .may("name", "Its name, which need not be unique; `default` is kept for a project's own group.", text(NAME))
        .may("description", "Free text.", text(NAME))
        .may("stateful", "Always true: what answers an allowed packet is allowed.", only_truth(true))
}
