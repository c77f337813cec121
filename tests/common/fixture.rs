//! The fixture of most socket tests: a running daemon with a client and the event stream.

#![allow(dead_code)] // each test target uses its part

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::daemon::{Client, Daemon, Follower, PATIENCE};
use crate::netns::{Guest, run};

/// A running daemon with a client and the event stream.
#[derive(Debug)]
pub struct Fixture {
    pub daemon: Daemon,
    pub api: Client,
    pub events: Follower,
    /// Whether records and kernel have to agree at the end of the test.
    agrees: bool,
}

impl Drop for Fixture {
    /// Checks that records and kernel agree at the end of the test, after running operations have ended.
    fn drop(&mut self) {
        if std::thread::panicking() || !self.agrees || !self.daemon.runs() {
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        let mut api = self.daemon.client();
        loop {
            // A daemon that a test stopped, or left without descriptors, does not answer.
            let Ok(answer) = api.try_call("GET", "/nicd/v1/verify", &[], b"") else { return };
            let verified = answer.expect(200);
            if verified["deviations"] == json!([]) && verified["checked"]["under_way"] == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "in the end: {verified:#}");
            self.events.next(Duration::from_millis(20));
        }
    }
}

impl Fixture {
    /// Starts a daemon on an empty state directory.
    pub fn start() -> Self {
        Self::of(Daemon::start())
    }

    /// A fixture with a running daemon.
    pub fn of(daemon: Daemon) -> Self {
        let (api, events) = (daemon.client(), daemon.follow(None));
        Self { daemon, api, events, agrees: true }
    }

