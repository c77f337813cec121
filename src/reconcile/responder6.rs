//! What guests ask over IPv6, and what becomes of it.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use crate::clock;
use crate::inventory::leases::{Exchange, LeaseState, SAID};
use crate::lease::frame::{BadFrame, Checksum};
use crate::lease::frame6::{self, ALL_NODES, Asks, Envelope, Request};
use crate::lease::plain;
use crate::lease::v6::{self, Event, Message, Unreadable, code};
use crate::neighbours;
use crate::sys::packet::PacketSocket;
use crate::telemetry::meters;

use super::Reconciler;

impl Reconciler {
    /// Answers a request, or does not.
    pub(super) fn respond6(self: &Arc<Self>, bridge: u32, socket: &PacketSocket, frame: &[u8], checksum: Checksum) {
        let request = match frame6::read(frame, checksum) {
            Ok(request) => request,
            Err(BadFrame::Malformed) => return meters().dhcp_ignored("malformed"),
            Err(BadFrame::Checksum) => return meters().dhcp_ignored("checksum"),
        };
        match request.asks {
            Asks::Router => self.solicited(bridge, socket, &request),
            Asks::Dhcp(message) => self.respond_dhcp6(bridge, socket, &request, message),
        }
    }

    fn solicited(self: &Arc<Self>, bridge: u32, socket: &PacketSocket, request: &Request<'_>) {
        let defaults = self.defaults();
        let mut state = self.lock();
        let Some(port) = state.asking(request.from, bridge).map(|(entry, _)| entry.record.id) else {
            return meters().dhcp_ignored("no_port");
        };
        meters().dhcp_received("router_solicitation");
        let target = if request.source.is_unspecified() { ALL_NODES } else { request.source };
        let Some(telling) = self.telling(&mut state, port, target, &defaults) else {
            return meters().dhcp_ignored("no_port");
        };
        // A guest that asks without end is told, and has others asked, no faster than it needs.
        let is_news = state.adverts.told(port) != Some(&telling.advert);
        if !state.adverts.may_answer(port, Instant::now()) && !is_news {
            return meters().dhcp_ignored("too_soon");
        }
        let speaker = state.speaker(port).filter(|_| !telling.advert.has_router());
        drop(state);
        // nicd knows no router to name. Those of the network answer to all, as the question has no sender's address.
        if let Some(speaker) = speaker {
            self.say_of(port, speaker.bridge, vec![neighbours::router_question(speaker.mac)], "router_solicitation");
        }
        self.tell(socket, vec![telling]);
    }

    fn respond_dhcp6(self: &Arc<Self>, bridge: u32, socket: &PacketSocket, request: &Request<'_>, message: &[u8]) {
        let message = Message::read(message);
        let defaults = self.defaults();
        let mut state = self.lock();
        let asking = state.asking(request.from, bridge);
        let Some((port, device, told)) =
            asking.and_then(|(entry, device)| Some((entry.record.id, device, state.told6(&entry.record, &defaults)?)))
        else {
            return meters().dhcp_ignored("no_port");
        };
        let own = state.guided_address(port);
        let Some(entry) = state.ports.get_mut(&port) else { return };
        let message = match message {
            Ok(message) => message,
            Err(why) => {
                entry.dhcp.ignored += 1;
                return meters().dhcp_ignored(if why == Unreadable::Relayed { "relayed" } else { "malformed" });
            }
        };
        meters().dhcp_received(message.kind.as_str());
        let outcome = if request.source.is_unspecified() {
            Err(v6::Silence::Incomplete)
        } else {
            v6::answer(&message, request.target, &told)
        };
        let answer = match outcome {
            Ok(answer) => answer,
            Err(why) => {
                entry.dhcp.ignored += 1;
                return meters().dhcp_ignored(why.as_str());
            }
        };
        entry.dhcp.answered += 1;
        let mac = entry.record.mac;
        if let Some((lease, address)) = answer.event.and_then(|event| exchange_of(event, own)) {
            let before = entry.dhcp.last6.as_ref().map(|last| last.state);
            entry.dhcp.last6 = Some(exchange(&message, lease, address));
            self.note_declined(&mut state, port, lease, address, before);
        }
        drop(state);
        let (octets, left_out) = answer.reply.write();
        if left_out > 0 {
            tracing::debug!(guest = %mac, left_out, "options of an answer did not fit into the link's packets");
        }
        let from = mac.host_side();
        let envelope = Envelope { from, to: mac, source: from.link_local(), target: request.source };
        match envelope.dhcp(&octets).map(|frame| socket.send(device, &frame)) {
            Some(Ok(())) => meters().dhcp_sent(answer.reply.kind.as_str()),
            _ => meters().dhcp_ignored("not_sent"),
        }
    }
}

/// What becomes of which address; of one that is told the rest alone, of the address that it made.
fn exchange_of(event: Event, own: Option<Ipv6Addr>) -> Option<(LeaseState, IpAddr)> {
    let (state, address) = match event {
        Event::Offered(address) => (LeaseState::Offered, address),
        Event::Bound(address) => (LeaseState::Bound, address),
        Event::Refused(address) => (LeaseState::Refused, address),
        Event::Released(address) => (LeaseState::Released, address),
        Event::Declined(address) => (LeaseState::Declined, address),
        Event::Informed => (LeaseState::Informed, own?),
    };
    Some((state, address.into()))
}

fn exchange(message: &Message<'_>, state: LeaseState, address: IpAddr) -> Exchange {
    let hexadecimal = |value: &[u8]| value.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":");
    Exchange {
        state,
        address,
        message: message.kind.as_str(),
        at: clock::now(),
        client_id: message.client().map(|duid| hexadecimal(&duid[..duid.len().min(SAID)])),
        hostname: message.option(code::NAME).and_then(name_of),
    }
}

/// A client's name (RFC 4704, 4.2): labels behind the flags, with or without an end.
fn name_of(value: &[u8]) -> Option<String> {
    let mut rest = value.get(1..)?;
    let mut labels: Vec<String> = Vec::new();
    while let [length @ 1..=63, behind @ ..] = rest {
        let label = behind.get(..usize::from(*length))?;
        labels.push(plain(label));
        rest = &behind[usize::from(*length)..];
    }
    let name: String = labels.join(".").chars().take(SAID).collect();
    Some(name).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_what_host_names_have() {
        assert_eq!(name_of(b"\0\x03w\x1b1\x05x<e>y\0").as_deref(), Some("w1.xey"));
        assert_eq!(name_of("\0\u{4}\u{202e}x".as_bytes()).as_deref(), Some("x"));
        assert_eq!(name_of(b"\0\x05ab"), None);
    }
}
