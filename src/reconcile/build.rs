//! Bringing a port's device to its record: the one function behind attach, drift and restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::inventory::{self, ClaimGuard};
use crate::kernel::OpErrorKind;
use crate::kernel::exec::{StepTime, Timing, Undone};
use crate::kernel::worker::{self, Done, Outcome};
use crate::model::{Port, PortId};
use crate::plan::{Op, Plan, PlanError, Reason, Step, Switch};
use crate::store::{Change, Purpose, StoreError};
use crate::telemetry::meters;
use crate::telemetry::meters::Attaching;

use super::namespaces::{TRIES, netns_path};
use super::observe::is_exposed;
use super::{Error, Reconciler, answered};

/// How long a look at an operator's bridge serves the request it was made for, in milliseconds.
const JUST_NOW: Duration = Duration::from_millis(2);

/// A build that failed.
#[derive(Debug)]
pub struct Failed {
    pub error: Error,
    pub undone: Undone,
    /// Whether the store may have its record: it has none where the store refused it.
    pub recorded: bool,
}

/// A port that was built.
#[derive(Debug)]
pub struct Built {
    /// When the last step was done.
    pub ended: Instant,
    /// The times of its steps, where they were to be noted.
    pub steps: Vec<StepTime>,
}

/// A device that was built.
struct Device {
    built: Built,
    /// The NIC that is to be plugged into a machine now, and the plan that was carried out before.
    plug: Option<(Op, Plan)>,
}

impl From<inventory::Error> for Failed {
    fn from(error: inventory::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let recorded = !matches!(error, Error::Store(_));
        Self { error, undone: Undone::Clean, recorded }
    }
}

impl Reconciler {
    /// Plans and carries out whatever brings the port's device, and its bridge, to their records. The caller has the
    /// claim on the port. An attach's record becomes durable meanwhile, and `beside` with it. Notes the times of an attach's steps
    /// if they are asked for.
    pub(crate) async fn build(
        self: &Arc<Self>,
        port: PortId,
        reason: Reason,
        beside: Vec<Change>,
        timing: Timing,
    ) -> Result<Built, Failed> {
        let mut recorded = false;
        let built = self.build_in_tries(port, reason, (beside, timing), &mut recorded).await;
        built.map_err(|failed| Failed { recorded: failed.recorded || recorded, ..failed })
    }

    /// The same; notes whether one of the tries may have been recorded.
    async fn build_in_tries(
        self: &Arc<Self>,
        port: PortId,
        reason: Reason,
        (beside, timing): (Vec<Change>, Timing),
        recorded: &mut bool,
    ) -> Result<Built, Failed> {
        let (mut tried, mut asked) = (0, false);
        // Before anything is made, and before anything is held that others wait for.
        let mut ready = match reason {
            Reason::Attach => self.ready_machine(port).await.map_err(|error| Failed { recorded: false, ..error.into() })?,
            _ => None,
        };
        loop {
            tried += 1;
            if reason == Reason::Attach {
                let (network, looked) = {
                    let state = self.lock();
                    let network = state.port(port)?.record.network_id;
                    (network, state.network(network)?.looked)
                };
                // The address was chosen on such a look, unless the port waited for a claim since.
                if tried > 1 || looked.is_none_or(|looked| looked.elapsed() > JUST_NOW) {
                    self.look_at_existing_bridge(network).await?;
                }
            }
            let bridge = loop {
                if !asked && self.paths_hang() {
                    self.wait_for_its_path(port, reason).await?;
                    asked = true;
                }
                let bridge = self.claim_bridge(port).await?;
                // Another path may have been seen to hang while the claim was waited for.
                if asked || !self.paths_hang() {
                    break bridge;
                }
            };
            let result = match self.tell_groups(port).await {
                Ok(()) => self.build_once(port, reason, &beside, timing).await,
                Err(error) => Err(Failed { recorded: false, ..error.into() }),
            };
            drop(bridge);
            let failed = match result {
                Ok(Device { mut built, plug }) => {
                    self.release_addresses(port).await;
                    let Some((nic, plan)) = plug else { return Ok(built) };
                    let began = Instant::now();
                    let plugged = self.plug_built(reason, ready.take(), (port, &nic), plan).await;
                    built.ended = Instant::now();
                    if timing == Timing::On {
                        built.steps.push(StepTime { step: nic.name(), began, took: built.ended.duration_since(began) });
                    }
                    return plugged.map(|()| built).map_err(|(error, undone)| Failed { error, undone, recorded: true });
                }
                Err(failed) => failed,
            };
            *recorded |= failed.recorded;
            // What a repair could not take back the next plan finds, on a new look; what an attach could not is its client's to know.
            let again = tried < TRIES
                && (failed.undone == Undone::Clean || reason != Reason::Attach)
                && match &failed.error {
                    // The kernel is not as the plan took it to be.
                    Error::Kernel(error)
                        if matches!(error.kind, OpErrorKind::Taken | OpErrorKind::Gone | OpErrorKind::NoBridge) =>
                    {
                        self.look_at_everything().await.is_ok()
                    }
                    Error::Kernel(error) if error.kind == OpErrorKind::HostNotClosed => {
                        let network = self.lock().port(port)?.record.network_id;
                        self.could_not_close(network, error)
                    }
                    Error::Plan(PlanError::IndexTaken(_)) => true,
                    // A port that drags its bridge down may not have been seen yet.
                    Error::Plan(PlanError::MtuAboveBridge { .. }) if reason == Reason::Attach && tried == 1 => {
                        self.look_at_everything().await.is_ok()
                    }
                    Error::NamespaceGone { server, .. } => self.pin_again(*server).await?,
                    _ => false,
                };
            if !again {
                return Err(failed);
            }
        }
    }

