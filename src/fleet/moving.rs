//! Ports that move from one host to another.
//!
//! ```text
//!  the host that has it                         etcd                          the host that it moves to
//!  prepare ──────────────────────────────► call: Prepare ──────────────────► a silent device, told of under binding/
//!  activate: noted in its own store,
//!  its device made silent ───────────────► one transaction: where it is, its
//!                                          entry, what it claims, call: Take ► noted, put into its bridge, announced
//! ```
//!
//! The host that has it notes in its own store that it hands it over. From there on its device is silent until etcd tells where the port is:
//! never are two of them in their bridges. The transaction holds only as long as that host has not joined again; at a join each host asks where the
//! ports are of which it has silent devices, and does what follows from that.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::agent::{Fleet, Local};
use super::calls::{Asks, Call, Waits};
use super::etcd::{Compare, Event, Keys, LIMIT, Op};
use super::member::{MemberError, json, read_versioned};
use super::publish::{self, Entry, Place};
use super::published::{Told, view};
use crate::failpoints;
use crate::model::{Handed, Lent, Port, PortId, PublishedId, Registration, Standby};

/// What came of handing a port over.
#[derive(Debug)]
pub enum HandedOver<'a> {
    /// It is the other host's, whose answer may be waited for; it takes it when it is back where there is none in time.
    Done(Waits<'a>),
    /// It stays this host's: the other one has no device for it any more, or is not one of the fleet.
    Refused,
}

/// Where a port is that has a silent device here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// On this host.
    Here,
    /// On another one.
    There(String),
    /// Nowhere, as it was deleted.
    Deleted,
}

impl Fleet {
    /// What is shown of the silent devices of a port.
    ///
    /// # Errors
    /// Etcd does not answer, or a value cannot be read.
    pub async fn bindings(&self, port: PortId) -> Result<Vec<serde_json::Value>, MemberError> {
        let (_, found) = self.kv.pages(self.names.bindings(port)).all().await?;
        found.iter().map(view).collect()
    }

