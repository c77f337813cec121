//! Exact rates of what guests send, measured.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fixture::{Fixture, text};
use crate::kernel_view::{link, try_link};
use crate::netns::{Guest, comes_true, in_netns, run};

/// What a frame carries beside its payload: UDP, IPv4 and Ethernet.
const HEADERS: usize = 42;

/// How long what another program took may be away.
const SOON: Duration = Duration::from_secs(2);

/// How many bytes a second arrive of what one guest sends another as fast as it can.
fn measured(from: &Guest, to: &Guest, address: &str) -> f64 {
    let (bound, target) = (format!("{address}:9"), format!("{address}:9"));
    let receiver = to.inside(move || UdpSocket::bind(bound).unwrap());
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let sender = from.inside(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(target).unwrap();
        socket
    });
    let sending = std::thread::spawn(move || {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1500) {
            let _ = sender.send(&[0; 1200]);
        }
    });
    let mut buffer = [0; 2000];
    // The burst comes first.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(400) {
        receiver.recv(&mut buffer).unwrap();
    }
    let (begun, mut bytes) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(1) {
        bytes += receiver.recv(&mut buffer).unwrap() + HEADERS;
    }
    let rate = f64::from(u32::try_from(bytes).unwrap()) / begun.elapsed().as_secs_f64();
    sending.join().unwrap();
    rate
}

fn limit(rate: u32) -> Value {
    json!({"nicd:limits": {"from_guest": {"rate_kbps": rate, "burst_kb": 200, "exact": true}}})
}

#[test]
fn an_exact_limit_holds_follows_changes_and_goes_with_the_port() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (a, server, port) = fixture.active_guest("a", &network);
        let (b, _, other) = fixture.active_guest("b", &network);
        let address = text(&fixture.port(&other)["fixed_ips"][0]["ip_address"]);
        let path = format!("/v2.0/ports/{port}");
        let ifb = format!("nicd-ifb-{port}");
        for rate in [40_000_u32, 8_000, 80_000] {
            fixture.api.put(&path, &json!({"port": limit(rate)})).expect(200);
            assert_eq!(fixture.verified()["deviations"], json!([]));
            let wanted = f64::from(rate) * 125.0;
            let came = measured(&a, &b, &address);
            eprintln!("{rate} kbit/s: {:.3} of {:.3} MB/s", came / 1e6, wanted / 1e6);
            assert!((0.93..1.03).contains(&(came / wanted)), "{rate} kbit/s: {came} of {wanted} bytes/s");
        }
        assert_eq!(link(&ifb)["linkinfo"]["info_kind"], "ifb");
        // What another program takes away is put back.
        let device = fixture.device(&port);
        for change in
            [format!("tc filter del dev {device} ingress"), format!("ip link del {ifb}"), format!("ip link set {ifb} down")]
        {
            run(&change);
            let right = || {
                let shown = run(&format!("tc filter show dev {device} ingress"));
                shown.contains("mirred") && try_link(&ifb).is_some_and(|ifb| ifb["flags"].to_string().contains("UP"))
            };
            comes_true(SOON, right, || change.clone());
            fixture.wait_status(&port, "ACTIVE");
        }
        // A restart finds it right.
        fixture.daemon.term();
        fixture.launch();
        let text = fixture.api.get("/metrics").text;
        assert!(text.contains("nicd_kernel_writes_total 0\n"), "{text}");
        // A limit of the usual kind takes its place, and then none.
        for limits in [json!({"from_guest": {"rate_kbps": 8000}}), Value::Null] {
            fixture.api.put(&path, &json!({"port": {"nicd:limits": limits}})).expect(200);
            assert!(!run(&format!("tc filter show dev {device} ingress")).contains("mirred"));
            assert_eq!(fixture.verified()["deviations"], json!([]));
        }
        // Many times what the last limit let through, also on a busy machine.
        assert!(measured(&a, &b, &address) > 5e6);
        fixture.api.put(&path, &json!({"port": limit(8000)})).expect(200);
        fixture.detach(&server, &port);
        comes_true(SOON, || try_link(&ifb).is_none(), || "the ifb is still there".to_owned());
    });
}

#[test]
fn a_change_of_an_exact_limit_loses_no_frame() {
    const FRAMES: u32 = 3000;
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (a, _, port) = fixture.active_guest("a", &network);
        let (b, _, other) = fixture.active_guest("b", &network);
        let address = text(&fixture.port(&other)["fixed_ips"][0]["ip_address"]);
        let (bound, target) = (format!("{address}:9"), format!("{address}:9"));
        let receiver = b.inside(move || UdpSocket::bind(bound).unwrap());
        receiver.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let sender = a.inside(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(target).unwrap();
            socket
        });
        let sending = std::thread::spawn(move || {
            for number in 0..FRAMES {
                sender.send(&number.to_be_bytes()).unwrap();
                // A guest sends at its own pace.
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let receiving = std::thread::spawn(move || {
            let mut came = std::collections::BTreeSet::new();
            let mut buffer = [0; 4];
            while receiver.recv(&mut buffer).is_ok() {
                came.insert(u32::from_be_bytes(buffer));
            }
            came.len()
        });
        let path = format!("/v2.0/ports/{port}");
        let usual = json!({"nicd:limits": {"from_guest": {"rate_kbps": 50_000}}});
        let none = json!({"nicd:limits": null});
        let mut changes = 0;
        while !sending.is_finished() {
            for change in [limit(40_000), limit(80_000), none.clone(), limit(20_000), usual.clone()] {
                fixture.api.put(&path, &json!({ "port": change })).expect(200);
                changes += 1;
            }
        }
        sending.join().unwrap();
        assert_eq!(receiving.join().unwrap(), FRAMES as usize, "after {changes} changes");
        assert!(changes > 20, "{changes} changes");
    });
}
