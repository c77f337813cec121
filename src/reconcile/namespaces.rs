//! Guests' network namespaces: whether their paths answer, and which namespace a server is pinned to.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::inventory::Inventory;
use crate::kernel::{NetnsError, OpErrorKind};
use crate::model::{Guest, LinkName, NetnsPin, PortId, Server, ServerId};
use crate::plan::Reason;
use crate::store::{Change, Purpose};

use super::{Error, Reconciler, answered};

/// How often a plan is made anew because a name, an index or a namespace turned out otherwise.
pub const TRIES: usize = 4;

/// For how long after a namespace's path was seen to hang each path is asked for an answer beforehand.
const HANGS_FOR: Duration = Duration::from_secs(60);

/// How long a path may take to answer then.
const PATH_WAIT: Duration = Duration::from_millis(500);

impl Reconciler {
    /// Whether a namespace's path was seen to hang lately.
    pub(crate) fn paths_hang(&self) -> bool {
        self.conditions().hung.is_some_and(|seen| seen.elapsed() < HANGS_FOR)
    }

    /// Waits until a path answers, if it does so soon, before anything is held that others wait for.
    pub(crate) async fn wait_for_path(&self, path: &Path) -> Result<(), Error> {
        let hangs = || Error::Netns(NetnsError::Hanging(path.display().to_string()));
        let answer = self.kernel.path_answers(path).ok_or_else(hangs)?;
        // What it answers is found out by who enters.
        timeout(PATH_WAIT, answer).await.map(|_| ()).map_err(|_| hangs())
    }

    /// The same for a port whose next build enters its guest.
    pub(super) async fn wait_for_its_path(&self, port: PortId, reason: Reason) -> Result<(), Error> {
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
            // The process it named has ended, and another process has its number now.
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
    pub(crate) async fn refuse_another(&self, server: ServerId, path: &str, found: NetnsPin) -> Result<(), Error> {
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

    /// Records the name that the NIC of a port attached by `commit` has in its guest; false when the port is by now attached
    /// by another. It may come with the next flush: the answer shows it already, and a start asks for a name that is not there.
    /// The operation with the claim owns the record, so this name alone is written, and only into a record of that commit.
    pub(super) fn note_guest_device(&self, state: &mut Inventory, port: PortId, commit: u64, name: LinkName) -> bool {
        let binding = state.ports.get_mut(&port).and_then(|entry| entry.record.binding.as_mut());
        let Some(binding) = binding.filter(|binding| binding.commit == commit) else { return false };
        if binding.guest_device.replace(name.clone()).as_ref() != Some(&name) {
            let changes = vec![Change::NoteGuestDevice(port, commit, name)];
            self.store.note(changes);
        }
        true
    }
}

/// Refuses another namespace than the pinned one while that one lives, which its NICs show: they die with it.
pub fn check_pin(state: &Inventory, server: ServerId, found: NetnsPin, path: &str) -> Result<(), Error> {
    let entry = state.server(server)?;
    let lives = entry.ports.iter().any(|port| state.have.device(*port).is_some());
    match entry.record.pin {
        Some(pinned) if pinned != found && pinned.boot_id == found.boot_id && lives => {
            Err(Error::NamespaceChanged { path: path.to_owned(), server })
        }
        _ => Ok(()),
    }
}

pub fn netns_path(state: &Inventory, server: ServerId) -> String {
    match state.servers.get(&server).map(|entry| &entry.record.guest) {
        Some(crate::model::Guest::Netns { path }) => path.display().to_string(),
        _ => String::new(),
    }
}
