//! How a new network is to reach its physical network: what the configuration says of that, and whether this host has it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::inventory::uplinks::SegmentError;
use crate::kernel::UplinkSeen;
use crate::model::action::NewNetwork;
use crate::model::{LinkName, NetworkKind, PhysicalNetwork};
use crate::plan::diff::tunnel_header;
use crate::plan::{Kind, LinkState, Observed, PlanError};
use crate::reconcile::{UplinkError, UplinkFault, answered};
use crate::uplink::BroadRoute;

use super::{Error, Service};

/// What a network gets from its physical network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// An operator's bridge, with its MTU in bytes.
    Bridge(LinkName, u32),
    /// An uplink, with the largest MTU in bytes that the network may have.
    Uplink(LinkName, u32),
}

/// The MTU in bytes of the link with the tunnel address. An address of the loopback device is reached by the links of the host's broad
/// routes: the smallest of theirs.
fn underlay_mtu(have: &Observed, link: &LinkState, tunnel: IpAddr, routes: &[BroadRoute]) -> u32 {
    if link.index != LOOPBACK {
        return link.mtu;
    }
    let ways = routes.iter().filter(|route| route.v6 == tunnel.is_ipv6()).filter_map(|route| have.link(route.link));
    ways.map(|way| way.mtu).min().unwrap_or(DEFAULT_MTU)
}

/// The index of the loopback device, which is the first link of each network namespace.
const LOOPBACK: u32 = 1;

/// The MTU of Ethernet in bytes, for an underlay of which no route tells.
const DEFAULT_MTU: u32 = 1500;

/// The room that an outer tag takes of a frame, so that guests can use tags of their own.
const TAG: u32 = 4;

impl Service {
    /// Where a network is to be on its physical network; none where it has none, or names a bridge itself.
    pub(super) async fn place_of(self: &Arc<Self>, new: &NewNetwork) -> Result<Option<Place>, Error> {
        if new.kind == NetworkKind::Vxlan {
            return self.underlay().await.map(Some);
        }
        let Some(name) = new.physical_network.as_ref().filter(|_| new.bridge.is_none()) else { return Ok(None) };
        let physical = self.reconciler.lock().physical_network(name)?.clone();
        match physical {
            PhysicalNetwork::Bridge { bridge } => self.operators_bridge(name, bridge, new.kind).await.map(Some),
            PhysicalNetwork::Device { device, adopt, qinq } => {
                let seen = answered(self.reconciler.kernel.uplink(device.clone())?).await?.map_err(Error::Kernel)?;
                let fault = match &seen {
                    None => Some(UplinkFault::Missing),
                    Some(seen) => self.fault_of(seen, new.kind, adopt),
                };
                if let Some(fault) = fault {
                    return Err(UplinkError { physical: name.clone(), device: device.to_string(), fault }.into());
                }
                let mtu = seen.map_or(0, |seen| seen.link.mtu);
                let room = if qinq && new.kind == NetworkKind::Vlan { mtu.saturating_sub(TAG) } else { mtu };
                Ok(Some(Place::Uplink(device, room)))
            }
        }
    }

    /// The link over which VXLAN networks reach other hosts, with the room that it has for guests' frames.
    async fn underlay(self: &Arc<Self>) -> Result<Place, Error> {
        let tunnel = self.reconciler.lock().tunnel.ok_or(SegmentError::FleetOnly)?;
        self.reconciler.look_at_everything().await?;
        let routes = answered(self.reconciler.kernel.broad_routes()?).await?.map_err(Error::Kernel)?;
        let state = self.reconciler.lock();
        let link = state.have.with_address(tunnel).ok_or(SegmentError::NoUnderlay(tunnel))?;
        let most = underlay_mtu(&state.have, link, tunnel, &routes).saturating_sub(tunnel_header(tunnel));
        let name = link.name.parse::<LinkName>().map_err(|_| SegmentError::NoUnderlay(tunnel))?;
        Ok(Place::Uplink(name, most))
    }

    /// The configuration names the bridge, so that it may also carry the host's default route.
    async fn operators_bridge(self: &Arc<Self>, physical: &str, bridge: LinkName, kind: NetworkKind) -> Result<Place, Error> {
        self.reconciler.look_at_everything().await?;
        let found = self.reconciler.lock().have.named(bridge.as_str()).cloned();
        let Some(link) = found else { return Err(PlanError::NoSuchBridge(bridge.to_string()).into()) };
        if link.kind != Kind::Bridge {
            return Err(PlanError::NotABridge(bridge.to_string()).into());
        }
        let fault = match kind {
            _ if link.made_by_nicd() => Some(UplinkFault::IsNicds),
            NetworkKind::Vlan if !link.extras.vlan_filtering => Some(UplinkFault::FiltersNoVlans),
            _ => None,
        };
        match fault {
            Some(fault) => Err(UplinkError { physical: physical.to_owned(), device: bridge.to_string(), fault }.into()),
            None => Ok(Place::Bridge(bridge, link.mtu)),
        }
    }

    /// Why a link cannot be the uplink of a network of this kind.
    fn fault_of(&self, seen: &UplinkSeen, kind: NetworkKind, adopt: bool) -> Option<UplinkFault> {
        let UplinkSeen { link, is_loopback, is_wireless, carries } = seen;
        let own = |master: u32| {
            let state = self.reconciler.lock();
            state.have.link(master).is_some_and(|master| master.kind == Kind::Bridge && state.have.ours(master))
        };
        let called = |master: u32| {
            let state = self.reconciler.lock();
            state.have.link(master).map_or_else(|| format!("link {master}"), |link: &LinkState| link.name.clone())
        };
        let is_flat = kind == NetworkKind::Flat;
        match link.master {
            _ if *is_loopback => Some(UplinkFault::IsLoopback),
            _ if link.made_by_nicd() => Some(UplinkFault::IsNicds),
            _ if link.kind == Kind::Bridge => Some(UplinkFault::IsBridge),
            _ if *is_wireless => Some(UplinkFault::IsWireless),
            _ if link.mac.is_none() => Some(UplinkFault::NotEthernet),
            // Another network has put it there, which the check of what is in use tells.
            Some(master) if own(master) => None,
            Some(master) => Some(UplinkFault::IsPort(called(master))),
            None if is_flat && !adopt => Some(UplinkFault::NotAdopted),
            None => carries.first().filter(|_| is_flat).map(|first| UplinkFault::Carries(first.clone())),
        }
    }
}
