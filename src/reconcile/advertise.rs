//! Router advertisements: guests' solicitations are answered, and each guest is told again from time to time, and at once when what it
//! is told changes. A stop of nicd tells them nothing.

use std::net::Ipv6Addr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::inventory::Inventory;
use crate::inventory::leases::Defaults;
use crate::lease::advert::Message;
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
    pub(super) fn follow_adverts(&self, state: &mut Inventory, port: PortId, bridge: Option<u32>) {
        let served =
            state.ports.get(&port).is_some_and(|entry| state.served(&entry.record).is_some_and(|served| served.solicitations));
        state.adverts.place(port, bridge.filter(|_| served), || after(FIRST));
    }

    /// What a port's guest is told now.
    pub(super) fn telling(&self, state: &mut Inventory, port: PortId, target: Ipv6Addr, defaults: &Defaults) -> Option<Telling> {
        let record = &state.ports.get(&port)?.record;
        let (device, guest) = (state.have.device(port)?.index, record.mac);
        let advert = state.advert(record, defaults)?;
        let before = state.adverts.tell(port, advert.clone());
        state.adverts.set(port, after(PERIOD));
        Some(Telling { device, guest, target, messages: advert.messages(before.as_ref()) })
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
        all.iter().for_each(|telling| tell(socket, telling));
        next
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

/// Sends to a guest, by its device alone, what it is told. To all nodes, it still goes to one MAC: nobody else is there.
pub(super) fn tell(socket: &PacketSocket, telling: &Telling) {
    let Telling { device, guest, target, messages } = telling;
    for message in messages {
        let envelope = Envelope { from: guest.host_side(), to: *guest, source: message.source, target: *target };
        match envelope.advert(message).map(|frame| socket.send(*device, &frame)) {
            Some(Ok(())) => meters().dhcp_sent("router_advertisement"),
            _ => meters().dhcp_ignored("not_sent"),
        }
    }
}
