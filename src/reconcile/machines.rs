//! Virtual machines with a monitor: a port's NIC is plugged into its machine when it is built, looked for there, and unplugged when the
//! port leaves.
//!
//! ```text
//!  build ── Op::PlugNic ──► ready_machine: turn, connection, free slot ──► the device ──► plug: tap opened, handed over, NIC added
//!  repair, sweep, start ──► look_at_machine(s) ──► Observed::note_nic ──► rule `nic`, fact `monitor`
//!  reap ──► unplug: link down, the guest lets go, backend removed ──► the device is deleted
//! ```
//!
//! A machine that cannot be asked is asked again, less often the longer that lasts. No connection outlasts an operation.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use crate::inventory::{self, Inventory};
use crate::kernel::exec::Undone;
use crate::kernel::{OpError, OpErrorKind, TapUse};
use crate::model::{LinkName, PortId, ServerId};
use crate::monitor::{MonitorError, Nic, PluggedNics, Session, Slot, Turn};
use crate::plan::{LinkState, MachineNic, Op, Plan, Reason};

use super::{Error, Reconciler, Why, answered};

/// How long the path of a monitor may take to open.
const PATH_WAIT: Duration = Duration::from_millis(500);

/// For how long a start waits for what machines say.
const START_WAIT: Duration = Duration::from_secs(1);

/// How many machines are asked side by side.
const ASKED: usize = 16;

/// How many ports are evaluated without letting others have the state.
const CHUNK: usize = 64;

/// How long a guest may take to let a NIC go before the port says so.
const FIRST_UNPLUG: Duration = Duration::from_secs(2);

/// The same when it was asked before.
const LATER_UNPLUG: Duration = Duration::from_millis(100);

/// A machine that can take a NIC, as long as this is kept.
#[derive(Debug)]
pub(super) struct Ready {
    session: Session,
    slot: Slot,
    _turn: Turn,
}

impl Reconciler {
    fn monitor_of(&self, port: PortId) -> Option<PathBuf> {
        let state = self.lock();
        state.monitor_of(&state.ports.get(&port)?.record).cloned()
    }

    async fn open_machine(&self, monitor: &Path) -> Result<(Turn, Session), MonitorError> {
        let turn = self.turns.take(monitor).await?;
        // A connect to a path on a file server that is gone would block this thread.
        let answers = match self.kernel.path_answers(monitor) {
            Some(answer) => timeout(PATH_WAIT, answer).await.is_ok(),
            None => false,
        };
        if !answers {
            let said = "its file system does not answer".to_owned();
            return Err(MonitorError::Unreachable { path: monitor.to_owned(), said });
        }
        Ok((turn, Session::open(monitor).await?))
    }

    /// Finds the machine of a port able to take its NIC; none where the port has no machine, or that has the NIC.
    pub(super) async fn ready_machine(self: &Arc<Self>, port: PortId) -> Result<Option<Ready>, Error> {
        let Some(monitor) = self.monitor_of(port) else { return Ok(None) };
        let queues = self.tap_use(port)?.queues;
        let (turn, mut session) = self.open_machine(&monitor).await?;
        let nics = session.nics().await?;
        self.is_back(&mut self.lock(), &monitor, Some(port));
        if let Some(pci_address) = nics.get(&port) {
            self.look_at_device(port).await;
            let mut state = self.lock();
            if state.have.device(port).is_some_and(LinkState::is_held) {
                state.have.note_nic(port, Some(MachineNic::Plugged { pci_address: pci_address.clone() }));
                return Ok(None);
            }
        }
        session.clear(port, queues, nics.contains_key(&port)).await?;
        let slot = session.free_slot().await?;
        Ok(Some(Ready { session, slot, _turn: turn }))
    }

    /// Plugs a port's NIC in, whose device is as it is to be. The caller has the claim on the port.
    async fn plug(self: &Arc<Self>, ready: Option<Ready>, nic: &Op) -> Result<(), NotPlugged> {
        let Op::PlugNic { port, qmp, mac, mtu } = nic else { return Ok(()) };
        let port = *port;
        let ready = match ready {
            Some(ready) => Some(ready),
            None => self.ready_machine(port).await?,
        };
        let Some(Ready { mut session, slot, _turn }) = ready else { return Ok(()) };
        let tap = self.tap_use(port)?;
        let opened = self.kernel.open_tap(port, tap).map_err(Error::from)?;
        let queues = answered(opened).await?.map_err(|error| match error.kind {
            OpErrorKind::Taken => Error::TapHeld(port),
            _ => Error::Kernel(error),
        })?;
        if let Err(error) = session.plug(&Nic { port, mac: *mac, mtu: *mtu }, &slot, queues).await {
            let left = withdraw(session, &error, qmp, (port, tap.queues)).await.err();
            return Err(NotPlugged { error: error.into(), left });
        }
        // It is plugged; where, a later look can tell as well.
        let pci_address = session.nics().await.ok().and_then(|nics| nics.get(&port).cloned().flatten());
        self.lock().have.note_nic(port, Some(MachineNic::Plugged { pci_address }));
        self.look_at_device(port).await;
        Ok(())
    }

