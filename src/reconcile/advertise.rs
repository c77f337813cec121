//! Router advertisements: guests' solicitations are answered, and each guest is told again from time to time, and at once when what it
//! is told changes. A stop of nicd tells them nothing.

use std::net::Ipv6Addr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::inventory::Inventory;
use crate::inventory::leases::Defaults;
use crate::lease::advert::{Advert, Message};
use crate::lease::frame6::{ALL_NODES, Envelope};
use crate::model::{Mac, PortId};
use crate::sys::packet::PacketSocket;
use crate::telemetry::meters;

use super::Reconciler;

/// How many guests of one bridge are told before others have their turn.
const TURN: usize = 64;

/// The times between two advertisements, in seconds (RFC 4861, 6.2.1).
const PERIOD: std::ops::Range<u64> = 200..600;

/// The time until the first, in seconds (RFC 4861, 10): a guest that starts asks by itself.
const FIRST: std::ops::Range<u64> = 1..16;

/// What is sent to a guest.
#[derive(Debug)]
pub(super) struct Telling {
    port: PortId,
    pub(super) advert: Advert,
    device: u32,
    guest: Mac,
    target: Ipv6Addr,
    messages: Vec<Message>,
}

impl Reconciler {
    /// What is said to guests whose subnet says nothing.
    pub(super) fn defaults(&self) -> Defaults {
        let policy = self.policy();
        Defaults { resolvers: policy.guest.dns_nameservers.clone(), domain: policy.guest.domain.clone() }
    }

    /// Has a port's guest told on the bridge that its device is in.
    pub(super) fn follow_adverts(self: &Arc<Self>, state: &mut Inventory, port: PortId, bridge: Option<u32>) {
        let served =
            state.ports.get(&port).is_some_and(|entry| state.served(&entry.record).is_some_and(|served| served.solicitations));
        if !served {
            self.take_back(state, port);
        }
        state.adverts.place(port, bridge.filter(|_| served), || after(FIRST));
    }

    /// Tells a port's guest that what it was told no longer holds, where it is still there. The bridge's socket may be closed already.
    fn take_back(self: &Arc<Self>, state: &mut Inventory, port: PortId) {
        let Some(told) = state.adverts.forget(port) else { return };
        let record = state.ports.get(&port).map(|entry| &entry.record).filter(|record| record.attached_to().is_some());
        let (Some(record), Some(device)) = (record, state.have.device(port)) else { return };
        let messages = told.nothing().messages(Some(&told));
        let telling = Telling { port, advert: told, device: device.index, guest: record.mac, target: ALL_NODES, messages };
        self.say_of(port, telling.device, telling.frames().collect(), "router_advertisement");
    }

    /// Sends frames of a port's out of a device or a bridge. No caller waits for it.
    pub(super) fn say_of(self: &Arc<Self>, port: PortId, to: u32, frames: Vec<Vec<u8>>, kind: &'static str) {
        let strong = Arc::clone(self);
        tokio::spawn(async move {
            match strong.listening.say(strong.kernel.as_ref(), to, frames).await {
                Ok(()) => meters().dhcp_sent(kind),
                Err(error) => tracing::debug!(%port, %error, kind, "it could not be sent"),
            }
        });
    }

    /// What a port's guest is told now.
    pub(super) fn telling(&self, state: &mut Inventory, port: PortId, target: Ipv6Addr, defaults: &Defaults) -> Option<Telling> {
        let record = &state.ports.get(&port)?.record;
        let (device, guest) = (state.have.device(port)?.index, record.mac);
        let advert = state.advert(record, defaults)?;
        let messages = advert.messages(state.adverts.told(port));
        state.adverts.set(port, after(PERIOD));
        Some(Telling { port, advert, device, guest, target, messages })
    }

    /// Tells those guests of a bridge whose time has come; when the next ones are to be told, and what tells of earlier ones. None of a
    /// bridge that is closed.
    fn advertise(&self, bridge: u32, socket: &PacketSocket) -> Option<(Option<Instant>, Arc<Notify>)> {
        let defaults = self.defaults();
        let (mut all, now) = (Vec::new(), Instant::now());
        let next = {
            let mut state = self.lock();
            for _ in 0..TURN {
                let Some(port) = state.adverts.take(bridge, now) else { break };
                all.extend(self.telling(&mut state, port, ALL_NODES, &defaults));
            }
            state.adverts.first(bridge)
        };
        self.tell(socket, all);
        next
    }

    /// Sends to guests what they are told, and notes it of those that it could be sent to: another one is told again what no longer holds.
    pub(super) fn tell(&self, socket: &PacketSocket, all: Vec<Telling>) {
        let told: Vec<Telling> = all.into_iter().filter(|telling| tell(socket, telling)).collect();
        let mut state = self.lock();
        told.into_iter().for_each(|telling| state.adverts.tell(telling.port, telling.advert));
    }
}

/// A random time in a range of seconds from now.
fn after(seconds: std::ops::Range<u64>) -> Instant {
    let milliseconds = rand::random_range(seconds.start * 1000..seconds.end * 1000);
    Instant::now() + Duration::from_millis(milliseconds)
}

/// Tells the guests of a bridge until that is closed. Cancel-safe: who is taken off the queue is told at once.
pub(super) async fn advertise(reconciler: &Weak<Reconciler>, bridge: u32, socket: &PacketSocket) {
    loop {
        let Some(strong) = reconciler.upgrade() else { return };
        let Some((due, news)) = strong.advertise(bridge, socket) else { return };
        drop(strong);
        let comes = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = comes => {}
            () = news.notified() => {}
        }
        tokio::task::yield_now().await;
    }
}

impl Telling {
    /// Its frames. To all nodes, they still go to one MAC: the guest is the only node there.
    fn frames(&self) -> impl Iterator<Item = Vec<u8>> {
        self.messages.iter().filter_map(|message| {
            let (from, to) = (self.guest.host_side(), self.guest);
            Envelope { from, to, source: message.source, target: self.target }.advert(message)
        })
    }
}

/// Sends to a guest, by its device alone, what it is told; whether it could be.
fn tell(socket: &PacketSocket, telling: &Telling) -> bool {
    let mut all = true;
    for frame in telling.frames() {
        match socket.send(telling.device, &frame) {
            Ok(()) => meters().dhcp_sent("router_advertisement"),
            Err(_) => {
                all = false;
                meters().dhcp_ignored("not_sent");
            }
        }
    }
    all
}
