//! Giving a port to a server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use crate::clock;
use crate::config::ConflictProbe;
use crate::events::EventKind;
use crate::inventory::{self, ClaimGuard, Inventory, PortClaims, Unclaimed};
use crate::kernel::exec::{StepTime, Timing, Undone};
use crate::model::action::{Attach, SecondOnNetwork, WantedIp, WantedNic};
use crate::model::idempotency::Made;
use crate::model::port::Binding;
use crate::model::{
    FixedIp, GroupId, GuestTold, Intent, Limits, Mac, Network, NetworkId, Origin, Phase, PhaseEvent, Port, PortId, Profile,
    ServerId,
};
use crate::plan::Reason;
use crate::reconcile::{Failed, Why, port_event};
use crate::store::{Change, Purpose};
use crate::telemetry::meters;
use crate::telemetry::meters::Attaching;

use super::sub_ports::settled;
use super::{Context, Error, Reply, Service, view};

/// How often a random MAC is drawn before the prefix counts as used up.
const MAC_DRAWS: usize = 64;

/// What there was before an attach, to go back to.
pub(super) enum Before {
    Nothing,
    Unbound(Box<Port>),
}

/// What an attach has bound.
pub(super) struct Bound {
    pub port: PortId,
    pub before: Before,
    /// The subports that the port's NIC carries, as they were.
    pub sub_ports: Vec<Port>,
    /// The claims on all of them.
    pub claims: (ClaimGuard, PortClaims),
}

impl Service {
    pub(super) async fn attach(self: Arc<Self>, attach: Attach, context: &Context) -> Result<Reply, Error> {
        let began = Instant::now();
        // An address is chosen by what is on the bridge now. What is wrong with the request is said below.
        let network = {
            let state = self.reconciler.lock();
            state.server(attach.server_id).and_then(|entry| state.network_of(&attach.nic, &entry.record.project_id))
        };
        if let Ok(network) = network {
            self.reconciler.look_at_existing_bridge(network).await?;
        }
        if !matches!(attach.nic, WantedNic::Port(_)) && attach.nic.groups().is_none() {
            let project = { self.reconciler.lock().server(attach.server_id)?.record.project_id.clone() };
            self.own_group(&project).await?;
        }
        let Bound { port, before, sub_ports, claims } = self
            .reconciler
            .claim(|state| {
                let server = &state.server(attach.server_id)?;
                let network = state.network_of(&attach.nic, &server.record.project_id)?;
                // Who deletes either of them is waited for, and then there is nothing to attach to.
                server.claim.check_free()?;
                state.network(network)?.claim.check_free()?;
                attach.nic.groups().map_or(Ok(()), |groups| state.check_groups(groups))?;
                // A port that is only being changed is not in use.
                if let WantedNic::Port(id) = attach.nic
                    && let Ok(entry) = state.port(id)
                    && entry.record.binding.is_none()
                {
                    entry.claim.check_free()?;
                    settled(state, state.sub_ports(id).iter().map(|sub| sub.port_id))?;
                }
                self.bind(state, &attach, network, context)
            })
            .await?;
        meters().attaching(Attaching::Reserve, began.elapsed());
        let reserved = began.elapsed();
        let timing = if context.receipt.is_some() { Timing::On } else { Timing::Off };
        let beside = self.note(context, vec![Made::Port(port)]).into_iter().chain(self.bound_records(&sub_ports)).collect();
        match self.reconciler.build(port, Reason::Attach, beside, timing).await {
            Ok(built) => {
                let sub_ports = sub_ports.iter().map(|sub| sub.id).collect::<Vec<_>>();
                self.build_sub_ports(&sub_ports, context).await;
                let mut state = self.reconciler.lock();
                self.tell_created(&state, port, &before, context);
                self.reconciler.follow_responder(&mut state, port);
                let (readiness, why) = self.reconciler.readiness(&state, port);
                self.reconciler.transition(&mut state, port, PhaseEvent::Built(readiness), why, context);
                let view = view::port(&state, port, &self.reconciler.host)?;
                drop(claims);
                // What was seen while the claim was taken is evaluated now.
                self.reconciler.evaluate(&mut state, port, Reason::Drift);
                let reply = built.ended.elapsed();
                meters().attaching(Attaching::Reply, reply);
                if let Some(receipt) = &context.receipt {
                    let of = |step: Attaching, began, took| StepTime { step: step.as_str(), began, took };
                    let mut steps = vec![of(Attaching::Reserve, began, reserved)];
                    steps.extend(built.steps);
                    steps.push(of(Attaching::Reply, built.ended, reply));
                    steps.sort_by_key(|step| step.began);
                    // It is this attach's alone.
                    let _ = receipt.set(steps);
                }
                Ok(Reply::Port(Box::new(view)))
            }
            Err(failed) => Err(self.roll_back(Bound { port, before, sub_ports, claims }, failed, context).await),
        }
    }

