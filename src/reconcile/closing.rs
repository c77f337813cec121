//! Bridges and the host: an agent-made one delivers nothing to the host's stack. One that cannot be closed is refused, or
//! tolerated where the configuration says so; an operator's is left as it is, and told of when guests could use it.

use std::sync::Arc;

use crate::inventory::Inventory;
use crate::kernel::{OpError, OpErrorKind};
use crate::model::{LinkName, NetworkId};
use crate::plan::LinkState;

use super::Problem;
use super::{Error, Reconciler, answered};

/// The stable word for a bridge that cannot be closed.
pub const HOST_NOT_CLOSED: &str = "host_not_closed";

/// The stable word for an operator's bridge through which the host takes router advertisements.
pub const TAKES_RAS: &str = "bridge_takes_ras";

impl Reconciler {
    /// Notes that a network's bridge could not be closed; whether it may be used all the same.
    pub(super) fn could_not_close(&self, network: NetworkId, error: &OpError) -> bool {
        if error.kind != OpErrorKind::HostNotClosed {
            return false;
        }
        let mut state = self.lock();
        if state.networks.contains_key(&network) && state.open.why.insert(network, error.said.clone()).is_none() {
            tracing::warn!(%network, tolerated = state.open.tolerated, said = error.said, "a bridge cannot be closed to the host");
        }
        self.publish_health(&state);
        state.open.tolerated
    }

    /// Goes by another rule. What could not be closed is tried once more.
    pub(super) fn require_closed(self: &Arc<Self>, required: bool) {
        let mut state = self.lock();
        state.open.tolerated = !required;
        let open: Vec<NetworkId> = std::mem::take(&mut state.open.why).into_keys().collect();
        open.into_iter().for_each(|network| self.evaluate_bridge(&mut state, network));
    }

    /// Looks at the operators' bridges that networks use: no event tells of the settings that matter here.
    pub(super) async fn look_at_operators_bridges(self: &Arc<Self>) {
        let names: Vec<LinkName> = self.lock().bridges.keys().filter_map(|name| name.parse().ok()).collect();
        for name in names {
            let Ok(asked) = self.kernel.get_link(name) else { return };
            let looked: Result<_, Error> = answered(asked).await;
            if let Ok(Ok(Some(notice))) = looked {
                self.handle_notice(notice);
            }
        }
    }
}

/// The bridges of operators through which the host takes router advertisements of guests.
pub fn taking_ras(state: &Inventory) -> impl Iterator<Item = &LinkState> {
    state.bridges.keys().filter_map(|name| state.have.named(name)).filter(|bridge| bridge.takes_ras)
}

/// What health tells of all this.
pub fn problems(state: &Inventory) -> impl Iterator<Item = Problem> {
    let open = open(state).map(|(network, why)| {
        let bridge = state.bridge_name(*network);
        problem(format!("bridge {bridge} of network {network} could not be closed to the host ({why})"))
    });
    let taking = taking_ras(state).map(|LinkState { name, .. }| Problem {
        reason: TAKES_RAS,
        detail: format!(
            "the host would take a guest's router advertisements through bridge {name}: addresses, routes and an MTU of the guest's choice"
        ),
        remedy: format!("sysctl -w net/ipv6/conf/{name}/accept_ra=0, and the same in /etc/sysctl.d"),
    });
    open.chain(taking)
}

/// The bridges that are open and are not to be, and why.
pub fn open(state: &Inventory) -> impl Iterator<Item = (&NetworkId, &String)> {
    let there = |(network, _): &(&NetworkId, &String)| state.have.own_bridge(**network).is_some();
    state.open.why.iter().filter(|_| !state.open.tolerated).filter(there)
}

/// A bridge that cannot be closed to the host, as health tells of it.
pub fn problem(detail: String) -> Problem {
    Problem {
        reason: HOST_NOT_CLOSED,
        detail,
        remedy: "load nf_tables (modprobe nf_tables) and leave table netdev nicd to nicd; or let guests' frames reach the host: \
                 links.require_host_closed = false in the configuration, and systemctl reload nicd"
            .to_owned(),
    }
}
