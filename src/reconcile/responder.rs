//! The responder: it answers the DHCP requests of ports' guests.
//!
//! ```text
//!  evaluate ──► follow_responder (hearing) ── the first port on a bridge: a socket ──► nicd-dhcp (thread) ── hear ──► respond
//!                       │                         the last has left: it is closed          │ frame in, frame out of the port's device
//!                       └──► Observed::hear ──► fact `responder`                           └──► inventory: what it is told; its last exchange
//! ```
//!
//! What a guest is told is read off the records when it asks, so a change of them needs no notice here. The thread is one of its own:
//! requests do not wait for actions, nor actions for requests, and what a guest says of its address the loop follows. How fast each
//! port is heard the filters decide (`kernel/filter`). IPv6 is in `responder6`, router advertisements are in `advertise`.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::inventory::leases::{Exchange, LeaseState, SAID};
use crate::lease::frame::{self, BadFrame, Checksum, Envelope};
use crate::lease::{self, Answer, Kind, Message, Silence, Unreadable, code};
use crate::model::Mac;
use crate::sys::packet::PacketSocket;
use crate::telemetry::meters;
use crate::threads::CLOSING;

use super::Reconciler;
use super::advertise::advertise;
use super::hearing::Bridge;

/// How many requests of one bridge are answered before those of others.
const TURN: usize = 32;

/// The longest frame, in octets: the socket's filter passes none that is longer (`kernel/requests`).
const FRAME: usize = 2_048;

impl Reconciler {
    /// Answers a request, or does not.
    fn respond(self: &Arc<Self>, bridge: u32, socket: &PacketSocket, frame: &[u8], checksum: Checksum) {
        let from = frame.get(6..).and_then(<[u8]>::first_chunk);
        if from.is_some_and(|from| !self.lock().may_answer(Mac(*from), bridge, Instant::now())) {
            return meters().dhcp_ignored("too_many");
        }
        if frame.get(12..14) == Some(&[0x86, 0xdd]) {
            return self.respond6(bridge, socket, frame, checksum);
        }
        let request = match frame::read(frame, checksum) {
            Ok(request) => request,
            Err(BadFrame::Malformed) => return meters().dhcp_ignored("malformed"),
            Err(BadFrame::Checksum) => return meters().dhcp_ignored("checksum"),
        };
        let message = Message::read(request.message);
        let defaults = self.defaults();
        let mut state = self.lock();
        let Some((port, device, told)) = state.told(request.from, bridge, &defaults) else {
            return meters().dhcp_ignored("no_port");
        };
        let Some(entry) = state.ports.get_mut(&port) else { return };
        let message = match message {
            Ok(message) => message,
            Err(why) => {
                entry.dhcp.ignored += 1;
                return meters().dhcp_ignored(unreadable(why));
            }
        };
        meters().dhcp_received(message.kind.as_str());
        let outcome = lease::answer(&message, &told);
        match &outcome {
            Err(why) if exchange_of(&outcome).is_none() => {
                entry.dhcp.ignored += 1;
                return meters().dhcp_ignored(why.as_str());
            }
            Err(_) => {}
            Ok(_) => entry.dhcp.answered += 1,
        }
        let said = outcome.as_ref().ok().map(|answer| (answer, answer.reply.write()));
        if let Some((_, (_, left_out))) = &said
            && !left_out.is_empty()
            && !std::mem::replace(&mut entry.dhcp.is_cut, true)
        {
            tracing::warn!(%port, ?left_out, "options do not fit into what a guest takes of an answer, and are left out");
        }
        let before = entry.dhcp.last.as_ref().map(|last| last.state);
        if let Some((lease, address)) = exchange_of(&outcome) {
            entry.dhcp.last = Some(exchange(&message, lease, address));
            self.note_declined(&mut state, port, lease, address.into(), before);
        }
        drop(state);
        if let Some((answer, (octets, _))) = said {
            send(socket, device, told.mac, answer, &octets);
        }
    }
}

/// Has a bridge's requests answered.
pub fn start(reconciler: &Arc<Reconciler>, bridge: Bridge) {
    let Bridge { index, socket, thread, stop } = bridge;
    thread.spawn(hear(Arc::downgrade(reconciler), index, socket, stop));
}

