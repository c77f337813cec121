//! Neighbours that flood, lie or talk nonsense.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket};
use serde_json::json;

use crate::bytes::{ARP, Arp, BROADCAST, IP4, Ip4, Mac, UDP, ethernet, udp};
use crate::client::{ACK, DISCOVER, Machine, Message, OFFER, REQUEST};
use crate::daemon::PATIENCE;
use crate::fixture::Fixture;
use crate::netns::in_netns;
use crate::wire;

/// A device's frames, in the namespace of the thread that makes it.
pub struct Ears(OwnedFd);

impl Ears {
    pub fn on(device: &str) -> Self {
        let named = getifaddrs().unwrap().filter(|one| one.interface_name == device);
        let address: LinkAddr = named.filter_map(|one| one.address?.as_link_addr().copied()).next().unwrap();
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
        bind(fd.as_raw_fd(), &address).unwrap();
        Self(fd)
    }

    pub fn say(&self, frame: &[u8]) {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty()).unwrap();
    }

    /// What came before an ARP request, and it.
    pub fn until_arp(&self) -> Vec<Vec<u8>> {
        self.until(|frame| frame[12..14] == ARP.to_be_bytes())
    }

    /// What came before such a frame, and it.
    pub fn until(&self, mut wanted: impl FnMut(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let (mut heard, mut buffer, deadline) = (Vec::new(), [0; 2048], Instant::now() + PATIENCE);
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => {
                    heard.push(buffer[..length].to_vec());
                    if wanted(&buffer[..length]) {
                        return heard;
                    }
                }
                Err(_) => {
                    assert!(Instant::now() < deadline, "it does not come after {heard:x?}");
                    let _ = poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], PollTimeout::from(100_u8));
                }
            }
        }
    }
}

/// A gratuitous ARP request.
pub fn arp(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let message = Arp { header: [0, 1, 8, 0, 6, 4], operation: 1, sender: (mac, address), target: ([0; 6], address) };
    ethernet(BROADCAST, mac, ARP, &message.message())
}

pub fn is_dhcp(frame: &[u8]) -> bool {
    let port = |at: usize| frame.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    frame.get(12..14) == Some(&IP4.to_be_bytes()[..])
        && frame.get(23) == Some(&UDP)
        && [port(34), port(36)].iter().any(|port| matches!(port, Some(67 | 68)))
}

