//! Bringing a port's device to its record: the one function behind attach, drift and restart.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::exec::Undone;
use crate::kernel::worker::{self, Done, Outcome};
use crate::kernel::{NetnsError, Notice, OpErrorKind};
use crate::model::{Guest, Happening, LinkName, NetnsPin, NetworkId, Phase, Port, PortId, Readiness, Server, ServerId};
use crate::plan::diff::{Bridge, Device, drift};
use crate::plan::facts::first_unmet;
use crate::plan::{BridgeMade, Desired, DesiredBridge, DesiredPort, Facet, Op, Plan, PlanError, Reason, Step, Switch, plan};
use crate::store::{Change, Purpose, StoreError};
use crate::telemetry::meters;
use crate::telemetry::meters::{Attaching, OK};

use super::claim::ClaimGuard;
use super::retry::{NAMESPACE_GONE, NAMESPACE_WAIT, backoff, is_known_to_fail, waited_for};
use super::state::{PortEntry, State};
use super::{Context, Error, Manager, Why, answered};

/// How often a plan is made anew because a name, an index or a namespace turned out otherwise.
const TRIES: usize = 4;

/// The stable word for a port whose guest's kernel refused a route.
pub(super) const ROUTE_REFUSED: &str = "route_refused";

/// How long a look at an operator's bridge serves the request it was made for, in milliseconds.
const JUST_NOW: Duration = Duration::from_millis(2);

/// For how long after a namespace's path was seen to hang each path is asked for an answer beforehand.
const HANGS_FOR: Duration = Duration::from_secs(60);

/// How long a path may take to answer then.
const PATH_WAIT: Duration = Duration::from_millis(200);

/// How a port differs from its record.
enum Difference {
    None,
    /// Its device is right, and addresses taken from it are still held.
    Held,
    /// Its device is not as it should be, or what it is could not be brought about.
    Device,
}

/// A build that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub error: Error,
    pub undone: Undone,
    /// Whether the store may have its record: it has none where the store refused it.
    pub recorded: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let recorded = !matches!(error, Error::Store(_));
        Self { error, undone: Undone::Clean, recorded }
    }
}

/// What a repair that was to begin became.
enum Begun {
    /// It begins.
    Repair,
    /// Somebody keeps changing the device's MAC: the port is cut off instead.
    CutOff,
}

impl Manager {
    /// Plans and carries out whatever brings the port's device, and its bridge, to their records. The caller has the
    /// claim on the port. An attach's record becomes durable meanwhile, and `beside` with it. Answers when the last step was
    /// done.
    pub(super) async fn build(self: &Arc<Self>, port: PortId, reason: Reason, beside: Option<Change>) -> Result<Instant, Failed> {
        let mut recorded = false;
        let built = self.build_in_tries(port, reason, beside, &mut recorded).await;
        built.map_err(|failed| Failed { recorded: failed.recorded || recorded, ..failed })
    }

