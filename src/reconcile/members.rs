//! Other hosts' ports in security groups: what the fleet tells of them is noted, so that a restart without it keeps them, and then the
//! kernel is told. What is told meanwhile goes along in the next turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::inventory::Inventory;
use crate::model::{Member, MemberChange, MemberId, NetworkId, NotedMember};
use crate::plan::{Op, Plan, Reason, Step};
use crate::store::{Change, Purpose};

use super::{Error, Reconciler, Work};

/// So many are noted in one commit.
const SOME: usize = 512;

/// How long to wait after a try that failed: this, doubled with each, up to the second.
const RETRY: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(10);

impl Reconciler {
    /// Takes in what the fleet tells of a network.
    pub fn take_in_members(self: &Arc<Self>, network: NetworkId, change: MemberChange) {
        let mut state = self.lock();
        state.change_members(network, change);
        self.start_members(&mut state);
    }

    /// Forgets those of all networks but these.
    pub fn keep_members_of(self: &Arc<Self>, networks: &std::collections::BTreeSet<NetworkId>) {
        let mut state = self.lock();
        state.keep_members_of(networks);
        self.start_members(&mut state);
    }

    pub(super) fn start_members(self: &Arc<Self>, state: &mut Inventory) {
        if state.has_members_to_follow() && !std::mem::replace(&mut state.members.is_under_way, true) {
            self.start(Work::FollowMembers);
        }
    }

    /// Notes and tells until nothing is left.
    pub(super) async fn follow_members(&self) {
        let mut failures = 0;
        loop {
            {
                let mut state = self.lock();
                state.members.is_under_way = state.has_members_to_follow() && !self.stopping.load(Ordering::Relaxed);
                if !state.members.is_under_way {
                    return;
                }
            }
            match self.follow_some_members().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    // Said once of a row.
                    if failures == 0 {
                        tracing::warn!(%error, "what other hosts' ports in security groups may do could not be followed");
                    }
                    failures += 1;
                    self.wait_until(Instant::now() + RETRY.saturating_mul(1 << failures.min(10)).min(LONGEST)).await;
                }
            }
        }
    }

    async fn follow_some_members(&self) -> Result<(), Error> {
        let mut some = { self.lock().unnoted_members(SOME) };
        if !some.is_empty() {
            // Those that are gone and those that come in one turn: one that moves is in its groups all the time.
            let mut noted = self.note_members(&some, Purpose::Growing).await;
            if noted.is_err() && some.iter().any(|(_, _, member)| member.is_none()) {
                // A full store takes no others.
                some.retain(|(_, _, member)| member.is_none());
                noted = self.note_members(&some, Purpose::Freeing).await;
            }
            noted?;
            self.lock().note_members(some);
        }
        let Some(members) = ({ self.lock().take_untold_members() }) else { return Ok(()) };
        let network = members.network;
        let step = Step::new(Op::SetMembers { members }, None);
        let told = self.carry_out(Plan { reason: Reason::Change, steps: vec![step] }).await;
        if told.is_err() {
            self.lock().tell_all_members(network);
        }
        told.map(drop)
    }

    async fn note_members(&self, some: &[(NetworkId, MemberId, Option<Member>)], purpose: Purpose) -> Result<(), Error> {
        let change = |(network, id, member): &(NetworkId, MemberId, Option<Member>)| match member.clone() {
            Some(member) => Change::PutMember(Box::new(NotedMember { network: *network, id: id.clone(), member })),
            None => Change::DeleteMember(*network, id.clone()),
        };
        Ok(self.commit(some.iter().map(change).collect(), purpose).await?)
    }
}
