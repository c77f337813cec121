//! Ports on their own: making them, changing them.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use crate::clock;
use crate::events::EventKind;
use crate::inventory::{self, ClaimGuard, Inventory, Unclaimed};
use crate::kernel::OpErrorKind;
use crate::kernel::exec::{Timing, Undone};
use crate::model::action::{AfterDetach, NewPort, OptionChange, PortChange};
use crate::model::dhcp::EXTRA_OPTIONS;
use crate::model::idempotency::Made;
use crate::model::{AddressPair, ExtraOption, FixedIp, Mac, NetworkId, Origin, Phase, Port, PortId};
use crate::plan::Reason;
use crate::reconcile::{Failed, Work, port_event};
use crate::store::{Change, Purpose};
use crate::telemetry::meters;

use super::detach::{check_active, departing};
use super::groups::checked_groups;
use super::{Context, Error, Reply, Service, view, word};

impl Service {
    pub(super) async fn create_ports(self: Arc<Self>, new: Vec<NewPort>, context: &Context) -> Result<Reply, Error> {
        let networks: BTreeSet<NetworkId> = new.iter().map(|one| one.network_id).collect();
        for network in networks {
            self.reconciler.look_at_existing_bridge(network).await?;
        }
        for one in new.iter().filter(|one| one.groups.is_none()) {
            self.own_group(&one.project_id).await?;
        }
        let (records, claims) = self
            .reconciler
            .claim(|state| {
                for one in &new {
                    state.network(one.network_id)?.claim.check_free()?;
                    state.check_groups(one.groups.as_ref().unwrap_or(&BTreeSet::new()))?;
                }
                self.reserve_all(state, &new)
            })
            .await?;
        let mut changes: Vec<Change> = records.iter().cloned().map(|port| Change::PutPort(Box::new(port))).collect();
        changes.extend(self.note(context, records.iter().map(|port| Made::Port(port.id)).collect()));
        let stored = self.reconciler.commit(changes, Purpose::Growing).await;
        let mut state = self.reconciler.lock();
        if let Err(error) = stored {
            records.iter().for_each(|port| {
                state.remove_port(port.id);
            });
            return Err(error.into());
        }
        let mut views = Vec::with_capacity(records.len());
        for port in records {
            self.reconciler.emit(port_event(EventKind::PortCreated, &port, None, Some(Phase::Unbound), None), context);
            views.push(view::port(&state, port.id, &self.reconciler.host)?);
        }
        drop(claims);
        Ok(Reply::Ports(views))
    }

    /// Reserves and claims all of them, or none.
    fn reserve_all(&self, state: &mut Inventory, new: &[NewPort]) -> Result<(Vec<Port>, Vec<ClaimGuard>), Unclaimed<Error>> {
        let (mut records, mut claims): (Vec<Port>, Vec<ClaimGuard>) = Default::default();
        for one in new {
            match self.port_record(state, one) {
                Ok(record) => {
                    state.add_port(record.clone(), Phase::Unbound);
                    claims.push(state.claim_port(record.id)?);
                    records.push(record);
                }
                Err(error) => {
                    records.iter().for_each(|port| {
                        state.remove_port(port.id);
                    });
                    return Err(error.into());
                }
            }
        }
        Ok((records, claims))
    }