    /// What a comparison finds while no port is being built or repaired: such a port is left out of it.
    pub fn verified(&mut self) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let verified = self.api.get("/nicd/v1/verify").expect(200);
            if verified["checked"]["under_way"] == 0 {
                return verified;
            }
            assert!(Instant::now() < until, "{verified}");
        }
    }

    /// Skips the final check that records and kernel agree.
    pub fn leaves_deviations(&mut self) {
        self.agrees = false;
    }

    /// Starts the daemon again and follows events from now on.
    pub fn launch(&mut self) {
        self.daemon.launch();
        self.api = self.daemon.client();
        self.events = self.daemon.follow(None);
    }

    /// A network; answers its id.
    pub fn network(&mut self, network: Value) -> String {
        text(&self.api.post("/v2.0/networks", &json!({ "network": network })).expect(201)["network"]["id"])
    }

    /// A subnet; answers its id.
    pub fn subnet(&mut self, network: &str, cidr: &str) -> String {
        self.subnet_with(json!({"network_id": network, "cidr": cidr}))
    }

    /// A subnet with attributes of its own; answers its id.
    pub fn subnet_with(&mut self, subnet: Value) -> String {
        text(&self.api.post("/v2.0/subnets", &json!({ "subnet": subnet })).expect(201)["subnet"]["id"])
    }

    /// A network with one IPv4 and one IPv6 subnet; answers its id.
    pub fn usual_network(&mut self) -> String {
        let network = self.network(json!({"name": "blue"}));
        self.subnet(&network, "192.0.2.0/24");
        self.subnet(&network, "2001:db8::/64");
        network
    }

    /// A network with one IPv4 subnet on an existing bridge; answers its id.
    pub fn network_on(&mut self, bridge: &str) -> String {
        let network = self.network(json!({"name": "on a bridge", "nicd:bridge": bridge}));
        self.subnet(&network, "192.0.2.0/24");
        network
    }

    /// A guest; answers its id.
    pub fn server(&mut self, guest: Value) -> String {
        self.server_with(json!({ "guest": guest }))
    }

    /// A server with attributes of its own; answers its id.
    pub fn server_with(&mut self, server: Value) -> String {
        let id = Uuid::new_v4().to_string();
        self.api.put(&server_path(&id), &json!({ "server": server })).expect(201);
        id
    }

    /// A virtual machine; answers its id.
    pub fn vm(&mut self) -> String {
        self.server(json!({"kind": "vm"}))
    }

    /// A guest in a new namespace, and its id.
    pub fn guest(&mut self, name: &str) -> (Guest, String) {
        let guest = Guest::new(name);
        let id = self.server(json!({"kind": "netns", "path": guest.path}));
        (guest, id)
    }

    /// A guest in a new namespace that is attached to a network and ACTIVE, with the ids of its server and port.
    pub fn active_guest(&mut self, name: &str, network: &str) -> (Guest, String, String) {
        let (guest, server) = self.guest(name);
        let port = self.attach_to(&server, network);
        self.wait_status(&port, "ACTIVE");
        (guest, server, port)
    }

    /// A port on its own; answers its id.
    pub fn create_port(&mut self, port: Value) -> String {
        text(&self.api.post("/v2.0/ports", &json!({ "port": port })).expect(201)["port"]["id"])
    }

    /// Attaches as `how` says, and answers the port's id.
    pub fn attach(&mut self, server: &str, how: Value) -> String {
        let answer = self.api.post(&interfaces(server), &json!({ "interfaceAttachment": how }));
        text(&answer.expect(200)["interfaceAttachment"]["port_id"])
    }

    /// Attaches a new port on a network.
    pub fn attach_to(&mut self, server: &str, network: &str) -> String {
        self.attach(server, json!({ "net_id": network }))
    }

    /// Detaches a port, and waits until the kernel has deleted the device.
    pub fn detach(&mut self, server: &str, port: &str) {
        self.api.delete(&format!("{}/{port}", interfaces(server))).expect(202);
        self.wait_until(port, "gone or unbound", |port| port.is_none_or(|port| port["nicd:phase"] == "unbound"));
    }

    /// A port as Neutron shows it.
    pub fn port(&mut self, id: &str) -> Value {
        self.api.get(&format!("/v2.0/ports/{id}")).expect(200)["port"].clone()
    }

    /// All ports as Neutron shows them.
    pub fn ports(&mut self) -> Vec<Value> {
        self.api.get("/v2.0/ports").expect(200)["ports"].as_array().unwrap().clone()
    }

    /// The ids of all ports, sorted.
    pub fn port_ids(&mut self) -> Vec<String> {
        let mut ids: Vec<String> = self.ports().iter().map(|port| text(&port["id"])).collect();
        ids.sort();
        ids
    }

    /// A port's device.
    pub fn device(&mut self, id: &str) -> String {
        text(&self.port(id)["binding:vif_details"]["device"])
    }

    /// Waits until a port has a status, reading it now and after every event.
    pub fn wait_status(&mut self, id: &str, status: &str) -> Value {
        self.wait_until(id, status, |port| port.is_some_and(|port| port["status"] == status)).unwrap()
    }

    /// Waits until nicd has said on their bridges what it says of this many ports that it has made and that are ACTIVE.
    pub fn wait_announced(&mut self, ports: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.daemon.log().matches("it was told where a port is").count() < ports {
            assert!(Instant::now() < deadline, "{}", self.daemon.log());
            self.events.next(Duration::from_millis(20));
        }
    }

    /// Waits until an ACTIVE port says this of itself: it is looked at again after what health tells of it.
    pub fn wait_active(&mut self, id: &str, reason: Option<&str>) {
        let wanted = (json!("ACTIVE"), json!(reason));
        self.wait_until(id, &format!("{wanted:?}"), |port| {
            port.is_some_and(|port| (&port["status"], &port["nicd:reason"]) == (&wanted.0, &wanted.1))
        });
    }

    /// Waits until a port meets a condition; `None` stands for a deleted port.
    pub fn wait_until(&mut self, id: &str, what: &str, wanted: impl Fn(Option<&Value>) -> bool) -> Option<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.api.get(&format!("/v2.0/ports/{id}"));
            let port = (answer.status == 200).then(|| answer.json()["port"].clone());
            if wanted(port.as_ref()) {
                return port;
            }
            let event = self.events.next(deadline.saturating_duration_since(Instant::now()));
            assert!(event.is_some(), "port {id} is not {what} but {port:?}; events: {:#?}", self.events.seen);
        }
    }
}

/// The agent's path of a server.
pub fn server_path(server: &str) -> String {
    format!("/nicd/v1/servers/{server}")
}

/// Nova's path of a server's NICs.
pub fn interfaces(server: &str) -> String {
    format!("/v2.1/servers/{server}/os-interface")
}

/// A JSON string.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Creates an operator's bridge, up and with a fixed MAC.
pub fn foreign_bridge(name: &str, mtu: u32) {
    run(&format!("ip link add {name} type bridge"));
    // Configured so that the bridge takes no router advertisements from guests.
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra"), "0").expect("accept_ra");
    run(&format!("ip link set {name} address 02:00:00:00:00:01 mtu {mtu} up"));
}