/// A guest's requests, as fast as its tap takes them, do not hold up another's lease.
#[test]
fn a_flood_does_not_delay_another_ones_lease() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({"name": "blue"}));
        fixture.subnet(&network, "192.0.2.0/24");
        let mut vm = Machine::start(&mut fixture, &network);
        let flooder = Machine::start(&mut fixture, &network);
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || {
                let frame = flooder.frame(&Message::of(DISCOVER).octets(1, flooder.mac), None);
                while !stop.load(Ordering::Relaxed) {
                    flooder.send_frame(&frame);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let began = Instant::now();
        let mut took: Vec<Duration> = (0..200)
            .map(|_| {
                let asked = Instant::now();
                let offer = vm.ask(&Message::of(DISCOVER));
                let ack = vm.ask(&Message::of(REQUEST).with(54, &offer.options[&54]).with(50, &offer.yiaddr.octets()));
                assert_eq!(ack.kind, ACK);
                asked.elapsed()
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        took.sort();
        let rate = sent.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
        eprintln!("DISCOVER to ACK beside {rate:.0} requests/s: p50 {:?}, p99 {:?}, max {:?}", took[100], took[198], took[199]);
        // The slowest ones hang on who else the machine works for.
        assert!(took[100] < Duration::from_millis(250), "{took:?}");
    });
}

/// A machine on the wire that says it is a guest is not heard: only what came by the port is.
#[test]
fn what_the_wire_asks_is_not_answered() {
    in_netns(|| {
        let wire = wire();
        let mut fixture = Fixture::start();
        let network = fixture.network_on("br-op");
        let mut vm = Machine::start(&mut fixture, &network);
        let liar = wire.inside(|| Ears::on("eth0"));
        let decline = Message::of(4).with(54, &[192, 0, 2, 1]).with(50, &vm.address.octets());
        for message in [decline, Message::of(DISCOVER), Message::of(REQUEST).with(50, &vm.address.octets())] {
            liar.say(&vm.frame(&message.octets(99, vm.mac), None));
        }
        assert_eq!(vm.ask(&Message::of(DISCOVER)).kind, OFFER);
        assert!(vm.answer(99, Duration::ZERO).is_none());
        assert_eq!(fixture.port(&vm.port)["nicd:reason"], json!(null));
    });
}

/// Who may send from another port's MAC, by a pair or without port security, does not ask in its name.
#[test]
fn a_guest_that_has_anothers_mac_is_not_heard_as_it() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let mut vm = Machine::start(&mut fixture, &network);
        let mac = vm.mac.map(|octet| format!("{octet:02x}")).join(":");
        let pair = json!([{"ip_address": "192.0.2.200", "mac_address": mac}]);
        for port in [json!({"port_security_enabled": false}), json!({ "allowed_address_pairs": pair })] {
            let mut wanted = port;
            wanted["network_id"] = json!(network);
            let id = fixture.create_port(wanted);
            let mut liar = Machine::of(&mut fixture, &id);
            let decline = Message::of(4).with(54, &[192, 0, 2, 1]).with(50, &vm.address.octets());
            for message in [decline, Message::of(DISCOVER), Message::of(REQUEST).with(50, &vm.address.octets())] {
                liar.send_frame(&vm.frame(&message.octets(99, vm.mac), None));
            }
            // By then all of that was heard, or is not.
            assert_eq!(liar.ask(&Message::of(DISCOVER)).kind, OFFER);
            assert!(vm.answer(99, Duration::ZERO).is_none());
            assert_eq!(fixture.port(&vm.port)["nicd:reason"], json!(null));
            assert_eq!(vm.ask(&Message::of(DISCOVER)).kind, OFFER);
        }
    });
}

#[test]
fn nonsense_is_counted_and_the_next_request_answered() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({"name": "blue", "mtu": 9000}));
        fixture.subnet(&network, "192.0.2.0/24");
        let mut vm = Machine::start(&mut fixture, &network);
        let whole = Message::of(DISCOVER).with(12, b"name").octets(5, vm.mac);
        let mut said: Vec<Vec<u8>> = (0..=whole.len()).map(|length| whole[..length].to_vec()).collect();
        said.push([&whole[..], &[0; 8000]].concat());
        said.push([&whole[..whole.len() - 1], &[61, 255].repeat(4000)].concat());
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            said.push(changed);
        }
        for message in said {
            vm.send_frame(&vm.frame(&message, None));
        }
        // A wrong checksum, and one that its NIC was to complete.
        let mut wrong = vm.frame(&whole, None);
        wrong[40..42].copy_from_slice(&[0x12, 0x34]);
        vm.send_frame(&wrong);
        let packet =
            Ip4 { id: 1, from: Ipv4Addr::UNSPECIFIED, to: Ipv4Addr::BROADCAST, protocol: UDP, options: vec![1; 8], fragment: 0 };
        vm.send_frame(&ethernet(BROADCAST, vm.mac, IP4, &packet.packet(&udp(68, 67, &Message::of(DISCOVER).octets(77, vm.mac)))));
        assert!(vm.answer(77, PATIENCE).is_some(), "IPv4's options are no reason");
        assert_eq!(vm.ask(&Message::of(DISCOVER)).kind, OFFER);
        let metrics = fixture.api.get("/metrics").text;
        let counted = |reason: &str| {
            let line = format!("nicd_dhcp_ignored_total{{reason=\"{reason}\"}} ");
            metrics
                .lines()
                .find_map(|text| text.strip_prefix(&line))
                .and_then(|number| number.parse::<u64>().ok())
                .unwrap_or_default()
        };
        assert!(counted("malformed") > 200 && counted("checksum") == 1, "{metrics}");
    });
}