    fn port_record(&self, state: &Inventory, new: &NewPort) -> Result<Port, Error> {
        let network = &state.network(new.network_id)?.record;
        let id = new.id.unwrap_or_else(|| PortId(Uuid::new_v4()));
        // A network's bridge would carry the same mark as this port's device.
        if state.ports.contains_key(&id) || state.networks.contains_key(&NetworkId(id.0)) {
            return Err(Error::IdTaken(id.0));
        }
        let mac = match new.mac {
            Some(mac) => state.check_mac(mac, network, None)?,
            None => self.draw_mac(state, network)?,
        };
        let port_security = new.port_security.unwrap_or(network.port_security);
        let now = clock::now();
        let port = Port {
            id,
            network_id: new.network_id,
            name: new.name.clone(),
            description: new.description.clone(),
            project_id: new.project_id.clone(),
            mac,
            fixed_ips: state.choose_addresses(new.network_id, mac, new.fixed_ips.as_deref(), None)?,
            admin_up: new.admin_up,
            unknown_unicast: new.unknown_unicast,
            port_security,
            address_pairs: checked_pairs(mac, port_security, new.address_pairs.clone())?,
            groups: self.groups_of_new(state, port_security, new.groups.as_ref(), &new.project_id)?,
            limits: new.limits,
            isolated: new.isolated,
            told: new.told.clone(),
            device_owner: new.device_owner.clone(),
            profile: new.profile.clone(),
            origin: Origin::Client,
            binding: None,
            standby: None,
            created_at: now,
            updated_at: now,
            revision_number: 1,
        };
        self.check_filter(state, &port)?;
        Ok(port)
    }

    pub(super) async fn update_port(self: Arc<Self>, id: PortId, change: PortChange, context: &Context) -> Result<Reply, Error> {
        let addresses = change.fixed_ips.is_some();
        let groups = change.groups.clone().unwrap_or_default();
        let claims = self
            .reconciler
            .claim(|state| {
                check_active(state, id)?;
                // Waits for an operation that makes or removes the subnet: only a durable subnet gives addresses.
                let network = state.network(state.port(id)?.record.network_id)?;
                if addresses {
                    network.claim.check_free()?;
                }
                state.check_groups(&groups)?;
                if change.detach { state.claim_with_sub_ports(id) } else { Ok((state.claim_port(id)?, Vec::new())) }
            })
            .await?;
        let result = self.update_port_claimed(id, change, context).await;
        drop(claims);
        self.reconciler.evaluate(&mut self.reconciler.lock(), id, Reason::Drift);
        result
    }

    async fn update_port_claimed(self: &Arc<Self>, id: PortId, change: PortChange, context: &Context) -> Result<Reply, Error> {
        if change.fixed_ips.is_some() {
            let network = { self.reconciler.lock().port(id)?.record.network_id };
            self.reconciler.look_at_existing_bridge(network).await?;
        }
        let mut proven = Vec::new();
        let (before, after, leaves) = loop {
            let unproven = {
                let mut state = self.reconciler.lock();
                let before = state.port(id)?.record.clone();
                context.expects(before.revision_number)?;
                let leaves = change.detach && before.attached_to().is_some();
                if leaves {
                    state.check_no_sub_port(id)?;
                }
                if change.detach && before.leaving() && state.port(id)?.phase == Phase::Error {
                    // Its device could not be deleted; it is tried again.
                    self.reconciler.start(Work::Reap(id));
                }
                let mut after = changed(&state, &before, change.clone())?;
                if after == before && !leaves {
                    return Ok(Reply::Port(Box::new(view::port(&state, id, &self.reconciler.host)?)));
                }
                let mut unproven = self.reconciler.to_be_proven(&state, &before, &mut after);
                unproven.retain(|address| !leaves && !proven.contains(address));
                if unproven.is_empty() {
                    // What it asked for before stays as it is.
                    if after.port_security && !before.port_security || !state.needs_filter(&before) {
                        self.check_filter(&state, &after)?;
                    }
                    if after.fixed_ips != before.fixed_ips {
                        self.renew_commit(&mut after);
                        hold_until_changed(&before, &mut after);
                    }
                    // Reserved at once: no other port takes its new MAC or address before they are durable.
                    state.replace_port(after.clone());
                    break (before, after, leaves);
                }
                unproven
            };
            self.reconciler.refuse_held(id, &unproven).await?;
            proven.extend(unproven);
        };
        let stored = match leaves {
            true => self.take_away(&after, context).await,
            false => {
                let change = Change::PutPort(Box::new(after.clone()));
                self.reconciler.commit(vec![change], Purpose::Growing).await.map_err(Error::from)
            }
        };
        if let Err(error) = stored {
            self.reconciler.lock().replace_port(before);
            return Err(error);
        }
        if (after.mac, &after.fixed_ips) != (before.mac, &before.fixed_ips) {
            self.tell_changed(id, context);
        }
        if !leaves && after.attached_to().is_some() && !built_alike(&before, &after) {
            let built = self.reconciler.build(id, Reason::Change, Vec::new(), Timing::Off).await.map(drop);
            match &built {
                // The device is as it was, so the port keeps its old record.
                Err(failed) if left_all_as_it_was(failed, &before, &after) && self.take_back(&before).await.is_ok() => {
                    if after.fixed_ips != before.fixed_ips {
                        self.tell_changed(id, context);
                    }
                    self.applied(id, Ok(()), context);
                    return Err(failed.error.clone());
                }
                _ => self.applied(id, built, context),
            }
        }
        Ok(Reply::Port(Box::new(view::port(&self.reconciler.lock(), id, &self.reconciler.host)?)))
    }