    /// While a network's bridge has to be made, one port makes it and the others wait, also when it can be seen already:
    /// it goes again if that port fails. No claim where nothing has to be made.
    async fn claim_bridge(&self, port: PortId) -> Result<Option<ClaimGuard>, Error> {
        self.claim(|state| {
            let id = state.port(port)?.record.network_id;
            let there = state.have.own_bridge(id).or_else(|| state.have.unmarked_bridge(id)).is_some();
            let network = state.network(id)?;
            if network.record.bridge.is_some() || there && !network.claim.taken() {
                return Ok(None);
            }
            Ok(Some(network.claim.take()?))
        })
        .await
    }

    async fn build_once(
        self: &Arc<Self>,
        port: PortId,
        reason: Reason,
        beside: &[Change],
        timing: Timing,
    ) -> Result<Device, Failed> {
        let (plan, plug, record, renamed) = {
            let mut state = self.lock();
            let (plan, plug) = self.plan_port(&state, port, reason)?.split_plug();
            let plug = plug.map(|nic| (nic, plan.clone()));
            let makes = plan
                .steps
                .iter()
                .any(|step| matches!(step.op, Op::CreateTap { .. } | Op::CreateVeth { .. } | Op::CreateVlanNic { .. }));
            if let Some(entry) = state.ports.get_mut(&port).filter(|_| makes) {
                entry.neighbours.is_unannounced = true;
            }
            let mut record = state.port(port)?.record.clone();
            let renamed = forget_guest_device(&mut record, &plan);
            (plan, plug, record, renamed)
        };
        let changes = || std::iter::once(Change::PutPort(Box::new(record))).chain(beside.iter().cloned()).collect();
        let done = match reason {
            Reason::Attach => self.carry_out_beside(plan, changes(), Purpose::Growing, timing).await,
            _ if renamed => self.carry_out_beside(plan, changes(), Purpose::Freeing, timing).await,
            _ => self.carry_out_durable(plan).await,
        };
        let mut done = done.map_err(|failed| Failed { error: self.blame(port, failed.error), ..failed })?;
        let steps = std::mem::take(&mut done.steps);
        let ended = done.ended.unwrap_or_else(Instant::now);
        if reason == Reason::Attach {
            meters().attaching(Attaching::Kernel, done.took);
        }
        // In memory only now: after a try that failed the next one forgets it again, durably.
        if renamed && let Some(entry) = self.lock().ports.get_mut(&port) {
            entry.record.binding.iter_mut().for_each(|binding| binding.guest_device = None);
        }
        self.finished(port, done);
        Ok(Device { built: Built { ended, steps }, plug })
    }

    /// Carries a plan out whose intent is durable.
    async fn carry_out_durable(&self, plan: Plan) -> Result<Done, Failed> {
        match answered(self.kernel.run(plan).map_err(Error::from)?).await? {
            Ok(done) => Ok(done),
            Err(failed) => Err(undone(failed, true).await),
        }
    }

    /// Carries a plan out beside the commit of its intent: what ends with the process is done meanwhile, the rest behind it.
    async fn carry_out_beside(&self, plan: Plan, changes: Vec<Change>, purpose: Purpose, timing: Timing) -> Result<Done, Failed> {
        let (committed, commit) = oneshot::channel();
        let (tell, stored) = oneshot::channel();
        let began = Instant::now();
        let durable = async move {
            let stored = commit.await.unwrap_or(Err(StoreError::Closed));
            let took = began.elapsed();
            meters().attaching(Attaching::Commit, took);
            let durable = stored.is_ok();
            let _ = tell.send((stored, took));
            durable
        };
        let done = self.kernel.run_beside(plan, timing, Box::pin(durable)).map_err(Error::from)?;
        self.store.commit_and_tell(changes, purpose, committed);
        let outcome = answered(done).await?;
        let (stored, took) = stored.await.unwrap_or((Err(StoreError::Closed), Duration::ZERO));
        self.note_store(&mut self.lock(), stored.as_ref().err());
        match (outcome, stored) {
            (Outcome::Done(mut done), _) => {
                if timing == Timing::On {
                    done.steps.push(StepTime { step: Attaching::Commit.as_str(), began, took });
                }
                Ok(done)
            }
            (Outcome::Failed(failed), stored) => Err(undone(failed, stored.is_ok()).await),
            (Outcome::NotDurable(taken_back), stored) => {
                let undone = taken_back.await.unwrap_or(Undone::Clean);
                let error = Error::Store(stored.err().unwrap_or(StoreError::Closed));
                Err(Failed { error, undone, recorded: false })
            }
        }
    }

