//! The first frames of a guest: it asks from its device's first instant on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{ACK, DISCOVER, Machine, Message, OFFER, REQUEST};
use crate::daemon::PATIENCE;
use crate::fixture::{Fixture, text};
use crate::netns::in_netns;

/// How often it asks.
const APART: Duration = Duration::from_millis(10);

#[test]
fn who_asks_from_the_first_instant_has_its_lease_once_its_port_is_active() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let mut took = Vec::new();
        for _ in 0..5 {
            let port = fixture.create_port(json!({ "network_id": network }));
            let (server, shown) = (fixture.vm(), fixture.port(&port));
            let active = Arc::new(AtomicBool::new(false));
            let guest = std::thread::spawn({
                let (active, mac, address) = (Arc::clone(&active), text(&shown["mac_address"]), shown["fixed_ips"][0].clone());
                move || ask(&port, &mac, &text(&address["ip_address"]), &active)
            });
            let port = fixture.attach(&server, json!({"port_id": shown["id"]}));
            fixture.wait_status(&port, "ACTIVE");
            active.store(true, Ordering::Release);
            took.push(guest.join().unwrap());
        }
        eprintln!("ACTIVE seen → lease: {took:?}");
        took.sort();
        assert!(took[2] < Duration::from_millis(50), "{took:?}");
    });
}

/// Asks until the port is known to be ACTIVE, and then once more: how long after that there is a lease. No request after it is lost.
fn ask(port: &str, mac: &str, address: &str, active: &AtomicBool) -> Duration {
    let mut vm = Machine::early(port, mac, address);
    let discover = Message::of(DISCOVER);
    while !active.load(Ordering::Acquire) {
        if let Some(xid) = vm.try_send(&discover)
            && vm.answer(xid, APART).is_some()
        {
            continue;
        }
        std::thread::yield_now();
    }
    let begin = Instant::now();
    let xid = vm.try_send(&discover).expect("it takes frames");
    let offer = vm.answer(xid, PATIENCE).expect("the first request after ACTIVE is answered");
    assert_eq!((offer.kind, offer.yiaddr), (OFFER, vm.address));
    let request = Message::of(REQUEST).with(54, &offer.options[&54]).with(50, &vm.address.octets());
    assert_eq!(vm.ask(&request).kind, ACK);
    begin.elapsed()
}