    /// The same; notes whether one of the tries may have been recorded.
    async fn build_in_tries(
        self: &Arc<Self>,
        port: PortId,
        reason: Reason,
        beside: Option<Change>,
        recorded: &mut bool,
    ) -> Result<Instant, Failed> {
        let (mut tried, mut asked) = (0, false);
        loop {
            tried += 1;
            if reason == Reason::Attach {
                let (network, looked) = {
                    let state = self.lock();
                    let network = state.port(port)?.record.network_id;
                    (network, state.network(network)?.looked)
                };
                // The address was chosen on such a look, unless somebody had to be waited for since.
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
            let result = self.build_once(port, reason, beside.as_ref()).await;
            drop(bridge);
            let failed = match result {
                Ok(done) => {
                    self.let_go(port).await;
                    return Ok(done);
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
            network.claim.take().map(Some)
        })
        .await
    }

    /// Whether a namespace's path was seen to hang lately.
    pub(super) fn paths_hang(&self) -> bool {
        self.lock().hung.is_some_and(|seen| seen.elapsed() < HANGS_FOR)
    }

    /// Waits until a path answers, if it does so soon, before anything is held that others wait for.
    pub(super) async fn wait_for_path(&self, path: &Path) -> Result<(), Error> {
        let hangs = || Error::Netns(NetnsError::Hanging(path.display().to_string()));
        let answer = self.kernel.path_answers(path).ok_or_else(hangs)?;
        // What it answers is found out by who enters.
        timeout(PATH_WAIT, answer).await.map(|_| ()).map_err(|_| hangs())
    }

    /// The same for a port whose next build enters its guest.
    async fn wait_for_its_path(&self, port: PortId, reason: Reason) -> Result<(), Error> {
        let path = {
            let state = self.lock();
            if !self.plan_port(&state, port, reason).is_ok_and(|plan| plan.enters_a_guest()) {
                return Ok(());
            }
            let server = state.port(port)?.record.binding.as_ref().map(|binding| binding.server_id);
            server.map(|server| netns_path(&state, server))
        };
        match path {
            Some(path) => self.wait_for_path(path.as_ref()).await,
            None => Ok(()),
        }
    }

    /// Looks at the existing bridge of a network. It is others' to change: what was seen of it a moment ago may not be what a
    /// device is to fit, or what addresses are free on it. A network that is not known has none.
    pub(super) async fn look_at_existing_bridge(self: &Arc<Self>, network: NetworkId) -> Result<(), Error> {
        let name = {
            let mut state = self.lock();
            let Some(entry) = state.networks.get_mut(&network) else { return Ok(()) };
            let Some(name) = entry.record.bridge.clone() else { return Ok(()) };
            entry.looked = Some(Instant::now());
            name
        };
        match answered(self.kernel.get_link(name.clone())?).await?.map_err(Error::Kernel)? {
            Some(notice) => self.take_in(notice),
            None if self.lock().have.named(name.as_str()).is_some() => self.look_at_everything().await?,
            None => {}
        }
        Ok(())
    }

    async fn build_once(&self, port: PortId, reason: Reason, beside: Option<&Change>) -> Result<Instant, Failed> {
        let (plan, record, renamed) = {
            let state = self.lock();
            let plan = self.plan_port(&state, port, reason)?;
            let mut record = state.port(port)?.record.clone();
            let renamed = forget_guest_device(&mut record, &plan);
            (plan, record, renamed)
        };
        let changes = || std::iter::once(Change::PutPort(Box::new(record))).chain(beside.cloned()).collect();
        let done = match reason {
            Reason::Attach => self.carry_out_beside(plan, changes(), Purpose::Growing).await,
            _ if renamed => self.carry_out_beside(plan, changes(), Purpose::Freeing).await,
            _ => self.carry_out_durable(plan).await,
        };
        let done = done.map_err(|failed| Failed { error: self.blame(port, failed.error), ..failed })?;
        let ended = done.ended.unwrap_or_else(Instant::now);
        if reason == Reason::Attach {
            meters().attaching(Attaching::Kernel, done.took);
        }
        // In memory only now: after a try that failed the next one forgets it again, durably.
        if renamed && let Some(entry) = self.lock().ports.get_mut(&port) {
            entry.record.binding.iter_mut().for_each(|binding| binding.guest_device = None);
        }
        self.finished(port, done);
        Ok(ended)
    }

    /// Carries a plan out whose intent is durable.
    async fn carry_out_durable(&self, plan: Plan) -> Result<Done, Failed> {
        match answered(self.kernel.run(plan).map_err(Error::from)?).await? {
            Ok(done) => Ok(done),
            Err(failed) => Err(undone(failed, true).await),
        }
    }

    /// Carries a plan out beside the commit of its intent: what ends with the process is done meanwhile, the rest behind it.
    async fn carry_out_beside(&self, plan: Plan, changes: Vec<Change>, purpose: Purpose) -> Result<Done, Failed> {
        let (committed, commit) = oneshot::channel();
        let (tell, stored) = oneshot::channel();
        let began = Instant::now();
        let durable = async move {
            let stored = commit.await.unwrap_or(Err(StoreError::Closed));
            meters().attaching(Attaching::Commit, began.elapsed());
            let durable = stored.is_ok();
            let _ = tell.send(stored);
            durable
        };
        let done = self.kernel.run_beside(plan, Box::pin(durable)).map_err(Error::from)?;
        self.store.commit_and_tell(changes, purpose, committed);
        let outcome = answered(done).await?;
        let stored = stored.await.unwrap_or(Err(StoreError::Closed));
        self.note_store(&mut self.lock(), stored.as_ref().err());
        match (outcome, stored) {
            (Outcome::Done(done), _) => Ok(done),
            (Outcome::Failed(failed), stored) => Err(undone(failed, stored.is_ok()).await),
            (Outcome::NotDurable(taken_back), stored) => {
                let undone = taken_back.await.unwrap_or(Undone::Clean);
                let error = Error::Store(stored.err().unwrap_or(StoreError::Closed));
                Err(Failed { error, undone, recorded: false })
            }
        }
    }

    /// The plan for one port and its bridge, on what is known now.
    pub(super) fn plan_port(&self, state: &State, port: PortId, reason: Reason) -> Result<Plan, Error> {
        self.plan_record(state, &state.port(port)?.record, reason)
    }

    /// The same for a record that may not be one yet.
    pub(super) fn plan_record(&self, state: &State, record: &Port, reason: Reason) -> Result<Plan, Error> {
        let network = &state.network(record.network_id)?.record;
        let mut bridge = state.desired_bridge(network);
        let mut want = state.desired_port(record, self.store_id).ok_or(Error::NoSuchPort(record.id))?;
        // An ifindex is drawn for what is made, and for nothing else.
        let makes_bridge = Bridge::find(&bridge, &state.have).is_none();
        if Device::find(&want, &bridge, &state.have).is_none_or(|device| device.is_replaced()) {
            want.index = self.fresh_index();
        }
        if let BridgeMade::ByAgent { index, .. } = &mut bridge.made
            && makes_bridge
        {
            *index = self.fresh_index();
        }
        let want = Desired { bridges: vec![bridge], ports: vec![want], ..Desired::default() };
        Ok(plan(reason, &want, &state.have)?)
    }

    /// The guest has what its record says: what was taken from it is free for others.
    async fn let_go(&self, port: PortId) {
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
    pub(super) fn finished(&self, port: PortId, done: Done) {
        let mut state = self.lock();
        if let (Some(entry), Some(refused)) = (state.ports.get_mut(&port), &done.refused) {
            entry.refused.clone_from(refused);
        }
        self.take_in_links(&mut state, done.seen, done.at);
        let commit = state.ports.get(&port).and_then(|entry| entry.record.binding.as_ref()).map(|binding| binding.commit);
        if let Some((name, commit)) = done.guest_device.zip(commit) {
            self.note_guest_device(&mut state, port, commit, name);
        }
    }

    /// Records the name that the NIC of a port attached by `commit` has in its guest; false when the port is by now attached
    /// by another. It may come with the next flush: the answer shows it already, and a start asks for a name that is not there.
    /// The record is whoever's has the claim, so this name alone is written, and only into a record of that commit.
    fn note_guest_device(&self, state: &mut State, port: PortId, commit: u64, name: LinkName) -> bool {
        let binding = state.ports.get_mut(&port).and_then(|entry| entry.record.binding.as_mut());
        let Some(binding) = binding.filter(|binding| binding.commit == commit) else { return false };
        if binding.guest_device.replace(name.clone()).as_ref() != Some(&name) {
            let changes = vec![Change::NoteGuestDevice(port, commit, name)];
            self.store.note(changes);
        }
        true
    }

    /// Asks for a name that a death kept from being recorded.
    pub(super) async fn learn_guest_device(self: Arc<Self>, port: PortId) {
        for _ in 0..TRIES {
            let (commit, asked) = {
                let state = self.lock();
                let Some(entry) = state.ports.get(&port) else { return };
                let Some(commit) = entry.record.binding.as_ref().map(|binding| binding.commit) else { return };
                let server = entry.record.attached_to().and_then(|id| state.servers.get(&id));
                match server.map(|server| (&server.record.guest, server.record.pin)) {
                    Some((Guest::Netns { path }, Some(pin))) => (commit, self.kernel.guest_device(port, path.clone(), pin)),
                    _ => return,
                }
            };
            let Ok(answer) = asked else { return };
            match answered(answer).await {
                Ok(Ok(name)) => {
                    if self.note_guest_device(&mut self.lock(), port, commit, name) {
                        return;
                    }
                }
                failed => return tracing::debug!(%port, ?failed, "a NIC's name in its guest could not be read back"),
            }
        }
    }

    /// What a build's failure means for a client.
    fn blame(&self, port: PortId, error: Error) -> Error {
        let Error::Kernel(error) = error else { return error };
        let mut state = self.lock();
        let server = state.port(port).ok().and_then(|entry| entry.record.binding.as_ref()).map(|binding| binding.server_id);
        if error.kind == OpErrorKind::Hanging {
            state.hung = Some(Instant::now());
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
            (OpErrorKind::Ipv6Off, _) => Error::Ipv6Disabled(error),
            (OpErrorKind::GuestRefused, _) => Error::GuestRefused(error),
            (OpErrorKind::Namespace, Some(server)) => {
                let by_process = state.servers.get(&server).is_some_and(|entry| entry.record.by_process);
                Error::NamespaceGone { path: netns_path(&state, server), server, by_process }
            }
            _ => Error::Kernel(error),
        }
    }

    /// Looks whether the path of a server whose pinned namespace was not found names a new one, and pins that.
    /// Whether a build may be tried again.
    pub(super) async fn pin_again(&self, server: ServerId) -> Result<bool, Error> {
        let path = {
            let state = self.lock();
            netns_path(&state, server)
        };
        let found = match answered(self.kernel.inspect(path.clone().into())?).await? {
            Ok(found) => found,
            Err(error) if error.kind() == OpErrorKind::Namespace => return Ok(false),
            // Whether there is one is not known.
            Err(error) => return Err(error.into()),
        };
        self.refuse_another(server, &path, found.pin).await?;
        let record = {
            let state = self.lock();
            check_pin(&state, server, found.pin, &path)?;
            let entry = state.server(server)?;
            if entry.record.pin == Some(found.pin) {
                return Ok(true);
            }
            // The process it named has ended, and who has its number now is somebody else.
            if entry.record.by_process || found.by_process {
                return Ok(false);
            }
            Server { pin: Some(found.pin), ..entry.record.clone() }
        };
        self.commit(vec![Change::PutServer(record)], Purpose::Growing).await?;
        if let Some(entry) = self.lock().servers.get_mut(&server) {
            entry.record.pin = Some(found.pin);
        }
        Ok(true)
    }

    /// Refuses to take `found` at the server's own path for its namespace while the pinned one lives.
    pub(super) async fn refuse_another(&self, server: ServerId, path: &str, found: NetnsPin) -> Result<(), Error> {
        let pinned = {
            let state = self.lock();
            let same_path = netns_path(&state, server) == path;
            state.servers.get(&server).and_then(|entry| entry.record.pin).filter(|pinned| same_path && *pinned != found)
        };
        let Some(pinned) = pinned else { return Ok(()) };
        match answered(self.kernel.lives(pinned)?).await?? {
            true => Err(Error::NamespaceChanged { path: path.to_owned(), server }),
            false => Ok(()),
        }
    }

    /// Puts a fresh dump in place of what is known. For all that ask while one is under way the next one is enough.
    pub(super) async fn look_at_everything(self: &Arc<Self>) -> Result<(), Error> {
        let asked = Instant::now();
        let _one = self.dumps.acquire().await.map_err(|_| Error::Stopping)?;
        if self.lock().dumped.is_some_and(|began| began >= asked) {
            return Ok(());
        }
        let at = Instant::now();
        let links = answered(self.kernel.dump_links()?).await?.map_err(Error::Kernel)?;
        // As from the watch, whose own notices of what the dump shows come too late to be news.
        self.take_in(Notice::Resync { links, at });
        self.lock().dumped = Some(at);
        Ok(())
    }

    /// Brings a port back that was seen to differ, or whose last try failed.
    pub(super) async fn repair(self: &Arc<Self>, port: PortId, reason: Reason) {
        let context = Context::default();
        let _claim = match self.claim(|state| state.claim_port(port)).await {
            Ok(claim) => claim,
            Err(Error::NoSuchPort(_)) => return,
            Err(_) => return self.postpone(&mut self.lock(), port, backoff(5)),
        };
        if self.keep_cut_off(port, &context).await {
            return;
        }
        match self.difference(port, &context) {
            Difference::None => {}
            Difference::Held => self.let_go(port).await,
            Difference::Device => self.repair_claimed(port, reason, &context).await,
        }
        self.set_exposed_down(port).await;
    }

    /// Sets a device down that is not in its bridge, and that this repair did not put back: what its guest sends would reach
    /// the host's own stack. The next repair sets it up. The caller has the claim on the port.
    async fn set_exposed_down(&self, port: PortId) {
        if !is_exposed(&self.lock(), port) {
            return;
        }
        let down = Step::new(Op::SetLink { port, switch: Switch::Down }, None);
        match self.carry_out(Plan { reason: Reason::Drift, steps: vec![down] }).await {
            Ok(done) => self.finished(port, done),
            failed => tracing::debug!(%port, ?failed, "a device out of its bridge could not be set down"),
        }
    }

    /// The same for a port whose next repair is still to come.
    pub(super) fn keep_exposed_down(self: &Arc<Self>, state: &State, port: PortId) {
        if !is_exposed(state, port) {
            return;
        }
        let manager = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Ok(_claim) = manager.claim(|state| state.claim_port(port)).await {
                manager.set_exposed_down(port).await;
            }
        });
    }

    /// What there is to do; if nothing, what was seen decides the phase.
    fn difference(&self, port: PortId, context: &Context) -> Difference {
        let mut state = self.lock();
        let Ok(entry) = state.port(port) else { return Difference::None };
        if entry.record.attached_to().is_none() {
            return Difference::None;
        }
        let held = entry.record.binding.as_ref().is_some_and(|binding| !binding.releasing.is_empty());
        let is_error = entry.phase == Phase::Error;
        if self.is_from_lost_time(&mut state, port, context) {
            return Difference::None;
        }
        match self.plan_port(&state, port, Reason::Drift) {
            Ok(plan) if plan.steps.is_empty() && !is_error => {
                let (readiness, why) = self.readiness(&state, port);
                self.happen(&mut state, port, Happening::Looked(readiness), why, context);
                self.calm(&mut state, port);
                if held { Difference::Held } else { Difference::None }
            }
            _ => Difference::Device,
        }
    }

    async fn repair_claimed(self: &Arc<Self>, port: PortId, reason: Reason, context: &Context) {
        // A guest whose namespace is away is not tried again and again: one look at the path first.
        let waited_for = self.lock().ports.get(&port).and_then(waited_for);
        if let Some(server) = waited_for
            && !self.pin_again(server).await.unwrap_or(false)
        {
            return self.postpone(&mut self.lock(), port, NAMESPACE_WAIT);
        }
        match self.begin_repair(port, reason, context) {
            Ok(Begun::Repair) => {}
            Ok(Begun::CutOff) => {
                self.keep_cut_off(port, context).await;
                return;
            }
            Err(error) => return self.failed(port, reason, &error, context),
        }
        let built = self.build(port, reason, None).await;
        meters().repaired(reason.as_str(), built.as_ref().map_or_else(|failed| failed.error.reason(), |_| OK));
        match built {
            Ok(_) => {
                let mut state = self.lock();
                let (readiness, why) = self.readiness(&state, port);
                self.ended(&mut state, port, readiness, why, context);
                self.count_repair(&mut state, port);
            }
            Err(Failed { error: error @ Error::NamespaceGone { .. }, .. }) => {
                let why = Why { reason: NAMESPACE_GONE, detail: error.to_string() };
                let mut state = self.lock();
                self.ended(&mut state, port, Readiness::Waiting, Some(why), context);
                self.postpone(&mut state, port, NAMESPACE_WAIT);
            }
            Err(Failed { error, .. }) => self.failed(port, reason, &error, context),
        }
    }

    /// Plans a repair and tells that it begins; not of one that failed the last time, which is told of once it ends otherwise.
    /// What cannot be planned has failed already.
    fn begin_repair(&self, port: PortId, reason: Reason, context: &Context) -> Result<Begun, Error> {
        let mut state = self.lock();
        let (plan, facets) = (self.plan_port(&state, port, reason), self.drift(&state, port));
        Self::count_try(&mut state, port, facets.clone());
        match plan {
            Ok(_) => {}
            // The next one drawn may be free.
            Err(Error::Plan(PlanError::IndexTaken(_))) => return Ok(Begun::Repair),
            Err(error) => return Err(error),
        }
        if facets.contains(&Facet::Mac) && self.count_mac_change(&mut state, port) {
            return Ok(Begun::CutOff);
        }
        if state.port(port).is_ok_and(is_known_to_fail) {
            tracing::debug!(%port, ?reason, ?facets, "a port is tried again");
        } else {
            tracing::info!(%port, ?reason, ?facets, "a port differs from its record and is brought back");
            self.happen(&mut state, port, Happening::Repair, None, context);
        }
        Ok(Begun::Repair)
    }

    /// A try has ended with a device, or with a namespace that is waited for. One whose beginning was not told of is told of now.
    pub(super) fn ended(&self, state: &mut State, port: PortId, as_what: Readiness, why: Option<Why>, context: &Context) {
        let Some(entry) = state.ports.get_mut(&port) else { return };
        entry.retry.succeeded();
        if entry.phase != Phase::Building {
            if waited_for(entry).is_some() && why.as_ref().is_some_and(|why| why.reason == NAMESPACE_GONE) {
                return;
            }
            self.happen(state, port, Happening::Repair, None, context);
        }
        self.happen(state, port, Happening::Built(as_what), why, context);
    }

    /// A try has failed, and the next one is set.
    pub(super) fn failed(&self, port: PortId, reason: Reason, error: &Error, context: &Context) {
        let mut state = self.lock();
        let failures = self.try_later(&mut state, port);
        match state.port(port).is_ok_and(|entry| entry.phase == Phase::Error && entry.reason.as_deref() == Some(error.reason())) {
            true => tracing::debug!(%port, ?reason, failures, %error, "a port could not be brought back, as before"),
            false => tracing::warn!(%port, ?reason, %error, "a port could not be brought back"),
        }
        let why = Why { reason: error.reason(), detail: error.to_string() };
        self.happen(&mut state, port, Happening::Failed, Some(why), context);
    }

    /// What a port that is attached wants of the kernel.
    fn wants(&self, state: &State, port: PortId) -> Option<(DesiredPort, DesiredBridge)> {
        let record = &state.ports.get(&port)?.record;
        let network = &state.networks.get(&record.network_id)?.record;
        Some((state.desired_port(record, self.store_id)?, state.desired_bridge(network)))
    }

    /// The facets in which a port's device differs from what is wanted.
    fn drift(&self, state: &State, port: PortId) -> BTreeSet<Facet> {
        self.wants(state, port).map(|(want, bridge)| drift(&want, &bridge, &state.have)).unwrap_or_default()
    }

    /// What the newest look says of a port that is to be there.
    pub(super) fn readiness(&self, state: &State, port: PortId) -> (Readiness, Option<Why>) {
        let Some((want, bridge)) = self.wants(state, port) else { return (Readiness::Waiting, None) };
        match first_unmet(&want, &bridge, &state.have) {
            None => (Readiness::Ready, state.port(port).ok().and_then(refused_routes)),
            Some(fact) => {
                let detail = format!("{} does not hold", fact.as_str());
                (Readiness::Waiting, Some(Why { reason: fact.reason(), detail }))
            }
        }
    }

    /// Sets an agent-made bridge back that was seen to differ.
    pub(super) async fn repair_bridge(self: Arc<Self>, network: NetworkId) {
        let claim = self.claim(|state| state.claim_network(network)).await;
        let plan = {
            let mut state = self.lock();
            // What is seen from here on asks for another time.
            state.networks.get_mut(&network).into_iter().for_each(|entry| entry.mends.begun());
            if claim.is_err() {
                return;
            }
            self.plan_bridge(&state, network)
        };
        let outcome = match plan {
            None => Ok(()),
            Some(plan) => self.carry_out_on_bridge(plan).await,
        };
        let open = match &outcome {
            Err(Error::Kernel(error)) => error.kind == OpErrorKind::HostNotClosed && !self.could_not_close(network, error),
            _ => false,
        };
        let mut state = self.lock();
        drop(claim);
        let Some(entry) = state.networks.get_mut(&network) else { return };
        let Err(error) = outcome else { return entry.mends.done() };
        let wait = entry.mends.failed();
        if entry.mends.fails_anew() {
            tracing::warn!(%network, %error, "a bridge could not be set back, and is tried again");
        }
        if open {
            // Its ports are not right then.
            self.follow_networks(&mut state, &[network]);
        }
        self.repair_bridge_later(network, wait);
    }

    fn repair_bridge_later(self: &Arc<Self>, network: NetworkId, wait: Duration) {
        let manager = Arc::clone(self);
        // Not in the tracker: a stop need not wait for it.
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            manager.repair_bridge(network).await;
        });
    }

    /// What would set an agent-made bridge that is there back to its record; none when it is as it should be.
    pub(super) fn plan_bridge(&self, state: &State, network: NetworkId) -> Option<Plan> {
        state.have.own_bridge(network).or_else(|| state.have.unmarked_bridge(network))?;
        let bridge = state.desired_bridge(&state.networks.get(&network)?.record);
        let BridgeMade::ByAgent { .. } = bridge.made else { return None };
        let plan = plan(Reason::Drift, &Desired { bridges: vec![bridge], ..Desired::default() }, &state.have).ok()?;
        (!plan.steps.is_empty()).then_some(plan)
    }
}