    /// Whether a host is alive.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn is_alive(&self, host: &str) -> Result<bool, MemberError> {
        Ok(!self.kv.range(&Keys::One(self.names.alive(host)), None, 0).await?.keys.is_empty())
    }

    /// Waits until etcd was told that a port is active here, or that it has a silent device here, for as long as a request to etcd may take.
    pub async fn until_told(&self, port: PortId, is_active: bool) {
        let mut told = self.told.subscribe();
        let is_told = async {
            let is_other = |(entry, _): &(Entry, i64)| entry.is_active() != is_active;
            while self.listed.lock().await.get(&PublishedId::Port(port)).is_none_or(is_other) {
                if told.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(LIMIT, is_told).await;
    }

    /// What this host is registered as.
    ///
    /// # Errors
    /// It is not connected to its fleet.
    pub fn registration(&self) -> Result<Registration, MemberError> {
        self.registered()
    }

    /// Waits until something is known of what hosts define, for as long as a request to etcd may take.
    pub async fn until_followed(&self, is_known: impl Fn() -> bool) {
        let mut followed = self.followed.subscribe();
        let known = async { while !is_known() && followed.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(LIMIT, known).await;
    }

    /// Hands a port over whose device is silent from now on, with all that it claims.
    ///
    /// # Errors
    /// Etcd does not answer: where the port is then is seen at the next join, which begins at once.
    pub async fn hand_over<L: Local>(&self, local: &Arc<L>, port: &Port, to: &str) -> Result<HandedOver<'_>, MemberError> {
        let handed = self.try_to_hand_over(local, port, to).await;
        if handed.is_err() {
            self.join_again();
        }
        handed
    }

    async fn try_to_hand_over<L: Local>(&self, local: &Arc<L>, port: &Port, to: &str) -> Result<HandedOver<'_>, MemberError> {
        let registration = self.registered()?;
        let (own, id) = (self.host(), PublishedId::Port(port.id));
        let ones = local.needs_of(port);
        let handed = Handed { port: port.clone(), claims: ones.clone(), epoch: registration.epoch };
        let call = Call::new(own.clone(), String::new(), None, Asks::Take(Box::new(handed)));
        let answer = self.wait_for(call.id);
        let (_claiming, mut listed) = (self.claiming.lock().await, self.listed.lock().await);
        let signed = self.signed.load(Ordering::Relaxed);
        let entry = self.names.own_entry(&own, id);
        let when = vec![
            Compare::unchanged(self.names.alive(&own), signed),
            Compare::present(self.names.binding(port.id, to)),
            Compare::present(self.names.alive(to)),
            match listed.get(&id) {
                Some((_, revision)) => Compare::unchanged(entry.clone(), *revision),
                None => Compare::absent(Keys::One(entry.clone())),
            },
        ];
        let there = Told::Port(Box::new(local.shown_at(port, to)));
        let before = listed.get(&id).map(|(before, _)| before);
        let mut then = publish::hand(&self.names, port.id, (&own, before), (to, &there));
        let remains = Entry::handed();
        then.extend([Op::put(entry, json(&remains)), Op::put(self.names.call(to, call.id), json(&call))]);
        failpoints::step(("fleet", "hand"), || ());
        let done = self.member.hand(&registration, to, (&local.claims(), &ones), (when, then)).await?;
        let Some(made) = done else { return Ok(HandedOver::Refused) };
        failpoints::step(("fleet", "handed"), || ());
        listed.insert(id, (remains, made));
        let lent = ones.into_iter().map(|claim| Lent { claim, host: to.to_owned(), made }).collect();
        Arc::clone(local).handed(port.id, to.to_owned(), lent).await.map_err(MemberError::NotNoted)?;
        Ok(HandedOver::Done(answer))
    }

    /// Does what follows from where the ports are that have silent devices here. With `is_conclusive`, one of which etcd has nothing was
    /// deleted.
    pub(super) async fn settle_standbys<L: Local>(&self, local: &Arc<L>, is_conclusive: bool) -> Result<(), MemberError> {
        for (port, standby) in local.standbys() {
            self.settle_standby(local, (port, &standby), is_conclusive).await?;
        }
        Ok(())
    }

    async fn settle_standby<L: Local>(
        &self,
        local: &Arc<L>,
        (port, standby): (PortId, &Standby),
        is_conclusive: bool,
    ) -> Result<(), MemberError> {
        let found = self.kv.range(&Keys::One(self.names.place(port)), None, 0).await?.keys;
        let place = found.first().map(read_versioned::<Place>).transpose()?;
        let whereabouts = match (place, standby) {
            (Some(place), Standby::HandedTo(_)) if place.host == self.host() && !is_conclusive => return Ok(()),
            (Some(place), _) if place.host == self.host() => Whereabouts::Here,
            (Some(place), Standby::ActiveOn(host)) if place.host == *host => return Ok(()),
            (Some(place), _) => Whereabouts::There(place.host),
            // One that is kept down is not told of under its place, and was not deleted.
            (None, Standby::ActiveOn(host)) if is_conclusive && !self.lists(host, port).await? => Whereabouts::Deleted,
            // The other host may tell of it again; or it had it, and has deleted it.
            (None, _) => return Ok(()),
        };
        Arc::clone(local).settle_standby(port, standby.clone(), whereabouts).await.map_err(MemberError::NotNoted)
    }

    /// Whether a host has a port in its list.
    async fn lists(&self, host: &str, port: PortId) -> Result<bool, MemberError> {
        let entry = self.names.own_entry(host, PublishedId::Port(port));
        Ok(!self.kv.range(&Keys::One(entry), None, 0).await?.keys.is_empty())
    }

    /// Takes in that something was told of a port that has a silent device here.
    pub(super) async fn follow_standby<L: Local>(&self, local: &Arc<L>, event: &Event) -> Result<(), MemberError> {
        let Some((_, _, port)) = self.names.port_at(event.key()) else { return Ok(()) };
        match local.standby(port) {
            // What is being handed over is settled by who does that.
            Some(standby @ Standby::ActiveOn(_)) => {
                self.settle_standby(local, (port, &standby), matches!(event, Event::Delete { .. })).await
            }
            Some(Standby::HandedTo(_)) | None => Ok(()),
        }
    }

    /// Looks which of what other hosts held of this one's blocks is given back.
    pub(super) async fn end_lending<L: Local>(&self, local: &Arc<L>) -> Result<(), MemberError> {
        let _turn = self.claiming.lock().await;
        let lent = local.lent();
        if lent.is_empty() {
            return Ok(());
        }
        let registration = self.registered()?;
        if !registration.is_settled {
            return Ok(());
        }
        let back = self.member.given_back(&registration, &lent).await?;
        Arc::clone(local).given_back(back).await.map_err(MemberError::NotNoted)
    }
}
