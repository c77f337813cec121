//! Asking the machines on a port's bridge whether they have its addresses, before it is first given them (`[links] conflict_probe`).
//!
//! ```text
//!   warn     attach ── built, answered ──► evaluate ──► Work::Ask ── another has one ───► reason, problem, event; asked again later
//!   refuse   attach ── built, down ──────► evaluate ──► repair ── prove ── no other ► set up
//!                                                                     └── another, or none could be asked ─────► ERROR, tried again later
//! ```
//!
//! Who is asked for is in the inventory: addresses that a port is given anew. With `refuse` it is in the record as well, so that no
//! restart gives a port what it was refused. What an attached port is to get beside its addresses is asked about before the change.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::clock;
use crate::config::ConflictProbe;
use crate::inventory::Inventory;
use crate::inventory::neighbours::Conflict;
use crate::inventory::speaking::Speaker;
use crate::model::{Mac, Port, PortId};
use crate::neighbours;
use crate::plan::Reason;
use crate::store::{Change, Purpose};
use crate::telemetry::meters;

use super::{Error, Reconciler};

/// How often one is asked, and how long an answer is waited for each time.
const TIMES: u32 = 3;
const WAIT: Duration = Duration::from_millis(100);

/// How long after one was found who has a port's address it is asked again whether it still does.
const AGAIN: Duration = Duration::from_secs(60);

impl Reconciler {
    /// Asks about a port's addresses until no other machine has them, or the port has other addresses.
    pub(super) async fn ask(self: &Arc<Self>, port: PortId) {
        let addresses = {
            let state = self.lock();
            state.ports.get(&port).map(|entry| state.unshared(&entry.record)).unwrap_or_default()
        };
        let conflict = self.conflict(port, &addresses).await;
        let (in_use, was_asked) = (matches!(conflict, Ok(Some(_))), conflict.is_ok());
        let mut state = self.lock();
        self.asked(&mut state, port, conflict.ok());
        if in_use || !was_asked {
            let reconciler = Arc::downgrade(self);
            tokio::spawn(async move {
                tokio::time::sleep(AGAIN).await;
                let Some(reconciler) = reconciler.upgrade() else { return };
                let mut state = reconciler.lock();
                let stays = !was_asked || state.conflicts.contains_key(&port);
                if let Some(entry) = state.ports.get_mut(&port).filter(|_| stays) {
                    entry.neighbours.is_unasked = true;
                    reconciler.evaluate(&mut state, port, Reason::Drift);
                }
            });
        }
    }

    /// Notes the result of asking. If no machine could be asked, the earlier result stays.
    fn asked(self: &Arc<Self>, state: &mut Inventory, port: PortId, conflict: Option<Option<Conflict>>) {
        let Some(entry) = state.ports.get_mut(&port) else { return };
        entry.neighbours.is_asking = false;
        if let Some(conflict) = conflict {
            entry.neighbours.asked = Some(clock::now());
            // Meanwhile it may have got others, which are asked about next.
            let conflict = conflict.filter(|held| entry.record.fixed_ips.iter().any(|ip| ip.ip_address == held.address));
            self.note_conflict(state, port, conflict);
        }
        self.evaluate(state, port, Reason::Drift);
    }

    /// Notes which machine has an address of a port's, or that none does.
    fn note_conflict(self: &Arc<Self>, state: &mut Inventory, port: PortId, conflict: Option<Conflict>) {
        let before = match conflict {
            Some(conflict) => state.conflicts.insert(port, conflict),
            None => state.conflicts.remove(&port),
        };
        if before == conflict {
            return;
        }
        match conflict {
            Some(Conflict { address, holder }) => {
                tracing::warn!(%port, %address, %holder, "another machine on the network has the address of a port");
            }
            None => tracing::info!(%port, "no other machine has the address of the port any more"),
        }
        self.publish_health(state);
    }

