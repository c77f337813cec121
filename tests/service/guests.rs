//! Guests inside a machine, and traffic between them.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};

use crate::daemon::Client;
use crate::machine::Machine;

/// A port with what tests ask of it.
#[derive(Debug)]
pub struct Nic {
    pub server: String,
    pub port: String,
    pub device: String,
    pub address: Ipv4Addr,
}

/// Makes a network; answers its id.
pub fn network(api: &mut Client) -> String {
    let network = api.post("/v2.0/networks", &json!({"network": {"name": "blue"}})).expect(201)["network"]["id"].clone();
    api.post("/v2.0/subnets", &json!({"subnet": {"network_id": network, "cidr": "192.0.2.0/24"}})).expect(201);
    network.as_str().unwrap().to_owned()
}

/// Attaches a new guest to a network.
pub fn attach(api: &mut Client, guest: &Value, network: &str) -> Nic {
    let server = uuid::Uuid::new_v4().to_string();
    api.put(&format!("/nicd/v1/servers/{server}"), &json!({"server": {"guest": guest}})).expect(201);
    let path = format!("/v2.1/servers/{server}/os-interface");
    let made = api.post(&path, &json!({"interfaceAttachment": {"net_id": network}})).expect(200);
    let nic = &made["interfaceAttachment"];
    let port = nic["port_id"].as_str().unwrap().to_owned();
    let shown = api.get(&format!("/v2.0/ports/{port}")).expect(200);
    let device = shown["port"]["binding:vif_details"]["device"].as_str().unwrap().to_owned();
    Nic { server, port, device, address: nic["fixed_ips"][0]["ip_address"].as_str().unwrap().parse().unwrap() }
}

/// Makes a namespace inside the machine, now, and attaches it.
pub fn attach_namespace(machine: &Machine, api: &mut Client, name: &str, network: &str) -> Nic {
    machine.run(&format!("ip netns add {name}"));
    attach(api, &json!({"kind": "netns", "path": format!("/run/netns/{name}")}), network)
}

/// A socket opened inside a machine's namespace.
fn socket_in(machine: &Machine, name: &str, address: (Ipv4Addr, u16)) -> UdpSocket {
    let namespace = std::fs::File::open(machine.path(&format!("/run/netns/{name}"))).unwrap();
    let open = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        UdpSocket::bind(address).unwrap()
    };
    thread::spawn(open).join().unwrap()
}

/// 10,000 packets a second from one guest to another, each counted at both ends.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    sending: JoinHandle<usize>,
    receiving: JoinHandle<usize>,
}

impl Traffic {
    pub fn start(machine: &Machine, from: (&str, Ipv4Addr), to: (&str, Ipv4Addr)) -> Self {
        let receiver = socket_in(machine, to.0, (to.1, 9));
        let sender = socket_in(machine, from.0, (from.1, 0));
        setsockopt(&receiver, sockopt::RcvBufForce, &(16 << 20)).unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        sender.connect((to.1, 9)).unwrap();
        // The neighbour is found before it counts.
        sender.send(b"first").unwrap();
        receiver.recv(&mut [0; 64]).expect("the way from guest to guest");
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let sending = thread::spawn(move || send(&sender, &until));
        let receiving = thread::spawn(move || (0_usize..).take_while(|_| receiver.recv(&mut [0; 64]).is_ok()).count());
        Self { stop, sending, receiving }
    }

    /// Ends it; how many were sent, and how many of them did not arrive.
    pub fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sending.join().unwrap();
        (sent, sent - self.receiving.join().unwrap())
    }
}

fn send(socket: &UdpSocket, stop: &AtomicBool) -> usize {
    let (start, mut sent) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = usize::try_from(start.elapsed().as_micros() / 100).unwrap();
        while sent < due {
            socket.send(b"0123456789").unwrap();
            sent += 1;
        }
        thread::sleep(Duration::from_micros(500));
    }
    sent
}
