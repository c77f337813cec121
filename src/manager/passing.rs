//! Devices that are made and in their bridge, and that frames do not pass all the same, because of settings that are an operator's.

use crate::plan::facts::vlan_remedy;

use super::state::State;
use super::view::Problem;

/// The stable word for a device that untagged frames do not pass.
pub(super) const VLAN: &str = "vlan";

/// How many devices health names one by one.
const NAMED: usize = 16;

/// Whether there is a device that untagged frames do not pass.
pub(super) fn is_deaf(state: &State) -> bool {
    state.have.deaf().next().is_some()
}

/// What health tells of them.
pub(super) fn problems(state: &State) -> impl Iterator<Item = Problem> {
    let named = state.have.deaf().take(NAMED).map(|(device, bridge)| {
        let pvid = device.vlan.map(|vlan| vlan.pvid).filter(|pvid| *pvid != 0);
        let seen = match pvid {
            None => "has no pvid".to_owned(),
            Some(pvid) if device.vlan.is_some_and(|vlan| vlan.untagged) => format!("does not forward its VLAN {pvid}"),
            Some(pvid) => format!("is tagged in its VLAN {pvid}"),
        };
        (
            format!("{} {seen} on bridge {}, which tells VLANs apart: its guest's frames are dropped", device.name, bridge.name),
            vlan_remedy(&device.name, pvid),
        )
    });
    let more = state.have.deaf().skip(NAMED).count();
    let more = (more > 0).then(|| (format!("and so are those of {more} more"), vlan_remedy("DEVICE", None)));
    named.chain(more).map(|(detail, remedy)| Problem { reason: VLAN, detail, remedy })
}
