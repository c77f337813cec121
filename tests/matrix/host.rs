//! One network namespace with a daemon in it, which is taken from one pair to the next.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nicd::failpoints::{self, FaultRule, Hit};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::daemon::{Answer, PATIENCE};
use crate::fixture::{Fixture, foreign_bridge, interfaces, server_path, text};
use crate::kernel_view::{filtered_ports, has_flag, links, marked};
use crate::netns::{Guest, json as json_of, run, try_run};
use crate::peer::Peer;
use crate::works::{Port, Scene, Shown, Work};

/// The operator's bridge.
pub const BR0: &str = "br0";

/// The guest's namespace.
pub const GUEST: &str = "blue";

/// The machine's monitor.
pub const MONITOR: &str = "/run/monitor";

/// How many turns the watch takes is chance: the last ones of one run are not in every other.
pub const NOT_REACHED: &str = "not reached";

/// How long to wait before asking again for what sends no event.
const AGAIN: Duration = Duration::from_millis(2);

/// See the module.
pub struct Host {
    fixture: Fixture,
    _guest: Guest,
    machine: Peer,
    hit_log: std::path::PathBuf,
}

impl Host {
    /// A bridge of the operator's, a guest's namespace, and a daemon that has just started for the first time.
    pub fn new() -> Self {
        foreign_bridge(BR0, 1500);
        let guest = Guest::new(GUEST);
        let machine = Peer::start(MONITOR);
        Self { fixture: Fixture::start(), _guest: guest, machine, hit_log: "/run/failpoints".into() }
    }

    /// Throws everything away, so that what one pair left is not blamed on the next.
    pub fn renew(&mut self) {
        if self.fixture.daemon.is_running() {
            self.fixture.daemon.kill();
        }
        self.machine.renew();
        let names: Vec<String> = links().iter().map(|link| text(&link["ifname"])).collect();
        for name in names.iter().filter(|name| !["lo", BR0].contains(&name.as_str())) {
            // The other end of one that went with it is gone.
            let _ = try_run(&format!("ip link del {name}"));
        }
        std::fs::remove_dir_all(self.fixture.daemon.state()).unwrap();
        std::fs::create_dir(self.fixture.daemon.state()).unwrap();
        self.fixture.launch();
    }

    /// The failpoints that an operation hits in every run, from the start of the daemon.
    pub fn hits(&mut self, work: Work) -> Vec<Hit> {
        let mut runs: Vec<Vec<Hit>> = (0..3).map(|_| self.hits_once(work)).collect();
        let mut hits = runs.pop().expect("three runs");
        for run in runs {
            let mut left = run;
            hits.retain(|hit| left.iter().position(|one| one == hit).map(|at| left.swap_remove(at)).is_some());
        }
        hits
    }

    fn hits_once(&mut self, work: Work) -> Vec<Hit> {
        let scene = work.prepare(&mut self.fixture);
        let before = self.shown(&scene).unwrap();
        self.end_gently(work);
        let (answer, _) = self.run(work, &scene, None);
        let hits = self.passed();
        assert!(answer.is_none_or(|answer| answer.status < 300));
        self.settle(work, &scene, &before, &["whole"]).unwrap_or_else(|wrong| panic!("{work:?}: {wrong}"));
        self.restart();
        self.clean(&scene);
        hits
    }