    /// Tells of a port that this attach has made, once it stays: of one that comes to nothing no reader ever hears.
    fn tell_created(&self, state: &Inventory, port: PortId, before: &Before, context: &Context) {
        if let (Before::Nothing, Some(entry)) = (before, state.ports.get(&port)) {
            self.reconciler.emit(port_event(EventKind::PortCreated, &entry.record, None, Some(Phase::Building), None), context);
        }
    }

    /// Checks everything that memory can tell, reserves, and claims the port.
    fn bind(
        &self,
        state: &mut Inventory,
        attach: &Attach,
        network: NetworkId,
        context: &Context,
    ) -> Result<Bound, Unclaimed<Error>> {
        let commit = || self.reconciler.store.next_commit();
        let record = self.bound(state, attach, (network, context.port_id), commit)?;
        let id = record.id;
        let Some(before) = state.ports.get(&id).map(|entry| Box::new(entry.record.clone())) else {
            state.add_port(record, Phase::Building);
            let claims = (state.claim_port(id)?, Vec::new());
            return Ok(Bound { port: id, before: Before::Nothing, sub_ports: Vec::new(), claims });
        };
        let claims = state.claim_with_sub_ports(id)?;
        state.replace_port(record);
        self.reconciler.transition(state, id, PhaseEvent::Bind, None, context);
        let sub_ports = self.bind_sub_ports(state, attach.server_id, id, context);
        Ok(Bound { port: id, before: Before::Unbound(before), sub_ports, claims })
    }

    /// The record that an attach would make, once everything that memory can tell is checked, in the order in which Nova
    /// does (`docs/dialects.md`).
    pub(super) fn bound(
        &self,
        state: &Inventory,
        attach: &Attach,
        (network, new_id): (NetworkId, Option<PortId>),
        commit: impl FnOnce() -> u64,
    ) -> Result<Port, Error> {
        if let WantedNic::Port(id) = attach.nic {
            let entry = state.port(id)?;
            state.check_no_sub_port(id)?;
            if entry.claim.taken() || entry.phase != Phase::Unbound || entry.record.binding.is_some() {
                return Err(Error::PortInUse(id));
            }
            // What it was given may have become another's, or this host's, since.
            entry.record.fixed_ips.iter().try_for_each(|ip| state.check_address(network, ip.ip_address, Some(id)))?;
        }
        one_per_network(state, attach, network)?;
        let mac = match attach.nic {
            WantedNic::Port(id) => state.port(id)?.record.mac,
            _ => self.draw_mac(state, &state.network(network)?.record)?,
        };
        let fixed_ips = match addresses(state, attach, network, mac) {
            Err(
                error @ Error::Inventory(
                    inventory::Error::AddressInUse { .. }
                    | inventory::Error::AddressOfHost { .. }
                    | inventory::Error::PoolEmpty { .. },
                ),
            ) => {
                return Err(error);
            }
            // Nova hears of these only once the port may be made.
            later => self.room_for(state, attach.server_id).and(later)?,
        };
        let binding = Binding {
            server_id: attach.server_id,
            ordinal: state.free_ordinal(state.server(attach.server_id)?),
            intent: Intent::Attached,
            commit: commit(),
            guest_device: None,
            releasing: Vec::new(),
            unproven: self.reconciler.policy().conflict_probe == ConflictProbe::Refuse,
            tap: state.server(attach.server_id)?.record.guest.tap(),
            forced: false,
            tag: attach.tag.clone(),
            carrier: None,
        };
        let WantedNic::Port(id) = attach.nic else {
            let mut port = self.new_port(state, network, (mac, fixed_ips), attach.nic.groups(), binding)?;
            self.check_filter(state, &port)?;
            if let Some(id) = new_id {
                let is_taken = state.ports.contains_key(&id) || state.networks.contains_key(&NetworkId(id.0));
                port.id = if is_taken { return Err(Error::IdTaken(id.0)) } else { id };
            }
            return Ok(port);
        };
        let mut bound = state.port(id)?.record.clone();
        self.check_filter(state, &bound)?;
        // A link with its MAC may have come since it was made.
        state.check_mac(bound.mac, &state.network(network)?.record, Some(id))?;
        bound.binding = Some(binding);
        bound.updated_at = clock::now();
        bound.revision_number += 1;
        Ok(bound)
    }