    /// The guest has what its record says: what was taken from it is free for others.
    pub(super) async fn release_addresses(&self, port: PortId) {
        let record = {
            let state = self.lock();
            let Some(entry) = state.ports.get(&port) else { return };
            let mut record = entry.record.clone();
            match record.binding.as_mut().filter(|binding| !binding.releasing.is_empty()) {
                Some(binding) => binding.releasing.clear(),
                None => return,
            }
            record
        };
        match self.commit(vec![Change::PutPort(Box::new(record.clone()))], Purpose::Freeing).await {
            Ok(()) => {
                let mut state = self.lock();
                state.replace_port(record);
                state.ports.get_mut(&port).into_iter().for_each(|entry| entry.retry.succeeded());
            }
            // They stay held until a later try. Health tells of a store that refuses.
            Err(error) => {
                let failures = self.try_later(&mut self.lock(), port);
                tracing::debug!(%port, failures, %error, "addresses taken from a port could not be freed yet");
            }
        }
    }

    /// Takes in what a finished plan saw.
    pub(crate) fn finished(self: &Arc<Self>, port: PortId, done: Done) {
        let mut state = self.lock();
        if let (Some(entry), Some(refused)) = (state.ports.get_mut(&port), &done.refused) {
            entry.refused.clone_from(refused);
        }
        self.note_links(&mut state, done.seen, done.at);
        let commit = state.ports.get(&port).and_then(|entry| entry.record.binding.as_ref()).map(|binding| binding.commit);
        if let Some((name, commit)) = done.guest_device.zip(commit) {
            self.note_guest_device(&mut state, port, commit, name);
        }
    }

    /// What a build's failure means for a client.
    fn blame(&self, port: PortId, error: Error) -> Error {
        let Error::Kernel(error) = error else { return error };
        let state = self.lock();
        let server = state.port(port).ok().and_then(|entry| entry.record.binding.as_ref()).map(|binding| binding.server_id);
        if error.kind == OpErrorKind::Hanging {
            self.conditions().hung = Some(Instant::now());
            // From now on it is known here for as long as it hangs.
            let _ = server.map(|server| self.kernel.path_answers(netns_path(&state, server).as_ref()));
        }
        let Ok(entry) = state.port(port) else { return Error::Kernel(error) };
        match (error.kind, server) {
            // Others came first since the plan was made.
            (OpErrorKind::BridgeFull, _) => PlanError::BridgeFull(state.bridge_name(entry.record.network_id)).into(),
            (OpErrorKind::GuestNameTaken, Some(server)) => {
                let name = entry.record.profile.interface_name.as_ref();
                Error::GuestNameTaken { name: name.map_or_else(|| "eth%d".to_owned(), ToString::to_string), server }
            }
            (OpErrorKind::FiltersUnavailable, _) => Error::FiltersUnavailable(error.said),
            (OpErrorKind::ConntrackUnavailable, _) => Error::ConntrackUnavailable(error.said),
            (OpErrorKind::Ipv6Off, _) => Error::Ipv6Disabled(error),
            (OpErrorKind::GuestRefused, _) => Error::GuestRefused(error),
            (OpErrorKind::Namespace, Some(server)) => {
                let by_process = state.servers.get(&server).is_some_and(|entry| entry.record.by_process);
                Error::NamespaceGone { path: netns_path(&state, server), server, by_process }
            }
            _ => Error::Kernel(error),
        }
    }

    /// Sets a device down that is not in its bridge, and that this repair did not put back: what its guest sends would reach
    /// the host's own stack. The next repair sets it up. The caller has the claim on the port.
    pub(super) async fn set_exposed_down(self: &Arc<Self>, port: PortId) {
        if !is_exposed(&self.lock(), port) {
            return;
        }
        let down = Step::new(Op::SetLink { port, switch: Switch::Down }, None);
        match self.carry_out(Plan { reason: Reason::Drift, steps: vec![down] }).await {
            Ok(done) => self.finished(port, done),
            failed => tracing::debug!(%port, ?failed, "a device out of its bridge could not be set down"),
        }
    }
}

/// A plan that the kernel refused, once what was begun of it has been taken back. Where the threads have ended meanwhile,
/// nothing is left that outlives the process.
async fn undone(failed: worker::Failed, recorded: bool) -> Failed {
    let undone = failed.undone.await.unwrap_or(Undone::Clean);
    Failed { error: Error::Kernel(failed.error), undone, recorded }
}

/// A NIC that is made anew may be called otherwise: what it was called is forgotten before it is made, so that no death
/// leaves the old name standing. Whether there was one.
fn forget_guest_device(record: &mut Port, plan: &Plan) -> bool {
    let made = plan.steps.iter().any(|step| matches!(step.op, Op::CreateVeth { .. }));
    let binding = record.binding.as_mut().filter(|_| made);
    binding.is_some_and(|binding| binding.guest_device.take().is_some())
}