    /// Gives a port the record back that it had before a change.
    async fn take_back(&self, before: &Port) -> Result<(), Error> {
        self.reconciler.commit(vec![Change::PutPort(Box::new(before.clone()))], Purpose::Growing).await?;
        self.reconciler.lock().replace_port(before.clone());
        Ok(())
    }

    /// Takes a port from its server, in one commit with what else changes of it.
    async fn take_away(self: &Arc<Self>, port: &Port, context: &Context) -> Result<(), Error> {
        let sent = self.begin_detach(vec![departing(port, AfterDetach::Keep, context.force)], Vec::new(), context).await;
        meters().detached(word(&sent));
        sent
    }

    /// Tells readers that show a port's MAC and addresses to look again; its phase is what it was.
    pub(super) fn tell_changed(&self, port: PortId, context: &Context) {
        let state = self.reconciler.lock();
        if let Some(entry) = state.ports.get(&port) {
            let phase = Some(entry.phase);
            self.reconciler.emit(port_event(EventKind::PortStatus, &entry.record, phase, phase, entry.reason.clone()), context);
        }
    }

    /// Makes the next plan configure the guest's end again: the tag of the device is then of an older commit.
    pub(super) fn renew_commit(&self, port: &mut Port) {
        if let Some(binding) = port.binding.as_mut() {
            binding.commit = self.reconciler.store.next_commit();
        }
    }
}

/// Keeps the addresses an attached port loses from everybody else, until its guest no longer has them.
fn hold_until_changed(before: &Port, after: &mut Port) {
    let lost: Vec<FixedIp> = before.held_ips().filter(|ip| !after.fixed_ips.contains(ip)).copied().collect();
    if let Some(binding) = after.binding.as_mut() {
        binding.releasing = lost;
    }
}

/// Whether the device of a port, its filter and its limits are the same by both records.
fn built_alike(a: &Port, b: &Port) -> bool {
    (a.admin_up, a.unknown_unicast, &a.fixed_ips) == (b.admin_up, b.unknown_unicast, &b.fixed_ips)
        && (a.port_security, &a.address_pairs, a.limits, a.isolated) == (b.port_security, &b.address_pairs, b.limits, b.isolated)
        && (a.told.dhcp, &a.groups) == (b.told.dhcp, &b.groups)
}

/// Whether the kernel refused a change and its device is as it was before. The filter comes first; what a guest's end was given of
/// other addresses by then is not taken back. A device that is to be down is set down later.
fn left_all_as_it_was(failed: &Failed, before: &Port, after: &Port) -> bool {
    let same = (after.admin_up, &after.fixed_ips) == (before.admin_up, &before.fixed_ips);
    failed.undone == Undone::Clean
        && match &failed.error {
            Error::FiltersUnavailable(_) | Error::ConntrackUnavailable(_) => true,
            Error::RulesTooMany | Error::RulesOfAllTooMany { .. } => true,
            Error::Kernel(refused) => refused.kind == OpErrorKind::FilterRefused || same,
            _ => false,
        }
}