/// A plan that the kernel refused, once what was begun of it has been taken back. Where the threads have ended meanwhile,
/// nothing is left that outlives the process.
async fn undone(failed: worker::Failed, recorded: bool) -> Failed {
    let undone = failed.undone.await.unwrap_or(Undone::Clean);
    Failed { error: Error::Kernel(failed.error), undone, recorded }
}

/// Whether an attached port's device is up and not in its bridge.
fn is_exposed(state: &State, port: PortId) -> bool {
    let Some(entry) = state.ports.get(&port).filter(|entry| entry.record.attached_to().is_some()) else { return false };
    let Some(device) = state.have.device(port).filter(|device| device.up) else { return false };
    let id = entry.record.network_id;
    let bridge = match state.networks.get(&id).and_then(|network| network.record.bridge.as_ref()) {
        Some(name) => state.have.named(name.as_str()),
        None => state.have.own_bridge(id).or_else(|| state.have.unmarked_bridge(id)),
    };
    device.master.is_none_or(|master| bridge.is_some_and(|bridge| bridge.index != master))
}

/// A NIC that is made anew may be called otherwise: what it was called is forgotten before it is made, so that no death
/// leaves the old name standing. Whether there was one.
fn forget_guest_device(record: &mut Port, plan: &Plan) -> bool {
    let made = plan.steps.iter().any(|step| matches!(step.op, Op::CreateVeth { .. }));
    let binding = record.binding.as_mut().filter(|_| made);
    binding.is_some_and(|binding| binding.guest_device.take().is_some())
}

/// What an ACTIVE port says of routes that its guest's kernel refused; none when it refused none.
fn refused_routes(entry: &PortEntry) -> Option<Why> {
    let detail = || entry.refused.join("; ");
    (!entry.refused.is_empty()).then(|| Why { reason: ROUTE_REFUSED, detail: detail() })
}

/// Refuses another namespace than the pinned one while that one lives, which its NICs show: they die with it.
pub(super) fn check_pin(state: &State, server: ServerId, found: NetnsPin, path: &str) -> Result<(), Error> {
    let entry = state.server(server)?;
    let lives = entry.ports.iter().any(|port| state.have.device(*port).is_some());
    match entry.record.pin {
        Some(pinned) if pinned != found && pinned.boot_id == found.boot_id && lives => {
            Err(Error::NamespaceChanged { path: path.to_owned(), server })
        }
        _ => Ok(()),
    }
}

fn netns_path(state: &State, server: ServerId) -> String {
    match state.servers.get(&server).map(|entry| &entry.record.guest) {
        Some(crate::model::Guest::Netns { path }) => path.display().to_string(),
        _ => String::new(),
    }
}
