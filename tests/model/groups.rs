//! Security groups on the in-memory host: how many entries of the kernel their rules may be.

use nicd::model::action::{Action, NewServer, WantedNic};
use nicd::model::rule::NewRule;
use nicd::model::{Direction, Family, GroupId, Phase, PortId, RuleId};
use nicd::plan::groups::KEYS_OF_ALL;
use nicd::service::Error;
use uuid::Uuid;

use crate::scene::{AGENTS, Scene, VM, create_group, create_network, create_port, create_subnet, group_id, port_of, put_server};

const GROUP: usize = 0;

/// Makes a port in the group, and in one that it alone is in.
fn port(scene: &Scene, n: usize) -> PortId {
    scene.perform(create_group(n)).unwrap();
    let mut create = create_port(AGENTS);
    if let Action::CreatePorts(ports) = &mut create {
        ports[0].groups = Some([GROUP, n].map(group_id).into());
    }
    port_of(scene.perform(create).unwrap()).port.id
}

/// Lets the group's ports hear each other on these ports of TCP.
fn create_rules(ports: std::ops::Range<u32>) -> Action {
    let rule = |port| NewRule {
        id: RuleId(Uuid::from_u128(u128::from(port))),
        group_id: group_id(GROUP),
        description: String::new(),
        project_id: None,
        direction: Direction::Ingress,
        family: Family::V4,
        protocol: Some("tcp".to_owned()),
        min: Some(port),
        max: Some(port),
        prefix: None,
        remote_group: Some(group_id(GROUP)),
    };
    Action::CreateRules(ports.map(rule).collect())
}

/// A rule that names a group is an entry for each set of groups with its own group, times each with the one that it names.
#[test]
fn rules_that_name_groups_of_many_sets_are_bounded() {
    let mut scene = Scene::new();
    let mut subnet = create_subnet(AGENTS, false);
    if let Action::CreateSubnets(subnets) = &mut subnet {
        subnets[0].cidr = "10.0.0.0/24".parse().unwrap();
    }
    let mut server = put_server(VM);
    if let Action::PutServer(NewServer { nic_limit, .. }) = &mut server {
        *nic_limit = Some(32);
    }
    for action in [create_network(AGENTS), subnet, server, create_group(GROUP)] {
        scene.perform(action).unwrap();
    }
    let rules = |scene: &Scene, group: GroupId| scene.service().group(group).unwrap().rules.len();
    for n in 1..=23 {
        let port = port(&scene, n);
        scene.attach(VM, WantedNic::Port(port)).unwrap();
    }
    scene.perform(create_rules(1..491)).unwrap();
    // 498 rules of 23 sets, each with the two rules that name no group.
    let error = scene.perform(create_rules(491..499)).unwrap_err();
    assert!(matches!(error, Error::RulesOfAllTooMany { keys } if keys == 498 * 23 * 23 + 23 * 2), "{error}");
    assert!(error.to_string().contains(&KEYS_OF_ALL.to_string()) && error.reason() == "too_many_rules", "{error}");
    assert_eq!(rules(&scene, group_id(GROUP)), 492, "nothing was made");
    // 490 rules of 24 sets.
    let last = port(&scene, 24);
    let before = scene.fake.log().len();
    let error = scene.attach(VM, WantedNic::Port(last)).unwrap_err();
    assert_eq!((error.reason(), scene.fake.log().len()), ("too_many_rules", before), "{error}");
    assert_eq!(scene.service().port(last).unwrap().phase, Phase::Unbound);
    // A start counts them too; what makes them fewer is no matter, nor is a port in a set that is there.
    scene.stop();
    scene.open();
    assert_eq!(scene.perform(create_rules(491..499)).unwrap_err().reason(), "too_many_rules");
    scene.perform(Action::DeleteRule(RuleId(Uuid::from_u128(1)))).unwrap();
    let mut create = create_port(AGENTS);
    if let Action::CreatePorts(ports) = &mut create {
        ports[0].groups = Some([GROUP, 1].map(group_id).into());
    }
    let port = port_of(scene.perform(create).unwrap()).port.id;
    scene.attach(VM, WantedNic::Port(port)).unwrap();
    scene.stop();
}