    pub(super) fn room_for(&self, state: &Inventory, server: ServerId) -> Result<(), Error> {
        let entry = state.server(server)?;
        let limit = entry.record.nic_limit.unwrap_or(self.reconciler.policy().nics_per_server);
        match u32::try_from(state.nics(entry).count()) {
            Ok(nics) if nics < limit => Ok(()),
            _ => Err(Error::TooManyNics { server, limit }),
        }
    }

    fn new_port(
        &self,
        state: &Inventory,
        network_id: NetworkId,
        (mac, fixed_ips): (Mac, Vec<FixedIp>),
        groups: Option<&BTreeSet<GroupId>>,
        binding: Binding,
    ) -> Result<Port, Error> {
        let now = clock::now();
        let network = &state.network(network_id)?.record;
        let project = &state.server(binding.server_id)?.record.project_id;
        Ok(Port {
            id: PortId(Uuid::new_v4()),
            network_id,
            name: String::new(),
            description: String::new(),
            project_id: project.clone(),
            mac,
            fixed_ips,
            admin_up: true,
            unknown_unicast: false,
            port_security: network.port_security,
            address_pairs: Vec::new(),
            groups: self.groups_of_new(state, network.port_security, groups, project)?,
            limits: Limits::default(),
            isolated: None,
            told: GuestTold::default(),
            device_owner: String::new(),
            profile: Profile::default(),
            origin: Origin::Attach,
            binding: Some(binding),
            standby: None,
            created_at: now,
            updated_at: now,
            revision_number: 1,
        })
    }

    /// A random MAC that no port and no link of this host has.
    pub(super) fn draw_mac(&self, state: &Inventory, network: &Network) -> Result<Mac, Error> {
        let prefix = self.reconciler.policy().mac_prefix;
        if network.is_shared() {
            return Ok(state.free_mac(network, prefix, rand::random())?);
        }
        let mut draws = (0..MAC_DRAWS).map(|_| Mac::generated(prefix, rand::random()));
        let free = draws.find(|mac| state.check_mac(*mac, network, None).is_ok());
        free.ok_or(Error::Busy("no free MAC was found under links.mac_prefix"))
    }