    /// The end of a build whose device is made by `plan`: its NIC is plugged in. If it cannot be, an attach's device is removed again,
    /// unless the machine may hold it; its bridge stays, as that of a port that is detached does.
    pub(super) async fn plug_built(
        self: &Arc<Self>,
        reason: Reason,
        ready: Option<Ready>,
        (port, nic): (PortId, &Op),
        plan: Plan,
    ) -> Result<(), (Error, Undone)> {
        let Err(NotPlugged { error, left }) = self.plug(ready, nic).await else { return Ok(()) };
        let left_over = |said: String| {
            let doing = "unplug the NIC from its machine".to_owned();
            Undone::Left(vec![OpError { kind: OpErrorKind::Other, doing, said }])
        };
        let undone = match (left, reason) {
            (Some(left), _) => left_over(left.to_string()),
            (None, Reason::Attach) => {
                // A machine that is just ending has closed its monitor before its tap.
                self.look_at_device(port).await;
                if self.lock().have.device(port).is_some_and(LinkState::is_held) {
                    left_over("a process holds its device open".to_owned())
                } else {
                    match self.kernel.undo(plan.without_bridge()) {
                        Ok(undone) => answered(undone).await.unwrap_or(Undone::Clean),
                        Err(refused) => left_over(Error::from(refused).to_string()),
                    }
                }
            }
            (None, _) => Undone::Clean,
        };
        Err((error, undone))
    }

    fn tap_use(&self, port: PortId) -> Result<TapUse, Error> {
        let state = self.lock();
        let record = &state.port(port)?.record;
        let tap = record.binding.as_ref().and_then(|binding| binding.tap).ok_or(inventory::Error::NoSuchPort(port))?;
        Ok(TapUse { queues: tap.queues, vnet_hdr: record.profile.vnet_hdr, owner: tap.owner, store: self.store_id })
    }

    /// Looks at a port's device, which a process opened or closed.
    pub(super) async fn look_at_device(self: &Arc<Self>, port: PortId) {
        let name = self.lock().have.device(port).and_then(|link| link.name.parse::<LinkName>().ok());
        let Some(Ok(asked)) = name.map(|name| self.kernel.get_link(name)) else { return };
        let looked: Result<_, Error> = answered(asked).await;
        if let Ok(Ok(Some(notice))) = looked {
            self.handle_notice(notice);
        }
    }

    /// Asks a port's machine for its NICs; why it cannot be asked, where the port has a machine and it cannot. A device that is to be
    /// mended does not wait for a machine.
    pub(super) async fn look_at_machine(&self, port: PortId) -> Option<MonitorError> {
        let monitor = self.monitor_of(port)?;
        let plan = self.plan_port(&self.lock(), port, Reason::Drift).ok()?;
        if !plan.split_plug().0.steps.is_empty() {
            return None;
        }
        self.ask_machine(&monitor, Some(port)).await
    }

    /// Asks a machine, for a port or for all.
    async fn ask_machine(&self, monitor: &Path, port: Option<PortId>) -> Option<MonitorError> {
        let opened = self.open_machine(monitor).await;
        let (turn, said) = match opened {
            Ok((turn, mut session)) => (Some(turn), session.nics().await),
            Err(error) => (None, Err(error)),
        };
        {
            let mut state = self.lock();
            note_machine(&mut state, monitor, said.as_ref());
            if said.is_ok() {
                self.is_back(&mut state, monitor, port);
            }
        }
        // What it said is noted before another operation changes it.
        drop(turn);
        said.err()
    }

    /// A machine answers: its ports wait no longer for it, beside the one for which it was asked.
    fn is_back(&self, state: &mut Inventory, monitor: &Path, but: Option<PortId>) {
        for port in state.ports_at(monitor) {
            let away = state.ports.get_mut(&port).and_then(|entry| entry.retry.away.take());
            if away.is_some() && Some(port) != but {
                self.judge_at(state, port, Instant::now());
            }
        }
    }

    /// Asks all machines that ports are to be plugged into.
    async fn ask_machines(&self) {
        let monitors: Vec<PathBuf> = self.lock().monitors().cloned().collect();
        let asked = stream::iter(monitors).for_each_concurrent(ASKED, |monitor| async move {
            self.ask_machine(&monitor, None).await;
        });
        asked.await;
    }

    /// What a sweep asks machines: a guest may let a NIC go by itself.
    pub(super) async fn look_at_machines(self: &Arc<Self>) {
        self.ask_machines().await;
        let ports: Vec<PortId> = plugged_ports(&self.lock()).collect();
        for chunk in ports.chunks(CHUNK) {
            chunk.iter().for_each(|port| self.evaluate(&mut self.lock(), *port, Reason::Drift));
            tokio::task::yield_now().await;
        }
    }

