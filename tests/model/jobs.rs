//! Jobs: NICs that a server is given after the request for them was answered, and their security groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use nicd::model::action::{Action, NetworkChange, NewJob, NewNic, WantedNic};
use nicd::model::group::GROUPS_OF_A_PORT;
use nicd::model::{GroupId, Job, JobId, JobKind, NicChange, PartState};
use nicd::service::{Error, PortFilter, Reply};

use crate::scene::{AGENTS, Scene, VM, create_group, group_id, network_id, server_id};

/// A scene with two groups.
fn with_groups() -> Scene {
    let scene = Scene::with_networks();
    for n in 0..2 {
        scene.perform(create_group(n)).unwrap();
    }
    scene
}

fn nic(groups: impl IntoIterator<Item = GroupId>) -> NicChange {
    NicChange::Add(WantedNic::OnNetwork(network_id(AGENTS), NewNic { address: None, groups: Some(groups.into_iter().collect()) }))
}

/// Has a job accepted. Nothing carries it out before `carry_out`.
fn accept(scene: &Scene, changes: Vec<NicChange>) -> Result<JobId, Error> {
    let job = NewJob { server_id: server_id(VM), kind: JobKind::AddNics, changes };
    scene.perform(Action::StartJob(job)).map(|reply| match reply {
        Reply::Job(job) => job.id,
        other => panic!("{other:?}"),
    })
}

/// Carries out what was accepted.
fn carry_out(scene: &mut Scene, id: JobId) -> Job {
    let service = scene.service();
    let runner = Arc::clone(&service);
    scene.daemon().run(async { drop(tokio::spawn(runner.follow_jobs())) });
    let job = || service.job(id).unwrap();
    scene.daemon().settle(|| job().ended_at.map(drop).ok_or_else(|| format!("{:?}", job())));
    job()
}

/// The groups of the port that a part made.
fn groups_of(scene: &Scene, job: &Job, part: usize) -> BTreeSet<GroupId> {
    let PartState::Done(port) = job.parts[part].state else { panic!("{job:?}") };
    scene.service().port(port).unwrap().port.groups
}

#[test]
fn nics_are_in_their_groups_also_after_a_restart() {
    let mut scene = with_groups();
    let both = [group_id(0), group_id(1)];
    let id = accept(&scene, vec![nic(both), nic([]), nic([group_id(1)])]).unwrap();
    scene.kill();
    scene.open();
    assert_eq!(scene.service().ports(PortFilter::default()).len(), 0);
    let job = carry_out(&mut scene, id);
    let expected = [BTreeSet::from(both), BTreeSet::new(), BTreeSet::from([group_id(1)])];
    for (part, groups) in expected.into_iter().enumerate() {
        assert_eq!(groups_of(&scene, &job, part), groups);
    }
    let in_use = scene.perform(Action::DeleteGroup(group_id(0))).unwrap_err();
    assert_eq!(in_use.reason(), "group_in_use");
    scene.stop();
}

#[test]
fn a_nic_whose_group_was_deleted_meanwhile_fails_alone() {
    let mut scene = with_groups();
    let id = accept(&scene, vec![nic([group_id(0)]), nic([group_id(1)])]).unwrap();
    scene.perform(Action::DeleteGroup(group_id(0))).unwrap();
    let job = carry_out(&mut scene, id);
    assert!(matches!(&job.parts[0].state, PartState::Failed { reason, .. } if reason == "no_such_group"), "{job:?}");
    assert_eq!(groups_of(&scene, &job, 1), BTreeSet::from([group_id(1)]));
    assert_eq!(scene.service().ports(PortFilter::default()).len(), 1);
    scene.stop();
}

#[test]
fn groups_that_a_nic_cannot_be_in_start_no_job() {
    let mut scene = with_groups();
    let reason = |scene: &Scene, groups: &[GroupId]| accept(scene, vec![nic([]), nic(groups.to_vec())]).unwrap_err().reason();
    assert_eq!(reason(&scene, &[group_id(0), group_id(2)]), "no_such_group");
    let many: Vec<GroupId> = (0..=GROUPS_OF_A_PORT).map(group_id).collect();
    (2..=GROUPS_OF_A_PORT).for_each(|n| drop(scene.perform(create_group(n)).unwrap()));
    assert_eq!(reason(&scene, &many), "too_many_groups");
    let unfiltered = NetworkChange { port_security: Some(false), ..NetworkChange::default() };
    scene.perform(Action::UpdateNetwork(network_id(AGENTS), unfiltered)).unwrap();
    assert_eq!(reason(&scene, &[group_id(0)]), "port_security_off");
    assert_eq!(scene.service().ports(PortFilter::default()).len(), 0);
    scene.stop();
}