    /// Takes an attach back that failed, so that nothing of it stays; what cannot be taken back stays as an ERROR.
    pub(super) async fn roll_back(&self, bound: Bound, failed: Failed, context: &Context) -> Error {
        let Bound { port, before, sub_ports, claims } = bound;
        let Failed { error, undone, recorded } = failed;
        if let Undone::Left(left) = undone {
            self.tell_created(&self.reconciler.lock(), port, &before, context);
            let left: Vec<String> = left.iter().map(ToString::to_string).collect();
            return self.leave((port, sub_ports), claims, &error, &left.join("; "), context).await;
        }
        let change = match &before {
            Before::Nothing => Change::DeletePort(port),
            Before::Unbound(record) => Change::PutPort(record.clone()),
        };
        // What was noted under a key, or of a job's part, says that something was made.
        let forget = context.key.clone().map(Change::ForgetKey).or_else(|| self.forget_part(context));
        if recorded
            && let Err(store) = {
                let sub_ports = sub_ports.iter().cloned().map(|port| Change::PutPort(Box::new(port)));
                let changes = std::iter::once(change).chain(sub_ports).chain(forget).collect();
                self.reconciler.commit(changes, Purpose::Freeing).await
            }
        {
            tracing::error!(%port, error = %store, "the record of a failed attach could not be taken back");
            self.tell_created(&self.reconciler.lock(), port, &before, context);
            return self.leave((port, sub_ports), claims, &error, &store.to_string(), context).await;
        }
        let mut state = self.reconciler.lock();
        self.unbind_sub_ports(&mut state, sub_ports, context);
        match before {
            Before::Nothing => {
                state.remove_port(port);
            }
            Before::Unbound(record) => {
                state.replace_port(*record);
                self.reconciler.transition(&mut state, port, PhaseEvent::Undone, None, context);
            }
        }
        error
    }

    /// Keeps a port whose device or record could not be removed as ERROR and on its way out; the next tries come by themselves.
    async fn leave(
        &self,
        (port, sub_ports): (PortId, Vec<Port>),
        claims: (ClaimGuard, PortClaims),
        cause: &Error,
        left: &str,
        context: &Context,
    ) -> Error {
        let not_undone = Error::NotUndone { cause: cause.to_string(), left: left.to_owned() };
        let detail = not_undone.to_string();
        // A machine's refusal is its operator's to mend, and not a failure of nicd's.
        let error = if matches!(cause, Error::Monitor(_)) { cause.clone() } else { not_undone };
        let record = {
            let mut state = self.reconciler.lock();
            let Ok(entry) = state.port(port) else { return error };
            let mut record = entry.record.clone();
            let intent = if record.origin == Origin::Attach { Intent::Deleting } else { Intent::Detaching };
            if let Some(binding) = record.binding.as_mut() {
                binding.intent = intent;
            }
            state.replace_port(record.clone());
            let why = Why { reason: error.reason(), detail };
            self.reconciler.transition(&mut state, port, PhaseEvent::Failed, Some(why), context);
            record
        };
        let unbound = sub_ports.iter().cloned().map(|port| Change::PutPort(Box::new(port)));
        let changes = std::iter::once(Change::PutPort(Box::new(record))).chain(unbound).collect();
        if let Err(store) = self.reconciler.commit(changes, Purpose::Freeing).await {
            tracing::error!(%port, error = %store, "that a port is to go could not be recorded");
        }
        // Nothing was built for them: that begins once their parent is.
        self.unbind_sub_ports(&mut self.reconciler.lock(), sub_ports, context);
        self.reconciler.cut_leaving(port).await;
        drop(claims);
        self.reconciler.try_later(&mut self.reconciler.lock(), port);
        error
    }
}

/// Refuses a second NIC on a network where the dialect does.
fn one_per_network(state: &Inventory, attach: &Attach, network: NetworkId) -> Result<(), Error> {
    let server = attach.server_id;
    let mut nics = state.nics(state.server(server)?);
    let second = attach.second_on_network == SecondOnNetwork::Refused && nics.any(|nic| nic.record.network_id == network);
    if second { Err(Error::SecondOnNetwork { server, network }) } else { Ok(()) }
}

/// The addresses for a port that the attach makes; a port made beforehand has its own.
fn addresses(state: &Inventory, attach: &Attach, network: NetworkId, mac: Mac) -> Result<Vec<FixedIp>, Error> {
    let asked = match &attach.nic {
        WantedNic::Port(_) => return Ok(Vec::new()),
        WantedNic::OnNetwork(_, new) => new.address,
        WantedNic::OnTheOnlyNetwork => None,
    };
    if state.network(network)?.subnets.is_empty() {
        return Err(Error::NoSubnet(network));
    }
    let asked = asked.map(|ip| [WantedIp { subnet_id: None, ip_address: Some(ip) }]);
    Ok(state.choose_addresses(network, mac, asked.as_ref().map(|ip| ip.as_slice()), None)?)
}