    /// Lets a port have its addresses once no other machine has them. One that is in no bridge, as after the host was booted, is put there
    /// first, down, and asked for then. The caller has the claim on it.
    pub(super) async fn prove(self: &Arc<Self>, port: PortId) -> Result<(), Error> {
        let (record, addresses, is_there) = {
            let state = self.lock();
            let record = state.port(port)?.record.clone();
            let addresses = state.unshared(&record);
            (record, addresses, state.is_in_bridge(port))
        };
        if record.attached_to().is_none() || !record.is_unproven() {
            return Ok(());
        }
        if self.policy().conflict_probe == ConflictProbe::Refuse {
            if !is_there {
                return Ok(());
            }
            if let Some(conflict) = self.conflict(port, &addresses).await? {
                self.note_conflict(&mut self.lock(), port, Some(conflict));
                return Err(Error::AddressHeld(conflict));
            }
        }
        let mut proven = record;
        proven.binding.iter_mut().for_each(|binding| binding.unproven = false);
        self.commit(vec![Change::PutPort(Box::new(proven.clone()))], Purpose::Freeing).await?;
        let mut state = self.lock();
        state.replace_port(proven);
        let is_asked = self.policy().conflict_probe == ConflictProbe::Refuse;
        if let Some(entry) = state.ports.get_mut(&port).filter(|_| is_asked) {
            entry.neighbours.asked = Some(clock::now());
        }
        self.note_conflict(&mut state, port, None);
        Ok(())
    }

    /// Which addresses of a changed record are to be asked about before the port has them. A port in no bridge is asked for once it is
    /// there.
    pub(crate) fn to_be_proven(&self, state: &Inventory, before: &Port, after: &mut Port) -> Vec<IpAddr> {
        let is_given = self.policy().conflict_probe == ConflictProbe::Refuse && after.attached_to().is_some();
        let had = |address: &IpAddr| before.fixed_ips.iter().any(|ip| ip.ip_address == *address);
        let gains = is_given.then(|| state.unshared(after).into_iter().filter(|address| !had(address)));
        let gains: Vec<IpAddr> = gains.into_iter().flatten().collect();
        if gains.is_empty() || state.is_in_bridge(after.id) {
            return gains;
        }
        after.binding.iter_mut().for_each(|binding| binding.unproven = true);
        Vec::new()
    }

    /// Refuses addresses that another machine on a port's bridge has.
    pub(crate) async fn refuse_held(self: &Arc<Self>, port: PortId, addresses: &[IpAddr]) -> Result<(), Error> {
        match self.conflict(port, addresses).await? {
            Some(conflict) => Err(Error::AddressHeld(conflict)),
            None => Ok(()),
        }
    }

    /// Which machine on a port's bridge has one of these addresses; none where no answer comes in time, and on a bridge that tells VLANs
    /// apart.
    async fn conflict(self: &Arc<Self>, port: PortId, addresses: &[IpAddr]) -> Result<Option<Conflict>, Error> {
        if addresses.is_empty() {
            return Ok(None);
        }
        let _turn = self.listening.turns.acquire().await.map_err(|_| Error::Stopping)?;
        let (speaker, own, is_never_asked) = {
            let state = self.lock();
            (state.speaker(port), state.macs_of_server(port), state.has_vlans_apart(port))
        };
        let asked = match speaker {
            Some(speaker) => self.conflict_at(speaker, own, addresses).await,
            None => Err(io::Error::new(io::ErrorKind::NotFound, "its device is in no bridge")),
        };
        meters().address_asked(match &asked {
            Ok(None) => "free",
            Ok(Some(_)) => "in_use",
            Err(_) => "not_asked",
        });
        match asked {
            Err(error) if !is_never_asked => {
                tracing::debug!(%port, %error, "no machine could be asked about the addresses of a port");
                Err(Error::AddressUnasked { port, said: error.to_string() })
            }
            asked => Ok(asked.unwrap_or_default()),
        }
    }

    async fn conflict_at(&self, speaker: Speaker, own: Vec<Mac>, addresses: &[IpAddr]) -> io::Result<Option<Conflict>> {
        let Speaker { mac, bridge, bridge_mac, is_guarded } = speaker;
        let kernel = self.kernel.as_ref();
        let mut ear = self.listening.listen(kernel, bridge, own, addresses)?;
        for time in 0..TIMES {
            // The port's own guest would take the question for one of another machine that is to have its address. At first there is
            // no guest yet; later the filters keep it from the guest, if they know whose the address is.
            if time == 0 || is_guarded {
                let questions = addresses.iter().map(|address| neighbours::question(*address, mac, bridge_mac)).collect();
                self.listening.say(kernel, bridge, questions).await?;
            }
            if let Ok(heard) = timeout(WAIT, ear.heard.recv()).await {
                return Ok(heard);
            }
        }
        Ok(None)
    }
}