/// The address pairs of a port with this MAC, if it may have them. A pair with the port's own MAC is one without a MAC.
fn checked_pairs(mac: Mac, port_security: bool, given: Vec<AddressPair>) -> Result<Vec<AddressPair>, Error> {
    if !port_security && !given.is_empty() {
        return Err(Error::PortSecurityOff);
    }
    let mut pairs: Vec<AddressPair> = Vec::with_capacity(given.len());
    for pair in given {
        let pair = AddressPair { mac: pair.mac.filter(|own| *own != mac), ..pair };
        if pair.ip.prefix() == 0 {
            return Err(Error::PairTooWide(pair.ip));
        }
        pair.mac.map(Mac::for_guest).transpose().map_err(inventory::Error::from)?;
        if pairs.contains(&pair) {
            return Err(Error::DuplicatePair { mac: pair.mac.unwrap_or(mac), ip: pair.ip });
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

/// Options that a change does not name stay, as Neutron has it. A name and its number are one option.
fn set_option(options: &mut Vec<ExtraOption>, change: OptionChange) {
    let sets = match &change {
        OptionChange::Set(option) => option.sets,
        OptionChange::Unset(sets) => *sets,
    };
    let at = options.iter().position(|option| option.sets == sets);
    match (change, at) {
        (OptionChange::Set(option), Some(at)) => options[at] = option,
        (OptionChange::Set(option), None) => options.push(option),
        (OptionChange::Unset(_), Some(at)) => _ = options.remove(at),
        (OptionChange::Unset(_), None) => {}
    }
}

fn changed(state: &Inventory, before: &Port, change: PortChange) -> Result<Port, Error> {
    let mut after = before.clone();
    let needs_detach = |what| Err(Error::NeedsDetach { what, port: before.id });
    if let Some(mac) = change.mac.filter(|mac| *mac != before.mac) {
        if before.binding.is_some() {
            return needs_detach("mac_address");
        }
        after.mac = state.check_mac(mac, &state.network(before.network_id)?.record, Some(before.id))?;
    }
    if let Some(wanted) = change.fixed_ips {
        after.fixed_ips = state.choose_addresses(before.network_id, after.mac, Some(&wanted), Some(before.id))?;
    } else if after.mac != before.mac {
        after.fixed_ips = state.made_anew(before, after.mac)?;
    }
    if let Some(profile) = change.profile.filter(|profile| *profile != before.profile) {
        // Nothing is built by it any more once the port leaves.
        if before.attached_to().is_some() && !change.detach {
            return needs_detach("binding:profile");
        }
        after.profile = profile;
    }
    after.name = change.name.unwrap_or(after.name);
    after.description = change.description.unwrap_or(after.description);
    after.device_owner = change.device_owner.unwrap_or(after.device_owner);
    after.admin_up = change.admin_up.unwrap_or(after.admin_up);
    after.unknown_unicast = change.unknown_unicast.unwrap_or(after.unknown_unicast);
    after.limits = change.limits.unwrap_or(after.limits);
    after.isolated = change.isolated.unwrap_or(after.isolated);
    after.told.dhcp = change.dhcp.unwrap_or(after.told.dhcp);
    after.told.dns_name = change.dns_name.unwrap_or(after.told.dns_name);
    for option in change.extra_options {
        set_option(&mut after.told.extra_options, option);
    }
    if after.told.extra_options.len() > EXTRA_OPTIONS {
        return Err(Error::TooManyOptions { given: after.told.extra_options.len(), limit: EXTRA_OPTIONS });
    }
    after.port_security = change.port_security.unwrap_or(after.port_security);
    after.address_pairs = change.address_pairs.unwrap_or(after.address_pairs);
    if (after.mac, after.port_security, &after.address_pairs) != (before.mac, before.port_security, &before.address_pairs) {
        after.address_pairs = checked_pairs(after.mac, after.port_security, after.address_pairs)?;
    }
    after.groups = change.groups.unwrap_or(after.groups);
    if (after.port_security, &after.groups) != (before.port_security, &before.groups) {
        after.groups = checked_groups(state, after.port_security, after.groups)?;
    }
    if after != *before {
        after.updated_at = clock::now();
        after.revision_number += 1;
    }
    Ok(after)
}