    /// What a start asks machines; whether there are any. A device that is held open is taken to be its machine's NIC until that says
    /// otherwise: a machine that is busy, or slow, keeps its frames going meanwhile, and a sweep asks it again.
    pub(super) async fn look_at_machines_once(&self) -> bool {
        {
            let mut state = self.lock();
            if state.monitors().next().is_none() {
                return false;
            }
            let is_held = |port: &PortId| state.have.device(*port).is_some_and(LinkState::is_held);
            let held: Vec<PortId> = plugged_ports(&state).filter(is_held).collect();
            held.into_iter().for_each(|port| state.have.note_nic(port, Some(MachineNic::Plugged { pci_address: None })));
        }
        let _ = timeout(START_WAIT, self.ask_machines()).await;
        true
    }

    /// A server's machine may be another than before.
    pub(crate) fn machine_changed(self: &Arc<Self>, state: &mut Inventory, server: ServerId) {
        let ports: Vec<PortId> = state.servers.get(&server).into_iter().flat_map(|entry| entry.ports.iter().copied()).collect();
        for port in ports {
            if state.have.nic(port).is_some() {
                state.have.note_nic(port, None);
            }
            state.ports.get_mut(&port).into_iter().for_each(|entry| entry.retry.away = None);
            self.evaluate(state, port, Reason::Change);
        }
    }

    /// Whether nothing about a port differs but that its machine does not have its NIC.
    pub(super) fn lacks_only_its_nic(&self, port: PortId) -> bool {
        let plan = self.plan_port(&self.lock(), port, Reason::Drift);
        plan.map(Plan::split_plug).is_ok_and(|(device, nic)| device.steps.is_empty() && nic.is_some())
    }

    /// Unplugs a leaving port's NIC. A guest was `asked` before; one is not waited for when that is `forced`.
    pub(super) async fn unplug(&self, port: PortId, monitor: &Path, asked: bool, forced: bool) -> Result<(), MonitorError> {
        // A port without a tap has none there either.
        let queues = self.tap_use(port).map_or(0, |tap| tap.queues);
        let (_turn, mut session) = self.open_machine(monitor).await?;
        match forced {
            true => session.withdraw(port, queues).await?,
            false => session.unplug(port, queues, if asked { LATER_UNPLUG } else { FIRST_UNPLUG }).await?,
        }
        self.lock().have.note_nic(port, None);
        Ok(())
    }
}

/// A NIC that could not be plugged in, and why what was begun could not be taken back.
#[derive(Debug)]
struct NotPlugged {
    error: Error,
    left: Option<MonitorError>,
}

impl From<Error> for NotPlugged {
    fn from(error: Error) -> Self {
        Self { error, left: None }
    }
}

/// Takes back what was begun of a NIC: a machine that gave no answer may give none on the same connection.
async fn withdraw(
    mut session: Session,
    after: &MonitorError,
    monitor: &Path,
    (port, queues): (PortId, u16),
) -> Result<(), MonitorError> {
    if !after.is_away() {
        return session.withdraw(port, queues).await;
    }
    drop(session);
    match Session::open(monitor).await {
        Ok(mut again) => again.withdraw(port, queues).await,
        // Its end took the NIC along.
        Err(MonitorError::Unreachable { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

impl From<&MonitorError> for Why {
    fn from(error: &MonitorError) -> Self {
        Self { reason: error.reason(), detail: error.to_string() }
    }
}

/// The attached ports that are plugged into machines, or are to be.
fn plugged_ports(state: &Inventory) -> impl Iterator<Item = PortId> {
    let attached = state.ports.values().filter(|entry| entry.record.attached_to().is_some());
    attached.filter(|entry| state.monitor_of(&entry.record).is_some()).map(|entry| entry.record.id)
}

/// Notes what a machine says of the ports that are to be plugged into it. One that cannot be asked has what it had, as long as it holds
/// the device open.
fn note_machine(state: &mut Inventory, monitor: &Path, said: Result<&PluggedNics, &MonitorError>) {
    for port in state.ports_at(monitor) {
        let Some(entry) = state.ports.get(&port) else { continue };
        if entry.record.attached_to().is_none() || state.monitor_of(&entry.record).is_none() {
            continue;
        }
        let is_held = state.have.device(port).is_some_and(LinkState::is_held);
        let known = matches!(state.have.nic(port), Some(MachineNic::Plugged { .. }));
        let nic = match said {
            Ok(nics) => match nics.get(&port) {
                Some(address) => MachineNic::Plugged { pci_address: address.clone() },
                None => {
                    let detail = format!("the machine at {} does not have it", monitor.display());
                    MachineNic::Missing { reason: "nic_not_plugged", detail }
                }
            },
            Err(_) if known && is_held => continue,
            Err(error) => MachineNic::Missing { reason: error.reason(), detail: error.to_string() },
        };
        state.have.note_nic(port, Some(nic));
    }
}