/// Hears a bridge's requests until it is told to stop, or cannot.
async fn hear(reconciler: Weak<Reconciler>, bridge: u32, socket: PacketSocket, stop: CancellationToken) {
    let heard = match socket.watched() {
        Ok(socket) => {
            let heard = tokio::select! {
                heard = listen(&reconciler, bridge, &socket, &stop) => heard,
                () = advertise(&reconciler, bridge, socket.get_ref()) => Ok(()),
            };
            // The kernel closes it only when no processor can be using it any more. Requests of other bridges do not wait for that.
            let socket = socket.into_inner();
            CLOSING.run(move || drop(socket));
            heard
        }
        Err(error) => Err(error),
    };
    if let Err(error) = heard
        && let Some(reconciler) = reconciler.upgrade()
    {
        let mut state = reconciler.lock();
        // Told to stop it no longer is this bridge's.
        if !stop.is_cancelled() {
            reconciler.cannot_hear(&mut state, bridge, &error);
        }
    }
}

/// Answers a bridge's requests. Cancel-safe: a request is answered as soon as it is taken.
async fn listen(
    reconciler: &Weak<Reconciler>,
    bridge: u32,
    socket: &AsyncFd<PacketSocket>,
    stop: &CancellationToken,
) -> io::Result<()> {
    let mut buffer = vec![0; FRAME];
    loop {
        let mut ready = tokio::select! {
            ready = socket.readable() => ready?,
            () = stop.cancelled() => return Ok(()),
        };
        for _ in 0..TURN {
            match socket.get_ref().receive(&mut buffer) {
                Ok(received) => {
                    let Some(reconciler) = reconciler.upgrade() else { return Ok(()) };
                    let checksum = if received.checksum_unfinished { Checksum::Unfinished } else { Checksum::Complete };
                    reconciler.respond(bridge, socket.get_ref(), &buffer[..received.length], checksum);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        ready.clear_ready();
                        break;
                    }
                    // A bridge that is set down says so once, and is heard again when it is up.
                    io::ErrorKind::NetworkDown => tracing::debug!(bridge, %error, "DHCP requests are not heard for now"),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
        tokio::task::yield_now().await;
    }
}

fn send(socket: &PacketSocket, device: u32, guest: Mac, answer: &Answer, octets: &[u8]) {
    let Answer { source, target, to, port, .. } = *answer;
    let envelope = Envelope { from: guest.host_side(), to, source, target, port };
    let sent = match frame::write(envelope, octets) {
        Some(frame) => socket.send(device, &frame),
        None => Err(io::ErrorKind::InvalidData.into()),
    };
    match sent {
        Ok(()) => meters().dhcp_sent(answer.reply.kind.as_str()),
        Err(error) => {
            tracing::debug!(%guest, %error, "an answer could not be sent");
            meters().dhcp_ignored("not_sent");
        }
    }
}

fn unreadable(why: Unreadable) -> &'static str {
    match why {
        Unreadable::Malformed => "malformed",
        Unreadable::NotRequest => "no_request",
        Unreadable::Hardware => "other_hardware",
    }
}

/// What becomes of which address; none where nothing does.
fn exchange_of(outcome: &Result<Answer, Silence>) -> Option<(LeaseState, Ipv4Addr)> {
    match outcome {
        Ok(answer) => Some(match (answer.reply.kind, answer.reply.yiaddr) {
            (Kind::Offer, address) => (LeaseState::Offered, address),
            (Kind::Nak, _) => (LeaseState::Refused, Ipv4Addr::UNSPECIFIED),
            (_, Ipv4Addr::UNSPECIFIED) => (LeaseState::Informed, answer.reply.ciaddr),
            (_, address) => (LeaseState::Bound, address),
        }),
        Err(Silence::Released(address)) => Some((LeaseState::Released, *address)),
        Err(Silence::Declined(address)) => Some((LeaseState::Declined, *address)),
        Err(_) => None,
    }
}

fn exchange(message: &Message, state: LeaseState, address: Ipv4Addr) -> Exchange {
    let said = |code| message.options.get(&code).map(|value| &value[..value.len().min(SAID)]).filter(|value| !value.is_empty());
    let hexadecimal = |value: &[u8]| value.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":");
    let address = match (address.is_unspecified(), message.address(code::REQUESTED)) {
        (true, Some(requested)) => requested,
        (true, None) => message.ciaddr,
        (false, _) => address,
    };
    Exchange {
        state,
        address: address.into(),
        message: message.kind.as_str(),
        at: clock::now(),
        client_id: said(code::CLIENT).map(hexadecimal),
        hostname: said(code::HOSTNAME).map(lease::plain),
    }
}
