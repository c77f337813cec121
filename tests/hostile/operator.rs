//! The well-behaved client, root: reads on a kept connection and on fresh ones, and does real work, all the while.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::{Answer, Client, Daemon};
use crate::gauges::percentile;

/// Between two rounds: a dashboard that is in a hurry.
const PACE: Duration = Duration::from_millis(5);

/// One round in so many is work.
const WORK: u64 = 10;

/// See the module.
#[derive(Debug)]
pub struct Operator<'a> {
    daemon: &'a Daemon,
    api: Client,
    network: String,
    keeps: Value,
    rounds: u64,
    /// Of GETs on a connection that was there, in microseconds.
    pub kept: Vec<u128>,
    /// Of GETs with connect and accept.
    pub fresh: Vec<u128>,
    /// Of PUT server, attach, detach and DELETE server, together.
    pub work: Vec<u128>,
}

impl<'a> Operator<'a> {
    /// With a network, a subnet, and a server with one NIC that are to be there at the end.
    pub fn new(daemon: &'a Daemon) -> Self {
        let mut api = daemon.client();
        let network = json!({"network": {"name": "the operator's"}});
        let network = text(&api.post("/v2.0/networks", &network).expect(201)["network"]["id"]);
        let subnet = json!({"subnet": {"network_id": network, "cidr": "198.51.100.0/24"}});
        api.post("/v2.0/subnets", &subnet).expect(201);
        let server = uuid::Uuid::new_v4();
        api.put(&format!("/nicd/v1/servers/{server}"), &json!({"server": {"guest": {"kind": "vm"}}})).expect(201);
        let attach = json!({"interfaceAttachment": {"net_id": network}});
        let port = api.post(&format!("/v2.1/servers/{server}/os-interface"), &attach).expect(200);
        let keeps = json!({"server": server, "port": port["interfaceAttachment"]["port_id"]});
        Self { daemon, api, network, keeps, rounds: 0, kept: Vec::new(), fresh: Vec::new(), work: Vec::new() }
    }

    /// One round of reading, and sometimes of work.
    pub fn round(&mut self) {
        self.rounds += 1;
        for path in ["/nicd/v1/health", "/v2.0/ports"] {
            let api = &mut self.api;
            timed(&mut self.kept, || api.get(path)).expect(200);
        }
        let mut newcomer = self.daemon.client();
        timed(&mut self.fresh, || newcomer.get("/nicd/v1/health")).expect(200);
        if self.rounds.is_multiple_of(WORK) {
            let began = Instant::now();
            self.work();
            self.work.push(began.elapsed().as_micros());
        }
        std::thread::sleep(PACE);
    }

    /// A server comes, gets a NIC, loses it and goes.
    fn work(&mut self) {
        let server = uuid::Uuid::new_v4();
        let path = format!("/nicd/v1/servers/{server}");
        let guest = json!({"server": {"name": "comes and goes", "guest": {"kind": "vm"}}});
        self.api.put(&path, &guest).expect(201);
        let nics = format!("/v2.1/servers/{server}/os-interface");
        let attach = json!({"interfaceAttachment": {"net_id": self.network}});
        let port = text(&self.api.post(&nics, &attach).expect(200)["interfaceAttachment"]["port_id"]);
        self.api.delete(&format!("{nics}/{port}")).expect(202);
        self.api.delete(&format!("{path}?detach=true")).expect(204);
    }

    /// What is to be there at the end is there.
    pub fn finds_its_own(&mut self) {
        let (server, port) = (text(&self.keeps["server"]), text(&self.keeps["port"]));
        let nics = self.api.get(&format!("/v2.1/servers/{server}/os-interface")).expect(200);
        assert_eq!(nics["interfaceAttachments"].as_array().map(Vec::len), Some(1), "{nics}");
        assert_eq!(nics["interfaceAttachments"][0]["port_id"], port.as_str());
        let network = self.api.get(&format!("/v2.0/networks/{}", self.network)).expect(200);
        assert_eq!(network["network"]["name"], "the operator's");
    }

    /// Its port's id.
    pub fn port(&self) -> String {
        text(&self.keeps["port"])
    }

    /// p50, p99 and the most, in milliseconds, of each.
    pub fn figures(&mut self) -> [(&'static str, [f64; 3], usize); 3] {
        [("GET", &mut self.kept), ("GET, fresh connection", &mut self.fresh), ("work", &mut self.work)].map(|(what, all)| {
            all.sort_unstable();
            #[allow(clippy::cast_precision_loss)] // microseconds of minutes
            let ms = [50, 99, 100].map(|hundredths| percentile(all, hundredths) as f64 / 1000.0);
            (what, ms, all.len())
        })
    }
}

fn timed(into: &mut Vec<u128>, call: impl FnOnce() -> Answer) -> Answer {
    let began = Instant::now();
    let answer = call();
    into.push(began.elapsed().as_micros());
    answer
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