    /// Runs an operation with one injected fault; how it ended.
    pub fn inject(&mut self, work: Work, rule: &FaultRule) -> Result<&'static str, String> {
        // What is counted besides the work's own hits comes in another number now and then.
        for _ in 0..5 {
            let scene = work.prepare(&mut self.fixture);
            let before = self.shown(&scene)?;
            self.end_gently(work);
            let (answer, reached) = self.run(work, &scene, Some(rule));
            let answered = answer.as_ref().map(|answer| answer.status);
            let sides: &[&'static str] = match answered {
                Some(200..300) => &["whole"],
                Some(_) => &["absent"],
                None if work.is_start() => &["whole"],
                None => &["whole", "absent"],
            };
            self.restart();
            let told = |wrong| format!("answered {answered:?} ({}); {wrong}", answer.as_ref().map_or("", |answer| &answer.text));
            let side = self.settle(work, &scene, &before, sides).map_err(told)?;
            self.clean(&scene);
            if reached {
                return Ok(match (answered, side) {
                    (None, "whole") => "silent and whole",
                    (None, _) => "silent and absent",
                    (Some(200..300), _) => "success and whole",
                    _ => "error and absent",
                });
            }
        }
        Ok(NOT_REACHED)
    }

    /// Starts the daemon with a fault, and requests the operation; the answer, and whether the fault was injected.
    fn run(&mut self, work: Work, scene: &Scene, rule: Option<&FaultRule>) -> (Option<Answer>, bool) {
        let _ = std::fs::remove_file(&self.hit_log);
        self.fixture.daemon.environment = vec![("NICD_FAILPOINTS_LOG", self.hit_log.display().to_string())];
        self.fixture.daemon.environment.extend(rule.map(|rule| ("NICD_FAILPOINTS", rule.to_string())));
        let mut answer = None;
        if self.fixture.daemon.try_launch() {
            self.fixture.api = self.fixture.daemon.client();
            answer = work.ask(&mut self.fixture, scene);
            self.go_on(rule.is_some_and(|rule| rule.fault.is_kill()));
        }
        self.fixture.daemon.environment.clear();
        let log = std::fs::read_to_string(&self.hit_log).unwrap_or_default();
        (answer, log.lines().any(|line| line == failpoints::INJECTED))
    }

    /// What is done behind the answer belongs to the work: until every port is at rest, or the daemon has died.
    fn go_on(&mut self, dies: bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut quiet = 0;
        // A second look a moment later: one who dies does it while it is asked, or behind it.
        while quiet < if dies { 3 } else { 1 } && !self.fixture.daemon.has_ended() && Instant::now() < deadline {
            match self.fixture.api.try_call("GET", "/v2.0/ports", &[], b"") {
                Ok(answer) if at_rest(&answer) => quiet += 1,
                _ => quiet = 0,
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn passed(&self) -> Vec<Hit> {
        let log = std::fs::read_to_string(&self.hit_log).unwrap();
        let hits = log.lines().filter(|line| *line != failpoints::INJECTED).map(|line| line.parse::<Hit>().unwrap());
        // Behind the work's own answer come those to this test's questions.
        let mut answers = 0;
        let own = |hit: &Hit| {
            answers += usize::from(hit.name == "reply.http");
            hit.name != "reply.http" || answers == 1
        };
        hits.filter(own).collect()
    }

    /// Ends the daemon that made the scene; the host is then started anew where the work wants that.
    fn end_gently(&mut self, work: Work) {
        self.fixture.daemon.term();
        if work == Work::Rebuild {
            marked().iter().for_each(|name| _ = run(&format!("ip link del {name}")));
        }
    }

    /// Ends the daemon as it may be, and starts one to which nothing happens.
    fn restart(&mut self) {
        match self.fixture.daemon.is_running() {
            true if !self.fixture.daemon.has_ended() => self.fixture.daemon.kill(),
            true => _ = self.fixture.daemon.bury(),
            false => {}
        }
        self.fixture.launch();
    }

    /// Waits until all is as one of the sides says, and answers which.
    fn settle(&mut self, work: Work, scene: &Scene, before: &Shown, sides: &[&'static str]) -> Result<&'static str, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let wrong = match self.check(work, scene, before, sides) {
                Ok(side) => return Ok(side),
                Err(wrong) => wrong,
            };
            if Instant::now() >= deadline {
                return Err(wrong);
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn check(&mut self, work: Work, scene: &Scene, before: &Shown, sides: &[&'static str]) -> Result<&'static str, String> {
        let now = self.shown(scene)?;
        self.kernel_has(&now)?;
        self.machine_has(scene, &now)?;
        self.store_has(&now)?;
        let whole = work.is_whole(scene, before, &now);
        match whole {
            Ok(()) if sides.contains(&"whole") => Ok("whole"),
            _ if now == *before && sides.contains(&"absent") => Ok("absent"),
            Ok(()) => Err(format!("it is whole: {now:?}")),
            Err(wrong) => Err(wrong),
        }
    }

    /// What a client is shown, once nothing is under way.
    fn shown(&mut self, scene: &Scene) -> Result<Shown, String> {
        let answer = self.fixture.api.get("/v2.0/ports");
        if !at_rest(&answer) {
            return Err(format!("under way: {}", answer.text));
        }
        let port = |port: &Value| {
            let ips = port["fixed_ips"].as_array().unwrap().iter().map(|ip| text(&ip["ip_address"])).collect();
            let shown = Port {
                server: text(&port["device_id"]),
                mac: text(&port["mac_address"]),
                ips,
                admin_up: port["admin_state_up"] == true,
                limits: port["nicd:limits"].clone(),
            };
            (text(&port["id"]), shown)
        };
        let ports = answer.expect(200)["ports"].as_array().unwrap().iter().map(port).collect();
        let servers = self.fixture.api.get("/nicd/v1/servers").expect(200);
        let servers = servers["servers"].as_array().unwrap().iter().map(|server| text(&server["id"])).collect();
        let network = self.fixture.api.get(&format!("/v2.0/networks/{}", scene.network));
        let mtu = (network.status == 200).then(|| network.json()["network"]["mtu"].as_u64().unwrap());
        let families = if network.status == 200 { network.json()["network"]["subnets"].as_array().unwrap().len() } else { 2 };
        Ok(Shown { ports, servers, mtu, families })
    }

    /// The kernel has a right device for each attached port, and nothing else of nicd's.
    fn kernel_has(&self, shown: &Shown) -> Result<(), String> {
        let links = links();
        let mut marks: BTreeSet<String> = BTreeSet::new();
        for link in &links {
            let names = link["altnames"].as_array().cloned().unwrap_or_default();
            let ours: Vec<String> = names.iter().map(text).filter(|name| name.starts_with("nicd-")).collect();
            let name = text(&link["ifname"]);
            if ours.is_empty() && !["lo", BR0].contains(&name.as_str()) {
                return Err(format!("left without a mark: {link}"));
            }
            if link["linkinfo"]["info_kind"] != "bridge" {
                marks.extend(ours);
            }
        }
        let attached: BTreeSet<String> =
            shown.ports.iter().filter(|(_, port)| !port.server.is_empty()).map(|(id, _)| format!("nicd-{id}")).collect();
        let is_exact = |port: &Port| !port.server.is_empty() && port.limits["from_guest"]["exact"] == true;
        let ifbs = shown.ports.iter().filter(|(_, port)| is_exact(port)).map(|(id, _)| format!("nicd-ifb-{id}"));
        let wanted: BTreeSet<String> = attached.iter().cloned().chain(ifbs).collect();
        if marks != wanted {
            return Err(format!("devices of {marks:?}, to be there are {wanted:?}"));
        }
        let filtered: BTreeSet<String> = filtered_ports().iter().map(|id| format!("nicd-{id}")).collect();
        if filtered != attached {
            return Err(format!("filters of {filtered:?}, attached are {attached:?}"));
        }
        for (id, port) in shown.ports.iter().filter(|(_, port)| !port.server.is_empty()) {
            let mark = format!("nicd-{id}");
            let has = |link: &&Value| link["altnames"].as_array().is_some_and(|names| names.iter().any(|name| *name == mark));
            let link = links.iter().find(has).expect("it was found before");
            device_is_right(link, port, shown).map_err(|what| format!("{what} of {link}"))?;
            if link["linkinfo"]["info_kind"] == "veth" {
                guest_is_right(port)?;
            }
        }
        Ok(())
    }

    /// The machine has a NIC for each port that is attached to it, and holds nothing else.
    fn machine_has(&self, scene: &Scene, shown: &Shown) -> Result<(), String> {
        let attached = shown.ports.iter().filter(|(_, port)| !scene.machine.is_empty() && port.server == scene.machine);
        let wanted: BTreeSet<String> = attached.map(|(id, _)| format!("nicd-{id}")).collect();
        let has = self.machine.nics()?;
        if has == wanted { Ok(()) } else { Err(format!("the machine has {has:?}, attached are {wanted:?}")) }
    }

    /// The store has exactly what is shown, read by another reader.
    fn store_has(&self, shown: &Shown) -> Result<(), String> {
        let file = self.fixture.daemon.state().join("nicd.db");
        let store = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut rows = store.prepare("SELECT id, coalesce(server_id, ''), mac FROM ports ORDER BY id").unwrap();
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        let stored: Vec<(String, String, String)> = rows.map(Result::unwrap).collect();
        let wanted: Vec<_> = shown.ports.iter().map(|(id, port)| (id.clone(), port.server.clone(), port.mac.clone())).collect();
        if stored != wanted {
            return Err(format!("stored {stored:?}, shown {wanted:?}"));
        }
        let mut rows = store.prepare("SELECT address FROM addresses").unwrap();
        let held: BTreeSet<String> = rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let ips: BTreeSet<String> = shown.ports.values().flat_map(|port| port.ips.clone()).collect();
        if held == ips { Ok(()) } else { Err(format!("held {held:?}, shown {ips:?}")) }
    }

    /// Takes everything away again.
    fn clean(&mut self, scene: &Scene) {
        for port in self.fixture.ports() {
            let (id, server) = (text(&port["id"]), text(&port["device_id"]));
            match server.is_empty() {
                true => _ = self.fixture.api.delete(&format!("/v2.0/ports/{id}")).expect(204),
                false => {
                    self.fixture.api.delete(&format!("{}/{id}", interfaces(&server))).expect(202);
                    if self
                        .fixture
                        .wait_until(&id, "gone", |port| port.is_none_or(|port| port["nicd:phase"] == "unbound"))
                        .is_some()
                    {
                        self.fixture.api.delete(&format!("/v2.0/ports/{id}")).expect(204);
                    }
                }
            }
        }
        for server in [&scene.vm, &scene.guest, &scene.machine].into_iter().filter(|server| !server.is_empty()) {
            self.fixture.api.delete(&server_path(server));
        }
        self.fixture.api.delete(&format!("/v2.0/networks/{}", scene.network));
        assert!(marked().is_empty(), "left: {:?}", marked());
    }
}

fn device_is_right(link: &Value, port: &Port, shown: &Shown) -> Result<(), String> {
    let right = |what: &str, right: bool| if right { Ok(()) } else { Err(what.to_owned()) };
    let info = &link["linkinfo"];
    right("MAC", text(&link["address"])[3..] == port.mac[3..] && text(&link["address"]).starts_with("fe"))?;
    right("bridge", link["master"].is_string() && info["info_slave_kind"] == "bridge")?;
    right("MTU", link["mtu"].as_u64() == shown.mtu)?;
    right("up", has_flag(link, "UP") == port.admin_up)?;
    right("alias", link["ifalias"].as_str().is_some_and(|alias| alias.starts_with("nicd ")))?;
    right("address generation", link["inet6_addr_gen_mode"] == "none")?;
    right("learning", info["info_slave_data"]["learning"] == false)?;
    match info["info_kind"].as_str() {
        Some("tun") => right("persistence", info["info_data"]["persist"] == true),
        kind => right("kind", kind == Some("veth")),
    }
}

/// The guest has one NIC, with the port's MAC and addresses.
fn guest_is_right(port: &Port) -> Result<(), String> {
    let shown = json_of(&format!("ip -n {GUEST} -j addr"));
    let nics: Vec<&Value> = shown.as_array().unwrap().iter().filter(|nic| nic["ifname"] != "lo").collect();
    let [nic] = nics[..] else { return Err(format!("the guest's NICs: {nics:?}")) };
    let local = |address: &Value| text(&address["local"]);
    let mut ips: Vec<String> =
        nic["addr_info"].as_array().unwrap().iter().map(local).filter(|ip| !ip.starts_with("fe80")).collect();
    let mut wanted = port.ips.clone();
    ips.sort();
    wanted.sort();
    if text(&nic["address"]) == port.mac && ips == wanted && has_flag(nic, "UP") {
        Ok(())
    } else {
        Err(format!("the guest's NIC: {nic}"))
    }
}

/// Whether no port is on its way.
fn at_rest(answer: &Answer) -> bool {
    let ports = answer.json()["ports"].as_array().cloned().unwrap_or_default();
    answer.status == 200
        && ports.iter().all(|port| ["wired", "active", "unbound"].iter().any(|phase| port["nicd:phase"] == *phase))
}
