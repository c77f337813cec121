//! What guests say of their addresses: that another machine has one, or that they use it after all.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::inventory::Inventory;
use crate::inventory::leases::LeaseState;
use crate::model::PortId;

use super::Reconciler;

/// So long after its address was given again a guest has found it in use, or it is free: a client probes it for some seconds.
const PROBED: Duration = Duration::from_secs(30);

/// How often at most what one guest says of its address is followed.
const PACE: Duration = Duration::from_secs(1);

impl Reconciler {
    /// Follows what a guest says of its address: that it is in use, or that it uses it.
    pub(super) fn note_declined(
        self: &Arc<Self>,
        state: &mut Inventory,
        port: PortId,
        lease: LeaseState,
        address: IpAddr,
        before: Option<LeaseState>,
    ) {
        // Of the other family nothing is said here.
        let family = (port, address.is_ipv6());
        let was = state.declined.get(&family).copied();
        let Some(entry) = state.ports.get_mut(&port) else { return };
        let changes = match lease {
            LeaseState::Declined => was != Some(address),
            LeaseState::Released => was.is_some(),
            _ => false,
        };
        // A guest that declines and releases without end is not followed each time.
        if changes && entry.dhcp.followed[usize::from(family.1)].replace(Instant::now()).is_some_and(|last| last.elapsed() < PACE)
        {
            return;
        }
        match lease {
            LeaseState::Declined if changes => {
                tracing::warn!(%port, %address, "a guest found its address in use by another machine");
                state.declined.insert(family, address);
            }
            LeaseState::Released if changes => _ = state.declined.remove(&family),
            // It probes the address and may decline it again.
            LeaseState::Bound if was.is_some() && before != Some(LeaseState::Bound) => return self.probed_later(state, port),
            _ => return,
        }
        self.told_by_guest(state, port);
    }

    /// What a guest said changes its port. The loop follows that: what it leads to outlives this thread, which answers meanwhile.
    fn told_by_guest(&self, state: &mut Inventory, port: PortId) {
        self.judge_at(state, port, Instant::now());
        self.tell_soon();
    }

    /// Ends what a guest's decline began, unless it declines the address that it was given again. One task a port waits for that.
    fn probed_later(self: &Arc<Self>, state: &mut Inventory, port: PortId) {
        let Some(entry) = state.ports.get_mut(&port) else { return };
        entry.dhcp.given_again = Some(Instant::now());
        if std::mem::replace(&mut entry.dhcp.is_probed, true) {
            return;
        }
        let reconciler = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(PROBED).await;
                let Some(reconciler) = reconciler.upgrade() else { return };
                if reconciler.has_probed(port) {
                    return;
                }
            }
        });
    }

    /// Whether a port's guest has had the time to probe the address that it was given again.
    fn has_probed(self: &Arc<Self>, port: PortId) -> bool {
        let mut state = self.lock();
        let declined: Vec<IpAddr> = state.declined_by(port).collect();
        let Some(entry) = state.ports.get_mut(&port) else { return true };
        let is_used = |address: &IpAddr| entry.dhcp.last_like(*address).is_some_and(|last| last.state == LeaseState::Bound);
        let used: Vec<IpAddr> = declined.into_iter().filter(is_used).collect();
        if !used.is_empty() && entry.dhcp.given_again.is_some_and(|given| given.elapsed() < PROBED) {
            return false;
        }
        entry.dhcp.is_probed = false;
        for address in &used {
            state.declined.remove(&(port, address.is_ipv6()));
        }
        if !used.is_empty() {
            self.told_by_guest(&mut state, port);
        }
        true
    }
}
