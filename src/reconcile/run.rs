//! The loop: it takes in what the kernel shows, evaluates what that is about, and has what differs brought back.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};

use crate::kernel::Notice;
use crate::model::NetworkId;
use crate::plan::Reason;
use crate::store::{Holder, Purpose};
use crate::telemetry::meters;

use super::heartbeat::Heartbeat;
use super::{Context, Policy, Reconciler, Work};

/// How often a store that refused is asked whether it takes commits again, in seconds.
const PROBE: Duration = Duration::from_secs(1);

/// How many notices are taken at a time.
const BATCH: usize = 256;

impl Reconciler {
    /// Follows the watch until it ends or `stop` is over. Cancel-safe: a notice is taken in as soon as it is received.
    pub async fn follow(
        self: Arc<Self>,
        mut notices: mpsc::Receiver<Notice>,
        mut pulse: Heartbeat,
        stop: impl Future<Output = ()>,
    ) {
        tokio::pin!(stop);
        let (mut swept, mut probes) = (tokio::time::Instant::now(), every(PROBE));
        let (mut sweep, mut probe): (Option<JoinHandle<()>>, Option<JoinHandle<()>>) = (None, None);
        let mut holder = self.store.holder();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let (due, troubled) = {
                let state = self.lock();
                let conditions = self.conditions();
                let troubled = conditions.store_trouble.is_some() || conditions.store_holder == Some(Holder::Writer);
                let untold = state.untold.first().into_iter().chain(conditions.told.due).min();
                ([state.due.first(), untold], troubled)
            };
            let [retry, tell] = due.map(|due| async move {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            });
            tokio::select! {
                received = notices.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                    batch.drain(..).for_each(|notice| self.handle_notice(notice));
                    meters().notices.set(i64::try_from(notices.len()).unwrap_or(i64::MAX));
                }
                () = retry => self.run_due(),
                () = tell => self.tell_withheld(),
                () = pulse.next() => pulse.beat(&self),
                () = self.retries.notified() => {}
                // Each turn anew: a reload may have changed how often.
                () = tokio::time::sleep_until(swept + self.policy().sweep), if sweep.as_ref().is_none_or(JoinHandle::is_finished) => {
                    swept = tokio::time::Instant::now();
                    sweep = Some(self.tasks.spawn(Arc::clone(&self).sweep()));
                }
                _ = probes.tick(), if troubled && probe.as_ref().is_none_or(JoinHandle::is_finished) => probe = Some(self.probe_store()),
                Ok(()) = holder.changed() => {
                    let state = self.lock();
                    self.conditions().store_holder = *holder.borrow_and_update();
                    self.publish_health(&state);
                }
                () = &mut stop => return,
            }
        }
    }

    /// Asks the store whether it takes commits again.
    fn probe_store(self: &Arc<Self>) -> JoinHandle<()> {
        let reconciler = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Err(error) = reconciler.commit(Vec::new(), Purpose::Growing).await {
                tracing::debug!(%error, "the store refuses still");
            }
        })
    }

    /// Tells what was withheld, of the agent and of ports, and whose time has come.
    fn tell_withheld(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        let due = self.conditions().told.due;
        if due.is_some_and(|due| due <= now) {
            self.publish_health(&state);
        }
        self.publish_withheld(&mut state, now);
    }

    /// Goes by other rules from now on. What is made already stays as it was made.
    pub fn set_policy(self: &Arc<Self>, policy: Policy) {
        let required = policy.require_host_closed;
        let (physical, tunnel) = (policy.physical_networks.clone(), policy.tunnel);
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        let mut state = self.lock();
        self.causes_ended(&mut state);
        state.open.tolerated = !required;
        // What could not be closed is tried once more.
        let open: Vec<NetworkId> = std::mem::take(&mut state.open.why).into_keys().collect();
        open.into_iter().for_each(|network| self.evaluate_bridge(&mut state, network));
        let left = state.set_physical(physical);
        self.release_uplinks(&state, left);
        state.set_tunnel(tunnel);
        let networks: Vec<NetworkId> = state.on_physical().into_iter().chain(state.on_tunnels()).collect();
        networks.iter().for_each(|network| self.evaluate_bridge(&mut state, *network));
        self.follow_networks(&mut state, &networks);
        self.publish_health(&state);
        drop(state);
        self.retries.notify_one();
    }
}

/// Ticks; missed ones are left out.
fn every(period: Duration) -> Interval {
    let mut beats = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

/// Does a piece of work beside the loop.
pub fn start(reconciler: &Arc<Reconciler>, work: Work) {
    let this = Arc::clone(reconciler);
    let first = matches!(work, Work::Repair(_, Reason::Restart));
    let done = async move {
        match work {
            Work::Repair(port, reason) => {
                this.repair(port, reason).await;
                this.tried(port);
            }
            Work::SetDown(port) => {
                if let Ok(_claim) = this.claim(|state| state.claim_port(port)).await {
                    this.set_exposed_down(port).await;
                }
            }
            Work::RepairBridge(network, wait) => {
                tokio::time::sleep(wait).await;
                this.repair_bridge(network).await;
            }
            Work::Reap(port) => this.reap(port, &Context::default()).await,
            Work::Gone(port) => this.gone(port, &Context::default()).await,
            Work::Ask(port) => this.ask(port).await,
            Work::Announce(port) => this.announce(port).await,
            Work::CompareEntries(network) => this.compare_entries(network).await,
            Work::FollowMembers => this.follow_members().await,
            Work::TellGroup(group) => this.tell_group_again(group).await,
        }
    };
    match first {
        true => reconciler.tasks.spawn(reconciler.first_pass.track_future(done)),
        false => reconciler.tasks.spawn(done),
    };
}
